//! Any bytes as the files of a log under a checkpoint that was signed: an error or findings, never a panic, and no entry
//! that was not logged. The first byte says which file the others are.

use isotherm_audit::keys::{Identity, Seed};
use isotherm_audit::log::{Event, EventKind, Log, LogView, OnLock, fsck};
use std::path::PathBuf;
use std::sync::LazyLock;

const ORIGIN: &str = "isotherm.example/fuzz";
const FILES: [&str; 4] = ["tile/entries/000.p/3", "tile/0/000.p/3", "retained", "entries.jsonl"];

static LOG: LazyLock<(Identity, PathBuf, Vec<Vec<u8>>)> = LazyLock::new(|| {
    let identity = Identity::from_seed(&Seed::from_bytes([1; 32])).expect("any seed is a key");
    let folder = std::env::temp_dir().join(format!("isotherm-tiles-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    let time = "2026-11-23T12:00:00Z".parse().expect("an instant");
    let lines = {
        let (mut log, _) = Log::open(&folder, ORIGIN, &identity, OnLock::Wait).expect("the scratch folder is writable");
        log.append_all(&vec![Event::new(EventKind::Probe, time, identity.id()); 3]).expect("logged");
        (0..3).map(|index| log.line(index).expect("there")).collect()
    };
    (identity, folder, lines)
});

/// Panics where the promise above is broken.
pub fn check(data: &[u8]) {
    let (identity, folder, lines) = &*LOG;
    let Some((which, bytes)) = data.split_first() else { return };
    let path = folder.join(FILES[usize::from(*which) % FILES.len()]);
    let before = std::fs::read(&path).ok();
    std::fs::write(&path, bytes).expect("the scratch folder is writable");
    if let Ok(view) = LogView::read(folder, ORIGIN, identity.public()) {
        for (index, line) in (0..view.size()).zip(lines) {
            if let Ok(found) = view.line(index) {
                assert_eq!(&found, line);
            }
        }
    }
    let found = fsck(folder, ORIGIN, identity.public(), &[]).expect("readable");
    let same = before.as_deref() == Some(bytes);
    assert!(found.is_sound() == same || !path.ends_with("000.p/3"), "{:?}", found.findings);
    match before {
        Some(before) => std::fs::write(&path, before).expect("the scratch folder is writable"),
        None => std::fs::remove_file(&path).expect("the scratch folder is writable"),
    }
}
