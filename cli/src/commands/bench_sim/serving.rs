//! Replicas of a measured DGX H100 that serve generated and recorded loads.

use crate::failure::Failure;
use crate::usage::{Usage, thread_seconds};
use crate::{builtin, interrupt, models};
use isotherm_core::artefact::Header;
use isotherm_core::check::FeasiblePlan;
use isotherm_core::digest::Digest;
use isotherm_core::ids::Layers;
use isotherm_core::objective::evaluate;
use isotherm_core::plan::{BoundKind, Certificate, PLAN_SCHEMA, Plan, Provenance, Route, Stage, Status, Stop};
use isotherm_core::problem::{Division, Parallel, PlacementProblem};
use isotherm_core::record::SimulationReport;
use isotherm_core::scenario::{Kind, Scenario};
use isotherm_core::workload::Workload;
use isotherm_core::workload::replay::Replay;
use isotherm_sim::policy::PolicyName;
use isotherm_sim::router::RouterName;
use isotherm_sim::{Options, simulate};
use serde::{Deserialize, Serialize};

/// Power and heat for a device of which nobody published them: assumed, to measure the simulator and nothing else.
const ASSUMED_HEAT: &str = "idle_power = \"1200 W\"\nhow = \"estimated\"\nsource = \"assumed to measure the simulator\"\n\
    thermal = { resistance = \"0.01 K/W\", capacity = \"8000 J/K\", throttle_at = \"80 °C\", resume_at = \"75 °C\", \
    throttled_speed = 0.8 }\n";

/// What Vidur's runs used: a block pool of 100,000 blocks of 16 tokens and a watermark of 1 %.
pub(super) const VIDUR: &str = "requests_max = 512\nkv_blocks = 100000\nkv_watermark = 0.01\n";

/// A problem whose every device is a replica, and the plan that makes them that.
pub(super) struct Replicas {
    pub problem: PlacementProblem,
    pub plan: FeasiblePlan,
}

impl Replicas {
    /// So many replicas with these limits of the serving loop, this load, and heat or none.
    pub(super) fn new(count: u32, serving: &str, load: &str, heat: bool) -> Result<Self, Failure> {
        let heat = if heat { ASSUMED_HEAT } else { "" };
        let text = format!(
            "name = \"bench\"\nquestion = \"How fast is the simulator?\"\n[model]\nname = \"llama-2-70b-f16\"\n\
             [[devices]]\ntable = \"dgx-h100-tp8\"\nname = \"dgx\"\ncount = {count}\n{heat}[workload]\n{load}\
             [objective]\nmaximise = \"throughput\"\n[serving]\n{serving}"
        );
        let mut lookup = |kind: Kind, name: &str| {
            let table = builtin::of(kind).iter().find(|(known, _)| *known == name);
            table.map(|(_, text)| (*text).to_owned()).ok_or_else(Vec::new)
        };
        let words =
            |faults: Vec<String>| Failure::io(format!("the benchmark's scenario is faulty: {}", faults.join("; ")));
        let scenario = Scenario::parse(&text, &mut lookup)
            .map_err(|faults| words(faults.iter().map(|fault| fault.fault.to_string()).collect()))?;
        let problem =
            scenario.problem(None, None).map_err(|faults| words(faults.iter().map(ToString::to_string).collect()))?;
        let plan = replicas(&problem)
            .check(&problem)
            .map_err(|faults| words(faults.iter().map(|fault| format!("{fault:?}")).collect()))?;
        Ok(Self { problem, plan })
    }

    pub(super) fn replay(&self, load: &Replay, options: &Options) -> Result<SimulationReport, Failure> {
        isotherm_sim::replay(&self.plan, &self.problem, load, &heeding(options)).map_err(|e| failed(&e))
    }

    fn simulate(&self, workload: &Workload, options: &Options) -> Result<SimulationReport, Failure> {
        simulate(&self.plan, &self.problem, workload, &heeding(options)).map_err(|e| failed(&e))
    }
}

