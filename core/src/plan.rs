//! A plan: which device holds which layers, which way requests take, and how good that is.

use crate::artefact::Header;
use crate::digest::Digest;
use crate::ids::Layers;
use crate::problem::{Division, Goal, Parallel, Role, StageBytes};
use crate::units::{Celsius, Watts};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Schema of a plan.
pub const PLAN_SCHEMA: &str = "isotherm.plan/v1";

/// What the planner found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// No plan is better, within the certificate's gap.
    Optimal,
    /// A plan, perhaps not the best; the certificate states the gap.
    Feasible,
    /// There is no plan.
    Infeasible,
    /// A limit came first and nothing is known either way.
    Unknown,
}

/// Who vouches for a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BoundKind {
    /// The checker verified it without any solver.
    Certified,
    /// The solver's word.
    Solver,
    /// There is none.
    None,
}

/// How good a plan is known to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    /// The plan's objective value.
    pub objective: f64,
    /// No plan is better than this; absent where nothing is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<f64>,
    /// `|bound - objective| / |objective|`; absent without a bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<f64>,
    /// Who vouches for the bound.
    pub bound_kind: BoundKind,
    /// How it was found, in words: the method and the solver.
    pub method: String,
    /// Solver and version, where one was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub solver: Option<String>,
    /// Branch-and-bound nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<u64>,
    /// What a stranger needs to verify a certified bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
}

/// What proves a bound without a solver.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Evidence {
    /// Throughput: if the plan's bound were exceeded, all devices together could not cover all layers. The checker
    /// recomputes `sum over devices of max over k of k * min(T(k), F)` and compares it with `layers * F`.
    ClipBound,
    /// Throughput: the same where requests in flight pay for the time that they stay on devices: what devices cover less
    /// what is paid there, and what all requests in flight pay at most, are less than all layers.
    InFlight {
        /// What a token pays for each second in flight, in weights of layers.
        price: f64,
        /// What the ends of the model weigh.
        #[serde(default)]
        ends: EndWeights,
    },
    /// Throughput: requests pay for the time that they stay and that devices work for them. By the cheapest route through all
    /// layers they pay more than what all devices take at most and what all requests in flight pay.
    Routes {
        /// What a token pays for each second in flight.
        price: f64,
        /// What it pays for each second of a device's work, by device name.
        worths: BTreeMap<String, f64>,
    },
    /// Every placement was enumerated by the checker's own procedure; only for problems it calls small.
    Enumeration,
    /// Dual worths of each device: throughput above the bound would need layers worth more than all devices.
    DeviceWorths {
        /// Worth of one device, in layers, by device name.
        worths: BTreeMap<String, f64>,
    },
    /// The same where the ends of the model weigh more than other layers, or where no way between sites carries the
    /// bound: then some layer is passed by several devices, and that costs more.
    WeighedWorths {
        /// Worth of one device, in weights of layers, by device name.
        worths: BTreeMap<String, f64>,
        /// What the ends of the model weigh.
        #[serde(default)]
        ends: EndWeights,
        /// Names of the devices of each site; empty where ways are left aside.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        sites: Vec<Vec<String>>,
    },
    /// Throughput: worths of each device leave so little to waste that the checker looks at all ways to do it, layer by
    /// layer: none comes to the last.
    LayerByLayer {
        /// Worth of one device, in layers, by device name.
        worths: BTreeMap<String, f64>,
    },
    /// Throughput: all plans are divided into cases by how they use devices, and each case has worths of its own.
    Cases {
        /// What the ends of the model weigh.
        #[serde(default)]
        ends: EndWeights,
        /// Each division is followed by all of its first case, then all of its second; a case that is not divided
        /// further is proved.
        cases: Vec<Case>,
        /// What joins sites, where divisions speak of rates within them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        crossing: Option<Crossing>,
    },
    /// Throughput: between layers of which devices of different sites pass nearly everything lie others that cost more than
    /// worths leave.
    Bridges {
        /// Names of the devices of each site; each device that may hold a stage is in one of them.
        sites: Vec<Vec<String>>,
        /// A device that passes more than this share of the rate, from a half to 1, is a main one.
        main: f64,
        /// Which sites have main devices, every possibility.
        cases: Vec<BridgeCase>,
    },
    /// Throughput: evidence for each batch in which requests may go round; none for those that Little's law rules out at
    /// the bound.
    Batches {
        /// By batch.
        batches: Vec<BatchEvidence>,
    },
    /// Latency: prices under which the cheapest walk through the layers, less all prices, is the bound; what remains
    /// open the checker searches, dropping beginnings of chains that the same prices rule out.
    WalkPrices {
        /// Every chain belongs to exactly one part.
        parts: Vec<WalkPart>,
    },
    /// Throughput of plans that divide their devices into those that prefill and those that decode: no division covers
    /// all layers on both sides.
    Divided {
        /// What the side that prefills weighs, from 0 to 1, the other weighing the rest; absent where every division is
        /// to be looked at, by number of each kind of device.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        weight: Option<f64>,
        /// Evidence for the same bound on plans that are not divided, where those are looked at too.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        whole: Option<Box<Evidence>>,
    },
    /// What a token costs: for each batch, and each span of rates, what passing a layer is worth.
    LayerPrices {
        /// By batch, then by rate; the last span of a batch has no end.
        prices: Vec<LayerPrice>,
    },
}

