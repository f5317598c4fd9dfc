//! A problem as data, for checkers that share no code with this one.

use crate::digest::Digest;
use crate::graph::DevicesFile;
use crate::model::Model;
use crate::problem::{Limits, Objective, PlacementProblem};
use crate::units::Celsius;
use crate::workload::{Serving, Workload};
use serde::Serialize;

/// Schema of a problem written down.
pub const PROBLEM_SCHEMA: &str = "isotherm.problem/v1";

/// Everything a checker needs to judge a plan: the inputs of the problem, nothing derived from them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProblemRecord<'a> {
    /// [`PROBLEM_SCHEMA`].
    pub schema: &'static str,
    /// Name of the scenario.
    pub scenario: &'a str,
    /// Digests of scenario, devices and model.
    pub inputs: &'a [Digest],
    /// The model.
    pub model: &'a Model,
    /// Devices and links, as in `devices.json`.
    pub devices: &'a DevicesFile,
    /// The load.
    pub workload: &'a Workload,
    /// Limits of the serving loop.
    pub serving: Serving,
    /// What to optimise.
    pub objective: Objective,
    /// What else to respect.
    pub limits: &'a Limits,
    /// Temperature of the air.
    pub ambient_celsius: Celsius,
}

impl<'a> ProblemRecord<'a> {
    /// The record of a problem.
    #[must_use]
    pub fn of(problem: &'a PlacementProblem) -> Self {
        Self {
            schema: PROBLEM_SCHEMA,
            scenario: &problem.name,
            inputs: &problem.inputs,
            model: &problem.model,
            devices: problem.graph.file(),
            workload: &problem.workload,
            serving: problem.serving,
            objective: problem.objective,
            limits: &problem.limits,
            ambient_celsius: problem.ambient,
        }
    }
}
