use super::*;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use std::collections::{BTreeMap, BTreeSet};

fn resources(requests_max: u32, step_tokens_max: u32, kv_blocks: u32, in_flight_max: u32) -> Resources {
    let serving = Serving { requests_max, step_tokens_max, kv_block_tokens: 16, ..Serving::default() };
    Resources { serving, kv_blocks, in_flight_max }
}

fn request(id: u32, prompt_tokens: u32, output_tokens: u32) -> Request {
    Request { id: RequestId(id), prompt_tokens, output_tokens }
}

fn scheduler(resources: Resources, requests: &[(u32, u32)]) -> Scheduler {
    let mut scheduler = Scheduler::new(resources).expect("positive limits");
    for (id, &(prompt, output)) in (0..).zip(requests) {
        scheduler.submit(request(id, prompt, output)).expect("fits");
    }
    scheduler
}

fn prefill(id: u32, start: u32, tokens: u32, last: bool) -> Item {
    Item { request: RequestId(id), work: Work::Prefill { start, tokens, last } }
}

fn decode(id: u32, start: u32) -> Item {
    Item { request: RequestId(id), work: Work::Decode { start } }
}

#[test]
fn a_lone_request_is_prefilled_in_chunks_and_decoded_one_token_at_a_time() {
    let mut scheduler = scheduler(resources(1, 8, 4, 1), &[(20, 3)]);
    let mut seen = Vec::new();
    while let Some(batch) = scheduler.next_batch(SimTime::ZERO) {
        assert!(scheduler.next_batch(SimTime::ZERO).is_none(), "one batch in flight");
        seen.extend(batch.items.iter().copied());
        scheduler.complete(batch, &[], SimTime::ZERO);
    }
    let expected =
        [prefill(0, 0, 8, false), prefill(0, 8, 8, false), prefill(0, 16, 4, true), decode(0, 20), decode(0, 21)];
    assert_eq!(seen, expected);
    assert!(scheduler.is_idle());
    assert_eq!(scheduler.free_blocks(), 4);
}

#[test]
fn decodes_come_before_prefill_and_old_requests_before_new_ones() {
    let mut scheduler = scheduler(resources(4, 10, 100, 1), &[(3, 9), (4, 9), (20, 9)]);
    let first = scheduler.next_batch(SimTime::ZERO).expect("work");
    assert_eq!(first.items, [prefill(0, 0, 3, true), prefill(1, 0, 4, true), prefill(2, 0, 3, false)]);
    scheduler.complete(first, &[], SimTime::ZERO);
    scheduler.submit(request(3, 2, 1)).expect("fits");
    let second = scheduler.next_batch(SimTime::ZERO).expect("work");
    assert_eq!(second.items, [decode(0, 3), decode(1, 4), prefill(2, 3, 8, false)]);
    assert_eq!(second.shape.sequences, 2);
    assert_eq!((second.shape.decodes, second.shape.decode_context), (2, 4.5));
    assert_eq!(second.shape.prefills, [(8, 3)]);
}

#[test]
fn chunks_of_one_prompt_follow_each_other_through_the_pipeline_but_a_decode_waits_for_its_token() {
    let mut scheduler = scheduler(resources(1, 8, 4, 3), &[(12, 5)]);
    let first = scheduler.next_batch(SimTime::ZERO).expect("first chunk");
    let second = scheduler.next_batch(SimTime::ZERO).expect("second chunk");
    assert_eq!((first.items[0], second.items[0]), (prefill(0, 0, 8, false), prefill(0, 8, 4, true)));
    assert!(scheduler.next_batch(SimTime::ZERO).is_none());
    assert_eq!(scheduler.complete(first, &[], SimTime::ZERO), Completed::default());
    assert!(scheduler.next_batch(SimTime::ZERO).is_none());
    assert_eq!(scheduler.complete(second, &[], SimTime::ZERO).tokens.len(), 1);
    assert_eq!(scheduler.next_batch(SimTime::ZERO).expect("decode").items, [decode(0, 12)]);
}

