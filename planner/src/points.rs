//! Operating points of the devices of a plan: how fast each stage works, so that the plan is worth most within heat,
//! power and its goals.
//!
//! A slower point takes less power for each piece of work, and a request stays longer; what a plan is worth at points
//! is therefore found by valuing it. Few points are all tried; of many, all stages alike, and then stage by stage as
//! long as that helps. A stage may also be just as fast as its work asks for, which loses nothing where it waits for
//! others. What bounds all plans bounds them at any points, see `isotherm_core::power`. Which devices hold what depends
//! on their points too; so plans are also sought for problems in which whole classes are at one point for good.

use crate::sustained::{fits_at, slowed};
use isotherm_core::graph::DeviceGraph;
use isotherm_core::ids::DeviceId;
use isotherm_core::objective::evaluate;
use isotherm_core::plan::Plan;
use isotherm_core::power::Draw;
use isotherm_core::problem::{PlacementProblem, floor};
use isotherm_core::spending::figure;
use isotherm_core::sustained::works;

/// Most ways to choose points that are all tried.
const ALL_MAX: usize = 256;
/// Most plans that are valued else.
const VALUED_MAX: usize = 600;
/// Most points of a device that are tried: so many of its table, evenly.
const OPTIONS_MAX: usize = 12;
/// Most ways to give classes of devices their points that are planned for.
const CHOICES_MAX: usize = 16;
/// Least relative gain that is one.
const GAIN: f64 = 1e-9;

/// How much is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    /// All stages alike.
    Alike,
    /// Each stage by itself.
    Each,
}

/// By which factor a plan misses the goal that it misses most, 1 where it reaches all, and its value, less being
/// better. None where it cannot be valued.
pub(crate) fn worth(problem: &PlacementProblem, plan: &Plan) -> Option<(f64, f64)> {
    let short = problem.limits.goals.iter().map(|goal| {
        let found = figure(plan, problem, goal.figure).unwrap_or(0.0);
        let short = if goal.figure.maximises() { goal.limit / found } else { found / goal.limit };
        if goal.reached(Some(found)) { 1.0 } else { short }
    });
    let short = short.fold(1.0, f64::max);
    let value = evaluate(plan, problem).value(problem.objective)?;
    Some((short, if problem.objective.maximises() { -value } else { value }))
}

/// The plan at the best points found, none faster than `ceilings`; slowed as far as heat and power ask for it, valued,
/// and without certificate. None where it cannot be valued, or does not fit at any speed.
pub(crate) fn chosen(problem: &PlacementProblem, plan: Plan, ceilings: &[f64], effort: Effort) -> Option<Plan> {
    let first = slowed(problem, plan.clone(), ceilings);
    // Full speed is the best where it fits and nobody asks what it costs.
    if !problem.has_points() || (!matter(problem) && fits_at(problem, &plan, ceilings)) {
        return first;
    }
    let mut search = Search { problem, plan, ceilings, best: None, valued: 0 };
    search.take(first);
    search.run(effort);
    search.best.map(|(plan, ..)| plan)
}

/// The problem with every device at one point for good: so much slower, drawing so much less, and nothing left to
/// choose. Its plans are plans of the problem, whose stages are as fast.
pub(crate) fn at(problem: &PlacementProblem, speeds: &[f64]) -> Option<PlacementProblem> {
    let mut file = problem.graph.file().clone();
    for (id, device) in problem.graph.device_ids().zip(&mut file.devices) {
        if let (Some(draw), Some(busy)) = (problem.draw(id), device.busy_watts.as_mut()) {
            busy.value = draw.power(speeds[id.index()]);
        }
        device.power_points.clear();
    }
    let mut fixed = problem.at_speeds(|id| Some(problem.speed(id) * speeds[id.index()]));
    fixed.graph = DeviceGraph::new(file).ok()?;
    Some(fixed)
}

