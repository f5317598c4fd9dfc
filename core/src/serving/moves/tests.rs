use super::super::{Batch, Resources, Work};
use super::*;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use std::collections::{BTreeSet, VecDeque};

const BLOCK: u32 = 4;

fn resources(requests_max: u32, step_tokens_max: u32, kv_blocks: u32, in_flight_max: u32) -> Resources {
    let serving = Serving { requests_max, step_tokens_max, kv_block_tokens: BLOCK, ..Serving::default() };
    Resources { serving, kv_blocks, in_flight_max }
}

fn request(id: u32, prompt_tokens: u32, output_tokens: u32) -> Request {
    Request { id: RequestId(id), prompt_tokens, output_tokens }
}

/// One block: which token of which request stands in each place.
type Block = [Option<(RequestId, u32)>; BLOCK as usize];

/// The memory itself: which token of which request stands in each place of each block, and what the host holds.
struct Memory {
    blocks: Vec<Block>,
    host: BTreeMap<RequestId, Vec<Block>>,
}

impl Memory {
    /// Runs a batch: everything before a part must be there, then the part is.
    fn run(&mut self, scheduler: &Scheduler, batch: &Batch) {
        for item in &batch.items {
            let blocks = scheduler.blocks_of(item.request);
            let place = |position: u32| (blocks[(position / BLOCK) as usize] as usize, (position % BLOCK) as usize);
            let fresh = matches!(item.work, Work::Prefill { start: 0, .. });
            for position in 0..if fresh { 0 } else { item.work.start() } {
                let (block, at) = place(position);
                let held = self.blocks[block][at];
                // What batches ahead of this one write is there when it runs.
                assert_eq!(held, Some((item.request, position)), "{item:?} reads block {block}");
            }
            for position in item.work.start()..item.work.start() + item.work.tokens() {
                let (block, at) = place(position);
                self.blocks[block][at] = Some((item.request, position));
            }
        }
    }

    /// A copy is done.
    fn copy(&mut self, scheduler: &Scheduler, of: &Move) {
        let live = scheduler.running.iter().chain(&scheduler.waiting).find(|live| live.request.id == of.request);
        let live = live.expect("whoever is copied is here");
        let blocks = &live.blocks[..of.blocks as usize];
        match of.way {
            Way::Out => {
                let copied = blocks.iter().map(|&block| self.blocks[block as usize]).collect();
                self.host.insert(of.request, copied);
            }
            Way::Back => {
                let copied = self.host.remove(&of.request).expect("it was put out");
                for (&block, content) in blocks.iter().zip(copied) {
                    self.blocks[block as usize] = content;
                }
            }
            Way::Over => {
                for (&block, first) in blocks.iter().zip((0..).step_by(BLOCK as usize)) {
                    for at in 0..BLOCK {
                        self.blocks[block as usize][at as usize] = Some((of.request, first + at));
                    }
                }
            }
        }
    }
}

/// Every block is free or has one owner, and host memory holds what is said to be there.
fn check(scheduler: &Scheduler, total: u32) {
    let mut held = BTreeSet::new();
    let kept = scheduler.keep.0.values().flatten();
    let blocks = scheduler.running.iter().chain(&scheduler.waiting).flat_map(|live| &live.blocks).chain(kept);
    for &block in blocks {
        assert!(block < total && held.insert(block), "block {block} has two owners or does not exist");
    }
    assert_eq!(held.len() + scheduler.free_blocks(), total as usize, "a block is lost");
    let on_host: u32 = scheduler.running.iter().chain(&scheduler.waiting).map(|live| live.on_host).sum();
    assert_eq!(scheduler.host_blocks_used(), on_host);
    assert!(on_host <= scheduler.host.total);
    let leaving: u32 = scheduler.waiting.iter().filter(|live| live.moving).map(|live| live.blocks.len() as u32).sum();
    assert_eq!(scheduler.host.leaving, leaving);
    assert!(scheduler.waiting.iter().all(|live| live.moving || live.blocks.is_empty()));
}

