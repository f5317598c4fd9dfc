//! The log when nobody cheats.

use crate::support::{NOW, ORIGIN, at, event, identity};
use isotherm_audit::log::merkle::{leaf_hash, verify_consistency, verify_inclusion};
use isotherm_audit::log::{
    Checkpoint, Detail, Entry, Event, EventKind, EventResult, Log, LogError, LogView, OnLock, Query, Recovery,
    Severity, fsck, verify_inclusion_proof,
};
use isotherm_audit::manifest::RootHash;
use std::fs;
use tempfile::tempdir;

#[test]
fn what_was_appended_is_what_is_read() {
    let folder = tempdir().expect("a folder");
    let key = identity(1);
    let (mut log, recovery) = Log::open(folder.path(), ORIGIN, &key, OnLock::Refuse).expect("new");
    assert_eq!(recovery, Recovery { created: true, ..Recovery::default() });
    for number in 0..20 {
        assert_eq!(log.append(&event(number)).expect("logged"), number);
    }
    drop(log);
    let view = LogView::read(folder.path(), ORIGIN, key.public()).expect("sound");
    assert_eq!(view.size(), 20);
    for (entry, number) in view.iter().zip(0..) {
        let (entry, event) = (entry.expect("readable"), event(number));
        assert_eq!((entry.index, entry.origin.as_str()), (number, ORIGIN));
        assert_eq!(entry.event_kind(), Some(event.kind));
        assert_eq!((entry.severity, entry.time, entry.principal), (event.severity, event.time, event.principal));
        assert_eq!((entry.subjects, entry.metadata), (event.subjects, event.metadata));
    }
    let newest = view.iter().next_back().expect("there are entries").expect("readable");
    assert_eq!(newest.index, 19);
    assert!(fsck(folder.path(), ORIGIN, key.public(), &[view.position()]).expect("readable").is_sound());
}

#[test]
fn the_leaves_are_the_lines_and_the_checkpoint_is_a_note_over_them() {
    let folder = tempdir().expect("a folder");
    let key = identity(1);
    let (mut log, _) = Log::open(folder.path(), ORIGIN, &key, OnLock::Refuse).expect("new");
    log.append_all(&[event(0), event(1), event(2)]).expect("logged");
    // The bundle by hand: each entry after its length in two bytes.
    let bytes = fs::read(folder.path().join("tile/entries/000.p/3")).expect("readable");
    let mut rest = bytes.as_slice();
    let mut lines = Vec::new();
    while let [high, low, after @ ..] = rest {
        let (line, after) = after.split_at(usize::from(*high) << 8 | usize::from(*low));
        lines.push(str::from_utf8(line).expect("UTF-8"));
        rest = after;
    }
    assert_eq!(lines.len(), 3);
    // RFC 6962 by hand for three leaves.
    let hash = |parts: &[&[u8]]| *isotherm_core::digest::Digest::of(&parts.concat()).bytes();
    let leaf: Vec<_> = lines.iter().map(|line| hash(&[&[0], line.as_bytes()])).collect();
    let root = hash(&[&[1], &hash(&[&[1], &leaf[0], &leaf[1]]), &leaf[2]]);
    assert_eq!(fs::read(folder.path().join("tile/0/000.p/3")).expect("readable"), leaf.concat());
    let note = fs::read(folder.path().join("checkpoint")).expect("readable");
    let checkpoint = Checkpoint::open(&note, ORIGIN, key.public()).expect("signed");
    assert_eq!(checkpoint, Checkpoint { origin: ORIGIN.to_owned(), size: 3, root });
    for line in lines {
        assert_eq!(serde_json_canonicalizer::pipe(line).expect("JSON"), line);
    }
}

#[test]
fn an_empty_log_and_one_opened_again_are_sound() {
    let folder = tempdir().expect("a folder");
    let key = identity(1);
    drop(Log::open(folder.path(), ORIGIN, &key, OnLock::Refuse).expect("new"));
    assert_eq!(LogView::read(folder.path(), ORIGIN, key.public()).expect("sound").size(), 0);
    assert!(fsck(folder.path(), ORIGIN, key.public(), &[]).expect("readable").is_sound());
    for number in 0..5 {
        let (mut log, recovery) = Log::open(folder.path(), ORIGIN, &key, OnLock::Refuse).expect("sound");
        assert_eq!(recovery, Recovery::default());
        log.append(&event(number)).expect("logged");
    }
    assert_eq!(LogView::read(folder.path(), ORIGIN, key.public()).expect("sound").size(), 5);
}

