//! Plans, executed: the same tokens as alone, whatever else runs; honest records; honest refusals.

use isotherm_core::artefact::Header;
use isotherm_core::check::FeasiblePlan;
use isotherm_core::cost::StepShape;
use isotherm_core::device::{Device, DeviceKind};
use isotherm_core::figure::Figure;
use isotherm_core::graph::{DEVICES_SCHEMA, DeviceGraph, DevicesFile, Link, LinkKind};
use isotherm_core::ids::Layers;
use isotherm_core::objective::evaluate;
use isotherm_core::offload::{Offload, Store};
use isotherm_core::plan::{BoundKind, Certificate, PLAN_SCHEMA, Plan, Provenance, Route, Stage, Status, Stop, Unused};
use isotherm_core::problem::{Division, Limits, Objective, Parallel, PlacementProblem, ProblemParts};
use isotherm_core::trace::{Origin, Trace};
use isotherm_core::units::{Bytes, BytesPerSecond, Celsius, Seconds, SimDuration, SimTime};
use isotherm_core::workload::{Arrivals, Length, Serving, Workload};
use isotherm_runtime::engine::{CpuDevice, Cut, Kernels, Runner, Sampling};
use isotherm_runtime::execute::{
    Arriving, Cancels, Ending, ExecuteError, Executed, Orders, Prompt, Token, Verdict, execute,
};
use isotherm_runtime::govern::{Pace, Paced};
use isotherm_runtime::model::Geometry;
use isotherm_runtime::model::format::BlockFormat;
use isotherm_runtime::model::gguf::Gguf;
use std::collections::BTreeMap;

use crate::engine::{small, small_text};

const SAMPLING: Sampling = Sampling { temperature: 0.8, top_k: 50, top_p: 0.95, seed: 9, ..Sampling::GREEDY };

/// A model, and a plan for it in some stages of this host.
struct Planned {
    gguf: Gguf,
    geometry: Geometry,
    problem: PlacementProblem,
    plan: FeasiblePlan,
}

fn declared<T>(value: T) -> Option<Figure<T>> {
    Some(Figure::declared(value, "test"))
}

/// One core of this host. All stages share it: that is slow, and shows every order of events.
fn core() -> [u32; 1] {
    [CpuDevice::host_cores().first().map_or(0, |&core| u32::try_from(core).expect("few cores"))]
}

/// A plan of `stages` stages for requests of at most `longest` tokens, `together` at once.
fn planned(stages: usize, together: u32, longest: u32, cores: &[u32]) -> Planned {
    let (gguf, geometry) = small(BlockFormat::Q4_1, BlockFormat::Q8_0);
    let names: Vec<String> = (0..stages).map(|i| format!("cpu{i}")).collect();
    let devices = names.iter().map(|name| Device {
        backend: "cpu".into(),
        cores: cores.to_vec(),
        memory_bytes: declared(Bytes(1 << 30)),
        memory_bandwidth_bytes_per_second: declared(BytesPerSecond::of(1e10)),
        ..Device::named(name, "host", DeviceKind::Cpu)
    });
    let links = names.windows(2).map(|pair| Link {
        from: pair[0].clone(),
        to: pair[1].clone(),
        kind: LinkKind::InProcess,
        latency_seconds: declared(Seconds::of(1e-6)),
        bandwidth_bytes_per_second: declared(BytesPerSecond::of(1e9)),
        tokens_per_second: None,
        groups: Vec::new(),
    });
    let graph = DeviceGraph::new(DevicesFile {
        header: Header::new(DEVICES_SCHEMA, Vec::new()),
        host: BTreeMap::new(),
        devices: devices.collect(),
        junctions: Vec::new(),
        links: links.collect(),
        groups: Vec::new(),
        co_run: Vec::new(),
        coordinator: None,
    });
    let problem = PlacementProblem::new(ProblemParts {
        name: "test".into(),
        model: geometry.describe(&gguf, "small", 4, None),
        graph: graph.expect("a sound graph"),
        workload: Workload {
            arrivals: Arrivals::ClosedLoop { clients: together },
            prompt_tokens: Length::fixed(longest / 2),
            output_tokens: Length::fixed(longest - longest / 2),
            requests: 1,
        },
        serving: Serving { requests_max: together, step_tokens_max: 24, kv_block_tokens: 16, ..Serving::default() },
        objective: Objective::Tpot,
        limits: Limits { reserve_bytes: Bytes(0), ..Limits::default() },
        ambient: Celsius::of(25.0),
        inputs: Vec::new(),
    })
    .expect("a sound problem");
    let plan = chain(&problem, &names);
    Planned { gguf, geometry, problem, plan }
}

