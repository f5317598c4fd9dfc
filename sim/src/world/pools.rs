//! Losses where prompts and answers have routes of their own.
//!
//! A prefilled prompt's cache is where it was prefilled until the decoding route has fetched all of it. So:
//!
//! * Where the *prefilling* route is lost, everything that it works on and all cache that was not fetched is gone: these
//!   requests begin again, prompt and tokens so far, on another route that prefills. Answers whose cache was fetched do
//!   not notice.
//! * Where the *decoding* route is lost, answers that it works on begin again like that. Requests whose cache was not
//!   fetched lose nothing: another route decodes them, and fetches it from where it still is.
//! * Where no cache gets from one route to the other, because a link is lost, a copy waits for the repair; when the loss
//!   is noticed, another decoding route that can be reached fetches it, or it waits until one can be.
//! * A prefilled request that no open route decodes waits with its cache; where none will open, it is answered with an
//!   error.

use super::moves::Prefilled;
use super::{Event, World};
use crate::SimulateError;
use crate::setup::Role;
use isotherm_core::ids::RequestId;
use isotherm_core::units::SimTime;

impl World<'_> {
    /// Whether no cache gets from where a request was prefilled to the route that decodes it, because either lost its own.
    pub(super) fn is_severed(&self, route: u32, job: RequestId) -> bool {
        let Some(failing) = &self.failing else { return false };
        let job = self.moves.as_ref().and_then(|moves| moves.jobs.get(&job));
        job.is_some_and(|job| !job.fetched && (failing.is_broken(job.of.from) || failing.is_broken(route)))
    }

    /// Cache under way from or to a lost server is lost with it.
    pub(super) fn drop_cache(&mut self, now: SimTime, server: usize) {
        let setup = self.setup;
        for lane in setup.moves.touching(server) {
            self.network.clear(now, lane);
        }
    }

    /// Looks which pairs of routes no cache gets between, after links were lost or repaired.
    pub(super) fn watch_pairs(&mut self, now: SimTime) {
        let setup = self.setup;
        let Some(failing) = &self.failing else { return };
        let detect = failing.detect();
        for (from, to) in setup.moves.pairs() {
            let open = setup.moves.over(from, to).iter().all(|part| self.network.connected(part.0));
            let Some(moves) = &mut self.moves else { return };
            if open {
                moves.cut.remove(&(from, to));
            } else if let std::collections::btree_map::Entry::Vacant(entry) = moves.cut.entry((from, to)) {
                entry.insert(now);
                self.queue.schedule(now + detect, Event::Severed { from, to });
            }
        }
    }

    /// The coordinator learns that cache gets from one route to another no more.
    pub(super) fn severed(&mut self, now: SimTime, (from, to): (u32, u32)) -> Result<(), SimulateError> {
        let (Some(moves), Some(failing)) = (&mut self.moves, &self.failing) else { return Ok(()) };
        let detect = failing.detect();
        if moves.cut.get(&(from, to)).is_none_or(|&since| now < since + detect) {
            // Of a loss that was over before anybody noticed; that of the present one is still to come.
            return Ok(());
        }
        let waits = |&(_, job): &(&RequestId, &super::moves::Job)| job.of.from == from && !job.fetched;
        let waiting: Vec<(RequestId, Prefilled)> =
            moves.jobs.iter().filter(waits).map(|(&id, job)| (id, job.of)).collect();
        for (job, of) in waiting {
            let here = self.failing.as_ref().is_some_and(|failing| failing.is_on(of.request.index(), to));
            if here && !self.is_severed(to, job) {
                self.withdraw(now, to, job);
                if let Some(accounts) = &mut self.accounts {
                    accounts.recover(now, of.request.0);
                }
                self.decode(now, of)?;
            }
        }
        Ok(())
    }

    /// Takes a request back from a route that has not its cache.
    pub(super) fn withdraw(&mut self, now: SimTime, route: u32, job: RequestId) {
        if let Some(moves) = &mut self.moves {
            moves.take_back(route, job);
        }
        self.chains[route as usize].policy.withdraw(job, now);
        self.schedule_soon(now, route as usize);
    }

    /// Prefilled requests that no route decodes go to one that is open now.
    pub(super) fn place_prefilled(&mut self, now: SimTime) -> Result<(), SimulateError> {
        let unplaced = self.moves.as_mut().map(|moves| std::mem::take(&mut moves.unplaced));
        for of in unplaced.into_iter().flatten() {
            if let Some(accounts) = &mut self.accounts {
                accounts.recover(now, of.request.0);
            }
            self.decode(now, of)?;
        }
        Ok(())
    }

    /// Answers prefilled requests with an error where no route will ever decode them.
    pub(super) fn give_up_prefilled(&mut self, now: SimTime) {
        if self.may_open() {
            return;
        }
        let unplaced = self.moves.as_mut().map(|moves| std::mem::take(&mut moves.unplaced));
        for of in unplaced.into_iter().flatten() {
            self.chains[of.from as usize].policy.release(of.held);
            self.schedule_soon(now, of.from as usize);
            self.fail(now, of.request.index());
        }
    }

    /// A request is on its route no more: the router may count it out.
    pub(super) fn leave_route(&mut self, route: u32, job: RequestId) {
        match (&mut self.moves, self.setup.routes[route as usize].role) {
            (Some(moves), Role::Decode) => moves.take_back(route, job),
            _ => self.router.settled(route as usize),
        }
    }
}
