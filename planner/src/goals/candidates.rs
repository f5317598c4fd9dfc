//! The search for plans that cost little or reach goals.

use crate::assemble::{Found, Parts, assemble, certify};
use crate::budget::{Budget, GAP_NONE};
use crate::door::{self, passed, unused_for};
use crate::formulation::solve::{SolverFault, Verdict, solve};
use crate::formulation::spending::{Aim, Asked, SpendingProgram};
use crate::outcome::PlanError;
use crate::points::{self, Effort};
use crate::tables::{Intervals, Tables, interval};
use crate::throughput::network::Network;
use crate::throughput::replay::Carried;
use crate::throughput::twins;
use isotherm_core::plan::Plan;
use isotherm_core::power::Draw;
use isotherm_core::problem::{Objective, PlacementProblem, floor};
use isotherm_core::spending::Cost;
use isotherm_core::sustained::Envelope;

/// Programs solved for one batch, each with a smaller ratio or a higher floor.
const PROGRAMS_MAX: usize = 8;
/// Columns of a program worth solving.
const COLUMNS_MAX: usize = 40_000;
/// Branch-and-bound nodes of one program.
const NODES_MAX: u64 = 3_000;
/// Rounds in which one device more is left out.
const LEFT_OUT_MAX: usize = 4;
/// Devices up to which that is tried.
const LEFT_OUT_DEVICES_MAX: usize = 12;
/// Relative difference from the best up to which a plan's points are chosen stage by stage.
const NEAR: f64 = 0.05;
/// Share of the time that is left for the programs of one choice of points and one batch.
const POINTS_SHARE: f64 = 0.1;
/// Most devices that are told apart because they warm one another.
const WARM_MAX: usize = 16;

/// The best plan so far that reaches all goals.
pub(super) struct Best<'a> {
    problem: &'a PlacementProblem,
    envelope: Option<Envelope>,
    plan: Option<(Plan, f64)>,
    how: String,
}

impl<'a> Best<'a> {
    pub fn new(problem: &'a PlacementProblem) -> Self {
        let envelope = (!problem.limits.cold).then(|| Envelope::of(problem)).filter(|envelope| !envelope.is_empty());
        Self { problem, envelope, plan: None, how: String::new() }
    }

    /// Whether there is one.
    pub const fn holds(&self) -> bool {
        self.plan.is_some()
    }

    pub fn value(&self) -> Option<f64> {
        self.plan.as_ref().map(|(_, value)| *value)
    }

    /// The batch that it states.
    pub fn batch(&self) -> Option<u32> {
        self.plan.as_ref().and_then(|(plan, _)| plan.batch)
    }

    /// The plan, its value, and how it was found.
    pub fn into_plan(self) -> Option<(Plan, f64, String)> {
        self.plan.map(|(plan, value)| (plan, value, self.how))
    }

    /// A plan of the same placement by any objective; it is kept where it is better and the checker takes it. By which
    /// factor it misses the goal that it misses most; 1 where it reaches all.
    pub fn offer(&mut self, plan: Plan) -> Option<f64> {
        let problem = self.problem;
        let how = plan.certificate.as_ref().map_or_else(String::new, |certificate| certificate.method.clone());
        let (name, unit) = (problem.objective.name().to_owned(), problem.objective.unit().to_owned());
        let mut plan = Plan { objective_name: name, unit, certificate: None, ..plan };
        plan.batch = plan.batch.filter(|_| problem.objective.serves());
        let at_points = |effort| match &self.envelope {
            Some(envelope) => points::chosen(problem, plan.clone(), &envelope.ceilings, effort),
            None if points::matter(problem) => {
                points::chosen(problem, plan.clone(), &vec![1.0; problem.graph.devices().len()], effort)
            }
            None => Some(plan.clone()),
        };
        let mut plan = at_points(Effort::Alike)?;
        let (mut short, mut cost) = points::worth(problem, &plan)?;
        // What is near the best is looked at more closely.
        let near = |known: f64| cost <= known + NEAR * known.abs();
        let signed = |value: f64| if problem.objective.maximises() { -value } else { value };
        if points::matter(problem)
            && self.value().map(signed).is_none_or(near)
            && let Some(finer) = at_points(Effort::Each)
            && let Some(found) = points::worth(problem, &finer)
        {
            (plan, (short, cost)) = (finer, found);
        }
        let value = signed(cost);
        let better = |known: f64| if problem.objective.maximises() { value > known } else { value < known };
        if self.value().is_none_or(better) {
            // A goal, a pin or a limit that it misses makes it no plan.
            if certify(problem, plan.clone(), Found::nothing("search for goals")).is_ok() {
                (self.plan, self.how) = (Some((plan, value)), how);
            }
        }
        Some(short)
    }
}

