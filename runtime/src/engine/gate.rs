//! The gate before a card: the same layer, operation by operation, on the card and on the reference device.
//!
//! A stage's first layer runs with its own weights on three made-up rows. Before each operation both devices hold the
//! same numbers, so that an error is found where it arises and is named after the operation that made it.

use super::device::Card;
use super::device_stage::DeviceStage;
use super::pass::Pass;
use super::stage::StageSpec;
use crate::backend::scalar::ScalarPlatform;
use crate::backend::{Arithmetic, Buffer, Device, DeviceError, Op};
use crate::model::Geometry;
use crate::model::gguf::Gguf;

/// Rows that go through the layer: their positions differ, so that rotation and cache are reached.
const ROWS: usize = 3;
/// Memory that the reference may take.
const REFERENCE_BYTES: u64 = 8 << 30;

/// A card computes something else than the reference.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error(
    "{operation} of layer {layer} gives results up to {found:.1e} of the largest from the reference's, at most \
     {limit:.1e} is right; do not use this device, or plan without it"
)]
pub struct GateError {
    /// The operation.
    pub operation: &'static str,
    /// The layer whose weights were used.
    pub layer: usize,
    /// Largest difference, as a share of the largest number of the result.
    pub found: f64,
    /// What is allowed.
    pub limit: f64,
}

/// Why a card was not let through.
#[derive(Debug)]
pub(crate) enum Refused {
    /// It computes something else.
    Differs(GateError),
    /// It did not compute at all.
    Failed(DeviceError),
}

impl From<DeviceError> for Refused {
    fn from(error: DeviceError) -> Self {
        Self::Failed(error)
    }
}

/// Largest difference that rounding explains, as a share of the largest result. Errors of a sum of `n` products grow
/// like the root of `n` when they are independent (Higham, Accuracy and Stability of Numerical Algorithms, section
/// 2.8); eight times that, and a few units for functions such as `exp`. Rounding activations to eight bits moves each
/// product by up to half a step, 1/254 of its block's largest: 3 % covers the sums of real layers.
pub(crate) fn tolerance(op: &Op) -> f64 {
    let (length, arithmetic) = match op {
        Op::Product { outs, arithmetic, .. } => (outs.first().map_or(1, |(matrix, _)| matrix.columns()), *arithmetic),
        Op::Gated { gate, arithmetic, .. } => (gate.columns(), *arithmetic),
        Op::Attend { heads, .. } => (heads.size, Arithmetic::F32),
        Op::Norm { width, .. } => (*width, Arithmetic::F32),
        _ => (1, Arithmetic::F32),
    };
    match arithmetic {
        Arithmetic::Int8 => 0.03,
        _ => (8.0 * f64::from(length).sqrt() + 32.0) * f64::from(f32::EPSILON),
    }
}

/// Checks a card with the first layer of a stage.
pub(crate) fn check(card: &Card, gguf: &Gguf, geometry: &Geometry, spec: &StageSpec) -> Result<(), Refused> {
    let layer = spec.layers.start;
    let small = StageSpec {
        layers: layer..layer + 1,
        rows_max: ROWS,
        positions_max: ROWS,
        cache_blocks: 1,
        away: 0,
        folder: None,
        isa: spec.isa,
        arithmetic: spec.arithmetic,
    };
    let plain = StageSpec { arithmetic: Arithmetic::F32, ..small.clone() };
    let reference = Device::open(&ScalarPlatform { devices: 1, memory_bytes: REFERENCE_BYTES }, 0)?;
    let mut reference = DeviceStage::load_layers(reference, gguf, geometry, plain)?;
    let mut judged = DeviceStage::load_layers(card.open()?, gguf, geometry, small)?;
    let mut pass = Pass::default();
    pass.push(0, &[0; ROWS], [0], []);
    // A residual stream of ordinary size, different in every place.
    pass.hidden = (0..ROWS * geometry.hidden).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
    let steps = judged.steps(&pass)?;
    let expected = reference.steps(&pass)?;
    for ((op, wanted), (buffers, sources)) in
        steps.iter().zip(&expected).zip(std::iter::repeat((judged.buffers(), reference.buffers())))
    {
        for (&to, &from) in buffers.iter().zip(&sources) {
            let bytes = all_of(&mut reference, from)?;
            judged.device_mut().copy_in(to, 0, &bytes)?;
        }
        judged.device_mut().launch(std::slice::from_ref(op))?;
        reference.device_mut().launch(std::slice::from_ref(wanted))?;
        let limit = tolerance(op);
        for (&to, &from) in buffers.iter().zip(&sources) {
            let (got, right) = (all_of(&mut judged, to)?, all_of(&mut reference, from)?);
            let found = apart(&got, &right);
            // No number at all is not within any limit.
            if found.partial_cmp(&limit).is_none_or(std::cmp::Ordering::is_gt) {
                return Err(Refused::Differs(GateError { operation: op.name(), layer, found, limit }));
            }
        }
    }
    Ok(())
}

fn all_of(stage: &mut DeviceStage, buffer: Buffer) -> Result<Vec<u8>, DeviceError> {
    let mut bytes = vec![0; usize::try_from(buffer.bytes()).expect("a few rows fit in memory")];
    stage.device_mut().copy_out(buffer, 0, &mut bytes)?;
    Ok(bytes)
}

/// Largest difference, as a share of the largest number.
fn apart(got: &[u8], right: &[u8]) -> f64 {
    let numbers = |bytes: &[u8]| -> Vec<f64> {
        let word = |word: &[u8]| f64::from(f32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        bytes.chunks_exact(4).map(word).collect()
    };
    let (got, right) = (numbers(got), numbers(right));
    let largest = right.iter().fold(0.0_f64, |m, x| m.max(x.abs()));
    let mut worst = 0.0_f64;
    for (a, b) in got.iter().zip(&right) {
        let difference = (a - b).abs();
        if difference.is_nan() {
            return f64::NAN;
        }
        worst = worst.max(difference);
    }
    if worst > 0.0 { worst / largest } else { 0.0 }
}
