//! Hands a program to HiGHS (built by good_lp, finished natively for bound, gap, nodes and a starting point) or to
//! microlp.

use super::program::{Program, Relation};
use crate::budget::{Budget, COLUMN_NODES_MAX, Limit, SLICE_NODES};
use good_lp::solvers::highs::highs as on_highs;
use good_lp::{Expression, ProblemVariables, SolverModel, constraint, variable};
use highs::{HighsModelStatus, HighsSolutionStatus, Model};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// Seed of every HiGHS run.
const SEED: i32 = 1;

/// Name and version of the solver, as certificates state it.
pub(crate) const HIGHS: &str = "HiGHS 1.15 (one thread, seed 1)";

/// What a solver says about a program.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    /// The best assignment found.
    pub assignment: Option<Vec<f64>>,
    /// No assignment is better than this; infinite where nothing is known.
    pub bound: f64,
    /// Branch-and-bound nodes.
    pub nodes: u64,
    /// Entries of the program looked at, about.
    pub work: u64,
    /// What the solver concluded.
    pub verdict: Verdict,
    /// Row duals of a continuous program: change of the objective per unit of a row's right side.
    pub duals: Vec<f64>,
}

/// How a search ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The assignment is the best, within the gap asked for.
    Optimal,
    /// There is no assignment.
    Infeasible,
    /// A limit came first.
    Stopped(Limit),
}

/// A solver that failed on a program: a fault of the formulation or the solver, never of the scenario.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SolverFault {
    /// The program could not be loaded or an option was refused.
    #[error("the solver refused a program of {columns} columns and {rows} rows: {what}")]
    Refused {
        /// Columns of the program.
        columns: usize,
        /// Rows of the program.
        rows: usize,
        /// What it said.
        what: String,
    },
    /// It ended in a state that answers nothing.
    #[error("the solver ended a program of {columns} columns and {rows} rows in the state {state}")]
    State {
        /// Columns of the program.
        columns: usize,
        /// Rows of the program.
        rows: usize,
        /// The state.
        state: String,
    },
}

/// Work of a call of HiGHS, whatever the program.
const CALL_WORK: u64 = 10_000;
/// The same by entry, row and column of the program, where all columns are continuous, and where some are whole: cuts,
/// presolve and searches for a first assignment.
const LOAD_WORK: u64 = 100;
const ROOT_WORK: u64 = 2_500;
/// Nodes that take about as much as the root.
const ROOT_NODES: u64 = 8;

/// Entries, rows and columns of a program.
fn size(program: &Program) -> u64 {
    let entries: usize = program.rows.iter().map(|row| row.terms.len()).sum();
    (entries + program.rows.len() + program.columns.len()) as u64
}

/// What the root of an integer program takes, about: as many pivots as there are rows and columns.
fn root_work(program: &Program) -> u64 {
    let (size, edges) = (size(program), (program.rows.len() + program.columns.len()) as u64);
    CALL_WORK + ROOT_WORK * size + size.saturating_mul(edges)
}

/// Nodes that so much work is enough for, about: at least one, or none where it is not enough for the root.
fn affordable(program: &Program, work: u64) -> Option<u64> {
    let root = root_work(program);
    work.checked_sub(root).map(|rest| 1 + rest / (root / ROOT_NODES).max(1))
}

