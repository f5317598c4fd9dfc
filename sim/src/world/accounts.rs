//! Where the time of each request went.
//!
//! A batch's life is a row of spans, each with its cause, that follow one another without a gap: on links, waiting for a
//! device, on the device. A request's time is cut at the moments when its batches came back: what a batch brings is
//! its row from where the request was accounted for last; a gap before the batch was formed is a wait for it. All
//! spans are whole nanoseconds, so the parts of a request add up to its time exactly, and that is asserted of each.
//!
//! On a device, a span at clock `k`, co-run slowdown `1 / c` and failure slowdown `1 / d` is divided as
//!
//! ```text
//! span = c d k span  +  c d (1 - k) span  +  c (1 - d) span  +  (1 - c) span
//!        compute        throttle             straggling         contention
//! ```

use isotherm_core::record::{Attribution, Cause, Part};
use isotherm_core::serving::Batch;
use isotherm_core::units::{SimDuration, SimTime};
use std::collections::BTreeMap;

/// Causes that concern the coordinator.
const ADMISSION: u32 = 0;
const TURN: u32 = 1;
const RECOVERY: u32 = 2;
const TRANSFER: u32 = 3;
const OF_COORDINATOR: u32 = 4;
const OF_SERVER: u32 = 5;
const OF_LANE: u32 = 2;

/// Time of one request so far, by cause.
#[derive(Debug, Clone)]
struct Account {
    arrival: SimTime,
    /// Up to when it is accounted for.
    until: SimTime,
    begun: bool,
    spent: Vec<u64>,
    /// What was spent up to the first token.
    first: Option<Vec<u64>>,
}

/// A batch under way: when it was formed, and its spans by cause and end.
#[derive(Debug, Clone, Default)]
struct Row {
    formed: SimTime,
    spans: Vec<(u32, SimTime)>,
}

impl Row {
    fn end(&self) -> SimTime {
        self.spans.last().map_or(self.formed, |span| span.1)
    }

    /// Adds a span up to `until`.
    fn add(&mut self, cause: u32, until: SimTime) {
        if until > self.end() {
            self.spans.push((cause, until));
        }
    }
}

/// What slows a device: each is 1 where nothing does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Speeds {
    pub(super) clock: f64,
    pub(super) co_run: f64,
    pub(super) failures: f64,
}

/// How a device spends the step that it works on.
#[derive(Debug, Clone, Copy)]
struct Pace {
    since: SimTime,
    speeds: Speeds,
    throttled: f64,
    straggled: f64,
    crowded: f64,
}

/// The accounts of one replication.
#[derive(Debug)]
pub(super) struct Accounts {
    servers: u32,
    causes: usize,
    live: BTreeMap<u32, Account>,
    /// Rows by route, then by slot.
    rows: Vec<Vec<Row>>,
    paces: Vec<Pace>,
    sums: Sums,
}

/// Sums over requests, in nanoseconds by cause.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sums {
    /// Requests with a first token.
    pub requests: u64,
    /// Up to the first token.
    pub ttft: Vec<f64>,
    /// Requests with a second token.
    pub decoding: u64,
    /// After the first token, over the tokens after it.
    pub tpot: Vec<f64>,
}

impl Accounts {
    pub(super) fn new(servers: usize, lanes: usize) -> Self {
        let servers = u32::try_from(servers).unwrap_or(u32::MAX);
        let causes = OF_COORDINATOR as usize + (OF_SERVER * servers) as usize + OF_LANE as usize * lanes;
        let speeds = Speeds { clock: 1.0, co_run: 1.0, failures: 1.0 };
        let pace = Pace { since: SimTime::ZERO, speeds, throttled: 0.0, straggled: 0.0, crowded: 0.0 };
        let sums = Sums { ttft: vec![0.0; causes], tpot: vec![0.0; causes], ..Sums::default() };
        let paces = vec![pace; servers as usize];
        Self { servers, causes, live: BTreeMap::new(), rows: Vec::new(), paces, sums }
    }

    fn of_server(&self, server: usize, cause: u32) -> u32 {
        OF_COORDINATOR + OF_SERVER * server as u32 + cause
    }

