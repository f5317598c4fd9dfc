//! When things fail and come back: the failures of a scenario as a sequence of incidents, drawn as time goes on.

use crate::SimulateError;
use crate::network::link_of;
use crate::random::Stream;
use crate::setup::ServerSetup;
use isotherm_core::conditions::{Between, Conditions, Moment, Severity, Target};
use isotherm_core::graph::DeviceGraph;
use isotherm_core::ids::LinkId;
use isotherm_core::units::{Seconds, SimDuration, SimTime};
use std::collections::BTreeSet;

/// What fails, as the world knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hit {
    /// A server.
    Server(usize),
    /// A link, and the one back where both fail together.
    Link(LinkId, Option<LinkId>),
}

/// A failure whose names are resolved.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FailureSetup {
    /// What fails.
    pub hit: Hit,
    /// How badly.
    pub severity: Severity,
    /// When.
    pub moment: Moment,
}

/// The failures that concern a plan. Those of devices that hold nothing are left out, once it is known that there is
/// such a device.
pub fn resolve(
    conditions: &Conditions,
    graph: &DeviceGraph,
    servers: &[ServerSetup],
) -> Result<Vec<FailureSetup>, SimulateError> {
    let mut failures = Vec::new();
    for failure in &conditions.failures {
        let hit = match &failure.target {
            Target::Link(between) => Hit::Link(link_of(graph, between)?, None),
            Target::Cable(between) => {
                let back = Between { from: between.to.clone(), to: between.from.clone() };
                Hit::Link(link_of(graph, between)?, Some(link_of(graph, &back)?))
            }
            Target::Device(name) => {
                let id = graph.find(name).ok_or_else(|| SimulateError::UnknownFailing(name.clone()))?;
                let Some(server) = servers.iter().position(|server| server.device == id) else { continue };
                Hit::Server(server)
            }
        };
        failures.push(FailureSetup { hit, severity: failure.severity, moment: failure.moment });
    }
    Ok(failures)
}

/// Links that may fail.
#[must_use]
pub fn unsteady(failures: &[FailureSetup]) -> BTreeSet<LinkId> {
    let links = failures.iter().flat_map(|failure| match failure.hit {
        Hit::Link(link, back) => [Some(link), back],
        Hit::Server(_) => [None; 2],
    });
    links.flatten().collect()
}

/// Something fails or comes back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Incident {
    /// What.
    pub hit: Hit,
    /// How badly it fails, or failed.
    pub severity: Severity,
    /// Whether it fails; else it comes back.
    pub begins: bool,
}

#[derive(Debug, Clone)]
struct Course {
    failure: FailureSetup,
    stream: Stream,
    /// When it next fails or comes back.
    next: SimTime,
    failed: bool,
    carried: f64,
}

/// The incidents of one replication, in order of time; of one time, in the scenario's order.
#[derive(Debug, Clone)]
pub struct Timeline {
    courses: Vec<Course>,
}

impl Timeline {
    /// The incidents of one replication of a seed. Each failure has its own stream, so that one more does not move the
    /// others.
    #[must_use]
    pub fn new(failures: &[FailureSetup], seed: u64, replication: u32) -> Self {
        let courses = failures.iter().enumerate().map(|(number, &failure)| {
            let stream = Stream::new(seed, replication, &format!("failure {number}"));
            let mut course = Course { failure, stream, next: SimTime::ZERO, failed: false, carried: 0.0 };
            let first = match failure.moment {
                Moment::At { at, .. } => at,
                Moment::Random { mean_between, .. } => mean_between * course.stream.exponential(),
            };
            course.advance(Some(first));
            course
        });
        Self { courses: courses.collect() }
    }

    /// When the next incident is; none where there is none.
    #[must_use]
    pub fn due(&self) -> Option<SimTime> {
        self.courses.iter().map(|course| course.next).min().filter(|&due| due < SimTime::NEVER)
    }