#[test]
fn decodes_spread_over_the_batches_in_flight() {
    let mut scheduler = scheduler(resources(8, 100, 100, 3), &[(1, 9); 7]);
    let first = scheduler.next_batch(SimTime::ZERO).expect("prefill of all");
    scheduler.complete(first, &[], SimTime::ZERO);
    let sizes: Vec<usize> =
        std::iter::from_fn(|| scheduler.next_batch(SimTime::ZERO)).map(|batch| batch.items.len()).collect();
    assert_eq!(sizes, [3, 3, 1]);
}

#[test]
fn the_youngest_is_preempted_and_its_tokens_so_far_become_prefill() {
    // Two requests of 16 tokens fill two blocks; the first decode of either needs a third.
    let mut scheduler = scheduler(resources(2, 100, 3, 1), &[(16, 3), (16, 3)]);
    let batch = scheduler.next_batch(SimTime::ZERO).expect("both prefill");
    scheduler.complete(batch, &[], SimTime::ZERO);
    let batch = scheduler.next_batch(SimTime::ZERO).expect("the first decodes, the second gives way");
    assert_eq!(
        (batch.items.as_slice(), batch.preempted.as_slice()),
        ([decode(0, 16)].as_slice(), [RequestId(1)].as_slice())
    );
    scheduler.complete(batch, &[], SimTime::ZERO);
    let batch = scheduler.next_batch(SimTime::ZERO).expect("17 tokens need two blocks, one is free");
    assert_eq!(batch.items, [decode(0, 17)]);
    assert_eq!(scheduler.complete(batch, &[], SimTime::ZERO).finished, [RequestId(0)]);
    let batch = scheduler.next_batch(SimTime::ZERO).expect("recomputed");
    assert_eq!(batch.items, [prefill(1, 0, 17, true)]);
    let ordinals: Vec<u32> = scheduler.complete(batch, &[], SimTime::ZERO).tokens.iter().map(|t| t.ordinal).collect();
    assert_eq!(ordinals, [2]);
}

#[test]
fn a_request_ends_early_with_the_token_that_ends_it() {
    let mut scheduler = scheduler(resources(2, 100, 10, 1), &[(4, 100), (4, 100)]);
    let batch = scheduler.next_batch(SimTime::ZERO).expect("work");
    let completed = scheduler.complete(batch, &[RequestId(0)], SimTime::ZERO);
    assert_eq!((completed.tokens.len(), completed.finished.as_slice()), (2, [RequestId(0)].as_slice()));
    assert_eq!(scheduler.running(), 1);
}

#[test]
fn what_can_never_be_served_is_refused() {
    let mut one = scheduler(resources(1, 1, 2, 1), &[]);
    assert_eq!(one.submit(request(0, 0, 1)), Err(ServingError::Zero("the number of prompt tokens")));
    assert_eq!(one.submit(request(0, 1, 0)), Err(ServingError::Zero("the number of output tokens")));
    assert!(matches!(one.submit(request(0, 30, 4)), Err(ServingError::TooLong { needed: 3, blocks: 2, .. })));
    assert!(matches!(one.submit(request(0, u32::MAX, u32::MAX)), Err(ServingError::TooLong { .. })));
    one.submit(request(7, 30, 3)).expect("32 tokens fit two blocks");
    assert_eq!(one.submit(request(7, 1, 1)), Err(ServingError::OutOfOrder { request: 7, last: 7 }));
    assert!(Scheduler::new(resources(0, 1, 1, 1)).is_err());
    assert!(Scheduler::new(resources(1, 1, 1, 0)).is_err());
}

#[test]
fn requests_are_dealt_by_share() {
    let mut dealer = Dealer::new([0.5, 0.25, 0.0, 0.25]);
    let mut counts = [0; 4];
    for n in 1..=400_u32 {
        counts[dealer.deal().expect("shares above zero")] += 1;
        for (count, share) in counts.iter().zip([0.5, 0.25, 0.0, 0.25]) {
            assert!((f64::from(*count) - share * f64::from(n)).abs() <= 1.0, "{counts:?} after {n}");
        }
    }
    assert_eq!(Dealer::new([]).deal(), None);
}

/// What a stage would hold: an oracle that only counts.
#[derive(Default)]
struct Stage {
    cached: BTreeMap<RequestId, u32>,
}

