//! What planning answers.

use crate::budget::Limit;
use crate::formulation::solve::SolverFault;
use isotherm_core::artefact::Header;
use isotherm_core::check::{FeasiblePlan, Violation};
use isotherm_core::plan::{PLAN_SCHEMA, Plan, Provenance, Status};
use isotherm_core::problem::{Division, Goal, PlacementProblem};
use isotherm_core::units::Bytes;
use std::fmt;

/// The answer to a placement problem. All four are answers; only [`PlanError`] is none.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// No plan is better, within [`crate::budget::GAP_NONE`].
    Optimal(FeasiblePlan),
    /// A plan; how much better another might be is bounded by the gap.
    Feasible {
        /// The plan.
        plan: FeasiblePlan,
        /// `|bound - value| / |value|`; infinite without a bound.
        gap: f64,
        /// What ended the search.
        stopped_by: Limit,
    },
    /// There is no plan.
    Infeasible(Reasons),
    /// A limit came first and nothing is known either way.
    Unknown {
        /// What ended the search.
        stopped_by: Limit,
    },
}

/// Why the question was not answered.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The solver failed.
    #[error("the solver failed: {0}")]
    Solver(#[from] SolverFault),
    /// The checker refuses the plan that was found: a fault of the planner.
    #[error("the checker refuses the plan found: {}", listed(.0))]
    Refused(Vec<Violation>),
}

fn listed(violations: &[Violation]) -> String {
    violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Why there is no plan, most telling first. Never empty.
#[derive(Debug, Clone, PartialEq)]
pub struct Reasons(pub(crate) Vec<Reason>);

impl Reasons {
    /// The reasons.
    #[must_use]
    pub fn all(&self) -> &[Reason] {
        &self.0
    }
}

impl fmt::Display for Reasons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, reason) in self.0.iter().enumerate() {
            write!(f, "{}{reason}", if i > 0 { "\n" } else { "" })?;
        }
        Ok(())
    }
}

/// One reason why there is no plan, or a change that would make one possible.
#[derive(Debug, Clone, PartialEq)]
pub enum Reason {
    /// Nothing may hold a layer.
    NoUsableDevice,
    /// A device may hold nothing, and why.
    LeftOut {
        /// The device.
        device: String,
        /// Why.
        why: String,
    },
    /// A pinned device may hold nothing, and why.
    PinnedUnusable {
        /// The device.
        device: String,
        /// Why.
        why: String,
    },
    /// All usable devices together hold too few layers.
    TooLarge {
        /// The model.
        model: String,
        /// What all layers need: weights and cache, without what each stage needs besides.
        needed: Bytes,
        /// Memory of the usable devices.
        available: Bytes,
        /// Most layers that fit, counted from the first.
        layers_fit: u32,
        /// Layers of the model.
        layers: u32,
    },
    /// No plan divides prompts from answers, and why.
    Undividable(String),
    /// No chain of ways joins devices that hold all layers together.
    NoWay,
    /// Tables of rates speak of too few layers.
    Tables {
        /// Most layers that fit.
        layers_fit: u32,
        /// Layers of the model.
        layers: u32,
    },
    /// The number of stages asked for cannot be had.
    Stages {
        /// What was asked for.
        asked: u32,
        /// Most stages that could be had.
        most: u32,
    },
    /// The search over all placements found none, for no single reason.
    Conflict,
    /// Rules and demands that cannot hold together with what the devices are.
    Together {
        /// What is asked, in words.
        demands: Vec<String>,
        /// Whether there is a plan where any one of them is lifted and all else stays.
        any: bool,
    },
    /// A goal that no plan reaches, and what bounds all plans.
    Goal {
        /// The goal.
        goal: Goal,
        /// No plan is better by its figure.
        bound: f64,
    },
    /// The nearest thing that would fit.
    Nearest(Nearest),
}