#[test]
fn where_nothing_is_nothing_is_made_by_reading() {
    let folder = tempdir().expect("a folder");
    let absent = folder.path().join("absent");
    assert!(matches!(LogView::read(&absent, ORIGIN, identity(1).public()), Err(LogError::NoLog { .. })));
    assert!(matches!(fsck(&absent, ORIGIN, identity(1).public(), &[]), Err(LogError::NoLog { .. })));
    assert!(!absent.exists());
}

#[test]
fn names_that_no_checkpoint_can_carry_are_refused() {
    let folder = tempdir().expect("a folder");
    for name in ["", "two words", "a+b", "line\nbreak", "no\u{a0}break", &"x".repeat(300)] {
        assert!(
            matches!(Log::open(folder.path(), name, &identity(1), OnLock::Refuse), Err(LogError::Origin { .. })),
            "{name}"
        );
    }
    assert_eq!(fs::read_dir(folder.path()).expect("own folder").count(), 0);
}

#[test]
fn a_second_writer_is_told_so_or_waits() {
    let folder = tempdir().expect("a folder");
    let key = identity(1);
    let (mut log, _) = Log::open(folder.path(), ORIGIN, &key, OnLock::Refuse).expect("new");
    let refused = Log::open(folder.path(), ORIGIN, &key, OnLock::Refuse).expect_err("locked");
    assert!(matches!(refused, LogError::Locked { .. }));
    // A reader needs no lock, and sees the last checkpoint.
    log.append(&event(0)).expect("logged");
    assert_eq!(LogView::read(folder.path(), ORIGIN, key.public()).expect("sound").size(), 1);
}

#[test]
fn concurrent_appends_all_arrive_once_and_in_one_order() {
    let folder = tempdir().expect("a folder");
    let key = identity(1);
    drop(Log::open(folder.path(), ORIGIN, &key, OnLock::Wait).expect("new"));
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let (folder, key) = (folder.path(), &key);
            scope.spawn(move || {
                for round in 0..6 {
                    let (mut log, recovery) = Log::open(folder, ORIGIN, key, OnLock::Wait).expect("sound");
                    assert_eq!(recovery, Recovery::default());
                    log.append(&event(thread * 100 + round)).expect("logged");
                }
            });
            scope.spawn(move || {
                for _ in 0..20 {
                    LogView::read(folder, ORIGIN, key.public()).expect("a reader always sees a sound log");
                }
            });
        }
    });
    let view = LogView::read(folder.path(), ORIGIN, key.public()).expect("sound");
    let mut numbers: Vec<_> = view.iter().map(|entry| entry.expect("readable").metadata["number"].clone()).collect();
    numbers.sort_by_key(|number| if let Detail::Integer(number) = number { *number } else { -1 });
    let expected: Vec<_> =
        (0..8_i64).flat_map(|thread| (0..6).map(move |round| Detail::Integer(thread * 100 + round))).collect();
    assert_eq!(numbers, expected);
    assert!(fsck(folder.path(), ORIGIN, key.public(), &[]).expect("readable").is_sound());
}

#[test]
fn every_state_a_log_had_is_a_prefix_of_every_later_one() {
    let folder = tempdir().expect("a folder");
    let key = identity(1);
    let (mut log, _) = Log::open(folder.path(), ORIGIN, &key, OnLock::Refuse).expect("new");
    let mut states = vec![log.position()];
    for number in 0..17 {
        log.append(&event(number)).expect("logged");
        states.push(log.position());
        let now = log.position();
        for state in &states {
            log.continues(state).expect("it only grew");
            if state.size > 0 {
                let proof = log.prove_consistency(state.size).expect("in range");
                verify_consistency((state.size, &state.root_hash.0), (now.size, &now.root_hash.0), &proof)
                    .expect("it only grew");
            }
        }
        for index in 0..now.size {
            let leaf = leaf_hash(&log.line(index).expect("there"));
            verify_inclusion(&leaf, index, now.size, &log.prove_inclusion(index).expect("there"), &now.root_hash.0)
                .expect("in it");
        }
    }
    let mut other = states[5].clone();
    other.root_hash = RootHash([3; 32]);
    assert!(matches!(log.continues(&other), Err(LogError::Forked { size: 5 })));
    other.size = 99;
    assert!(matches!(log.continues(&other), Err(LogError::Truncated { have: 17, signed: 99 })));
    assert!(log.prove_inclusion(17).is_err() && log.prove_consistency(18).is_err() && log.entry(17).is_err());
}

