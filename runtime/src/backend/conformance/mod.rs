//! The contract as a program: what every backend must do, checked on a real opening of a real device.
//!
//! Results are compared with sums in double precision over the weights as [`BlockFormat`] reads them, within bounds
//! that follow from lengths and magnitudes (`oracle`); integers and copies must agree bit for bit. Operands stand
//! between guards that are no numbers, so that whoever reads or writes past an operand is noticed.
//!
//! Everything is drawn from one seed: the same seed asks every device the same.

mod bench;
mod memory;
mod oracle;
mod order;
mod pairs;
mod products;
mod rows;

use super::device::Device;
use super::error::DeviceError;
use crate::model::format::BlockFormat;
use std::fmt;

/// What to check, and how thoroughly.
pub struct Suite<'a> {
    /// Opens a device anew.
    pub open: &'a (dyn Fn(usize) -> Result<Device, DeviceError> + Sync),
    /// Numbers of the devices, at least one. With two or more, pairs are checked too.
    pub devices: &'a [usize],
    /// Whether all shapes are visited, or a few of each kind.
    pub thorough: bool,
    /// Chooses all numbers.
    pub seed: u64,
}

/// One claim that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was claimed.
    pub claim: &'static str,
    /// Cases tried.
    pub cases: u32,
    /// Cases that failed.
    pub failed: u32,
    /// What the first few failures were.
    pub failures: Vec<String>,
    /// Why nothing was tried, where that is so.
    pub skipped: Option<String>,
}

/// Failures that are kept in words.
const FAILURES_KEPT: usize = 5;

impl Check {
    fn new(claim: &'static str) -> Self {
        Self { claim, cases: 0, failed: 0, failures: Vec::new(), skipped: None }
    }

    /// Counts one case.
    fn case(&mut self, outcome: Result<(), String>) {
        self.cases += 1;
        if let Err(why) = outcome {
            self.failed += 1;
            if self.failures.len() < FAILURES_KEPT {
                self.failures.push(why);
            }
        }
    }
}

/// All checks of a suite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The device, or the devices.
    pub device: String,
    /// The checks, in the order in which they ran.
    pub checks: Vec<Check>,
}

impl Report {
    /// Cases tried.
    #[must_use]
    pub fn cases(&self) -> u32 {
        self.checks.iter().map(|check| check.cases).sum()
    }

    /// Cases that failed.
    #[must_use]
    pub fn failed(&self) -> u32 {
        self.checks.iter().map(|check| check.failed).sum()
    }

    /// Whether everything that was tried held.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failed() == 0 && self.cases() > 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {} cases, {} failed", self.device, self.cases(), self.failed())?;
        for check in &self.checks {
            match &check.skipped {
                Some(why) => writeln!(f, "  skipped  {}: {why}", check.claim)?,
                None => {
                    let state = if check.failed == 0 { "held" } else { "FAILED" };
                    writeln!(f, "  {state:<8} {:>6} cases  {}", check.cases, check.claim)?;
                }
            }
            for failure in &check.failures {
                writeln!(f, "             {failure}")?;
            }
        }
        Ok(())
    }
}

impl Suite<'_> {
    /// Runs all checks. Every device is opened anew for each group, so that one failure does not hide the rest.
    #[must_use]
    pub fn run(&self) -> Report {
        let mut checks = Vec::new();
        let mut names = Vec::new();
        for &device in self.devices {
            match (self.open)(device) {
                Ok(opened) => names.push(opened.label()),
                Err(error) => names.push(error.to_string()),
            }
            checks.extend(self.one(device));
        }
        if let [first, second, ..] = *self.devices {
            checks.extend(pairs::all(self, first, second));
        }
        Report { device: names.join(", "), checks }
    }

    /// The checks of two devices at once, alone.
    #[must_use]
    pub fn pairs(&self, first: usize, second: usize) -> Report {
        Report { device: format!("devices {first} and {second}"), checks: pairs::all(self, first, second) }
    }

    fn one(&self, device: usize) -> Vec<Check> {
        let mut checks = memory::all(self, device);
        checks.extend(order::all(self, device));
        checks.extend(rows::all(self, device));
        checks.extend(products::all(self, device));
        checks
    }
}

/// A small generator (SplitMix64; G. Steele, D. Lea, C. Flood, OOPSLA 2014).
pub(super) struct Draw(u64);

impl Draw {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to `end`, which is left out.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.bits() % end
    }

    /// From -1 to 1.
    pub(super) fn number(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub(super) fn numbers(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.number()).collect()
    }

    pub(super) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.bits() as u8).collect()
    }

    /// A packed matrix: any quants, with scales of ordinary size.
    pub(super) fn matrix(&mut self, format: BlockFormat, rows: usize, columns: usize) -> Vec<u8> {
        let mut packed = Vec::new();
        for _ in 0..rows * columns / format.values_per_block() {
            match format {
                BlockFormat::F32 => packed.extend(self.number().to_le_bytes()),
                BlockFormat::F16 => packed.extend(half::f16::from_f32(self.number()).to_le_bytes()),
                BlockFormat::BF16 => packed.extend(half::bf16::from_f32(self.number()).to_le_bytes()),
                _ => {
                    let start = packed.len();
                    packed.extend(self.bytes(format.bytes_per_block()));
                    for at in scales_at(format) {
                        let scale = half::f16::from_f32(self.number() * 0.1).to_le_bytes();
                        packed[start + at..start + at + 2].copy_from_slice(&scale);
                    }
                }
            }
        }
        packed
    }
}

/// Where the half-precision numbers of a block are.
fn scales_at(format: BlockFormat) -> &'static [usize] {
    match format {
        BlockFormat::Q8_0 | BlockFormat::Q4_0 | BlockFormat::Q5_0 => &[0],
        BlockFormat::Q4_1 | BlockFormat::Q5_1 | BlockFormat::Q4K | BlockFormat::Q5K => &[0, 2],
        BlockFormat::Q6K => &[208],
        BlockFormat::F32 | BlockFormat::F16 | BlockFormat::BF16 => &[],
    }
}
