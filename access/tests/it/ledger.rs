//! The quota ledger against a dumb counter, in many threads and processes' worth of handles.

use crate::support::{NOW, at, id};
use isotherm_access::ledger::{JOURNAL_FILE, Ledger, LedgerError};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use tempfile::tempdir;

const LATER: &str = "2026-11-23T12:02:00Z";

#[test]
fn what_is_reserved_is_held_until_it_is_released_or_runs_out() {
    let folder = tempdir().expect("a folder");
    let ledger = Ledger::open(folder.path()).expect("new");
    let one = ledger.reserve(id(1), 60, Some(100), at(NOW), at(LATER), "a").expect("fits");
    assert!(matches!(
        ledger.reserve(id(1), 41, Some(100), at(NOW), at(LATER), "a"),
        Err(LedgerError::Exceeded { used: 60, asked: 41, limit: 100 })
    ));
    let two = ledger.reserve(id(1), 40, Some(100), at(NOW), at(LATER), "b").expect("fits exactly");
    assert!(ledger.reserve(id(2), 100, Some(100), at(NOW), at(LATER), "c").is_ok(), "another principal's own quota");
    ledger.commit(one, at(NOW)).expect("reserved");
    assert!(ledger.commit(one, at(NOW)).is_err(), "once");
    // The reservation runs out, what was committed does not.
    assert!(matches!(ledger.commit(two, at(LATER)), Err(LedgerError::NotHeld { .. })));
    let three = ledger.reserve(id(1), 40, Some(100), at(LATER), at("2026-11-23T13:00:00Z"), "d").expect("free again");
    assert_eq!(ledger.used(id(1)).expect("readable"), 100);
    ledger.release(one).expect("held");
    assert!(matches!(ledger.release(one), Err(LedgerError::NotHeld { .. })));
    ledger.release(three).expect("held");
    assert_eq!(ledger.used(id(1)).expect("readable"), 0);
    assert!(ledger.fsck().expect("readable"));
}

#[test]
fn what_a_gone_owner_held_is_given_back_and_nothing_else() {
    let folder = tempdir().expect("a folder");
    let ledger = Ledger::open(folder.path()).expect("new");
    let gone = ledger.reserve(id(1), 10, None, at(NOW), at(LATER), "process 1").expect("fits");
    ledger.commit(gone, at(NOW)).expect("reserved");
    let alive = ledger.reserve(id(1), 20, None, at(NOW), at(LATER), "process 2").expect("fits");
    let ended = ledger.sweep(at(NOW), |owner| owner == "process 2").expect("readable");
    assert_eq!(ended, [gone]);
    assert_eq!(ledger.holdings().expect("readable").keys().collect::<Vec<_>>(), [&alive]);
}

#[test]
fn a_torn_last_line_is_cut_and_any_other_damage_named() {
    let folder = tempdir().expect("a folder");
    let ledger = Ledger::open(folder.path()).expect("new");
    for _ in 0..3 {
        ledger.reserve(id(1), 7, None, at(NOW), at(LATER), "a").expect("fits");
    }
    drop(ledger);
    let path = folder.path().join(JOURNAL_FILE);
    let whole = fs::read(&path).expect("readable");
    let ends: Vec<usize> = whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1).collect();
    for length in ends[0]..=whole.len() {
        fs::write(&path, &whole[..length]).expect("own file");
        let count = ends.iter().filter(|end| **end <= length).count() as u64 - 1;
        let ledger = Ledger::open(folder.path()).expect("recovers");
        assert_eq!(ledger.used(id(1)).expect("readable"), 7 * count, "cut at {length}");
        assert!(ledger.reserve(id(1), 1, None, at(NOW), at(LATER), "a").is_ok() && ledger.fsck().expect("readable"));
    }
    for position in 0..whole.len() - 1 {
        let mut altered = whole.clone();
        altered[position] ^= 1;
        fs::write(&path, &altered).expect("own file");
        assert!(matches!(Ledger::open(folder.path()), Err(LedgerError::Damaged { .. })), "byte {position}");
    }
}

/// Writes a journal as its format says, from nothing but SHA-256.
fn journal(steps: &[String]) -> String {
    use sha2::{Digest as _, Sha256};
    let mut text = format!("isotherm.quota/v1 {:020} {:020}\n", 0, 0);
    let mut chain = Sha256::digest(text.as_bytes());
    for step in steps {
        chain = Sha256::new().chain_update(chain).chain_update(step).finalize();
        let mark: String = chain.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        text.push_str(&format!("{mark} {step}\n"));
    }
    text
}

