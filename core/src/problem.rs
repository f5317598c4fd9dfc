//! The question a planner answers: which device holds which layers of this model, for this load, on these devices.
//!
//! Everything a planner needs is asked of [`PlacementProblem`]; the checker asks the same questions again.

mod choices;
mod goals;
mod groups;
mod offload;
mod points;
mod power;
mod roles;
mod steady;

pub use choices::Choices;
pub use goals::{Goal, Objective, floor};
pub use groups::{Group, Parallel, group_name};
pub use power::{PowerLimit, PowerScope};
pub use roles::{Division, Role};
pub use steady::Life;

use crate::conditions::Conditions;
use crate::cost::{OperatorProfile, StepShape, roofline};
use crate::digest::Digest;
use crate::figure::How;
use crate::graph::DeviceGraph;
use crate::ids::{DeviceId, Layers};
use crate::model::Model;
use crate::scenario::Prices;
use crate::units::{Bytes, Celsius, Seconds, TokensPerSecond};
use crate::workload::{Serving, Workload};
use serde::{Deserialize, Serialize};

/// What a plan must respect beside the devices' memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory left free for the runtime on every device that holds a stage.
    pub reserve_bytes: Bytes,
    /// Whether a request may enter a stage's interval in the middle, and leave it there (partial inference).
    pub partial: bool,
    /// Most stages of one route; absent where any number will do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stages_max: Option<u32>,
    /// Exactly this many stages in one chain, where the user asks for a cut (for experiments).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stages_exact: Option<u32>,
    /// Names of devices that must hold a stage.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pinned: Vec<String>,
    /// Names of devices that must not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub banned: Vec<String>,
    /// Most power that devices may draw together in the long run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub power: Vec<PowerLimit>,
    /// Whether plans may ask for more than heat and power allow in the long run, as if all devices stayed cold.
    #[serde(default, skip_serializing_if = "is_false")]
    pub cold: bool,
    /// What a plan has to reach, beside being the best.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub goals: Vec<Goal>,
    /// What may be chosen for each stage.
    #[serde(default, skip_serializing_if = "Choices::is_none")]
    pub choices: Choices,
    /// Whether some devices prefill and others decode.
    #[serde(default, skip_serializing_if = "Division::is_never")]
    pub division: Division,
    /// Names of the devices that prefill in a divided plan, the others decode; any may where empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefill: Vec<String>,
}

// Serde's skip condition takes a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            reserve_bytes: Bytes(64 << 20),
            partial: false,
            stages_max: None,
            stages_exact: None,
            pinned: Vec::new(),
            banned: Vec::new(),
            power: Vec::new(),
            cold: false,
            goals: Vec::new(),
            choices: Choices::default(),
            division: Division::Never,
            prefill: Vec::new(),
        }
    }
}

/// Bytes that a stage needs on its device, by use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StageBytes {
    /// Weights of its layers, and of embedding and head where it is an end.
    pub weights: Bytes,
    /// Key-value cache, in whole blocks: as many as are stated, or for all admitted requests at their greatest length.
    pub kv: Bytes,
    /// Scratch of one step.
    pub activations: Bytes,
    /// Left free for the runtime.
    pub reserve: Bytes,
    /// Sum of the above.
    pub total: Bytes,
    /// Layers whose weights lie elsewhere, see [`crate::offload`]; `weights` has the buffers through which they pass.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub away_layers: u32,
    /// Bytes of those layers, which every step brings. Not in the sum.
    #[serde(default, skip_serializing_if = "Bytes::is_zero")]
    pub away: Bytes,
}

// Serde's skip condition takes a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
const fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// A placement problem, validated.
#[derive(Debug, Clone)]
pub struct PlacementProblem {
    /// Name of the scenario it came from.
    pub name: String,
    /// The model to place.
    pub model: Model,
    /// The devices and links.
    pub graph: DeviceGraph,
    /// The load.
    pub workload: Workload,
    /// Limits of the serving loop.
    pub serving: Serving,
    /// What to optimise.
    pub objective: Objective,
    /// What else to respect.
    pub limits: Limits,
    /// Temperature of the air around the devices.
    pub ambient: Celsius,
    /// Digests of scenario, devices and model file.
    pub inputs: Vec<Digest>,
    /// What a simulation meets beside plan and load; planning sees only its cases and its warmest air. None unless set.
    pub conditions: Conditions,
    /// What devices and electricity cost. Nothing is known unless set.
    pub prices: Prices,
    /// Per device: how this model's steps are timed on it.
    timing: Vec<Timing>,
    /// Per device: the format of the layers that it would hold.
    format: Vec<String>,
    /// Per device: how many devices it is.
    degree: Vec<u32>,
    /// Per device: share of its full speed.
    speed: Vec<f64>,
    /// Per device: share of the time at full speed that it may work.
    duty: Vec<f64>,
    /// The side that it is of a divided plan.
    role: Option<Role>,
}