impl Stage {
    fn run(&mut self, batch: &Batch) {
        for item in &batch.items {
            let cached = self.cached.entry(item.request).or_default();
            if item.work.start() == 0 {
                *cached = 0;
            }
            assert_eq!(*cached, item.work.start(), "a gap or an overlap in the cache of {:?}", item.request);
            *cached += item.work.tokens();
        }
    }
}

fn check_blocks(scheduler: &Scheduler, total: u32) {
    let mut held = BTreeSet::new();
    for live in &scheduler.running {
        for &block in &live.blocks {
            assert!(block < total && held.insert(block), "block {block} is held twice or does not exist");
        }
        let tokens = u64::from(live.issued.max(live.target));
        let needed = blocks_for(tokens, &scheduler.resources.serving);
        assert_eq!(live.blocks.len() as u64, needed, "blocks of {:?}", live.request.id);
        assert!(live.cached <= live.issued && live.produced < live.request.output_tokens);
    }
    assert_eq!(held.len() + scheduler.free_blocks(), total as usize, "a block is lost");
    let oldest_waiting = scheduler.waiting.front().map(|live| live.request.id);
    let youngest_running = scheduler.running.last().map(|live| live.request.id);
    assert!(oldest_waiting.is_none_or(|w| youngest_running.is_none_or(|r| r < w)), "a younger request went first");
    assert!(scheduler.waiting.iter().zip(scheduler.waiting.iter().skip(1)).all(|(a, b)| a.request.id < b.request.id));
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(1), ..ProptestConfig::with_cases(300) })]
    #[test]
    fn every_request_ends_with_all_its_tokens_and_no_block_is_ever_lost(
        requests_max in 1_u32..6,
        step_tokens_max in 1_u32..40,
        extra_blocks in 0_u32..8,
        in_flight_max in 1_u32..5,
        lengths in prop::collection::vec((1_u32..60, 1_u32..50, prop::option::of(1_u32..50), 0_u32..20), 1..12),
        hold in prop::collection::vec(0_u32..4, 1..8),
    ) {
        let longest = lengths.iter().map(|l| l.0 + l.1 - 1).max().expect("not empty").div_ceil(16);
        let limits = resources(requests_max, step_tokens_max, longest + extra_blocks, in_flight_max);
        let mut scheduler = Scheduler::new(limits).expect("positive limits");
        let mut stage = Stage::default();
        let mut produced = vec![0; lengths.len()];
        let mut finished = BTreeSet::new();
        let mut pipeline: VecDeque<Batch> = VecDeque::new();
        let mut submitted = 0;
        let mut holds = hold.iter().cycle();
        let work: u32 = lengths.iter().map(|l| l.0 + l.1).sum();
        for step in 0.. {
            // A preempted request repeats at most all its tokens, once per token of an older one.
            prop_assert!(step < 100 + work * work, "no progress");
            while submitted < lengths.len() && lengths[submitted].3 <= step {
                let (prompt, output, ..) = lengths[submitted];
                scheduler.submit(request(submitted as u32, prompt, output)).expect("fits");
                submitted += 1;
            }
            let now = SimTime(step.into());
            // An irregular caller: it sometimes asks for fewer batches than it could have.
            let wanted = (in_flight_max as usize).saturating_sub(*holds.next().expect("cycle") as usize).max(1);
            while pipeline.len() < wanted {
                let decoding_max = scheduler.running.iter().filter(|l| l.decodes()).count().div_ceil(in_flight_max as usize);
                let Some(batch) = scheduler.next_batch(now) else { break };
                check_blocks(&scheduler, limits.kv_blocks);
                prop_assert!(!batch.items.is_empty());
                prop_assert!(batch.shape.tokens() <= step_tokens_max);
                prop_assert!(batch.shape.decodes as usize <= decoding_max);
                prop_assert!(scheduler.running() <= requests_max as usize);
                let names: BTreeSet<_> = batch.items.iter().map(|i| i.request).collect();
                prop_assert_eq!(names.len(), batch.items.len(), "a request is twice in one batch");
                for other in &pipeline {
                    for item in other.items.iter().filter(|item| names.contains(&item.request)) {
                        prop_assert!(!item.work.yields(), "a batch builds on a token that is not yet known");
                    }
                }
                stage.run(&batch);
                pipeline.push_back(batch);
            }
            prop_assert!(pipeline.len() <= in_flight_max as usize);
            let Some(batch) = pipeline.pop_front() else {
                if submitted == lengths.len() {
                    break;
                }
                continue;
            };
            let yields: Vec<RequestId> = batch.items.iter().filter(|i| i.work.yields()).map(|i| i.request).collect();
            let ended: Vec<RequestId> = yields.iter().copied()
                .filter(|r| lengths[r.index()].2 == Some(produced[r.index()] + 1)).collect();
            let completed = scheduler.complete(batch, &ended, now);
            check_blocks(&scheduler, limits.kv_blocks);
            prop_assert_eq!(completed.tokens.len(), yields.len());
            for token in completed.tokens {
                produced[token.request.index()] += 1;
                prop_assert_eq!(token.ordinal, produced[token.request.index()]);
            }
            for request in completed.finished {
                prop_assert!(finished.insert(request), "{:?} finished twice", request);
            }
        }
        prop_assert!(scheduler.is_idle());
        prop_assert_eq!(scheduler.free_blocks(), limits.kv_blocks as usize);
        for (got, (_, output, early, _)) in produced.iter().zip(&lengths) {
            prop_assert_eq!(*got, early.map_or(*output, |early| early.min(*output)));
        }
        prop_assert_eq!(finished.len(), lengths.len());
    }

    #[test]
    fn requests_of_one_length_finish_in_the_order_of_their_arrival(
        count in 2_u32..12, prompt in 1_u32..50, output in 1_u32..50, requests_max in 1_u32..6, spare in 0_u32..5,
    ) {
        let blocks = (prompt + output - 1).div_ceil(16) + spare;
        let mut scheduler = scheduler(resources(requests_max, 32, blocks, 1), &vec![(prompt, output); count as usize]);
        let mut order = Vec::new();
        while let Some(batch) = scheduler.next_batch(SimTime::ZERO) {
            order.extend(scheduler.complete(batch, &[], SimTime::ZERO).finished);
        }
        prop_assert_eq!(order, (0..count).map(RequestId).collect::<Vec<_>>());
    }
}

