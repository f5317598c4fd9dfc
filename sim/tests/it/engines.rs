//! The door for plans and the door for single engines: the same requests, the same times.

use crate::material::{Case, Costs, poisson, replicas_of};
use isotherm_core::cost::StepShape;
use isotherm_core::ids::{Layers, RequestId};
use isotherm_core::problem::PlacementProblem;
use isotherm_core::serving::{Batch, Request, Resources};
use isotherm_core::units::SimTime;
use isotherm_core::workload::Serving;
use isotherm_core::workload::replay::Replay;
use isotherm_sim::policy::PolicyName;
use isotherm_sim::replica::{Arrival, serve};
use isotherm_sim::{Options, SimulateError, replay};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

type Times = (u64, u64, u64);

/// Arrival, first and last token of every request, by a plan of one stage without links and heat; none where the policy
/// comes to a halt, as that of a peer does when answers that it put out hold all cache.
fn by_plan(problem: &PlacementProblem, load: &Replay, policy: PolicyName) -> Option<Vec<Times>> {
    let options = Options { policy, trace: true, ..Options::default() };
    let report = match replay(&replicas_of(problem), problem, load, &options) {
        Ok(report) => report,
        Err(SimulateError::Stuck { .. }) => return None,
        Err(error) => panic!("{error}"),
    };
    let requests = report.trace.expect("asked for").requests;
    Some(requests.iter().map(|r| (r.arrival_ns.0, r.first_token_ns.0, r.finished_ns.0)).collect())
}

/// The same by a single engine that asks the problem for the time of each step.
fn by_engine(problem: &PlacementProblem, load: &Replay, policy: PolicyName, blocks: u32) -> Option<Vec<Times>> {
    let device = problem.graph.device_ids().next().expect("a device");
    let layers = Layers::new(0, problem.layers());
    let resources = Resources { serving: problem.serving, kv_blocks: blocks, in_flight_max: 1 };
    let mut engines = vec![policy.start(resources, 1, true).expect("limits")];
    let arrivals = load.requests().iter().zip(0..).map(|(request, id)| Arrival {
        at: request.arrival,
        request: Request {
            id: RequestId(id),
            prompt_tokens: request.prompt_tokens,
            output_tokens: request.output_tokens,
        },
        prompt: Vec::new(),
    });
    let arrivals: Vec<Arrival> = arrivals.collect();
    let mut pass = |batches: &[Option<&Batch>]| {
        let shape: &StepShape = &batches[0].expect("one engine").shape;
        problem.step(device, layers, shape).expect("a profile")
    };
    let served = serve(&mut engines, &arrivals, false, &mut pass).expect("served");
    if served.answers.iter().any(|answer| answer.last_token == SimTime::NEVER) {
        return None;
    }
    let times = |(arrival, answer): (&Arrival, &isotherm_sim::replica::Answer)| {
        assert!(answer.queued >= arrival.at && answer.queued < answer.first_token, "{answer:?}");
        (arrival.at.0, answer.first_token.0, answer.last_token.0)
    };
    Some(arrivals.iter().zip(&served.answers).map(times).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]
    /// Step times are no whole nanoseconds, arrivals often meet, and cache is short enough to preempt.
    #[test]
    fn a_plan_of_one_stage_and_a_single_engine_give_every_request_the_same_times(
        gaps in prop::collection::vec((0_u64..4, 1_u32..60, 1_u32..20), 1..60),
        (step, token, cached) in (0.001..0.9_f64, 0.0..0.05_f64, 0.0..0.01_f64),
        (requests_max, step_tokens, blocks, spread) in (1_u32..8, 80_u32..120, 20_u32..40, 1_u64..900),
    ) {
        let serving = Serving {
            requests_max,
            step_tokens_max: step_tokens,
            kv_block_tokens: 4,
            kv_blocks: Some(blocks),
            ..Serving::default()
        };
        let costs = Costs { token, cached, ..Costs::fixed(step) };
        let case = Case { serving, ..Case::single(costs, poisson(1.0, 1, 1, 1)) };
        let mut problem = case.problem();
        let mut text = String::from("arrived_at,num_prefill_tokens,num_decode_tokens\n");
        let mut at = 0;
        for (gap, prompt, output) in gaps {
            at += gap * spread * 1_000;
            text.push_str(&format!("{}.{:09},{prompt},{output}\n", at / 1_000_000_000, at % 1_000_000_000));
        }
        let load = Replay::parse(&text).expect("a load");
        for policy in PolicyName::ALL {
            problem.serving = serving;
            let (plan, engine) = (by_plan(&problem, &load, policy), by_engine(&problem, &load, policy, blocks));
            prop_assert_eq!(plan, engine, "{}", policy);
        }
    }
}

#[test]
fn a_request_that_comes_as_a_step_ends_is_seen_by_the_engine_at_that_moment() {
    let case = Case::single(Costs::fixed(1.0), poisson(1.0, 1, 1, 1));
    let problem = case.problem();
    let load = "arrived_at,num_prefill_tokens,num_decode_tokens\n0,1,3\n0.001953125,1,1\n";
    let load = Replay::parse(load).expect("a load");
    let times = by_engine(&problem, &load, PolicyName::Isotherm, 100);
    assert_eq!(times, by_plan(&problem, &load, PolicyName::Isotherm));
    assert_eq!(times.expect("served")[1].0, crate::material::UNIT);
}
