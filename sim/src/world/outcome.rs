//! How a world ends: what is left of it when its last request is answered, or why it does not come to that.

use super::accounts::Accounts;
use super::{Current, Outcome, Task, World};
use crate::SimulateError;
use crate::setup::Role;
use isotherm_core::trace::{DeviceRecord, Origin, StepRecord, Trace};
use isotherm_core::units::{SimDuration, SimTime};
use std::sync::atomic::Ordering;

/// Events from one look at the flag that stops a run to the next: a few milliseconds.
const LOOK_EVERY: u64 = 4_096;

impl World<'_> {
    /// Whether the run is within its limit of events, and nobody asked to stop it.
    pub(super) fn may_go_on(&self, events_max: u64) -> Result<(), SimulateError> {
        let (events, finished) = (self.log.len(), self.requests.answered());
        if events >= events_max {
            return Err(SimulateError::TooManyEvents { events_max, finished });
        }
        let asked = || self.options.interrupt.is_some_and(|flag| flag.load(Ordering::Relaxed));
        if events % LOOK_EVERY == 0 && asked() {
            return Err(SimulateError::Interrupted { finished, requests: self.setup.workload.requests });
        }
        Ok(())
    }

    /// Why nothing is pending although requests wait.
    pub(super) fn stuck(&self) -> SimulateError {
        if let Some(server) = self.heat.spent() {
            return self.battery_empty(server);
        }
        SimulateError::Stuck {
            policy: self.options.policy,
            waiting: self.setup.workload.requests - self.requests.answered(),
            step_tokens_max: self.setup.problem.serving.step_tokens_max,
        }
    }

    fn battery_empty(&self, server: usize) -> SimulateError {
        let device = self.setup.servers[server].name.clone();
        SimulateError::BatteryEmpty { device, finished: self.requests.answered() }
    }

    /// Errors: a battery is empty for good and no request can go on without its device: every route passes one such, or
    /// all that is unanswered is on routes that do. Cross traffic, the air of the day and failures would go on for ever.
    pub(super) fn fed(&self) -> Result<(), SimulateError> {
        let Some(server) = self.heat.spent() else { return Ok(()) };
        let routes = &self.setup.routes;
        let dead = |route: usize| routes[route].stops.iter().any(|stop| self.heat.is_spent(stop.0));
        let outstanding = |r| self.router.outstanding(r) + self.moves.as_ref().map_or(0, |moves| moves.outstanding(r));
        let stopped: u64 = (0..routes.len()).filter(|&route| dead(route)).map(outstanding).sum();
        // A client that waits for an answer sends nothing more.
        let unanswered = u64::from(self.load.announced().saturating_sub(self.requests.answered()));
        // Where prompts and answers have routes of their own, both are needed.
        let pool = |role: Role| {
            let of = |&route: &usize| routes[route].role == role && routes[route].share > 0.0;
            let mut pool = (0..routes.len()).filter(of).peekable();
            pool.peek().is_some() && pool.all(dead)
        };
        let all = [Role::Whole, Role::Prefill, Role::Decode].into_iter().any(pool);
        if unanswered > 0 && (all || stopped >= unanswered) { Err(self.battery_empty(server)) } else { Ok(()) }
    }

    /// Keeps what a device did. A batch that was lost meanwhile is kept too: the device worked on it.
    pub(super) fn keep_step(&mut self, now: SimTime, server: usize, current: &Current) {
        let Task { route, slot, .. } = current.task;
        let batch = self.batch(route, slot);
        let requests = batch.items.iter().map(|item| self.request_of(route, item.request).0).collect();
        self.steps.push(StepRecord {
            device: server as u32,
            start_ns: current.started,
            end_ns: now,
            route,
            batch: batch.number,
            tokens: current.tokens,
            requests,
        });
    }

    /// What came of the replication.
    pub(super) fn outcome(self) -> Outcome {
        let end = self.queue.now();
        let reliability = self.failing.map(|failing| failing.finish(end, self.setup));
        let mut devices = Vec::with_capacity(self.servers.len());
        let mut stages = Vec::with_capacity(self.servers.len());
        let tolls = self.heat.tolls(end);
        let mut series = self.series.into_iter();
        for ((server, setup), toll) in self.servers.into_iter().zip(&self.setup.servers).zip(tolls) {
            let mut record = server.record;
            // A clock event or another route's batch may still be under way when the last answer is out.
            if let Some(current) = &server.current {
                record.busy_ns = SimDuration(record.busy_ns.0.saturating_add(end.since(current.started).0));
            }
            devices.push(DeviceRecord {
                name: setup.name.clone(),
                busy_ns: record.busy_ns,
                energy_joules: toll.as_ref().map(|t| t.absorbed),
                temperature_max_celsius: toll.as_ref().and_then(|t| t.hottest),
                throttled_ns: toll.as_ref().and_then(|t| t.slowed),
                throttled_after_ns: toll.as_ref().and_then(|t| t.slowed_after),
                sustained_speed: toll.as_ref().and_then(|t| t.sustained),
                source: setup.source.clone(),
                samples: super::series::merged(
                    toll.map(|t| t.samples).unwrap_or_default(),
                    series.next().unwrap_or_default(),
                ),
            });
            stages.push(record);
        }
        let moves = self.moves.map(|moves| moves.tally());
        let (tally, requests) = self.requests.into_parts();
        let trace = Trace {
            origin: Origin::Predicted,
            requests,
            stages,
            links: Vec::new(),
            devices,
            end_ns: end,
            steps: self.steps,
        };
        Outcome { trace, tally, digest: self.log.digest(), reliability, sums: self.accounts.map(Accounts::sums), moves }
    }
}