#[test]
fn a_divided_cache_has_room_for_the_longest_request_on_every_route() {
    assert_eq!(divided_blocks(9, &[1.0, 1.0, 1.0], 3), Some(vec![3, 3, 3]));
    assert_eq!(divided_blocks(100, &[0.25, 0.75], 5), Some(vec![25, 75]), "whose share is enough, keeps it");
    assert_eq!(divided_blocks(100, &[0.01, 0.99], 5), Some(vec![5, 95]));
    assert_eq!(divided_blocks(12, &[0.2, 0.3, 0.5], 4), Some(vec![4, 4, 4]));
    assert_eq!(divided_blocks(11, &[0.2, 0.3, 0.5], 4), None);
    assert_eq!(divided_blocks(10, &[0.0, 0.0], 4), Some(vec![4, 4]), "a route without requests");
    // Taking for the smallest can make the next too small.
    assert_eq!(divided_blocks(100, &[0.01, 0.21, 0.78], 20), Some(vec![20, 20, 60]));
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(7), ..ProptestConfig::default() })]
    #[test]
    fn a_divided_cache_is_given_out_once_and_in_order_of_weights(
        weights in prop::collection::vec(0.0..1.0_f64, 1..9), blocks in 0..5_000_u32, least in 0..600_u64,
    ) {
        let Some(parts) = divided_blocks(blocks, &weights, least) else {
            prop_assert!(least * weights.len() as u64 > u64::from(blocks));
            return Ok(());
        };
        prop_assert!(parts.iter().all(|&part| u64::from(part) >= least));
        prop_assert!(parts.iter().sum::<u32>() <= blocks);
        for (a, b) in weights.iter().zip(&parts).flat_map(|a| weights.iter().zip(&parts).map(move |b| (a, b))) {
            prop_assert!(a.0 > b.0 || a.1 <= b.1);
        }
    }
}
