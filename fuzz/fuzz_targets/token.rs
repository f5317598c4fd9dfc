//! Any bytes as the payload of a lease, of a use of one, of a set of keys and of a handover, and as the text of a
//! checkpoint shown to a witness, each really signed by the keys it takes: an error, or a document that keeps the limits of
//! its kind and that sealing would write again.

#![no_main]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer, SigningKey};
use isotherm_audit::envelope::{PAYLOAD_TYPE, pre_authentication_encoding};
use isotherm_audit::handover::open_hand_over;
use isotherm_audit::keys::{Identity, Seed, TrustedKeys};
use isotherm_audit::keyset::{KeySet, ROOT};
use isotherm_audit::lease::{
    LEASE_SECONDS_MAX, Lease, SignedLease, USE_SECONDS_MAX, lease, open_lease, open_lease_use,
};
use isotherm_audit::log::Checkpoint;
use isotherm_audit::log::witness::{Watched, Witness};
use isotherm_audit::manifest::Nonce;
use isotherm_audit::time::Timestamp;
use isotherm_audit::{Verified, seal};
use libfuzzer_sys::fuzz_target;
use std::path::PathBuf;
use std::sync::LazyLock;

const SEEDS: [[u8; 32]; 2] = [[1; 32], [2; 32]];
const ORIGIN: &str = "isotherm.example/fuzz";
const CLUSTER: &str = "home";

struct Known {
    issuer: Identity,
    holder: Identity,
    trusted: TrustedKeys,
    lent: Verified<SignedLease>,
    key_hash: Vec<u8>,
    memory: PathBuf,
    now: Timestamp,
}

static KNOWN: LazyLock<Known> = LazyLock::new(|| {
    let [issuer, holder] = SEEDS.map(|seed| Identity::from_seed(&Seed::from_bytes(seed)).expect("any seed is a key"));
    let trusted = TrustedKeys::new([issuer.public().clone()], 1).expect("one of one");
    let now: Timestamp = "2026-11-23T12:00:00Z".parse().expect("an instant");
    let claim = Lease {
        lease_id: Nonce([3; 16]),
        cluster_id: CLUSTER.to_owned(),
        principal: holder.id(),
        scopes: ["compute:execute".to_owned()].into(),
        devices: None,
        memory_bytes_max: None,
        created_on: now,
        not_before: now,
        expires_on: now.later_by(3600),
    };
    let sealed = seal(&lease(claim), &[&issuer]).expect("it holds together");
    let lent = open_lease(&sealed.envelope, &trusted, now, CLUSTER).expect("rightful");
    let note = Checkpoint { origin: ORIGIN.to_owned(), size: 0, root: [0; 32] }.sign(&issuer);
    let line = note.trim_end().rsplit(' ').next().expect("a signature line");
    let key_hash = STANDARD.decode(line).expect("base64")[..4].to_vec();
    let memory = std::env::temp_dir().join(format!("isotherm-token-{}", std::process::id()));
    Known { issuer, holder, trusted, lent, key_hash, memory, now }
});

/// An envelope around any payload, signed by the first so many keys from one on.
fn signed(payload: &[u8], by: std::ops::Range<usize>) -> Vec<u8> {
    let signatures: Vec<String> = by
        .map(|number| {
            let signature =
                SigningKey::from_bytes(&SEEDS[number]).sign(&pre_authentication_encoding(PAYLOAD_TYPE, payload));
            let identity = if number == 0 { &KNOWN.issuer } else { &KNOWN.holder };
            format!(r#"{{"keyid":"{}","sig":"{}"}}"#, identity.id(), STANDARD.encode(signature.to_bytes()))
        })
        .collect();
    let (payload, signatures) = (STANDARD.encode(payload), signatures.join(","));
    format!(r#"{{"payload":"{payload}","payloadType":"{PAYLOAD_TYPE}","signatures":[{signatures}]}}"#).into_bytes()
}

fuzz_target!(|data: &[u8]| {
    let known = &*KNOWN;
    let (both, by_issuer, by_holder) = (signed(data, 0..2), signed(data, 0..1), signed(data, 1..2));
    if let Ok(opened) = open_lease(&by_issuer, &known.trusted, known.now, CLUSTER) {
        let claim = &opened.predicate;
        assert!(claim.not_before <= known.now && known.now < claim.expires_on && claim.cluster_id == CLUSTER);
        assert!(claim.expires_on <= claim.not_before.later_by(LEASE_SECONDS_MAX));
        let again = seal(&*opened, &[&known.issuer]).expect("what was accepted is acceptable");
        let again = open_lease(&again.envelope, &known.trusted, known.now, CLUSTER).expect("what was sealed opens");
        assert_eq!(*again, *opened);
        // Whoever is not its holder uses nothing by it.
        assert!(
            claim.principal == known.issuer.id()
                || open_lease_use(&by_issuer, &opened, known.issuer.public(), known.now).is_err()
        );
    }
    assert!(open_lease(&by_holder, &known.trusted, known.now, CLUSTER).is_err(), "its issuer did not sign");
    if let Ok(opened) = open_lease_use(&by_holder, &known.lent, known.holder.public(), known.now) {
        assert!(opened.predicate.made_on <= known.now.later_by(USE_SECONDS_MAX));
        assert!(known.now < opened.predicate.made_on.later_by(USE_SECONDS_MAX));
        assert_eq!(opened.subject("lease"), Some(known.lent.payload_digest()));
    }
    assert!(open_lease_use(&by_issuer, &known.lent, known.holder.public(), known.now).is_err());
    if let Ok(set) = KeySet::first(&both, &known.trusted, known.now, CLUSTER) {
        let root = set.role(ROOT).expect("a set has a root");
        assert!(set.claim().version == 1 && root.threshold() >= 1 && root.threshold() <= root.iter().count());
        assert!(set.next(&both, known.now).is_err(), "a set does not follow itself");
        let _ = set.signers(known.now);
    }
    if let Ok(handed) = open_hand_over(&both, ORIGIN, known.issuer.public()) {
        assert!(handed.to.id() == known.holder.id() && handed.state.origin == ORIGIN);
    }
    assert!(open_hand_over(&by_issuer, ORIGIN, known.issuer.public()).is_err(), "who takes over has to sign");
    let signature = [known.key_hash.as_slice(), &SigningKey::from_bytes(&SEEDS[0]).sign(data).to_bytes()].concat();
    let line = format!("\n\u{2014} {ORIGIN} {}\n", STANDARD.encode(signature));
    let request = [b"old 0\n\n".as_slice(), data, line.as_bytes()].concat();
    let witness =
        Witness::open("witness.example", &known.holder, &known.memory).expect("the scratch folder is writable");
    let watched = Watched { origin: ORIGIN.to_owned(), key: known.issuer.public().clone() };
    if witness.answer(&request, &watched, known.now).is_ok() {
        let size = witness.known(&watched).expect("what it wrote it reads").expect("it saw one").size;
        assert!(str::from_utf8(data).is_ok_and(|text| text.lines().nth(1) == Some(size.to_string().as_str())));
        std::fs::remove_dir_all(&known.memory).expect("the scratch folder is writable");
    }
});