/// The same, stopped by Ctrl-C.
fn heeding(options: &Options) -> Options {
    Options { interrupt: Some(interrupt::flag()), ..options.clone() }
}

fn failed(error: &isotherm_sim::SimulateError) -> Failure {
    Failure::io(format!("a benchmark's run failed: {}", models::causes(error)))
}

fn replicas(problem: &PlacementProblem) -> Plan {
    let layers = Layers::new(0, problem.layers());
    let stage = |id| Stage {
        devices: vec![problem.graph.device(id).name.clone()],
        layers,
        quantisation: problem.model.quantisation.clone(),
        bytes: problem.stage_bytes(id, layers),
        parallel: Parallel::Tensor,
        power_cap_watts: None,
    };
    let stages: Vec<Stage> = problem.graph.device_ids().map(stage).collect();
    let share = 1.0 / stages.len() as f64;
    let route = |stage| Route { stages: vec![Stop { stage, layers }], share, role: None };
    let mut plan = Plan {
        header: Header::new(PLAN_SCHEMA, problem.inputs.clone()),
        scenario: problem.name.clone(),
        model: problem.model.name.clone(),
        status: Status::Feasible,
        objective_name: problem.objective.name().to_owned(),
        objective_value: None,
        unit: problem.objective.unit().to_owned(),
        certificate: None,
        routes: (0..stages.len() as u32).map(route).collect(),
        stages,
        unused: Vec::new(),
        reasons: Vec::new(),
        batch: None,
        division: Division::Never,
        sustained: None,
        goals: Vec::new(),
        provenance: Provenance::default(),
    };
    plan.objective_value = evaluate(&plan, problem).value(problem.objective);
    plan.certificate = plan.objective_value.map(|objective| Certificate {
        objective,
        bound: None,
        gap: None,
        bound_kind: BoundKind::None,
        method: "every device a replica".to_owned(),
        solver: None,
        nodes: None,
        evidence: None,
    });
    plan
}

/// What a run took.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Row {
    pub run: String,
    pub requests: u32,
    pub output_tokens: u64,
    /// Processor time of the one thread that ran it.
    pub cpu_seconds: f64,
    pub output_tokens_per_cpu_second: f64,
    pub requests_per_cpu_second: f64,
    /// Largest memory of the process meanwhile, all else it holds included; absent where the system does not say.
    pub peak_bytes: Option<u64>,
}

