//! Exact search over chains: labels are partial chains, taken in order of a lower bound on what they can become (A*),
//! dropped where another label of the same end is nowhere worse.

use super::walk::{Chains, Completions, Link, Prices, StageCount};
use crate::budget::{Budget, Limit};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};

/// Labels between two looks at the clock.
const STRIDE: u64 = 256;
/// Largest class of twins, so that a count fits a byte.
const TWINS_MAX: usize = 255;

/// What the search found.
pub(crate) struct Searched {
    /// The best chain below the limit given, and its value.
    pub best: Option<(Vec<Link>, f64)>,
    /// Every chain is worth at least this; infinite where there is none (below the limit given).
    pub bound: f64,
    /// What ended the search early.
    pub stopped: Option<Limit>,
    /// Labels taken up.
    pub labels: u64,
}

/// Candidates that any chain may exchange: same kind and pool, same pin, same links to and from everybody.
pub(crate) fn twins(chains: &Chains<'_>) -> Vec<Vec<usize>> {
    let (candidates, costs) = (&chains.tables.candidates, chains.costs);
    let same = |a: usize, b: usize| {
        let (x, y) = (candidates[a], candidates[b]);
        (x.kind, x.pool, x.pinned) == (y.kind, y.pool, y.pinned)
            && costs.entry[a] == costs.entry[b]
            && costs.exit[a] == costs.exit[b]
            && costs.hop.iter().all(|hop| {
                hop[a][b] == hop[b][a]
                    && (0..candidates.len())
                        .filter(|&other| other != a && other != b)
                        .all(|other| hop[a][other] == hop[b][other] && hop[other][a] == hop[other][b])
            })
    };
    let mut classes: Vec<Vec<usize>> = Vec::new();
    for device in 0..candidates.len() {
        match classes.iter_mut().find(|class| class.len() < TWINS_MAX && same(class[0], device)) {
            Some(class) => class.push(device),
            None => classes.push(vec![device]),
        }
    }
    classes
}

#[derive(Debug, Clone)]
struct Label {
    /// One past the last layer placed.
    layer: usize,
    /// The last stage.
    link: Link,
    /// Label it extends.
    before: Option<usize>,
    /// Stages so far.
    stages: usize,
    /// Devices used, by class of twins.
    used: Box<[u8]>,
    /// Bytes drawn, by pool.
    drawn: Box<[u64]>,
    /// When each chunk leaves the last stage.
    done: Box<[f64]>,
    /// Whether a better label has taken its place.
    dropped: bool,
}

/// An entry of the open list: least bound first, then furthest, then oldest.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Open {
    bound: f64,
    layer: usize,
    label: usize,
}

impl Eq for Open {}

impl Ord for Open {
    fn cmp(&self, other: &Self) -> Ordering {
        other.bound.total_cmp(&self.bound).then(self.layer.cmp(&other.layer)).then(other.label.cmp(&self.label))
    }
}

impl PartialOrd for Open {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

struct Search<'a> {
    chains: &'a Chains<'a>,
    prices: &'a Prices,
    completions: Completions,
    classes: Vec<Vec<usize>>,
    /// Cost to the end from a layer and candidate, for each chunk that leaves there: `[chunk][layer][candidate]`.
    chunk_after: Vec<Vec<f64>>,
    labels: Vec<Label>,
    /// Labels by last layer and class of the last device.
    ends: BTreeMap<(usize, usize), Vec<usize>>,
    open: BinaryHeap<Open>,
    best: Option<(Vec<Link>, f64)>,
    /// Only chains better than this matter.
    limit: f64,
}

/// Searches for a chain of least value below `limit`, taking up at most `labels_max` labels. `prices` steer the search
/// and do not change what it finds.
pub(crate) fn search(
    chains: &Chains<'_>,
    prices: &Prices,
    limit: f64,
    labels_max: u64,
    budget: &Budget<'_>,
) -> Searched {
    let classes = twins(chains);
    let completions = chains.completions(prices);
    let chunk_after = chunk_completions(chains, prices, &completions);
    let mut search = Search {
        chains,
        prices,
        completions,
        classes,
        chunk_after,
        labels: Vec::new(),
        ends: BTreeMap::new(),
        open: BinaryHeap::new(),
        best: None,
        limit,
    };
    search.extend(None);
    let (mut taken, mut stopped) = (0, None);
    while let Some(&Open { bound, label, .. }) = search.open.peek() {
        if bound >= search.limit {
            break;
        }
        if taken >= labels_max {
            stopped = Some(Limit::Nodes);
        } else if taken % STRIDE == 0 {
            stopped = budget.exhausted();
        }
        if stopped.is_some() {
            break;
        }
        search.open.pop();
        if !search.labels[label].dropped {
            taken += 1;
            search.extend(Some(label));
        }
    }
    let open = search.open.peek().map_or(f64::INFINITY, |open| open.bound);
    let bound = search.best.as_ref().map_or(f64::INFINITY, |best| best.1).min(open);
    Searched { best: search.best, bound, stopped, labels: taken }
}

