//! Damaged model files, thousands of them: no panic, no memory out of proportion.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use isotherm_runtime::model::Geometry;
use isotherm_runtime::model::format::BlockFormat;
use isotherm_runtime::model::gguf::Gguf;
use isotherm_runtime::model::synth::{self, SynthSpec, SynthTokenizer};
use isotherm_runtime::model::tokenizer::Tokenizer;

/// The system's allocator, counting what each thread holds.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(change: isize) {
    // A thread that is ending has no counters any more; nothing is measured there.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + change);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: every call is passed to the system's allocator unchanged; counting neither allocates nor fails.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller keeps the contract of `dealloc`, and `place` came from `alloc` above.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// The most bytes this thread held at once during `work`, beyond what it held before.
fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let answer = work();
    (answer, usize::try_from(PEAK.get() - before).expect("the peak is at least what was held before"))
}

/// Marsaglia's xorshift64: all a list of random places needs.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

/// A small sound file, and where its header ends.
fn sound() -> (Vec<u8>, usize) {
    let geometry = Geometry { layers: 1, ..synth::named("tiny").expect("a known name") };
    let spec = SynthSpec {
        geometry: &geometry,
        format: BlockFormat::Q4_0,
        embedding: BlockFormat::Q4_0,
        seed: 1,
        tokenizer: SynthTokenizer::Small,
    };
    let bytes = synth::bytes(&spec).expect("a sound specification");
    let header = Gguf::from_bytes(bytes.clone()).expect("a sound file").data_offset() as usize;
    (bytes, header)
}

/// One to four changes in the header: a bit, a byte, a whole number of eight bytes, or a cut.
fn mutate(bytes: &mut Vec<u8>, header: usize, random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(header.min(bytes.len()));
        match random.below(8) {
            0..3 => bytes[at] ^= 1 << random.below(8),
            3..5 => bytes[at] = random.below(256) as u8,
            5..7 => {
                let extremes = [0, 1, u64::MAX, u64::MAX / 2, 1 << 32, 1 << 63, bytes.len() as u64, 255];
                let end = bytes.len().min(at + 8);
                let value = extremes[random.below(extremes.len())].to_le_bytes();
                bytes[at..end].copy_from_slice(&value[..end - at]);
            }
            _ => bytes.truncate(at.max(1)),
        }
    }
}

#[test]
fn a_damaged_file_neither_panics_nor_takes_memory_out_of_proportion() {
    let (sound, header) = sound();
    let mut random = Random(0x5eed);
    let (mut opened, mut usable, mut worst) = (0, 0, 0);
    for _ in 0..6000 {
        let mut bytes = sound.clone();
        mutate(&mut bytes, header, &mut random);
        let size = bytes.len();
        let (answer, peak) = peak_of(|| Gguf::from_bytes(bytes));
        worst = worst.max(peak / size);
        assert!(peak <= 4 * size + 4096, "{peak} bytes for a file of {size}");
        let Ok(gguf) = answer else { continue };
        opened += 1;
        let geometry = Geometry::from_gguf(&gguf);
        let Ok(tokenizer) = Tokenizer::from_gguf(&gguf) else { continue };
        usable += usize::from(geometry.is_ok());
        let tokens = tokenizer.encode("Grüße, <|im_start|>the end 42\n", true).expect("a short text");
        tokenizer.decode(&tokens).expect("the tokenizer's own tokens are in its vocabulary");
    }
    // Were nearly all refused at the first byte, or none, nothing would have been tested.
    assert!((600..5400).contains(&opened) && usable > 100, "{opened} opened, {usable} usable, worst factor {worst}");
}
