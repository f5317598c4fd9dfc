//! What the CUDA kernels should reach on cards that are not here, as an account that a first run can confirm or
//! refute.
//!
//! Three things bound a kernel: the bytes it must move, the instructions it must issue, and how many bytes are on
//! their way at once (Little's law: bandwidth times latency must be in flight, or the memory waits for the kernel).
//! The first two follow from shapes and formats; the third from the blocks that fit on a multiprocessor, which follows
//! from the registers and shared memory that NVIDIA's assembler counts (`kernels/resources.tsv`). No figure here comes
//! from a card. On an H100 a token took 1.3 (F16) to 1.6 times (Q8_0) what the account says: it leaves out what a kernel
//! does before its first weights arrive, and the chain of reads in attention.

use crate::backend::cuda::kernels::{is_quantised, segments};
use crate::cpu::Arithmetic;
use crate::model::Geometry;
use crate::model::format::BlockFormat;
use std::fmt;

/// Architectures that every kernel is assembled for.
pub const ARCHITECTURES: [u32; 7] = [75, 80, 86, 89, 90, 100, 120];

/// What the assembler says of a kernel for one architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resources {
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes of shared memory of a block.
    pub shared_bytes: u32,
}

impl Resources {
    /// Of a kernel, by its name, for an architecture; `None` for a kernel or architecture that the table does not
    /// hold.
    #[must_use]
    pub fn of(kernel: &str, architecture: u32) -> Option<Self> {
        let column = ARCHITECTURES.iter().position(|&known| known == architecture)?;
        let text = include_str!("../../kernels/resources.tsv");
        let line = text.lines().find(|line| line.split('\t').next() == Some(kernel))?;
        let (registers, shared) = line.split('\t').nth(column + 1)?.split_once(':')?;
        Some(Self { registers: registers.parse().ok()?, shared_bytes: shared.parse().ok()? })
    }
}

/// A card as its maker states it.
#[derive(Clone, Debug, PartialEq)]
pub struct Card {
    /// Its name.
    pub name: &'static str,
    /// Compute capability, times ten.
    pub capability: u32,
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Boost clock, hertz.
    pub clock_hertz: f64,
    /// Memory bandwidth, bytes a second.
    pub bytes_per_second: f64,
    /// Shared memory of a multiprocessor that kernels may use, bytes.
    pub shared_bytes: u32,
    /// Warps that fit on a multiprocessor.
    pub warps_max: u32,
    /// Blocks that fit on a multiprocessor.
    pub blocks_max: u32,
}

impl Card {
    /// Every card that times are foretold for.
    pub const KNOWN: [Self; 3] = [Self::H100, Self::H200, Self::RTX_4090];

