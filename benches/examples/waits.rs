//! What plans are worth against what they come to in simulation while the load is steady, one row for each plan and number
//! of clients.
//!
//! `cargo run --profile dev --example waits -- SCENARIO... [CLIENTS,CLIENTS,...]`: each scenario is asked for
//! throughput under closed loads of so many clients, all of them admitted at once, in air so cold that nothing is throttled.
//! The plans are those of the other planners, and the planner's own with `OWN=SECONDS` in the environment.

use isotherm_core::check::FeasiblePlan;
use isotherm_core::cost::StepShape;
use isotherm_core::objective::{evaluate, unhindered};
use isotherm_core::plan::{Plan, Route, Stop};
use isotherm_core::problem::{Objective, PlacementProblem};
use isotherm_core::scenario::{Kind, Scenario};
use isotherm_core::trace::RequestRecord;
use isotherm_core::units::{Seconds, TokensPerSecond};
use isotherm_core::workload::Arrivals;
use isotherm_planner::Budget;
use isotherm_planner::baselines::{Baseline, baseline};
use isotherm_sim::{Options, simulate};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

fn problem(path: &Path, clients: u32) -> PlacementProblem {
    let read = |file: &Path| std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let mut lookup = |kind: Kind, name: &str| {
        let folder = match kind {
            Kind::Model => "models",
            Kind::Device => "devices",
        };
        Ok(read(&Path::new("scenarios").join(folder).join(format!("{name}.toml"))))
    };
    let scenario = Scenario::parse(&read(path), &mut lookup).unwrap_or_else(|faults| panic!("{faults:?}"));
    let mut problem = scenario.problem(None, None).unwrap_or_else(|faults| panic!("{faults:?}"));
    problem.objective = Objective::Throughput;
    problem.limits.goals.clear();
    problem.ambient = isotherm_core::units::Celsius::new(-150.0).expect("finite");
    problem.conditions.air.clear();
    problem.conditions.failures = Vec::new();
    problem.workload.arrivals = Arrivals::ClosedLoop { clients };
    problem.workload.requests = (10 * clients).max(100);
    problem.serving.requests_max = clients;
    problem
}

/// Output tokens per second between the end of so many requests and the end of so many more.
fn steady(requests: &[RequestRecord], from: usize, to: usize) -> f64 {
    let mut ends: Vec<_> = requests.iter().map(|request| (request.finished_ns, request.output_tokens)).collect();
    ends.sort_unstable();
    let tokens: u64 = ends[from + 1..=to].iter().map(|end| u64::from(end.1)).sum();
    tokens as f64 / ends[to].0.since(ends[from].0).seconds().value()
}

fn row(problem: &PlacementProblem, clients: u32, by: &str, found: &FeasiblePlan) {
    let plan = found.plan();
    let worth = evaluate(plan, problem);
    let rate = |rate: Option<TokensPerSecond>| rate.map_or(f64::NAN, TokensPerSecond::value);
    let options = Options { seeds: 1, seed: 1, trace: true, ..Options::default() };
    let Ok(report) = simulate(found, problem, &problem.workload, &options) else { return };
    let Some(trace) = &report.trace else { return };
    let all = trace.requests.len();
    let (warm, cold) = (3 * clients as usize, clients as usize + clients as usize / 2);
    let (warm, cold) = (warm.min(all / 3), cold.min(all / 5));
    let simulated = steady(&trace.requests, warm, all - 1 - cold);
    let (planned, free) = (rate(worth.throughput), rate(unhindered(plan, problem)));
    let stops: Vec<String> =
        plan.routes.iter().map(|route| format!("{}@{:.2}", route.stages.len(), route.share)).collect();
    let bottleneck = worth.bottleneck.map_or_else(String::new, |bottleneck| bottleneck.to_string());
    let others = formulas(problem, plan);
    println!(
        "{}\t{clients}\t{by}\t{}\t{}\t{planned:.2}\t{free:.2}\t{simulated:.2}\t{:.2}\t{:+.1}\t{}\t{bottleneck}",
        problem.name,
        plan.batch.unwrap_or(0),
        stops.join(","),
        rate(TokensPerSecond::new(trace.tokens_per_second().unwrap_or(0.0)).ok()),
        (planned / simulated - 1.0) * 100.0,
        others.iter().map(|other| format!("{:+.1}", (other / simulated - 1.0) * 100.0)).collect::<Vec<_>>().join("\t"),
    );
}

