//! What the engine promises, and what it does against a direct reading of its rules.

use super::*;
use isotherm_core::workload::Serving;
use proptest::prelude::*;

fn resources(requests_max: u32, step_tokens_max: u32, kv_blocks: u32) -> Resources {
    let serving = Serving { requests_max, step_tokens_max, kv_block_tokens: 4, ..Serving::default() };
    Resources { serving, kv_blocks, in_flight_max: 1 }
}

fn request(id: u32, prompt_tokens: u32, output_tokens: u32) -> Request {
    Request { id: RequestId(id), prompt_tokens, output_tokens }
}

fn engine(resources: Resources, options: VllmOptions) -> Vllm {
    Vllm::new(resources, options).expect("limits above zero")
}

/// A part of a batch: request, tokens cached before, tokens, whether a token comes of it.
type Held = (u32, u32, u32, bool);

/// Takes the next batch and says what it holds.
fn next(engine: &mut Vllm) -> Option<(Batch, Vec<Held>)> {
    let batch = engine.next_batch(SimTime::ZERO)?;
    let items =
        batch.items.iter().map(|item| (item.request.0, item.work.start(), item.work.tokens(), item.work.yields()));
    let items = items.collect();
    Some((batch, items))
}

const PLAIN: VllmOptions = VllmOptions {
    prefix_caching: false,
    chunked_prefill: true,
    long_prefill_tokens: 0,
    reserve_whole: true,
    look_ahead: false,
    context_max: u32::MAX,
};

#[test]
fn running_requests_come_first_and_the_rest_of_the_budget_is_the_queues() {
    let mut engine = engine(resources(8, 10, 100), PLAIN);
    engine.submit(request(0, 6, 5), &[]).expect("fits");
    engine.submit(request(1, 9, 5), &[]).expect("fits");
    let (batch, items) = next(&mut engine).expect("work");
    assert_eq!(items, [(0, 0, 6, true), (1, 0, 4, false)]);
    engine.complete(batch, &[], SimTime::ZERO);
    engine.submit(request(2, 9, 5), &[]).expect("fits");
    let (_, items) = next(&mut engine).expect("work");
    assert_eq!(items, [(0, 6, 1, true), (1, 4, 5, true), (2, 0, 4, false)]);
}

#[test]
fn the_next_step_is_formed_while_one_runs_and_no_more() {
    let mut engine = engine(resources(8, 64, 100), VllmOptions::default());
    engine.submit(request(0, 8, 3), &[]).expect("fits");
    let (first, items) = next(&mut engine).expect("work");
    assert_eq!(items, [(0, 0, 8, true)]);
    let (second, items) = next(&mut engine).expect("the token that is on its way is known to come");
    assert_eq!(items, [(0, 8, 1, true)]);
    assert!(next(&mut engine).is_none());
    // A request that comes now waits until a step is over.
    engine.submit(request(1, 8, 1), &[]).expect("fits");
    assert!(next(&mut engine).is_none());
    engine.complete(first, &[], SimTime::ZERO);
    let (third, items) = next(&mut engine).expect("work");
    assert_eq!(items, [(0, 9, 1, true), (1, 0, 8, true)]);
    engine.complete(second, &[], SimTime::ZERO);
    // The last token of the first and the only one of the second are on their way.
    assert!(next(&mut engine).is_none());
    let completed = engine.complete(third, &[], SimTime::ZERO);
    assert_eq!(completed.finished, [RequestId(0), RequestId(1)]);
    assert_eq!((engine.running(), engine.waiting(), engine.free_blocks()), (0, 0, 100));
}

#[test]
fn an_engine_that_found_nothing_to_do_looks_again_only_when_a_step_is_over() {
    let mut engine = engine(resources(8, 64, 100), VllmOptions::default());
    engine.submit(request(0, 8, 1), &[]).expect("fits");
    let (first, _) = next(&mut engine).expect("work");
    assert!(next(&mut engine).is_none(), "its only token is on its way");
    engine.submit(request(1, 8, 1), &[]).expect("fits");
    assert!(next(&mut engine).is_none(), "the engine waits for the step");
    engine.complete(first, &[], SimTime::ZERO);
    assert!(next(&mut engine).is_some());
}

#[test]
fn who_was_admitted_last_gives_way_and_finds_its_blocks_again() {
    // Nine blocks: two requests of sixteen tokens hold four each, and one block is free when both grow into a fifth.
    let options = VllmOptions { look_ahead: false, ..VllmOptions::default() };
    let mut engine = engine(resources(8, 64, 9), options);
    engine.submit(request(0, 16, 8), &[]).expect("fits");
    engine.submit(request(1, 16, 8), &[]).expect("fits");
    let (batch, _) = next(&mut engine).expect("work");
    engine.complete(batch, &[], SimTime::ZERO);
    let (batch, items) = next(&mut engine).expect("work");
    assert_eq!(items, [(0, 16, 1, true)]);
    assert_eq!(batch.preempted, [RequestId(1)]);
    engine.complete(batch, &[], SimTime::ZERO);
    // Seventeen tokens are known of it, which needs five blocks: four are free until the first is done.
    let mut steps = 1;
    let back = loop {
        let (batch, items) = next(&mut engine).expect("work");
        if items.iter().any(|item| item.0 == 1) {
            break items;
        }
        steps += 1;
        engine.complete(batch, &[], SimTime::ZERO);
    };
    assert_eq!(steps, 7);
    // Of its four blocks the first three and the fourth were known; the first request took one, the last one freed.
    assert_eq!(back, [(1, 12, 5, true)]);
    assert_eq!(engine.counts().preemptions, 1);
    assert_eq!(engine.counts().reused_tokens, 12);
}

