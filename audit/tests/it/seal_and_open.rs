//! Sealing and opening when nobody cheats.

use crate::support::{NOW, at, expected, identity, manifest, payload_of, presented, run_claim, sealed, trusting};
use isotherm_audit::manifest::ExecutionManifest;
use isotherm_audit::open::RunExpectations;
use isotherm_audit::seal::SealError;
use isotherm_audit::statement::Subject;
use isotherm_audit::{approve, inspect, open, open_run, seal};
use isotherm_core::digest::Digest;
use std::collections::{BTreeMap, BTreeSet};

#[test]
fn what_was_sealed_is_what_opens() {
    let sealed = sealed(&[1]);
    let verified = open(&sealed.envelope, &trusting(&[1], 1), at(NOW), &expected()).expect("nothing was changed");
    assert_eq!(*verified, manifest());
    assert_eq!(verified.payload_digest(), sealed.payload_digest);
    assert_eq!(verified.signers().iter().copied().collect::<Vec<_>>(), [identity(1).id()]);
    assert_eq!(verified.compared().len(), 5);
}

#[test]
fn sealing_the_same_statement_twice_gives_the_same_bytes() {
    assert_eq!(sealed(&[1]), sealed(&[1]));
    assert_eq!(sealed(&[1]).payload_digest, sealed(&[2]).payload_digest);
    assert_eq!(sealed(&[1]).payload_digest, Digest::of(&payload_of(&sealed(&[1]).envelope)));
}

#[test]
fn two_of_three_keys_open_a_manifest_and_order_does_not_matter() {
    for signers in [[1, 2], [2, 1], [1, 3], [3, 2]] {
        let verified =
            open(&sealed(&signers).envelope, &trusting(&[1, 2, 3], 2), at(NOW), &expected()).expect("two keys");
        assert_eq!(verified.signers().len(), 2);
    }
}

#[test]
fn an_approver_adds_the_second_signature_on_another_machine() {
    let first = sealed(&[1]);
    let both = approve::<ExecutionManifest>(&first.envelope, &trusting(&[1], 1), &identity(2)).expect("it verifies");
    assert_eq!(both.payload_digest, first.payload_digest);
    open(&both.envelope, &trusting(&[1, 2], 2), at(NOW), &expected()).expect("both keys signed");
    let twice = approve::<ExecutionManifest>(&both.envelope, &trusting(&[1, 2], 2), &identity(1));
    assert!(matches!(twice, Err(SealError::SignsTwice { key }) if key == identity(1).id()));
    let unknown = approve::<ExecutionManifest>(&first.envelope, &trusting(&[3], 1), &identity(2));
    assert!(matches!(unknown, Err(SealError::NotVerified(_))));
}

#[test]
fn a_signature_by_a_stranger_beside_enough_trusted_ones_is_ignored() {
    let verified = open(&sealed(&[9, 1]).envelope, &trusting(&[1], 1), at(NOW), &expected()).expect("key 1 is trusted");
    assert_eq!(verified.signers().len(), 1);
}

#[test]
fn a_manifest_is_valid_from_its_first_second_until_before_its_last() {
    let sealed = sealed(&[1]);
    for (now, valid) in [
        ("2026-11-23T11:58:59Z", false),
        ("2026-11-23T11:59:00Z", true),
        ("2026-11-24T11:58:59Z", true),
        ("2026-11-24T11:59:00Z", false),
    ] {
        assert_eq!(open(&sealed.envelope, &trusting(&[1], 1), at(now), &expected()).is_ok(), valid, "{now}");
    }
}

#[test]
fn a_manifest_for_any_host_of_the_cluster_opens_on_each() {
    let mut manifest = manifest();
    manifest.predicate.host_id = None;
    let sealed = seal(&manifest, &[&identity(1)]).expect("it holds together");
    let mut expected = expected();
    expected.host_id = "laptop".to_owned();
    open(&sealed.envelope, &trusting(&[1], 1), at(NOW), &expected).expect("no host was named");
}

#[test]
fn scenario_and_simulation_need_not_be_at_hand_but_the_rest_must() {
    let sealed = sealed(&[1]);
    let mut expected = expected();
    expected.presented =
        presented().into_iter().filter(|(name, _)| name != "scenario" && name != "simulation").collect();
    let verified = open(&sealed.envelope, &trusting(&[1], 1), at(NOW), &expected).expect("what runs was presented");
    assert_eq!(verified.compared().iter().collect::<Vec<_>>(), ["devices", "model", "plan"]);
}