/// What other formulas say of a plan: the longest path through a ring of batches, and three that are linear over stages.
///
/// Of the passes of a batch a share `p` has each chunk of a prompt. A path that passes `g` batches on one stage and then goes
/// on along the longest of them takes `E[longest of g + 1] + g * v` for `m + g` batches, `v` being the mean pass of the
/// slowest stage. Linear ones put `v = u * tau` with a fixed `u`, and the `g` of most chunks in the place of the longest.
fn formulas(problem: &PlacementProblem, plan: &Plan) -> Vec<f64> {
    let output = problem.workload.output_tokens.mean();
    let chunks: Vec<StepShape> = problem.prefill_chunks().collect();
    let (count, all) = (chunks.len() as f64, f64::from(problem.serving.requests_max));
    let m = (all / f64::from(plan.batch.unwrap_or(1))).ceil();
    let together = all / m;
    let p = (together / (output + count - 1.0)).min(1.0 / count);
    let beside = (together - 1.0).min((output - 1.0) / count).ceil().max(0.0) as u32;
    let mut shapes: Vec<(f64, StepShape)> = Vec::new();
    for mut shape in chunks {
        if beside > 0 {
            (shape.decodes, shape.decode_context) = (beside, problem.mean_context());
            shape.sequences += beside;
        }
        shapes.push((p, shape));
    }
    if 1.0 - p * count > 1e-12 {
        let decodes = StepShape::decode(together.ceil() as u32, problem.mean_context());
        shapes.push((1.0 - p * count, decodes));
    }
    let slowest = (0..plan.stages.len()).map(|stage| {
        let through = plan.routes.iter().filter(|route| route.stages.iter().any(|stop| stop.stage as usize == stage));
        let mean: f64 = shapes.iter().map(|(share, shape)| share * on_stage(problem, plan, stage, shape)).sum();
        through.map(|route| route.share).sum::<f64>() * mean
    });
    let v = slowest.fold(0.0, f64::max);
    let mut passes: Vec<(f64, f64)> =
        shapes.iter().map(|(share, shape)| (*share, whole_pass(problem, plan, shape))).collect();
    passes.sort_by(|x, y| y.1.total_cmp(&x.1));
    let longest = |g: f64| {
        let (mut sum, mut above) = (0.0, 0.0);
        for &(share, time) in &passes {
            let upto = f64::min(above + share, 1.0);
            sum += ((1.0 - above).powf(g + 1.0) - (1.0 - upto).powf(g + 1.0)) * time;
            above = upto;
        }
        sum
    };
    let some = || (0..80).scan(0.0, |g: &mut f64, _| Some(std::mem::replace(g, *g + 1.0 + (*g / 6.0).floor())));
    let path = some().map(|g| (longest(g) + g * v) / (m + g)).fold(v, f64::max);
    let linear = [0.0, 0.5, 1.0].map(|u| {
        let chunked = |g: f64| (1.0 - (1.0 - p * count).powf(g + 1.0)) / (m + g * (1.0 - u));
        let g = some().filter(|&g| g < m).max_by(|&x, &y| chunked(x).total_cmp(&chunked(y))).unwrap_or(0.0);
        v.max(longest(g) / (m + g * (1.0 - u))).max(longest(0.0) / m)
    });
    let tokens = together * output / (output + (count - 1.0) / m);
    std::iter::once(path).chain(linear).map(|between| tokens / between).collect()
}

fn on_stage(problem: &PlacementProblem, plan: &Plan, stage: usize, shape: &StepShape) -> f64 {
    let stage = &plan.stages[stage];
    let id = problem.graph.find(&stage.devices[0]);
    id.and_then(|id| problem.step(id, stage.layers, shape)).map_or(f64::NAN, Seconds::value)
}

/// Time of a pass through stages and ways, the mean over routes.
fn whole_pass(problem: &PlacementProblem, plan: &Plan, shape: &StepShape) -> f64 {
    let row = problem.model.boundary_bytes_per_token().saturating_mul(shape.tokens().into());
    let device = |stop: &Stop| problem.graph.find(&plan.stages[stop.stage as usize].devices[0]).expect("a device");
    let seconds = |time: Option<Seconds>| time.map_or(f64::NAN, Seconds::value);
    let of_route = |route: &Route| {
        let stages: f64 = route.stages.iter().map(|stop| on_stage(problem, plan, stop.stage as usize, shape)).sum();
        let pairs = route.stages.windows(2).map(|pair| seconds(problem.hop(device(&pair[0]), device(&pair[1]), row)));
        let (first, last) = (device(&route.stages[0]), device(&route.stages[route.stages.len() - 1]));
        let ends =
            seconds(problem.entry(first, shape.tokens().into())) + seconds(problem.exit(last, shape.sequences.into()));
        route.share * (stages + pairs.sum::<f64>() + ends)
    };
    plan.routes.iter().map(of_route).sum()
}

fn main() {
    let mut clients = vec![4, 16, 64, 150];
    let mut paths = Vec::new();
    for argument in std::env::args().skip(1) {
        if argument.chars().all(|c| c.is_ascii_digit() || c == ',') {
            clients = argument.split(',').filter_map(|n| n.parse().ok()).collect();
        } else {
            paths.push(argument);
        }
    }
    let own: Option<f64> = std::env::var("OWN").ok().and_then(|text| text.parse().ok());
    println!(
        "scenario\tclients\tplanner\tbatch\troutes\tplanned\tfree\tsteady\twhole\terror %\t\
         path\tlinear 0\tlinear 0.5\tlinear 1\tbottleneck"
    );
    for path in &paths {
        for &clients in &clients {
            let problem = problem(Path::new(path), clients);
            let mut seen: BTreeSet<String> = BTreeSet::new();
            let mut show = |by: &str, found: &FeasiblePlan| {
                let plan = found.plan();
                if seen.insert(format!("{:?} {:?} {:?}", plan.stages, plan.routes, plan.batch)) {
                    row(&problem, clients, by, found);
                }
            };
            for rule in Baseline::ALL.into_iter().filter(|rule| *rule != Baseline::HelixMilp) {
                if let Ok(Some(found)) = baseline(&problem, rule, &Budget::default()) {
                    show(rule.name(), &found);
                }
            }
            if let Some(seconds) = own {
                let begun = Instant::now();
                let left = || Seconds::of((seconds - begun.elapsed().as_secs_f64()).max(0.0));
                let budget = Budget { remaining: Some(&left), ..Budget::default() };
                if let Some(found) = isotherm_planner::plan(&problem, &budget).ok().as_ref().and_then(|o| o.plan()) {
                    show("isotherm", found);
                }
            }
        }
    }
}