#[test]
fn a_proof_in_a_file_shows_the_entry_and_nothing_else() {
    let folder = tempdir().expect("a folder");
    let key = identity(1);
    let (mut log, _) = Log::open(folder.path(), ORIGIN, &key, OnLock::Refuse).expect("new");
    log.append_all(&(0..11).map(event).collect::<Vec<_>>()).expect("logged");
    for index in 0..11 {
        let (proof, line) = (log.prove(index).expect("there"), log.line(index).expect("there"));
        let (entry, checkpoint) = verify_inclusion_proof(proof.as_bytes(), &line, ORIGIN, key.public()).expect("shown");
        assert_eq!((entry.index, checkpoint.size), (index, 11));
        let other = log.line((index + 1) % 11).expect("there");
        assert!(verify_inclusion_proof(proof.as_bytes(), &other, ORIGIN, key.public()).is_err());
        assert!(verify_inclusion_proof(proof.as_bytes(), &line, ORIGIN, identity(2).public()).is_err());
    }
    let (proof, line) = (log.prove(6).expect("there").into_bytes(), log.line(6).expect("there"));
    for position in 0..proof.len() {
        let mut altered = proof.clone();
        altered[position] ^= 1;
        assert!(verify_inclusion_proof(&altered, &line, ORIGIN, key.public()).is_err(), "byte {position}");
    }
}

#[test]
fn an_event_too_large_is_refused_and_the_log_goes_on() {
    let folder = tempdir().expect("a folder");
    let key = identity(1);
    let (mut log, _) = Log::open(folder.path(), ORIGIN, &key, OnLock::Refuse).expect("new");
    let mut large = event(0);
    for number in 0..20 {
        large.metadata.insert(format!("detail {number}"), Detail::from("x".repeat(4000).as_str()));
    }
    let refused = log.append_all(&[event(0), large]).expect_err("too large");
    assert!(refused.to_string().contains("the limit is 65535"), "{refused}");
    assert_eq!(log.append(&event(1)).expect("still usable"), 0);
    let mut exact = event(2);
    exact.metadata.insert("limit".to_owned(), Detail::Integer(1 << 53));
    assert!(log.append(&exact).is_err());
    assert_eq!(log.append(&event(3)).expect("still usable"), 1);
    assert!(fsck(folder.path(), ORIGIN, key.public(), &[]).expect("readable").is_sound());
}

#[test]
fn a_hostile_name_is_logged_harmlessly() {
    let folder = tempdir().expect("a folder");
    let key = identity(1);
    let (mut log, _) = Log::open(folder.path(), ORIGIN, &key, OnLock::Refuse).expect("new");
    let mut refused = Event::new(EventKind::VerifyRefused, at(NOW), key.id());
    refused.severity = Severity::Warning;
    refused.metadata.insert("reason".to_owned(), "plan\n{\"forged\":true}\u{202e}\u{1b}[2J".into());
    refused.metadata.insert("long".to_owned(), "é".repeat(5000).as_str().into());
    refused.metadata.insert("empty".to_owned(), "".into());
    log.append(&refused).expect("logged");
    let entry = log.entry(0).expect("readable");
    let Detail::Text(reason) = &entry.metadata["reason"] else { panic!("a reason is text") };
    assert_eq!(reason, "plan\u{fffd}{\"forged\":true}\u{fffd}\u{fffd}[2J");
    assert!(matches!(&entry.metadata["long"], Detail::Text(long) if long.len() <= 4096 && long.ends_with("é...")));
    assert!(!log.line(0).expect("there").contains(&b'\n'));
}

#[test]
fn a_kind_of_a_later_version_is_kept_and_named() {
    let folder = tempdir().expect("a folder");
    let key = identity(1);
    let (mut log, _) = Log::open(folder.path(), ORIGIN, &key, OnLock::Refuse).expect("new");
    log.append(&event(0)).expect("logged");
    let line = String::from_utf8(log.line(0).expect("there")).expect("UTF-8");
    let later = line
        .replace("isotherm.keys.created", "isotherm.later.thing")
        .replace("\"number\":0", "\"number\":0,\"odd\":true");
    let entry = Entry::read(later.as_bytes()).expect("additive");
    assert_eq!((entry.kind.as_str(), entry.event_kind()), ("isotherm.later.thing", None));
}