/// The plan that cuts the layers into equal parts, one per device in order.
fn chain(problem: &PlacementProblem, names: &[String]) -> FeasiblePlan {
    let (layers, count) = (problem.layers(), u32::try_from(names.len()).expect("few devices"));
    let cut = |i: u32| Layers::new(layers * i / count, layers * (i + 1) / count);
    let stages = names.iter().zip(0..).map(|(name, i)| Stage {
        devices: vec![name.clone()],
        layers: cut(i),
        quantisation: problem.model.quantisation.clone(),
        bytes: problem.stage_bytes(problem.graph.find(name).expect("it is there"), cut(i)),
        parallel: Parallel::Tensor,
        power_cap_watts: None,
    });
    let mut plan = Plan {
        header: Header::new(PLAN_SCHEMA, Vec::new()),
        scenario: problem.name.clone(),
        model: problem.model.name.clone(),
        status: Status::Feasible,
        objective_name: problem.objective.name().into(),
        objective_value: None,
        unit: problem.objective.unit().into(),
        certificate: None,
        stages: stages.collect(),
        routes: vec![Route {
            stages: (0..count).map(|stage| Stop { stage, layers: cut(stage) }).collect(),
            share: 1.0,
            role: None,
        }],
        unused: Vec::<Unused>::new(),
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
        method: "layers cut into equal parts".into(),
        solver: None,
        nodes: None,
        evidence: None,
    });
    plan.check(problem).expect("a plan that holds")
}

impl Planned {
    fn orders(&self) -> Orders<'_> {
        Orders {
            plan: &self.plan,
            graph: &self.problem.graph,
            gguf: &self.gguf,
            geometry: &self.geometry,
            serving: self.problem.serving,
            kernels: Kernels::detect(),
            stop: &[],
            waiting_max: None,
            cancels: None,
            memory_available: None,
            weights_budget: None,
            weights_folder: None,
            looks_beside: false,
            idle: &[],
            keeps_steps: false,
        }
    }

    fn execute(&self, prompts: &[Prompt], arriving: &Arriving) -> Result<Executed, ExecuteError> {
        execute(&self.orders(), prompts, arriving, &mut |_| Verdict::GoOn)
    }

    /// The answer to one prompt with nothing else running.
    fn alone(&self, prompt: &Prompt) -> Vec<u32> {
        let cut = Cut { layers: 0..self.geometry.layers, device: CpuDevice::new("alone", [core()[0] as usize]) };
        let mut runner =
            Runner::start(&self.gguf, &self.geometry, Kernels::detect(), &[cut], 512, 64).expect("the model loads");
        let mut answer = Vec::new();
        let mut each = |token| {
            answer.push(token);
            true
        };
        runner
            .generate(&prompt.tokens, prompt.output_tokens as usize, &[], prompt.sampling, &mut each)
            .expect("it fits");
        answer
    }
}

/// A request with the tests' way of choosing.
fn request(tokens: Vec<u32>, output_tokens: u32) -> Prompt {
    Prompt { sampling: SAMPLING, ..Prompt::greedy(tokens, output_tokens) }
}

/// Prompts of several lengths, some longer than a step and than a segment of attention.
fn prompts() -> Vec<Prompt> {
    [(5, 20), (61, 9), (1, 30), (150, 12), (16, 17), (33, 1), (24, 24)]
        .into_iter()
        .map(|(length, output_tokens)| request(small_text(length), output_tokens))
        .collect()
}

