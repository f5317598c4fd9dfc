//! A frontier as it is stored: plans of one question of which none is better than another in every respect.

use crate::artefact::Header;
use crate::digest::Digest;
use crate::plan::Plan;
use crate::units::Celsius;
use serde::{Deserialize, Serialize};

/// Schema of a stored frontier.
pub const FRONTIER_SCHEMA: &str = "isotherm.frontier/v1";

/// Plans of which none is better than another by all of some figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Frontier {
    /// Schema, tool and the digests that its plans were made from: scenario, devices, model.
    #[serde(flatten)]
    pub header: Header,
    /// Scenario that it answers.
    pub scenario: String,
    /// What was asked beside the scenario; of older files unknown, and so none.
    #[serde(default)]
    pub asked: Asked,
    /// What the plans are compared by, at least one.
    pub axes: Vec<FrontierAxis>,
    /// The plans, best by the first axis first.
    pub points: Vec<FrontierPoint>,
    /// The command line that made it.
    pub command: String,
}

/// What was asked of all plans of a frontier beside what the scenario asks.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Asked {
    /// Temperature of the air in place of the scenario's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ambient_celsius: Option<Celsius>,
    /// Devices that must hold layers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pinned: Vec<String>,
    /// Devices that must not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub banned: Vec<String>,
}

/// A figure that plans are compared by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrontierAxis {
    /// Name of the objective that asks for it: `throughput`, `tpot`, `energy`, `money`, `money_per_hour`.
    pub objective: String,
    /// What it is, in words.
    pub name: String,
    /// Its unit.
    pub unit: String,
    /// Whether more of it is better.
    pub maximise: bool,
}

/// One plan of a frontier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FrontierPoint {
    /// Name of the plan's file.
    pub file: String,
    /// Digest of the plan.
    pub plan: Digest,
    /// Its figures, axis by axis.
    pub figures: Vec<f64>,
    /// Who vouches for it: `certified`, `solver`, or nobody but the sweep that found it: `heuristic`.
    pub vouched: String,
    /// By how much a plan for its objective and goals might be better, as a share; absent without a bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<f64>,
    /// Devices that hold layers.
    pub devices: Vec<String>,
}

impl Asked {
    /// Whether a plan may have been asked for the same, as far as it says: it holds nothing on what is banned, something
    /// on all that is pinned, and knows of no other air.
    #[must_use]
    pub fn may_be_of(&self, plan: &Plan) -> bool {
        let used = |name: &String| plan.stages.iter().any(|stage| stage.devices.contains(name));
        let air = plan.sustained.as_ref().map(|sustained| sustained.air_celsius);
        let other_air = self.ambient_celsius.zip(air).is_some_and(|(asked, of_plan)| asked != of_plan);
        !other_air && self.pinned.iter().all(used) && !self.banned.iter().any(used)
    }
}

impl Frontier {
    /// Position of the axis of this objective.
    #[must_use]
    pub fn axis(&self, objective: &str) -> Option<usize> {
        self.axes.iter().position(|axis| axis.objective == objective)
    }
}
