//! Read bandwidth of a device's cores.

use super::samples::Samples;
use super::{ProbeError, on_own_thread};
use crate::cpu::team::pin;
use isotherm_core::figure::Figure;
use isotherm_core::units::BytesPerSecond;
use std::hint::black_box;
use std::time::Instant;

/// Bytes each core reads: far beyond any cache it has for itself.
const BYTES_PER_CORE: usize = 128 << 20;
/// Times everything is read.
const ROUNDS: usize = 4;

/// Reads a large array with all cores at once, several times. None where the system does not give the memory.
pub(super) fn read_bandwidth(cores: &[usize], when: &str) -> Result<Option<Figure<BytesPerSecond>>, ProbeError> {
    let samples = std::thread::scope(|scope| -> Result<Vec<Samples>, ProbeError> {
        let threads: Vec<_> = cores.iter().map(|&core| scope.spawn(move || on_own_thread(|| read(core)))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })?;
    let rates: Vec<f64> =
        samples.iter().map(Samples::median).filter(|&t| t > 0.0).map(|t| BYTES_PER_CORE as f64 / t).collect();
    let total: f64 = rates.iter().sum();
    let spread = samples.iter().map(Samples::spread).fold(0.0, f64::max);
    let count = samples.iter().map(Samples::count).min().unwrap_or(0);
    Ok(BytesPerSecond::new(total)
        .ok()
        .filter(|rate| rate.value() > 0.0)
        .map(|rate| Figure::measured(rate, "reading 128 MiB per core", count, spread, Some(when.to_owned()))))
}

fn read(core: usize) -> Samples {
    pin(core);
    let mut samples = Samples::default();
    let mut words: Vec<u64> = Vec::new();
    if words.try_reserve_exact(BYTES_PER_CORE / 8).is_err() {
        return samples;
    }
    words.extend((0..BYTES_PER_CORE as u64 / 8).map(|i| i ^ 0x5555));
    for round in 0..=ROUNDS {
        let begin = Instant::now();
        // Many sums, so that no addition waits for the one before.
        let sums = words.chunks_exact(32).fold([0_u64; 32], |mut sums, chunk| {
            for (sum, word) in sums.iter_mut().zip(chunk) {
                *sum = sum.wrapping_add(*word);
            }
            sums
        });
        black_box(sums);
        if round > 0 {
            samples.add(u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
    }
    samples
}