/// Times a run on one thread.
fn timed<T: Send>(run: impl FnOnce() -> T + Send) -> (T, f64, Option<u64>) {
    let usage = Usage::begin();
    // The thread that calls becomes the pool, so that its processor time is that of the run.
    let (found, seconds) = std::thread::scope(|scope| {
        let work = || {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build();
            let begin = thread_seconds();
            let found = match pool {
                Ok(pool) => pool.install(run),
                Err(_) => run(),
            };
            (found, thread_seconds() - begin)
        };
        scope.spawn(work).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    (found, seconds, usage.end().peak_bytes)
}

fn row(run: String, requests: u32, output_tokens: u64, cpu_seconds: f64, peak_bytes: Option<u64>) -> Row {
    Row {
        run,
        requests,
        output_tokens,
        cpu_seconds,
        output_tokens_per_cpu_second: output_tokens as f64 / cpu_seconds,
        requests_per_cpu_second: f64::from(requests) / cpu_seconds,
        peak_bytes,
    }
}

/// A load of so many requests at nine in ten of what two replicas carry.
fn load(requests: u32, most: u32) -> String {
    format!(
        "rate = \"8 /s\"\nrequests = {requests}\nprompt_tokens = {{ min = 100, max = 2000 }}\n\
         output_tokens = {{ min = 20, max = {most} }}\n"
    )
}

/// Tokens per second of each policy under a generated load, with blocks of cache, and with heat as well.
pub(super) fn speeds() -> Result<Vec<Row>, Failure> {
    const REQUESTS: u32 = 20_000;
    let mut rows = Vec::new();
    for (heat, words) in [(false, "cache"), (true, "cache and heat")] {
        let two = Replicas::new(2, &format!("step_tokens_max = 2048\n{VIDUR}"), &load(REQUESTS, 400), heat)?;
        for policy in [PolicyName::Isotherm, PolicyName::VidurSarathi, PolicyName::Splitwise, PolicyName::Vllm] {
            let options = Options { policy, ..Options::default() };
            // Once for its tokens, once for its time.
            let report = two.simulate(&two.problem.workload, &Options { trace: true, ..options.clone() })?;
            let tokens = report.trace.iter().flat_map(|t| &t.requests).map(|r| u64::from(r.output_tokens)).sum();
            let (report, seconds, peak) = timed(|| two.simulate(&two.problem.workload, &options));
            report?;
            rows.push(row(format!("{policy}, {words}"), REQUESTS, tokens, seconds, peak));
        }
    }
    Ok(rows)
}

/// The whole recorded trace on two replicas in turn, as a peer was run on it.
pub(super) fn trace(text: &str) -> Result<Row, Failure> {
    let load = Replay::parse(text).map_err(|e| Failure::io(format!("the recorded trace: {e}")))?;
    let two = Replicas::new(2, &format!("step_tokens_max = 2048\n{VIDUR}"), "", false)?;
    let options = Options { policy: PolicyName::VidurSarathi, router: RouterName::RoundRobin, ..Options::default() };
    let (report, seconds, peak) = timed(|| two.replay(&load, &options));
    let requests = report?.requests;
    let tokens = load.requests().iter().map(|request| u64::from(request.output_tokens)).sum();
    Ok(row("isotherm, vidur-sarathi".to_owned(), requests, tokens, seconds, peak))
}

/// A tenth of the requests, then all of them: memory must not grow with their number.
pub(super) fn lengths(requests: u32) -> Result<Vec<Row>, Failure> {
    [requests / 10, requests].into_iter().map(|count| of_its_own(count.max(1))).collect()
}

/// One of these runs in a process of its own: what ran before in this one does not count as its memory.
fn of_its_own(requests: u32) -> Result<Row, Failure> {
    let failed = |what: String| Failure::io(format!("the run of {requests} requests failed: {what}"));
    let program = std::env::current_exe().map_err(|e| failed(e.to_string()))?;
    let mut command = std::process::Command::new(program);
    command.args(["--quiet", "bench", "sim", "--format", "json", "--length", &requests.to_string()]);
    let done = command.output().map_err(|e| failed(e.to_string()))?;
    if !done.status.success() {
        return Err(failed(String::from_utf8_lossy(&done.stderr).trim().to_owned()));
    }
    serde_json::from_slice(&done.stdout).map_err(|e| failed(e.to_string()))
}

/// A run of so many requests in this process.
pub(super) fn length(requests: u32) -> Result<Row, Failure> {
    let two = Replicas::new(2, &format!("step_tokens_max = 2048\n{VIDUR}"), &load(requests, 124), false)?;
    let options = Options { policy: PolicyName::VidurSarathi, events_max: u64::MAX, ..Options::default() };
    let (report, seconds, peak) = timed(|| two.simulate(&two.problem.workload, &options));
    let report = report?;
    // Answers are uniform from 20 to 124 tokens.
    let tokens = u64::from(report.requests) * 72;
    Ok(row("vidur-sarathi, generated".to_owned(), report.requests, tokens, seconds, peak))
}

/// Digests of one simulation of eight replications by the number of threads.
pub(super) fn digests() -> Result<Vec<(usize, Digest)>, Failure> {
    let two = Replicas::new(2, &format!("step_tokens_max = 512\n{VIDUR}"), &load(400, 200), true)?;
    let options = Options { seeds: 8, seed: 1, ..Options::default() };
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = pool.map_err(|e| Failure::io(format!("failed to start {threads} threads: {e}")))?;
        let report = pool.install(|| two.simulate(&two.problem.workload, &options))?;
        Ok((threads, report.digest))
    };
    [1, 2, 4, 8].into_iter().map(with).collect()
}
