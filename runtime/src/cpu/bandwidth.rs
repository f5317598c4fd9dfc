//! How fast cores read memory: what decoding, which reads every weight once per token, can come near to and not pass.

use super::isa::{self, Isa, Kernel};
use super::lanes::Lanes;
use super::memory;
use super::team::pin;
use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;

/// Times that each core reads its part; the median counts.
const ROUNDS: usize = 7;

/// Bytes per second that these cores read together, each from `bytes_each` bytes of its own, all at once, with the widest
/// loads of the processor. None where the system gives no memory or no thread.
#[must_use]
pub fn read_bandwidth(cores: &[usize], bytes_each: usize) -> Option<f64> {
    let isa = Isa::detect();
    let together = Barrier::new(cores.len());
    let seconds: Vec<Option<Vec<f64>>> = std::thread::scope(|scope| {
        let threads: Vec<_> = cores
            .iter()
            .map(|&core| {
                let together = &together;
                scope.spawn(move || {
                    pin(core);
                    let mut all = memory::zeroed(bytes_each).ok();
                    // Each page is written once, so that there is one.
                    all.iter_mut().flat_map(|all| all.chunks_mut(4096)).for_each(|page| page[0] = 1);
                    let mut times = Vec::with_capacity(ROUNDS);
                    for _ in 0..ROUNDS {
                        together.wait();
                        let begin = Instant::now();
                        if let Some(all) = &all {
                            // SAFETY: `isa` comes from `Isa::available`.
                            black_box(unsafe { isa::call(isa, Read { all }) });
                        }
                        times.push(begin.elapsed().as_secs_f64());
                    }
                    all.map(|_| times)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().ok().flatten()).collect()
    });
    let rate = |times: Option<Vec<f64>>| {
        let mut times = times?;
        times.sort_by(f64::total_cmp);
        Some(bytes_each as f64 / times[times.len() / 2].max(1e-9))
    };
    seconds.into_iter().map(rate).sum()
}

/// Reads all of a piece of memory.
struct Read<'a> {
    all: &'a [u8],
}

impl Kernel for Read<'_> {
    type Output = i32;

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) -> i32 {
        // SAFETY: each chunk holds eight runs of sixteen words.
        unsafe {
            let mut seen = [V::splat_words(0); 8];
            for chunk in self.all.chunks_exact(8 * 64) {
                V::prefetch(chunk.as_ptr().wrapping_add(4096));
                V::prefetch(chunk.as_ptr().wrapping_add(4096 + 256));
                for (i, seen) in seen.iter_mut().enumerate() {
                    *seen = V::either(*seen, V::load_words(chunk.as_ptr().add(64 * i)));
                }
            }
            let all = seen.into_iter().fold(V::splat_words(0), |all, one| V::either(all, one));
            let mut lanes = [0.0; 16];
            V::from_words(all).store(lanes.as_mut_ptr());
            lanes.iter().fold(0.0_f32, |sum, lane| sum + lane) as i32
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_what_is_there() {
        let mut all = vec![0_u8; 4096];
        all[1028] = 3;
        for &isa in Isa::available() {
            // SAFETY: the instruction set is available.
            assert_eq!(unsafe { isa::call(isa, Read { all: &all }) }, 3, "{isa:?}");
        }
        assert!(read_bandwidth(&[0], 1 << 20).is_some_and(|rate| rate > 0.0));
    }
}
