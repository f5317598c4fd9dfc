//! Bounds by bridges against every placement of small clusters.

use super::*;
use crate::throughput::random::Random;

/// A cluster of two sites: devices with their rates by layers, and the way between the sites in each direction.
struct Small {
    layers: usize,
    devices: Vec<(usize, Vec<f64>)>,
    ways: [f64; 2],
}

impl Small {
    fn draw(draws: &mut Random) -> Self {
        let device = |site: usize, draws: &mut Random| {
            let speed = [6.0, 8.0, 12.0][(draws.real() * 3.0) as usize];
            let most = 1 + (draws.real() * 2.0) as usize;
            (site, (1..=most).map(|k| speed / k as f64).collect())
        };
        let devices = [0, 0, 0, 1, 1].map(|site| device(site, draws)).to_vec();
        let way = 1.0 + (draws.real() * 6.0).floor();
        // Now and then a way back that is slower.
        let back = if draws.real() < 0.3 { 1.0 } else { way };
        Self { layers: 4, devices, ways: [way, back] }
    }

    fn way(&self, from: usize, to: usize) -> f64 {
        match (self.devices[from].0, self.devices[to].0) {
            (0, 1) => self.ways[0],
            (1, 0) => self.ways[1],
            _ => f64::INFINITY,
        }
    }

    fn search(&self) -> Bridges {
        let mut classes: Vec<Class> = Vec::new();
        for (device, (site, rates)) in self.devices.iter().enumerate() {
            let ways: Vec<(usize, f64)> = rates.iter().enumerate().rev().map(|(i, rate)| (i + 1, *rate)).collect();
            match classes.iter_mut().find(|class| (class.site, &class.ways) == (*site, &ways)) {
                Some(class) => class.members.push(device),
                None => classes.push(Class { site: *site, members: vec![device], ways }),
            }
        }
        let of_site = |site: usize| (0..self.devices.len()).filter(|&d| self.devices[d].0 == site).collect();
        let fastest = vec![vec![0.0, self.ways[0]], vec![self.ways[1], 0.0]];
        let sites = Sites { members: vec![of_site(0), of_site(1)], between: fastest.clone(), fastest: 0.0 };
        let (known, begins) = (Vec::new(), BTreeMap::new());
        Bridges { classes, sites, fastest, layers: self.layers, known, begins, steps: 0 }
    }

    /// What a placement carries: the greatest flow, found by ways on which some is left.
    fn carried(&self, held: &[Option<(usize, usize)>]) -> f64 {
        let (count, rate) = (held.len(), |d: usize| held[d].map_or(0.0, |(s, e)| self.devices[d].1[e - s - 1]));
        // Each device has two ends; then the source and the sink.
        let (source, sink) = (2 * count, 2 * count + 1);
        let mut left = vec![vec![0.0_f64; sink + 1]; sink + 1];
        for (a, of) in held.iter().enumerate() {
            let Some((start, end)) = *of else { continue };
            left[2 * a][2 * a + 1] = rate(a);
            left[source][2 * a] = if start == 0 { f64::MAX } else { 0.0 };
            left[2 * a + 1][sink] = if end == self.layers { f64::MAX } else { 0.0 };
            for (b, to) in held.iter().enumerate().filter(|(_, to)| to.is_some_and(|(next, _)| next == end)) {
                left[2 * a + 1][2 * b] = to.map_or(0.0, |_| self.way(a, b).min(f64::MAX));
            }
        }
        let mut sum = 0.0;
        loop {
            let (mut before, mut open) = (vec![usize::MAX; sink + 1], vec![source]);
            while let Some(at) = open.pop() {
                for next in 0..=sink {
                    if left[at][next] > 1e-9 && before[next] == usize::MAX && next != source {
                        before[next] = at;
                        open.push(next);
                    }
                }
            }
            if before[sink] == usize::MAX {
                return sum;
            }
            let (mut at, mut least) = (sink, f64::MAX);
            while at != source {
                least = least.min(left[before[at]][at]);
                at = before[at];
            }
            at = sink;
            while at != source {
                left[before[at]][at] -= least;
                left[at][before[at]] += least;
                at = before[at];
            }
            sum += least;
        }
    }

    /// The greatest rate of any placement, by trying them all.
    fn best(&self) -> f64 {
        fn go(small: &Small, held: &mut Vec<Option<(usize, usize)>>, best: &mut f64) {
            let Some((_, rates)) = small.devices.get(held.len()) else {
                *best = best.max(small.carried(held));
                return;
            };
            let most = rates.len();
            held.push(None);
            go(small, held, best);
            for start in 0..small.layers {
                for end in start + 1..=(start + most).min(small.layers) {
                    *held.last_mut().expect("pushed") = Some((start, end));
                    go(small, held, best);
                }
            }
            held.pop();
        }
        let mut best = 0.0;
        go(self, &mut Vec::new(), &mut best);
        best
    }
}

#[test]
fn no_rate_that_some_placement_reaches_is_called_impossible_and_bridges_prove_what_worths_leave_open() {
    let (mut proved, mut bridged, mut draws) = (0, 0, Random::new(11));
    for _ in 0..60 {
        let small = Small::draw(&mut draws);
        let best = small.best();
        let slow = small.ways.iter().all(|way| *way < best * 0.999);
        if best <= 0.0 || !slow {
            continue;
        }
        let mut search = small.search();
        let mut impossible = |rate: f64| search.impossible(rate, &Budget::default()).expect("solves");
        let found = impossible(best * (1.0 - 1e-6));
        assert!(found.is_none(), "{:?} {:?} reach {best}: {found:?}", small.devices, small.ways);
        for more in [1.0, 1.1, 1.4] {
            let found = impossible(best * more);
            proved += usize::from(found.is_some());
            bridged += usize::from(found.is_some_and(|of| of.cases.iter().any(|case| !case.bridges.is_empty())));
        }
    }
    assert!(proved > 20 && bridged > 5, "{proved} proved, {bridged} of them by bridges");
}