/// Solves with HiGHS, in slices of doubling node limits (see [`SLICE_NODES`]), from `start` where given: a value for
/// every column, because HiGHS takes those left out as zero. `gap` is the relative gap that ends the search.
pub(crate) fn solve(
    program: &Program,
    start: Option<&[f64]>,
    gap: f64,
    budget: &Budget<'_>,
) -> Result<Answer, SolverFault> {
    let integer = program.columns.iter().any(|c| c.integer);
    let mut start = start.map(<[f64]>::to_vec);
    let mut nodes_max = budget.nodes_max.min(COLUMN_NODES_MAX / program.columns.len().max(1) as u64).max(1);
    let mut slice = SLICE_NODES.min(nodes_max);
    let (mut bound, mut nodes) = (unknown(program), 0_u64);
    loop {
        if let Some(limit) = budget.exhausted() {
            return Ok(stopped(start, (bound, nodes), limit));
        }
        // HiGHS cannot be asked to stop after so much work, so that a slice is as long as there is work left for.
        if integer && let Some(left) = budget.work_left() {
            let Some(nodes) = affordable(program, left) else {
                return Ok(stopped(start, (bound, nodes), Limit::Nodes));
            };
            if nodes < slice {
                (slice, nodes_max) = (nodes, nodes);
            }
        }
        let Some(answer) = watched(program, start.as_deref(), gap, slice, budget) else { continue };
        let mut answer = answer?;
        budget.did(answer.work);
        nodes += answer.nodes;
        answer.nodes = nodes;
        bound = if program.maximise { bound.min(answer.bound) } else { bound.max(answer.bound) };
        answer.bound = bound;
        if program.unit > 0.0 {
            let outside = |value: f64| value * program.unit;
            let incumbent = answer.assignment.as_ref().map(|at| outside(program.value(at)));
            budget.report(incumbent, Some(bound).filter(|b| b.is_finite()).map(outside));
        }
        let spent = slice >= nodes_max;
        match answer.verdict {
            Verdict::Stopped(Limit::Nodes) if integer && !spent => {
                start = answer.assignment;
                slice = (2 * slice).min(nodes_max);
            }
            _ => return Ok(answer),
        }
    }
}

/// What is known where a limit comes first.
fn stopped(assignment: Option<Vec<f64>>, (bound, nodes): (f64, u64), limit: Limit) -> Answer {
    Answer { assignment, bound, nodes, work: 0, verdict: Verdict::Stopped(limit), duals: Vec::new() }
}

/// How often an interrupt is looked for while HiGHS runs.
const LOOK: Duration = Duration::from_millis(20);
/// Columns of a continuous program up to which nobody would notice the wait for it.
const BRIEF_COLUMNS: usize = 2_000;
/// Columns of a continuous program from which on presolve pays.
const PRESOLVED_COLUMNS: usize = 5_000;
/// Stack of the thread that it runs on, as large as a main thread's.
const STACK: usize = 8 << 20;

/// One run; none where an interrupt came meanwhile. HiGHS hears of interrupts by a callback in C alone, so where one may
/// come it runs on a thread of its own, and what nobody waits for any more is left to its limits.
fn watched(
    program: &Program,
    start: Option<&[f64]>,
    gap: f64,
    nodes_max: u64,
    budget: &Budget<'_>,
) -> Option<Result<Answer, SolverFault>> {
    let seconds = budget.seconds_left();
    let brief = program.columns.len() <= BRIEF_COLUMNS && !program.columns.iter().any(|column| column.integer);
    let Some(interrupt) = budget.interrupt.filter(|_| !brief) else {
        return Some(run(program, start, gap, nodes_max, seconds));
    };
    let (tell, told) = channel();
    let (own, from) = (program.clone(), start.map(<[f64]>::to_vec));
    let search = move || {
        // Nobody listens after an interrupt.
        let _ = tell.send(run(&own, from.as_deref(), gap, nodes_max, seconds));
    };
    let Ok(thread) = std::thread::Builder::new().name("highs".to_owned()).stack_size(STACK).spawn(search) else {
        return Some(run(program, start, gap, nodes_max, seconds));
    };
    loop {
        match told.recv_timeout(LOOK) {
            Ok(answer) => {
                // It has said all it had to say.
                let _ = thread.join();
                return Some(answer);
            }
            Err(RecvTimeoutError::Timeout) if interrupt.load(Ordering::Relaxed) => return None,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => match thread.join() {
                Err(panic) => std::panic::resume_unwind(panic),
                Ok(()) => return Some(run(program, start, gap, nodes_max, seconds)),
            },
        }
    }
}

/// Solves with HiGHS in one run that time alone ends, as other planners use their solver; deaf to interrupts meanwhile.
pub(crate) fn solve_once(
    program: &Program,
    start: Option<&[f64]>,
    gap: f64,
    budget: &Budget<'_>,
) -> Result<Answer, SolverFault> {
    let answer = run(program, start, gap, u64::MAX, budget.seconds_left())?;
    if answer.verdict == Verdict::Stopped(Limit::Time) {
        budget.by_clock();
    }
    Ok(answer)
}

