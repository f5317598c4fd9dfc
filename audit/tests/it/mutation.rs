//! The fuzz targets' cheap, repeatable cousin: many mutations of good bytes, from fixed seeds. Nothing may panic, and
//! nothing that differs in meaning may be accepted.

use crate::support::{Forged, NOW, ORIGIN, at, event, expected, identity, payload_of, sealed, trusting};
use isotherm_audit::log::{Checkpoint, Entry, Log, OnLock, verify_inclusion_proof};
use isotherm_audit::open;
use tempfile::tempdir;

/// SplitMix64 (Steele, Lea, Flood 2014): enough to pick places with.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit.max(1) as u64) as usize
    }
}

const WORDS: [&[u8]; 16] = [
    b"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"null",
    b"-1",
    b"1e9",
    b"9007199254740992",
    b"\\u0000",
    b"\xe2\x80\xae",
    b"\n\n",
    b"\xe2\x80\x94 ",
    b"{\"a\":{\"a\":{\"a\":1}}}",
];

fn mutated(good: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..=dice.below(3) {
        let place = dice.below(bytes.len() + 1);
        let end = (place + dice.below(24)).min(bytes.len());
        match dice.below(7) {
            0 => bytes.truncate(place),
            1 => drop(bytes.drain(place..end)),
            2 => drop(bytes.splice(place..end, WORDS[dice.below(WORDS.len())].iter().copied())),
            3 => drop(bytes.splice(place..place, WORDS[dice.below(WORDS.len())].iter().copied())),
            4 => {
                let copy = bytes[place..end].to_vec();
                let to = dice.below(bytes.len() + 1);
                drop(bytes.splice(to..to, copy));
            }
            5 if place < bytes.len() => bytes[place] ^= 1 << dice.below(8),
            _ if place < bytes.len() => bytes[place] = dice.below(256) as u8,
            _ => {}
        }
    }
    bytes
}

#[test]
fn mutated_envelopes_never_panic_and_open_only_to_the_sealed_payload() {
    let good = sealed(&[1, 2]);
    let (keys, now, expected) = (trusting(&[1, 2], 2), at(NOW), expected());
    let mut dice = Dice(1);
    for round in 0..20_000 {
        let bytes = mutated(&good.envelope, &mut dice);
        if let Ok(verified) = open(&bytes, &keys, now, &expected) {
            assert_eq!(
                verified.payload_digest(),
                good.payload_digest,
                "round {round}: {}",
                String::from_utf8_lossy(&bytes)
            );
        }
    }
}

#[test]
fn mutated_payloads_never_panic_even_when_rightly_signed_and_only_canonical_ones_open() {
    let good = payload_of(&sealed(&[1]).envelope);
    let (keys, now, expected) = (trusting(&[1], 1), at(NOW), expected());
    let mut dice = Dice(2);
    let mut opened = 0;
    for round in 0..6_000 {
        let payload = mutated(&good, &mut dice);
        if open(&Forged::signed(&payload, &[1]).bytes(), &keys, now, &expected).is_ok() {
            opened += 1;
            let text = str::from_utf8(&payload).expect("only UTF-8 opens");
            assert_eq!(serde_json_canonicalizer::pipe(text).expect("only JSON opens"), text, "round {round}");
        }
    }
    // A digit of a figure or a letter of a name may change and the statement still be one.
    assert!(opened > 0 && opened < 3_000, "{opened} opened");
}

#[test]
fn mutated_checkpoints_entries_and_proofs_never_panic_and_show_only_what_was_signed() {
    let folder = tempdir().expect("a folder");
    let key = identity(1);
    let (mut log, _) = Log::open(folder.path(), ORIGIN, &key, OnLock::Refuse).expect("new");
    log.append_all(&(0..9).map(event).collect::<Vec<_>>()).expect("logged");
    let (line, proof) = (log.line(4).expect("there"), log.prove(4).expect("there"));
    let good = Entry::read(&line).expect("an entry");
    let mut dice = Dice(3);
    for _ in 0..20_000 {
        let bytes = mutated(log.note().as_bytes(), &mut dice);
        if let Ok(checkpoint) = Checkpoint::open(&bytes, ORIGIN, key.public()) {
            assert_eq!(&checkpoint, log.checkpoint());
        }
        let bytes = mutated(&line, &mut dice);
        if let Ok(entry) = Entry::read(&bytes) {
            let holds = entry.belongs(ORIGIN, 4, &good.previous).is_ok();
            // Other details are another entry, which the tree does not have; the proof below decides.
            assert!(holds || bytes != line);
            let shown = verify_inclusion_proof(proof.as_bytes(), &bytes, ORIGIN, key.public()).is_ok();
            assert_eq!(shown, bytes == line);
        }
        let bytes = mutated(proof.as_bytes(), &mut dice);
        if let Ok((entry, checkpoint)) = verify_inclusion_proof(&bytes, &line, ORIGIN, key.public()) {
            assert_eq!((entry.index, &checkpoint), (4, log.checkpoint()));
        }
    }
}
