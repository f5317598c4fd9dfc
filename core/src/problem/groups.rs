//! Tensor parallelism: devices that hold a stage together, as one device.
//!
//! The matrices of a layer and its heads are divided over `t` alike devices of one host; each holds a `t`-th of them
//! and of the cache, and all of embedding, head and scratch. After attention and after the feed-forward part their
//! results are added up, over the slowest way between any two of them, as a ring does it:
//!
//! ```text
//! all_reduce(n) = 2 * (t - 1) * latency + 2 * (t - 1) / t * n * row / bandwidth        n tokens, row bytes each
//! dense_t(n)    = dense(n) / t + 2 * all_reduce(n)
//! attention_t   = attention / t
//! ```
//!
//! *Experts apart.* Where the feed-forward part has experts, the members may divide the experts among them in the place
//! of each expert's width: attention is divided as above, its results are added up so that each member has a `t`-th of
//! the tokens, these go to the members that hold their experts and come back, and every member gets all. Of `t` members
//! each sends its tokens once for each of the `k` experts of a token, of which a `t`-th is its own, over ways of its
//! own:
//!
//! ```text
//! exchange(n)   = 2 * ((t - 1) * latency + n / t * k * (t - 1) / t * row / bandwidth)      there and back
//! dense_t(n)    = dense(n) / t + (2 - s) * all_reduce(n) + s * exchange(n)                  s layers of 1 have experts
//! experts_t(n)  = experts(n) on the member that takes longest, each holding a t-th of them   crate::cost::Experts
//! ```
//!
//! Either way a member holds a `t`-th of its layers' weights and of the cache. Which is quicker hangs on the steps:
//! kernels on whole experts read no expert twice, and popular ones keep one member busy while the others wait.
//!
//! (Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations", 2009.) The first member
//! speaks for the group: what comes in and goes out takes its ways. [`PlacementProblem::grouped`] is the problem in
//! which groups are devices; a plan with groups is checked, valued and simulated as a plan of that problem.

use super::{PlacementProblem, ProblemParts, Timing};
use crate::cost::{Curve, Experts, Grid, OperatorProfile};
use crate::device::Device;
use crate::figure::Figure;
use crate::graph::{DeviceGraph, DevicesFile, Link};
use crate::ids::DeviceId;
use crate::plan::{Plan, Stage};
use crate::units::{Bytes, Seconds, Watts};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// How the members of a group divide a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Parallel {
    /// Each matrix.
    #[default]
    Tensor,
    /// Each matrix but those of experts, of which each member holds its part whole.
    Experts,
}

impl Parallel {
    /// Whether it is the division of each matrix.
    // Serde's skip condition takes a reference.
    #[allow(clippy::trivially_copy_pass_by_ref)]
    #[must_use]
    pub const fn is_tensor(&self) -> bool {
        matches!(self, Self::Tensor)
    }
}

/// Devices that hold a stage together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The devices; the first speaks for all.
    pub members: Vec<DeviceId>,
    /// How they divide it.
    pub parallel: Parallel,
}

/// Name of a group: those of its members, joined.
#[must_use]
pub fn group_name<'n>(members: impl IntoIterator<Item = &'n str>) -> String {
    members.into_iter().collect::<Vec<_>>().join(" + ")
}

impl PlacementProblem {
    /// Whether devices may hold a stage together at all.
    #[must_use]
    pub fn may_group(&self) -> bool {
        let choices = &self.limits.choices;
        choices.tensor_parallel.iter().chain(&choices.expert_parallel).any(|&degree| degree > 1)
    }

    /// Why these devices may not hold a stage together, dividing each matrix; none where they may.
    #[must_use]
    pub fn group_fault(&self, members: &[DeviceId]) -> Option<String> {
        self.group_fault_as(members, Parallel::Tensor)
    }

    /// Why these devices may not hold a stage together, dividing it so; none where they may.
    #[must_use]
    pub fn group_fault_as(&self, members: &[DeviceId], parallel: Parallel) -> Option<String> {
        let degree = u32::try_from(members.len()).unwrap_or(u32::MAX);
        let choices = &self.limits.choices;
        let (key, degrees) = match parallel {
            Parallel::Tensor => ("tensor_parallel", &choices.tensor_parallel),
            Parallel::Experts => ("expert_parallel", &choices.expert_parallel),
        };
        if !degrees.contains(&degree) {
            return Some(format!("choices.{key} allows {degrees:?} devices, not {degree}"));
        }
        let model = &self.model;
        let mut counts = vec![("heads", model.heads), ("KV heads", model.kv_heads)];
        let experts = || members.first().and_then(|&first| self.profile(first)?.experts.as_ref());
        match (parallel, experts()) {
            (Parallel::Tensor, _) => counts.push(("feed-forward width", model.feed_forward)),
            (Parallel::Experts, Some(experts)) => {
                counts.push(("experts", experts.count));
                if experts.layers < self.layers() {
                    counts.push(("feed-forward width", model.feed_forward));
                }
            }
            (Parallel::Experts, None) => {
                let name = members.first().map_or("nobody", |&first| self.graph.device(first).name.as_str());
                return Some(format!("no times of experts are known on {name}"));
            }
        }
        for (what, count) in counts {
            if count % degree != 0 {
                return Some(format!("{count} ({what}) cannot be divided by {degree}"));
            }
        }
        for (position, &id) in members.iter().enumerate() {
            if members[..position].contains(&id) {
                return Some(format!("{} is named twice", self.graph.device(id).name));
            }
            if let Some(fault) = self.pair_fault(members[0], id) {
                return Some(fault);
            }
        }
        self.ring(members).is_none().then(|| "no known way joins each of them to every other".to_owned())
    }