/// The bound that says nothing.
fn unknown(program: &Program) -> f64 {
    if program.maximise { f64::INFINITY } else { f64::NEG_INFINITY }
}

fn load(program: &Program) -> Result<Model, SolverFault> {
    let mut variables = ProblemVariables::new();
    let columns: Vec<_> = program
        .columns
        .iter()
        .map(|c| {
            let definition = variable().min(c.lower).max(c.upper);
            variables.add(if c.integer { definition.integer() } else { definition })
        })
        .collect();
    let sum = |terms: &mut dyn Iterator<Item = (usize, f64)>| {
        let mut expression = Expression::with_capacity(terms.size_hint().0);
        terms.for_each(|(column, factor)| expression.add_mul(factor, columns[column]));
        expression
    };
    let objective = sum(&mut program.columns.iter().enumerate().map(|(i, c)| (i, c.cost)).filter(|t| t.1 != 0.0));
    let unsolved = if program.maximise { variables.maximise(objective) } else { variables.minimise(objective) };
    let mut model = unsolved.using(on_highs);
    for row in &program.rows {
        let left = sum(&mut row.terms.iter().copied());
        model.add_constraint(match row.relation {
            Relation::AtMost => constraint::leq(left, row.right),
            Relation::AtLeast => constraint::geq(left, row.right),
            Relation::Equal => constraint::eq(left, row.right),
        });
    }
    model.try_into_inner().map_err(|error| refused(program, error.to_string()))
}

fn refused(program: &Program, what: String) -> SolverFault {
    SolverFault::Refused { columns: program.columns.len(), rows: program.rows.len(), what }
}

fn run(
    program: &Program,
    start: Option<&[f64]>,
    gap: f64,
    nodes_max: u64,
    seconds: Option<f64>,
) -> Result<Answer, SolverFault> {
    // good_lp forgets options and the starting point when it hands the model over, so both are set here.
    let mut model = load(program)?;
    let integer = program.columns.iter().any(|c| c.integer);
    let nodes_max = i32::try_from(nodes_max).unwrap_or(i32::MAX);
    let mut set = || {
        model.try_set_option("threads", 1)?;
        model.try_set_option("parallel", "off")?;
        model.try_set_option("random_seed", SEED)?;
        // Continuous programs are many and small here: presolve takes longer than the pivots that it saves.
        if !integer && program.columns.len() <= PRESOLVED_COLUMNS {
            model.try_set_option("presolve", "off")?;
        }
        model.try_set_option("mip_rel_gap", gap)?;
        model.try_set_option("mip_abs_gap", 0.0)?;
        model.try_set_option("mip_max_nodes", nodes_max)?;
        // At the default of 1e-6 a bound is off by as much as the gap that counts as none; at 1e-9 HiGHS 1.15 has been
        // seen to call a plan optimal that is 1.4 % worse than the best.
        model.try_set_option("mip_feasibility_tolerance", 1e-7)?;
        seconds.map_or(Ok(()), |limit| model.try_set_option("time_limit", limit))
    };
    set().map_err(|_| refused(program, "an option".to_owned()))?;
    if let Some(at) = start.filter(|_| integer) {
        model.try_set_solution(Some(at), None, None, None).map_err(|e| refused(program, format!("a start: {e:?}")))?;
    }
    let solved = model.try_solve().map_err(|e| refused(program, format!("{e:?}")))?;
    let state = solved.status();
    let verdict = match state {
        HighsModelStatus::Optimal | HighsModelStatus::ModelEmpty => Verdict::Optimal,
        HighsModelStatus::Infeasible | HighsModelStatus::UnboundedOrInfeasible => Verdict::Infeasible,
        HighsModelStatus::ReachedTimeLimit => Verdict::Stopped(Limit::Time),
        HighsModelStatus::ReachedSolutionLimit | HighsModelStatus::ReachedIterationLimit => {
            Verdict::Stopped(Limit::Nodes)
        }
        HighsModelStatus::ReachedInterrupt => Verdict::Stopped(Limit::Interrupt),
        other => {
            let (columns, rows) = (program.columns.len(), program.rows.len());
            return Err(SolverFault::State { columns, rows, state: format!("{other:?}") });
        }
    };
    // Read as a number: a model that presolve decides has a status that the enum of `highs` does not know.
    let primal = solved.int_info_value(c"primal_solution_status").unwrap_or(-1);
    let found = primal == HighsSolutionStatus::Feasible as i64 && verdict != Verdict::Infeasible;
    let solution = solved.get_solution();
    let assignment = found.then(|| solution.columns().to_vec());
    let bound = match verdict {
        Verdict::Optimal if !integer => solved.objective_value(),
        Verdict::Optimal | Verdict::Stopped(_) if integer => {
            solved.double_info_value(c"mip_dual_bound").ok().filter(|b| b.is_finite()).unwrap_or(unknown(program))
        }
        _ => unknown(program),
    };
    let nodes = solved.int_info_value(c"mip_node_count").ok().and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
    let pivots =
        solved.int_info_value(c"simplex_iteration_count").ok().and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
    let work = CALL_WORK + size(program) * (pivots + if integer { ROOT_WORK } else { LOAD_WORK });
    let duals = if integer { Vec::new() } else { solution.dual_rows().to_vec() };
    Ok(Answer { assignment, bound, nodes, work, verdict, duals })
}

