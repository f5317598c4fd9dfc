//! The relaxation of a chain: a *walk* may use a device more than once (not twice in a row) and pays a price each
//! time. Its cheapest cost, less all prices, bounds every chain from below; the same tables say how far any partial
//! chain is from the end at least.
//!
//! Why it is a bound: with prices `u >= 0`, a chain pays the price of each device at most once and of each byte of a
//! pool at most `size` times, so `chain <= priced chain` fails by at most the sum of all prices. A pinned device is
//! used exactly once, so its price may have any sign. Twins have one price, and count together.
//!
//! With several chunks a walk has phases. Before the first of its long stages it goes with the first chunk, at that
//! stage with all of them up to the last that is as long as the first, then with that one; and where a shorter one
//! comes after it, with that one too at the last of its long stages, and alone from there on: one path of the flow
//! shop, of which the makespan is the longest.

use super::chains::{Band, Chains, ClassLink, Prices};

/// Cheapest completions under given prices.
pub(crate) struct Completions {
    classes: usize,
    layers: usize,
    /// `[phase][level][class][layer]`: cost from the end of a stage there to the end of the chain.
    after: Vec<Vec<f64>>,
    /// The same, from the start of a stage there: `[phase][level][layer][class]`.
    from: Vec<Vec<f64>>,
    /// Level of a whole chain.
    pub top: usize,
}

impl Completions {
    /// Cost from the end of a stage of a class at `layer`, with `level` more stages allowed.
    pub fn after(&self, phase: usize, level: usize, layer: usize, class: usize) -> f64 {
        self.after[phase][(level * self.classes + class) * (self.layers + 1) + layer]
    }

    /// Cost from the start of a stage of a class at `layer`.
    pub fn from(&self, phase: usize, level: usize, layer: usize, class: usize) -> f64 {
        self.from[phase][(level * (self.layers + 1) + layer) * self.classes + class]
    }
}

