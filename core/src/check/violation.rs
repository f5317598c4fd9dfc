//! What can be wrong with a plan: one variant per promise, each naming the thing, its value and the limit.

use crate::artefact::WrongSchema;
use crate::check::certificate::BoundFault;
use crate::digest::Digest;
use crate::ids::Layers;
use crate::plan::Status;
use crate::problem::Objective;
use crate::units::{Bytes, Watts};

/// A promise that a plan breaks.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Violation {
    /// The artefact is no plan, or of another version.
    #[error(transparent)]
    Schema(#[from] WrongSchema),
    /// The plan was made from other inputs.
    #[error(
        "the plan was made from {}, the problem from {}; plan again from the same scenario, devices and model",
        listed(found),
        listed(expected)
    )]
    Inputs {
        /// Digests in the plan.
        found: Vec<Digest>,
        /// Digests of the problem.
        expected: Vec<Digest>,
    },
    /// A name or word of the plan is not the problem's.
    #[error("{field} is {found:?}; for this problem it must be {expected:?}")]
    Word {
        /// Field of the plan.
        field: &'static str,
        /// What it says.
        found: String,
        /// What it must say.
        expected: String,
    },
    /// A number is not finite.
    #[error("{what} is {value}; it must be a finite number")]
    NotFinite {
        /// Which number.
        what: &'static str,
        /// Its value.
        value: f64,
    },
    /// The artefact says that there is no plan.
    #[error("the status is {status:?}: there is no plan to follow")]
    NoPlan {
        /// Its status.
        status: Status,
    },
    /// An answer without a plan holds parts of one.
    #[error("the status is {status:?}, yet there are {count} {what}; there must be none")]
    PartsWithoutPlan {
        /// Its status.
        status: Status,
        /// Which parts.
        what: &'static str,
        /// How many.
        count: usize,
    },
    /// An infeasible answer without a reason, or one that is blank.
    #[error("the status is Infeasible without a reason; state at least one, none of them blank")]
    NoReasons,
    /// Reasons for there being no plan, beside a plan.
    #[error("there are {0} reasons why there is no plan, beside a plan; there must be none")]
    ReasonsBesidePlan(usize),
    /// A plan without stages or routes.
    #[error("the plan has no {0}; it needs at least one")]
    Nothing(&'static str),
    /// More heat or power than there is room for in the long run.
    #[error(
        "{what} takes {used} of the {most} K or W that are left above idle; plan again, or cap the power of a stage"
    )]
    TooHot {
        /// What is limited.
        what: String,
        /// Kelvin or watts that the plan adds.
        used: f64,
        /// Kelvin or watts that there is room for.
        most: f64,
    },
    /// A division of prompts and answers that may not be, or is none.
    #[error("the plan divides prompts from answers wrongly: {0}")]
    Division(String),
    /// A goal that is not reached.
    #[error("{goal} is asked for; it is {figure}")]
    Goal {
        /// What is asked for.
        goal: String,
        /// What there is.
        figure: String,
    },
    /// A figure of the long run that is not what the plan leads to.
    #[error("{place} in the long run is stated as {stated}; recomputed it is {recomputed}")]
    Sustained {
        /// Which figure.
        place: String,
        /// What the plan says.
        stated: String,
        /// What it is.
        recomputed: String,
    },
    /// A name that is no device of the problem.
    #[error("{place} names {name:?}, which is no device of this problem")]
    UnknownDevice {
        /// Where it stands.
        place: String,
        /// The name.
        name: String,
    },
    /// A stage on several devices or none.
    #[error("stage {stage} is on {devices} devices; a stage is on at least 1")]
    GroupSize {
        /// Position of the stage.
        stage: usize,
        /// Devices it names.
        devices: usize,
    },
    /// A device that holds two stages.
    #[error("device {device:?} holds stage {first} and stage {second}; a device holds at most 1 stage")]
    TwoStages {
        /// The device.
        device: String,
        /// One stage.
        first: usize,
        /// The other.
        second: usize,
    },
    /// A stage whose layers are none, reversed or past the model's last.
    #[error("stage {stage} holds layers {layers}; it must hold at least one of 0..{layers_total}")]
    StageLayers {
        /// Position of the stage.
        stage: usize,
        /// What it holds.
        layers: Layers,
        /// Layers of the model.
        layers_total: u32,
    },
    /// A stage in another format than the model's.
    #[error("stage {stage} is in {found:?}; the model is in {expected:?}")]
    Quantisation {
        /// Position of the stage.
        stage: usize,
        /// Its format.
        found: String,
        /// The model's.
        expected: String,
    },
    /// A byte count that is not what the stage needs.
    #[error("stage {stage} states {stated} bytes of {part}; its layers on that device need {expected}")]
    StageBytes {
        /// Position of the stage.
        stage: usize,
        /// Which count.
        part: &'static str,
        /// What the plan says.
        stated: u64,
        /// What the problem says.
        expected: u64,
    },
    /// A stage that does not fit.
    #[error("device {device:?} has to hold {needed} and has {memory}")]
    OverMemory {
        /// The device.
        device: String,
        /// What its stage needs.
        needed: Bytes,
        /// What it has.
        memory: Bytes,
    },
    /// Stages that do not fit the memory they share.
    #[error("devices {} share {memory} and have to hold {needed}", devices.join(", "))]
    OverPool {
        /// The devices that hold stages.
        devices: Vec<String>,
        /// What their stages need together.
        needed: Bytes,
        /// What they share.
        memory: Bytes,
    },
    /// A stage on a device whose memory nobody knows.
    #[error("device {device:?} has to hold {needed} and its memory is unknown; probe it or state it")]
    UnknownMemory {
        /// The device.
        device: String,
        /// What its stage needs.
        needed: Bytes,
    },
    /// A stage on a device that may hold none.
    #[error("device {device:?} holds a stage and may not: {reason}")]
    Excluded {
        /// The device.
        device: String,
        /// Why it may not.
        reason: String,
    },
    /// A device that must hold a stage and does not.
    #[error("device {0:?} is pinned and holds no stage")]
    PinnedUnused(String),
    /// A route through more stages than allowed.
    #[error("route {route} passes {stages} stages; at most {max} are allowed")]
    TooManyStages {
        /// Position of the route.
        route: usize,
        /// Its stops.
        stages: usize,
        /// The limit.
        max: u32,
    },
    /// Another number of stages than was asked for.
    #[error("the plan has {stages} stages on {routes} routes; exactly {exact} in one chain were asked for")]
    NotExactly {
        /// Stages of the plan.
        stages: usize,
        /// Routes of the plan.
        routes: usize,
        /// What was asked for.
        exact: u32,
    },
    /// A power limit that is none.
    #[error("stage {stage} caps its power at {watts}; a cap is above zero")]
    PowerCap {
        /// Position of the stage.
        stage: usize,
        /// The cap.
        watts: Watts,
    },
    /// Devices that may not hold a stage together.
    #[error("the devices of stage {stage} may not hold it together: {reason}")]
    Group {
        /// Position of the stage.
        stage: usize,
        /// Why.
        reason: String,
    },
    /// A batch that this problem does not know, or a plan for least time that states one.
    #[error("batch is {batch}; a plan for {objective} states {}", batches(objective, known))]
    Batch {
        /// What the plan says.
        batch: u32,
        /// What it may say.
        known: Vec<u32>,
        /// The objective.
        objective: &'static str,
    },
    /// A stage that no route passes.
    #[error("no route passes stage {0}; leave it out")]
    IdleStage(usize),
    /// A stop at a stage that is not there.
    #[error("route {route} stops at stage {stage}; there are {stages}")]
    UnknownStage {
        /// Position of the route.
        route: usize,
        /// Stage it names.
        stage: u32,
        /// Number of stages.
        stages: usize,
    },
    /// A stop that serves layers it may not.
    #[error("route {route} is served layers {served} at stage {stage}, which holds {held}; they must {must}")]
    StopLayers {
        /// Position of the route.
        route: usize,
        /// The stage.
        stage: u32,
        /// Layers of the stop.
        served: Layers,
        /// Layers of the stage.
        held: Layers,
        /// What is asked of a stop.
        must: &'static str,
    },
    /// A route that passes one stage twice.
    #[error("route {route} passes stage {stage} twice; a request passes a stage once")]
    StageTwice {
        /// Position of the route.
        route: usize,
        /// The stage.
        stage: u32,
    },
    /// A route that skips, repeats or lacks layers.
    #[error("route {route} continues at layer {found}, where layer {expected} is next")]
    LayerOrder {
        /// Position of the route.
        route: usize,
        /// Where it goes on; the number of layers stands for its end.
        found: u32,
        /// Where it should.
        expected: u32,
    },
    /// A share that is none.
    #[error("route {route} takes a share of {share}; a share is above 0 and at most 1")]
    Share {
        /// Position of the route.
        route: usize,
        /// Its share.
        share: f64,
    },
    /// Shares that do not add to one.
    #[error("the shares of all routes add to {sum}; they must add to 1 within 1e-12")]
    ShareSum {
        /// Their sum, rounded.
        sum: f64,
    },
    /// Several routes where the time of a lone request is optimised.
    #[error("there are {routes} routes; a plan for least {objective} has exactly 1, as any other is slower")]
    SeveralRoutes {
        /// The objective.
        objective: &'static str,
        /// Number of routes.
        routes: usize,
    },
    /// A stage whose speed nobody knows.
    #[error("how fast {device:?} is with layers {layers} is unknown; probe it or state it")]
    NoTime {
        /// The device.
        device: String,
        /// The layers.
        layers: Layers,
    },
    /// Consecutive stops without a way between them.
    #[error("there is no known way from {from:?} to {to:?}, which follow one another on route {route}")]
    NoWay {
        /// Position of the route.
        route: usize,
        /// Device or place where the way begins.
        from: String,
        /// Device or place where it ends.
        to: String,
    },
    /// A device that is both used and listed as unused, or listed twice.
    #[error("device {device:?} is listed as unused {listed} times and holds {stages} stages; these must add to 1")]
    Accounted {
        /// The device.
        device: String,
        /// Times it is listed as unused.
        listed: usize,
        /// Stages it holds.
        stages: usize,
    },
    /// An unused device without a reason.
    #[error("device {0:?} is unused without a reason; state one")]
    UnusedReason(String),
    /// The plan has no objective value.
    #[error("the plan has no objective_value; state it")]
    NoObjective,
    /// The plan's objective value is not what it is worth.
    #[error("the plan states a {objective} of {stated}; recomputed it is {recomputed}")]
    ObjectiveValue {
        /// The objective.
        objective: &'static str,
        /// What the plan says.
        stated: f64,
        /// What it is.
        recomputed: f64,
    },
    /// The plan's objective value cannot be recomputed.
    #[error("the {objective} of this plan cannot be computed: a time, way or rate that it needs is unknown")]
    Unevaluated {
        /// The objective.
        objective: &'static str,
    },
    /// Something is wrong with the certificate.
    #[error(transparent)]
    Bound(#[from] BoundFault),
}

fn listed(digests: &[Digest]) -> String {
    let short: Vec<String> = digests.iter().map(Digest::short).collect();
    if short.is_empty() { "no inputs".to_owned() } else { short.join(" + ") }
}

fn batches(objective: &str, known: &[u32]) -> String {
    if Objective::ALL.iter().any(|known| known.serves() && known.name() == objective) {
        format!("one of {known:?}")
    } else {
        "none".to_owned()
    }
}
