//! Layers whose weights are not held in memory: they lie packed in a file and are brought when their turn comes.
//!
//! A pass visits the layers of a stage in a circle, 0, 1, 2 ... and again. Of everything that could be dropped, what was used
//! least recently is what is needed soonest, so that a cache that drops by age would never hold what is asked for. The layers
//! held are therefore always the same, and those brought are spread evenly between them: while the cores work on one layer, a
//! thread reads the next one that lies on the shelf into the other of two buffers, across the end of a pass too. A pass then
//! takes the longer of computing and reading, and memory for weights never exceeds the budget.
//!
//! The file has no name: it vanishes with the process, however that ends.

use crate::cpu::memory;
use memmap2::MmapMut;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Buffers between which reading and computing alternate.
const BUFFERS: usize = 2;

/// How much of a stage's weights may be in memory, and where the rest goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Offload {
    /// Bytes of packed weights in memory at most, buffers included.
    pub(crate) budget: usize,
    /// A folder on a disk with room for the rest.
    pub(crate) folder: PathBuf,
}

/// What offloading did, all stages together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Offloaded {
    /// Layers of the model.
    pub layers: usize,
    /// Those that lie in a file.
    pub away: usize,
    /// Bytes of packed weights in memory at most, buffers included.
    pub held_bytes: u64,
    /// Bytes that a pass over all layers reads.
    pub pass_bytes: u64,
    /// Bytes read so far.
    pub read_bytes: u64,
    /// How long reading took; it goes on beside computing.
    pub reading: Duration,
    /// How long computing waited for it.
    pub waiting: Duration,
}

impl Offloaded {
    /// Adds what another stage did.
    pub(crate) fn add(&mut self, other: &Self) {
        self.layers += other.layers;
        self.away += other.away;
        self.held_bytes += other.held_bytes;
        self.pass_bytes += other.pass_bytes;
        self.read_bytes += other.read_bytes;
        self.reading += other.reading;
        self.waiting += other.waiting;
    }
}

/// Which layers of these sizes are put away so that the others and the buffers fit `budget`: as few as possible, spread
/// evenly, in rising order. All of them where nothing less is enough.
pub(crate) fn spread(bytes: &[usize], budget: usize) -> Vec<usize> {
    let all: usize = bytes.iter().sum();
    if all <= budget {
        return Vec::new();
    }
    let layers = bytes.len();
    for count in 1..layers {
        let away: Vec<usize> = (0..count).map(|i| (2 * i + 1) * layers / (2 * count)).collect();
        if held(bytes, &away) <= budget {
            return away;
        }
    }
    (0..layers).collect()
}

/// Bytes in memory while these layers are away.
fn held(bytes: &[usize], away: &[usize]) -> usize {
    let gone: usize = away.iter().map(|&layer| bytes[layer]).sum();
    bytes.iter().sum::<usize>() - gone + buffers(away.len()) * largest(bytes, away)
}

/// Buffers that so many layers need.
fn buffers(away: usize) -> usize {
    BUFFERS.min(away)
}

fn largest(bytes: &[usize], away: &[usize]) -> usize {
    away.iter().map(|&layer| bytes[layer]).max().unwrap_or(0)
}

/// The smallest budget that these layers can be run with.
pub(crate) fn least(bytes: &[usize]) -> usize {
    let all: Vec<usize> = (0..bytes.len()).collect();
    held(bytes, &all).min(bytes.iter().sum())
}

/// What the reading thread has done.
#[derive(Default)]
struct Progress {
    bytes: u64,
    time: Duration,
}

/// Layers in a file, and the thread that brings them.
pub(crate) struct Shelf {
    away: Vec<usize>,
    /// Layers in the order in which they will be asked for.
    filled: Receiver<(usize, io::Result<MmapMut>)>,
    /// Buffers back to the thread; none once the shelf is closing.
    free: Option<Sender<MmapMut>>,
    thread: Option<JoinHandle<()>>,
    /// Where layers are that nobody has brought.
    nowhere: Arc<MmapMut>,
    done: Arc<Mutex<Progress>>,
    figures: Offloaded,
}

impl Shelf {
    /// Writes layers `away` into a file, and starts bringing them. `bytes` are those of every layer; `pack` packs a layer
    /// into memory that holds zeros.
    ///
    /// # Errors
    /// When the operating system gives no file, no room in it, no memory or no thread.
    pub(crate) fn fill(
        offload: &Offload,
        away: &[usize],
        bytes: &[usize],
        pack: impl Fn(usize, &mut [u8]),
    ) -> io::Result<Self> {
        let mut file = tempfile::tempfile_in(&offload.folder)?;
        let size = largest(bytes, away);
        let mut places = Vec::new();
        let mut start = 0;
        for &layer in away {
            // Fresh memory for each: packing writes into zeros.
            let mut buffer = memory::zeroed(bytes[layer])?;
            pack(layer, &mut buffer[..bytes[layer]]);
            file.write_all(&buffer[..bytes[layer]])?;
            places.push(Place { layer, start, bytes: bytes[layer] });
            start += bytes[layer] as u64;
        }
        let (give, free) = channel::<MmapMut>();
        let (bring, filled) = channel();
        for _ in 0..buffers(away.len()) {
            // The other end lives as long as this function.
            let _ = give.send(memory::zeroed(size)?);
        }
        let done = Arc::new(Mutex::new(Progress::default()));
        let count = Arc::clone(&done);
        let thread = std::thread::Builder::new()
            .name("isotherm-shelf".to_owned())
            .spawn(move || bring_in_turn(&mut file, &places, &free, &bring, &count))?;
        let figures = Offloaded {
            layers: bytes.len(),
            away: away.len(),
            held_bytes: held(bytes, away) as u64,
            pass_bytes: start,
            ..Offloaded::default()
        };
        Ok(Self {
            away: away.to_vec(),
            filled,
            free: Some(give),
            thread: Some(thread),
            nowhere: Arc::new(memory::zeroed(1)?),
            done,
            figures,
        })
    }