/// A log over several full tiles, with principals, devices and times to ask for.
fn filled(folder: &std::path::Path, count: u64) {
    let key = identity(1);
    let (mut log, _) = Log::open(folder, ORIGIN, &key, OnLock::Refuse).expect("new");
    let events: Vec<Event> = (0..count)
        .map(|number| {
            let mut event = event(number);
            event.principal = identity(1 + (number % 3) as u8).id();
            event.device = Some(format!("gpu{}", number % 4));
            if number % 7 == 0 { event.ended(EventResult::Denied) } else { event.ended(EventResult::Success) }
        })
        .collect();
    for batch in events.chunks(300) {
        log.append_all(batch).expect("logged");
    }
}

#[test]
fn a_query_gives_what_a_look_at_every_entry_gives_newest_first_and_in_pages() {
    let folder = tempdir().expect("a folder");
    filled(folder.path(), 700);
    let view = LogView::read(folder.path(), ORIGIN, identity(1).public()).expect("sound");
    let all: Vec<Entry> = view.iter().rev().map(|entry| entry.expect("readable")).collect();
    let kinds = ["memory.", "isotherm.memory.allocate", "seal", "no.such"];
    let queries = [
        Query::default(),
        Query { principal: Some(identity(2).id()), ..Query::default() },
        Query { device: Some("gpu3".to_owned()), ..Query::default() },
        Query { since: Some(at(NOW).later_by(100)), until: Some(at(NOW).later_by(150)), ..Query::default() },
        Query { result: Some(EventResult::Denied), severity: Some(Severity::Warning), ..Query::default() },
        Query { severity: Some(Severity::Error), ..Query::default() },
    ];
    let by_kind = kinds.map(|kind| Query { kind: Some(kind.to_owned()), ..Query::default() });
    for query in queries.into_iter().chain(by_kind) {
        let wanted: Vec<&Entry> = all.iter().filter(|entry| query.wants(entry)).collect();
        let mut found = Vec::new();
        let mut before = None;
        loop {
            let page = view.query(&Query { before, limit: 37, ..query.clone() }).expect("readable");
            assert!(page.entries.len() <= 37);
            found.extend(page.entries);
            before = page.next;
            if before.is_none() {
                break;
            }
        }
        assert_eq!(found.iter().collect::<Vec<_>>(), wanted, "{query:?}");
    }
    assert_eq!(view.query(&Query::default()).expect("readable").entries.len(), 100, "no flood unless asked for");
}

#[test]
fn proofs_of_a_log_over_several_tiles_are_those_of_its_leaves_in_memory() {
    use isotherm_audit::log::merkle;
    let folder = tempdir().expect("a folder");
    filled(folder.path(), 700);
    let view = LogView::read(folder.path(), ORIGIN, identity(1).public()).expect("sound");
    let leaves: Vec<_> = (0..700).map(|index| leaf_hash(&view.line(index).expect("there"))).collect();
    assert_eq!(merkle::root(&leaves), view.checkpoint().root);
    for index in [0, 1, 255, 256, 257, 511, 512, 600, 699] {
        assert_eq!(
            view.prove_inclusion(index).expect("there"),
            merkle::prove_inclusion(&leaves, index as usize).expect("there")
        );
    }
    for old in [1, 2, 255, 256, 257, 300, 511, 512, 513, 699, 700] {
        assert_eq!(
            view.prove_consistency(old).expect("there"),
            merkle::prove_consistency(&leaves, old as usize).expect("there")
        );
        assert_eq!(view.root_at(old).expect("there"), merkle::root(&leaves[..old as usize]));
    }
    assert!(view.prove_consistency(0).is_err() && view.prove_consistency(701).is_err() && view.root_at(701).is_err());
}