    /// The card of that name, as its driver gives it.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        // The word with the number is in both names; what stands around it differs.
        let number = |card: &Self| card.name.split(' ').find(|word| word.contains(|c: char| c.is_ascii_digit()));
        // Cards of another kind share a number and have other figures.
        let other = ["PCIe", "NVL", "Laptop", "MIG"].iter().any(|kind| name.contains(kind));
        let words: Vec<&str> = name.split(' ').collect();
        Self::KNOWN.into_iter().find(|card| !other && number(card).is_some_and(|number| words.contains(&number)))
    }

    /// H100 SXM5: 132 multiprocessors, 3.35 TB/s, 1.98 GHz (NVIDIA H100 data sheet and Hopper tuning guide: 64 warps,
    /// 32 blocks, 228 KB of shared memory a multiprocessor).
    pub const H100: Self = Self {
        name: "H100 SXM",
        capability: 90,
        multiprocessors: 132,
        clock_hertz: 1.98e9,
        bytes_per_second: 3.35e12,
        shared_bytes: 228 << 10,
        warps_max: 64,
        blocks_max: 32,
    };
    /// H200 SXM: the H100's processor with 4.8 TB/s (NVIDIA H200 data sheet).
    pub const H200: Self = Self { name: "H200 SXM", bytes_per_second: 4.8e12, ..Self::H100 };
    /// RTX 4090: 128 multiprocessors, 1008 GB/s, 2.52 GHz (NVIDIA Ada architecture paper and Ada tuning guide: 48
    /// warps, 24 blocks, 100 KB of shared memory a multiprocessor).
    pub const RTX_4090: Self = Self {
        name: "RTX 4090",
        capability: 89,
        multiprocessors: 128,
        clock_hertz: 2.52e9,
        bytes_per_second: 1.008e12,
        shared_bytes: 100 << 10,
        warps_max: 48,
        blocks_max: 24,
    };

    /// Single-precision operations a second outside the tensor cores: 128 lanes a multiprocessor, each a product and a sum a
    /// clock. That gives the 67 and 82.6 TFLOPS of the makers' sheets.
    #[must_use]
    pub fn flops_per_second(&self) -> f64 {
        256.0 * f64::from(self.multiprocessors) * self.clock_hertz
    }

    /// How many blocks of a kernel one multiprocessor holds, and what keeps it from holding more.
    #[must_use]
    pub fn occupancy(&self, threads: u32, resources: Resources) -> Occupancy {
        const REGISTERS: u32 = 65_536;
        // Registers are handed out to warps in pieces of 256; a block takes a kilobyte of shared memory for itself
        // since 8.0.
        let warps = threads.div_ceil(32);
        let by_registers = REGISTERS / ((resources.registers * 32).next_multiple_of(256) * warps);
        let own = if self.capability >= 80 { 1024 } else { 0 };
        let by_shared = self.shared_bytes / (resources.shared_bytes + own).max(1);
        let by_warps = self.warps_max / warps;
        let limits = [
            (by_registers, "registers"),
            (by_shared, "shared memory"),
            (by_warps, "warps"),
            (self.blocks_max, "blocks"),
        ];
        let &(blocks, limited_by) = limits.iter().min_by_key(|(blocks, _)| *blocks).expect("there are four limits");
        Occupancy {
            blocks,
            warps: blocks * warps,
            share: f64::from(blocks * warps) / f64::from(self.warps_max),
            limited_by,
        }
    }
}

/// What is resident on a multiprocessor at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Occupancy {
    /// Blocks.
    pub blocks: u32,
    /// Warps.
    pub warps: u32,
    /// Warps, as a share of the most that fit.
    pub share: f64,
    /// What keeps more from fitting.
    pub limited_by: &'static str,
}

/// One kernel's work in a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    /// What it is for.
    pub part: String,
    /// The kernel.
    pub kernel: String,
    /// Threads of a block.
    pub threads: u32,
    /// Blocks.
    pub blocks: u64,
    /// Bytes that must come from or go to memory: each weight, cached number, input and output once.
    pub bytes: u64,
    /// Floating-point or integer operations, a multiply-add being two.
    pub operations: u64,
    /// Instructions that threads issue, counted by warp.
    pub warp_instructions: u64,
    /// Bytes that a warp asks for before it waits.
    pub warp_bytes_in_flight: u32,
}

/// What bounds a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// The memory's bandwidth.
    Bandwidth,
    /// Too few bytes on their way.
    Latency,
    /// Instructions.
    Issue,
    /// The time from one kernel to the next.
    Start,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Bandwidth => "bandwidth",
            Self::Latency => "latency",
            Self::Issue => "issue",
            Self::Start => "start",
        })
    }
}

/// What a kernel should take on a card.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Expectation {
    /// Time, seconds.
    pub seconds: f64,
    /// What sets it.
    pub bound: Bound,
    /// Time that its bytes need at the full bandwidth, as a share of that time: the share of peak.
    pub share_of_peak: f64,
    /// What is resident.
    pub occupancy: Occupancy,
}