    /// Why two devices may not hold a stage together, whatever the model; none where they may.
    #[must_use]
    pub fn pair_fault(&self, one: DeviceId, other: DeviceId) -> Option<String> {
        let first = self.graph.device(one);
        for id in [one, other] {
            let device = self.graph.device(id);
            if let Some(reason) = self.exclusion(id) {
                return Some(format!("{} may hold nothing: {reason}", device.name));
            }
            if device.host != first.host {
                return Some(format!("{} is in {}, {} in {}", first.name, first.host, device.name, device.host));
            }
            if device.memory_pool.is_some() {
                return Some(format!("{} shares its memory", device.name));
            }
            let Timing::Profile(profile) = &self.timing[id.index()] else {
                return Some(format!("the time of a step on {} is not known", device.name));
            };
            if profile.iterations.is_some() {
                return Some(format!("only whole steps were timed on {}, and nobody knows what divides", device.name));
            }
            if self.timing_key(id) != self.timing_key(one) {
                return Some(format!("{} and {} are not alike", first.name, device.name));
            }
        }
        (one != other && self.ring(&[one, other]).is_none())
            .then(|| format!("no known way joins {} and {}", first.name, self.graph.device(other).name))
    }

    /// What must agree between devices of a group.
    fn timing_key(&self, id: DeviceId) -> (Option<Bytes>, Option<&OperatorProfile>, &[String]) {
        (self.memory(id), self.profile(id), &self.graph.device(id).formats)
    }

    /// Latency and bandwidth of the slowest way between any two.
    fn ring(&self, members: &[DeviceId]) -> Option<(Seconds, f64)> {
        let row = self.model.boundary_bytes_per_token();
        let (mut latency, mut bandwidth) = (Seconds::ZERO, f64::INFINITY);
        for &from in members {
            for &to in members.iter().filter(|&&to| to != from) {
                let path = self.graph.device_path(from, to, row)?;
                latency = latency.max(path.latency);
                bandwidth = path.bandwidth.map_or(bandwidth, |rate| bandwidth.min(rate.value()));
            }
        }
        Some((latency, bandwidth))
    }

    /// The problem in which each of these groups, dividing each matrix, is one device; none where a group may not be,
    /// or two share a device.
    #[must_use]
    pub fn grouped(&self, groups: &[Vec<DeviceId>]) -> Option<Self> {
        let of = |members: &Vec<DeviceId>| Group { members: members.clone(), parallel: Parallel::Tensor };
        self.grouped_as(&groups.iter().map(of).collect::<Vec<_>>())
    }

