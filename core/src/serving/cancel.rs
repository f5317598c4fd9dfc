//! Requests that end before their answer does.

use super::Scheduler;
use super::live::{Ledger, Live};
use crate::ids::RequestId;

impl Scheduler {
    /// Ends a request early: its client has gone, or its deadline has passed. It gets no further work, and
    /// [`complete`](Self::complete) names neither a token of it nor its end. Its blocks are free at once, or, while
    /// batches in flight or a copy hold it, when the last of them is over. False where no such request waits or runs.
    pub fn cancel(&mut self, request: RequestId) -> bool {
        if let Some(place) = self.waiting.iter().position(|live| live.request.id == request) {
            let live = &mut self.waiting[place];
            if live.cancelled {
                return false;
            }
            if live.moving {
                live.cancelled = true;
                return true;
            }
            self.host.forget(live);
            self.waiting.remove(place);
            return true;
        }
        let Some(place) = self.find(request) else { return false };
        let live = &mut self.running[place];
        if live.cancelled {
            return false;
        }
        live.cancelled = true;
        // Nothing is left to be handed out.
        live.target = live.issued;
        if live.leave_if_back(&mut self.ledger) {
            self.running.remove(place);
        }
        true
    }
}

impl Live {
    /// Gives a cancelled request's blocks back once no batch in flight holds it; whether that is so.
    pub(super) fn leave_if_back(&mut self, ledger: &mut Ledger) -> bool {
        if self.in_flight > 0 {
            return false;
        }
        ledger.give_back(std::mem::take(&mut self.blocks));
        self.done = true;
        true
    }
}

#[cfg(test)]
mod tests {
    use crate::ids::RequestId;
    use crate::serving::{Batch, Request, Resources, Scheduler};
    use crate::units::SimTime;
    use crate::workload::Serving;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet, VecDeque};

    fn scheduler(kv_blocks: u32, in_flight_max: u32) -> Scheduler {
        let serving = Serving { requests_max: 4, step_tokens_max: 24, kv_block_tokens: 4, ..Serving::default() };
        Scheduler::new(Resources { serving, kv_blocks, in_flight_max }).expect("no limit is zero")
    }

    proptest! {
        #[test]
        fn whoever_is_cancelled_gets_nothing_more_and_all_others_get_everything(
            lengths in prop::collection::vec((1_u32..40, 1_u32..12), 1..10),
            cancels in prop::collection::vec((0_usize..60, 0_u32..10), 0..8),
            in_flight in 1_u32..4,
        ) {
            let mut scheduler = scheduler(16, in_flight);
            for (id, &(prompt_tokens, output_tokens)) in (0..).zip(&lengths) {
                scheduler.submit(Request { id: RequestId(id), prompt_tokens, output_tokens }).expect("it fits");
            }
            let mut out: BTreeMap<u32, u32> = BTreeMap::new();
            let mut gone = BTreeSet::new();
            let mut flying: VecDeque<Batch> = VecDeque::new();
            for step in 0.. {
                for &(_, request) in cancels.iter().filter(|cancel| cancel.0 == step) {
                    let done = out.get(&request).copied() == lengths.get(request as usize).map(|length| length.1);
                    let known = (request as usize) < lengths.len() && !done && !gone.contains(&request);
                    prop_assert_eq!(scheduler.cancel(RequestId(request)), known);
                    if known {
                        gone.insert(request);
                    }
                }
                while let Some(batch) = scheduler.next_batch(SimTime(step as u64)) {
                    prop_assert!(batch.items.iter().all(|item| !gone.contains(&item.request.0)));
                    flying.push_back(batch);
                }
                let Some(batch) = flying.pop_front() else { break };
                for token in scheduler.complete(batch, &[], SimTime(step as u64)).tokens {
                    prop_assert!(!gone.contains(&token.request.0));
                    let count = out.entry(token.request.0).or_default();
                    *count += 1;
                    prop_assert_eq!(*count, token.ordinal);
                }
            }
            prop_assert!(scheduler.is_idle());
            prop_assert_eq!(scheduler.free_blocks(), 16);
            for (id, &(_, output_tokens)) in (0..).zip(&lengths) {
                if !gone.contains(&id) {
                    prop_assert_eq!(out.get(&id).copied(), Some(output_tokens));
                }
            }
        }
    }
}