/// Time from a load to its value under load, seconds. An assumption of the account: published measurements of recent
/// cards lie between 0.45 and 0.8 microseconds.
pub const MEMORY_LATENCY_SECONDS: f64 = 0.65e-6;
/// Time from the end of one kernel of a graph to the work of the next, seconds. An assumption of the account.
pub const START_SECONDS: f64 = 1.5e-6;
/// Share of the stated bandwidth that plain copies reach. An assumption of the account.
pub const COPY_SHARE: f64 = 0.92;

impl Work {
    /// What it should take on a card; `None` where the assembler's counts are not known.
    #[must_use]
    pub fn on(&self, card: &Card) -> Option<Expectation> {
        let occupancy = card.occupancy(self.threads, Resources::of(&self.kernel, card.capability)?);
        let multiprocessors = f64::from(card.multiprocessors);
        // Blocks run in waves; in the last one some multiprocessors have nothing to do.
        let resident = f64::from(occupancy.blocks.max(1)) * multiprocessors;
        let waves = self.blocks as f64 / resident;
        let busy = waves / waves.ceil().max(1.0);
        let blocks = (self.blocks as f64).min(resident);
        let in_flight = blocks * f64::from(self.threads.div_ceil(32)) * f64::from(self.warp_bytes_in_flight);
        let reached = (in_flight / MEMORY_LATENCY_SECONDS).min(card.bytes_per_second * COPY_SHARE);
        let bandwidth = self.bytes as f64 / (card.bytes_per_second * COPY_SHARE);
        let latency = self.bytes as f64 / reached;
        // Four schedulers a multiprocessor, one instruction each in a cycle; a part of the card has no blocks where
        // there are few.
        let share = (self.blocks as f64 / multiprocessors).min(1.0) * if waves > 1.0 { busy } else { 1.0 };
        let issue = self.warp_instructions as f64 / (4.0 * multiprocessors * share * card.clock_hertz);
        let times = [(bandwidth, Bound::Bandwidth), (latency, Bound::Latency), (issue, Bound::Issue)];
        let (work, bound) =
            times.into_iter().fold((0.0, Bound::Bandwidth), |most, time| if time.0 > most.0 { time } else { most });
        let seconds = work + START_SECONDS;
        let bound = if START_SECONDS > work { Bound::Start } else { bound };
        let share_of_peak = self.bytes as f64 / card.bytes_per_second / seconds;
        Some(Expectation { seconds, bound, share_of_peak, occupancy })
    }
}

/// Instructions that one weight costs a lane, fetching its numbers included: what the loops of `product.cu` and
/// `integer.cu` hold, with loads and addresses spread over what they serve.
fn instructions_per_weight(format: BlockFormat, arithmetic: Arithmetic) -> f64 {
    if arithmetic == Arithmetic::Int8 && is_quantised(format) {
        return match format {
            BlockFormat::Q8_0 => 0.7,
            BlockFormat::Q4_0 | BlockFormat::Q4_1 => 0.9,
            BlockFormat::Q4K => 1.3,
            _ => 1.6,
        };
    }
    match format {
        BlockFormat::F32 => 1.6,
        BlockFormat::F16 | BlockFormat::BF16 => 2.4,
        BlockFormat::Q8_0 => 4.6,
        BlockFormat::Q4_0 | BlockFormat::Q4_1 => 4.7,
        BlockFormat::Q4K => 5.1,
        _ => 5.6,
    }
}

/// Bytes of weights that a lane asks for before it waits: a unit of 32 weights for each of two rows.
fn lane_bytes(format: BlockFormat) -> u32 {
    match format {
        // Float formats are read where they are needed, a quad of each row at a time, and the compiler hoists a run of
        // four.
        BlockFormat::F32 => 2 * 4 * 16,
        BlockFormat::F16 | BlockFormat::BF16 => 2 * 4 * 8,
        _ => (2.0 * 32.0 * format.bits_per_weight() / 8.0) as u32,
    }
}

