//! Which route a request takes.

use crate::random::Stream;
use isotherm_core::serving::Dealer;
use isotherm_core::units::{SimDuration, SimTime};
use std::fmt;

/// The rules there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum RouterName {
    /// By the plan's shares, as evenly as whole requests allow.
    #[default]
    Share,
    /// One route after another, whatever their shares.
    RoundRobin,
    /// The route with fewest requests that are not answered; the first of equals.
    LeastOutstanding,
    /// The route with fewest requests that wait for admission; the first of equals. What Vidur calls `lor`.
    LeastWaiting,
    /// The route with fewest tokens before it, the first of equals: a request counts its prompt until that is prefilled,
    /// and one until it is answered. What SplitwiseSim calls `token_jsq`.
    LeastTokens,
    /// By the plan's shares, each request by chance and independently of the others.
    Random,
    /// Requests wait together and each goes to the route with fewest that has room for it: none waits at one route while
    /// another idles.
    Pull,
}

impl RouterName {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Share,
        Self::RoundRobin,
        Self::LeastOutstanding,
        Self::LeastWaiting,
        Self::LeastTokens,
        Self::Random,
        Self::Pull,
    ];

    /// How users write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Share => "share",
            Self::RoundRobin => "round-robin",
            Self::LeastOutstanding => "least-outstanding",
            Self::LeastWaiting => "least-waiting",
            Self::LeastTokens => "least-tokens",
            Self::Random => "random",
            Self::Pull => "pull",
        }
    }
}

impl fmt::Display for RouterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Deals requests to routes. A route whose share is not above zero gets nothing, whatever the rule.
#[derive(Debug)]
pub struct Router {
    rule: RouterName,
    dealer: Dealer,
    /// Routes that may get requests, in order.
    open: Vec<usize>,
    /// Position in `open` of the next in turn.
    turn: usize,
    /// Per route: requests that are not answered.
    outstanding: Vec<u64>,
    /// Per route: requests that wait for admission, as it was told last.
    waiting: Vec<u64>,
    /// Per route: tokens of prompts that are not prefilled.
    tokens: Vec<u64>,
    /// Per route: its share, and requests that it may have at once.
    routes: Vec<(f64, u64)>,
    stream: Stream,
}

impl Router {
    /// A router over routes of these shares, each with the requests that it may have at once. Chance comes from the
    /// stream.
    #[must_use]
    pub fn new(rule: RouterName, routes: &[(f64, u64)], stream: Stream) -> Self {
        Self {
            rule,
            dealer: Dealer::new(routes.iter().map(|route| route.0)),
            open: (0..routes.len()).filter(|&route| routes[route].0 > 0.0).collect(),
            turn: 0,
            outstanding: vec![0; routes.len()],
            waiting: vec![0; routes.len()],
            tokens: vec![0; routes.len()],
            routes: routes.to_vec(),
            stream,
        }
    }

    /// Whether requests wait for a route with room.
    #[must_use]
    pub fn pulls(&self) -> bool {
        self.rule == RouterName::Pull
    }

    /// Whether it must be [told](Self::tell) how many requests wait at each route before it deals one.
    #[must_use]
    pub fn asks(&self) -> bool {
        self.rule == RouterName::LeastWaiting
    }

    /// So many requests wait for admission at a route now.
    pub fn tell(&mut self, route: usize, waiting: u64) {
        self.waiting[route] = waiting;
    }

    /// Whether it must be told when a prompt is [prefilled](Self::prefilled).
    #[must_use]
    pub fn counts_tokens(&self) -> bool {
        self.rule == RouterName::LeastTokens
    }

    /// A prompt of so many tokens is prefilled at a route, or never will be.
    pub fn prefilled(&mut self, route: usize, tokens: u32) {
        self.tokens[route] = self.tokens[route].saturating_sub(tokens.into());
    }

    /// The route of the next request, whose prompt has so many tokens; none where no route may get one.
    pub fn route(&mut self, tokens: u32) -> Option<usize> {
        self.route_among(tokens, |_| true)
    }