/// How the steps of the problem's model are timed on one device.
#[derive(Debug, Clone)]
enum Timing {
    Profile(Box<OperatorProfile>),
    Rates,
    Unknown,
}

/// Parts of a [`PlacementProblem`], before validation.
#[derive(Debug, Clone)]
pub struct ProblemParts {
    /// Name of the scenario it came from.
    pub name: String,
    /// The model to place.
    pub model: Model,
    /// The devices and links.
    pub graph: DeviceGraph,
    /// The load.
    pub workload: Workload,
    /// Limits of the serving loop.
    pub serving: Serving,
    /// What to optimise.
    pub objective: Objective,
    /// What else to respect.
    pub limits: Limits,
    /// Temperature of the air around the devices.
    pub ambient: Celsius,
    /// Digests of scenario, devices and model file.
    pub inputs: Vec<Digest>,
}

/// Why parts make no problem.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ProblemError {
    /// The model has no layers.
    #[error("model {0:?} has no layers; give at least one")]
    NoLayers(String),
    /// There is no device.
    #[error("there is no device to place {0:?} on; add at least one")]
    NoDevices(String),
    /// A request is longer than the model's context.
    #[error("a request of {tokens} tokens (prompt and output) is longer than the context of {model:?}, {context_max}")]
    TooLong {
        /// The model.
        model: String,
        /// Longest request of the workload.
        tokens: u64,
        /// Longest sequence of the model.
        context_max: u32,
    },
    /// A count that must be at least one is zero.
    #[error("{0} is 0; it must be at least 1")]
    Zero(&'static str),
    /// A watermark that is no share.
    #[error("serving.kv_watermark is {0}; it is a share of the cache blocks, at least 0 and below 1")]
    Watermark(f64),
    /// A batch that may be chosen is empty, or more than are admitted.
    #[error("choices.batches names {batch}; a batch has from 1 to serving.requests_max = {requests_max} requests")]
    Batch {
        /// The batch.
        batch: u32,
        /// Requests admitted at once.
        requests_max: u32,
    },
    /// Two choices that exclude each other.
    #[error(
        "choices.offload and limits.partial are both true: which layers a stage brings follows from all that it holds, and a \
         request that enters in the middle needs only some; keep one of them"
    )]
    OffloadPartial,
    /// A format that may be chosen, whose bytes do not follow from the model's.
    #[error(
        "choices.quantisations names {format:?}, whose bytes do not follow from those of the model, which is in {from:?}; \
         known: {known}"
    )]
    UnknownFormat {
        /// The format.
        format: String,
        /// The model's.
        from: String,
        /// Formats whose size is known.
        known: String,
    },
    /// A power limit of nothing that is there.
    #[error("limits.power names {scope}, which no device of this problem belongs to")]
    UnknownScope {
        /// What it names.
        scope: PowerScope,
    },
    /// A power limit that nobody can hold, since a power is not known.
    #[error(
        "limits.power limits {scope}, and the power of {device:?} is not known; state its idle_power and busy_power, or ban it"
    )]
    UnknownPower {
        /// What it limits.
        scope: PowerScope,
        /// The device.
        device: String,
    },
    /// A device that is pinned, banned or to prefill is not in the graph.
    #[error("{list} names {name:?}, which is no device of this problem; known: {known}")]
    UnknownDevice {
        /// `pinned`, `banned` or `prefill`.
        list: &'static str,
        /// The name.
        name: String,
        /// Names that are there.
        known: String,
    },
}