/// A product of one row of numbers with matrices of `rows` rows in all.
fn product(part: &str, kernel: &str, format: BlockFormat, arithmetic: Arithmetic, rows: u64, columns: u64) -> Work {
    let weights = rows * columns;
    let name = format!("{kernel}_{}", format.name().to_ascii_lowercase());
    // Eight warps a block, two rows a warp; of a gated product one row of each matrix.
    let blocks = rows.div_ceil(16);
    // Every block puts the numbers into shared memory: a dozen instructions for four numbers of a lane.
    let staging = blocks * columns / 4 / 32 * 12;
    Work {
        part: part.to_owned(),
        kernel: name,
        threads: 256,
        blocks,
        bytes: format.row_bytes(columns).unwrap_or(0) * rows + 4 * (columns + rows),
        operations: 2 * weights,
        warp_instructions: (weights as f64 / 32.0 * instructions_per_weight(format, arithmetic)) as u64 + staging,
        warp_bytes_in_flight: 32 * lane_bytes(format),
    }
}

/// The kernels of one decoded token at a context of `positions`, every layer's together in one [`Work`] each.
///
/// `layer` and `head` are the formats of the layers' matrices and of the output matrix.
#[must_use]
pub fn decode_step(
    geometry: &Geometry,
    layer: BlockFormat,
    head: BlockFormat,
    arithmetic: Arithmetic,
    positions: u64,
) -> Vec<(u64, Work)> {
    let (hidden, inner) = (geometry.hidden as u64, geometry.feed_forward as u64);
    let size = geometry.head_size as u64;
    let (queries, keys) = (geometry.heads as u64 * size, geometry.kv_heads as u64 * size);
    let layers = geometry.layers as u64;
    let rounded = |format| arithmetic == Arithmetic::Int8 && is_quantised(format);
    let one = |format| if rounded(format) { "rounded_1" } else { "product_1" };
    let mut out = vec![
        (layers, product("queries, keys, values", one(layer), layer, arithmetic, queries + 2 * keys, hidden)),
        (layers, remember(queries, keys)),
        (layers, attend(geometry, positions)),
        (layers, product("attention output", one(layer), layer, arithmetic, hidden, queries)),
    ];
    if rounded(layer) {
        out.push((layers, product("gate and up", one(layer), layer, arithmetic, 2 * inner, hidden)));
    } else {
        out.push((layers, product("gate and up, gated", "gated_1", layer, arithmetic, 2 * inner, hidden)));
    }
    out.push((layers, product("down", one(layer), layer, arithmetic, hidden, inner)));
    out.push((1, product("output", one(head), head, arithmetic, geometry.vocabulary as u64, hidden)));
    out.push((1, argmax(geometry.vocabulary as u64)));
    out
}

fn remember(queries: u64, keys: u64) -> Work {
    Work {
        part: "rotation and cache".to_owned(),
        kernel: "remember".to_owned(),
        threads: 256,
        blocks: 1,
        bytes: 4 * (2 * queries + 4 * keys),
        operations: 3 * (queries + keys),
        warp_instructions: (queries + 3 * keys) / 2 / 32 * 30,
        warp_bytes_in_flight: 32 * 16,
    }
}

fn attend(geometry: &Geometry, positions: u64) -> Work {
    let (size, kv) = (geometry.head_size as u64, geometry.kv_heads as u64);
    let each = geometry.heads as u64 / kv;
    let parts = each.div_ceil(4);
    let segments = u64::from(segments(positions));
    let numbers = positions * size * kv * 2;
    Work {
        part: format!("attention over {positions}"),
        kernel: "attend".to_owned(),
        threads: 256,
        blocks: segments * kv * parts,
        bytes: 4 * (numbers + 2 * geometry.heads as u64 * size),
        operations: 2 * numbers * each,
        // A quad of four numbers costs a load, and for each head four multiply-adds and a share of the exchange.
        warp_instructions: numbers * parts / 4 / 32 * (8 + 7 * each.min(4)),
        warp_bytes_in_flight: 32 * 32,
    }
}