/// Ways to give all devices of a class one of their points, beside full speed for all: every way where there are few,
/// else those in which all are as many points down. None where no usable device has points.
pub(crate) fn choices(problem: &PlacementProblem) -> Vec<Vec<f64>> {
    let devices = problem.graph.devices();
    let mut classes: Vec<(Vec<usize>, Vec<f64>)> = Vec::new();
    for id in problem.graph.device_ids().filter(|&id| problem.usable(id)) {
        let Some(draw) = problem.draw(id).filter(Draw::has_points) else { continue };
        let mut speeds: Vec<f64> = draw.speeds().filter(|&speed| speed >= draw.thriftiest()).collect();
        speeds.push(1.0);
        speeds.reverse();
        let same = |class: &&mut (Vec<usize>, Vec<f64>)| {
            devices[class.0[0]].class == devices[id.index()].class && class.1 == speeds
        };
        match classes.iter_mut().find(same) {
            Some((members, _)) => members.push(id.index()),
            None => classes.push((vec![id.index()], speeds)),
        }
    }
    let ways = classes
        .iter()
        .try_fold(1_usize, |ways, (_, speeds)| ways.checked_mul(speeds.len()).filter(|&ways| ways <= CHOICES_MAX));
    let down = classes.iter().map(|(_, speeds)| speeds.len()).max().unwrap_or(1);
    let given = |option: &dyn Fn(usize, usize) -> usize| {
        let mut chosen = vec![1.0; devices.len()];
        for (i, (members, speeds)) in classes.iter().enumerate() {
            members.iter().for_each(|&device| chosen[device] = speeds[option(i, speeds.len()).min(speeds.len() - 1)]);
        }
        chosen
    };
    match ways {
        Some(ways) => (1..ways)
            .map(|way| {
                given(&|class, options| {
                    let before: usize = classes[..class].iter().map(|(_, speeds)| speeds.len()).product();
                    way / before % options
                })
            })
            .collect(),
        None => (1..down).map(|at| given(&|_, _| at)).collect(),
    }
}

struct Search<'a> {
    problem: &'a PlacementProblem,
    plan: Plan,
    ceilings: &'a [f64],
    best: Option<(Plan, (f64, f64), Vec<f64>)>,
    valued: usize,
}