    /// The route of the next request among those that are open now; none where none is.
    pub fn route_among(&mut self, tokens: u32, is_open: impl Fn(usize) -> bool) -> Option<usize> {
        let route = match self.rule {
            RouterName::Share => self.dealer.deal_among(is_open),
            RouterName::RoundRobin => {
                let count = self.open.len();
                let ahead = (0..count).find(|ahead| is_open(self.open[(self.turn + ahead) % count]))?;
                let position = (self.turn + ahead) % count;
                self.turn = (position + 1) % count;
                Some(self.open[position])
            }
            RouterName::LeastOutstanding => {
                let open = self.open.iter().copied().filter(|&route| is_open(route));
                open.min_by_key(|&route| self.outstanding[route])
            }
            RouterName::LeastWaiting => {
                let open = self.open.iter().copied().filter(|&route| is_open(route));
                open.min_by_key(|&route| self.waiting[route])
            }
            RouterName::LeastTokens => {
                let open = self.open.iter().copied().filter(|&route| is_open(route));
                open.min_by_key(|&route| self.tokens[route] + self.outstanding[route])
            }
            RouterName::Random => {
                let open: Vec<usize> = self.open.iter().copied().filter(|&route| is_open(route)).collect();
                let whole: f64 = open.iter().map(|&route| self.routes[route].0).sum();
                let mut left = self.stream.unit() * whole;
                let found = open.iter().copied().find(|&route| {
                    left -= self.routes[route].0;
                    left < 0.0
                });
                // Rounding may leave nothing for the last.
                found.or(open.last().copied())
            }
            RouterName::Pull => {
                let room = |route: usize| is_open(route) && self.outstanding[route] < self.routes[route].1;
                let open = self.open.iter().copied().filter(|&route| room(route));
                open.min_by_key(|&route| self.outstanding[route])
            }
        }?;
        self.outstanding[route] += 1;
        self.waiting[route] += 1;
        self.tokens[route] += u64::from(tokens);
        Some(route)
    }

    /// Requests of a route that are not answered.
    #[must_use]
    pub fn outstanding(&self, route: usize) -> u64 {
        self.outstanding[route]
    }

    /// A request of this route was answered, or will never be.
    pub fn settled(&mut self, route: usize) {
        self.outstanding[route] = self.outstanding[route].saturating_sub(1);
    }
}

/// How often the one that deals requests hears of the engines, vLLM's `v1/engine/coordinator.py`.
const NEWS_EVERY: SimDuration = SimDuration(100_000_000);

/// Deals requests to engines as vLLM's front end does (`v1/engine/core_client.py`): to the one with the least of four
/// times its waiting and once its running requests, the first of equals. It hears of these counts every tenth of a second
/// and counts up itself in between.
#[derive(Debug)]
pub struct Balancer {
    /// What is known of each engine: waiting and running requests.
    known: Vec<(u64, u64)>,
    news_at: SimTime,
}

impl Balancer {
    /// One over so many engines, which have nothing to do.
    #[must_use]
    pub fn new(engines: usize) -> Self {
        Self { known: vec![(0, 0); engines], news_at: SimTime::ZERO }
    }

