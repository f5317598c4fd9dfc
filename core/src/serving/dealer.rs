//! Which route a request takes, by share.

/// Deals requests to routes by share, as evenly as whole requests allow: the next goes where the number dealt, it
/// included, is least over the share; the first of equals takes it.
#[derive(Debug, Clone)]
pub struct Dealer {
    /// Per route: its share, requests dealt to it.
    routes: Vec<(f64, u64)>,
}

impl Dealer {
    /// A dealer over these shares; a share that is not above zero gets nothing.
    #[must_use]
    pub fn new(shares: impl IntoIterator<Item = f64>) -> Self {
        Self { routes: shares.into_iter().map(|share| (share, 0)).collect() }
    }

    /// The route of the next request; none where no share is above zero.
    pub fn deal(&mut self) -> Option<usize> {
        self.deal_among(|_| true)
    }

    /// The same among the routes that are open.
    pub fn deal_among(&mut self, is_open: impl Fn(usize) -> bool) -> Option<usize> {
        let after = |&(share, dealt): &(f64, u64)| (dealt + 1) as f64 / share;
        let open = self.routes.iter().enumerate().filter(|&(route, dealt)| dealt.0 > 0.0 && is_open(route));
        let (next, _) = open.min_by(|a, b| after(a.1).total_cmp(&after(b.1)))?;
        self.routes[next].1 += 1;
        Some(next)
    }
}
