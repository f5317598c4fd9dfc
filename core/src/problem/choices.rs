//! What may be chosen for each stage beside its device and its layers.
//!
//! A plan's stage states its format. A problem in which every device has its format is asked the same questions as one
//! without any choice: [`PlacementProblem::chosen`] is the problem that a plan speaks of.

use super::{PlacementProblem, ProblemError, Timing, roofline};
use crate::device::{Device, DeviceKind};
use crate::format::{known, rescaled};
use crate::graph::DeviceGraph;
use crate::ids::{DeviceId, Layers};
use crate::model::Model;
use crate::plan::Plan;
use crate::units::Bytes;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// What may be chosen for each stage. Without anything here, nothing may.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choices {
    /// Formats that the matrices of a stage's layers may have; the model's own alone where empty. Embedding and head
    /// keep theirs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quantisations: Vec<String>,
    /// How many alike devices of one host may hold a stage together; one alone where empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tensor_parallel: Vec<u32>,
    /// How many of them may hold a stage together that divide its experts among them; none where empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expert_parallel: Vec<u32>,
    /// Requests that a batch may have, at most `requests_max`; where empty, see [`PlacementProblem::batches`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub batches: Vec<u32>,
    /// Whether stages may leave layers where their device brings them from while it computes: as few as make the stage
    /// fit the device's memory.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub offload: bool,
}

impl Choices {
    /// Whether nothing may be chosen.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// Everything wrong with the choices of a problem on this model.
pub(super) fn errors(choices: &Choices, model: &Model, requests_max: u32) -> Vec<ProblemError> {
    let mut errors = Vec::new();
    for &batch in choices.batches.iter().filter(|&&batch| batch == 0 || batch > requests_max) {
        errors.push(ProblemError::Batch { batch, requests_max });
    }
    if choices.tensor_parallel.contains(&0) {
        errors.push(ProblemError::Zero("a number in choices.tensor_parallel"));
    }
    if choices.expert_parallel.contains(&0) {
        errors.push(ProblemError::Zero("a number in choices.expert_parallel"));
    }
    for format in &choices.quantisations {
        if rescaled(1, &model.quantisation, format).is_none() {
            let (format, from) = (format.clone(), model.quantisation.clone());
            errors.push(ProblemError::UnknownFormat { format, from, known: known().join(", ") });
        }
    }
    errors
}

/// A model whose layers' matrices are in another format; the model itself where the size of either is unknown.
pub(super) fn in_format(model: &Model, format: &str) -> Model {
    let scale = |bytes: &Bytes| Bytes(rescaled(bytes.0, &model.quantisation, format).unwrap_or(bytes.0));
    Model {
        layer_bytes: model.layer_bytes.iter().map(scale).collect(),
        quantisation: format.to_owned(),
        ..model.clone()
    }
}

/// How the steps of a model in this format are timed on a device: a profile measured on just that, else a table of
/// rates, else a roofline. What caches keep of few layers counts where no other device shares them.
pub(super) fn timing(graph: &DeviceGraph, device: &Device, model: &Model) -> Timing {
    let geometry = model.geometry();
    if let Some(profile) = device.profiles.iter().find(|p| p.geometry == geometry) {
        let mut profile = profile.clone();
        profile.resident = profile.resident.filter(|_| !shares_caches(graph, device));
        Timing::Profile(Box::new(profile))
    } else if !device.rates.is_empty() {
        Timing::Rates
    } else {
        roofline(device, model).map_or(Timing::Unknown, |p| Timing::Profile(Box::new(p)))
    }
}

/// Whether another device computes on the processor of this one's host as this one does: its caches then hold what all
/// of them read.
fn shares_caches(graph: &DeviceGraph, device: &Device) -> bool {
    let on_processor = |one: &Device| one.kind == DeviceKind::Cpu && one.host == device.host;
    on_processor(device) && graph.devices().iter().filter(|other| on_processor(other)).count() > 1
}

impl PlacementProblem {
    /// The formats that a stage may have, the preferred one first.
    #[must_use]
    pub fn formats(&self) -> &[String] {
        match self.limits.choices.quantisations.as_slice() {
            [] => std::slice::from_ref(&self.model.quantisation),
            given => given,
        }
    }

    /// The format of the layers that a device would hold.
    #[must_use]
    pub fn format(&self, device: DeviceId) -> &str {
        self.format.get(device.index()).map_or(self.model.quantisation.as_str(), String::as_str)
    }

    /// The same problem with other formats: of each device the one given, or as it is.
    #[must_use]
    pub fn in_formats<'f>(&self, format: impl Fn(DeviceId) -> Option<&'f str>) -> Self {
        let mut changed = self.clone();
        // A group's profiles are those of its members, divided.
        for id in self.graph.device_ids() {
            if let Some(format) = format(id).filter(|&format| format != self.format(id)) {
                changed.format[id.index()] = format.to_owned();
                let model = in_format(&self.model, format);
                changed.timing[id.index()] = timing(&self.graph, self.graph.device(id), &model);
            }
        }
        changed
    }

    /// This problem in each format that may be chosen, for all devices alike. Whatever a plan chooses, each of its
    /// stages is one of these problems' stages.
    #[must_use]
    pub fn variants(&self) -> Vec<Cow<'_, Self>> {
        match self.limits.choices.quantisations.as_slice() {
            [] => vec![Cow::Borrowed(self)],
            formats => formats.iter().map(|format| Cow::Owned(self.in_formats(|_| Some(format)))).collect(),
        }
    }

    /// The problem that a plan speaks of: every device in the format of its stage, where that may be chosen.
    #[must_use]
    pub fn chosen(&self, plan: &Plan) -> Cow<'_, Self> {
        if self.limits.choices.quantisations.is_empty() {
            return Cow::Borrowed(self);
        }
        let of = |id: DeviceId| {
            let name = &self.graph.device(id).name;
            let stage = plan.stages.iter().find(|stage| stage.devices.contains(name))?;
            self.formats().contains(&stage.quantisation).then_some(stage.quantisation.as_str())
        };
        Cow::Owned(self.in_formats(of))
    }

    /// Bytes of each of these layers, in the device's format.
    pub(super) fn layer_bytes(&self, device: DeviceId, layers: Layers) -> Vec<u64> {
        let (model, format) = (&self.model, self.format(device));
        let range = layers.start as usize..(layers.end as usize).min(model.layer_bytes.len());
        let held = model.layer_bytes.get(range).unwrap_or_default();
        held.iter().map(|bytes| rescaled(bytes.0, &model.quantisation, format).unwrap_or(bytes.0)).collect()
    }

    /// Bytes of the weights that a device holds with these layers, in its format; each member of a group holds its part
    /// of the layers, and all of embedding and head.
    #[must_use]
    pub fn weight_bytes(&self, device: DeviceId, layers: Layers) -> Bytes {
        let (model, format, degree) = (&self.model, self.format(device), self.degree(device));
        let whole = model.weight_bytes(layers);
        if format == model.quantisation && degree == 1 {
            return whole;
        }
        let range = layers.start as usize..(layers.end as usize).min(model.layer_bytes.len());
        let held = model.layer_bytes.get(range).unwrap_or_default();
        let body: Bytes = held.iter().copied().sum();
        let scaled = |bytes: &Bytes| Bytes(rescaled(bytes.0, &model.quantisation, format).unwrap_or(bytes.0));
        let share: Bytes = held.iter().map(scaled).sum();
        whole.saturating_sub(body).saturating_add(Bytes(share.0.div_ceil(degree)))
    }
}
