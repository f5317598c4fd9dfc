//! Which route a request takes.

use isotherm_core::serving::Dealer;
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
}

impl RouterName {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Share, Self::RoundRobin, Self::LeastOutstanding];

    /// How users write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Share => "share",
            Self::RoundRobin => "round-robin",
            Self::LeastOutstanding => "least-outstanding",
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
}

impl Router {
    /// A router over routes of these shares.
    #[must_use]
    pub fn new(rule: RouterName, shares: &[f64]) -> Self {
        Self {
            rule,
            dealer: Dealer::new(shares.iter().copied()),
            open: (0..shares.len()).filter(|&route| shares[route] > 0.0).collect(),
            turn: 0,
            outstanding: vec![0; shares.len()],
        }
    }

    /// The route of the next request; none where no route may get one.
    pub fn route(&mut self) -> Option<usize> {
        self.route_among(|_| true)
    }

    /// The route of the next request among those that are open now; none where none is.
    pub fn route_among(&mut self, is_open: impl Fn(usize) -> bool) -> Option<usize> {
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
        }?;
        self.outstanding[route] += 1;
        Some(route)
    }

    /// A request of this route was answered, or will never be.
    pub fn settled(&mut self, route: usize) {
        self.outstanding[route] = self.outstanding[route].saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dealt(rule: RouterName, shares: &[f64], count: usize) -> Vec<usize> {
        let mut router = Router::new(rule, shares);
        (0..count).map(|_| router.route().expect("a route is open")).collect()
    }

    #[test]
    fn routes_take_turns_whatever_their_shares() {
        assert_eq!(dealt(RouterName::RoundRobin, &[0.9, 0.0, 0.1], 5), [0, 2, 0, 2, 0]);
        assert_eq!(dealt(RouterName::Share, &[0.75, 0.25], 4), [0, 0, 0, 1]);
    }

    #[test]
    fn the_route_with_fewest_unanswered_requests_is_next() {
        let mut router = Router::new(RouterName::LeastOutstanding, &[0.5, 0.5, 0.0]);
        assert_eq!([router.route(), router.route(), router.route()], [Some(0), Some(1), Some(0)]);
        router.settled(0);
        router.settled(0);
        assert_eq!([router.route(), router.route()], [Some(0), Some(0)]);
    }

    #[test]
    fn a_route_that_is_closed_for_now_is_passed_over() {
        for rule in RouterName::ALL {
            let mut router = Router::new(rule, &[0.5, 0.25, 0.25]);
            assert!((0..9).all(|_| router.route_among(|route| route != 1).is_some_and(|route| route != 1)), "{rule}");
            assert_eq!(router.route_among(|_| false), None, "{rule}");
        }
    }

    #[test]
    fn without_an_open_route_nobody_gets_the_request() {
        for rule in RouterName::ALL {
            assert_eq!(Router::new(rule, &[0.0]).route(), None);
        }
    }
}
