//! Order: what is launched later sees what was launched earlier; events tell how far a device is.

use super::bench::{Bench, Test, each, same, text};
use super::{Check, Suite};
use crate::backend::error::{DeviceError, Refusal};
use crate::backend::op::Op;

pub(super) fn all(suite: &Suite<'_>, device: usize) -> Vec<Check> {
    let tests: [(&'static str, Test); 3] = [
        ("operations and copies take effect in the order in which they were asked for", order),
        ("events are done once everything before them is, and stale events are refused", events),
        ("batches, kernels and bytes are counted", counted),
    ];
    each(suite, device, &tests)
}

/// A long chain in which every step needs the one before: doublings and copies, whole numbers so that all is exact.
fn order(_: &Suite<'_>, bench: &mut Bench, check: &mut Check) {
    for batch in [1, 3, 20] {
        let mut one = || -> Result<(), String> {
            let count = 1000;
            let start: Vec<f32> = (0..count).map(|i| i as f32).collect();
            let (a, b) = (bench.numbers(&start)?, bench.room(count)?);
            let double = [
                Op::Copy { from: a.view, to: b.view, count: count as u64 },
                Op::Add { to: a.view, from: b.view, count: count as u64 },
            ];
            let ops: Vec<Op> = double.iter().cycle().take(40).cloned().collect();
            for ops in ops.chunks(batch) {
                bench.launch(ops)?;
            }
            // Without any wait: new content, doubled once more, copied on the device, and overwritten behind that.
            bench.device.copy_in(b.view.buffer, b.view.offset, &[0; 4]).map_err(text)?;
            bench.launch(&double[..1])?;
            let c = bench.room(count)?;
            let bytes = 4 * count as u64;
            let (from, to) = ((b.view.buffer, b.view.offset), (c.view.buffer, c.view.offset));
            bench.device.copy_within(from, to, bytes).map_err(text)?;
            bench.device.copy_in(b.view.buffer, b.view.offset, &vec![0; bytes as usize]).map_err(text)?;
            let wanted: Vec<u32> = start.iter().map(|x| (x * (1 << 20) as f32).to_bits()).collect();
            same("doubled twenty times", &bench.read_words(a)?, &wanted)?;
            same("copied before it was overwritten", &bench.read_words(c)?, &wanted)?;
            same("overwritten at last", &bench.read_words(b)?, &vec![0; count])?;
            bench.finish()
        };
        check.case(one().map_err(|why| format!("in batches of {batch}: {why}")));
    }
}

fn events(_: &Suite<'_>, bench: &mut Bench, check: &mut Check) {
    let mut one = || -> Result<(), String> {
        let (a, b) = (bench.numbers(&[1.0; 4096])?, bench.numbers(&[2.0; 4096])?);
        let before = bench.device.record().map_err(text)?;
        for _ in 0..10 {
            bench.launch(&[Op::Add { to: a.view, from: b.view, count: 4096 }])?;
        }
        let after = bench.device.record().map_err(text)?;
        bench.device.wait(after).map_err(text)?;
        for event in [before, after] {
            if !bench.device.is_done(event).map_err(text)? {
                return Err("an event is not done after a later one was waited for".to_owned());
            }
        }
        // Where there is a clock, time does not run backwards.
        bench.device.elapsed(before, after).map_err(text)?;
        if after.id() <= before.id() {
            return Err("events are not numbered in order".to_owned());
        }
        bench.device.forget(before).map_err(text)?;
        match bench.device.wait(before) {
            Err(DeviceError::Refused { refusal: Refusal::Freed { .. }, .. }) => {}
            other => return Err(format!("waiting for a forgotten event gave {other:?}")),
        }
        bench.device.forget(after).map_err(text)?;
        same("sums", &bench.read_words(a)?, &[21.0_f32.to_bits(); 4096])?;
        bench.finish()
    };
    check.case(one());
}

fn counted(_: &Suite<'_>, bench: &mut Bench, check: &mut Check) {
    let mut one = || -> Result<(), String> {
        let (a, b) = (bench.numbers(&[1.0; 64])?, bench.numbers(&[2.0; 64])?);
        bench.device.synchronise().map_err(text)?;
        let before = bench.device.counters();
        let add = Op::Add { to: a.view, from: b.view, count: 64 };
        bench.launch(&[add.clone(), add.clone(), add])?;
        bench.device.synchronise().map_err(text)?;
        let did = bench.device.counters().since(before);
        if did.dispatches != 3 || did.submissions == 0 || did.submissions > 2 {
            return Err(format!("three additions in one batch are counted as {did:?}"));
        }
        if did.bytes_out != 0 || did.bytes_in > 4096 || did.allocations > 1 {
            return Err(format!("three additions moved or allocated more than parameters: {did:?}"));
        }
        bench.read_words(a)?;
        let read = bench.device.counters().since(before).bytes_out;
        if read != 256 {
            return Err(format!("256 bytes read are counted as {read}"));
        }
        bench.finish()
    };
    check.case(one());
}
