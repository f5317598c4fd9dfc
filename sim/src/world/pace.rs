//! How fast devices work: their clocks, the co-run sets and failures, and what is left of a step when any changes.

use super::accounts::Speeds;
use super::{Event, World};
use isotherm_core::units::{Seconds, SimTime};

impl World<'_> {
    /// A device's speed, full speed being 1, and what slows it: its clock, the co-run sets, failures.
    pub(super) fn speed(&self, server: usize) -> (f64, Speeds) {
        let clock = self.heat.clock(server);
        let (mut speed, mut co_run) = (clock, 1.0);
        let setup = &self.setup.servers[server];
        for (&set, slowdown) in setup.sets.iter().zip(&setup.slowdowns) {
            let factor = slowdown[self.busy[set].clamp(1, slowdown.len()) - 1];
            speed /= factor;
            co_run /= factor;
        }
        let failures = self.failing.as_ref().map_or(1.0, |failing| failing.speed(server));
        (speed * failures, Speeds { clock, co_run, failures })
    }

    /// Brings a device's work up to now and schedules its end at its present speed, where that has changed.
    pub(super) fn reschedule(&mut self, now: SimTime, server: usize) {
        let (speed, speeds) = self.speed(server);
        let held = &mut self.servers[server];
        let Some(current) = &mut held.current else { return };
        if current.speed.total_cmp(&speed).is_eq() {
            return;
        }
        if let Some(accounts) = &mut self.accounts {
            accounts.pace(now, server, speeds);
        }
        let elapsed = now.since(current.since).0;
        if elapsed > 0 {
            let done = Seconds::of((elapsed as f64 - current.offset).max(0.0) * 1e-9 * current.speed);
            current.left = (current.left - done).max(Seconds::ZERO);
            current.offset = 0.0;
            current.since = now;
        }
        current.speed = speed;
        if speed <= 0.0 {
            // It stands still: what it works on ends when its speed changes again.
            held.version = held.version.wrapping_add(1);
            return;
        }
        let (span, rest) = (current.left / speed).whole_nanoseconds(current.offset);
        current.rest = rest;
        held.version = held.version.wrapping_add(1);
        self.queue.schedule(now + span, Event::Finish { server: server as u32, version: held.version });
    }

    /// Counts a device in or out of its co-run sets, which changes the speed of the others, and sets its power.
    pub(super) fn set_busy(&mut self, now: SimTime, server: usize, busy: bool) {
        let setup = self.setup;
        for &set in &setup.servers[server].sets {
            self.busy[set] = if busy { self.busy[set] + 1 } else { self.busy[set] - 1 };
        }
        for &set in &setup.servers[server].sets {
            for &other in setup.sets[set].members.iter().filter(|&&other| other != server) {
                self.reschedule(now, other);
            }
        }
        self.heat.work(now, server, busy);
        self.watch_clock(server);
    }

    /// Makes sure that a clock event is pending no later than the next change. One that comes too early finds nothing
    /// due and looks again: that is cheaper than one for every change of power.
    pub(super) fn watch_clock(&mut self, server: usize) {
        let Some(due) = self.heat.due(server) else { return };
        let server = self.heat.head(server);
        let held = &mut self.servers[server];
        if held.clock_event.is_none_or(|pending| due < pending) {
            held.clock_event = Some(due);
            held.clock_version = held.clock_version.wrapping_add(1);
            self.queue.schedule(due, Event::Clock { server: server as u32, version: held.clock_version });
        }
    }

    pub(super) fn clock(&mut self, now: SimTime, server: usize) {
        self.servers[server].clock_event = None;
        if self.heat.due(server) == Some(now) {
            for changed in self.heat.change(now, server) {
                self.reschedule(now, changed);
            }
        }
        self.watch_clock(server);
    }
}
