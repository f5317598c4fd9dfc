//! A sample manifest, fixed keys, and the forger's tools: signing whatever bytes one likes with the real keys.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer, SigningKey};
use isotherm_audit::figures::{Figures, TOKENS_PER_SECOND_MILLI, TPOT_NS, TTFT_NS};
use isotherm_audit::keys::{Identity, Seed, TrustedKeys};
use isotherm_audit::log::{Event, EventKind};
use isotherm_audit::manifest::{
    CertificateFigures, ExecutionManifest, LogPosition, Manifest, Nonce, Placement, Planner, RootHash,
};
use isotherm_audit::run::{Outcome, RunClaim, SignedRun};
use isotherm_audit::statement::{DEVICES, MANIFEST, MODEL, PLAN, SCENARIO, SIMULATION, Subject, TOKENS};
use isotherm_audit::time::Timestamp;
use isotherm_audit::{Expectations, Sealed, seal};
use isotherm_core::digest::Digest;
use isotherm_core::ids::Layers;
use isotherm_core::plan::{BoundKind, Status};
use std::collections::BTreeMap;

pub const NOW: &str = "2026-11-23T12:00:00Z";
pub const ORIGIN: &str = "isotherm.local/test-log";
/// Content of the files that the sample manifest pins.
pub const FILES: [(&str, &[u8]); 5] = [
    (PLAN, b"the plan"),
    (MODEL, b"the model"),
    (SCENARIO, b"the scenario"),
    (DEVICES, b"the devices"),
    (SIMULATION, b"the simulation"),
];

pub fn at(text: &str) -> Timestamp {
    text.parse().expect("an instant")
}

pub fn identity(number: u8) -> Identity {
    Identity::from_seed(&Seed::from_bytes([number; 32])).expect("any seed is a key")
}

/// The same key, outside of the crate's care.
pub fn raw_key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

pub fn trusting(numbers: &[u8], threshold: usize) -> TrustedKeys {
    TrustedKeys::new(numbers.iter().map(|n| identity(*n).public().clone()), threshold).expect("the threshold fits")
}

pub fn manifest() -> Manifest {
    let mut predicted = Figures::default();
    for (name, value) in [(TTFT_NS, 412_000_000), (TPOT_NS, 41_733_281), (TOKENS_PER_SECOND_MILLI, 23_962)] {
        predicted.set(name, value).expect("a figure");
    }
    let placement = |stage, device: &str, start, end| Placement {
        stage,
        device: device.to_owned(),
        device_uuid: None,
        host_id: None,
        node_id: None,
        layers: Layers::new(start, end),
        memory_bytes: 512 << 20,
        power_cap_milliwatts: None,
    };
    Manifest {
        subjects: FILES
            .iter()
            .map(|(name, bytes)| Subject::new(name, Digest::of(bytes)).at(&format!("{name}.file")))
            .collect(),
        predicate: ExecutionManifest {
            tool_version: "0.1.0".to_owned(),
            planner: Planner {
                name: "isotherm-planner".to_owned(),
                version: "0.1.0".to_owned(),
                solver: "HiGHS 1.15.1".to_owned(),
                seed: Some(u64::MAX),
            },
            certificate: CertificateFigures {
                status: Status::Optimal,
                objective_name: "throughput".to_owned(),
                unit: "tokens/s".to_owned(),
                objective_nano: 23_961_700_000,
                bound_nano: Some(23_961_700_000),
                gap_ppm: Some(0),
                bound_kind: BoundKind::Certified,
            },
            placements: vec![placement(0, "cpu0", 0, 12), placement(1, "gpu0", 12, 24)],
            predicted,
            arithmetic: "f32".to_owned(),
            created_on: at("2026-11-23T11:59:00Z"),
            not_before: at("2026-11-23T11:59:00Z"),
            expires_on: at("2026-11-24T11:59:00Z"),
            cluster_id: "home".to_owned(),
            host_id: Some("tower".to_owned()),
            nonce: Nonce([7; 16]),
            counter: 5,
            previous_manifest: Some(Digest::of(b"the one before")),
            policy_digest: Some(Digest::of(b"the policies")),
            audit_log: Some(LogPosition { origin: ORIGIN.to_owned(), size: 3, root_hash: RootHash([1; 32]) }),
        },
    }
}

