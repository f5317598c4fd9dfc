//! Layers of a stage on a device whose weights lie in the host's memory, in the device's layout, and are brought when their
//! turn comes.
//!
//! Layers of equal formats take turns in two places on the device. Once the next layer is launched too, the place that a layer
//! was computed from is refilled with the one after that: the device waits with the refill until the layer is done, and with
//! the layer that it brings until that is there, so that one layer is computed while another comes. In a file of two mixtures
//! of formats, as K-quants are, each mixture has one place, so that memory stays the same and bringing is not hidden.

use super::device_stage::Loader;
use super::shelf::Offloaded;
use crate::backend::{Device, DeviceError, LaidOut, Matrix};
use crate::model::format::BlockFormat;
use isotherm_core::offload::BUFFERS;

/// The matrices of a layer, as files name them.
pub(super) const PARTS: [&str; 7] = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];

/// The matrices of a layer on the device.
#[derive(Clone, Copy)]
pub(super) struct Matrices {
    pub(super) query: Matrix,
    pub(super) key: Matrix,
    pub(super) value: Matrix,
    pub(super) attention_output: Matrix,
    pub(super) gate: Matrix,
    pub(super) up: Matrix,
    pub(super) down: Matrix,
}

impl Matrices {
    /// In the order of [`PARTS`].
    const fn all(&self) -> [Matrix; PARTS.len()] {
        [self.query, self.key, self.value, self.attention_output, self.gate, self.up, self.down]
    }
}

/// Places of layers of equal formats, and the layers that take turns in them.
struct Lane {
    places: Vec<Matrices>,
    /// Positions in [`Brought::layers`].
    layers: Vec<usize>,
    /// Layers computed so far.
    visits: usize,
}

/// The layers that are brought.
pub(super) struct Brought {
    /// Layers of the stage, in rising order.
    layers: Vec<usize>,
    /// Their matrices, in the device's layout.
    laid_out: Vec<Vec<LaidOut>>,
    lanes: Vec<Lane>,
    /// The lane of each layer.
    lane_of: Vec<usize>,
    /// The layer whose turn it is, a position in `layers`.
    turn: usize,
    /// A layer that was launched and whose place is to be refilled: its lane and visit.
    waiting: Option<(usize, usize)>,
    /// What was brought.
    pub(super) figures: Offloaded,
}

impl Brought {
    /// Lays out these layers of a stage that begins with layer `first` of the model, and makes places for them, filled with
    /// the first ones.
    pub(super) fn load(loader: &mut Loader<'_>, away: &[usize], first: usize) -> Result<Self, DeviceError> {
        let tensor = |layer: usize, part: &str| {
            let name = format!("blk.{}.{part}.weight", first + layer);
            loader.gguf.tensor(&name).expect("a geometry is read from a file with all its tensors")
        };
        let formats = |layer: usize| PARTS.map(|part| tensor(layer, part).format);
        let mut mixtures: Vec<[BlockFormat; PARTS.len()]> = Vec::new();
        let mut lane_of = Vec::new();
        for &layer in away {
            let own = formats(layer);
            lane_of.push(mixtures.iter().position(|known| *known == own).unwrap_or_else(|| {
                mixtures.push(own);
                mixtures.len() - 1
            }));
        }
        if mixtures.len() > BUFFERS {
            let what =
                format!("layers in {} mixtures of formats that lie elsewhere; at most {BUFFERS}", mixtures.len());
            return Err(DeviceError::NotSupported { device: loader.device.label(), what });
        }
        let mut lanes = Vec::new();
        for lane in 0..mixtures.len() {
            let layers: Vec<usize> = (0..away.len()).filter(|&at| lane_of[at] == lane).collect();
            let places = (BUFFERS / mixtures.len()).min(layers.len());
            let places =
                layers[..places].iter().map(|&at| loader.matrices(first + away[at])).collect::<Result<_, _>>()?;
            lanes.push(Lane { places, layers, visits: 0 });
        }
        let mut laid_out = Vec::new();
        for (at, &layer) in away.iter().enumerate() {
            let like = lanes[lane_of[at]].places[0].all();
            let bytes = PARTS.map(|part| loader.gguf.tensor(&format!("blk.{}.{part}.weight", first + layer)));
            let laid = like.iter().zip(bytes).filter_map(|(&like, tensor)| Some((like, tensor?.bytes)));
            laid_out
                .push(laid.map(|(like, packed)| loader.device.laid_out(like, packed)).collect::<Result<Vec<_>, _>>()?);
        }
        let bytes = |at: usize| laid_out[at].iter().map(LaidOut::bytes).sum::<u64>();
        let turning = || lanes.iter().filter(|lane| lane.layers.len() > lane.places.len());
        let figures = Offloaded {
            away: away.len(),
            held_bytes: lanes.iter().map(|lane| lane.places.len() as u64 * bytes(lane.layers[0])).sum(),
            // A layer with a place of its own is brought once and stays.
            pass_bytes: turning().flat_map(|lane| &lane.layers).map(|&at| bytes(at)).sum(),
            beside: turning().all(|lane| lane.places.len() > 1),
            ..Offloaded::default()
        };
        Ok(Self { layers: away.to_vec(), laid_out, lanes, lane_of, turn: 0, waiting: None, figures })
    }

    /// Whether a pass may begin: the one before came to its end.
    pub(super) const fn is_whole(&self) -> bool {
        self.turn == 0 && self.waiting.is_none()
    }

    /// The next layer that is brought, from layer `from` of the stage on, and where its matrices are; none where all that
    /// follow are held. What its place waits for is brought.
    ///
    /// # Errors
    /// What the device says.
    pub(super) fn next_from(
        &mut self,
        from: usize,
        device: &mut Device,
    ) -> Result<Option<(usize, Matrices)>, DeviceError> {
        let layer = self.layers[self.turn];
        if layer < from {
            return Ok(None);
        }
        let own = self.lane_of[self.turn];
        if self.waiting.is_some_and(|(lane, _)| lane == own && self.lanes[own].places.len() == 1) {
            self.refill(device)?;
        }
        let lane = &self.lanes[own];
        Ok(Some((layer, lane.places[lane.visits % lane.places.len()])))
    }

    /// The layer whose turn it was is launched, and the place of the one before is refilled.
    ///
    /// # Errors
    /// What the device says.
    pub(super) fn launched(&mut self, device: &mut Device) -> Result<(), DeviceError> {
        self.refill(device)?;
        let own = self.lane_of[self.turn];
        let lane = &mut self.lanes[own];
        if lane.layers.len() > lane.places.len() {
            self.waiting = Some((own, lane.visits));
        }
        lane.visits += 1;
        self.turn = (self.turn + 1) % self.layers.len();
        Ok(())
    }

    /// Refills the place that waits for it, if one does.
    ///
    /// # Errors
    /// What the device says.
    pub(super) fn refill(&mut self, device: &mut Device) -> Result<(), DeviceError> {
        let Some((lane, visit)) = self.waiting.take() else { return Ok(()) };
        let lane = &self.lanes[lane];
        let (count, places) = (lane.layers.len(), lane.places.len());
        let next = lane.layers[(visit + places) % count];
        let place = lane.places[visit % places].all();
        for (matrix, by) in place.into_iter().zip(&self.laid_out[next]) {
            device.refill(matrix, by)?;
            self.figures.read_bytes += by.bytes();
        }
        Ok(())
    }
}