#[test]
fn a_request_that_is_put_out_goes_on_where_it_was() {
    // Two prompts of four tokens fill two blocks of four; the third goes to the first that needs one.
    let mut scheduler = Scheduler::new(resources(2, 100, 3, 1)).expect("limits").with_host(2);
    for id in 0..2 {
        scheduler.submit(request(id, 4, 3)).expect("fits");
    }
    let batch = scheduler.next_batch(SimTime::ZERO).expect("both prefill");
    scheduler.complete(batch, &[], SimTime::ZERO);
    let batch = scheduler.next_batch(SimTime::ZERO).expect("the first takes the last block");
    assert_eq!(batch.preempted, [RequestId(1)]);
    assert_eq!(scheduler.moves(), [Move { request: RequestId(1), way: Way::Out, blocks: 1 }]);
    assert_eq!(scheduler.free_blocks(), 0, "its block is being read");
    scheduler.moved(RequestId(1), SimTime::ZERO);
    assert_eq!((scheduler.free_blocks(), scheduler.host_blocks_used()), (1, 1));
    scheduler.complete(batch, &[], SimTime::ZERO);
    let batch = scheduler.next_batch(SimTime::ZERO).expect("one decodes, the other needs two blocks");
    scheduler.complete(batch, &[], SimTime::ZERO);
    assert!(scheduler.next_batch(SimTime::ZERO).is_none(), "its tokens are not back yet");
    assert_eq!(scheduler.moves(), [Move { request: RequestId(1), way: Way::Back, blocks: 1 }]);
    scheduler.moved(RequestId(1), SimTime::ZERO);
    let batch = scheduler.next_batch(SimTime::ZERO).expect("it goes on");
    assert_eq!(batch.items[0].work, Work::Decode { start: 4 });
    assert_eq!(scheduler.complete(batch, &[], SimTime::ZERO).tokens[0].ordinal, 2);
    assert_eq!(scheduler.host_blocks_used(), 0);
}

#[test]
fn what_host_memory_cannot_hold_is_computed_again() {
    let mut scheduler = Scheduler::new(resources(2, 100, 3, 1)).expect("limits").with_host(0);
    for id in 0..2 {
        scheduler.submit(request(id, 4, 3)).expect("fits");
    }
    let batch = scheduler.next_batch(SimTime::ZERO).expect("both prefill");
    scheduler.complete(batch, &[], SimTime::ZERO);
    assert_eq!(scheduler.next_batch(SimTime::ZERO).expect("one decodes").preempted, [RequestId(1)]);
    assert_eq!((scheduler.moves(), scheduler.free_blocks()), (Vec::new(), 1));
    assert_eq!(scheduler.waiting[0].cached, 0);
}