#[test]
fn equal_beginnings_are_held_together_and_the_last_token_is_computed_all_the_same() {
    let options = VllmOptions { look_ahead: false, ..VllmOptions::default() };
    let mut engine = engine(resources(8, 64, 100), options);
    engine.submit(request(0, 8, 4), &[7, 8]).expect("fits");
    let (batch, _) = next(&mut engine).expect("work");
    engine.complete(batch, &[], SimTime::ZERO);
    engine.submit(request(1, 8, 4), &[7, 8]).expect("fits");
    engine.submit(request(2, 12, 4), &[7, 8, 9]).expect("fits");
    engine.submit(request(3, 8, 4), &[7, 5]).expect("fits");
    let (_, items) = next(&mut engine).expect("work");
    assert_eq!(items, [(0, 8, 1, true), (1, 4, 4, true), (2, 8, 4, true), (3, 4, 4, true)]);
}

#[test]
fn nobody_is_admitted_whose_known_tokens_do_not_all_fit() {
    for (reserve_whole, admitted) in [(true, 1), (false, 2)] {
        let mut engine = engine(resources(8, 12, 6), VllmOptions { reserve_whole, ..PLAIN });
        engine.submit(request(0, 8, 1), &[]).expect("fits");
        engine.submit(request(1, 20, 1), &[]).expect("fits");
        let (batch, _) = next(&mut engine).expect("work");
        assert_eq!(batch.items.len(), admitted);
    }
}

#[test]
fn a_prompt_longer_than_the_budget_is_not_divided_where_that_is_off() {
    let mut engine = engine(resources(8, 10, 100), VllmOptions { chunked_prefill: false, ..PLAIN });
    engine.submit(request(0, 6, 5), &[]).expect("fits");
    engine.submit(request(1, 9, 5), &[]).expect("fits");
    let (_, items) = next(&mut engine).expect("work");
    assert_eq!(items, [(0, 0, 6, true)]);
}

#[test]
fn what_could_never_be_served_is_refused() {
    let mut engine = engine(resources(8, 64, 4), VllmOptions::default());
    assert!(matches!(engine.submit(request(0, 16, 2), &[]), Err(ServingError::TooLong { .. })));
    assert!(engine.submit(request(0, 16, 1), &[]).is_ok());
    assert!(matches!(engine.submit(request(0, 1, 1), &[]), Err(ServingError::OutOfOrder { .. })));
    assert!(matches!(engine.submit(request(1, 0, 1), &[]), Err(ServingError::Zero(_))));
    assert!(Vllm::new(resources(0, 1, 1), VllmOptions::default()).is_err());
}

proptest! {
    /// Whatever the load: no block is lost, no step is over budget, tokens of a request come one after another, and
    /// everybody is answered in full.
    #[test]
    fn every_request_is_answered_in_full_and_every_block_comes_back(
        lengths in prop::collection::vec((1u32..40, 1u32..30, 0u64..3), 1..14),
        blocks in 18u32..40,
        budget in 1u32..50,
        requests_max in 1u32..6,
        prefix_caching in any::<bool>(),
        look_ahead in any::<bool>(),
        every in 1usize..4,
    ) {
        let options = VllmOptions { prefix_caching, look_ahead, ..VllmOptions::default() };
        let mut engine = engine(resources(requests_max, budget, blocks), options);
        let mut produced = vec![0u32; lengths.len()];
        let mut out = VecDeque::new();
        let (mut submitted, mut steps) = (0, 0usize);
        loop {
            if submitted < lengths.len() && steps.is_multiple_of(every) {
                let (prompt, output, name) = lengths[submitted];
                let names: Vec<u64> = (0..u64::from(prompt / 4)).map(|block| name * 100 + block).collect();
                engine.submit(request(submitted as u32, prompt, output), &names).expect("fits");
                submitted += 1;
            }
            while let Some(batch) = engine.next_batch(SimTime::ZERO) {
                let tokens: u32 = batch.items.iter().map(|item| item.work.tokens()).sum();
                prop_assert!(tokens <= budget && tokens == batch.shape.tokens());
                let mut ids: Vec<RequestId> = batch.items.iter().map(|item| item.request).collect();
                ids.sort_unstable();
                ids.dedup();
                prop_assert_eq!(ids.len(), batch.items.len());
                prop_assert!(engine.running() <= requests_max as usize);
                out.push_back(batch);
            }
            prop_assert!(out.len() <= 1 + usize::from(look_ahead));
            let Some(batch) = out.pop_front() else {
                if submitted == lengths.len() {
                    break;
                }
                steps += 1;
                continue;
            };
            let completed = engine.complete(batch, &[], SimTime::ZERO);
            for token in completed.tokens {
                produced[token.request.index()] += 1;
                prop_assert_eq!(token.ordinal, produced[token.request.index()]);
            }
            steps += 1;
            prop_assert!(steps < 100_000);
        }
        let asked: Vec<u32> = lengths.iter().map(|length| length.1).collect();
        prop_assert_eq!(produced, asked);
        prop_assert_eq!((engine.running(), engine.waiting(), engine.free_blocks()), (0, 0, blocks));
    }
}

