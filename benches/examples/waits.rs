//! What plans are worth against what they come to in simulation while the load is steady, one row for each plan and number
//! of clients.
//!
//! `cargo run --profile dev --example waits -- SCENARIO... [CLIENTS,CLIENTS,...]`: each scenario is asked for throughput under
//! closed loads of so many clients, all of them admitted at once. The plans are those of the other planners, and the
//! planner's own with `OWN=SECONDS` in the environment.

use isotherm_core::check::FeasiblePlan;
use isotherm_core::objective::{evaluate, unhindered};
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
    let wave = wave(problem, found);
    println!(
        "{}\t{clients}\t{by}\t{}\t{}\t{planned:.2}\t{free:.2}\t{simulated:.2}\t{:.2}\t{:+.1}\t{}\t{bottleneck}",
        problem.name,
        plan.batch.unwrap_or(0),
        stops.join(","),
        rate(TokensPerSecond::new(trace.tokens_per_second().unwrap_or(0.0)).ok()),
        (planned / simulated - 1.0) * 100.0,
        wave.iter().map(|wave| format!("{:+.1}", (wave / simulated - 1.0) * 100.0)).collect::<Vec<_>>().join("\t"),
    );
    if std::env::var_os("DETAIL").is_some() {
        detail(problem, found);
    }
}

fn wave(problem: &PlacementProblem, found: &FeasiblePlan) -> Vec<f64> {
    let plan = found.plan();
    let batch = plan.batch.unwrap_or(1);
    let output = problem.workload.output_tokens.mean();
    let chunks: Vec<_> = problem.prefill_chunks().collect();
    let count = chunks.len() as f64;
    let (b, n) = (f64::from(batch), f64::from(problem.serving.requests_max));
    let m = (n / b).ceil();
    let a = n / m;
    let p = (a / (output + count - 1.0)).min(1.0 / count);
    let beside = (a - 1.0).min((output - 1.0) / count).ceil().max(0.0) as u32;
    let life = problem.life(batch);
    let mut shapes: Vec<(f64, _)> = Vec::new();
    for mut shape in chunks {
        if beside > 0 {
            (shape.decodes, shape.decode_context) = (beside, problem.mean_context());
            shape.sequences += beside;
        }
        shapes.push((p, shape));
    }
    let left = 1.0 - p * count;
    if left > 1e-12 {
        shapes.push((left, isotherm_core::cost::StepShape::decode(a.ceil() as u32, problem.mean_context())));
    }
    // share * times by route, mean by device
    let ids: Vec<_> = plan.stages.iter().map(|s| problem.graph.find(&s.devices[0]).expect("there")).collect();
    let at = |stage: usize, shape: &_| {
        problem.step(ids[stage], plan.stages[stage].layers, shape).map_or(0.0, Seconds::value)
    };
    let mut v = 0.0_f64;
    for stage in 0..plan.stages.len() {
        let share: f64 =
            plan.routes.iter().filter(|r| r.stages.iter().any(|s| s.stage as usize == stage)).map(|r| r.share).sum();
        v = v.max(share * shapes.iter().map(|(q, shape)| q * at(stage, shape)).sum::<f64>());
    }
    // time of a pass of each shape over its route
    let row = problem.model.boundary_bytes_per_token();
    let mut passes: Vec<(f64, f64)> = shapes
        .iter()
        .map(|(q, shape)| {
            let mut total = 0.0;
            for route in &plan.routes {
                let mut time: f64 = route.stages.iter().map(|s| at(s.stage as usize, shape)).sum();
                for pair in route.stages.windows(2) {
                    let hop = problem.hop(
                        ids[pair[0].stage as usize],
                        ids[pair[1].stage as usize],
                        row.saturating_mul(shape.tokens().into()),
                    );
                    time += hop.map_or(0.0, Seconds::value);
                }
                let first = ids[route.stages[0].stage as usize];
                let last = ids[route.stages[route.stages.len() - 1].stage as usize];
                time += problem.entry(first, shape.tokens().into()).map_or(0.0, Seconds::value);
                time += problem.exit(last, shape.sequences.into()).map_or(0.0, Seconds::value);
                total += route.share * time;
            }
            (*q, total)
        })
        .collect();
    passes.sort_by(|x, y| y.1.total_cmp(&x.1));
    let _ = &life;
    let k = output * a / (output + (count - 1.0) / m);
    let emax = |g: u32, passes: &[(f64, f64)]| {
        let (mut longest, mut above) = (0.0, 0.0);
        for &(q, time) in passes {
            let upto: f64 = (above + q).min(1.0);
            let chance = (1.0_f64 - above).powi(g as i32 + 1) - (1.0_f64 - upto).max(0.0).powi(g as i32 + 1);
            longest += chance * time;
            above = upto;
        }
        longest
    };
    let mut out = Vec::new();
    // exact, without the turn's cell
    let worst = (0..plan.stages.len())
        .max_by(|&x, &y| {
            let of = |i: usize| shapes.iter().map(|(q, shape)| q * at(i, shape)).sum::<f64>();
            of(x).total_cmp(&of(y))
        })
        .unwrap_or(0);
    let mut rest: Vec<(f64, f64)> = shapes.iter().map(|(q, shape)| (*q, at(worst, shape))).collect();
    rest.sort_by(|x, y| y.1.total_cmp(&x.1));
    let rest: Vec<(f64, f64)> = passes.iter().zip(&rest).map(|(x, y)| (x.0, (x.1 - y.1).max(0.0))).collect();
    let gs = || {
        (0..60).scan(0_u32, |g, _| {
            let now = *g;
            *g += 1 + *g / 6;
            Some(now)
        })
    };
    let mut tau = v;
    for g in gs() {
        tau = tau.max((emax(g, &rest) + f64::from(g + 1) * v) / (m + f64::from(g)));
    }
    out.push(k / tau);
    for u in [0.0, 0.5, 1.0] {
        let p = 1.0 - left;
        let share = |g: u32| (1.0 - (1.0 - p).powi(g as i32 + 1)) / (m + f64::from(g) * (1.0 - u));
        let g = gs().filter(|&g| f64::from(g) < m).max_by(|&x, &y| share(x).total_cmp(&share(y))).unwrap_or(0);
        let tau = v.max(emax(g, &passes) / (m + f64::from(g) * (1.0 - u))).max(emax(0, &passes) / m);
        out.push(k / tau);
    }
    out
}

