//! Somebody runs a rightful manifest with other files, with its files swapped, or presents another run as its own.

use crate::support::{FILES, NOW, at, expected, identity, manifest, run_claim, sealed, trusting};
use isotherm_audit::open::{RunExpectations, SubjectMismatch, Verified};
use isotherm_audit::run::SignedRun;
use isotherm_audit::statement::Subject;
use isotherm_audit::{Expectations, OpenError, open, open_run, seal};
use isotherm_core::digest::Digest;
use std::collections::{BTreeMap, BTreeSet};

fn refused(edit: impl FnOnce(&mut Expectations)) -> OpenError {
    let mut expected = expected();
    edit(&mut expected);
    open(&sealed(&[1]).envelope, &trusting(&[1], 1), at(NOW), &expected).expect_err("an attack")
}

fn opened_manifest() -> (Verified<isotherm_audit::manifest::Manifest>, Digest) {
    let sealed = sealed(&[1]);
    (open(&sealed.envelope, &trusting(&[1], 1), at(NOW), &expected()).expect("rightful"), sealed.payload_digest)
}

fn run_refused(edit: impl FnOnce(&mut SignedRun)) -> OpenError {
    let (manifest, digest) = opened_manifest();
    let mut run = run_claim(digest);
    edit(&mut run);
    let run = seal(&run, &[&identity(1)]).expect("it holds together");
    let presented = BTreeMap::from([("tokens".to_owned(), Digest::of(b"the tokens"))]);
    let expected = RunExpectations { manifest: &manifest, presented, successors: BTreeSet::new() };
    open_run(&run.envelope, &trusting(&[1], 1), at("2026-11-23T13:00:00Z"), &expected).expect_err("an attack")
}

#[test]
fn two_shards_of_one_model_do_not_take_each_others_place() {
    let mut manifest = manifest();
    manifest.subjects.push(Subject::new("model/00002", Digest::of(b"the second shard")));
    let sealed = seal(&manifest, &[&identity(1)]).expect("it holds together");
    let open_with = |first: &[u8], second: &[u8]| {
        let mut expected = expected();
        expected.presented.insert("model".to_owned(), Digest::of(first));
        expected.presented.insert("model/00002".to_owned(), Digest::of(second));
        open(&sealed.envelope, &trusting(&[1], 1), at(NOW), &expected)
    };
    open_with(b"the model", b"the second shard").expect("each in its place");
    let swapped = open_with(b"the second shard", b"the model").expect_err("swapped");
    assert!(matches!(&swapped, OpenError::Subjects { mismatches } if mismatches.len() == 2), "{swapped}");
    let other = open_with(b"the model", b"another shard").expect_err("another");
    assert!(matches!(&other, OpenError::Subjects { mismatches } if mismatches[0].name == "model/00002"), "{other}");
    // A shard that nobody shows is not taken for the right one.
    let hidden = open(&sealed.envelope, &trusting(&[1], 1), at(NOW), &expected()).expect_err("not shown");
    assert!(matches!(hidden, OpenError::NotPresented { .. }), "{hidden}");
}

#[test]
fn each_other_file_is_refused_by_name_with_both_digests() {
    for (name, bytes) in FILES {
        let refused = refused(|expected| {
            expected.presented.insert(name.to_owned(), Digest::of(b"another"));
        });
        let OpenError::Subjects { mismatches } = &refused else { panic!("{refused}") };
        let mismatch =
            SubjectMismatch { name: name.to_owned(), expected: Some(Digest::of(bytes)), found: Digest::of(b"another") };
        assert_eq!(mismatches, &[mismatch]);
        let words = format!("{name} differs: sealed {}, found {}", Digest::of(bytes), Digest::of(b"another"));
        assert_eq!(refused.to_string(), words);
    }
}

#[test]
fn all_files_that_differ_are_named_at_once() {
    let refused = refused(|expected| {
        for name in ["plan", "model"] {
            expected.presented.insert(name.to_owned(), Digest::of(b"another"));
        }
        expected.presented.insert("firmware".to_owned(), Digest::of(b"never sealed"));
    });
    let words = refused.to_string();
    assert!(
        words.contains("plan differs") && words.contains("model differs") && words.contains("firmware was not sealed"),
        "{words}"
    );
}

#[test]
fn swapping_two_sealed_files_is_refused() {
    let refused = refused(|expected| {
        let (plan, model) = (expected.presented["plan"], expected.presented["model"]);
        expected.presented.extend([("plan".to_owned(), model), ("model".to_owned(), plan)]);
    });
    assert!(matches!(refused, OpenError::Subjects { mismatches } if mismatches.len() == 2));
}

#[test]
fn presenting_nothing_is_not_agreeing() {
    for name in ["plan", "model", "devices"] {
        let refused = refused(|expected| {
            expected.presented.remove(name);
        });
        assert!(matches!(&refused, OpenError::NotPresented { names } if names == &[name.to_owned()]), "{refused}");
    }
    assert!(
        matches!(refused(|expected| expected.presented.clear()), OpenError::NotPresented { names } if names.len() == 3)
    );
}

#[test]
fn a_run_of_another_manifest_with_other_tokens_or_elsewhere_is_refused() {
    let other = run_refused(|run| run.subjects[0].digest = Digest::of(b"another manifest"));
    assert!(other.to_string().starts_with("manifest differs"), "{other}");
    let other = run_refused(|run| run.subjects[1].digest = Digest::of(b"other tokens"));
    assert!(other.to_string().starts_with("tokens differs"), "{other}");
    assert!(matches!(run_refused(|run| run.predicate.cluster_id = "work".to_owned()), OpenError::OtherPlace { .. }));
    assert!(matches!(run_refused(|run| run.predicate.host_id = "laptop".to_owned()), OpenError::OtherPlace { .. }));
}

#[test]
fn a_run_outside_the_manifests_window_or_in_the_future_is_refused() {
    let early = run_refused(|run| run.predicate.started_on = at("2026-11-23T11:58:59Z"));
    assert!(matches!(early, OpenError::RunOutsideWindow { .. }), "{early}");
    let future = run_refused(|run| run.predicate.finished_on = at("2026-11-23T13:00:01Z"));
    assert!(matches!(future, OpenError::FromTheFuture { what: "finishedOn", .. }), "{future}");
    let manifest = manifest();
    let late = run_refused(|run| {
        run.predicate.started_on = manifest.predicate.expires_on;
        run.predicate.finished_on = manifest.predicate.expires_on;
    });
    assert!(matches!(late, OpenError::FromTheFuture { .. } | OpenError::RunOutsideWindow { .. }), "{late}");
}