    pub(super) fn arrive(&mut self, now: SimTime, request: u32) {
        let spent = vec![0; self.causes];
        self.live.insert(request, Account { arrival: now, until: now, begun: false, spent, first: None });
    }

    pub(super) fn form(&mut self, now: SimTime, route: u32, slot: u32) {
        let (route, slot) = (route as usize, slot as usize);
        if self.rows.len() <= route {
            self.rows.resize_with(route + 1, Vec::new);
        }
        let rows = &mut self.rows[route];
        if rows.len() <= slot {
            rows.resize_with(slot + 1, Row::default);
        }
        let row = &mut rows[slot];
        row.formed = now;
        row.spans.clear();
    }

    /// A batch gets over a lane at `at`, of which it needed `alone` with nothing else there.
    pub(super) fn hop(&mut self, (route, slot): (u32, u32), lane: u32, at: SimTime, alone: SimDuration) {
        let cause = OF_COORDINATOR + OF_SERVER * self.servers + OF_LANE * lane;
        let Some(row) = row_of(&mut self.rows, route, slot) else { return };
        row.add(cause + 1, SimTime(at.0.saturating_sub(alone.0)));
        row.add(cause, at);
    }

    /// A device begins with a batch.
    pub(super) fn begin(&mut self, now: SimTime, server: usize, route: u32, slot: u32) {
        let cause = self.of_server(server, 0);
        if let Some(row) = row_of(&mut self.rows, route, slot) {
            row.add(cause, now);
        }
        let pace = &mut self.paces[server];
        *pace = Pace { since: now, throttled: 0.0, straggled: 0.0, crowded: 0.0, ..*pace };
    }

    /// What slows a device is this from now on.
    pub(super) fn pace(&mut self, now: SimTime, server: usize, speeds: Speeds) {
        let pace = &mut self.paces[server];
        let span = now.since(pace.since).0 as f64;
        let Speeds { clock, co_run, failures } = pace.speeds;
        pace.crowded += span * (1.0 - co_run).max(0.0);
        pace.straggled += span * co_run.min(1.0) * (1.0 - failures).max(0.0);
        pace.throttled += span * co_run.min(1.0) * failures.min(1.0) * (1.0 - clock).max(0.0);
        pace.since = now;
        pace.speeds = speeds;
    }

    /// A device is done with a batch.
    pub(super) fn finish(&mut self, now: SimTime, server: usize, route: u32, slot: u32) {
        self.pace(now, server, self.paces[server].speeds);
        let causes = [2, 3, 4, 1].map(|cause| self.of_server(server, cause));
        let pace = self.paces[server];
        let Some(row) = row_of(&mut self.rows, route, slot) else { return };
        let mut at = row.end();
        for (cause, slowed) in causes.into_iter().zip([pace.throttled, pace.straggled, pace.crowded]) {
            at = (at + SimDuration(libm::round(slowed) as u64)).min(now);
            row.add(cause, at);
        }
        row.add(causes[3], now);
    }

    /// A batch is back with what it did for its requests.
    pub(super) fn take_back(
        &mut self,
        now: SimTime,
        (route, slot): (u32, u32),
        batch: &Batch,
        request_of: impl Fn(u32) -> u32,
    ) {
        let Some(row) = row_of(&mut self.rows, route, slot) else { return };
        assert_eq!(row.end(), now, "the row of a batch of route {route} ends when it is back");
        for item in &batch.items {
            let Some(account) = self.live.get_mut(&request_of(item.request.0)) else { continue };
            if row.formed > account.until {
                let cause = if account.begun { TURN } else { ADMISSION };
                account.spent[cause as usize] += row.formed.since(account.until).0;
                account.until = row.formed;
            }
            account.begun = true;
            for &(cause, end) in &row.spans {
                if end > account.until {
                    account.spent[cause as usize] += end.since(account.until).0;
                    account.until = end;
                }
            }
        }
    }

    /// A request lost its batch, or waits for a route after that.
    pub(super) fn recover(&mut self, now: SimTime, request: u32) {
        self.charge(now, request, RECOVERY);
    }

    /// A request waited up to now, when its cache begins to come.
    pub(super) fn turn(&mut self, now: SimTime, request: u32) {
        self.charge(now, request, TURN);
    }