#[test]
fn cache_stays_where_a_prompt_was_prefilled_until_it_was_fetched() {
    let mut before = Scheduler::new(resources(2, 100, 2, 1)).expect("limits");
    before.submit_kept(request(0, 7, 1)).expect("fits");
    let batch = before.next_batch(SimTime::ZERO).expect("prefill");
    assert_eq!(before.complete(batch, &[], SimTime::ZERO).finished, [RequestId(0)]);
    assert_eq!((before.free_blocks(), before.kept_blocks()), (0, 2));
    let mut after = Scheduler::new(resources(2, 100, 3, 1)).expect("limits");
    after.submit_prefilled(request(5, 7, 3)).expect("fits");
    assert!(after.next_batch(SimTime::ZERO).is_none());
    assert_eq!(after.moves(), [Move { request: RequestId(5), way: Way::Over, blocks: 2 }]);
    after.moved(RequestId(5), SimTime::ZERO);
    assert!(before.release(RequestId(0)) && !before.release(RequestId(0)));
    assert_eq!((before.free_blocks(), before.kept_blocks()), (2, 0));
    let batch = after.next_batch(SimTime::ZERO).expect("it decodes");
    assert_eq!(batch.items[0].work, Work::Decode { start: 7 });
    assert_eq!(after.complete(batch, &[], SimTime::ZERO).tokens[0].ordinal, 2);
    assert!(after.submit_prefilled(request(6, 7, 1)).is_err(), "there is nothing left to do");
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(2), ..ProptestConfig::with_cases(400) })]
    #[test]
    fn every_token_is_where_it_is_read_and_no_block_has_two_owners_however_cache_moves(
        requests_max in 1_u32..6, step_tokens_max in 1_u32..24, extra in 0_u32..6, in_flight_max in 1_u32..4,
        host in 0_u32..30, lengths in prop::collection::vec((1_u32..30, 1_u32..24, any::<bool>()), 1..10),
        delays in prop::collection::vec(0_u32..6, 1..9), cancels in prop::collection::vec((0_u32..60, 0_u32..10), 0..4),
    ) {
        let longest = lengths.iter().map(|l| l.0 + l.1 - 1).max().expect("not empty").div_ceil(BLOCK);
        let limits = resources(requests_max, step_tokens_max, longest + extra, in_flight_max);
        let mut scheduler = Scheduler::new(limits).expect("limits").with_host(host);
        let mut memory = Memory { blocks: vec![[None; 4]; limits.kv_blocks as usize], host: BTreeMap::new() };
        let mut produced = vec![0; lengths.len()];
        for (id, &(prompt, output, elsewhere)) in (0..).zip(&lengths) {
            if elsewhere && output > 1 {
                scheduler.submit_prefilled(request(id, prompt, output)).expect("fits");
                produced[id as usize] = 1;
            } else {
                scheduler.submit(request(id, prompt, output)).expect("fits");
            }
        }
        let mut delay = delays.iter().copied().cycle();
        let (mut pipeline, mut copies): (VecDeque<Batch>, Vec<(u32, Move)>) = (VecDeque::new(), Vec::new());
        let work: u32 = lengths.iter().map(|l| l.0 + l.1).sum();
        let mut gone = BTreeSet::new();
        for step in 0.. {
            prop_assert!(step < 200 + 8 * work * work, "no progress");
            let now = SimTime(step.into());
            for &(_, request) in cancels.iter().filter(|cancel| cancel.0 == step) {
                if scheduler.cancel(RequestId(request)) {
                    prop_assert!(gone.insert(request), "cancelled twice");
                    check(&scheduler, limits.kv_blocks);
                }
            }
            for (_, of) in copies.extract_if(.., |(due, _)| *due <= step) {
                memory.copy(&scheduler, &of);
                scheduler.moved(of.request, now);
                check(&scheduler, limits.kv_blocks);
            }
            while let Some(batch) = scheduler.next_batch(now) {
                check(&scheduler, limits.kv_blocks);
                memory.run(&scheduler, &batch);
                pipeline.push_back(batch);
            }
            copies.extend(scheduler.moves().into_iter().map(|of| (step + 1 + delay.next().expect("cycle"), of)));
            let Some(batch) = pipeline.pop_front() else {
                if copies.is_empty() {
                    break;
                }
                continue;
            };
            let completed = scheduler.complete(batch, &[], now);
            check(&scheduler, limits.kv_blocks);
            for token in completed.tokens {
                prop_assert!(!gone.contains(&token.request.0));
                produced[token.request.index()] += 1;
                prop_assert_eq!(token.ordinal, produced[token.request.index()]);
            }
        }
        prop_assert!(scheduler.is_idle());
        prop_assert_eq!((scheduler.free_blocks(), scheduler.host_blocks_used()), (limits.kv_blocks as usize, 0));
        memory.host.retain(|request, _| !gone.contains(&request.0));
        prop_assert!(memory.host.is_empty(), "tokens were left on the host");
        for (id, (got, (_, output, _))) in (0..).zip(produced.iter().zip(&lengths)) {
            prop_assert!(got == output || gone.contains(&id));
        }
    }
}
