//! One key, two pasts: the log that is shown here is not the one that was shown there.

use super::altered_log::{ENTRIES, fill, sample};
use super::tail_deletion::{NAME, grow, request, watched};
use crate::crash::{files_of, restore};
use crate::support::{NOW, ORIGIN, at, identity};
use isotherm_audit::log::witness::{Witness, WitnessError};
use isotherm_audit::log::{CHECKPOINT_FILE, LogError, LogView};
use tempfile::tempdir;

#[test]
fn a_fork_of_the_same_size_is_refused() {
    let (one, other, memory) =
        (tempdir().expect("a folder"), tempdir().expect("a folder"), tempdir().expect("a folder"));
    let key = identity(7);
    let witness = Witness::open(NAME, &key, memory.path()).expect("a witness");
    grow(one.path(), 0..8);
    grow(other.path(), (0..7).chain([99]));
    witness.answer(request(one.path(), 0).as_bytes(), &watched(), at(NOW)).expect("the first state seen");
    let refused = witness.answer(request(other.path(), 8).as_bytes(), &watched(), at(NOW)).expect_err("a fork");
    assert!(matches!(refused, WitnessError::Fork(_)), "{refused}");
}

#[test]
fn another_log_of_the_same_key_is_not_this_one() {
    let sample = sample();
    let other = tempdir().expect("a folder");
    fill(other.path(), 10..10 + ENTRIES);
    // Entries and tiles of one and checkpoint of the other: every entry is rightly chained, but not in this tree.
    let mut files = files_of(other.path());
    files.insert(CHECKPOINT_FILE.into(), sample.file(CHECKPOINT_FILE));
    restore(sample.folder.path(), &files);
    let refused = LogView::read(sample.folder.path(), ORIGIN, identity(1).public()).expect_err("another tree");
    assert!(matches!(refused, LogError::Forked { size: ENTRIES }), "{refused}");
}
