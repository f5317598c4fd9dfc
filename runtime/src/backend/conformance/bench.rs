//! A device with operands between guards.

use super::{Check, Draw, Suite};
use crate::backend::contract::Buffer;
use crate::backend::device::Device;
use crate::backend::op::{Op, View};

/// What guards are made of: no number, so that a sum over one is none either.
const GUARD: u32 = 0x7fc0_dead;

/// One operand between its guards.
#[derive(Clone, Copy)]
pub(super) struct Operand {
    pub(super) view: View,
    words: usize,
    before: usize,
}

/// An opened device, and the numbers to try it with.
pub(super) struct Bench {
    pub(super) device: Device,
    pub(super) draw: Draw,
    operands: Vec<(Buffer, Operand)>,
}

/// One check of a device.
pub(super) type Test = fn(&Suite<'_>, &mut Bench, &mut Check);

/// Each test on a device opened for it alone.
pub(super) fn each(suite: &Suite<'_>, device: usize, tests: &[(&'static str, Test)]) -> Vec<Check> {
    let one = |&(claim, test): &(&'static str, Test)| {
        let mut check = Check::new(claim);
        if let Some(mut bench) = Bench::open(suite, device, &mut check) {
            test(suite, &mut bench, &mut check);
        }
        check
    };
    tests.iter().map(one).collect()
}

/// Any error as words.
pub(super) fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Bench {
    /// Opens a device for one check. `None`, with the failure counted, where it does not open.
    pub(super) fn open(suite: &Suite<'_>, device: usize, check: &mut Check) -> Option<Self> {
        match (suite.open)(device) {
            Ok(device) => Some(Self { device, draw: Draw::new(suite.seed), operands: Vec::new() }),
            Err(error) => {
                check.case(Err(format!("opening: {error}")));
                None
            }
        }
    }

    /// An operand that holds these words.
    pub(super) fn words(&mut self, words: &[u32]) -> Result<Operand, String> {
        // Operands begin anywhere: offsets are multiples of 4 and of nothing else.
        let (before, after) = (1 + self.draw.below(5) as usize, 1 + self.draw.below(5) as usize);
        let all: Vec<u32> = std::iter::repeat_n(GUARD, before)
            .chain(words.iter().copied())
            .chain(std::iter::repeat_n(GUARD, after))
            .collect();
        let buffer = self.device.allocate(4 * all.len() as u64).map_err(text)?;
        let bytes: Vec<u8> = all.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.device.copy_in(buffer, 0, &bytes).map_err(text)?;
        let operand = Operand { view: View::at(buffer, before as u64), words: words.len(), before };
        self.operands.push((buffer, operand));
        Ok(operand)
    }

    /// An operand that holds these numbers.
    pub(super) fn numbers(&mut self, numbers: &[f32]) -> Result<Operand, String> {
        let words: Vec<u32> = numbers.iter().map(|number| number.to_bits()).collect();
        self.words(&words)
    }

    /// An operand to be written: it holds what no operation gives.
    pub(super) fn room(&mut self, count: usize) -> Result<Operand, String> {
        self.words(&vec![0xffff_0bad; count])
    }

    /// What an operand holds now.
    pub(super) fn read_words(&mut self, operand: Operand) -> Result<Vec<u32>, String> {
        let mut bytes = vec![0; 4 * operand.words];
        self.device.copy_out(operand.view.buffer, operand.view.offset, &mut bytes).map_err(text)?;
        Ok(bytes.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect())
    }

    /// The numbers an operand holds now.
    pub(super) fn read(&mut self, operand: Operand) -> Result<Vec<f32>, String> {
        Ok(self.read_words(operand)?.into_iter().map(f32::from_bits).collect())
    }

    /// Runs operations.
    pub(super) fn launch(&mut self, ops: &[Op]) -> Result<(), String> {
        self.device.launch(ops).map_err(text)
    }

    /// Ends a case: all guards must be as they were, and everything is released.
    pub(super) fn finish(&mut self) -> Result<(), String> {
        for (buffer, operand) in std::mem::take(&mut self.operands) {
            let mut bytes = vec![0; buffer.bytes() as usize];
            self.device.copy_out(buffer, 0, &mut bytes).map_err(text)?;
            let words: Vec<u32> =
                bytes.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect();
            self.device.free(buffer).map_err(text)?;
            let (before, after) = (&words[..operand.before], &words[operand.before + operand.words..]);
            if before.iter().chain(after).any(|&word| word != GUARD) {
                return Err("something was written past an operand".to_owned());
            }
        }
        Ok(())
    }
}

/// Compares numbers with the exact ones, each within its bound.
pub(super) fn within(what: &str, got: &[f32], exact: &[(f64, f64)]) -> Result<(), String> {
    if got.len() != exact.len() {
        return Err(format!("{what}: {} numbers instead of {}", got.len(), exact.len()));
    }
    for (i, (&got, &(exact, bound))) in got.iter().zip(exact).enumerate() {
        let error = (f64::from(got) - exact).abs();
        // No number is not within any bound.
        if error.partial_cmp(&bound).is_none_or(std::cmp::Ordering::is_gt) {
            return Err(format!(
                "{what}: number {i} is {got}, exact is {exact}, off by {error:.3e}, bound {bound:.3e}"
            ));
        }
    }
    Ok(())
}

/// Compares words, which must be the same.
pub(super) fn same(what: &str, got: &[u32], wanted: &[u32]) -> Result<(), String> {
    match got.iter().zip(wanted).position(|(a, b)| a != b) {
        _ if got.len() != wanted.len() => Err(format!("{what}: {} words instead of {}", got.len(), wanted.len())),
        Some(i) => Err(format!("{what}: word {i} is {:#010x}, wanted {:#010x}", got[i], wanted[i])),
        None => Ok(()),
    }
}