#[test]
fn layers_that_a_plan_leaves_on_a_disk_are_brought_and_change_no_token() {
    let mut planned = planned(1, 3, 200, &core());
    let expected = planned.execute(&prompts(), &Arriving::Clients(3)).expect("it runs");
    assert_eq!(expected.offloaded, None);
    let stage = &planned.plan.plan().stages[0];
    let (whole, layer) = (stage.bytes.total, planned.problem.model.layer_bytes[0]);
    let mut file = planned.problem.graph.file().clone();
    file.devices[0].memory_bytes = declared(Bytes(whole.0 - layer.0));
    let rate = declared(BytesPerSecond::of(1e9)).expect("a figure");
    file.devices[0].offload =
        Some(Offload { store: Store::Disk, bandwidth_bytes_per_second: rate, beside: true, room_bytes: None });
    planned.problem.graph = DeviceGraph::new(file).expect("as before");
    planned.problem.limits.choices.offload = true;
    planned.plan = chain(&planned.problem, &["cpu0".to_owned()]);
    let bytes = planned.plan.plan().stages[0].bytes;
    assert!(bytes.away_layers > 1 && bytes.total.0 <= whole.0 - layer.0, "{bytes:?}");
    let found = planned.execute(&prompts(), &Arriving::Clients(3)).expect("it runs");
    assert_eq!(found.answers, expected.answers);
    let brought = found.offloaded.expect("layers were brought");
    assert_eq!(brought.away, bytes.away_layers as usize);
    assert!(brought.read_bytes >= brought.pass_bytes && brought.pass_bytes > 0, "{brought:?}");
}

#[test]
fn a_run_that_is_paused_and_slowed_gives_every_token_that_it_gives_without_a_pause() {
    let prompts = prompts();
    for (stages, together) in [(1, 1), (2, 3)] {
        let planned = planned(stages, together, 200, &core());
        let expected = planned.execute(&prompts, &Arriving::Clients(together)).expect("it runs").answers;
        let (pace, paused) = (Pace::default(), std::sync::atomic::AtomicU32::new(0));
        let mut paced = Paced::new(&pace);
        let mut count = 0;
        let executed = std::thread::scope(|scope| {
            execute(&planned.orders(), &prompts, &Arriving::Clients(together), &mut |_| {
                count += 1;
                // Requests are at all stages of their answers when it stops.
                if count % 11 == 0 {
                    pace.allow(0.0);
                    scope.spawn(|| {
                        std::thread::sleep(std::time::Duration::from_millis(5));
                        paused.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        pace.allow(0.7);
                    });
                }
                paced.rest(&|| false);
                Verdict::GoOn
            })
        });
        assert_eq!(executed.expect("it runs").answers, expected, "{stages} stages, {together} at once");
        assert!(paused.load(std::sync::atomic::Ordering::SeqCst) > 5);
    }
}

#[test]
fn steps_timed_while_no_request_is_there_change_no_token_and_no_record() {
    let prompts = prompts();
    for stages in [1, 2] {
        let planned = planned(stages, 3, 200, &core());
        let expected = planned.execute(&prompts, &Arriving::Clients(3)).expect("it runs");
        // A pause of about two seconds, a thousand times as long as a step of this model.
        let times = (0..prompts.len() as u64).map(|i| SimTime(i / 4 * 2_000_000_000)).collect();
        let shapes = [StepShape::decode(2, 40.0), StepShape::prefill(20, 0, true), StepShape::decode(1, 1e6)];
        let orders = Orders { idle: &shapes, keeps_steps: true, ..planned.orders() };
        let found = execute(&orders, &prompts, &Arriving::At(times), &mut |_| Verdict::GoOn).expect("it runs");
        assert_eq!(found.answers, expected.answers, "{stages} stages");
        // No stage has room for a million positions.
        let timed: Vec<&StepShape> = found.idle.iter().map(|idle| &idle.shape).collect();
        assert_eq!(timed, [&shapes[0], &shapes[1]]);
        assert!(found.idle.iter().all(|idle| idle.typical().is_some_and(|typical| typical.value() > 0.0)));
        // What the stages did for requests is what is recorded: each prompt's tokens, and all but the last of each answer.
        let tokens: u64 = prompts.iter().map(|p| p.tokens.len() as u64 + u64::from(p.output_tokens) - 1).sum();
        assert!(found.trace.stages.iter().all(|stage| stage.tokens == tokens), "{:?}", found.trace.stages);
        // So it is in the steps that were kept, of which none was timed in a pause.
        let kept: u64 = found.steps.iter().map(|step| u64::from(step.shape.tokens())).sum();
        assert_eq!(kept, tokens);
        for (at, stage) in found.trace.stages.iter().enumerate() {
            let busy: u64 = found.steps.iter().map(|step| step.busy[at].0).sum();
            assert_eq!((stage.steps, stage.busy_ns.0), (found.steps.len() as u64, busy), "stage {at}");
        }
        assert!(expected.idle.is_empty() && expected.steps.is_empty());
    }
}

