//! Durable files: whole or absent, never half, and private to their owner.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// Prefix of files that are not finished; a crash may leave one behind, and nothing reads it.
pub(crate) const UNFINISHED: &str = ".unfinished-";

/// The permission bits, where the platform has them.
#[cfg(unix)]
pub(crate) fn mode(metadata: &Metadata) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt;
    Some(metadata.permissions().mode() & 0o7777)
}

/// The permission bits, where the platform has them. Elsewhere the access list of the user's profile protects files.
#[cfg(not(unix))]
pub(crate) fn mode(_: &Metadata) -> Option<u32> {
    None
}

/// Makes a folder and its parents with mode 0700, where absent.
///
/// Errors: the file system refuses, or the folder is there and others may write to it.
pub fn private_folder(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)?;
    refuse_shared(path)
}

/// Errors: a folder that others may write to, and so put other files in the place of those in it.
pub fn refuse_shared(path: &Path) -> io::Result<()> {
    match mode(&fs::metadata(path)?) {
        Some(mode) if mode & 0o022 != 0 => {
            let shown = path.display();
            let why = format!("others may write to it (mode {mode:04o}); close it with `chmod 700 {shown}`");
            Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
        }
        _ => Ok(()),
    }
}

/// How a file is opened for writing that is made with mode 0600 where absent, and kept as it is where not.
#[must_use]
pub fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Puts a file in place of whatever has that name; readers see the old bytes or the new ones.
///
/// Errors: the file system refuses; the old file is still there then.
pub fn replace(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    unfinished(folder, bytes)?.persist(folder.join(name)).map_err(|error| error.error)?;
    sync_folder(folder)
}

/// Puts a file where none has that name. Errors: there is one (`AlreadyExists`).
pub fn write_new(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    unfinished(folder, bytes)?.persist_noclobber(folder.join(name)).map_err(|error| error.error)?;
    sync_folder(folder)
}

/// A file of mode 0600 under a temporary name whose bytes have reached the disk.
fn unfinished(folder: &Path, bytes: &[u8]) -> io::Result<tempfile::NamedTempFile> {
    let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    Ok(file)
}

/// Makes names durable: a renamed file is only found after a crash if its folder was synced.
///
/// Errors: the file system refuses.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Removes what a crash left unfinished.
pub(crate) fn sweep(folder: &Path) -> io::Result<()> {
    for found in fs::read_dir(folder)? {
        let found = found?;
        if found.file_name().to_string_lossy().starts_with(UNFINISHED) {
            fs::remove_file(found.path())?;
        }
    }
    Ok(())
}