/// Least sum of two rows, entry by entry.
fn least_sum(a: &[f64], b: &[f64]) -> f64 {
    const LANES: usize = 8;
    let less = |x: f64, y: f64| if x < y { x } else { y };
    let mut least = [f64::INFINITY; LANES];
    let (whole_a, whole_b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest = whole_a.remainder().iter().zip(whole_b.remainder());
    let rest = rest.fold(f64::INFINITY, |least, (x, y)| less(x + y, least));
    for (x, y) in whole_a.zip(whole_b) {
        for ((least, x), y) in least.iter_mut().zip(x).zip(y) {
            *least = less(x + y, *least);
        }
    }
    least.into_iter().fold(rest, less)
}

/// Least sum of a row and of what lies between two others, entry by entry.
fn least_mean(first: &[f64], last: &[f64], share: f64, row: &[f64]) -> f64 {
    let mut least = f64::INFINITY;
    for ((first, last), x) in first.iter().zip(last).zip(row) {
        let sum = (1.0 - share) * first + share * last + x;
        least = if sum < least { sum } else { least };
    }
    least
}

impl Chains<'_> {
    /// Cheapest completions of walks of a band under these prices.
    pub fn completions(&self, band: &Band, prices: &Prices) -> Completions {
        let (n, layers, top) = (self.classes.len(), self.costs.layers, self.count.levels());
        let size = (top + 1) * (layers + 1) * n;
        let phases = prices.phases(self.costs);
        let empty = || vec![vec![f64::INFINITY; size]; phases];
        let mut table = Completions { classes: n, layers, after: empty(), from: empty(), top };
        for level in (0..=top).filter(|&level| self.count.may_end(level)) {
            for class in 0..n {
                table.after[phases - 1][(level * n + class) * (layers + 1) + layers] =
                    self.costs.exit[self.classes[class][0]];
            }
        }
        for level in 0..=top {
            for start in (0..layers).rev() {
                if let Some(below) = self.count.after(level) {
                    for class in 0..n {
                        for phase in 0..phases {
                            let best = self.begun(band, prices, &table, (below, class, start), phase);
                            table.from[phase][(level * (layers + 1) + start) * n + class] = best;
                        }
                    }
                }
                for phase in (0..phases).filter(|_| start > 0) {
                    let from = &table.from[phase][(level * (layers + 1) + start) * n..][..n];
                    let mean = prices.shares.as_ref().map_or(0.0, |shares| shares.last[start]);
                    for class in 0..n {
                        let ways = &self.ways[phase][class * n..][..n];
                        let least = match self.ways.get(2).filter(|_| mean > 0.0) {
                            None => least_sum(ways, from),
                            Some(last) => least_mean(ways, &last[class * n..][..n], mean, from),
                        };
                        table.after[phase][(level * n + class) * (layers + 1) + start] = least;
                    }
                }
            }
        }
        table
    }

    /// Cheapest cost from the start of a stage of a class.
    fn begun(
        &self,
        band: &Band,
        prices: &Prices,
        table: &Completions,
        (below, class, start): (usize, usize, usize),
        phase: usize,
    ) -> f64 {
        let (n, layers) = (self.classes.len(), self.costs.layers);
        let (reach, kind) = (self.kind(class).reach[start], self.kind_of(class));
        let base = (below * n + class) * (layers + 1);
        let mut best = f64::INFINITY;
        if self.byte_price(prices, class) > 0.0 {
            for end in start + 1..=reach {
                let pay = self.pay(prices, (class, start, end));
                for (next, time) in band.options(prices, (kind, phase), (start, end)) {
                    best = best.min(time + pay + table.after[next][base + end]);
                }
            }
            return best;
        }
        if let Some(shares) = &prices.shares {
            let (paths, after) = (&band.paths[kind], &table.after[0][base..][..layers + 1]);
            best = paths.least(shares, start, reach.min(layers - 1).saturating_sub(start), after);
            if reach == layers {
                best = best.min(paths.mean(shares, start, layers) + after[layers]);
            }
            return best + prices.class[class];
        }
        let moves = &band.steps[kind].moves[phase];
        let ends = 2 * usize::from(start == 0);
        let inner = reach.min(layers - 1).saturating_sub(start);
        for (next, times) in moves {
            let after = &table.after[*next][base..];
            best = best.min(least_sum(&times.row(ends)[1..][..inner], &after[start + 1..][..inner]));
            if reach == layers {
                best = best.min(times.at(start, layers) + after[layers]);
            }
        }
        best + prices.class[class]
    }

    /// Lower bound on every chain of a band: the cheapest walk less all prices. Infinite where there is no walk.
    pub fn bound(&self, prices: &Prices, completions: &Completions) -> f64 {
        let whole =
            |class: usize| self.costs.entry[self.classes[class][0]] + completions.from(0, completions.top, 0, class);
        (0..self.classes.len()).map(whole).fold(f64::INFINITY, f64::min) - self.price_sum(prices)
    }

    /// A cheapest walk; none where there is none.
    pub fn walk(&self, band: &Band, prices: &Prices, completions: &Completions) -> Option<Vec<ClassLink>> {
        let n = self.classes.len();
        let (mut level, mut start, mut before) = (completions.top, 0, None::<usize>);
        let mut phase = 0;
        let mut walk = Vec::new();
        while start < self.costs.layers {
            let arrive = |class: usize| match before {
                Some(before) => self.way(prices, phase, start, before, class),
                None => self.costs.entry[self.classes[class][0]],
            };
            let cost = |class: usize| arrive(class) + completions.from(phase, level, start, class);
            let (class, cost) = least((0..n).map(|class| (class, cost(class))))?;
            if !cost.is_finite() {
                return None;
            }
            level = self.count.after(level)?;
            let kind = self.kind_of(class);
            let mut best = (f64::INFINITY, start, phase);
            for end in start + 1..=self.kind(class).reach[start] {
                let pay = self.pay(prices, (class, start, end));
                for (next, time) in band.options(prices, (kind, phase), (start, end)) {
                    let cost = time + pay + completions.after(next, level, end, class);
                    if cost < best.0 {
                        best = (cost, end, next);
                    }
                }
            }
            if best.1 == start {
                return None;
            }
            walk.push((class, start, best.1));
            (start, phase, before) = (best.1, best.2, Some(class));
        }
        Some(walk)
    }

    /// The intervals that may be part of a chain worth at most `limit`, by class. With a rule on stages, all that fit.
    pub fn survivors(&self, band: &Band, prices: &Prices, limit: f64) -> Vec<ClassLink> {
        let mut kept = Vec::new();
        let ruled = self.count.is_rule();
        self.over_intervals(band, prices, |link, bound| {
            if ruled || bound <= limit {
                kept.push(link);
            }
        });
        kept
    }

    /// Calls `visit` with every interval that fits and a lower bound on the chains of the band that use it, a rule on
    /// stages left aside.
    fn over_intervals(&self, band: &Band, prices: &Prices, mut visit: impl FnMut(ClassLink, f64)) {
        let free = self.without_rule();
        let completions = free.completions(band, prices);
        let (n, layers) = (self.classes.len(), self.costs.layers);
        let total = self.price_sum(prices);
        // Cheapest cost of reaching the start of a stage, and of reaching the end of one, by phase.
        let phases = prices.phases(self.costs);
        let fresh = || vec![vec![f64::INFINITY; (layers + 1) * n]; phases];
        let (mut arrive, mut leave) = (fresh(), fresh());
        for (at, members) in arrive[0].iter_mut().zip(&self.classes) {
            *at = self.costs.entry[members[0]];
        }
        for start in 0..layers {
            for phase in (0..phases).filter(|_| start > 0) {
                for from in 0..n {
                    let here = leave[phase][start * n + from];
                    if here.is_finite() {
                        let at = arrive[phase][start * n..][..n].iter_mut().enumerate();
                        let way = |class: usize| here + self.way(prices, phase, start, from, class);
                        at.for_each(|(class, at)| *at = if way(class) < *at { way(class) } else { *at });
                    }
                }
            }
            for class in 0..n {
                let kind = self.kind_of(class);
                for end in start + 1..=self.kind(class).reach[start] {
                    let pay = self.pay(prices, (class, start, end));
                    let mut bound = f64::INFINITY;
                    for (phase, arrive) in arrive.iter().enumerate() {
                        let before = arrive[start * n + class] + pay;
                        for (next, time) in band.options(prices, (kind, phase), (start, end)) {
                            let time = before + time;
                            bound = bound.min(time + completions.after(next, 0, end, class));
                            let at = &mut leave[next][end * n + class];
                            *at = at.min(time);
                        }
                    }
                    visit((class, start, end), bound - total);
                }
            }
        }
    }

    /// For every class, a lower bound on the chains of a band that use a device of it.
    pub fn at_least_with(&self, band: &Band, prices: &Prices) -> Vec<f64> {
        let mut least = vec![f64::INFINITY; self.classes.len()];
        self.over_intervals(band, prices, |(class, ..), bound| least[class] = least[class].min(bound));
        least
    }
}

/// The first item of least cost.
fn least(items: impl Iterator<Item = (usize, f64)>) -> Option<(usize, f64)> {
    items.reduce(|best, item| if item.1 < best.1 { item } else { best })
}

#[cfg(test)]
mod tests {
    use super::least_sum;

    #[test]
    fn the_least_sum_of_two_rows_is_that_of_one_pass() {
        let row =
            |salt: u64, length: u64| (0..length).map(|i| ((i * 7919 + salt) % 101) as f64 - 50.0).collect::<Vec<f64>>();
        for length in 0..40 {
            let (a, b) = (row(3, length), row(17, length));
            let plain = a.iter().zip(&b).map(|(x, y)| x + y).fold(f64::INFINITY, f64::min);
            assert_eq!(least_sum(&a, &b), plain, "{length}");
        }
        assert_eq!(least_sum(&[f64::INFINITY; 9], &[1.0; 9]), f64::INFINITY);
    }
}