#[test]
fn every_request_gets_the_tokens_it_gets_alone_whatever_else_runs_and_however_layers_are_cut() {
    let prompts = prompts();
    let expected: Vec<Vec<u32>> = prompts.iter().map(|prompt| planned(1, 1, 200, &core()).alone(prompt)).collect();
    for (stages, together) in [(1, 1), (1, 4), (2, 3), (3, 7), (5, 2)] {
        let planned = planned(stages, together, 200, &core());
        for arriving in [Arriving::Clients(together), Arriving::At(vec![SimTime(0); prompts.len()])] {
            let executed = planned.execute(&prompts, &arriving).expect("it runs");
            assert_eq!(executed.answers, expected, "{stages} stages, {together} at once, {arriving:?}");
            assert!(!executed.interrupted);
            consistent(&executed.trace, &prompts, stages, planned.geometry.hidden);
        }
    }
}

#[test]
fn requests_that_are_preempted_for_want_of_cache_lose_no_token() {
    // The plan has cache for three requests of 32 tokens: six blocks. Each of these needs four by its end.
    let planned = planned(2, 3, 32, &core());
    let prompts: Vec<Prompt> = (0..4).map(|i| request(small_text(14 + i), 40)).collect();
    let executed = planned.execute(&prompts, &Arriving::Clients(4)).expect("it runs");
    for (prompt, answer) in prompts.iter().zip(&executed.answers) {
        assert_eq!(answer, &planned.alone(prompt));
    }
    // Recomputed tokens pass the stages again: more of them than prompts and answers hold.
    let needed: u64 = prompts.iter().map(|p| p.tokens.len() as u64 + u64::from(p.output_tokens) - 1).sum();
    assert!(executed.trace.stages[0].tokens > needed, "{} tokens for {needed}", executed.trace.stages[0].tokens);
}

/// A trace says what happened: every request in order, times that rise, counts that add up.
fn consistent(trace: &Trace, prompts: &[Prompt], stages: usize, hidden: usize) {
    assert_eq!(trace.origin, Origin::Measured);
    assert_eq!(trace.requests.len(), prompts.len());
    for ((record, prompt), id) in trace.requests.iter().zip(prompts).zip(0..) {
        assert_eq!(record.id, id);
        assert_eq!(record.prompt_tokens as usize, prompt.tokens.len());
        assert_eq!(record.output_tokens, prompt.output_tokens);
        assert!(record.arrival_ns <= record.first_token_ns && record.first_token_ns <= record.finished_ns);
        assert!(record.finished_ns <= trace.end_ns);
        assert_eq!(record.first_token_ns == record.finished_ns, record.output_tokens == 1);
    }
    let fed: u64 = prompts.iter().map(|p| p.tokens.len() as u64 + u64::from(p.output_tokens) - 1).sum();
    assert_eq!(trace.stages.len(), stages);
    for (record, stage) in trace.stages.iter().zip(0..) {
        assert_eq!((record.stage, record.tokens, record.steps), (stage, fed, trace.stages[0].steps));
        assert!(record.busy_ns.0 > 0 && record.busy_ns.0 <= trace.end_ns.0);
    }
    assert_eq!(trace.links.len(), stages - 1);
    for (link, pair) in trace.links.iter().zip(trace.stages.windows(2)) {
        assert_eq!((&link.from, &link.to), (&pair[0].device, &pair[1].device));
        assert_eq!((link.messages, link.bytes), (pair[1].steps, fed * 4 * hidden as u64));
        assert!(link.between_ns.0 > 0);
    }
}

#[test]
fn requests_are_served_no_sooner_than_they_arrive() {
    let planned = planned(2, 4, 200, &core());
    let prompts = prompts();
    let times: Vec<SimTime> = (0..prompts.len() as u64).map(|i| SimTime(i * 20_000_000)).collect();
    let executed = planned.execute(&prompts, &Arriving::At(times.clone())).expect("it runs");
    for (record, time) in executed.trace.requests.iter().zip(times) {
        assert_eq!(record.arrival_ns, time);
        assert!(record.first_token_ns > time);
    }
    let expected: Vec<Vec<u32>> = prompts.iter().map(|prompt| planned.alone(prompt)).collect();
    assert_eq!(executed.answers, expected);
}

