//! Files: read with a message that names them, written whole or not at all.

use crate::failure::{Code, Failure};
use isotherm_core::artefact::Header;
use isotherm_core::digest::Digest;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Largest text artefact that is read; scenario batches stay far below.
const TEXT_BYTES_MAX: u64 = 256 << 20;

/// The bytes of a file. Errors name the file; a directory or a file past 256 MiB is refused.
pub fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|e| Failure::file(path, e))?;
    file.take(TEXT_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|e| Failure::file(path, e))?;
    if bytes.len() as u64 > TEXT_BYTES_MAX {
        return Err(Failure::file(
            path,
            "is larger than 256 MiB, the most that is read as text; is it the right file?",
        ));
    }
    Ok(bytes)
}

/// The text of a file.
pub fn read_text(path: &Path) -> Result<String, Failure> {
    String::from_utf8(read(path)?)
        .map_err(|e| Failure::file(path, format!("is no UTF-8 text (byte {})", e.utf8_error().valid_up_to())))
}

/// A JSON artefact of the given schema, and the digest of its bytes.
pub fn read_artefact<T: DeserializeOwned>(path: &Path, schema: &'static str) -> Result<(T, Digest), Failure> {
    let bytes = read(path)?;
    let header: Header =
        serde_json::from_slice(&bytes).map_err(|e| Failure::file(path, format!("is no {schema} artefact: {e}")))?;
    header.expect(schema).map_err(|e| Failure::file(path, e))?;
    let value = serde_json::from_slice(&bytes).map_err(|e| Failure::file(path, format!("is damaged: {e}")))?;
    Ok((value, Digest::of(&bytes)))
}

/// Writes a file whole or not at all: a temporary file beside it, synchronised, then renamed, and the directory
/// synchronised. Missing directories are made.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let failed = |e: std::io::Error| {
        let failure = Failure::file(path, format!("was not written: {e}"));
        match e.kind() {
            std::io::ErrorKind::StorageFull => failure.remedy("free some space and run the command again"),
            std::io::ErrorKind::PermissionDenied => failure.remedy("choose a place you may write to with -o"),
            _ => failure,
        }
    };
    std::fs::create_dir_all(parent).map_err(failed)?;
    let mut file = tempfile::NamedTempFile::new_in(parent).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    make_readable(file.as_file()).map_err(failed)?;
    file.persist(path).map_err(|e| failed(e.error))?;
    std::fs::File::open(parent).and_then(|directory| directory.sync_all()).map_err(failed)
}

/// Puts a copy where there is none. Errors: another file of that name is there, or the copy could not be written.
pub fn keep(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    if !path.exists() {
        return write(path, bytes);
    }
    if read(path)? == bytes {
        return Ok(());
    }
    Err(Failure::file(path, "is there already and differs from what this result was made from")
        .remedy("name an empty folder with -o, or remove that file"))
}

/// Gives a temporary file, which begins private, the permissions of an ordinary one.
fn make_readable(file: &std::fs::File) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.set_permissions(std::fs::Permissions::from_mode(0o644))?;
    }
    let _ = file;
    Ok(())
}

/// A value as indented JSON with a closing newline.
pub fn json<T: Serialize>(value: &T) -> Result<Vec<u8>, Failure> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(|e| Failure::io(format!("a result is no JSON: {e}")))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Writes a value as JSON and gives the digest of the written bytes.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<Digest, Failure> {
    let bytes = json(value)?;
    write(path, &bytes)?;
    Ok(Digest::of(&bytes))
}

/// Where isotherm keeps keys, registry and log: `$ISOTHERM_HOME`, else the platform's data folder.
pub fn home() -> Result<PathBuf, Failure> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    set("ISOTHERM_HOME")
        .or_else(|| set("XDG_DATA_HOME").map(|data| data.join("isotherm")))
        .or_else(|| set("HOME").map(|home| home.join(".local/share/isotherm")))
        .ok_or_else(|| {
            Failure::new(Code::Io, "neither ISOTHERM_HOME nor HOME is set, so there is no place for keys and the log")
                .remedy("set ISOTHERM_HOME to a folder of yours")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_leaves_no_temporary_behind() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("deep/plan.json");
        write(&path, b"first").expect("written");
        write(&path, b"second").expect("replaced");
        assert_eq!(read(&path).expect("readable"), b"second");
        assert_eq!(std::fs::read_dir(path.parent().expect("a parent")).expect("listed").count(), 1);
    }

    #[test]
    fn a_copy_never_replaces_another_file() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("plan.json");
        keep(&path, b"first").expect("nothing is there");
        keep(&path, b"first").expect("the same is there");
        assert!(keep(&path, b"second").is_err());
        assert_eq!(read(&path).expect("readable"), b"first");
    }

    #[test]
    fn an_artefact_of_another_kind_is_refused_by_name() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("a.json");
        write(&path, br#"{"schema":"isotherm.devices/v1","tool_version":"0"}"#).expect("written");
        let failure = read_artefact::<Header>(&path, "isotherm.plan/v1").expect_err("another kind");
        assert!(failure.message.contains("isotherm.devices/v1"), "{}", failure.message);
    }
}