pub fn sealed(by: &[u8]) -> Sealed {
    let identities: Vec<_> = by.iter().map(|n| identity(*n)).collect();
    seal(&manifest(), &identities.iter().collect::<Vec<_>>()).expect("the sample holds together")
}

pub fn presented() -> BTreeMap<String, Digest> {
    FILES.iter().map(|(name, bytes)| ((*name).to_owned(), Digest::of(bytes))).collect()
}

pub fn expected() -> Expectations {
    Expectations {
        cluster_id: "home".to_owned(),
        host_id: "tower".to_owned(),
        counter_min: 5,
        previous_manifest: None,
        presented: presented(),
        nodes: None,
    }
}

pub fn run_claim(manifest: Digest) -> SignedRun {
    let mut measured = Figures::default();
    measured.set_scaled(TPOT_NS, 0.0431, 1e9).expect("a figure");
    SignedRun {
        subjects: vec![Subject::new(MANIFEST, manifest), Subject::new(TOKENS, Digest::of(b"the tokens"))],
        predicate: RunClaim {
            tool_version: "0.1.0".to_owned(),
            cluster_id: "home".to_owned(),
            host_id: "tower".to_owned(),
            started_on: at("2026-11-23T12:00:00Z"),
            finished_on: at("2026-11-23T12:00:09Z"),
            arithmetic: "f32".to_owned(),
            outcome: Outcome::Completed,
            token_count: 128,
            measured,
            stages: Vec::new(),
            devices: Vec::new(),
            links: Vec::new(),
            nonce: Nonce([8; 16]),
            audit_log: None,
        },
    }
}

pub fn event(number: u64) -> Event {
    let kind = EventKind::ALL[number as usize % EventKind::ALL.len()];
    let mut event = Event::new(kind, at(NOW).later_by(number), identity(1).id());
    event.subjects.insert("plan".to_owned(), Digest::of(&number.to_be_bytes()));
    event.metadata.insert("number".to_owned(), (number as i64).into());
    event
}

/// The bytes that DSSE signs, written out by hand.
pub fn signed_bytes(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    [format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).as_bytes(), payload].concat()
}

pub struct Forged<'a> {
    pub payload_type: &'a str,
    pub payload: &'a [u8],
    /// Key id as it is to be written, and signature.
    pub signatures: Vec<(String, Vec<u8>)>,
}

impl<'a> Forged<'a> {
    /// An envelope around any payload, properly signed by these keys.
    pub fn signed(payload: &'a [u8], by: &[u8]) -> Self {
        let payload_type = "application/vnd.in-toto+json";
        let sign = |n: &u8| {
            let signature = raw_key(*n).sign(&signed_bytes(payload_type, payload));
            (identity(*n).id().to_string(), signature.to_bytes().to_vec())
        };
        Self { payload_type, payload, signatures: by.iter().map(sign).collect() }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let signatures: Vec<_> = self
            .signatures
            .iter()
            .map(|(keyid, sig)| serde_json::json!({"keyid": keyid, "sig": STANDARD.encode(sig)}))
            .collect();
        let envelope = serde_json::json!({
            "payloadType": self.payload_type,
            "payload": STANDARD.encode(self.payload),
            "signatures": signatures,
        });
        envelope.to_string().into_bytes()
    }
}

pub fn payload_of(envelope: &[u8]) -> Vec<u8> {
    let envelope: serde_json::Value = serde_json::from_slice(envelope).expect("an envelope is JSON");
    decode(envelope["payload"].as_str().expect("a payload is text"))
}

pub fn decode(base64: &str) -> Vec<u8> {
    STANDARD.decode(base64).expect("base64")
}

/// The sample's payload after `edit`, canonical again: what a dishonest holder of the key would sign.
pub fn edited_payload(edit: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
    let mut statement: serde_json::Value = serde_json::from_slice(&payload_of(&sealed(&[1]).envelope)).expect("JSON");
    edit(&mut statement);
    serde_json_canonicalizer::to_vec(&statement).expect("JSON")
}