#[test]
fn every_file_of_a_model_in_parts_has_to_be_presented() {
    let mut manifest = manifest();
    manifest.subjects.push(Subject::new("model/00002", Digest::of(b"second part")));
    let sealed = seal(&manifest, &[&identity(1)]).expect("it holds together");
    let refused = open(&sealed.envelope, &trusting(&[1], 1), at(NOW), &expected()).expect_err("one part is missing");
    assert_eq!(refused.to_string(), "nothing was presented to compare with model/00002");
    let mut expected = expected();
    expected.presented.insert("model/00002".to_owned(), Digest::of(b"second part"));
    open(&sealed.envelope, &trusting(&[1], 1), at(NOW), &expected).expect("all parts are here");
}

#[test]
fn inspecting_shows_an_expired_manifest_without_making_it_usable() {
    let inspected =
        inspect::<ExecutionManifest>(&sealed(&[1]).envelope, &trusting(&[1], 1)).expect("the signature holds");
    assert_eq!(inspected.statement, manifest());
}

#[test]
fn a_run_record_opens_against_the_manifest_that_allowed_it() {
    let manifest = sealed(&[1]);
    let verified = open(&manifest.envelope, &trusting(&[1], 1), at(NOW), &expected()).expect("nothing was changed");
    let run = seal(&run_claim(manifest.payload_digest), &[&identity(2)]).expect("it holds together");
    let presented = BTreeMap::from([("tokens".to_owned(), Digest::of(b"the tokens"))]);
    let expected = RunExpectations { manifest: &verified, presented, successors: BTreeSet::new() };
    let opened = open_run(&run.envelope, &trusting(&[2], 1), at("2027-01-01T00:00:00Z"), &expected).expect("it fits");
    assert_eq!(*opened, run_claim(manifest.payload_digest));
    assert!(opened.compared().contains("manifest") && opened.compared().contains("tokens"));
}

#[test]
fn nothing_is_sealed_by_nobody_or_twice_by_one() {
    assert!(matches!(seal(&manifest(), &[]), Err(SealError::NoSigner)));
    let key = identity(1);
    assert!(matches!(seal(&manifest(), &[&key, &key]), Err(SealError::SignsTwice { .. })));
}

#[test]
fn a_statement_that_contradicts_itself_is_not_sealed() {
    type Edit = fn(&mut isotherm_audit::manifest::Manifest);
    let edits: [(Edit, &str); 12] = [
        (|m| m.subjects.truncate(2), "subject \"scenario\" is missing"),
        (|m| m.subjects.push(m.subjects[0].clone()), "subject \"plan\" is there twice"),
        (|m| m.predicate.placements.clear(), "manifest places no layers"),
        (|m| m.predicate.placements[1].layers.end = 12, "stage 1 has the layers 12..12, which is no interval"),
        (|m| m.predicate.not_before = m.predicate.expires_on, "notBefore 2026-11-24T11:59:00Z is not before expiresOn"),
        (|m| m.predicate.cluster_id.clear(), "clusterId is empty"),
        (
            |m| m.predicate.placements[0].device = "cpu\u{1b}[2J".to_owned(),
            "device name has the control or direction character U+001B",
        ),
        (|m| m.predicate.placements[0].device = "cpu\u{202e}0".to_owned(), "U+202E"),
        (|m| m.predicate.arithmetic = "x".repeat(257), "arithmetic has 257 bytes; the limit is 256"),
        (|m| m.predicate.counter = 1 << 53, "number 9007199254740992 at \"/predicate/counter\""),
        (|m| m.predicate.placements[0].memory_bytes = u64::MAX, "at \"/predicate/placements/0/memoryBytes\""),
        (
            |m| m.predicate.certificate.status = isotherm_core::plan::Status::Unknown,
            "a plan with status unknown cannot be sealed",
        ),
    ];
    for (edit, words) in edits {
        let mut manifest = manifest();
        edit(&mut manifest);
        let refused = seal(&manifest, &[&identity(1)]).expect_err(words);
        assert!(refused.to_string().contains(words), "{refused} does not say {words}");
    }
}