/// A search for plans of one problem.
pub(super) struct Search<'a> {
    pub problem: &'a PlacementProblem,
    pub budget: &'a Budget<'a>,
    /// No plan is faster.
    pub most: Option<f64>,
}

impl Search<'_> {
    /// Offers what is found; gives a bound on all plans, on the solver's word, where there is one.
    pub fn run(&self, free: &PlacementProblem, best: &mut Best<'_>) -> Result<Option<f64>, PlanError> {
        let problem = self.problem;
        if !problem.objective.serves() {
            self.left_out(free, best)?;
            return Ok(None);
        }
        let known = self.of_known_cost(free);
        let variants = known.variants();
        let mut bound: Option<f64> = None;
        let mut whole = variants.len() == 1 && !problem.limits.partial && !problem.may_group();
        let better = |a: f64, b: f64| if problem.objective.maximises() { a.max(b) } else { a.min(b) };
        let mut open: usize = variants.iter().map(|variant| variant.batches().len()).sum();
        for variant in &variants {
            for batch in variant.batches() {
                let share = 1.0 / open.max(1) as f64;
                open -= 1;
                if self.budget.exhausted().is_some() {
                    whole = false;
                    break;
                }
                match self.budget.part(share, |budget| {
                    Search { problem: self.problem, budget, most: self.most }.in_batches(variant, batch, best)
                })? {
                    Some(found) => bound = Some(bound.map_or(found, |known| better(known, found))),
                    None => whole = false,
                }
            }
        }
        self.at_points(&known, best)?;
        if !best.holds() || variants.len() > 1 || problem.limits.partial || problem.may_group() {
            self.left_out(free, best)?;
        }
        Ok(bound.filter(|_| whole))
    }

    /// Plans for devices that are at one point for good: what their slower steps leave of requests in flight counts
    /// then.
    fn at_points(&self, known: &PlacementProblem, best: &mut Best<'_>) -> Result<(), PlanError> {
        if !points::matter(self.problem) {
            return Ok(());
        }
        let few = known.graph.devices().len() <= LEFT_OUT_DEVICES_MAX;
        for speeds in points::choices(known) {
            let (Some(fixed), Some(asked)) = (points::at(known, &speeds), points::at(self.problem, &speeds)) else {
                continue;
            };
            for variant in &fixed.variants() {
                let own = best.batch().filter(|_| !few);
                let batches = variant.batches().into_iter().filter(|&batch| own.is_none_or(|own| own == batch));
                for batch in batches.collect::<Vec<_>>() {
                    if self.budget.exhausted().is_some() {
                        return Ok(());
                    }
                    self.budget.part(POINTS_SHARE, |budget| {
                        let search = Search { problem: &asked, budget, most: self.most };
                        search.in_batches(variant, batch, best)
                    })?;
                }
            }
        }
        Ok(())
    }

    /// The problem without the devices of which something is not known that the objective or a goal asks for.
    fn of_known_cost(&self, free: &PlacementProblem) -> PlacementProblem {
        let goals = self.problem.limits.goals.iter().map(|goal| goal.figure);
        let figures: Vec<Objective> = goals.chain([self.problem.objective]).filter(|figure| figure.spends()).collect();
        let mut known = free.clone();
        for id in free.graph.device_ids() {
            if figures.iter().any(|&figure| free.cost(id, figure).is_none()) {
                known.limits.banned.push(free.graph.device(id).name.clone());
            }
        }
        known
    }

    /// The plans in batches of one size, and what bounds them.
    fn in_batches(
        &self,
        variant: &PlacementProblem,
        batch: u32,
        best: &mut Best<'_>,
    ) -> Result<Option<f64>, PlanError> {
        let problem = self.problem;
        let envelope = best.envelope.as_ref().map(|_| Envelope::of(problem));
        let limited = if envelope.is_some() { variant.sustained() } else { variant.clone() };
        let tables = Tables::new(&limited, false);
        let life = limited.life(batch);
        let network = Network::new(&tables, &life);
        let free = limited.at_duties(|_| Some(1.0));
        let cool: Vec<Intervals<f64>> = tables
            .kinds
            .iter()
            .map(|kind| {
                Intervals::of(tables.layers, |s, e| {
                    free.rate(kind.example, interval(s, e), &life).map_or(f64::MAX, |rate| rate.value())
                })
            })
            .collect();
        let costs = |figure: Objective| -> Vec<Cost> {
            let of = |c: &crate::tables::Candidate| limited.cost(c.id, figure);
            tables.candidates.iter().map(|c| of(c).unwrap_or(Cost { held: 0.0, worked: 0.0 })).collect()
        };
        let objective = problem.objective;
        let own = if objective.spends() { costs(objective) } else { Vec::new() };
        let most = self.most.unwrap_or_else(|| fastest(&network));
        let classes = self.classes(&tables, &network, &own, envelope.as_ref());
        let draws: Vec<Option<Draw>> = tables.candidates.iter().map(|c| limited.draw(c.id)).collect();
        let columns: usize = classes
            .iter()
            .map(|c| {
                let reach = &tables.kinds[tables.candidates[c[0]].kind].reach;
                let held = reach.iter().enumerate().map(|(s, e)| e - s).sum::<usize>();
                let pieces =
                    draws[c[0]].as_ref().filter(|draw| draw.has_points()).map_or(0, |draw| draw.pieces().count());
                held * (2 + pieces)
            })
            .sum();
        if most <= 0.0 || columns > COLUMNS_MAX {
            return Ok(None);
        }
        let mut limits: Vec<(Vec<Cost>, f64, bool)> = Vec::new();
        for goal in problem.limits.goals.iter().filter(|goal| goal.figure.spends()) {
            // In units of the cost for each unit of the rate.
            let unit = PlacementProblem::figure_of_cost(goal.figure, 1.0, 1.0);
            limits.push((costs(goal.figure), goal.limit / unit, goal.figure != Objective::MoneyPerHour));
        }
        let asked_floor = floor(&problem.limits.goals);
        let mut round = Round { search: self, tables: &tables, network: &network, batch };
        if asked_floor > most {
            return Ok(Some(round.nothing()));
        }
        let unit = PlacementProblem::figure_of_cost(objective, 1.0, 1.0);
        let ratio = matches!(objective, Objective::Energy | Objective::Money);
        let mut bound: Option<f64> = None;
        // By which factor more is asked than has to be, where ways or rounding made a plan miss its goals.
        let mut tight = 1.0_f64;
        for _ in 0..PROGRAMS_MAX {
            let limits: Vec<_> =
                limits.iter().map(|(costs, most, each)| (costs.clone(), most / tight, *each)).collect();
            let asked = Asked {
                classes: &classes,
                cool: &cool,
                costs: &own,
                draws: &draws,
                floor: asked_floor * tight,
                limits: &limits,
                envelope: envelope.as_ref(),
                most,
            };
            let aim = match (objective, best.value()) {
                (Objective::Throughput, _) => Aim::Rate,
                (_, Some(value)) if ratio => Aim::Beyond(value / unit),
                _ => Aim::Cost,
            };
            let before = best.value();
            let Some(solved) = round.solve(&asked, aim, best)? else {
                // Nothing is left in these batches.
                if tight <= 1.0 {
                    bound = Some(round.nothing());
                }
                break;
            };
            if tight <= 1.0 {
                bound = round.bound(&asked, aim, solved.bound, unit).or(bound);
            }
            let improved = best.value() != before;
            match solved.short {
                Some(short) if short > 1.0 && short.is_finite() => {
                    tight *= short * (1.0 + 0.5 * GAP_NONE);
                    if asked_floor * tight > most {
                        break;
                    }
                }
                _ if ratio && improved => {}
                _ => break,
            }
        }
        Ok(bound)
    }

    /// Devices that are alike in all that matters here.
    fn classes(
        &self,
        tables: &Tables<'_>,
        network: &Network,
        own: &[Cost],
        envelope: Option<&Envelope>,
    ) -> Vec<Vec<usize>> {
        let warm = envelope.filter(|envelope| !envelope.is_slack()).is_some() && tables.candidates.len() <= WARM_MAX;
        let goals: Vec<Objective> = self.problem.limits.goals.iter().map(|goal| goal.figure).collect();
        let mut classes: Vec<Vec<usize>> = Vec::new();
        for class in twins(tables, network) {
            let mut parts: Vec<Vec<usize>> = Vec::new();
            for device in class {
                let id = |device: usize| tables.candidates[device].id;
                let alike = |part: &&mut Vec<usize>| {
                    !warm
                        && own.get(part[0]) == own.get(device)
                        && tables.problem.draw(id(part[0])) == tables.problem.draw(id(device))
                        && goals.iter().all(|&figure| {
                            let cost = |device| tables.problem.cost(id(device), figure);
                            cost(part[0]) == cost(device)
                        })
                };
                match parts.iter_mut().find(alike) {
                    Some(part) => part.push(device),
                    None => parts.push(vec![device]),
                }
            }
            classes.extend(parts);
        }
        classes
    }

    /// Plans without one device more, again and again, as long as that is better.
    fn left_out(&self, free: &PlacementProblem, best: &mut Best<'_>) -> Result<(), PlanError> {
        if free.graph.devices().len() > LEFT_OUT_DEVICES_MAX {
            return Ok(());
        }
        let mut left = free.clone();
        for _ in 0..LEFT_OUT_MAX {
            let before = best.value();
            let mut next = None;
            for device in free.graph.devices().iter().map(|device| &device.name) {
                let gone = left.limits.banned.contains(device) || left.limits.pinned.contains(device);
                if gone || self.budget.exhausted().is_some() {
                    continue;
                }
                let mut fewer = left.clone();
                fewer.limits.banned.push(device.clone());
                let known = best.value();
                if let Some(found) = self.budget.part(0.1, |budget| door::plan(&fewer, budget))?.plan() {
                    best.offer(found.plan().clone());
                }
                if best.value() != known {
                    next = Some(fewer);
                }
            }
            match next.filter(|_| best.value() != before) {
                Some(fewer) => left = fewer,
                None => break,
            }
        }
        Ok(())
    }
}

