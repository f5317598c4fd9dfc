//! Any bytes as an entry of a log: an error, or an entry that belongs to the one place it names.

#![no_main]

use isotherm_audit::log::Entry;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(entry) = Entry::read(data) else { return };
    assert!(!data.contains(&b'\n'));
    assert!(entry.belongs(&entry.origin, entry.index, &entry.previous).is_ok());
    assert!(entry.belongs(&entry.origin, entry.index.wrapping_add(1), &entry.previous).is_err());
    // One text, one entry: the same bytes are read the same way.
    assert_eq!(Entry::read(data).expect("it was read before"), entry);
});
