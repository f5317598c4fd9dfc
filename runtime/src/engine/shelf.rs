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
use isotherm_core::offload::{self, BUFFERS};
use memmap2::MmapMut;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Which of a stage's weights are not in memory, and where they go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Offload {
    /// Which they are.
    pub(crate) away: Away,
    /// A folder on a disk with room for them.
    pub(crate) folder: PathBuf,
}

/// Which layers are not in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Away {
    /// As few as leave this many bytes of packed weights in memory at most, buffers and output head included.
    Within(usize),
    /// So many.
    Layers(usize),
}

impl Offload {
    /// The layers that are away, of layers of these sizes beside an output head of so many bytes; in rising order.
    pub(crate) fn layers(&self, bytes: &[usize], head: usize) -> Vec<usize> {
        match self.away {
            Away::Within(budget) => spread(bytes, budget.saturating_sub(head)),
            Away::Layers(count) => offload::spread(bytes.len(), count),
        }
    }
}

/// What offloading did, all stages together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Offloaded {
    /// Layers of the model.
    pub layers: usize,
    /// Those that lie in a file, or a card's in the host's memory.
    pub away: usize,
    /// Bytes of packed weights in memory at most, buffers included.
    pub held_bytes: u64,
    /// Bytes that a pass over all layers brings.
    pub pass_bytes: u64,
    /// Whether layers take turns in places of their kind, so that one may come while another is computed.
    pub beside: bool,
    /// Bytes brought so far.
    pub read_bytes: u64,
    /// How long that took; it goes on beside computing. Not known where a card brings layers by itself.
    pub reading: Option<Duration>,
    /// How long computing waited for it; not known there either.
    pub waiting: Option<Duration>,
}

impl Offloaded {
    /// Adds what another stage did.
    pub(crate) fn add(&mut self, other: &Self) {
        self.layers += other.layers;
        self.away += other.away;
        self.held_bytes += other.held_bytes;
        self.pass_bytes += other.pass_bytes;
        self.beside &= other.beside;
        self.read_bytes += other.read_bytes;
        let both = |own: Option<Duration>, other: Option<Duration>| Some(own? + other?);
        self.reading = both(self.reading, other.reading);
        self.waiting = both(self.waiting, other.waiting);
    }
}

/// Which layers of these sizes are put away so that the others and the buffers fit `budget`: as few as possible, spread
/// evenly, in rising order. All of them where nothing less is enough.
fn spread(bytes: &[usize], budget: usize) -> Vec<usize> {
    offload::spread(bytes.len(), offload::fewest(&wide(bytes), budget as u64))
}

/// Bytes in memory while these layers are away.
fn held(bytes: &[usize], away: &[usize]) -> u64 {
    offload::held(&wide(bytes), away)
}

fn wide(bytes: &[usize]) -> Vec<u64> {
    bytes.iter().map(|&bytes| bytes as u64).collect()
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
    usize::try_from(held(bytes, &all)).unwrap_or(usize::MAX).min(bytes.iter().sum())
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
        folder: &Path,
        away: &[usize],
        bytes: &[usize],
        pack: impl Fn(usize, &mut [u8]),
    ) -> io::Result<Self> {
        let mut file = tempfile::tempfile_in(folder)?;
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
            held_bytes: held(bytes, away),
            pass_bytes: start,
            beside: true,
            waiting: Some(Duration::ZERO),
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
        self.figures.waiting = self.figures.waiting.map(|so_far| so_far + begin.elapsed());
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
        Offloaded { read_bytes: done.bytes, reading: Some(done.time), ..self.figures }
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
            assert!(held(&bytes, &away) <= budget as u64 && away.is_sorted());
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
        let pack = |layer: usize, to: &mut [u8]| Packed::write(&matrices(layer), to);
        let mut shelf = Shelf::fill(&std::env::temp_dir(), &[1, 3, 4], &bytes, pack).expect("a file and a thread");
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
