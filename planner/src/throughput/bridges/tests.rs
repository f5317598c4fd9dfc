//! Bounds by bridges against every placement of small clusters.

use super::*;
use crate::throughput::random::Random;

/// First layer that a device holds, and the first that it does not any more.
type Held = Option<(usize, usize)>;

/// A cluster of some sites: devices with their rates by layers, and the ways from site to site.
struct Small {
    layers: usize,
    devices: Vec<(usize, Vec<f64>)>,
    ways: Vec<Vec<f64>>,
}

impl Small {
    /// Devices at these sites, of these speeds, that hold so many layers at most.
    fn draw(draws: &mut Random, at: &[usize], speeds: &[f64], longest: usize) -> Self {
        let device = |site: usize, draws: &mut Random| {
            let speed = speeds[(draws.real() * speeds.len() as f64) as usize];
            let most = 1 + (draws.real() * longest as f64) as usize;
            (site, (1..=most).map(|k| speed / k as f64).collect())
        };
        let devices = at.iter().map(|&site| device(site, draws)).collect();
        let sites = at.iter().max().map_or(0, |last| last + 1);
        let mut ways = vec![vec![f64::INFINITY; sites]; sites];
        for (a, b) in (0..sites).flat_map(|a| (a + 1..sites).map(move |b| (a, b))) {
            let way = 1.0 + (draws.real() * 6.0).floor();
            // Now and then a way back that is slower.
            (ways[a][b], ways[b][a]) = (way, if draws.real() < 0.3 { 1.0 } else { way });
        }
        Self { layers: 4, devices, ways }
    }

    fn way(&self, from: usize, to: usize) -> f64 {
        self.ways[self.devices[from].0][self.devices[to].0]
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
        let fastest = self.ways.clone();
        let members = (0..fastest.len()).map(of_site).collect();
        let sites = Sites { members, between: fastest.clone(), fastest: 0.0 };
        let (known, begins) = (Vec::new(), BTreeMap::new());
        Bridges { classes, sites, fastest, layers: self.layers, main: MAIN[0], known, begins, steps: 0, limit: STEPS }
    }

