//! Any bytes as a line of a log: an error, or an entry that a key which never signed it does not verify.

#![no_main]

use isotherm_audit::keys::{Identity, Seed};
use isotherm_audit::log::Entry;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

// A key that signed nothing, also none of the sample lines one may start from.
static IDENTITY: LazyLock<Identity> =
    LazyLock::new(|| Identity::from_seed(&Seed::from_bytes([0x5e; 32])).expect("any seed is a key"));

fuzz_target!(|data: &[u8]| {
    let Ok(entry) = Entry::read(data) else { return };
    assert!(!data.contains(&b'\n'));
    assert!(entry.verify(&entry.origin, entry.index, &entry.previous, IDENTITY.public()).is_err());
    // One line, one entry: the same bytes are read the same way.
    assert_eq!(Entry::read(data).expect("it was read before"), entry);
});
