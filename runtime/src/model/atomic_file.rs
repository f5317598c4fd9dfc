//! Files that are either whole or absent.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Why a file could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{path:?} cannot be written: {source}{remedy}", remedy = remedy(source))]
pub struct WriteError {
    /// The file, or the folder it belongs in.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

fn remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free some space or choose another folder with ISOTHERM_HOME"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; choose a folder you may write to with ISOTHERM_HOME"
        }
        _ => "",
    }
}

/// Writes `path` through a temporary file in the same folder, which is created if need be: content first, then the
/// file is flushed to disk, then renamed. Readers see the old file or the new one; a failure leaves neither a partial
/// file nor a temporary one. Returns what `fill` returns.
///
/// # Errors
/// When the system refuses, or `fill` fails with `E`.
pub fn write_whole<T, E: From<WriteError>>(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> Result<T, E>,
) -> Result<T, E> {
    let failed = |source| E::from(WriteError { path: path.into(), source });
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder).map_err(failed)?;
    let temporary = temporary_in(folder).map_err(failed)?;
    let mut out = BufWriter::with_capacity(1 << 20, temporary);
    let answer = fill(&mut out)?;
    let temporary = out.into_inner().map_err(|error| failed(error.into_error()))?;
    temporary.as_file().sync_all().map_err(failed)?;
    temporary.persist(path).map_err(|error| failed(error.error))?;
    // The rename itself is durable only when the folder is. Not every system lets a folder be opened for this.
    if let Ok(folder) = File::open(folder) {
        drop(folder.sync_all());
    }
    Ok(answer)
}

/// A new file with a name of its own and the permissions that any new file would get; temporary files are private by
/// default, and these become permanent.
fn temporary_in(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".isotherm-").suffix(".part");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn a_written_file_has_the_permissions_of_any_new_file() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (plain, whole) = (folder.path().join("plain"), folder.path().join("whole"));
        fs::write(&plain, b"").expect("writable");
        write_whole::<_, WriteError>(&whole, |_| Ok(())).expect("writable");
        let mode = |path: &Path| path.metadata().expect("there").permissions().mode();
        assert_eq!(mode(&whole), mode(&plain));
    }

    #[test]
    fn a_failed_write_keeps_the_old_file_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("deep/file");
        write_whole::<_, WriteError>(&path, |out| {
            out.write_all(b"old").map_err(|source| WriteError { path: path.clone(), source })
        })
        .expect("the first write succeeds");
        let failed: Result<(), WriteError> = write_whole(&path, |out| {
            out.write_all(b"new").expect("buffered");
            Err(WriteError { path: path.clone(), source: io::ErrorKind::StorageFull.into() })
        });
        let message = failed.expect_err("the second write fails").to_string();
        assert!(message.contains("free some space"), "{message}");
        assert_eq!(fs::read(&path).expect("still there"), b"old");
        assert_eq!(fs::read_dir(path.parent().expect("has one")).expect("readable").count(), 1);
    }
}
