//! What a device takes for the operations of a decoder, against what its memory and arithmetic allow.
//!
//! The roofline of an operation is the longer of two times: its bytes over the device's bandwidth, its operations over
//! its arithmetic rate (S. Williams, A. Waterman, D. Patterson, CACM 52(4), 2009).

use super::device::Device;
use super::error::DeviceError;
use super::op::{Input, Op, Store};
use super::roofline::Card;
use crate::cpu::Arithmetic;
use crate::model::format::BlockFormat;
use std::time::Instant;

/// Cards for which times are foretold.
pub const PEAKS: [Card; 3] = Card::KNOWN;

/// One operation, timed.
#[derive(Clone, Debug, PartialEq)]
pub struct Timed {
    /// Which operation, on what.
    pub what: String,
    /// Bytes that must be read and written at least.
    pub bytes: u64,
    /// Multiplications and additions; none for copies and for a launch alone.
    pub flops: u64,
    /// Median seconds of one, launch included when it stands alone.
    pub seconds: f64,
    /// Lowest and highest sample.
    pub range: (f64, f64),
    /// Samples.
    pub samples: usize,
}

impl Timed {
    /// Seconds that a card needs at least.
    #[must_use]
    pub fn at_least(&self, card: &Card) -> f64 {
        (self.bytes as f64 / card.bytes_per_second).max(self.flops as f64 / card.flops_per_second())
    }
}

/// Operations in one batch: the launch is shared among them.
const TOGETHER: usize = 8;

/// Times `once` some times, `each` counting as so many of what is measured.
fn sampled(
    samples: usize,
    each: usize,
    mut once: impl FnMut() -> Result<(), DeviceError>,
) -> Result<(f64, (f64, f64)), DeviceError> {
    once()?;
    let mut times = Vec::with_capacity(samples);
    for _ in 0..samples.max(1) {
        let begin = Instant::now();
        once()?;
        times.push(begin.elapsed().as_secs_f64() / each as f64);
    }
    times.sort_by(f64::total_cmp);
    Ok((times[times.len() / 2], (times[0], times[times.len() - 1])))
}

/// Times copies, an empty launch, and products of a `size` x `size` matrix in some formats with 1 and 32 rows.
///
/// # Errors
/// What the device says, also when it has not the memory.
pub fn measure(
    device: &mut Device,
    size: u32,
    formats: &[BlockFormat],
    samples: usize,
) -> Result<Vec<Timed>, DeviceError> {
    let mut rows = Vec::new();
    let mut add = |what: String, bytes: u64, flops: u64, timed: (f64, (f64, f64))| {
        rows.push(Timed { what, bytes, flops, seconds: timed.0, range: timed.1, samples });
    };
    let large = 16 << 20;
    let buffer = device.allocate(large)?;
    let mut bytes = vec![1; large as usize];
    let timed = sampled(samples, 1, || {
        device.copy_in(buffer, 0, &bytes)?;
        device.synchronise()
    })?;
    add("copy in, 16 MiB".to_owned(), large, 0, timed);
    let timed = sampled(samples, 1, || device.copy_out(buffer, 0, &mut bytes))?;
    add("copy out, 16 MiB".to_owned(), large, 0, timed);
    let other = device.allocate(large)?;
    let sum = Op::Add { to: buffer.into(), from: other.into(), count: large / 4 };
    let timed = sampled(samples, 1, || {
        device.launch(&[Op::Add { to: buffer.into(), from: other.into(), count: 1 }])?;
        device.synchronise()
    })?;
    add("launch and wait, one number".to_owned(), 12, 0, timed);
    let batch = vec![sum; TOGETHER];
    let timed = sampled(samples, TOGETHER, || {
        device.launch(&batch)?;
        device.synchronise()
    })?;
    add("sum, 4 Mi numbers".to_owned(), 3 * large, large / 4, timed);
    device.free(other)?;
    device.free(buffer)?;
    for &format in formats {
        let Some(row) = format.row_bytes(size.into()) else { continue };
        let matrix = device.load(format, size, size, &vec![0; (row * u64::from(size)) as usize])?;
        for tokens in [1_u32, 32] {
            let count = u64::from(tokens) * u64::from(size);
            let (input, out) = (device.allocate(4 * count)?, device.allocate(4 * count)?);
            device.copy_in(input, 0, &vec![0; 4 * count as usize])?;
            let product = Op::Product {
                input: Input { numbers: input.into(), norm: None },
                rows: tokens,
                outs: vec![(matrix, out.into())],
                store: Store::Set,
                arithmetic: Arithmetic::F32,
            };
            let batch = vec![product; if tokens == 1 { TOGETHER } else { 1 }];
            let timed = sampled(samples, batch.len(), || {
                device.launch(&batch)?;
                device.synchronise()
            })?;
            let bytes = row * u64::from(size) + 8 * count;
            add(format!("product {format} {size} x {size}, {tokens} rows"), bytes, 2 * count * u64::from(size), timed);
            device.free(input)?;
            device.free(out)?;
        }
        device.unload(matrix)?;
    }
    Ok(rows)
}