fn detail(problem: &PlacementProblem, found: &FeasiblePlan) {
    let plan = found.plan();
    let life = problem.life(plan.batch.unwrap_or(1));
    for (r, route) in plan.routes.iter().enumerate() {
        let mut before = None;
        for stop in &route.stages {
            let stage = &plan.stages[stop.stage as usize];
            let Some(id) = problem.graph.find(&stage.devices[0]) else { continue };
            let times: Vec<String> = life
                .waits
                .iter()
                .map(|(count, shape)| {
                    let step = problem.step(id, stage.layers, shape).map_or(f64::NAN, Seconds::value);
                    format!("{count:.2}x({}d+{:?}) {:.3}ms", shape.decodes, shape.prefills, step * 1e3)
                })
                .collect();
            let hop = before.map_or(0.0, |from| problem.decode_hop(from, id).map_or(f64::NAN, Seconds::value));
            println!(
                "#  route {r} {} {}..{} hop {:.3}ms {}",
                stage.devices[0],
                stage.layers.start,
                stage.layers.end,
                hop * 1e3,
                times.join(" ")
            );
            before = Some(id);
        }
    }
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
        "scenario\tclients\tplanner\tbatch\troutes\tplanned\tfree\tsteady\twhole\terror %\texact\tu0\tu.5\tu1\tbottleneck"
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
