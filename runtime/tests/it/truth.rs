//! Memory that is really there, and ways between cards that really carry.

use isotherm_core::units::Bytes;
use isotherm_runtime::backend::peers::{PeerError, prove};
use isotherm_runtime::backend::scalar::ScalarPlatform;
use isotherm_runtime::backend::{Device, Platform, clipping};
use isotherm_runtime::engine::{Card, CpuDevice};
use isotherm_runtime::probe::{TruthError, memory_truth};
use std::sync::Arc;

fn card(memory_bytes: u64) -> CpuDevice {
    let platform: Arc<dyn Platform> = Arc::new(ScalarPlatform { devices: 2, memory_bytes });
    CpuDevice::of_card("card", Card { platform, index: 0 })
}

#[test]
fn the_memory_truth_test_takes_exactly_what_the_plan_needs_and_no_byte_more() {
    let cpu = || CpuDevice::new("cpu", vec![0]);
    // The card has exactly what its stage needs: one byte more is refused, so none more was taken.
    let bytes = (1 << 20) + 13;
    let stages = [(cpu(), Bytes(3_000_001)), (card(bytes), Bytes(bytes))];
    let held = memory_truth(&stages, Some(Bytes(3_000_001))).expect("it is all there");
    assert_eq!(held.iter().map(|held| held.bytes.0).collect::<Vec<_>>(), [3_000_001, bytes]);
    let short = [(card(bytes), Bytes(bytes + 1))];
    let refused = memory_truth(&short, None).expect_err("one byte is missing");
    assert!(matches!(refused, TruthError::Card { .. }), "{refused}");
    // Two stages that fit one by one do not fit together: they are held at the same time.
    let both = [(cpu(), Bytes(600)), (cpu(), Bytes(600))];
    let refused = memory_truth(&both, Some(Bytes(1000))).expect_err("together they do not fit");
    assert!(matches!(refused, TruthError::Short { needed: Bytes(1200), .. }), "{refused}");
}

fn open(platform: &ScalarPlatform, index: usize) -> Device {
    Device::open(platform, index).expect("it opens")
}

#[test]
fn a_way_between_cards_is_believed_only_after_checked_copies_each_way() {
    let platform = ScalarPlatform { devices: 2, memory_bytes: 64 << 20 };
    let (mut one, mut other) = (open(&platform, 0), open(&platform, 1));
    let (there, back) = prove(&mut one, &mut other, 1).expect("both ways carry");
    assert!(there.copies >= 4 && back.copies >= 4 && there.bytes_per_second > 0.0);
    assert_eq!((one.live().buffers, other.live().buffers), (0, 0));
    // A card that leaves the end of long copies behind is found out, whichever way it stands.
    for faulty_first in [true, false] {
        let clipped = |index| Device::new(clipping(platform.open(index).expect("it opens"), 1000));
        let (mut one, mut other) =
            if faulty_first { (clipped(0), open(&platform, 1)) } else { (open(&platform, 0), clipped(1)) };
        match prove(&mut one, &mut other, 2) {
            Err(PeerError::Changed { bytes: 1003, at: 1002, .. }) => {}
            // Where the two cannot reach one another there is nothing to leave behind.
            Ok((there, back)) => assert!(!there.direct && !back.direct, "the fault went unnoticed"),
            Err(other) => panic!("{other}"),
        }
    }
}
