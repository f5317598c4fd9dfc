//! Any bytes as an envelope, and any bytes as a payload that a trusted key really signed: an error, or a statement whose
//! payload is canonical.

#![no_main]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer, SigningKey};
use isotherm_audit::envelope::{PAYLOAD_TYPE, pre_authentication_encoding};
use isotherm_audit::keys::{Identity, Seed, TrustedKeys};
use isotherm_audit::manifest::ExecutionManifest;
use isotherm_audit::run::RunClaim;
use isotherm_audit::{inspect, seal};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

const SEED: [u8; 32] = [1; 32];

static TRUSTED: LazyLock<(Identity, TrustedKeys)> = LazyLock::new(|| {
    let identity = Identity::from_seed(&Seed::from_bytes(SEED)).expect("any seed is a key");
    let trusted = TrustedKeys::new([identity.public().clone()], 1).expect("one of one");
    (identity, trusted)
});

fuzz_target!(|data: &[u8]| {
    let (identity, trusted) = &*TRUSTED;
    let _ = inspect::<ExecutionManifest>(data, trusted);
    let signature = SigningKey::from_bytes(&SEED).sign(&pre_authentication_encoding(PAYLOAD_TYPE, data));
    let envelope = format!(
        r#"{{"payload":"{}","payloadType":"{PAYLOAD_TYPE}","signatures":[{{"keyid":"{}","sig":"{}"}}]}}"#,
        STANDARD.encode(data),
        identity.id(),
        STANDARD.encode(signature.to_bytes())
    );
    let _ = inspect::<RunClaim>(envelope.as_bytes(), trusted);
    let Ok(inspected) = inspect::<ExecutionManifest>(envelope.as_bytes(), trusted) else { return };
    let text = str::from_utf8(data).expect("canonical JSON is UTF-8");
    let value: serde_json::Value = serde_json::from_str(text).expect("canonical JSON is JSON");
    assert!(!value["predicate"]["counter"].is_f64());
    // What opens can be sealed again, and sealing drops nothing but fields this version does not know.
    let again = seal(&inspected.statement, &[identity]).expect("what was accepted is acceptable");
    let again = inspect::<ExecutionManifest>(&again.envelope, trusted).expect("what was sealed opens");
    assert_eq!(again.statement, inspected.statement);
});