#[test]
fn a_holding_of_nothing_is_refused_and_a_journal_with_one_is_damaged() {
    let folder = tempdir().expect("a folder");
    let ledger = Ledger::open(folder.path()).expect("new");
    assert!(matches!(ledger.reserve(id(1), 0, None, at(NOW), at(LATER), "a"), Err(LedgerError::Nothing)));
    assert!(ledger.holdings().expect("readable").is_empty());
    drop(ledger);
    let reserve = |number: u64, bytes: u64| {
        let principal = id(1);
        let what = format!(r#""id":{number},"principal":"{principal}","bytes":{bytes}"#);
        format!(r#"{{"op":"reserve",{what},"until":"{LATER}","owner":"a"}}"#)
    };
    let release = |number: u64| format!(r#"{{"op":"release","id":{number}}}"#);
    let path = folder.path().join(JOURNAL_FILE);
    // The same steps over one byte are sound, so what is refused below is the nothing.
    fs::write(&path, journal(&[reserve(0, 1), reserve(1, 1), release(0), release(1)])).expect("own file");
    assert_eq!(Ledger::open(folder.path()).expect("sound").used(id(1)).expect("readable"), 0);
    fs::write(&path, journal(&[reserve(0, 0), reserve(1, 0), release(0), release(1)])).expect("own file");
    assert!(matches!(Ledger::open(folder.path()), Err(LedgerError::Damaged { line: 2, .. })));
}

#[test]
fn a_journal_written_anew_says_the_same_to_every_handle() {
    let folder = tempdir().expect("a folder");
    let (one, other) = (Ledger::open(folder.path()).expect("new"), Ledger::open(folder.path()).expect("same"));
    let kept = one.reserve(id(2), 5, None, at(NOW), at(LATER), &"x".repeat(256)).expect("fits");
    one.commit(kept, at(NOW)).expect("reserved");
    let mut last = kept;
    // Long owners fill a mebibyte in about three thousand lines.
    for round in 0..2_600 {
        let ledger = if round % 2 == 0 { &one } else { &other };
        let booking = ledger.reserve(id(1), 3, Some(3), at(NOW), at(LATER), &"y".repeat(256)).expect("fits");
        assert!(booking > last, "no number comes twice");
        last = booking;
        ledger.release(booking).expect("held");
    }
    let head = fs::read_to_string(folder.path().join(JOURNAL_FILE)).expect("readable");
    assert!(!head.starts_with("isotherm.quota/v1 00000000000000000000 "), "it was written anew");
    for ledger in [&one, &other] {
        assert_eq!(ledger.used(id(2)).expect("readable"), 5);
        assert!(ledger.fsck().expect("readable"));
    }
    one.release(kept).expect("still under its number");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn any_sequence_of_steps_agrees_with_a_counter(steps in prop::collection::vec((0_u8..4, 0_u8..3, 1_u64..50, 0_usize..8), 1..60)) {
        let folder = tempdir().expect("a folder");
        let handles = [Ledger::open(folder.path()).expect("new"), Ledger::open(folder.path()).expect("same")];
        let mut held: Vec<(isotherm_access::Booking, u8, u64, bool)> = Vec::new();
        for (number, (what, who, bytes, which)) in steps.into_iter().enumerate() {
            let ledger = &handles[number % 2];
            let used: u64 = held.iter().filter(|(_, owner, ..)| *owner == who).map(|(.., bytes, _)| bytes).sum();
            match what {
                0 | 1 => match ledger.reserve(id(who), bytes, Some(100), at(NOW), at(LATER), "p") {
                    Ok(booking) => {
                        prop_assert!(used + bytes <= 100);
                        held.push((booking, who, bytes, false));
                    }
                    Err(LedgerError::Exceeded { used: said, .. }) => {
                        prop_assert_eq!(said, used);
                        prop_assert!(used + bytes > 100);
                    }
                    Err(other) => panic!("{other}"),
                },
                2 if which < held.len() => {
                    let (booking, _, _, committed) = &mut held[which];
                    prop_assert_eq!(ledger.commit(*booking, at(NOW)).is_ok(), !*committed);
                    *committed = true;
                }
                _ if which < held.len() => {
                    let (booking, ..) = held.remove(which);
                    ledger.release(booking).expect("held");
                    prop_assert!(ledger.release(booking).is_err());
                }
                _ => {}
            }
        }
        let mut sums: BTreeMap<u8, u64> = BTreeMap::new();
        for (_, who, bytes, _) in &held {
            *sums.entry(*who).or_default() += bytes;
        }
        for ledger in handles.iter().chain([&Ledger::open(folder.path()).expect("again")]) {
            for who in 0..3 {
                prop_assert_eq!(ledger.used(id(who)).expect("readable"), sums.get(&who).copied().unwrap_or(0));
            }
            prop_assert!(ledger.fsck().expect("readable"));
        }
    }
}

#[cfg(unix)]
#[test]
fn the_books_are_for_their_owner_alone_and_not_kept_where_others_write() {
    use crate::support::{directory, enter, gate, request};
    use std::os::unix::fs::PermissionsExt;
    let folder = tempdir().expect("a folder");
    let mut gate = gate(folder.path(), &directory());
    let admission = enter(&mut gate, &request(3, &[isotherm_access::Permission::MemoryAllocate], &[("gpu0", 1)])).0;
    gate.leave(admission.expect("a user may"), at(NOW), &mut |_| Ok(())).expect("held");
    gate.administer(id(1), at(NOW), Vec::new(), &mut |_| Ok(()), |_, _| {}).expect("an administrator may");
    let mut names = Vec::new();
    for found in fs::read_dir(folder.path()).expect("own folder") {
        let found = found.expect("listed");
        assert_eq!(found.metadata().expect("there").permissions().mode() & 0o777, 0o600, "{found:?}");
        names.push(found.file_name());
    }
    assert!(names.len() >= 6, "{names:?}");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("own folder");
    let refused = Ledger::open(folder.path()).expect_err("others write").to_string();
    assert!(refused.contains("chmod 700"), "{refused}");
}