/// The worth of a layer to plans in batches of one size whose rate lies above that of the span before.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LayerPrice {
    /// Requests in a batch.
    pub batch: u32,
    /// Greatest rate of the span, in output tokens per second; absent where it has no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_max: Option<f64>,
    /// What passing one layer is worth, in the unit of the objective.
    pub price: f64,
}

/// Sites, and what all ways between them lead through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crossing {
    /// Names of the devices of each site; each device that may hold a stage is in one of them.
    pub sites: Vec<Vec<String>>,
    /// The capacities; besides them only links that state tokens per second join devices of two sites.
    pub capacities: Vec<Capacity>,
}

/// A capacity that several ways share.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Capacity {
    /// A shared capacity of the graph.
    Group {
        /// Its name.
        name: String,
    },
    /// A link.
    Link {
        /// Where it begins.
        from: String,
        /// Where it ends.
        to: String,
    },
}

impl std::fmt::Display for Capacity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Group { name } => write!(f, "the shared capacity {name}"),
            Self::Link { from, to } => write!(f, "the link from {from} to {to}"),
        }
    }
}

/// A division of plans into two cases, or the proof of one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Case {
    /// First the plans in which at most so many of some devices hold few layers, then those in which more do.
    Holding {
        /// Names of the devices that are counted.
        devices: Vec<String>,
        /// Those of them count that hold at least one layer and at most so many.
        layers_max: u32,
        /// How many there are at most in the first case.
        count: u32,
    },
    /// First the plans in which at most so many layers are passed by some devices alone, then those in which more are.
    Alone {
        /// Names of the devices; two divisions of this kind name the same devices or have none in common.
        devices: Vec<String>,
        /// How many layers there are at most in the first case.
        count: u32,
    },
    /// First the plans in which requests that never leave a site have at most this rate, then those in which they have at
    /// least this rate, the plan being slowed to just above the bound.
    Within {
        /// Position of the site in the crossing.
        site: u32,
        /// Output tokens per second.
        rate: f64,
    },
    /// Worths that prove this case.
    Proof {
        /// Worth of one device, in weights of layers, by device name.
        worths: BTreeMap<String, f64>,
        /// For each division above, outermost first, what each device or layer that it counts is worth: nothing or more
        /// in a first case, nothing or less in a second.
        counted: Vec<f64>,
    },
}

/// Worths and bridges for the plans in which certain sites, and no others, have main devices.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BridgeCase {
    /// Positions of these sites.
    pub mains: Vec<u32>,
    /// Worth of one device, in layers, by device name.
    pub worths: BTreeMap<String, f64>,
    /// What it takes to get from one of these sites to another; without any, the case speaks for all smaller sets too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bridges: Vec<Bridge>,
}

/// The layers between main devices of different sites.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bridge {
    /// Position of a site.
    pub from: u32,
    /// Position of the other; absent for a bridge to where no device of the first is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u32>,
    /// What devices pay on these layers at least beyond 1 for each, in layers.
    pub waste: f64,
}

/// What proves a bound on every plan in batches of one size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchEvidence {
    /// Requests in a batch.
    pub batch: u32,
    /// The evidence: for throughput, and not for batches again.
    pub evidence: Evidence,
}

/// What the first and the last layer weigh beyond the 1 of every layer, in a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct EndWeights {
    /// The first layer.
    pub first: f64,
    /// The last layer.
    pub last: f64,
}

/// Prices for the chains whose longest stage takes longer than the part before says, and at most as long as this one.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct WalkPart {
    /// Most seconds of a stage, all steps of a request together; absent in the last part, which knows no most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage_seconds_max: Option<f64>,
    /// Seconds that a walk pays each time it uses a device, by name; nothing for those left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub devices: BTreeMap<String, f64>,
    /// Seconds for each byte of a shared memory, by name of the pool.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pools: BTreeMap<String, f64>,
    /// The mean of paths over chunks and stages that walks are charged; absent where they are charged the path that
    /// turns at long stages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares: Option<PathShares>,
}

/// Which part of all paths over chunks and stages has come how far at each boundary between two layers, in 65,536ths.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PathShares {
    /// Paths that have left the first chunk for the last that is as long as it; empty where that is the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub followed: Vec<u32>,
    /// Paths that have gone on to a shorter last chunk; empty where there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last: Vec<u32>,
    /// Devices that no beginning of a walk uses twice; at most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub once: Vec<String>,
}