impl PlacementProblem {
    /// Validates a problem and chooses each device's timing: a profile measured on this geometry, else a table of
    /// rates, else a roofline marked as estimated. Errors: everything wrong, at once.
    pub fn new(parts: ProblemParts) -> Result<Self, Vec<ProblemError>> {
        let ProblemParts { name, model, graph, workload, serving, objective, limits, ambient, inputs } = parts;
        let mut errors = Vec::new();
        if model.layer_bytes.is_empty() {
            errors.push(ProblemError::NoLayers(model.name.clone()));
        }
        if graph.devices().is_empty() {
            errors.push(ProblemError::NoDevices(model.name.clone()));
        }
        for (count, what) in [
            (serving.requests_max, "serving.requests_max"),
            (serving.step_tokens_max, "serving.step_tokens_max"),
            (serving.kv_block_tokens, "serving.kv_block_tokens"),
            (workload.prompt_tokens.min, "workload.prompt_tokens"),
            (workload.output_tokens.min, "workload.output_tokens"),
        ] {
            if count == 0 {
                errors.push(ProblemError::Zero(what));
            }
        }
        let longest = u64::from(workload.prompt_tokens.max) + u64::from(workload.output_tokens.max);
        if longest > u64::from(model.context_max) {
            let context_max = model.context_max;
            errors.push(ProblemError::TooLong { model: model.name.clone(), tokens: longest, context_max });
        }
        for (list, names) in [("pinned", &limits.pinned), ("banned", &limits.banned), ("prefill", &limits.prefill)] {
            for name in names.iter().filter(|name| graph.find(name).is_none()) {
                let known = graph.devices().iter().map(|d| d.name.as_str()).take(20).collect::<Vec<_>>().join(", ");
                errors.push(ProblemError::UnknownDevice { list, name: name.clone(), known });
            }
        }
        if serving.kv_blocks == Some(0) {
            errors.push(ProblemError::Zero("serving.kv_blocks"));
        }
        if let Some(share) = serving.kv_watermark.filter(|share| !(0.0..1.0).contains(share)) {
            errors.push(ProblemError::Watermark(share));
        }
        errors.extend(choices::errors(&limits.choices, &model, serving.requests_max));
        errors.extend(power::errors(&limits, &graph));
        if limits.partial && limits.choices.offload {
            errors.push(ProblemError::OffloadPartial);
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let timing: Vec<Timing> =
            graph.devices().iter().map(|device| choices::timing(&graph, device, &model)).collect();
        let (format, degree) = (vec![model.quantisation.clone(); timing.len()], vec![1; timing.len()]);
        let (speed, duty) = (vec![1.0; timing.len()], vec![1.0; timing.len()]);
        let (conditions, prices) = (Conditions::default(), Prices::default());
        let problem = Self {
            name,
            model,
            graph,
            workload,
            serving,
            objective,
            limits,
            ambient,
            inputs,
            conditions,
            prices,
            timing,
            format,
            degree,
            speed,
            duty,
            role: None,
        };
        // Until a plan chooses, each device has the preferred format that it can multiply.
        let preferred = |id: DeviceId| {
            let able = &problem.graph.device(id).formats;
            let chosen = &problem.limits.choices.quantisations;
            chosen.iter().find(|format| able.is_empty() || able.contains(format)).or(chosen.first()).map(String::as_str)
        };
        Ok(if problem.limits.choices.is_none() { problem } else { problem.in_formats(preferred) })
    }

    /// Number of layers to place.
    #[must_use]
    pub fn layers(&self) -> u32 {
        self.model.layers()
    }

    /// The operator times used for a device; none where only rates, or nothing, is known.
    #[must_use]
    pub fn profile(&self, device: DeviceId) -> Option<&OperatorProfile> {
        match &self.timing[device.index()] {
            Timing::Profile(profile) => Some(profile),
            Timing::Rates | Timing::Unknown => None,
        }
    }

    /// How well a device's times are known; none where nothing is.
    #[must_use]
    pub fn timing_source(&self, device: DeviceId) -> Option<How> {
        match &self.timing[device.index()] {
            Timing::Profile(profile) => Some(profile.how),
            Timing::Rates => Some(How::Declared),
            Timing::Unknown => None,
        }
    }

    /// Whether a device may hold a stage at all: not banned, its times known, its backend able to multiply the
    /// model's format.
    #[must_use]
    pub fn usable(&self, device: DeviceId) -> bool {
        self.exclusion(device).is_none()
    }

    /// Why a device may hold no stage, where that is so.
    #[must_use]
    pub fn exclusion(&self, device: DeviceId) -> Option<String> {
        let known = self.graph.device(device);
        if self.limits.banned.contains(&known.name) {
            return Some("banned by the user".to_owned());
        }
        let format = self.format(device);
        if !known.formats.is_empty() && !known.formats.iter().any(|able| able == format) {
            let backend = &known.backend;
            return Some(format!("its backend {backend} cannot multiply {format} weights"));
        }
        if let Some(operation) = known.missing_operation() {
            let backend = &known.backend;
            return Some(format!("its backend {backend} has no operation {operation:?}, which every layer needs"));
        }
        if self.speed(device).min(self.duty(device)) <= 0.0 {
            return Some("heat or a power limit leaves it nothing: idle alone it is at its limit".to_owned());
        }
        match self.timing[device.index()] {
            Timing::Unknown => Some("neither its speed nor its memory bandwidth is known; probe it".to_owned()),
            Timing::Profile(_) | Timing::Rates => None,
        }
    }

    /// Time of one step, bringing layers that lie elsewhere included; none where only rates are known.
    #[must_use]
    pub fn step(&self, device: DeviceId, layers: Layers, shape: &StepShape) -> Option<Seconds> {
        let time = self.profile(device)?.step(layers, self.layers(), shape);
        // A division by 1 changes nothing.
        let computing = Seconds::new(time.value() / self.speed(device)).unwrap_or(Seconds::of(f64::MAX));
        Some(self.with_bringing(device, layers, computing))
    }

    /// Time of one decode step of a request that has the device to itself, at its mean context `prompt + output / 2`.
    #[must_use]
    pub fn decode_time(&self, device: DeviceId, layers: Layers) -> Option<Seconds> {
        self.step(device, layers, &StepShape::decode(1, self.mean_context()))
    }

    /// Time to prefill a prompt of mean length, in chunks of at most `step_tokens_max`.
    #[must_use]
    pub fn prefill_time(&self, device: DeviceId, layers: Layers) -> Option<Seconds> {
        self.prefill_chunks().map(|shape| self.step(device, layers, &shape)).sum()
    }

    /// Mean context of a decoding request.
    #[must_use]
    pub fn mean_context(&self) -> f64 {
        self.workload.prompt_tokens.mean() + self.workload.output_tokens.mean() / 2.0
    }

    /// The steps in which a prompt of mean length is prefilled.
    pub fn prefill_chunks(&self) -> impl Iterator<Item = StepShape> + use<> {
        let prompt = (libm::round(self.workload.prompt_tokens.mean()) as u32).max(1);
        let chunk = self.serving.step_tokens_max.max(1);
        (0..prompt.div_ceil(chunk)).map(move |i| {
            let cached = i * chunk;
            StepShape::prefill(chunk.min(prompt - cached), cached, cached + chunk >= prompt)
        })
    }

    /// Number of devices that a device of this problem is: more than one where it is a group.
    #[must_use]
    pub fn degree(&self, device: DeviceId) -> u64 {
        self.degree.get(device.index()).copied().unwrap_or(1).max(1).into()
    }

    /// Bytes a stage needs on each of its devices, by use. Devices of a flow problem (rates only) hold no bytes.
    #[must_use]
    pub fn stage_bytes(&self, device: DeviceId, layers: Layers) -> StageBytes {
        if matches!(self.timing[device.index()], Timing::Rates) {
            return StageBytes::default();
        }
        let block = u64::from(self.serving.kv_block_tokens);
        let blocks = self.serving.kv_blocks.map_or_else(
            || {
                let longest = u64::from(self.workload.prompt_tokens.max) + u64::from(self.workload.output_tokens.max);
                longest.div_ceil(block).saturating_mul(self.serving.requests_max.into())
            },
            u64::from,
        );
        let tokens = blocks.saturating_mul(block);
        let per_layer = self.model.kv_bytes_per_token_layer().saturating_mul(tokens);
        let weights = self.weight_bytes(device, layers);
        // Heads are divided evenly over a group.
        let kv = Bytes(per_layer.0 / self.degree(device)).saturating_mul(layers.len().into());
        let activations = self.model.activation_bytes(layers, self.serving.step_tokens_max.into());
        let reserve = self.limits.reserve_bytes;
        let total = [weights, kv, activations, reserve].into_iter().sum();
        let whole = StageBytes { weights, kv, activations, reserve, total, ..StageBytes::default() };
        self.offloaded(device, layers, whole)
    }

    /// Memory of a device that plans may use; none where unknown (then nothing fits, unless only rates are known).
    #[must_use]
    pub fn memory(&self, device: DeviceId) -> Option<Bytes> {
        self.graph.device(device).memory_bytes.as_ref().map(|f| f.value)
    }

    /// The sets of devices that draw from one memory, each with its size: one set per pool, one per other device.
    /// A size is none where unknown.
    #[must_use]
    pub fn memory_pools(&self) -> Vec<(Vec<DeviceId>, Option<Bytes>)> {
        let mut pools: Vec<(Option<&str>, Vec<DeviceId>, Option<Bytes>)> = Vec::new();
        for id in self.graph.device_ids() {
            let pool = self.graph.device(id).memory_pool.as_deref();
            let size = self.memory(id);
            match pools.iter_mut().find(|(name, ..)| pool.is_some() && *name == pool) {
                Some((_, members, least)) => {
                    members.push(id);
                    *least = least.zip(size).map(|(a, b)| a.min(b));
                }
                None => pools.push((pool, vec![id], size)),
            }
        }
        pools.into_iter().map(|(_, members, size)| (members, size)).collect()
    }

    /// Time for `bytes` to pass from one device to another; none where there is no way.
    #[must_use]
    pub fn hop(&self, from: DeviceId, to: DeviceId, bytes: Bytes) -> Option<Seconds> {
        self.graph.device_path(from, to, bytes).map(|path| path.time(bytes))
    }

    /// Time for a decoded token's activations to pass between two devices.
    #[must_use]
    pub fn decode_hop(&self, from: DeviceId, to: DeviceId) -> Option<Seconds> {
        self.hop(from, to, self.model.boundary_bytes_per_token())
    }

    /// Time for a mean prompt's activations to pass between two devices, chunk by chunk.
    #[must_use]
    pub fn prefill_hop(&self, from: DeviceId, to: DeviceId) -> Option<Seconds> {
        let row = self.model.boundary_bytes_per_token();
        self.prefill_chunks().map(|shape| self.hop(from, to, row.saturating_mul(shape.tokens().into()))).sum()
    }

    /// Time for `tokens` token identifiers (4 bytes each) to reach a device from where requests come in. Zero where
    /// the graph has no coordinator; none where it has one and there is no way.
    #[must_use]
    pub fn entry(&self, device: DeviceId, tokens: u64) -> Option<Seconds> {
        self.coordinator_hop(device, tokens, true)
    }

    /// Time for `tokens` sampled tokens (4 bytes each) to return from a device to where answers go out.
    #[must_use]
    pub fn exit(&self, device: DeviceId, tokens: u64) -> Option<Seconds> {
        self.coordinator_hop(device, tokens, false)
    }

    fn coordinator_hop(&self, device: DeviceId, tokens: u64, inward: bool) -> Option<Seconds> {
        let Some(coordinator) = self.graph.file().coordinator.as_deref() else { return Some(Seconds::ZERO) };
        let (name, bytes) = (self.graph.device(device).name.as_str(), Bytes(4).saturating_mul(tokens));
        let (from, to) = if inward { (coordinator, name) } else { (name, coordinator) };
        self.graph.path(from, to, bytes).map(|path| path.time(bytes))
    }

    /// Output tokens per second that the way between two devices carries. Each request moves its prompt and its
    /// output, less the last token, across the boundary; or as the link itself states. None where there is no way.
    #[must_use]
    pub fn hop_rate(&self, from: DeviceId, to: DeviceId) -> Option<TokensPerSecond> {
        let (a, b) = (&self.graph.device(from).name, &self.graph.device(to).name);
        if let Some(rate) = self.stated_rate(a, b) {
            return Some(rate);
        }
        let row = self.model.boundary_bytes_per_token();
        let path = self.graph.device_path(from, to, row)?;
        let Some(bandwidth) = path.bandwidth else { return Some(TokensPerSecond::of(f64::MAX)) };
        let output = self.workload.output_tokens.mean();
        let moved = row.0 as f64 * self.crossing_tokens();
        Some(TokensPerSecond::of(bandwidth.value() * output / moved.max(1.0)))
    }

    /// The output rate that a direct link between two named places states for itself.
    #[must_use]
    pub fn stated_rate(&self, from: &str, to: &str) -> Option<TokensPerSecond> {
        self.graph.direct(from, to).and_then(|link| link.tokens_per_second)
    }
}
