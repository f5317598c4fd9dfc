//! Two devices at once.

use super::bench::{Bench, text, within};
use super::oracle::{Weights, plain};
use super::{Check, Suite};
use crate::backend::PeerRoute;
use crate::backend::op::{Input, Op, Store};
use crate::cpu::Arithmetic;
use crate::model::format::BlockFormat;

pub(super) fn all(suite: &Suite<'_>, first: usize, second: usize) -> Vec<Check> {
    vec![peers(suite, first, second), together(suite, first, second)]
}

fn peers(suite: &Suite<'_>, first: usize, second: usize) -> Check {
    let mut check = Check::new("bytes copied to a peer and back are the same bytes, in both directions");
    let benches = (Bench::open(suite, first, &mut check), Bench::open(suite, second, &mut check));
    let (Some(mut one), Some(mut two)) = benches else { return check };
    let mut routes = Vec::new();
    for size in [1_u64, 4, 1003, 65_537, (1 << 20) + 3] {
        for back in [false, true] {
            let (from, to) = if back { (&mut two, &mut one) } else { (&mut one, &mut two) };
            let outcome = copy(from, to, size);
            check.case(outcome.as_ref().map(|_| ()).map_err(Clone::clone));
            routes.extend(outcome);
        }
    }
    let direct = routes.iter().filter(|route| **route == PeerRoute::Direct).count();
    if direct != 0 && direct != routes.len() {
        check.case(Err(format!("{direct} of {} copies went straight, the others did not", routes.len())));
    }
    check
}

fn copy(from: &mut Bench, to: &mut Bench, size: u64) -> Result<PeerRoute, String> {
    let (a, b) = (from.device.allocate(size + 8).map_err(text)?, to.device.allocate(size + 8).map_err(text)?);
    let (sent, mut wanted) = (from.draw.bytes(size as usize + 8), from.draw.bytes(size as usize + 8));
    from.device.copy_in(a, 0, &sent).map_err(text)?;
    to.device.copy_in(b, 0, &wanted).map_err(text)?;
    let (i, j) = (from.draw.below(8), from.draw.below(8));
    let route = from.device.copy_to_peer((a, i), &mut to.device, (b, j), size).map_err(text)?;
    // What is sent may change at once: the copy was asked for before.
    from.device.copy_in(a, 0, &vec![0; size as usize + 8]).map_err(text)?;
    wanted[j as usize..(j + size) as usize].copy_from_slice(&sent[i as usize..(i + size) as usize]);
    let mut got = vec![0; size as usize + 8];
    to.device.copy_out(b, 0, &mut got).map_err(text)?;
    from.device.free(a).map_err(text)?;
    to.device.free(b).map_err(text)?;
    if got == wanted { Ok(route) } else { Err(format!("{size} bytes arrived changed")) }
}

/// Both devices work in threads of their own, on different numbers, and both are right.
fn together(suite: &Suite<'_>, first: usize, second: usize) -> Check {
    let mut check = Check::new("two devices at once do not disturb one another");
    let outcomes = std::thread::scope(|scope| {
        let threads = [(first, 1), (second, 2)].map(|(device, seed)| {
            scope.spawn(move || -> Result<(), String> {
                let mut failed = Check::new("");
                let opening = Suite { seed: suite.seed ^ seed, ..*suite };
                let mut bench = Bench::open(&opening, device, &mut failed).ok_or_else(|| failed.failures.join(""))?;
                for _ in 0..10 {
                    product(&mut bench)?;
                }
                Ok(())
            })
        });
        threads.map(|thread| thread.join().unwrap_or_else(|_| Err("a thread panicked".to_owned())))
    });
    for outcome in outcomes {
        check.case(outcome);
    }
    check
}

fn product(bench: &mut Bench) -> Result<(), String> {
    let (rows, columns) = (96, 128);
    let packed = bench.draw.matrix(BlockFormat::Q4_1, rows, columns);
    let x = bench.draw.numbers(2 * columns);
    let matrix = bench.device.load(BlockFormat::Q4_1, rows as u32, columns as u32, &packed).map_err(text)?;
    let (input, out) = (bench.numbers(&x)?, bench.room(2 * rows)?);
    bench.launch(&[Op::Product {
        input: Input { numbers: input.view, norm: None },
        rows: 2,
        outs: vec![(matrix, out.view)],
        store: Store::Set,
        arithmetic: Arithmetic::F32,
    }])?;
    let exact = Weights::read(BlockFormat::Q4_1, rows, columns, &packed).product(&plain(&x), Arithmetic::F32);
    within("product", &bench.read(out)?, &exact)?;
    bench.device.unload(matrix).map_err(text)?;
    bench.finish()
}
