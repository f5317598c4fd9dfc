//! Somebody cuts a log off, alone or together with its checkpoint.

use super::altered_log::{BUNDLE, ENTRIES, entry_at, fill, sample};
use crate::crash::{files_of, restore};
use crate::support::{ORIGIN, identity};
use isotherm_audit::log::{LogError, LogView, fsck};
use tempfile::tempdir;

#[test]
fn every_truncation_is_refused() {
    let sample = sample();
    let bytes = sample.file(BUNDLE);
    for length in 0..bytes.len() {
        let refused = sample.refused(BUNDLE, Some(&bytes[..length]), &format!("cut at {length}"));
        let have = entry_at(&sample.lines(), length);
        assert!(matches!(refused, LogError::Truncated { have: h, signed: ENTRIES } if h == have), "{refused}");
    }
    let longer = [bytes.as_slice(), b"\0"].concat();
    assert!(matches!(sample.refused(BUNDLE, Some(&longer), "longer"), LogError::Altered { .. }));
}

#[test]
fn a_log_cut_back_with_its_old_checkpoint_is_found_by_whoever_kept_a_later_one() {
    let folder = tempdir().expect("a folder");
    fill(folder.path(), 0..3);
    let old = files_of(folder.path());
    let later = fill(folder.path(), 3..5);
    restore(folder.path(), &old);
    let key = identity(1);
    // Alone it looks sound: that is why checkpoints are kept elsewhere.
    let view = LogView::read(folder.path(), ORIGIN, key.public()).expect("an old state");
    assert!(matches!(view.continues(&later), Err(LogError::Truncated { have: 3, signed: 5 })));
    let found = fsck(folder.path(), ORIGIN, key.public(), std::slice::from_ref(&later)).expect("readable");
    assert!(matches!(found.findings[..], [LogError::Truncated { .. }]));
    // Grown again in another way, to the same size and beyond.
    fill(folder.path(), 20..24);
    let view = LogView::read(folder.path(), ORIGIN, key.public()).expect("rightly signed");
    assert!(matches!(view.continues(&later), Err(LogError::Forked { size: 5 })));
    let found = fsck(folder.path(), ORIGIN, key.public(), &[later]).expect("readable");
    assert!(matches!(found.findings[..], [LogError::Forked { size: 5 }]));
}
