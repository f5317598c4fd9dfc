//! Memory: round trips, refusals, running out, loss.

use super::bench::{Bench, Test, each, text};
use super::{Check, Suite};
use crate::backend::device::Live;
use crate::backend::error::{DeviceError, Refusal};
use crate::backend::op::{Op, View};
use crate::model::format::BlockFormat;

/// Buffers that are allocated while looking for the end of the memory.
const PIECES_MAX: usize = 4096;

pub(super) fn all(suite: &Suite<'_>, device: usize) -> Vec<Check> {
    let tests: [(&'static str, Test); 5] = [
        ("bytes come back as they went in, at any offset and of any length", round_trips),
        ("bytes copied on the device are the same bytes, and nothing beside them changes", copies_within),
        ("a request that makes no sense is refused by name, and the device goes on", refusals),
        ("what is alive is counted, and releasing it all leaves nothing", leaks),
        ("running out of memory is told as such, and releasing makes room again", out_of_memory),
    ];
    let mut checks: Vec<Check> = each(suite, device, &tests);
    checks.push(loss(suite, device));
    checks
}

fn round_trips(suite: &Suite<'_>, bench: &mut Bench, check: &mut Check) {
    let sizes: &[u64] = if suite.thorough { &[1, 2, 3, 4, 5, 63, 64, 255, 257, 4097, 1 << 20] } else { &[1, 7, 4097] };
    for &size in sizes {
        let mut one = || -> Result<(), String> {
            let buffer = bench.device.allocate(size).map_err(text)?;
            let mut wanted = bench.draw.bytes(size as usize);
            bench.device.copy_in(buffer, 0, &wanted).map_err(text)?;
            for _ in 0..8 {
                let offset = bench.draw.below(size);
                let length = 1 + bench.draw.below(size - offset);
                let piece = bench.draw.bytes(length as usize);
                bench.device.copy_in(buffer, offset, &piece).map_err(text)?;
                wanted[offset as usize..(offset + length) as usize].copy_from_slice(&piece);
                let offset = bench.draw.below(size);
                let length = 1 + bench.draw.below(size - offset);
                let mut got = vec![0; length as usize];
                bench.device.copy_out(buffer, offset, &mut got).map_err(text)?;
                if got != wanted[offset as usize..(offset + length) as usize] {
                    return Err(format!("{length} bytes at {offset} of {size} came back changed"));
                }
            }
            bench.device.free(buffer).map_err(text)
        };
        check.case(one());
    }
}

fn copies_within(_: &Suite<'_>, bench: &mut Bench, check: &mut Check) {
    for size in [5_u64, 64, 1031, 70_001] {
        let mut one = || -> Result<(), String> {
            let (a, b) = (bench.device.allocate(size).map_err(text)?, bench.device.allocate(size).map_err(text)?);
            let (from, mut wanted) = (bench.draw.bytes(size as usize), bench.draw.bytes(size as usize));
            bench.device.copy_in(a, 0, &from).map_err(text)?;
            bench.device.copy_in(b, 0, &wanted).map_err(text)?;
            for _ in 0..6 {
                let length = 1 + bench.draw.below(size);
                let (i, j) = (bench.draw.below(size - length + 1), bench.draw.below(size - length + 1));
                bench.device.copy_within((a, i), (b, j), length).map_err(text)?;
                wanted[j as usize..(j + length) as usize].copy_from_slice(&from[i as usize..(i + length) as usize]);
            }
            // Inside one buffer too: its first third to its end.
            let third = size / 3;
            bench.device.copy_within((b, 0), (b, size - third), third).map_err(text)?;
            let head = wanted[..third as usize].to_vec();
            wanted[(size - third) as usize..].copy_from_slice(&head);
            let mut got = vec![0; size as usize];
            bench.device.copy_out(b, 0, &mut got).map_err(text)?;
            bench.device.free(a).map_err(text)?;
            bench.device.free(b).map_err(text)?;
            if got == wanted { Ok(()) } else { Err(format!("copies among {size} bytes gave other bytes")) }
        };
        check.case(one());
    }
}

/// One request, and the refusal it must meet.
fn expect<T>(what: &str, got: Result<T, DeviceError>, right: fn(&Refusal) -> bool) -> Result<(), String> {
    match got {
        Ok(_) => Err(format!("{what} was not refused")),
        Err(DeviceError::Refused { refusal, .. }) if right(&refusal) => Ok(()),
        Err(other) => Err(format!("{what} gave: {other}")),
    }
}

fn refusals(suite: &Suite<'_>, bench: &mut Bench, check: &mut Check) {
    let Ok(buffer) = bench.device.allocate(64) else { return check.case(Err("64 bytes are not to be had".into())) };
    let limit = bench.device.limits().buffer_bytes_max;
    let device = &mut bench.device;
    check.case(expect("an allocation of nothing", device.allocate(0), |r| *r == Refusal::Empty));
    for bytes in [limit.saturating_add(1), u64::MAX - 3, u64::MAX] {
        check.case(expect("an impossible size", device.allocate(bytes), |r| matches!(r, Refusal::TooLarge { .. })));
    }
    for (offset, length) in [(64, 1), (60, 5), (u64::MAX, 2), (1, 64)] {
        let bytes = vec![0; length];
        let out_of_range = |r: &Refusal| matches!(r, Refusal::OutOfRange { .. });
        check.case(expect("a write past the end", device.copy_in(buffer, offset, &bytes), out_of_range));
        check.case(expect("a read past the end", device.copy_out(buffer, offset, &mut vec![0; length]), out_of_range));
    }
    check.case(expect("an overlapping copy", device.copy_within((buffer, 0), (buffer, 8), 16), |r| {
        matches!(r, Refusal::Overlap { .. })
    }));
    let view = View::from(buffer);
    let unaligned = View { offset: 2, ..view };
    check.case(expect(
        "an operand at byte 2",
        device.launch(&[Op::Copy { from: unaligned, to: view, count: 4 }]),
        |r| matches!(r, Refusal::Unaligned { .. }),
    ));
    check.case(expect(
        "an operand past the end",
        device.launch(&[Op::Copy { from: view, to: view, count: 17 }]),
        |r| matches!(r, Refusal::OutOfRange { .. }),
    ));
    check.case(expect("an operation in place", device.launch(&[Op::Copy { from: view, to: view, count: 4 }]), |r| {
        matches!(r, Refusal::Overlap { .. })
    }));
    check.case(expect("no numbers", device.launch(&[Op::Add { to: view, from: view, count: 0 }]), |r| {
        matches!(r, Refusal::Shape { .. })
    }));
    check.case(expect("a matrix of too few bytes", device.load(BlockFormat::Q8_0, 2, 32, &[0; 67]), |r| {
        matches!(r, Refusal::Shape { .. })
    }));
    check.case(expect("a matrix of half a block", device.load(BlockFormat::Q8_0, 1, 16, &[0; 17]), |r| {
        matches!(r, Refusal::Shape { .. })
    }));
    check.case(device.free(buffer).map_err(text));
    let freed = |r: &Refusal| matches!(r, Refusal::Freed { .. });
    check.case(expect("a second release", device.free(buffer), freed));
    check.case(expect("a read after release", device.copy_out(buffer, 0, &mut [0]), freed));
    check.case(expect(
        "an operand after release",
        device.launch(&[Op::Copy { from: view, to: view, count: 1 }]),
        freed,
    ));
    let foreign = (suite.open)(device.info().index).and_then(|mut other| {
        let buffer = other.allocate(4)?;
        Ok((other, buffer))
    });
    check.case(foreign.map_err(text).and_then(|(_other, buffer)| {
        expect("a buffer of another opening", device.copy_in(buffer, 0, &[1]), |r| {
            matches!(r, Refusal::OtherDevice { .. })
        })
    }));
    // After all that, the device still works.
    check.case((|| {
        let buffer = device.allocate(4).map_err(text)?;
        device.copy_in(buffer, 0, &[1, 2, 3, 4]).map_err(text)?;
        let mut got = [0; 4];
        device.copy_out(buffer, 0, &mut got).map_err(text)?;
        device.free(buffer).map_err(text)?;
        if got == [1, 2, 3, 4] { Ok(()) } else { Err("the device does not work after refusals".to_owned()) }
    })());
}

fn leaks(_: &Suite<'_>, bench: &mut Bench, check: &mut Check) {
    let mut one = || -> Result<(), String> {
        let device = &mut bench.device;
        if device.live() != Live::default() {
            return Err("a fresh device holds something".to_owned());
        }
        let before = device.counters();
        let buffers = (1..=40).map(|i| device.allocate(100 * i).map_err(text)).collect::<Result<Vec<_>, _>>()?;
        let matrix = device.load(BlockFormat::Q4_1, 3, 64, &[0; 120]).map_err(text)?;
        let live = device.live();
        if (live.buffers, live.matrices) != (40, 1) || live.bytes < 100 * 820 + 120 {
            return Err(format!("40 buffers and a matrix are counted as {live:?}"));
        }
        let made = device.counters().since(before);
        if made.allocations != 41 || made.allocated_bytes != live.bytes {
            return Err(format!("41 allocations of {} bytes are counted as {made:?}", live.bytes));
        }
        if device.allocations().iter().filter(|a| a.matrix).count() != 1 {
            return Err("the matrix is not among the allocations".to_owned());
        }
        for buffer in buffers {
            device.free(buffer).map_err(text)?;
        }
        device.unload(matrix).map_err(text)?;
        if device.live() != Live::default() {
            return Err(format!("after releasing everything, {:?} is left", device.live()));
        }
        Ok(())
    };
    check.case(one());
}

fn out_of_memory(_: &Suite<'_>, bench: &mut Bench, check: &mut Check) {
    let device = &mut bench.device;
    let memory = device.memory();
    let Some(available) = memory.as_ref().ok().and_then(|m| m.available.or(m.total)) else {
        check.skipped = Some("the device does not say how much memory it has".to_owned());
        return;
    };
    let mut one = || -> Result<(), String> {
        let piece = device.limits().buffer_bytes_max.min((available / 8).max(1));
        let mut held = Vec::new();
        let error = loop {
            match device.allocate(piece) {
                Ok(buffer) => held.push(buffer),
                Err(error) => break error,
            }
            if held.len() > PIECES_MAX || held.len() as u64 * piece > 2 * available {
                return Err(format!("{} pieces of {piece} bytes were given of {available}", held.len()));
            }
        };
        if !matches!(error, DeviceError::OutOfMemory { wanted, .. } if wanted >= piece) {
            return Err(format!("after {} pieces of {piece} bytes: {error}", held.len()));
        }
        let matrix = vec![0; piece as usize / 4 * 4];
        let columns = 4;
        let rows = u32::try_from(matrix.len() / (4 * columns)).map_err(text)?;
        if let Ok(loaded) = device.load(BlockFormat::F32, rows, 4, &matrix[..rows as usize * 16]) {
            device.unload(loaded).map_err(text)?;
            return Err("a matrix was taken where a buffer of its size was not".to_owned());
        }
        let last = held.pop().ok_or("not even one piece was given")?;
        device.free(last).map_err(text)?;
        device.synchronise().map_err(text)?;
        let again = device.allocate(piece).map_err(|error| format!("after a release: {error}"))?;
        device.copy_in(again, piece - 1, &[9]).map_err(text)?;
        let mut got = [0];
        device.copy_out(again, piece - 1, &mut got).map_err(text)?;
        for buffer in held.into_iter().chain([again]) {
            device.free(buffer).map_err(text)?;
        }
        if got == [9] { Ok(()) } else { Err("the last byte of the last piece is not the one written".to_owned()) }
    };
    check.case(one());
}

fn loss(suite: &Suite<'_>, device: usize) -> Check {
    let mut check = Check::new("a lost device answers everything with its loss, at once, and another opening works");
    let Some(mut bench) = Bench::open(suite, device, &mut check) else { return check };
    let held = (bench.device.allocate(4096), bench.device.allocate(4096), bench.device.record());
    let (Ok(a), Ok(b), Ok(event)) = held else {
        check.case(Err("two small buffers and an event are not to be had".to_owned()));
        return check;
    };
    let add = Op::Add { to: a.into(), from: b.into(), count: 1024 };
    check.case(bench.device.launch(std::slice::from_ref(&add)).map_err(text));
    bench.device.lose();
    fn lost<T>(what: &str, got: Result<T, DeviceError>) -> Result<(), String> {
        match got {
            Err(DeviceError::Lost { .. }) => Ok(()),
            Err(other) => Err(format!("{what} after the loss gave: {other}")),
            Ok(_) => Err(format!("{what} worked after the loss")),
        }
    }
    // The first call after the loss finds it; all others must remember it.
    check.case(lost("reading", bench.device.copy_out(a, 0, &mut [0; 16])));
    check.case(lost("writing", bench.device.copy_in(a, 0, &[1; 16])));
    check.case(lost("copying", bench.device.copy_within((a, 0), (b, 0), 16)));
    check.case(lost("allocating", bench.device.allocate(16)));
    check.case(lost("loading", bench.device.load(BlockFormat::F32, 1, 4, &[0; 16])));
    check.case(lost("launching", bench.device.launch(&[add])));
    check.case(lost("waiting", bench.device.synchronise()));
    check.case(lost("recording", bench.device.record()));
    check.case(lost("waiting for an event", bench.device.wait(event)));
    check.case(bench.device.free(a).map_err(text));
    check.case(bench.device.free(b).map_err(text));
    // Each call finds a loss by itself too, not only by memory: a fresh opening per call.
    type Call = fn(&mut Bench, crate::backend::Buffer) -> Result<(), DeviceError>;
    let calls: [(&str, Call); 3] = [
        ("launching", |bench, a| {
            bench.device.launch(&[Op::Argmax { input: a.into(), rows: 1, width: 4, out: View::at(a, 8) }])?;
            bench.device.synchronise()
        }),
        ("writing", |bench, a| {
            bench.device.copy_in(a, 0, &[1; 16])?;
            bench.device.synchronise()
        }),
        ("allocating", |bench, _| {
            bench.device.allocate(16)?;
            bench.device.synchronise()
        }),
    ];
    for (what, call) in calls {
        let Some(mut bench) = Bench::open(suite, device, &mut check) else { return check };
        let outcome = bench.device.allocate(64).map_err(text).and_then(|a| {
            bench.device.lose();
            lost(what, call(&mut bench, a))
        });
        check.case(outcome);
    }
    check.case((suite.open)(device).map_err(text).and_then(|mut device| {
        let buffer = device.allocate(4).map_err(text)?;
        device.copy_in(buffer, 0, &[1, 2, 3, 4]).map_err(text)?;
        device.free(buffer).map_err(text)
    }));
    check
}
