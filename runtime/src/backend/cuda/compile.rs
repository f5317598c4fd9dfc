//! From source to PTX for one card, kept by the digest of everything that it depends on.

use super::kernels::Module;
use super::library;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Compute capabilities, times ten, that the compilers of CUDA 12.9 and 13.0 make PTX for. A newer card runs the PTX of the
/// newest one that is not above it.
const KNOWN: [u32; 11] = [75, 80, 86, 87, 89, 90, 100, 101, 103, 120, 121];

/// Why a module could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// No run-time compiler.
    #[error(
        "its run-time compiler libnvrtc is not installed; the CUDA toolkit has it, and pip: nvidia-cuda-nvrtc-cu12, or \
         nvidia-cuda-nvrtc where the driver is of CUDA 13"
    )]
    NoCompiler,
    /// Too old a card.
    #[error("compute capability {}.{} is below 7.5, the least that kernels are compiled for", capability / 10, capability % 10)]
    TooOld {
        /// The card's, times ten.
        capability: u32,
    },
    /// The compiler refused the source.
    #[error("the compiler refused module {module}: {log}")]
    Refused {
        /// The module.
        module: String,
        /// What it said.
        log: String,
    },
}

/// The architecture to compile for, among those that the compiler makes PTX for, if it says which.
fn architecture(capability: u32, made: Option<&[u32]>) -> Result<u32, MakeError> {
    let fits = |known: &u32| *known <= capability && made.is_none_or(|made| made.contains(known));
    KNOWN.into_iter().rev().find(fits).ok_or(MakeError::TooOld { capability })
}

/// PTX of a module for a card, from the cache where it is there.
///
/// # Errors
/// As [`MakeError`] says.
pub fn ptx(module: Module, capability: u32, cache: Option<&Path>) -> Result<String, MakeError> {
    let best = architecture(capability, None)?;
    let source = module.source();
    let place = |architecture| cache.map(|folder| folder.join(file_name(&source, architecture)));
    if let Some(kept) = place(best).as_deref().and_then(read) {
        return Ok(kept);
    }
    let compiler = library::compiler().ok_or(MakeError::NoCompiler)?;
    // An older compiler does not know every card; what it makes for an older one runs on a newer.
    let known = architecture(capability, compiler.architectures())?;
    let path = place(known);
    if let Some(kept) = path.as_deref().filter(|_| known != best).and_then(read) {
        return Ok(kept);
    }
    let architecture = format!("--gpu-architecture=compute_{known}");
    let text = compiler
        .ptx(&source, &format!("isotherm-{}.cu", module.name()), &[&architecture, "--std=c++17"])
        .map_err(|log| MakeError::Refused { module: module.name(), log })?;
    if let Some(path) = path {
        keep(&path, &text);
    }
    Ok(text)
}

/// Forgets a module's kept PTX: a driver would not load it, and another compiler may do better.
pub fn forget(module: Module, capability: u32, cache: Option<&Path>) {
    let Some(folder) = cache else { return };
    let made = library::compiler().and_then(library::Compiler::architectures);
    for architecture in [architecture(capability, None), architecture(capability, made)].into_iter().flatten() {
        // Where it cannot be removed it is found again, and refused again.
        let _ = std::fs::remove_file(folder.join(file_name(&module.source(), architecture)));
    }
}

/// The name under which a module's PTX is kept: everything that it depends on but the compiler's version, which
/// changes speed and not meaning.
fn file_name(source: &str, architecture: u32) -> PathBuf {
    let mut digest = Sha256::new();
    digest.update(source.as_bytes());
    let mut name = String::from("sha256-");
    for byte in digest.finalize() {
        let _ = write!(name, "{byte:02x}");
    }
    let _ = write!(name, "-sm_{architecture}.ptx");
    PathBuf::from(name)
}

/// Kept PTX, when all of it is there: its last line is the digest of what stands before.
fn read(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let (ptx, last) = text.trim_end().rsplit_once('\n')?;
    (last == format!("// {}", digest_of(ptx))).then(|| ptx.to_owned())
}

/// Keeps PTX. A cache that cannot be written costs time, nothing else.
fn keep(path: &Path, ptx: &str) {
    let Some(folder) = path.parent() else { return };
    let ptx = ptx.trim_end_matches(['\0', '\n']);
    let text = format!("{ptx}\n// {}\n", digest_of(ptx));
    let _ = std::fs::create_dir_all(folder);
    // Written whole or not at all, so that two processes may do so at once.
    let Ok(mut file) = tempfile::NamedTempFile::new_in(folder) else { return };
    if std::io::Write::write_all(&mut file, text.as_bytes()).is_ok() {
        let _ = file.persist(path);
    }
}

fn digest_of(text: &str) -> String {
    let mut out = String::new();
    for byte in Sha256::digest(text.as_bytes()) {
        let _ = write!(out, "{byte:02x}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_gets_the_newest_architecture_that_is_not_above_it() {
        assert_eq!(architecture(75, None).unwrap(), 75);
        assert_eq!(architecture(88, None).unwrap(), 87);
        assert_eq!(architecture(250, None).unwrap(), 121);
        assert!(matches!(architecture(70, None), Err(MakeError::TooOld { capability: 70 })));
        // CUDA 11.4 knows nothing above 8.7.
        assert_eq!(architecture(90, Some(&[35, 50, 75, 80, 86, 87])).unwrap(), 87);
        assert!(matches!(architecture(75, Some(&[80])), Err(MakeError::TooOld { capability: 75 })));
    }

    #[test]
    fn kept_ptx_that_was_cut_off_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.ptx");
        keep(&path, "one\ntwo");
        assert_eq!(read(&path).as_deref(), Some("one\ntwo"));
        let whole = std::fs::read_to_string(&path).unwrap();
        for length in 0..whole.len() - 1 {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(read(&path), None, "after {length} bytes");
        }
    }
}