/// A change to the scenario after which a plan exists.
#[derive(Debug, Clone, PartialEq)]
pub enum Nearest {
    /// Fewer requests at a time.
    Requests {
        /// Most that fit.
        most: u32,
        /// What was asked for.
        asked: u32,
    },
    /// Shorter requests.
    Tokens {
        /// Most tokens of prompt and output together that fit.
        most: u32,
        /// What was asked for.
        asked: u32,
    },
    /// Smaller weights.
    Quantisation {
        /// Largest share of the present layer bytes that fits, in percent, rounded down.
        percent: u32,
        /// A format that is at most so large, where one is known.
        format: Option<&'static str>,
        /// The present format.
        present: String,
    },
    /// More memory on one device.
    Memory {
        /// The device.
        device: String,
        /// How much more, rounded up to whole MiB.
        more: Bytes,
    },
    /// Without a rule of the user.
    Without {
        /// The rule in words.
        rule: String,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Undividable(why) => write!(f, "no plan has prompts and answers on devices of their own: {why}"),
            Self::NoUsableDevice => write!(f, "no device may hold a layer"),
            Self::LeftOut { device, why } => write!(f, "{device} holds nothing: {why}"),
            Self::PinnedUnusable { device, why } => {
                write!(f, "{device} is pinned, but may hold nothing: {why}")
            }
            Self::TooLarge { model, needed, available, layers_fit, layers } => {
                let missing = needed.saturating_sub(*available);
                if missing > Bytes::ZERO {
                    write!(f, "{model} needs {needed}, the usable devices have {available}: {missing} too little; ")?;
                } else {
                    write!(
                        f,
                        "{model} needs {needed} of the {available} that the usable devices have, but in pieces of whole \
                         layers and with what each stage needs besides it does not fit; "
                    )?;
                }
                write!(f, "at most {layers_fit} of its {layers} layers fit")
            }
            Self::NoWay => {
                write!(f, "no known ways join devices that hold all layers together; measure or state links")
            }
            Self::Tables { layers_fit, layers } => write!(
                f,
                "at most {layers_fit} of its {layers} layers fit: a device holds no more than its table of rates or its \
                 memory says, and all of them together hold no more than that"
            ),
            Self::Stages { asked, most } => write!(f, "{asked} stages were asked for; at most {most} can be had"),
            Self::Conflict => write!(f, "no placement holds: every one breaks the memory of a device, a way or a rule"),
            Self::Together { demands, any } => write!(
                f,
                "in conflict: {}; {}",
                demands.join(", "),
                match (any, demands.len()) {
                    (true, 1) => "without it there is a plan",
                    (true, _) => "without any one of them there is a plan",
                    (false, 1) => "it leaves no plan by itself, and without it what else is asked still leaves none",
                    (false, _) => {
                        "they leave no plan even if nothing else were asked; with all else as it is, lifting one of them \
                         need not be enough"
                    }
                }
            ),
            Self::Goal { goal, bound } => {
                let (limit, unit) = (goal.limit, goal.figure.unit());
                let side = if goal.figure.maximises() { "above" } else { "below" };
                write!(
                    f,
                    "no plan has {goal}: none is {side} {bound:.6} {unit} (certified); ask for that instead of {limit}"
                )
            }
            Self::Nearest(nearest) => write!(f, "nearest: {nearest}"),
        }
    }
}

impl fmt::Display for Nearest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requests { most, asked } => write!(f, "it fits with requests_max = {most} instead of {asked}"),
            Self::Tokens { most, asked } => {
                write!(f, "it fits with requests of at most {most} tokens instead of {asked}")
            }
            Self::Quantisation { percent, format, present } => {
                write!(f, "it fits with weights of at most {percent} % of their bytes in {present}")?;
                format.map_or(Ok(()), |format| write!(f, ", as in {format}"))
            }
            // In whole units: rounded to fewer digits it might be too little.
            Self::Memory { device, more } => {
                write!(f, "it fits with {} MiB more memory on {device}", more.0.div_ceil(1 << 20))
            }
            Self::Without { rule } => write!(f, "it fits without {rule}"),
        }
    }
}

impl Outcome {
    /// The plan, where there is one.
    #[must_use]
    pub const fn plan(&self) -> Option<&FeasiblePlan> {
        match self {
            Self::Optimal(plan) | Self::Feasible { plan, .. } => Some(plan),
            Self::Infeasible(_) | Self::Unknown { .. } => None,
        }
    }

    /// The answer as it is stored: a plan, or the statement that there is none, with the reasons.
    #[must_use]
    pub fn artefact(&self, problem: &PlacementProblem) -> Plan {
        let none = |status, reasons| Plan {
            header: Header::new(PLAN_SCHEMA, problem.inputs.clone()),
            scenario: problem.name.clone(),
            model: problem.model.name.clone(),
            status,
            objective_name: problem.objective.name().to_owned(),
            objective_value: None,
            unit: problem.objective.unit().to_owned(),
            certificate: None,
            stages: Vec::new(),
            routes: Vec::new(),
            unused: Vec::new(),
            reasons,
            batch: None,
            division: Division::Never,
            sustained: None,
            goals: problem.limits.goals.clone(),
            provenance: Provenance::default(),
        };
        match self {
            Self::Optimal(plan) | Self::Feasible { plan, .. } => plan.plan().clone(),
            Self::Infeasible(reasons) => none(Status::Infeasible, reasons.0.iter().map(ToString::to_string).collect()),
            Self::Unknown { stopped_by } => {
                let mut plan = none(Status::Unknown, vec![stopped_by.before("any plan")]);
                plan.provenance.time_limited = *stopped_by == Limit::Time;
                plan
            }
        }
    }
}