    /// The next incident that is due by now.
    pub fn next(&mut self, now: SimTime) -> Option<Incident> {
        let course = self.courses.iter_mut().filter(|course| course.next <= now && course.next < SimTime::NEVER);
        let course = course.min_by_key(|course| course.next)?;
        course.failed = !course.failed;
        let FailureSetup { hit, severity, moment } = course.failure;
        let span = match (moment, course.failed) {
            (Moment::At { repair_after, .. }, true) => repair_after,
            (Moment::At { .. }, false) => None,
            (Moment::Random { mean_repair, .. }, true) => Some(mean_repair * course.stream.exponential()),
            (Moment::Random { mean_between, .. }, false) => Some(mean_between * course.stream.exponential()),
        };
        let begins = course.failed;
        course.advance(span);
        Some(Incident { hit, severity, begins })
    }

    /// Whether something that is lost now will come back.
    #[must_use]
    pub fn will_repair(&self) -> bool {
        let lost = |course: &&Course| course.failed && course.failure.severity == Severity::Lost;
        self.courses.iter().filter(lost).any(|course| course.next < SimTime::NEVER)
    }
}

impl Course {
    /// Moves to the next moment, a span away; none where there is none.
    fn advance(&mut self, span: Option<Seconds>) {
        let Some(span) = span else {
            self.next = SimTime::NEVER;
            return;
        };
        let (whole, rest) = span.whole_nanoseconds(self.carried);
        self.carried = rest;
        // At least a nanosecond, so that time goes on; but a failure at time zero is there from the start.
        let least = SimDuration(u64::from(self.next > SimTime::ZERO));
        self.next = self.next + whole.max(least);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(between: f64, repair: f64) -> FailureSetup {
        let moment = Moment::Random { mean_between: Seconds::of(between), mean_repair: Seconds::of(repair) };
        FailureSetup { hit: Hit::Server(0), severity: Severity::Lost, moment }
    }

    fn at(seconds: f64, repair_after: Option<f64>) -> FailureSetup {
        let moment = Moment::At { at: Seconds::of(seconds), repair_after: repair_after.map(Seconds::of) };
        FailureSetup { moment, ..random(1.0, 1.0) }
    }

    #[test]
    fn stated_failures_come_when_they_are_stated_and_go_once() {
        let second = |s: u64| SimTime(s * 1_000_000_000);
        let mut timeline = Timeline::new(&[at(5.0, Some(2.0)), at(6.0, None), at(0.0, Some(1.0))], 0, 0);
        let mut seen = Vec::new();
        while let Some(due) = timeline.due() {
            let incident = timeline.next(due).expect("due");
            seen.push((due, incident.begins, timeline.will_repair()));
        }
        let expected = [(0, true, true), (1, false, false), (5, true, true), (6, true, true), (7, false, false)];
        assert_eq!(seen, expected.map(|(s, begins, repairs)| (second(s), begins, repairs)));
    }

    #[test]
    fn random_failures_last_and_come_as_long_as_their_means_say() {
        let mut timeline = Timeline::new(&[random(30.0, 10.0)], 3, 0);
        let (mut down, mut since, mut failures) = (0.0, 0.0, 0);
        while let Some(due) = timeline.due().filter(|due| due.seconds() < Seconds::of(1e6)) {
            let now = due.seconds().value();
            match timeline.next(due).expect("due").begins {
                true => (since, failures) = (now, failures + 1),
                false => down += now - since,
            }
        }
        // 25 000 failures; five standard errors of either mean are 3 %.
        assert!((f64::from(failures) / 25_000.0 - 1.0).abs() < 0.03, "{failures}");
        assert!((down / 250_000.0 - 1.0).abs() < 0.03, "{down}");
    }

    #[test]
    fn one_more_failure_does_not_move_the_others() {
        let times = |failures: &[FailureSetup]| {
            let mut timeline = Timeline::new(failures, 9, 2);
            let mut times = Vec::new();
            while times.len() < 50 {
                let due = timeline.due().expect("random ones never end");
                if timeline.next(due).expect("due").hit == Hit::Server(0) {
                    times.push(due);
                }
            }
            times
        };
        let other = FailureSetup { hit: Hit::Server(1), ..random(7.0, 2.0) };
        assert_eq!(times(&[random(30.0, 10.0)]), times(&[random(30.0, 10.0), other]));
    }
}