fn fastest(network: &Network) -> f64 {
    let mut most = 0.0_f64;
    for rates in &network.stage {
        for start in 0..network.layers {
            for end in start + 1..=network.layers {
                most = most.max(rates.at(start, end));
            }
        }
    }
    // At most all of them side by side.
    most * network.pair.len() as f64
}

/// What a program gave.
struct Solved {
    /// No assignment is better, in the program's terms.
    bound: f64,
    /// By which factor the plan misses its goals; none without a plan.
    short: Option<f64>,
}

/// Programs for batches of one size.
struct Round<'a> {
    search: &'a Search<'a>,
    tables: &'a Tables<'a>,
    network: &'a Network,
    batch: u32,
}

impl Round<'_> {
    /// The bound where there is no plan.
    fn nothing(&self) -> f64 {
        if self.search.problem.objective.maximises() { 0.0 } else { f64::INFINITY }
    }

    /// Solves a program and offers its plan; none where it has no assignment that would be better.
    fn solve(&mut self, asked: &Asked<'_>, aim: Aim, best: &mut Best<'_>) -> Result<Option<Solved>, PlanError> {
        let program = SpendingProgram::new(self.tables, self.network, asked, aim);
        let budget =
            Budget { nodes_max: self.search.budget.nodes_max.min(NODES_MAX), progress: None, ..*self.search.budget };
        let worst = match (aim, best.value()) {
            (Aim::Beyond(_), _) => Some(0.0),
            (Aim::Cost, Some(value)) => Some(value / program.scale),
            (Aim::Rate, Some(value)) => Some(-value / asked.most),
            _ => None,
        };
        let relaxed = solve(&program.program.relaxed(), None, budget.solver_gap(), &budget)?;
        if relaxed.verdict == Verdict::Infeasible {
            return Ok(None);
        }
        if worst.is_some_and(|worst| relaxed.bound >= worst - 1e-9) {
            return Ok(Some(Solved { bound: relaxed.bound, short: None }));
        }
        let answer = solve(&program.program, None, budget.solver_gap().max(1e-7), &budget)?;
        if answer.verdict == Verdict::Infeasible {
            return Ok(None);
        }
        let bound = answer.bound.max(relaxed.bound);
        let Some(at) = answer.assignment else { return Ok(Some(Solved { bound, short: None })) };
        let (placement, paths) = program.read(self.network, &at);
        let rate = paths.iter().map(|path| path.rate).sum();
        let own = Carried { rate, paths };
        let mut reached = self.offer(&placement, &own, best)?;
        // What the placement carries at most may be worth more, or less.
        let flows = crate::throughput::Flows::new(self.tables, self.network);
        let carried = flows.carried(&placement)?;
        reached = [reached, self.offer(&placement, &carried, best)?].into_iter().flatten().reduce(f64::min);
        Ok(Some(Solved { bound, short: reached }))
    }

    fn offer(
        &self,
        placement: &[crate::latency::chains::Link],
        carried: &Carried,
        best: &mut Best<'_>,
    ) -> Result<Option<f64>, SolverFault> {
        if carried.paths.is_empty() || carried.rate <= 0.0 {
            return Ok(None);
        }
        let (stages, routes) = passed(placement, carried);
        let parts = Parts {
            unused: unused_for(
                self.tables,
                &stages,
                "no plan with it was found that costs less, or reaches what is asked",
            ),
            placement: stages,
            routes,
            bound: None,
            evidence: Vec::new(),
            method: "integer programs over positions, by what devices cost".to_owned(),
            solver: None,
            nodes: None,
            stopped: None,
            batch: Some(self.batch).filter(|_| self.tables.problem.knows_times()),
        };
        // A pin or a limit that it breaks makes it no plan.
        let Ok(outcome) = assemble(self.tables, parts) else { return Ok(None) };
        Ok(outcome.plan().and_then(|found| best.offer(found.plan().clone())))
    }

    /// What a program's bound says of all plans in these batches.
    fn bound(&self, asked: &Asked<'_>, aim: Aim, bound: f64, unit: f64) -> Option<f64> {
        if !bound.is_finite() {
            return None;
        }
        let scale: f64 = asked.costs.iter().map(|cost| cost.held + cost.worked).sum();
        match aim {
            Aim::Rate => Some((-bound * asked.most).max(0.0)),
            Aim::Cost if self.search.problem.objective == Objective::MoneyPerHour => Some(bound * scale),
            Aim::Cost => None,
            Aim::Beyond(ratio) => {
                // A plan below the ratio passes at least as much as pays for the cheapest device that it holds.
                let cheapest = asked.costs.iter().map(|cost| cost.held).fold(f64::INFINITY, f64::min);
                let least = asked.floor.max(cheapest / ratio);
                (least > 0.0).then(|| (ratio + bound.min(0.0) * scale / least) * unit)
            }
        }
    }
}