fn argmax(vocabulary: u64) -> Work {
    Work {
        part: "argmax".to_owned(),
        kernel: "argmax_rows".to_owned(),
        threads: 256,
        blocks: 1,
        bytes: 4 * vocabulary,
        operations: vocabulary,
        warp_instructions: vocabulary / 32 * 5,
        warp_bytes_in_flight: 32 * 16,
    }
}

/// The account of a step on a card as a table, and what all of it together should take.
#[must_use]
pub fn table(steps: &[(u64, Work)], card: &Card) -> String {
    use fmt::Write as _;
    let mut text = format!(
        "{} (expected, not measured): {:.2} TB/s, {} multiprocessors\n{:<24} {:<22} {:>5} {:>10} {:>9} {:>6} {:>9} {:>8} {:<9}\n",
        card.name,
        card.bytes_per_second / 1e12,
        card.multiprocessors,
        "part",
        "kernel",
        "times",
        "KiB",
        "MFLOP",
        "warps",
        "us",
        "of peak",
        "bound"
    );
    let (mut seconds, mut bytes) = (0.0, 0.0);
    for (times, work) in steps {
        let Some(expected) = work.on(card) else {
            let _ = writeln!(text, "{:<24} {:<22} not assembled for sm_{}", work.part, work.kernel, card.capability);
            continue;
        };
        seconds += expected.seconds * *times as f64;
        bytes += work.bytes as f64 * *times as f64;
        let _ = writeln!(
            text,
            "{:<24} {:<22} {:>5} {:>10.1} {:>9.2} {:>6} {:>9.2} {:>7.0}% {:<9}",
            work.part,
            work.kernel,
            times,
            work.bytes as f64 / 1024.0,
            work.operations as f64 / 1e6,
            expected.occupancy.warps,
            expected.seconds * 1e6,
            100.0 * expected.share_of_peak,
            expected.bound
        );
    }
    let _ = writeln!(
        text,
        "one token: {:.1} MiB in {:.0} us, {:.0} tokens a second, {:.0} % of the stated bandwidth",
        bytes / 1024.0 / 1024.0,
        seconds * 1e6,
        1.0 / seconds,
        100.0 * bytes / card.bytes_per_second / seconds
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn occupancy_is_what_the_scarcest_resource_allows() {
        let of = |registers, shared_bytes| Card::H100.occupancy(256, Resources { registers, shared_bytes });
        // 32 registers: 8 blocks of 8 warps are all 64 warps. 128: 65536 / (128 * 256) = 2. 100 KiB: two of 228.
        assert_eq!((of(32, 0).blocks, of(32, 0).limited_by), (8, "registers"));
        assert_eq!((of(128, 0).blocks, of(128, 0).limited_by), (2, "registers"));
        assert_eq!((of(32, 100 << 10).blocks, of(32, 100 << 10).limited_by), (2, "shared memory"));
        assert_eq!(Card::RTX_4090.occupancy(256, Resources { registers: 32, shared_bytes: 0 }).warps, 48);
    }

    #[test]
    fn no_expectation_is_above_what_the_card_states() {
        for card in Card::KNOWN {
            for format in BlockFormat::ALL {
                for arithmetic in [Arithmetic::F32, Arithmetic::Int8] {
                    let kernel =
                        if arithmetic == Arithmetic::Int8 && is_quantised(format) { "rounded_1" } else { "product_1" };
                    let work = product("test", kernel, format, arithmetic, 28_672, 8192);
                    let expected = work.on(&card).expect("every kernel is in the table");
                    assert!(
                        expected.share_of_peak > 0.05 && expected.share_of_peak <= COPY_SHARE,
                        "{work:?} {expected:?}"
                    );
                }
            }
        }
    }
}