#[test]
fn an_answer_ends_at_a_stop_token_and_a_run_when_its_observer_says_so() {
    let planned = planned(2, 2, 200, &core());
    let prompts = prompts();
    let all = planned.execute(&prompts, &Arriving::Clients(2)).expect("it runs").answers;
    let stop = [all[0][6]];
    let orders = Orders { stop: &stop, ..planned.orders() };
    let stopped = execute(&orders, &prompts, &Arriving::Clients(2), &mut |_| Verdict::GoOn).expect("it runs");
    for (answer, whole) in stopped.answers.iter().zip(&all) {
        let end = whole.iter().position(|token| token == &stop[0]).map_or(whole.len(), |at| at + 1);
        assert_eq!(answer, &whole[..end]);
    }
    let mut heard: Vec<(u32, u32, u32)> = Vec::new();
    let mut observe = |token: Token<'_>| {
        heard.push((token.request, token.ordinal, token.token));
        if heard.len() < 10 { Verdict::GoOn } else { Verdict::EndRun }
    };
    let cut = execute(&planned.orders(), &prompts, &Arriving::Clients(2), &mut observe).expect("it runs");
    assert!(cut.interrupted);
    assert!(heard.len() >= 10);
    for (request, answer) in (0..).zip(&cut.answers) {
        let tokens: Vec<u32> = heard.iter().filter(|t| t.0 == request).map(|t| t.2).collect();
        let ordinals: Vec<u32> = heard.iter().filter(|t| t.0 == request).map(|t| t.1).collect();
        assert_eq!(answer, &tokens);
        assert_eq!(ordinals, (1..=u32::try_from(tokens.len()).expect("few")).collect::<Vec<_>>());
        assert_eq!(tokens, all[request as usize][..tokens.len()]);
    }
}

#[test]
fn an_observer_ends_one_answer_and_no_other() {
    let planned = planned(2, 3, 200, &core());
    let prompts = prompts();
    let all = planned.execute(&prompts, &Arriving::Clients(3)).expect("it runs").answers;
    let mut observe = |token: Token<'_>| {
        if (token.request, token.ordinal) == (2, 5) { Verdict::EndAnswer } else { Verdict::GoOn }
    };
    let ended = execute(&planned.orders(), &prompts, &Arriving::Clients(3), &mut observe).expect("it runs");
    for (request, (answer, whole)) in ended.answers.iter().zip(&all).enumerate() {
        let length = if request == 2 { 5 } else { whole.len() };
        assert_eq!(answer, &whole[..length], "request {request}");
        let ending = if request == 2 { Ending::Stopped } else { Ending::Length };
        assert_eq!(ended.endings[request], ending);
    }
}

#[test]
fn requests_taken_back_or_late_or_too_many_end_as_such_and_change_no_other_answer() {
    let planned = planned(2, 2, 200, &core());
    let prompts = prompts();
    let all = planned.execute(&prompts, &Arriving::Clients(2)).expect("it runs").answers;

    let cancels = Cancels::default();
    let orders = Orders { cancels: Some(&cancels), ..planned.orders() };
    let mut observe = |token: Token<'_>| {
        if (token.request, token.ordinal) == (0, 3) {
            cancels.add(0);
            cancels.add(4);
        }
        Verdict::GoOn
    };
    let arriving = Arriving::At(vec![SimTime(0); prompts.len()]);
    let taken = execute(&orders, &prompts, &arriving, &mut observe).expect("it runs");
    for (request, (answer, whole)) in taken.answers.iter().zip(&all).enumerate() {
        match request {
            // One token may have been on its way.
            0 => assert!((3..=4).contains(&answer.len()) && whole.starts_with(answer)),
            4 => assert!(answer.is_empty()),
            _ => assert_eq!(answer, whole),
        }
        let ending = if matches!(request, 0 | 4) { Ending::Cancelled } else { Ending::Length };
        assert_eq!(taken.endings[request], ending);
    }
    assert_eq!(taken.trace.requests.len(), prompts.len() - 2);

    let mut late = prompts.clone();
    late[1].deadline = Some(SimDuration(1));
    let given_up = planned.execute(&late, &arriving).expect("it runs");
    assert_eq!((given_up.endings[1], given_up.answers[1].len()), (Ending::Deadline, 0));
    assert!(given_up.answers.iter().zip(&all).enumerate().all(|(i, (answer, whole))| i == 1 || answer == whole));

    let orders = Orders { waiting_max: Some(3), ..planned.orders() };
    let full = execute(&orders, &prompts, &arriving, &mut |_| Verdict::GoOn).expect("it runs");
    for (request, ending) in full.endings.iter().enumerate() {
        assert_eq!(*ending, if request < 3 { Ending::Length } else { Ending::Refused }, "request {request}");
    }
    assert_eq!(full.answers[..3], all[..3]);
}