    /// The engine of a request that comes now. `counts` tells the waiting and running requests of an engine. None where
    /// there is no engine.
    pub fn deal(&mut self, now: SimTime, counts: impl Fn(usize) -> (u64, u64)) -> Option<usize> {
        if now >= self.news_at {
            self.known.iter_mut().enumerate().for_each(|(engine, known)| *known = counts(engine));
            self.news_at = now + NEWS_EVERY;
        }
        let engine = (0..self.known.len()).min_by_key(|&engine| self.known[engine].0 * 4 + self.known[engine].1)?;
        self.known[engine].0 += 1;
        Some(engine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router(rule: RouterName, shares: &[f64]) -> Router {
        let routes: Vec<(f64, u64)> = shares.iter().map(|&share| (share, 1_000)).collect();
        Router::new(rule, &routes, Stream::new(1, 0, "routes"))
    }

    fn dealt(rule: RouterName, shares: &[f64], count: usize) -> Vec<usize> {
        let mut router = router(rule, shares);
        (0..count).map(|_| router.route(1).expect("a route is open")).collect()
    }

    #[test]
    fn routes_take_turns_whatever_their_shares() {
        assert_eq!(dealt(RouterName::RoundRobin, &[0.9, 0.0, 0.1], 5), [0, 2, 0, 2, 0]);
        assert_eq!(dealt(RouterName::Share, &[0.75, 0.25], 4), [0, 0, 0, 1]);
    }

    #[test]
    fn chance_deals_by_share_and_every_request_for_itself() {
        let dealt = dealt(RouterName::Random, &[0.7, 0.0, 0.3], 50_000);
        let share = |route: usize| dealt.iter().filter(|&&to| to == route).count() as f64 / 50_000.0;
        assert!((share(0) - 0.7).abs() < 0.011 && share(1) == 0.0, "{}", share(0));
        let after_last = dealt.windows(2).filter(|pair| pair[0] == 2 && pair[1] == 2).count() as f64;
        assert!((after_last / 50_000.0 - 0.09).abs() < 0.01, "{after_last}");
    }

    #[test]
    fn a_request_is_pulled_by_a_route_with_room_or_waits() {
        let mut router = Router::new(RouterName::Pull, &[(0.5, 1), (0.5, 2)], Stream::new(1, 0, "routes"));
        let first: Vec<_> = (0..4).map(|_| router.route(1)).collect();
        assert_eq!(first, [Some(0), Some(1), Some(1), None]);
        router.settled(1);
        assert_eq!([router.route(1), router.route(1)], [Some(1), None]);
    }

    #[test]
    fn the_route_with_fewest_unanswered_requests_is_next() {
        let mut router = router(RouterName::LeastOutstanding, &[0.5, 0.5, 0.0]);
        assert_eq!([router.route(1), router.route(1), router.route(1)], [Some(0), Some(1), Some(0)]);
        router.settled(0);
        router.settled(0);
        assert_eq!([router.route(1), router.route(1)], [Some(0), Some(0)]);
    }

    #[test]
    fn waiting_requests_and_pending_tokens_are_counted_as_the_peers_count_them() {
        let mut waits = router(RouterName::LeastWaiting, &[0.5, 0.5]);
        // The second admits its request at once, so it gets the next two; told again, the first has none.
        assert_eq!([waits.route(9), waits.route(9)], [Some(0), Some(1)]);
        waits.tell(1, 0);
        assert_eq!([waits.route(9), waits.route(9)], [Some(1), Some(0)]);
        let mut tokens = router(RouterName::LeastTokens, &[0.5, 0.5]);
        assert_eq!([tokens.route(10), tokens.route(4), tokens.route(4)], [Some(0), Some(1), Some(1)]);
        // 11 against 10; then 1 against 10, until that one is answered as well: 0 against 10.
        assert_eq!(tokens.route(8), Some(1));
        tokens.prefilled(0, 10);
        tokens.settled(0);
        assert_eq!([tokens.route(18), tokens.route(1), tokens.route(1)], [Some(0), Some(0), Some(1)]);
    }

    #[test]
    fn a_route_that_is_closed_for_now_is_passed_over() {
        for rule in RouterName::ALL {
            let mut router = router(rule, &[0.5, 0.25, 0.25]);
            assert!(
                (0..9).all(|_| router.route_among(1, |route| route != 1).is_some_and(|route| route != 1)),
                "{rule}"
            );
            assert_eq!(router.route_among(1, |_| false), None, "{rule}");
        }
    }

    #[test]
    fn engines_are_dealt_to_by_what_was_last_heard_of_them() {
        let mut balancer = Balancer::new(2);
        // One waits at the first, five run at the second: four against five, then eight against five, then eight each.
        let counts = |engine: usize| if engine == 0 { (1, 0) } else { (0, 5) };
        let mut deal = |at| balancer.deal(SimTime(at), counts).expect("engines");
        assert_eq!([deal(0), deal(1), deal(2)], [0, 1, 0]);
        // The first has twelve by now and the second nine; a tenth of a second after the first news both are as told.
        assert_eq!([deal(99_999_999), deal(100_000_000)], [1, 0]);
        assert_eq!(Balancer::new(0).deal(SimTime::ZERO, counts), None);
    }

    #[test]
    fn without_an_open_route_nobody_gets_the_request() {
        for rule in RouterName::ALL {
            assert_eq!(router(rule, &[0.0]).route(1), None);
        }
    }
}