    /// The problem in which each of these groups is one device; none where a group may not be, or two share a device.
    #[must_use]
    pub fn grouped_as(&self, all: &[Group]) -> Option<Self> {
        let groups: Vec<&[DeviceId]> = all.iter().map(|group| group.members.as_slice()).collect();
        let mut group_of: BTreeMap<DeviceId, usize> = BTreeMap::new();
        for (position, Group { members, parallel }) in all.iter().enumerate() {
            if self.group_fault_as(members, *parallel).is_some() {
                return None;
            }
            for &member in members {
                if group_of.insert(member, position).is_some() {
                    return None;
                }
            }
        }
        let file = self.graph.file();
        let name = |id: DeviceId| self.graph.device(id).name.as_str();
        let named: Vec<String> = groups.iter().map(|members| group_name(members.iter().map(|&m| name(m)))).collect();
        // What a place is called from now on; none for members who do not speak for their group.
        let mut called: BTreeMap<&str, Option<&str>> = BTreeMap::new();
        for (&member, &position) in &group_of {
            let speaks = groups[position].first() == Some(&member);
            called.insert(name(member), speaks.then_some(named[position].as_str()));
        }
        let rename = |place: &str| match called.get(place) {
            None => Some(place.to_owned()),
            Some(new) => new.map(str::to_owned),
        };
        let mut devices = Vec::new();
        for id in self.graph.device_ids() {
            match group_of.get(&id) {
                None => devices.push(self.graph.device(id).clone()),
                Some(&position) if groups[position].first() == Some(&id) => {
                    devices.push(self.as_one(&all[position], &named[position])?);
                }
                Some(_) => {}
            }
        }
        let relink = |link: &Link| Some(Link { from: rename(&link.from)?, to: rename(&link.to)?, ..link.clone() });
        let links = file.links.iter().filter_map(relink).filter(|link| link.from != link.to).collect();
        let coordinator = file.coordinator.as_deref().map(|place| {
            // A coordinator on a member is on the group.
            let of = self.graph.find(place).and_then(|id| group_of.get(&id));
            of.map_or_else(|| place.to_owned(), |&position| named[position].clone())
        });
        let mut co_run = file.co_run.clone();
        for set in &mut co_run {
            set.devices = set.devices.iter().filter_map(|device| rename(device)).collect();
            let own = std::mem::take(&mut set.slowdown_of).into_iter();
            set.slowdown_of = own.filter_map(|(device, factors)| Some((rename(&device)?, factors))).collect();
        }
        let graph = DeviceGraph::new(DevicesFile { devices, links, coordinator, co_run, ..file.clone() }).ok()?;
        let mut limits = self.limits.clone();
        limits.choices.tensor_parallel.clear();
        limits.choices.expert_parallel.clear();
        // They are of devices, and hold for plans of this problem.
        limits.power.clear();
        let pinned = |pin: &String| {
            let group = self.graph.find(pin).and_then(|id| group_of.get(&id));
            group.map_or_else(|| pin.clone(), |&position| named[position].clone())
        };
        limits.pinned = limits.pinned.iter().map(pinned).collect();
        limits.pinned.sort();
        limits.pinned.dedup();
        // A group prefills where all its members do.
        let prefills = |name: &String| {
            let group = self.graph.find(name).and_then(|id| group_of.get(&id));
            let member = |other: &DeviceId| limits.prefill.contains(&self.graph.device(*other).name);
            group.is_none_or(|of| group_of.iter().filter(|(_, other)| *other == of).all(|(id, _)| member(id)))
        };
        limits.prefill = limits.prefill.iter().filter(|name| prefills(name)).map(pinned).collect();
        limits.prefill.sort();
        limits.prefill.dedup();
        let mut grouped = Self::new(ProblemParts {
            name: self.name.clone(),
            model: self.model.clone(),
            graph,
            workload: self.workload.clone(),
            serving: self.serving,
            objective: self.objective,
            limits,
            ambient: self.ambient,
            inputs: self.inputs.clone(),
        })
        .ok()?;
        // What happens to a member happens to its group.
        let group = |place: &str| {
            let of = self.graph.find(place).and_then(|id| group_of.get(&id));
            Some(of.map_or_else(|| place.to_owned(), |&position| named[position].clone()))
        };
        grouped.role = self.role;
        grouped.conditions = self.conditions.renamed(rename, group);
        for (members, name) in groups.iter().zip(&named) {
            let id = grouped.graph.find(name)?;
            grouped.degree[id.index()] = u32::try_from(members.len()).ok()?;
            // All wait for the slowest.
            grouped.speed[id.index()] = members.iter().map(|&member| self.speed(member)).fold(1.0, f64::min);
            grouped.duty[id.index()] = members.iter().map(|&member| self.duty(member)).fold(1.0, f64::min);
        }
        for id in self.graph.device_ids().filter(|id| !group_of.contains_key(id)) {
            let same = grouped.graph.find(name(id))?;
            (grouped.speed[same.index()], grouped.duty[same.index()]) = (self.speed(id), self.duty(id));
        }
        let format: BTreeMap<String, String> = self
            .graph
            .device_ids()
            .map(|id| (rename(name(id)), self.format(id).to_owned()))
            .filter_map(|(name, format)| Some((name?, format)))
            .collect();
        Some(grouped.in_formats(|id| format.get(&grouped.graph.device(id).name).map(String::as_str)))
    }