#[test]
fn each_request_is_sampled_by_its_own_rules() {
    let planned = planned(2, 4, 200, &core());
    let rules = [
        Sampling::GREEDY,
        Sampling { log_probabilities: Some(3), ..SAMPLING },
        Sampling { repetition_penalty: 1.3, repetition_window: 12, ..SAMPLING },
        Sampling { min_p: 0.2, ..SAMPLING.for_request(3) },
    ];
    let prompts: Vec<Prompt> =
        rules.into_iter().map(|sampling| Prompt { sampling, ..Prompt::greedy(small_text(20), 15) }).collect();
    let mut likelihoods = Vec::new();
    let mut observe = |token: Token<'_>| {
        likelihoods.extend(token.likelihood.map(|likelihood| (token.request, likelihood.clone())));
        Verdict::GoOn
    };
    let executed = execute(&planned.orders(), &prompts, &Arriving::Clients(4), &mut observe).expect("it runs");
    for (prompt, answer) in prompts.iter().zip(&executed.answers) {
        assert_eq!(answer, &planned.alone(prompt));
    }
    assert_eq!(likelihoods.len(), 15);
    for (request, likelihood) in likelihoods {
        assert_eq!((request, likelihood.likeliest.len()), (1, 3));
        assert!(likelihood.log_probability <= likelihood.likeliest[0].1 && likelihood.likeliest[0].1 < 0.0);
    }
}

#[test]
fn what_cannot_be_executed_is_refused_with_its_reason() {
    let planned = planned(2, 2, 200, &core());
    let good = prompts();
    let refuse = |orders: &Orders<'_>, prompts: &[Prompt], arriving: &Arriving| {
        execute(orders, prompts, arriving, &mut |_| Verdict::GoOn).expect_err("it cannot run")
    };
    let once = Arriving::Clients(1);
    let orders = planned.orders();

    let short = Orders { memory_available: Some(Bytes(1 << 10)), ..planned.orders() };
    assert!(matches!(refuse(&short, &good, &once), ExecuteError::Memory { .. }));

    let blocks = Serving { kv_block_tokens: 32, ..planned.problem.serving };
    assert!(matches!(
        refuse(&Orders { serving: blocks, ..planned.orders() }, &good, &once),
        ExecuteError::Blocks { found: 32 }
    ));

    let foreign = vec![request(vec![1, 320], 3)];
    assert!(matches!(
        refuse(&orders, &foreign, &once),
        ExecuteError::UnknownToken { request: 0, token: 320, vocabulary: 320 }
    ));

    let long = vec![request(small_text(10), 9_000)];
    assert!(matches!(refuse(&orders, &long, &once), ExecuteError::TooLong { request: 0, tokens: 9_010, .. }));

    let empty = vec![request(Vec::new(), 3)];
    assert!(matches!(refuse(&orders, &empty, &once), ExecuteError::Serving(_)));

    for times in [vec![SimTime(0)], vec![SimTime(5); 6], (0..7).rev().map(SimTime).collect()] {
        assert!(matches!(refuse(&orders, &good, &Arriving::At(times)), ExecuteError::Arrivals { prompts: 7, .. }));
    }

    let absent = planned_on(&[4_000]);
    assert!(matches!(refuse(&absent.orders(), &good, &once), ExecuteError::Absent { .. }));
    let coreless = planned_on(&[]);
    assert!(matches!(refuse(&coreless.orders(), &good, &once), ExecuteError::Absent { .. }));

    let mut other = planned.geometry.clone();
    other.layers = 4;
    assert!(matches!(
        refuse(&Orders { geometry: &other, ..planned.orders() }, &good, &once),
        ExecuteError::OtherModel { planned: 5, found: 4 }
    ));
}

fn planned_on(cores: &[u32]) -> Planned {
    planned(2, 2, 200, cores)
}
