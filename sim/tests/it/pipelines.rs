//! Deterministic pipelines take exactly what one works out by hand, to the nanosecond.

use crate::material::{Case, Costs, UNIT, closed, times};
use isotherm_core::ids::Layers;
use isotherm_core::workload::Serving;
use isotherm_sim::Options;
use isotherm_sim::policy::PolicyName;

const COSTS: [Costs; 3] = [
    Costs { step: 2.0, token: 1.0, cached: 1.0, head: 7.0, embedding: 3.0 },
    Costs { step: 9.0, token: 2.0, cached: 1.0, head: 7.0, embedding: 3.0 },
    Costs { step: 4.0, token: 3.0, cached: 2.0, head: 7.0, embedding: 3.0 },
];
const LAYERS: u64 = 2;

/// Steps of all stages and the hops between them, in units, for tokens that travel together.
fn pass(tokens: u64, contexts: u64) -> u64 {
    let entry = 5 + tokens;
    let hops = 2 * (3 + tokens);
    let steps: u64 = COSTS.iter().enumerate().map(|(i, c)| c.units(LAYERS, i == 0, i == 2, tokens, contexts, 1)).sum();
    let exit = 5 + 1;
    entry + steps + hops + exit
}

#[test]
fn one_stream_through_three_stages_takes_the_hand_formula() {
    let (prompt, output) = (10, 6);
    let trace = Case::chain(&COSTS, 2, closed(1, 3, prompt, output)).trace();
    let first = pass(u64::from(prompt), 0);
    // Decode number i feeds one token and reads a context that includes it.
    let rest: u64 = (1..u64::from(output)).map(|i| pass(1, u64::from(prompt) + i)).sum();
    assert_eq!(trace.requests.len(), 3);
    for request in &trace.requests {
        assert_eq!(times(request), (first * UNIT, (first + rest) * UNIT), "request {}", request.id);
    }
    assert_eq!(trace.end_ns.0, 3 * (first + rest) * UNIT);
    let tokens = 3 * u64::from(prompt + output - 1);
    assert!(trace.stages.iter().all(|s| s.steps == 18 && s.tokens == tokens), "{:?}", trace.stages);
}

#[test]
fn chunks_of_a_prompt_overlap_as_in_a_flow_shop() {
    // Three chunks, at most three batches in flight: all leave the coordinator at time zero.
    for chunk in [16_u64, 20, 25] {
        let prompt = 3 * chunk - 4;
        let mut case = Case::chain(&COSTS, 2, closed(1, 1, prompt as u32, 1));
        case.serving = Serving { step_tokens_max: chunk as u32, ..case.serving };
        let trace = case.trace();
        // Machines in the order in which a chunk meets them: link, stage, link, stage, link, stage. Each takes the
        // chunks one after another; a link hands over its latency after it is free.
        let mut free = [0_u64; 6];
        let mut last = 0;
        for c in 0..3 {
            let (tokens, cached) = (chunk.min(prompt - c * chunk), c * chunk);
            let sequences = u64::from(c == 2);
            let mut ready = 0;
            for (stage, costs) in COSTS.iter().enumerate() {
                let (link, latency) = (2 * stage, if stage == 0 { 5 } else { 3 });
                free[link] = free[link].max(ready) + tokens;
                ready = free[link] + latency;
                let step = costs.units(LAYERS, stage == 0, stage == 2, tokens, cached, sequences);
                free[link + 1] = free[link + 1].max(ready) + step;
                ready = free[link + 1];
            }
            last = ready;
        }
        assert_eq!(trace.requests[0].ttft().0, (last + 5 + 1) * UNIT, "chunks of {chunk}");
    }
}

#[test]
fn micro_batches_fill_the_pipeline() {
    // Three requests, one per batch once they decode, on three equal stages with links that cost next to nothing
    // beside them: the slowest stage is busy almost all the time.
    let equal = Costs::fixed(1_000.0);
    let mut case = Case::chain(&[equal; 3], 1, closed(3, 3, 4, 200));
    case.serving.requests_max = 3;
    let trace = case.trace();
    let end = trace.end_ns.seconds().value();
    for stage in &trace.stages {
        let utilisation = stage.busy_ns.seconds().value() / end;
        assert!(utilisation > 0.95, "{utilisation} {stage:?}");
    }
    let mut alone = Case::chain(&[equal; 3], 1, closed(1, 3, 4, 200));
    alone.serving.requests_max = 1;
    let ratio = alone.trace().end_ns.seconds().value() / end;
    assert!((2.8..3.0).contains(&ratio), "{ratio}");
}

#[test]
fn remainders_below_a_nanosecond_are_not_lost() {
    // A step of 1/3 ns more than a microsecond: rounding each one down would lose 333 ns in 1000 steps.
    let step = (1e-6 + 1e-9 / 3.0) * 512.0;
    let trace = Case::single(Costs::fixed(step), closed(1, 1, 1, 1_000)).trace();
    let exact = 1_000.0 * (1_000.0 + 1.0 / 3.0);
    assert!((trace.end_ns.0 as f64 - exact).abs() <= 1.0, "{} {exact}", trace.end_ns.0);
}

#[test]
fn engines_of_different_shape_serve_one_load_side_by_side() {
    // A pipeline of two devices beside one device that holds everything; shares of two thirds and one third.
    let mut case = Case::chain(&[Costs::fixed(10.0); 3], 1, closed(3, 9, 1, 2));
    case.layers = vec![Layers::new(0, 1), Layers::new(1, 2), Layers::new(0, 2)];
    case.routes = vec![(vec![0, 1], 2.0 / 3.0), (vec![2], 1.0 / 3.0)];
    case.serving.requests_max = 8;
    case.batch = Some(1);
    for policy in [PolicyName::Isotherm, PolicyName::VidurSarathi] {
        let options = Options { trace: true, policy, ..Options::default() };
        let trace = case.report(&options).trace.expect("asked for");
        let served: Vec<(&str, u64)> = trace.stages.iter().map(|s| (s.device.as_str(), s.tokens)).collect();
        // Nine requests of two tokens: six pass both stages of the pipeline.
        assert_eq!(served, [("d0", 12), ("d1", 12), ("d2", 6)], "{policy}");
        // Alone on its engine a token takes 6 in, a step of 10 and 6 back, and in the pipeline a hop of 4 and another step.
        let alone: Vec<u64> = trace.requests.iter().map(|r| times(r).0).collect();
        assert!(alone.contains(&(22 * UNIT)), "{policy}: {alone:?}");
        assert!(policy != PolicyName::Isotherm || alone.contains(&(36 * UNIT)), "{policy}: {alone:?}");
    }
}