    /// A group as one device: its times divided, its memory that of each member.
    fn as_one(&self, group: &Group, name: &str) -> Option<Device> {
        let members = group.members.as_slice();
        let first = self.graph.device(*members.first()?);
        let (latency, bandwidth) = self.ring(members)?;
        let row = self.model.boundary_bytes_per_token().0 as f64;
        let sum = |of: &dyn Fn(&Device) -> Option<Figure<Watts>>| {
            let figure = of(first)?;
            Some(Figure { value: figure.value * members.len() as f64, ..figure })
        };
        let variants = self.variants();
        let profiles = variants.iter().filter_map(|variant| {
            let profile = variant.profile(members[0])?;
            let (parts, ways) = (members.len() as f64, members.len() as f64 - 1.0);
            let all_reduce = |tokens: f64| 2.0 * (ways * latency.value() + ways / parts * tokens * row / bandwidth);
            let experts = profile.experts.as_ref().filter(|_| group.parallel == Parallel::Experts);
            let share = experts
                .map_or(0.0, |experts| f64::from(experts.layers.min(self.layers())) / f64::from(self.layers().max(1)));
            let chosen = experts.map_or(0.0, |experts| f64::from(experts.per_token));
            let exchange =
                |tokens: f64| 2.0 * (ways * latency.value() + tokens / parts * chosen * ways / parts * row / bandwidth);
            let added = |tokens: f64| (2.0 - share) * all_reduce(tokens) + share * exchange(tokens);
            divided(profile, members.len() as u32, group.parallel, |tokens| Seconds::new(added(tokens)).ok())
        });
        Some(Device {
            name: name.to_owned(),
            class: format!("{} x{}", first.class, members.len()),
            uuid: None,
            pci: None,
            profiles: profiles.collect(),
            rates: Vec::new(),
            memory_bandwidth_bytes_per_second: None,
            compute_flops_per_second: None,
            idle_watts: sum(&|device| device.idle_watts.clone()),
            busy_watts: sum(&|device| device.busy_watts.clone()),
            power_points: first.power_points.iter().map(|point| point.of_devices(members.len())).collect(),
            thermal: None,
            governor: None,
            battery: None,
            ..first.clone()
        })
    }

    /// The problem that a plan speaks of, its groups being devices and every device in the format of its stage; and the
    /// plan in the terms of that problem. As they are, where nothing may be chosen or the choice is none that may be.
    #[must_use]
    pub fn spoken<'p>(&'p self, plan: &'p Plan) -> (Cow<'p, Self>, Cow<'p, Plan>) {
        let of_stage =
            |devices: &[String]| devices.iter().map(|name| self.graph.find(name)).collect::<Option<Vec<_>>>();
        let group = |stage: &Stage| Some(Group { members: of_stage(&stage.devices)?, parallel: stage.parallel });
        let together: Option<Vec<Group>> =
            plan.stages.iter().filter(|stage| stage.devices.len() > 1).map(group).collect();
        let alone = self.chosen(plan);
        let grouped = together.filter(|groups| !groups.is_empty()).and_then(|groups| alone.grouped_as(&groups));
        let Some(grouped) = grouped else { return (alone, Cow::Borrowed(plan)) };
        let mut renamed = plan.clone();
        for stage in renamed.stages.iter_mut().filter(|stage| stage.devices.len() > 1) {
            // A cap is for each device; a group draws what its members do.
            stage.power_cap_watts = stage.power_cap_watts.map(|cap| cap * stage.devices.len() as f64);
            stage.devices = vec![group_name(stage.devices.iter().map(String::as_str))];
            stage.parallel = Parallel::Tensor;
        }
        let chosen = grouped.chosen(&renamed).into_owned();
        (Cow::Owned(chosen), Cow::Owned(renamed))
    }
}

/// A profile of which each of `parts` devices does its part, with what adding up and exchanging a layer's results
/// takes; none where only whole steps were timed, of which nobody knows what divides.
fn divided(
    profile: &OperatorProfile,
    members: u32,
    parallel: Parallel,
    added: impl Fn(f64) -> Option<Seconds>,
) -> Option<OperatorProfile> {
    if profile.iterations.is_some() {
        return None;
    }
    let parts = f64::from(members);
    let grid = |whole: &Grid| {
        let seconds = whole.seconds().iter().map(|&time| time / parts).collect();
        Grid::new(whole.rows().to_vec(), whole.columns().to_vec(), seconds).ok()
    };
    let mut counts: Vec<u32> = profile.dense_seconds.knots().iter().map(|knot| knot.0).collect();
    if let [only] = counts[..] {
        counts.push(only.saturating_add(1));
    }
    let dense = counts.into_iter().map(|count| {
        let tokens = f64::from(count);
        Some((count, profile.dense_seconds.at(tokens) / parts + added(tokens)?))
    });
    let experts = profile.experts.clone().map(|experts| match parallel {
        Parallel::Tensor => Experts { width: experts.width.saturating_mul(members), ..experts },
        Parallel::Experts => Experts { devices: experts.devices.saturating_mul(members), ..experts },
    });
    Some(OperatorProfile {
        dense_seconds: Curve::new(dense.collect::<Option<_>>()?).ok()?,
        attention_prefill_seconds: grid(&profile.attention_prefill_seconds)?,
        attention_decode_seconds: grid(&profile.attention_decode_seconds)?,
        experts,
        // Nobody has measured what caches keep of a member's part.
        resident: None,
        ..profile.clone()
    })
}
