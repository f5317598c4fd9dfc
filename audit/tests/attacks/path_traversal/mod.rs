//! Names and hints of strangers never become paths: of a log that a witness is asked about, and of a manifest's files.

use crate::support::{NOW, at, event, expected, identity, manifest, trusting};
use isotherm_audit::log::witness::{Watched, Witness};
use isotherm_audit::log::{Log, LogView, OnLock};
use isotherm_audit::{open, seal};
use std::fs;
use std::path::Path;
use tempfile::tempdir;

const HOSTILE: [&str; 6] = ["../../outside", "/etc/passwd", "..", "a/../../b", "~root/x", "%2e%2e%2fx"];

fn names_in(folder: &Path) -> Vec<String> {
    let listed = fs::read_dir(folder).expect("own folder");
    let mut names: Vec<_> =
        listed.map(|entry| entry.expect("listed").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_witness_remembers_every_log_inside_its_folder_whatever_its_name() {
    let outer = tempdir().expect("a folder");
    let (memory, key, own) = (outer.path().join("memory"), identity(7), identity(1));
    let witness = Witness::open("witness.example/w1", &key, &memory).expect("a witness");
    let mut remembered = 0;
    for origin in HOSTILE {
        let log = tempdir().expect("a folder");
        let Ok((mut grown, _)) = Log::open(log.path(), origin, &own, OnLock::Refuse) else { continue };
        grown.append(&event(0)).expect("logged");
        drop(grown);
        let request = LogView::read(log.path(), origin, own.public()).expect("sound").request_witness(0).expect("new");
        let watched = Watched { origin: origin.to_owned(), key: own.public().clone() };
        witness.answer(request.as_bytes(), &watched, at(NOW)).expect("the first state seen");
        assert_eq!(witness.known(&watched).expect("readable").map(|known| known.size), Some(1), "{origin}");
        remembered += 1;
    }
    assert!(remembered > 0, "some of these are names of logs");
    assert_eq!(names_in(outer.path()), ["memory"]);
    let kept = names_in(&memory);
    assert!(kept.iter().all(|name| !name.contains("..") && !name.contains("outside")), "{kept:?}");
}

#[test]
fn where_a_hint_leads_decides_nothing_about_which_file_was_sealed() {
    let key = identity(1);
    for hint in HOSTILE {
        let mut hinted = manifest();
        for subject in &mut hinted.subjects {
            subject.path_hint = Some(hint.to_owned());
        }
        let sealed = seal(&hinted, &[&key]).expect("a hint is text").envelope;
        let as_sealed = expected();
        open(&sealed, &trusting(&[1], 1), at(NOW), &as_sealed).expect("the sealed files were presented");
        // Another file that the hint led to is refused by its digest.
        let mut other = expected();
        other.presented.insert("plan".to_owned(), isotherm_core::digest::Digest::of(b"what lies there"));
        assert!(open(&sealed, &trusting(&[1], 1), at(NOW), &other).is_err(), "{hint}");
    }
}