impl Search<'_> {
    fn run(&mut self, effort: Effort) {
        let options = self.options();
        let chosen: Vec<usize> = (0..options.len()).filter(|&device| options[device].len() > 1).collect();
        if chosen.is_empty() {
            return;
        }
        let most = chosen.iter().map(|&device| options[device].len()).max().unwrap_or(1);
        let mut alike: Vec<f64> = self.ceilings.to_vec();
        for at in 1..most {
            for &device in &chosen {
                alike[device] = options[device][at.min(options[device].len() - 1)];
            }
            self.offer(&alike);
        }
        self.unhurried(&chosen);
        if effort == Effort::Alike {
            return;
        }
        let ways = chosen
            .iter()
            .try_fold(1_usize, |ways, &device| ways.checked_mul(options[device].len()).filter(|&ways| ways <= ALL_MAX));
        if ways.is_some() {
            self.all(&chosen, &options);
        }
        self.descend(&chosen, &options);
    }

    /// The speeds that are tried of each device, fastest first; its ceiling alone where nothing is known or chosen.
    fn options(&self) -> Vec<Vec<f64>> {
        let graph = &self.problem.graph;
        let of = |id: DeviceId| {
            let (name, ceiling) = (&graph.device(id).name, self.ceilings[id.index()]);
            let holds = self.plan.stages.iter().any(|stage| stage.devices.contains(name));
            let slower: Vec<f64> = self
                .problem
                .draw(id)
                .filter(|_| holds)
                .map_or_else(Vec::new, |draw| draw.speeds().filter(|&speed| speed < ceiling).collect());
            let step = slower.len().div_ceil(OPTIONS_MAX).max(1);
            // The slowest is always among them.
            let some = slower.iter().copied().step_by(step).collect::<Vec<_>>();
            std::iter::once(ceiling).chain(some.into_iter().rev()).collect()
        };
        graph.device_ids().map(of).collect()
    }

    /// Every way to choose points.
    fn all(&mut self, chosen: &[usize], options: &[Vec<f64>]) {
        let mut at = vec![0; chosen.len()];
        loop {
            let mut speeds = self.ceilings.to_vec();
            for (&device, &option) in chosen.iter().zip(&at) {
                speeds[device] = options[device][option];
            }
            self.offer(&speeds);
            let Some(next) = (0..at.len()).find(|&i| at[i] + 1 < options[chosen[i]].len()) else { return };
            at[next] += 1;
            at[..next].fill(0);
        }
    }

    /// Each device no faster than its work asks for, and no slower than where work takes least power.
    fn unhurried(&mut self, chosen: &[usize]) {
        let Some((best, _, speeds)) = self.best.clone() else { return };
        let Some(works) = works(&best, self.problem) else { return };
        // Down to the least rate that is asked for.
        let rate = evaluate(&best, self.problem).throughput.map_or(0.0, |rate| rate.value());
        let asked = floor(&self.problem.limits.goals);
        let shares = [Some(1.0), Some(asked / rate).filter(|share| (0.0..1.0).contains(share))];
        for share in shares.into_iter().flatten() {
            let mut slower = speeds.clone();
            for &device in chosen {
                let id = self.problem.graph.find(&self.problem.graph.devices()[device].name);
                let least = id.and_then(|id| self.problem.draw(id)).map_or(0.0, |draw| draw.thriftiest());
                let needed = works[device] * share * (1.0 + GAIN);
                slower[device] = least.max(needed).min(self.ceilings[device]).max(1e-3);
            }
            self.offer(&slower);
        }
    }

    /// Device by device, and those of a class together, as long as it helps.
    fn descend(&mut self, chosen: &[usize], options: &[Vec<f64>]) {
        let problem = self.problem;
        let class = |device: usize| &problem.graph.devices()[device].class;
        let mut sets: Vec<Vec<usize>> = Vec::new();
        for &device in chosen {
            match sets.iter_mut().find(|set| class(set[0]) == class(device)) {
                Some(set) => set.push(device),
                None => sets.push(vec![device]),
            }
        }
        sets.retain(|set| set.len() > 1);
        sets.extend(chosen.iter().map(|&device| vec![device]));
        loop {
            let before = self.best.as_ref().map(|best| best.1);
            for set in &sets {
                for option in 0..options[set[0]].len() {
                    let Some((.., speeds)) = &self.best else { return };
                    let mut other = speeds.clone();
                    set.iter()
                        .for_each(|&device| other[device] = options[device][option.min(options[device].len() - 1)]);
                    if other != *speeds {
                        self.offer(&other);
                    }
                    if self.valued >= VALUED_MAX {
                        return;
                    }
                }
            }
            self.unhurried(chosen);
            if self.best.as_ref().map(|best| best.1) == before {
                return;
            }
        }
    }

    fn offer(&mut self, speeds: &[f64]) {
        let speeds: Vec<f64> = speeds.iter().zip(self.ceilings).map(|(speed, most)| speed.min(*most)).collect();
        let found = slowed(self.problem, self.plan.clone(), &speeds);
        self.take_at(found, speeds);
    }

    fn take(&mut self, found: Option<Plan>) {
        let speeds = self.ceilings.to_vec();
        self.take_at(found, speeds);
    }

    fn take_at(&mut self, found: Option<Plan>, speeds: Vec<f64>) {
        self.valued += 1;
        let Some(plan) = found else { return };
        let Some(worth) = worth(self.problem, &plan) else { return };
        let gains = |known: f64, new: f64| new < known - GAIN * known.abs();
        let better =
            |known: (f64, f64)| gains(known.0, worth.0) || (!gains(worth.0, known.0) && gains(known.1, worth.1));
        if self.best.as_ref().is_none_or(|best| better(best.1)) {
            self.best = Some((plan, worth, speeds));
        }
    }
}

/// Whether points matter for what a plan costs.
pub(crate) fn matter(problem: &PlacementProblem) -> bool {
    let asked = problem.limits.goals.iter().map(|goal| goal.figure).chain([problem.objective]);
    problem.has_points() && asked.into_iter().any(|figure| figure.spends())
}