/// Solves a small program with microlp, to its optimum: the second opinion.
#[cfg(test)]
pub(crate) fn second_opinion(program: &Program) -> Result<Option<f64>, String> {
    use microlp::{ComparisonOp, Error, OptimizationDirection, Problem};
    let direction = if program.maximise { OptimizationDirection::Maximize } else { OptimizationDirection::Minimize };
    let mut problem = Problem::new(direction);
    let columns: Vec<_> = program
        .columns
        .iter()
        .map(|c| {
            if c.integer {
                problem.add_integer_var(c.cost, (c.lower as i32, c.upper as i32))
            } else {
                problem.add_var(c.cost, (c.lower, c.upper))
            }
        })
        .collect();
    for row in &program.rows {
        let terms: Vec<_> = row.terms.iter().map(|&(column, factor)| (columns[column], factor)).collect();
        let relation = match row.relation {
            Relation::AtMost => ComparisonOp::Le,
            Relation::Equal => ComparisonOp::Eq,
            Relation::AtLeast => ComparisonOp::Ge,
        };
        problem.add_constraint(terms, relation, row.right);
    }
    match problem.solve() {
        Ok(outcome) => outcome.into_solution().map(|s| Some(s.objective())).map_err(|_| "interrupted".to_owned()),
        Err(Error::Infeasible) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Work;

    /// Items of a knapsack: value, weight.
    const ITEMS: [(f64, f64); 6] = [(10.0, 5.0), (4.0, 3.0), (7.0, 4.0), (3.0, 2.0), (8.0, 6.0), (1.0, 1.0)];

    fn knapsack(room: f64) -> Program {
        let mut program = Program { maximise: true, ..Program::default() };
        let terms = ITEMS.iter().map(|&(value, weight)| (program.column(value, 0.0, 1.0, true), weight)).collect();
        program.row(terms, Relation::AtMost, room);
        program
    }

    fn enumerated(room: f64) -> f64 {
        (0_u32..1 << ITEMS.len())
            .filter_map(|set| {
                let chosen = || ITEMS.iter().enumerate().filter(|(i, _)| set >> i & 1 == 1).map(|(_, item)| item);
                let weight: f64 = chosen().map(|i| i.1).sum();
                (weight <= room).then(|| chosen().map(|i| i.0).sum::<f64>())
            })
            .fold(0.0, f64::max)
    }

    #[test]
    fn both_solvers_find_what_enumeration_finds() {
        for room in [0.0, 1.0, 5.0, 7.0, 11.0, 16.0, 21.0] {
            let program = knapsack(room);
            let answer = solve(&program, None, 0.0, &Budget::default()).expect("a well-formed program");
            let at = answer.assignment.expect("nothing at all is an assignment");
            assert_eq!(answer.verdict, Verdict::Optimal);
            assert!(program.violation(&at) < 1e-6);
            assert!((program.value(&at) - enumerated(room)).abs() < 1e-6, "room {room}");
            assert!((answer.bound - enumerated(room)).abs() < 1e-6, "room {room}: bound {}", answer.bound);
            assert!((second_opinion(&program).expect("solves").expect("feasible") - enumerated(room)).abs() < 1e-6);
        }
    }

    #[test]
    fn what_cannot_be_is_infeasible_for_both() {
        let mut program = knapsack(5.0);
        program.row(vec![(0, 1.0), (2, 1.0)], Relation::Equal, 2.0);
        assert_eq!(solve(&program, None, 0.0, &Budget::default()).expect("runs").verdict, Verdict::Infeasible);
        assert_eq!(second_opinion(&program), Ok(None));
    }

    #[test]
    fn the_duals_of_a_continuous_program_price_its_rows() {
        // max 3x + 2y, x + y <= 4, x <= 3: one more unit of the first row is worth 2, of the second 1.
        let mut program = Program { maximise: true, ..Program::default() };
        let (x, y) = (program.column(3.0, 0.0, f64::INFINITY, false), program.column(2.0, 0.0, f64::INFINITY, false));
        program.row(vec![(x, 1.0), (y, 1.0)], Relation::AtMost, 4.0);
        program.row(vec![(x, 1.0)], Relation::AtMost, 3.0);
        let answer = solve(&program, None, 0.0, &Budget::default()).expect("solves");
        assert!((answer.bound - 11.0).abs() < 1e-9);
        assert!((answer.duals[0] - 2.0).abs() < 1e-9 && (answer.duals[1] - 1.0).abs() < 1e-9, "{:?}", answer.duals);
    }

    #[test]
    fn an_interrupt_is_heard_while_the_solver_runs() {
        // A knapsack of equal ratios, which takes branch and bound for ever.
        let mut program = Program { maximise: true, ..Program::default() };
        let terms = (0..60).map(|i| (program.column(f64::from(1001 + 2 * i), 0.0, 1.0, true), f64::from(1001 + 2 * i)));
        let terms = terms.collect();
        program.row(terms, Relation::AtMost, 30_001.5);
        program.row(vec![(0, 1.0), (1, 1.0), (2, 1.0)], Relation::AtMost, 2.0);
        let raised = std::sync::atomic::AtomicBool::new(false);
        let budget = Budget { interrupt: Some(&raised), nodes_max: u64::MAX, ..Budget::default() };
        let answer = std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(100));
                raised.store(true, Ordering::Relaxed);
            });
            solve(&program, None, 0.0, &budget)
        });
        // A quick machine may have ended before.
        let verdict = answer.expect("runs").verdict;
        assert!(matches!(verdict, Verdict::Stopped(Limit::Interrupt) | Verdict::Optimal), "{verdict:?}");
    }

    #[test]
    fn an_integer_program_is_begun_only_with_work_left_for_its_root_and_much_of_it_changes_nothing() {
        let mut program = Program { maximise: true, ..Program::default() };
        let columns: Vec<usize> = (0..40).map(|i| program.column(f64::from(7 + i % 5), 0.0, 3.0, true)).collect();
        let weights = columns.iter().map(|&x| (x, 5.0 + (x % 7) as f64)).collect();
        program.row(weights, Relation::AtMost, 211.0);
        let within = |nodes: u64| {
            let work = Work::of_nodes(nodes);
            let budget = Budget { work: Some(&work), ..Budget::default() };
            solve(&program, None, 0.0, &budget).expect("it is solved")
        };
        let none = within(1);
        assert_eq!((none.verdict, none.assignment), (Verdict::Stopped(Limit::Nodes), None));
        assert!(within(2).assignment.is_some(), "enough for the root");
        let free = solve(&program, None, 0.0, &Budget::default()).expect("it is solved");
        assert_eq!(free.verdict, Verdict::Optimal);
        assert_eq!(within(20_000), free);
    }

    #[test]
    fn a_spent_budget_keeps_the_starting_point() {
        use isotherm_core::units::Seconds;
        let spent = || Seconds::ZERO;
        let budget = Budget { remaining: Some(&spent), ..Budget::default() };
        let answer = solve(&knapsack(5.0), Some(&[1.0, 0.0, 0.0, 0.0, 0.0, 0.0]), 0.0, &budget).expect("runs");
        assert_eq!(answer.verdict, Verdict::Stopped(Limit::Time));
        assert_eq!(answer.assignment.as_deref(), Some([1.0, 0.0, 0.0, 0.0, 0.0, 0.0].as_slice()));
    }
}