    /// What a placement carries: the greatest flow, found by ways on which some is left; in all, and through each device.
    fn carried(&self, held: &[Held]) -> (f64, Vec<f64>) {
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
                return (sum, (0..count).map(|a| left[2 * a + 1][2 * a]).collect());
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

    /// Looks at every placement.
    fn each(&self, look: &mut dyn FnMut(&[Held])) {
        fn go(small: &Small, held: &mut Vec<Held>, look: &mut dyn FnMut(&[Held])) {
            let Some((_, rates)) = small.devices.get(held.len()) else { return look(held) };
            let most = rates.len();
            held.push(None);
            go(small, held, look);
            for start in 0..small.layers {
                for end in start + 1..=(start + most).min(small.layers) {
                    *held.last_mut().expect("pushed") = Some((start, end));
                    go(small, held, look);
                }
            }
            held.pop();
        }
        go(self, &mut Vec::new(), look);
    }

    /// The greatest rate of any placement.
    fn best(&self) -> f64 {
        let mut best = 0.0_f64;
        self.each(&mut |held| best = best.max(self.carried(held).0));
        best
    }

    /// What the devices that pass a layer at a rate pay at least, where so much of it passes each.
    fn cheapest(&self, need: f64, pays: &dyn Fn(usize, usize) -> f64, passes: &dyn Fn(usize, usize) -> f64) -> f64 {
        let mut sets = vec![(0.0, 0.0)];
        for (device, (_, rates)) in self.devices.iter().enumerate() {
            for (passed, paid) in sets.clone() {
                sets.extend((1..=rates.len()).map(|k| (passed + passes(device, k), paid + pays(device, k))));
            }
        }
        sets.into_iter().filter(|(passed, _)| *passed >= need).map(|(_, paid)| paid).fold(f64::INFINITY, f64::min)
    }
}

#[test]
fn no_rate_that_some_placement_reaches_is_called_impossible_and_bridges_prove_what_worths_leave_open() {
    let (mut proved, mut bridged, mut draws) = (0, 0, Random::new(11));
    for _ in 0..60 {
        let small = Small::draw(&mut draws, &[0, 0, 0, 1, 1], &[6.0, 8.0, 12.0], 2);
        let best = small.best();
        let slow = small.ways.iter().flatten().all(|way| *way < best * 0.999 || way.is_infinite());
        if best <= 0.0 || !slow {
            continue;
        }
        let mut search = small.search();
        let mut impossible =
            |rate: f64| search.tried(rate, &mut MAIN.clone(), STEPS, &Budget::default()).expect("solves");
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

/// Where main devices of different sites follow one another in a placement, or the only site that has some is left; and the
/// layers of which the search speaks.
struct Seen {
    ends: Edge,
    back: bool,
    between: std::ops::Range<usize>,
}

/// What a search depends on: rate, sites with main devices, where the bridge leads, and whether on reversed ways.
type Asked = (u64, Vec<usize>, Edge, bool);

#[test]
fn no_placement_wastes_less_between_main_devices_than_the_search_says() {
    let mut draws = Random::new(5);
    let (mut wasting, mut tight) = ([0; 2], 0);
    for round in 0..24 {
        // Small devices beside great ones, and ways that carry a little or nearly all.
        let at: &[usize] = if round % 3 == 0 { &[0, 0, 1, 1, 2] } else { &[0, 0, 0, 1, 1] };
        let small = Small::draw(&mut draws, at, &[1.0, 5.0, 6.0, 6.5], 3);
        let mut search = small.search();
        let main = MAIN[round / 3 % MAIN.len()];
        search.main = main;
        let worths: Vec<f64> = search.classes.iter().map(|_| 0.5 + draws.real()).collect();
        let class_of = |device: usize| {
            search.classes.iter().position(|class| class.members.contains(&device)).expect("in a class")
        };
        let worth: Vec<f64> = (0..small.devices.len()).map(|device| worths[class_of(device)]).collect();
        let mut known: BTreeMap<Asked, (f64, f64)> = BTreeMap::new();
        small.each(&mut |held| {
            let (rate, through) = small.carried(held);
            if rate < 1.5 {
                return;
            }
            // The checker asks a billionth more of the rate: a plan at that rate has the same shares.
            let share = |device: usize| through[device] / rate;
            let mut mains: Vec<usize> = (0..held.len()).filter(|&device| share(device) > main).collect();
            mains.sort_by_key(|&device| held[device]);
            let site = |device: usize| small.devices[device].0;
            let sites: BTreeSet<usize> = mains.iter().map(|&device| site(device)).collect();
            let sites: Vec<usize> = sites.into_iter().collect();
            let holds = |layer: usize| {
                move |&device: &usize| held[device].is_some_and(|(start, end)| (start..end).contains(&layer))
            };
            let span = |device: usize| held[device].expect("a main device holds layers");
            let mut all: Vec<Seen> = mains
                .windows(2)
                .filter(|pair| site(pair[0]) != site(pair[1]))
                .flat_map(|pair| {
                    let ([a, b], between) = ([site(pair[0]), site(pair[1])], span(pair[0]).1..span(pair[1]).0);
                    let seen = |ends, back| Seen { ends, back, between: between.clone() };
                    [seen((a, Some(b)), false), seen((b, Some(a)), true)]
                })
                .collect();
            let without = |layer: usize| {
                !(0..held.len()).filter(holds(layer)).any(|device| site(device) == sites[0] && share(device) > 1e-9)
            };
            if let [site] = *sites {
                let after = mains.iter().map(|&d| span(d).1).filter(|&end| (end..small.layers).any(without)).max();
                let before = mains.iter().map(|&d| span(d).0).filter(|&start| (0..start).any(without)).min();
                let seen = |back, between| Seen { ends: (site, None), back, between };
                all.extend(after.map(|end| seen(false, end..small.layers)));
                all.extend(before.map(|start| seen(true, 0..start)));
            }
            for Seen { ends, back, between } in all {
                let key = (rate.to_bits(), sites.clone(), ends, back);
                let (least, scale) = *known.entry(key).or_insert_with(|| {
                    let passes = |device: usize, k: usize| {
                        let most = if sites.contains(&site(device)) { rate } else { rate * main };
                        small.devices[device].1[k - 1].min(most)
                    };
                    let cheapest = small.cheapest(rate * (1.0 - 1e-12), &|device, k| worth[device] / k as f64, &passes);
                    let scale = 1.0 / cheapest;
                    let scaled: Vec<f64> = worths.iter().map(|worth| worth * scale).collect();
                    let ground = search.ground(rate, &sites, &scaled);
                    let ground = if back { ground.reversed() } else { ground };
                    let found = ground.cheapest_bridge(ends, 16 * UNIT, 1 << 24, &|| false);
                    assert!(found.complete);
                    (found.least as f64 / UNIT as f64, scale)
                });
                let paid = |layer: usize| -> f64 {
                    let here = (0..held.len()).filter(holds(layer)).filter(|&device| share(device) > 1e-9);
                    here.map(|device| scale * worth[device] / (span(device).1 - span(device).0) as f64).sum()
                };
                let waste: f64 = between.clone().map(|layer| paid(layer) - 1.0).sum();
                assert!(
                    least <= waste + 1e-9,
                    "{:?} {:?} {held:?} at {rate}, main {main}: {ends:?} wastes {waste} on {between:?}, not {least}",
                    small.devices,
                    small.ways
                );
                wasting[usize::from(ends.1.is_none())] += usize::from(waste > 0.01);
                tight += usize::from(waste > 0.01 && waste < least + 1e-6);
            }
        });
    }
    assert!(wasting.iter().all(|&count| count > 100) && tight > 100, "{wasting:?}, {tight} as good as can be");
}