#[test]
fn entries_that_were_moved_out_leave_every_proof_as_it_was() {
    let folder = tempdir().expect("a folder");
    filled(folder.path(), 700);
    let key = identity(1);
    let before = LogView::read(folder.path(), ORIGIN, key.public()).expect("sound");
    let (line, state) = (before.line(5).expect("there"), before.position());
    let archive = folder.path().join("archive.jsonl");
    let (mut log, _) = Log::open(folder.path(), ORIGIN, &key, OnLock::Refuse).expect("sound");
    let first = log.first_since(at(NOW).later_by(530)).expect("readable");
    assert_eq!(first, 530);
    let retained = log.retain(first, at(NOW), Some(&archive)).expect("moved");
    assert_eq!((retained.first, retained.moved), (512, 512), "whole bundles");
    assert!(matches!(log.line(5), Err(LogError::MovedOut { index: 5, first: 512 })));
    drop(log);
    let after = LogView::read(folder.path(), ORIGIN, key.public()).expect("sound");
    after.continues(&state).expect("it only grew");
    assert_eq!((after.size(), after.retained_from(), after.iter().count()), (701, 512, 189));
    let proof = after.prove(5).expect("hashes stay");
    verify_inclusion_proof(proof.as_bytes(), &line, ORIGIN, key.public()).expect("whoever has the entry can show it");
    let archived = fs::read_to_string(&archive).expect("written");
    assert_eq!(archived.lines().count(), 512);
    assert_eq!(archived.lines().nth(5).expect("there").as_bytes(), line);
    assert!(fsck(folder.path(), ORIGIN, key.public(), &[state]).expect("readable").is_sound());
    // The same once more moves nothing, and an archive is never written over.
    let (mut log, _) = Log::open(folder.path(), ORIGIN, &key, OnLock::Refuse).expect("sound");
    assert_eq!(log.retain(600, at(NOW), Some(&archive)).expect("nothing to do").moved, 0);
    log.append_all(&(0..300).map(event).collect::<Vec<_>>()).expect("logged");
    assert!(log.retain(768, at(NOW), Some(&archive)).is_err());
    assert_eq!(log.retained_from(), 512);
}

#[test]
fn a_key_that_was_handed_over_opens_the_log_and_the_next_append_is_its_own() {
    let folder = tempdir().expect("a folder");
    let (old, new) = (identity(1), identity(2));
    let (mut log, _) = Log::open(folder.path(), ORIGIN, &old, OnLock::Refuse).expect("new");
    log.append_all(&[event(0), event(1)]).expect("logged");
    let state = log.position();
    log.hand_over(&new).expect("signed by both");
    drop(log);
    for key in [&old, &new] {
        LogView::read(folder.path(), ORIGIN, key.public())
            .expect("either key opens it")
            .continues(&state)
            .expect("same");
    }
    assert!(LogView::read(folder.path(), ORIGIN, identity(3).public()).is_err());
    let (mut log, _) = Log::open(folder.path(), ORIGIN, &new, OnLock::Refuse).expect("handed over");
    log.append(&event(2)).expect("logged");
    drop(log);
    assert!(LogView::read(folder.path(), ORIGIN, old.public()).is_err(), "the old key is out");
    assert!(fsck(folder.path(), ORIGIN, new.public(), &[state]).expect("readable").is_sound());
}

#[test]
fn a_log_in_the_layout_of_earlier_versions_is_brought_over_under_its_own_checkpoint() {
    let (source, folder) = (tempdir().expect("a folder"), tempdir().expect("a folder"));
    filled(source.path(), 300);
    let key = identity(1);
    let view = LogView::read(source.path(), ORIGIN, key.public()).expect("sound");
    let mut lines: Vec<u8> = Vec::new();
    for index in 0..300 {
        lines.extend_from_slice(&view.line(index).expect("there"));
        lines.push(b'\n');
    }
    let old = folder.path().join("entries.jsonl");
    fs::write(&old, [lines.as_slice(), b"torn"].concat()).expect("own file");
    fs::write(folder.path().join("checkpoint"), view.note()).expect("own file");
    assert!(!fsck(folder.path(), ORIGIN, key.public(), &[]).expect("readable").is_sound(), "until it is brought over");
    let (mut log, recovery) = Log::open(folder.path(), ORIGIN, &key, OnLock::Refuse).expect("brought over");
    assert_eq!(recovery.migrated, 300);
    assert_eq!(log.position(), view.position());
    log.append(&event(0)).expect("goes on");
    drop(log);
    assert!(!old.exists() && folder.path().join("entries.jsonl.migrated").exists());
    assert!(fsck(folder.path(), ORIGIN, key.public(), &[view.position()]).expect("readable").is_sound());
    // Lines that are not those signed for are left as they are.
    let other = tempdir().expect("a folder");
    fs::write(other.path().join("entries.jsonl"), String::from_utf8(lines).expect("UTF-8").replacen("gpu1", "gpu2", 1))
        .expect("own file");
    fs::write(other.path().join("checkpoint"), view.note()).expect("own file");
    assert!(matches!(Log::open(other.path(), ORIGIN, &key, OnLock::Refuse), Err(LogError::Forked { size: 300 })));
    assert!(!other.path().join("tile").exists());
}