    /// Memory that holds no layer.
    pub(crate) fn nowhere(&self) -> &Arc<MmapMut> {
        &self.nowhere
    }

    /// Whether a layer lies here.
    pub(crate) fn has(&self, layer: usize) -> bool {
        self.away.binary_search(&layer).is_ok()
    }

    /// Takes a layer, waiting until it has been read. Layers are taken in turn.
    ///
    /// # Errors
    /// What the operating system said when the file was read.
    ///
    /// # Panics
    /// When it is another layer's turn.
    pub(crate) fn take(&mut self, layer: usize) -> io::Result<Arc<MmapMut>> {
        let begin = Instant::now();
        let ended = || io::Error::other("the thread that reads layers has ended");
        let (read, buffer) = self.filled.recv().map_err(|_| ended())?;
        self.figures.waiting += begin.elapsed();
        assert_eq!(read, layer, "layers are taken in turn");
        buffer.map(Arc::new)
    }

    /// Gives a layer's memory back, for the next one.
    ///
    /// # Panics
    /// When something still uses it.
    pub(crate) fn give(&self, buffer: Arc<MmapMut>) {
        let buffer = Arc::into_inner(buffer).expect("nothing uses the weights of a layer that is done");
        if let Some(free) = &self.free {
            // A thread that has ended says so at the next layer that is taken.
            let _ = free.send(buffer);
        }
    }

    /// What it has done so far.
    pub(crate) fn figures(&self) -> Offloaded {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        Offloaded { read_bytes: done.bytes, reading: done.time, ..self.figures }
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        self.free = None;
        if let Some(thread) = self.thread.take() {
            // It has no more buffers to fill, or nobody to bring them to.
            let _ = thread.join();
        }
    }
}

/// Where a layer lies in the file.
struct Place {
    layer: usize,
    start: u64,
    bytes: usize,
}

/// Reads one layer after another into whichever buffer is free, until nobody gives one back.
fn bring_in_turn(
    file: &mut File,
    places: &[Place],
    free: &Receiver<MmapMut>,
    bring: &Sender<(usize, io::Result<MmapMut>)>,
    done: &Mutex<Progress>,
) {
    for place in places.iter().cycle() {
        let Ok(mut buffer) = free.recv() else { return };
        let begin = Instant::now();
        let read = file.seek(SeekFrom::Start(place.start)).and_then(|_| file.read_exact(&mut buffer[..place.bytes]));
        let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
        done.bytes += place.bytes as u64;
        done.time += begin.elapsed();
        drop(done);
        let failed = read.is_err();
        if bring.send((place.layer, read.map(|()| buffer))).is_err() || failed {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::pack::{Packed, RowMajor};
    use crate::model::format::BlockFormat;

    #[test]
    fn as_few_layers_as_possible_are_put_away_and_not_side_by_side() {
        let bytes = vec![10; 12];
        assert!(spread(&bytes, 120).is_empty());
        for budget in (20..120).step_by(10) {
            let away = spread(&bytes, budget);
            // Each layer put away frees its bytes, and two buffers take those of two.
            assert_eq!(away.len(), (12 - budget / 10 + 2).min(12), "{budget}");
            assert!(held(&bytes, &away) <= budget && away.is_sorted());
            let gaps: Vec<usize> = away.windows(2).map(|pair| pair[1] - pair[0]).collect();
            assert!(gaps.iter().max().unwrap_or(&1) - gaps.iter().min().unwrap_or(&1) <= 1, "{away:?}");
        }
        assert_eq!(least(&bytes), 20);
        assert_eq!(spread(&bytes, 0).len(), 12);
    }

    #[test]
    fn what_is_brought_is_what_was_packed_in_turn_and_again() {
        let of =
            |layer: usize| -> Vec<u8> { (0..16 * 4).flat_map(|i| ((layer * 100 + i) as f32).to_le_bytes()).collect() };
        let rows: Vec<Vec<u8>> = (0..5).map(of).collect();
        let matrices =
            |layer: usize| vec![RowMajor { format: BlockFormat::F32, rows: 16, columns: 4, bytes: &rows[layer] }];
        let bytes: Vec<usize> = (0..5).map(|layer| Packed::bytes_of(&matrices(layer))).collect();
        let offload = Offload { budget: 0, folder: std::env::temp_dir() };
        let mut shelf = Shelf::fill(&offload, &[1, 3, 4], &bytes, |layer, to| Packed::write(&matrices(layer), to))
            .expect("a file and a thread");
        assert!(shelf.has(3) && !shelf.has(2));
        for layer in [1, 3, 4, 1, 3, 4, 1] {
            let memory = shelf.take(layer).expect("the file is read");
            let expected = Packed::all(&matrices(layer)).expect("a little memory").remove(0);
            let found = Packed::placed(&matrices(layer), &memory).remove(0);
            assert!(found.same_bytes(&expected), "layer {layer}");
            drop(found);
            shelf.give(memory);
        }
        assert_eq!(shelf.figures().pass_bytes, 3 * bytes[0] as u64);
    }
}
