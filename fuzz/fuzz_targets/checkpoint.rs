//! Any bytes as a checkpoint, any bytes as its signed text, and any bytes as an inclusion proof: an error, or what the key
//! signed.

#![no_main]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer, SigningKey};
use isotherm_audit::keys::{Identity, Seed};
use isotherm_audit::log::{Checkpoint, verify_inclusion_proof};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

const SEED: [u8; 32] = [1; 32];
const ORIGIN: &str = "isotherm.example/fuzz";

static KEY: LazyLock<(Identity, Vec<u8>)> = LazyLock::new(|| {
    let identity = Identity::from_seed(&Seed::from_bytes(SEED)).expect("any seed is a key");
    let note = Checkpoint { origin: ORIGIN.to_owned(), size: 0, root: [0; 32] }.sign(&identity);
    let signature = note.trim_end().rsplit(' ').next().expect("a signature line");
    let key_hash = STANDARD.decode(signature).expect("base64")[..4].to_vec();
    (identity, key_hash)
});

fuzz_target!(|data: &[u8]| {
    let (identity, key_hash) = &*KEY;
    let _ = Checkpoint::open(data, ORIGIN, identity.public());
    let _ = verify_inclusion_proof(data, b"line", ORIGIN, identity.public());
    let signature = [key_hash.as_slice(), &SigningKey::from_bytes(&SEED).sign(data).to_bytes()].concat();
    let note = [data, "\n\u{2014} ".as_bytes(), ORIGIN.as_bytes(), b" ", STANDARD.encode(signature).as_bytes(), b"\n"].concat();
    if let Ok(checkpoint) = Checkpoint::open(&note, ORIGIN, identity.public()) {
        let again = checkpoint.sign(identity);
        assert_eq!(Checkpoint::open(again.as_bytes(), ORIGIN, identity.public()), Ok(checkpoint));
    }
});
