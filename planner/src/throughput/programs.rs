//! The integer program over positions, from the best plan so far.

use super::network::Network;
use super::replay::Path;
use super::{BestFlow, Flows, Proof};
use crate::budget::Budget;
use crate::formulation::partial::PartialProgram;
use crate::formulation::positions::PositionProgram;
use crate::formulation::program::Program;
use crate::formulation::solve::{Answer, HIGHS, SolverFault, Verdict, solve};
use crate::latency::chains::Link;
use crate::tables::Tables;

/// Most columns of a program that is worth loading.
const COLUMNS_MAX: usize = 60_000;
/// The same where twins are told apart, which makes a program harder for its size.
const COLUMNS_SINGLE_MAX: usize = 20_000;

/// Candidates that any plan may exchange.
pub(crate) fn twins(tables: &Tables<'_>, network: &Network) -> Vec<Vec<usize>> {
    let n = tables.candidates.len();
    let same = |a: usize, b: usize| {
        let (x, y) = (tables.candidates[a], tables.candidates[b]);
        let others = || (0..n).filter(|&other| other != a && other != b);
        (x.kind, x.pool) == (y.kind, y.pool)
            && !(x.pinned || y.pinned)
            && network.source[a] == network.source[b]
            && network.sink[a] == network.sink[b]
            && network.pair[a][b] == network.pair[b][a]
            && network.stay.as_ref().is_none_or(|stay| {
                let alike = |o: usize| stay.pair[a][o] == stay.pair[b][o] && stay.pair[o][a] == stay.pair[o][b];
                let ends = (stay.source[a], stay.sink[a]) == (stay.source[b], stay.sink[b]);
                ends && stay.pair[a][b] == stay.pair[b][a] && others().all(alike)
            })
            && others().all(|o| network.pair[a][o] == network.pair[b][o] && network.pair[o][a] == network.pair[o][b])
            && network.shared.iter().all(|shared| {
                let has = |pair: (usize, usize)| shared.pairs.binary_search(&pair).is_ok();
                has((a, b)) == has((b, a)) && others().all(|o| has((a, o)) == has((b, o)) && has((o, a)) == has((o, b)))
            })
    };
    let mut classes: Vec<Vec<usize>> = Vec::new();
    for device in 0..n {
        match classes.iter_mut().find(|class| same(class[0], device)) {
            Some(class) => class.push(device),
            None => classes.push(vec![device]),
        }
    }
    classes
}

/// An integer program whose placements are plans.
enum Placements {
    Positions(PositionProgram),
    Partial(PartialProgram),
}

impl Placements {
    fn new(flows: &Flows<'_>, relieved: &Network, classes: Vec<Vec<usize>>, most: f64) -> Self {
        // One chain passes whole stages whatever the rule says.
        let partial = flows.tables.problem.limits.partial && flows.tables.problem.limits.stages_exact.is_none();
        if !partial {
            return Self::Positions(PositionProgram::new(flows.tables, relieved, classes, flows.hops, most));
        }
        Self::Partial(if relieved.binds() || flows.hops.is_some() {
            PartialProgram::routed(flows.tables, relieved, flows.hops, most)
        } else {
            PartialProgram::cover(flows.tables, relieved, classes, most)
        })
    }

    fn program(&self) -> &Program {
        match self {
            Self::Positions(program) => &program.program,
            Self::Partial(program) => &program.program,
        }
    }

    fn placement(&self, at: &[f64]) -> Vec<Link> {
        match self {
            Self::Positions(program) => program.placement(at),
            Self::Partial(program) => program.placement(at),
        }
    }

    fn assignment(&self, placement: &[Link], paths: &[Path]) -> Option<Vec<f64>> {
        match self {
            Self::Positions(program) => program.assignment(placement, paths),
            Self::Partial(_) => None,
        }
    }
}

/// The integer program, from the best plan so far: over classes of twins; and where limits between classes admit more
/// than their devices can do, over single devices.
pub(super) fn program(flows: &Flows<'_>, best: &mut BestFlow, budget: &Budget<'_>) -> Result<(), SolverFault> {
    let relieved = flows.network.clone().relieved(flows.tables, best.bound);
    let classes = twins(flows.tables, &relieved);
    let grouped = classes.iter().any(|members| members.len() > 1);
    run(flows, &relieved, classes, COLUMNS_MAX, best, budget)?;
    if grouped && best.bound > 0.0 && !best.closed() && best.stopped.is_none() && relieved.binds() {
        let single = (0..flows.tables.candidates.len()).map(|device| vec![device]).collect();
        run(flows, &relieved, single, COLUMNS_SINGLE_MAX, best, budget)?;
    }
    Ok(())
}

fn run(
    flows: &Flows<'_>,
    relieved: &Network,
    classes: Vec<Vec<usize>>,
    columns_max: usize,
    best: &mut BestFlow,
    budget: &Budget<'_>,
) -> Result<(), SolverFault> {
    let most = best.bound;
    let program = Placements::new(flows, relieved, classes, most);
    if program.program().columns.len() > columns_max {
        return Ok(());
    }
    let start = best.placement.as_ref().and_then(|(placement, carried)| program.assignment(placement, &carried.paths));
    let answer = solve(program.program(), start.as_deref(), budget.solver_gap(), budget)?;
    best.nodes += answer.nodes;
    if let Some(at) = &answer.assignment {
        let placement = program.placement(at);
        if flows.fits(&placement) && flows.pins(&placement) {
            let carried = flows.carried(&placement)?;
            best.offer(placement, carried, "integer program over positions");
        }
    }
    lower(best, &answer, most);
    Ok(())
}

/// Lowers the bound to what the solver says.
fn lower(best: &mut BestFlow, answer: &Answer, most: f64) {
    let bound = match answer.verdict {
        Verdict::Infeasible => 0.0,
        Verdict::Optimal => answer.bound * most,
        Verdict::Stopped(limit) => {
            best.stopped = Some(limit);
            answer.bound * most
        }
    };
    let bound = bound.max(best.rate());
    if bound < best.bound {
        best.lower(bound, Proof::Solver(HIGHS));
    }
}
