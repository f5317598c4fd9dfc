//! The fast form against the plain one, and the published rules by hand.

use super::*;
use crate::policy::Policy;
use isotherm_core::ids::RequestId;
use isotherm_core::units::SimTime;
use isotherm_core::workload::Serving;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

fn resources(requests_max: u32, step_tokens_max: u32, blocks: u32, watermark: f64) -> Resources {
    let kv_watermark = Some(watermark);
    let serving = Serving { requests_max, step_tokens_max, kv_block_tokens: 4, kv_watermark, ..Serving::default() };
    Resources { serving, kv_blocks: blocks, in_flight_max: 1 }
}

fn request(id: u32, prompt_tokens: u32, output_tokens: u32) -> Request {
    Request { id: RequestId(id), prompt_tokens, output_tokens }
}

/// What one step is and brings: prefills, decodes, their tokens, who restarts, first tokens, who is done.
type Step = (Vec<(u32, u32)>, u32, u64, Vec<RequestId>, Vec<RequestId>, Vec<RequestId>);

/// Runs a policy over arrivals, some of which come before each step.
fn run(policy: &mut dyn Policy, arrivals: &[(u32, Request)]) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut waiting = arrivals.iter().peekable();
    loop {
        while let Some((_, request)) = waiting.next_if(|(at, _)| *at <= steps.len() as u32) {
            let _ = policy.submit(*request, &[]);
        }
        let Some(batch) = policy.next_batch(SimTime::ZERO) else {
            let Some((_, request)) = waiting.next() else { return steps };
            let _ = policy.submit(*request, &[]);
            continue;
        };
        let shape = batch.shape.clone();
        let restarted = batch.preempted.clone();
        let mut completed = policy.complete(batch, &[], SimTime::ZERO);
        let first = completed.tokens.iter().filter(|token| token.ordinal == 1).map(|token| token.request).collect();
        completed.finished.sort_unstable();
        let context = libm::round(shape.decode_context * f64::from(shape.decodes)) as u64;
        steps.push((shape.prefills, shape.decodes, context, restarted, first, completed.finished.clone()));
        policy.reuse(completed);
        assert!(steps.len() < 100_000, "the run does not end");
    }
}

#[test]
fn padded_prompts_fill_a_step_and_decodes_wait_for_a_step_without_prompts() {
    let mut policy = Lockstep::new(Rule::Vllm, resources(8, 10, 100, 0.0)).expect("limits");
    let steps = run(&mut policy, &[(0, request(0, 2, 3)), (0, request(1, 5, 2)), (0, request(2, 4, 1))]);
    // Two prompts of at most 5 tokens are 10; a third would make 15.
    let seen: Vec<(usize, u32)> = steps.iter().map(|step| (step.0.len(), step.1)).collect();
    assert_eq!(seen, [(2, 0), (1, 0), (0, 2), (0, 1)]);
    assert_eq!(steps[1].5, [RequestId(2)]);
}

#[test]
fn decodes_count_against_the_chunk() {
    let mut policy = Lockstep::new(Rule::Sarathi, resources(8, 8, 100, 0.0)).expect("limits");
    let steps = run(&mut policy, &[(0, request(0, 3, 4)), (0, request(1, 9, 2)), (0, request(2, 4, 1))]);
    let seen: Vec<(Vec<(u32, u32)>, u32)> = steps.into_iter().map(|step| (step.0, step.1)).collect();
    assert_eq!(seen[0], (vec![(3, 0), (5, 0)], 0));
    assert_eq!(seen[1], (vec![(4, 5), (3, 0)], 1));
    assert_eq!(seen[2], (vec![(1, 3)], 2));
}

#[test]
fn the_last_in_the_list_restarts_and_prefills_all_its_tokens_again() {
    // Four blocks of four tokens: two prompts of four take two of them, and each wants a block more in its first step
    // of decoding, after which none is left over for the eighth token.
    let mut policy = Lockstep::new(Rule::Sarathi, resources(4, 64, 4, 0.0)).expect("limits");
    let steps = run(&mut policy, &[(0, request(0, 4, 8)), (0, request(1, 4, 8))]);
    let restarted: Vec<&Step> = steps.iter().filter(|step| !step.3.is_empty()).collect();
    assert_eq!(restarted[0].3, [RequestId(1)]);
    assert_eq!(steps.iter().map(|step| step.5.len()).sum::<usize>(), 2);
}

#[test]
fn what_can_never_be_served_is_refused() {
    let mut vllm = Lockstep::new(Rule::Vllm, resources(4, 8, 10, 0.1)).expect("limits");
    assert!(matches!(vllm.submit(request(0, 9, 1), &[]), Err(ServingError::PromptTooLong { .. })));
    let mut sarathi = Lockstep::new(Rule::Sarathi, resources(4, 8, 10, 0.1)).expect("limits");
    assert!(sarathi.submit(request(0, 36, 1), &[]).is_ok());
    assert!(matches!(sarathi.submit(request(1, 37, 1), &[]), Err(ServingError::TooLong { needed: 11, .. })));
    assert!(matches!(sarathi.submit(request(1, 30, 8), &[]), Err(ServingError::TooLong { needed: 11, .. })));
    assert!(sarathi.submit(request(1, 0, 8), &[]).is_err());
    assert!(Lockstep::new(Rule::Vllm, resources(0, 8, 10, 0.1)).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(1), ..ProptestConfig::with_cases(600) })]
    #[test]
    fn on_one_stage_sums_do_what_lists_do(
        vllm in any::<bool>(),
        requests_max in 1_u32..12, step in 4_u32..40, blocks in 8_u32..40, watermark in 0.0..0.2,
        load in prop::collection::vec((0_u32..6, 1_u32..40, 1_u32..40), 1..60),
    ) {
        let rule = if vllm { Rule::Vllm } else { Rule::Sarathi };
        let resources = resources(requests_max, step, blocks, watermark);
        let mut at = 0;
        let arrivals: Vec<(u32, Request)> = load.iter().zip(0..).map(|(&(gap, prompt, output), id)| {
            at += gap;
            (at, request(id, prompt, output))
        }).collect();
        let mut fast = Lockstep::new(rule, resources).expect("limits");
        let mut plain = Lists::new(rule, resources).expect("limits");
        prop_assert_eq!(run(&mut fast, &arrivals), run(&mut plain, &arrivals));
    }

    #[test]
    fn stages_take_turns_and_every_request_ends(
        // A restarted request must still fit a step whole where prompts are not divided.
        vllm in any::<bool>(), stages in 1_u32..4, load in prop::collection::vec((1_u32..12, 1_u32..12), 1..40),
    ) {
        let rule = if vllm { Rule::Vllm } else { Rule::Sarathi };
        let resources = Resources { in_flight_max: stages, ..resources(8, 24, 40, 0.01) };
        let mut policy = Lists::new(rule, resources).expect("limits");
        for (&(prompt, output), id) in load.iter().zip(0..) {
            policy.submit(request(id, prompt, output), &[]).expect("it fits");
        }
        let (mut out, mut done) = (std::collections::VecDeque::new(), 0);
        for _ in 0..20_000 {
            while let Some(batch) = policy.next_batch(SimTime::ZERO) {
                prop_assert!(batch.shape.decodes as usize + batch.shape.prefills.len() <= (8 / stages) as usize);
                out.push_back(batch);
            }
            prop_assert!(out.len() <= stages as usize);
            let Some(batch) = out.pop_front() else { break };
            done += policy.complete(batch, &[], SimTime::ZERO).finished.len();
        }
        prop_assert_eq!(done, load.len());
    }
}
