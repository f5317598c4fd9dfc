//! A node of the same cluster and the same name runs what was sealed for another, or somebody who was not there signs a
//! run. A host's name is whatever it calls itself; its key is its own.

use crate::support::{NOW, at, expected, identity, manifest, run_claim, trusting};
use isotherm_audit::manifest::Manifest;
use isotherm_audit::open::RunExpectations;
use isotherm_audit::{OpenError, Verified, open, open_run, seal};
use std::collections::{BTreeMap, BTreeSet};

const LATER: &str = "2026-11-23T13:00:00Z";

fn node(number: u8) -> String {
    identity(number).id().to_string()
}

/// The sample, with both placements on nodes of these keys.
fn on(nodes: [u8; 2]) -> Manifest {
    let mut manifest = manifest();
    for (placement, number) in manifest.predicate.placements.iter_mut().zip(nodes) {
        placement.node_id = Some(node(number));
    }
    manifest
}

fn opened(manifest: &Manifest, nodes: Option<&[u8]>) -> Result<Verified<Manifest>, OpenError> {
    let sealed = seal(manifest, &[&identity(1)]).expect("it holds together");
    let mut expected = expected();
    expected.nodes = nodes.map(|numbers| numbers.iter().map(|number| node(*number)).collect());
    open(&sealed.envelope, &trusting(&[1], 1), at(NOW), &expected)
}

#[test]
fn a_manifest_for_another_node_of_the_same_name_does_not_run_here() {
    opened(&on([1, 1]), Some(&[1])).expect("its own");
    for (nodes, own) in [([1, 1], vec![2]), ([1, 2], vec![1]), ([2, 1], vec![1]), ([1, 1], vec![])] {
        let refused = opened(&on(nodes), Some(&own)).expect_err("another node");
        assert!(matches!(refused, OpenError::OtherPlace { what: "node", .. }), "{refused}");
        opened(&on(nodes), None).expect("for looking at it is no matter whose it is");
    }
    opened(&on([1, 2]), Some(&[1, 2])).expect("a key and the one it took the place of");
    opened(&manifest(), Some(&[2])).expect("a manifest that names no node is for any");
    let mut named = on([1, 1]);
    named.predicate.placements[1].node_id = Some("spiffe://home/node/tower".to_owned());
    assert!(opened(&named, Some(&[1])).is_err(), "a name that is no key of this node");
}

#[test]
fn a_run_counts_only_by_the_signature_of_a_node_that_the_manifest_names() {
    let manifest = opened(&on([1, 3]), None).expect("rightful");
    let run = run_claim(manifest.payload_digest());
    let by = |signers: &[u8], successors: &[u8]| {
        let signers: Vec<_> = signers.iter().map(|number| identity(*number)).collect();
        let sealed = seal(&run, &signers.iter().collect::<Vec<_>>()).expect("it holds together");
        let expected = RunExpectations {
            manifest: &manifest,
            presented: BTreeMap::new(),
            successors: successors.iter().map(|number| identity(*number).id()).collect(),
        };
        open_run(&sealed.envelope, &trusting(&[1, 2, 3], 1), at(LATER), &expected)
    };
    for node in [1, 3] {
        by(&[node], &[]).expect("a node of the manifest");
    }
    by(&[2, 3], &[]).expect("a node and somebody else");
    by(&[2], &[2]).expect("the key that took the node's place");
    let refused = by(&[2], &[]).expect_err("believed, and not there");
    assert!(matches!(&refused, OpenError::OtherUse { what } if what.contains("none of the nodes")), "{refused}");
    let refused = by(&[9], &[]).expect_err("a stranger");
    assert!(matches!(refused, OpenError::BelowThreshold { .. }), "{refused}");
    // A stranger that says it took a node's place is a stranger still.
    assert!(matches!(by(&[9], &[9]), Err(OpenError::BelowThreshold { .. })));
    // A node that is no longer believed does not count beside somebody who is.
    let sealed = seal(&run, &[&identity(1), &identity(2)]).expect("it holds together");
    let expected = RunExpectations { manifest: &manifest, presented: BTreeMap::new(), successors: BTreeSet::new() };
    assert!(open_run(&sealed.envelope, &trusting(&[2], 1), at(LATER), &expected).is_err());
}
