//! What a throughput plan states is what its simulation shows where the load saturates: as many clients as the plan
//! admits requests, each sending its next request when the last is answered.

use isotherm_core::problem::{Objective, PlacementProblem, ProblemParts};
use isotherm_core::scenario::{Kind, Scenario};
use isotherm_core::workload::{Arrivals, Length, Workload};
use isotherm_planner::{Budget, plan};
use isotherm_sim::{Options, simulate};
use std::path::{Path, PathBuf};

/// Share by which a simulation may differ from the plan.
const SHARE_MAX: f64 = 0.10;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios")
}

fn table(kind: Kind, name: &str) -> Result<String, Vec<String>> {
    let group = match kind {
        Kind::Model => "models",
        Kind::Device => "devices",
    };
    std::fs::read_to_string(folder().join(group).join(format!("{name}.toml"))).map_err(|_| Vec::new())
}

/// The problem of a scenario under a saturating load.
fn saturated(text: &str, requests_max: u32, prompt: Length, output: Length) -> PlacementProblem {
    let scenario = Scenario::parse(text, &mut table).expect("a scenario");
    let problem = scenario.problem(None, None).expect("a problem");
    let mut serving = problem.serving;
    serving.requests_max = requests_max;
    PlacementProblem::new(ProblemParts {
        name: problem.name.clone(),
        model: problem.model.clone(),
        graph: problem.graph.clone(),
        workload: Workload {
            arrivals: Arrivals::ClosedLoop { clients: requests_max },
            prompt_tokens: prompt,
            output_tokens: output,
            requests: 40 * requests_max,
        },
        serving,
        objective: Objective::Throughput,
        limits: problem.limits,
        ambient: problem.ambient,
        inputs: problem.inputs,
    })
    .expect("a problem")
}

/// Output tokens per second in the middle of a run: from the first tenth of its requests done to nine tenths, so that
/// filling and emptying the pipeline say nothing.
fn steady_rate(problem: &PlacementProblem, found: &isotherm_core::check::FeasiblePlan) -> f64 {
    let options = Options { seed: 1, seeds: 1, trace: true, ..Options::default() };
    let report = simulate(found, problem, &problem.workload, &options).expect("can be simulated");
    let mut done: Vec<(u64, u64)> = report
        .trace
        .expect("asked for")
        .requests
        .iter()
        .map(|request| (request.finished_ns.0, u64::from(request.output_tokens)))
        .collect();
    done.sort_unstable();
    let (first, last) = (done.len() / 10, done.len() * 9 / 10);
    let tokens: u64 = done[first + 1..=last].iter().map(|(_, tokens)| tokens).sum();
    tokens as f64 / ((done[last].0 - done[first].0) as f64 * 1e-9)
}

struct Row {
    name: String,
    requests_max: u32,
    stages: usize,
    routes: usize,
    batch: Option<u32>,
    planned: f64,
    simulated: f64,
}

fn row(name: &str, problem: &PlacementProblem) -> Option<Row> {
    let budget = Budget { nodes_max: 200, gap_target: 0.01, ..Budget::default() };
    let outcome = plan(problem, &budget).expect("planned");
    let found = outcome.plan()?;
    let stated = found.plan();
    Some(Row {
        name: name.to_owned(),
        requests_max: problem.serving.requests_max,
        stages: stated.stages.len(),
        routes: stated.routes.len(),
        batch: stated.batch,
        planned: stated.objective_value.expect("a plan has a value"),
        simulated: steady_rate(problem, found),
    })
}

fn scenario(group: &str, name: &str) -> String {
    std::fs::read_to_string(folder().join(group).join(format!("{name}.toml"))).expect("a shipped scenario")
}

/// A cluster of `count` devices of each of these tables around one switch.
fn cluster(model: &str, devices: &[(&str, usize, &str)], latency: &str, bandwidth: &str) -> String {
    let mut text = format!("name = \"cluster\"\nquestion = \"How fast?\"\n[model]\nname = \"{model}\"\n");
    for (table, count, memory) in devices {
        text += &format!("[[devices]]\ntable = \"{table}\"\nname = \"{table}\"\ncount = {count}\n");
        if !memory.is_empty() {
            text += &format!("memory = \"{memory}\"\n");
        }
    }
    text + &format!(
        "[network]\nwithin_site = {{ latency = \"{latency}\", bandwidth = \"{bandwidth}\", kind = \"socket\" }}\n"
    )
}

#[test]
fn planned_throughput_is_what_a_saturating_load_gets() {
    let fixed = Length::fixed;
    let mut rows = Vec::new();
    for requests_max in [1, 4, 16] {
        let mixed = scenario("smoke", "three-mixed");
        let problem = saturated(&mixed, requests_max, Length { min: 64, max: 192 }, Length { min: 32, max: 96 });
        rows.extend(row("smoke/three-mixed", &problem));
        let two = scenario("smoke", "two-cpu");
        rows.extend(row("smoke/two-cpu", &saturated(&two, requests_max, fixed(64), fixed(32))));
        let phones = scenario("reference", "edge-phones");
        rows.extend(row("reference/edge-phones", &saturated(&phones, requests_max, fixed(256), fixed(128))));
    }
    let home = scenario("reference", "home-pile");
    let problem = saturated(&home, 1, Length { min: 128, max: 512 }, Length { min: 64, max: 256 });
    rows.extend(row("reference/home-pile", &problem));
    let clusters = [
        ("4 L4 of 400 MiB", cluster("llama-1b-synthetic-q4_0", &[("nvidia-l4", 4, "400 MiB")], "0.1 ms", "10 Gbit/s")),
        ("2 T4 + 2 L4", {
            let devices = [("nvidia-t4", 2, "500 MiB"), ("nvidia-l4", 2, "500 MiB")];
            cluster("llama-1b-synthetic-q4_0", &devices, "0.2 ms", "1 Gbit/s")
        }),
        ("4 T4, 20 ms apart", cluster("llama-1b-synthetic-q4_0", &[("nvidia-t4", 4, "500 MiB")], "20 ms", "1 Gbit/s")),
    ];
    for (name, text) in &clusters {
        for requests_max in [1, 3, 8] {
            let problem = saturated(text, requests_max, Length { min: 64, max: 448 }, Length { min: 32, max: 224 });
            rows.extend(row(name, &problem));
        }
    }
    println!(
        "{:22} {:>4} {:>6} {:>6} {:>5} {:>10} {:>10} {:>7}",
        "problem", "N", "stages", "routes", "batch", "planned", "simulated", "error"
    );
    let mut off = Vec::new();
    for row in &rows {
        let error = row.planned / row.simulated - 1.0;
        let batch = row.batch.map_or_else(|| "-".to_owned(), |batch| batch.to_string());
        let (name, n, stages, routes) = (&row.name, row.requests_max, row.stages, row.routes);
        println!(
            "{name:22} {n:4} {stages:6} {routes:6} {batch:>5} {:10.3} {:10.3} {:+6.1} %",
            row.planned,
            row.simulated,
            error * 100.0
        );
        if error.abs() > SHARE_MAX {
            off.push(format!("{name} with {n}: {:+.1} %", error * 100.0));
        }
    }
    assert!(rows.len() >= 15, "only {} problems had a plan", rows.len());
    assert!(off.is_empty(), "more than {} % off: {off:#?}", SHARE_MAX * 100.0);
}