/// For each chunk, cost from leaving a stage to the end of the chain along one path of the flow shop: the chunk goes
/// to the next stage, which then takes all later chunks; the last one goes on alone.
fn chunk_completions(chains: &Chains<'_>, prices: &Prices, completions: &Completions) -> Vec<Vec<f64>> {
    let (costs, tables) = (chains.costs, chains.tables);
    let (n, layers, chunks) = (tables.candidates.len(), costs.layers, costs.chunks);
    if chunks == 1 || chains.count != StageCount::Any {
        return Vec::new();
    }
    (0..chunks - 1)
        .map(|chunk| {
            let mut after = vec![f64::INFINITY; (layers + 1) * n];
            for layer in 1..layers {
                let starts: Vec<f64> = (0..n)
                    .map(|next| {
                        let candidate = tables.candidates[next];
                        let price = |end: usize| {
                            let bytes = tables.kinds[candidate.kind].bytes.at(layer, end) as f64;
                            prices.device[next] + candidate.pool.map_or(0.0, |pool| prices.byte[pool] * bytes)
                        };
                        (layer + 1..=tables.kinds[candidate.kind].reach[layer])
                            .map(|end| {
                                costs.chunks_from(candidate.kind, chunk, layer, end)
                                    + price(end)
                                    + completions.after(0, end, next)
                            })
                            .fold(f64::INFINITY, f64::min)
                    })
                    .collect();
                for from in 0..n {
                    after[layer * n + from] =
                        (0..n).map(|to| costs.hop[chunk][from][to] + starts[to]).fold(f64::INFINITY, f64::min);
                }
            }
            after
        })
        .collect()
}