/// A contiguous interval of layers on a device group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// Names of the devices that hold it together; one, unless tensor parallel.
    pub devices: Vec<String>,
    /// The layers.
    pub layers: Layers,
    /// Format of the layers' matrices.
    pub quantisation: String,
    /// How several devices divide it.
    #[serde(default, skip_serializing_if = "Parallel::is_tensor")]
    pub parallel: Parallel,
    /// What it needs on each of its devices.
    pub bytes: StageBytes,
    /// Power limit to set, where the plan asks for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_cap_watts: Option<Watts>,
}

/// One stop of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// Position in [`Plan::stages`].
    pub stage: u32,
    /// Layers of that stage that the request passes there.
    pub layers: Layers,
}

/// A way that requests take through the stages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// The stops in order; together they cover every layer once.
    pub stages: Vec<Stop>,
    /// Share of the requests that take it, above 0 and at most 1; all shares add to 1, or those of each role.
    pub share: f64,
    /// What it does in a divided plan, in which every route has a role; absent where it does everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
}

/// What a plan asks of its devices in the long run, at the rate that it is worth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sustained {
    /// The warmest that the air gets.
    pub air_celsius: Celsius,
    /// The devices, stage by stage.
    pub devices: Vec<DeviceState>,
}

/// A device in the long run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceState {
    /// Its name.
    pub device: String,
    /// Its speed as a share of full speed: what its power cap leaves it.
    pub speed: f64,
    /// Share of the time that it works.
    pub utilisation: f64,
    /// Its mean power; absent where its powers are not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watts: Option<Watts>,
    /// The steady temperature that this leads to; absent where its thermal parameters are not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub celsius: Option<Celsius>,
    /// The temperature at which it would slow itself further; absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_celsius: Option<Celsius>,
}

/// A device that holds nothing, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unused {
    /// The device's name.
    pub device: String,
    /// Why it is left out.
    pub reason: String,
}

/// Facts about the making of a plan that are not part of it: digests leave them out.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Provenance {
    /// Wall time of planning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub solve_seconds: Option<f64>,
    /// Machine that planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// Whether a wall-clock limit ended the search, so that another run may find another plan.
    #[serde(default)]
    pub time_limited: bool,
    /// What the plan came to in simulation after it was chosen among several; absent where none was simulated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub simulated: Option<Simulated>,
}

/// What a plan that was chosen by simulation came to when it was simulated again: a prediction, nothing is proved about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Simulated {
    /// Mean over the runs, in output tokens per second.
    pub tokens_per_second: f64,
    /// Runs, on other seeds than the choice was made on.
    pub seeds: u32,
    /// Plans that were simulated.
    pub plans: u32,
}

/// A plan as it is stored. [`crate::check`] decides whether it holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Schema, tool and digests of scenario, devices and model.
    #[serde(flatten)]
    pub header: Header,
    /// Scenario it answers.
    pub scenario: String,
    /// Model it places.
    pub model: String,
    /// What was found.
    pub status: Status,
    /// What was optimised.
    pub objective_name: String,
    /// Its value; absent without a plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objective_value: Option<f64>,
    /// Its unit.
    pub unit: String,
    /// How good it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
    /// The stages.
    pub stages: Vec<Stage>,
    /// The ways through them.
    pub routes: Vec<Route>,
    /// Requests in each of the batches that go round on a route, for a throughput plan; in a divided
    /// plan on a route that decodes, one on a route that prefills; where absent, as many as divide
    /// the admitted requests evenly over the stages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<u32>,
    /// Whether plans that divide their devices were looked at beside those that do not, or in their place: its bound is
    /// that of these.
    #[serde(default, skip_serializing_if = "Division::is_never")]
    pub division: Division,
    /// What the plan asks of its devices in the long run; absent where it was made as if nothing ever got hot, or where
    /// nothing is known of heat and no power is limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sustained: Option<Sustained>,
    /// What it was asked to reach beside what its scenario asks; its bound is that of plans that do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub goals: Vec<Goal>,
    /// Devices that hold nothing.
    pub unused: Vec<Unused>,
    /// Why there is no plan, in scenario words; empty where there is one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// How it was made; no part of its digest.
    #[serde(default)]
    pub provenance: Provenance,
}

impl Plan {
    /// Batches that go round on the route of a plan of one route, `requests_max` being admitted at once; see
    /// [`crate::objective::in_flight`].
    #[must_use]
    pub fn batches_of_one_route(&self, requests_max: u32) -> u32 {
        match self.batch.filter(|&batch| batch > 0 && requests_max > 1) {
            Some(batch) => requests_max.div_ceil(batch),
            None => self.routes.first().map_or(1, |route| u32::try_from(route.stages.len()).unwrap_or(u32::MAX)),
        }
    }

    /// Digest of everything but the provenance.
    ///
    /// # Panics
    /// Never: a plan has only string keys and finite numbers, or could not have been read.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut bare = serde_json::to_value(self).expect("a plan has string keys");
        if let Some(fields) = bare.as_object_mut() {
            fields.remove("provenance");
        }
        Digest::of_json(&bare).expect("a JSON value has a canonical form")
    }
}