/// FNV-1a over numbers, each as eight bytes, least significant first.
struct Fnv(u64);

impl Fnv {
    fn mix(&mut self, number: u64) {
        for byte in number.to_le_bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// Requests of a made-up load: arrival, prompt tokens, names of its blocks, answer tokens. A prompt begins with up to
/// seven blocks of one of four texts.
fn made_up() -> Vec<(u64, u32, Vec<u64>, u32)> {
    let mut state = 42u64;
    let mut below = |n: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % n
    };
    let mut at = 0;
    let requests = (0..200u64).map(|i| {
        at += below(30_000_000);
        let (text, shared, own, output) = (below(4), below(8), 1 + below(120), 1 + below(150));
        let prompt = shared * 16 + own;
        let name = |block| if block < shared { text * 100 + block } else { 1_000_000 + i * 100 + block };
        (at, prompt as u32, (0..prompt / 16).map(name).collect(), output as u32)
    });
    requests.collect()
}

/// Serves the made-up load where a step of `n` tokens takes 5 ms and 20 us for each; gives the digest of all steps and
/// of all first and last tokens, the number of steps and of preemptions, and the end.
fn replay(blocks: u32, budget: u32, requests_max: u32) -> (u64, u64, u64, u64) {
    let serving = Serving { requests_max, step_tokens_max: budget, ..Serving::default() };
    let resources = Resources { serving, kv_blocks: blocks - 1, in_flight_max: 1 };
    let mut engine = engine(resources, VllmOptions { context_max: 32_768, ..VllmOptions::default() });
    let load = made_up();
    let (mut digest, mut steps, mut preemptions) = (Fnv(0xcbf2_9ce4_8422_2325), 0, 0);
    let mut times = vec![(0u64, 0u64); load.len()];
    let (mut next_arrival, mut now, mut free_at) = (0, 0, 0);
    let mut out: VecDeque<(u64, Batch)> = VecDeque::new();
    loop {
        match out.pop_front() {
            Some((end, batch)) => {
                now = end;
                for token in engine.complete(batch, &[], SimTime(now)).tokens {
                    let (first, last) = &mut times[token.request.index()];
                    *first = if token.ordinal == 1 { now } else { *first };
                    *last = now;
                }
            }
            None if next_arrival == load.len() => break,
            None => now = now.max(load[next_arrival].0),
        }
        while next_arrival < load.len() && load[next_arrival].0 <= now {
            let (_, prompt, names, output) = &load[next_arrival];
            engine.submit(request(next_arrival as u32, *prompt, *output), names).expect("fits");
            next_arrival += 1;
        }
        while let Some(batch) = engine.next_batch(SimTime(now)) {
            for item in &batch.items {
                digest.mix(item.request.0.into());
                digest.mix(item.work.start().into());
                digest.mix(item.work.tokens().into());
            }
            digest.mix(0xffff_ffff);
            steps += 1;
            preemptions += batch.preempted.len() as u64;
            free_at = now.max(free_at) + 5_000_000 + 20_000 * u64::from(batch.shape.tokens());
            out.push_back((free_at, batch));
        }
    }
    for (first, last) in times {
        digest.mix(first);
        digest.mix(last);
    }
    (digest.0, steps, preemptions, now)
}

/// The figures are those of vLLM 0.19.0's own `AsyncScheduler`, driven by the loop of its engine core on the same load
/// with the same times of steps: which tokens of which request every step held, and when every request had its first
/// and its last token. Blocks are few, plenty, and so few that most steps are full. `benches/peers/vllm_steps.py`
/// prints them.
#[test]
fn every_step_is_the_one_that_vllms_own_scheduler_forms() {
    assert_eq!(replay(150, 256, 32), (8_663_627_476_982_314_349, 1088, 136, 6_172_825_334));
    assert_eq!(replay(90, 64, 8), (1_691_164_621_267_081_111, 2112, 17, 11_204_885_334));
    assert_eq!(replay(400, 512, 64), (11_392_042_538_635_198_405, 626, 0, 3_705_665_334));
}