impl Search<'_> {
    /// Adds every stage that may follow a label, or begin a chain.
    fn extend(&mut self, label: Option<usize>) {
        let layer = label.map_or(0, |l| self.labels[l].layer);
        for class in 0..self.classes.len() {
            let used = label.map_or(0, |l| usize::from(self.labels[l].used[class]));
            let Some(&device) = self.classes[class].get(used) else { continue };
            let way = match label {
                Some(l) => self.chains.costs.hop[0][self.labels[l].link.0][device],
                None => self.chains.costs.entry[device],
            };
            if !way.is_finite() {
                continue;
            }
            for end in layer + 1..=self.chains.tables.kind(device).reach[layer] {
                self.add(label, class, (device, layer, end));
            }
        }
    }

    fn add(&mut self, before: Option<usize>, class: usize, link: Link) {
        let (tables, costs) = (self.chains.tables, self.chains.costs);
        let candidate = tables.candidates[link.0];
        let parent = before.map(|b| &self.labels[b]);
        let mut drawn = parent.map_or_else(|| vec![0; tables.pools.len()].into(), |p| p.drawn.clone());
        if let Some(pool) = candidate.pool {
            drawn[pool] = drawn[pool].saturating_add(tables.kinds[candidate.kind].bytes.at(link.1, link.2));
            if drawn[pool] > tables.pools[pool].size {
                return;
            }
        }
        let mut used = parent.map_or_else(|| vec![0; self.classes.len()].into(), |p| p.used.clone());
        used[class] += 1;
        let mut done: Box<[f64]> = parent.map_or_else(|| vec![0.0; costs.chunks].into(), |p| p.done.clone());
        costs.advance(&mut done, parent.map(|p| p.link.0), link.0, candidate.kind, link.1, link.2);
        if parent.is_none() {
            done.iter_mut().for_each(|time| *time += costs.entry[link.0]);
        }
        let stages = parent.map_or(0, |p| p.stages) + 1;
        let label = Label { layer: link.2, link, before, stages, used, drawn, done, dropped: false };
        let bound = self.bound(&label);
        if bound >= self.limit || !bound.is_finite() {
            return;
        }
        if link.2 == costs.layers {
            self.finish(&label);
        } else if self.keeps(&label, class) {
            self.labels.push(label);
            let position = self.labels.len() - 1;
            self.ends.entry((link.2, class)).or_default().push(position);
            self.open.push(Open { bound, layer: link.2, label: position });
        }
    }

    /// Least value of the chains that begin so: along one path of the flow shop from each chunk, prices paid on the way
    /// given back for every device and byte not yet used.
    fn bound(&self, label: &Label) -> f64 {
        let (tables, costs) = (self.chains.tables, self.chains.costs);
        let level = match self.chains.count {
            StageCount::Any => 0,
            StageCount::AtMost(n) | StageCount::Exactly(n) => match n.checked_sub(label.stages) {
                Some(level) => level,
                None => return f64::INFINITY,
            },
        };
        let mut unpaid = 0.0;
        for (class, members) in self.classes.iter().enumerate() {
            // Prices of twins need not agree; a completion may use any of those left.
            let mut left: Vec<f64> = members.iter().map(|&m| self.prices.device[m]).collect();
            let used = usize::from(label.used[class]);
            if used == 0 {
                unpaid += left.iter().sum::<f64>();
            } else {
                left.drain(..used);
                unpaid += left.iter().sum::<f64>();
            }
        }
        for (pool, price) in self.prices.byte.iter().enumerate() {
            unpaid += price * (tables.pools[pool].size - label.drawn[pool]) as f64;
        }
        let last = costs.chunks - 1;
        let mut bound = label.done[last] + self.completions.after(level, label.layer, label.link.0);
        if label.layer < costs.layers {
            let at = label.layer * tables.candidates.len() + label.link.0;
            for (chunk, after) in self.chunk_after.iter().enumerate() {
                bound = bound.max(label.done[chunk] + after[at]);
            }
        }
        bound - unpaid
    }

    fn finish(&mut self, label: &Label) {
        let full = |class: usize| usize::from(label.used[class]) == self.classes[class].len();
        let pinned = |class: usize| self.chains.tables.candidates[self.classes[class][0]].pinned;
        if (0..self.classes.len()).any(|class| pinned(class) && !full(class)) {
            return;
        }
        if let StageCount::Exactly(count) = self.chains.count
            && label.stages != count
        {
            return;
        }
        let mut chain = vec![label.link];
        let mut before = label.before;
        while let Some(position) = before {
            chain.push(self.labels[position].link);
            before = self.labels[position].before;
        }
        chain.reverse();
        let value = self.chains.value(&chain);
        let better = match &self.best {
            None => value < self.limit,
            Some((best, known)) => {
                let rank = |chain: &[Link]| (chain.len(), chain.iter().map(|l| l.0).collect::<Vec<_>>());
                value < *known || (value <= *known && rank(&chain) < rank(best))
            }
        };
        if better {
            self.limit = self.limit.min(value);
            self.best = Some((chain, value));
        }
    }

    /// Whether no kept label is everywhere as good; drops those that this one beats.
    fn keeps(&mut self, label: &Label, class: usize) -> bool {
        let Some(rivals) = self.ends.get_mut(&(label.layer, class)) else { return true };
        let exact = matches!(self.chains.count, StageCount::Exactly(_));
        let pins: Vec<usize> = self
            .classes
            .iter()
            .enumerate()
            .filter(|(_, members)| self.chains.tables.candidates[members[0]].pinned)
            .map(|(class, _)| class)
            .collect();
        let beats = |a: &Label, b: &Label| {
            let stages = if exact { a.stages == b.stages } else { a.stages <= b.stages };
            stages
                && pins.iter().all(|&class| a.used[class] == b.used[class])
                && a.used.iter().zip(&b.used).all(|(a, b)| a <= b)
                && a.drawn.iter().zip(&b.drawn).all(|(a, b)| a <= b)
                && a.done.iter().zip(&b.done).all(|(a, b)| a <= b)
        };
        if rivals.iter().any(|&rival| beats(&self.labels[rival], label)) {
            return false;
        }
        rivals.retain(|&rival| {
            let beaten = beats(label, &self.labels[rival]);
            self.labels[rival].dropped |= beaten;
            !beaten
        });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_open_list_gives_the_least_bound_then_the_furthest_then_the_oldest() {
        let entry = |bound, layer, label| Open { bound, layer, label };
        let mut open = BinaryHeap::from([entry(2.0, 9, 0), entry(1.0, 3, 1), entry(1.0, 4, 3), entry(1.0, 4, 2)]);
        let order: Vec<usize> = std::iter::from_fn(|| open.pop()).map(|o| o.label).collect();
        assert_eq!(order, [2, 3, 1, 0]);
    }
}