    /// The cache of a request has come.
    pub(super) fn transferred(&mut self, now: SimTime, request: u32) {
        self.charge(now, request, TRANSFER);
    }

    fn charge(&mut self, now: SimTime, request: u32, cause: u32) {
        if let Some(account) = self.live.get_mut(&request) {
            account.spent[cause as usize] += now.since(account.until).0;
            account.until = now;
        }
    }

    /// A request has its first token.
    pub(super) fn first_token(&mut self, now: SimTime, request: u32) {
        let Some(account) = self.live.get_mut(&request) else { return };
        assert_eq!(account.spent.iter().sum::<u64>(), now.since(account.arrival).0, "parts of request {request}");
        account.first = Some(account.spent.clone());
    }

    /// A request is answered, with so many tokens.
    pub(super) fn answered(&mut self, now: SimTime, request: u32, tokens: u32) {
        let Some(account) = self.live.remove(&request) else { return };
        assert_eq!(account.spent.iter().sum::<u64>(), now.since(account.arrival).0, "parts of request {request}");
        let Some(first) = account.first else { return };
        self.sums.requests += 1;
        for (sum, &spent) in self.sums.ttft.iter_mut().zip(&first) {
            *sum += spent as f64;
        }
        let Some(after) = tokens.checked_sub(1).filter(|&after| after > 0) else { return };
        self.sums.decoding += 1;
        for ((sum, &spent), &before) in self.sums.tpot.iter_mut().zip(&account.spent).zip(&first) {
            *sum += (spent - before) as f64 / f64::from(after);
        }
    }

    /// A request is given up.
    pub(super) fn forget(&mut self, request: u32) {
        self.live.remove(&request);
    }

    pub(super) fn sums(self) -> Sums {
        self.sums
    }
}

/// The row of a batch, where one was formed there.
fn row_of(rows: &mut [Vec<Row>], route: u32, slot: u32) -> Option<&mut Row> {
    rows.get_mut(route as usize)?.get_mut(slot as usize)
}

impl Sums {
    /// Adds those of another replication.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.decoding += other.decoding;
        for (mine, theirs) in [(&mut self.ttft, &other.ttft), (&mut self.tpot, &other.tpot)] {
            mine.iter_mut().zip(theirs).for_each(|(sum, more)| *sum += more);
        }
    }

    /// Means per request, by cause; devices and ways of equal names together, causes that took no time left out.
    #[must_use]
    pub fn attribution(&self, servers: &[&str], lanes: &[Option<(&str, &str)>]) -> Attribution {
        let coordinator = [Cause::Admission, Cause::Turn, Cause::Recovery, Cause::Transfer];
        let of_server = [Cause::Wait, Cause::Compute, Cause::Throttle, Cause::Straggling, Cause::Contention];
        let mut names: Vec<(Cause, String)> = coordinator.map(|cause| (cause, String::new())).to_vec();
        names.extend(servers.iter().flat_map(|name| of_server.map(|cause| (cause, (*name).to_owned()))));
        names.extend(lanes.iter().flat_map(|ends| {
            let name = ends.map_or_else(String::new, |(from, to)| format!("{from} -> {to}"));
            [(Cause::Link, name.clone()), (Cause::LinkContention, name)]
        }));
        let mut parts: BTreeMap<(Cause, String), (f64, f64)> = BTreeMap::new();
        for ((name, ttft), tpot) in names.into_iter().zip(&self.ttft).zip(&self.tpot) {
            let part = parts.entry(name).or_default();
            part.0 += ttft;
            part.1 += tpot;
        }
        let mean = |sum: f64, count: u64| if count > 0 { sum * 1e-9 / count as f64 } else { 0.0 };
        let parts = parts.into_iter().filter(|(_, part)| part.0 > 0.0 || part.1 > 0.0);
        let parts = parts.map(|((cause, place), (ttft, tpot))| Part {
            cause,
            place,
            ttft_seconds: mean(ttft, self.requests),
            tpot_seconds: mean(tpot, self.decoding),
        });
        Attribution { parts: parts.collect() }
    }
}
