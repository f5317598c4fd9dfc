//! Throughput bounds layer by layer: worths leave so little to waste that all ways to spend it can be looked at.
//!
//! Let devices have worths `u_d` that every cover of a layer pays at least 1 of ([`super::worths`]), all together `L +
//! s` for `L` layers that weigh alike. In a plan each layer is paid 1 or more; what it is paid beyond that, what
//! devices are worth that hold nothing, and what they pay beyond the last layer is *waste*, and all waste together is
//! `s`. Where that is less than what any plan must waste, there is no plan. Worths alone say so where `s < 0`; here all
//! beginnings of plans are searched, from the first layer to the last, that waste no more than `s`. Where none comes to
//! the last layer, the rate is impossible, for any network. Where requests may enter a stage in the middle, this says
//! nothing.
//!
//! *What is searched.* A plan slowed to the rate `F`, in which requests pass whole stages and every device passes
//! something.
//! 1. What begins at a layer takes over what ends there: nobody begins elsewhere, and where somebody ends before the
//!    last layer somebody begins. Those who begin together pass no more than those who ended could, nor does one of
//!    them; and on each layer all that may be passed is `F` at least. Of what passes no more is known than these
//!    limits: the rate of a device, that of what it took over, and that of all who began with it.
//! 2. Between two borders that nobody reaches over lies a *stretch*. In whichever order stretches follow one another,
//!    they hold as many layers. So they come in the order of the first kind that each has; a kind is done with once a
//!    stretch begins without it and those before it, and what is left of it is waste.
//!
//! Two beginnings with the same devices still to come to their ends, under the same limits, go on alike; of two of
//! these the one that has used fewer devices of each kind may do whatever the other may, and has wasted no more.
//!
//! *What is left out.* While devices of a set `S` of rate `r(S)` and price `p(S)` hold a layer, it is paid at least
//! `p(S) + g(F - r(S))`, `g(x)` being the least that devices of rate `x` are paid, and 1 at most. Summed over the
//! layers that devices still hold, this is waste that is to come, and grows with `S`: sets of devices that begin are
//! put together longest first, and given up as soon as it is too much. `r(S)` adds what each may pass; `g` is a table
//! in 4096 parts of the rate, devices rounded up.
//!
//! Everything is in whole parts of `2^-50`: rates rounded up, worths too, prices of a layer down.

use super::certificate::BoundFault;
use super::cover::classes;
use super::laying::{Laying, TooLong};
use crate::exact::{Exact, agreement, exact, nearest, whole};
use crate::ids::{DeviceId, Layers};
use crate::problem::PlacementProblem;
use num_traits::Signed;
use std::collections::BTreeMap;

/// Most sets of devices, whole or not, that a search may look at.
pub const LAYERED_MAX: u64 = 2_000_000;

/// Most kinds of devices, of one worth and one table of rates each.
pub const LAYERED_KINDS_MAX: usize = 16;

/// Worths that add to so much, in layers, are refused: numbers of a fixed size would not hold what they add to.
pub(super) const WORTH_MAX: f64 = 2048.0;

/// Devices that may stand for one another.
#[derive(Debug, Clone, PartialEq)]
pub struct Alike {
    /// How many there are.
    pub count: usize,
    /// What one of them is worth, in layers.
    pub worth: f64,
    /// Layers that it may hold, and its greatest rate then, in tokens per second.
    pub rates: Vec<(u32, f64)>,
}

/// What a search has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layered {
    /// No plan comes to the last layer.
    Impossible,
    /// These do: position among those asked about, and layers. The rate is carried on each layer, which is not to say
    /// that all of it gets from one to the next.
    Laid(Vec<(usize, Layers)>),
    /// These carry a layer and pay too little: position, layers held, and how many.
    Cheap(Vec<(usize, u32, u64)>),
    /// There is too much to look at.
    Long,
}

/// Whether devices of these worths may hold so many layers at more than `bound`, wasting no more than they may; and how
/// much was looked at.
#[must_use]
pub fn layered(devices: &[Alike], layers: u32, bound: f64, most: u64) -> (Layered, u64) {
    let above = exact(bound).map(|bound| bound * (whole(1) + agreement())).filter(Signed::is_positive);
    above.map_or((Layered::Long, 0), |above| at_least(devices, layers, &above, most))
}

/// The same at a rate.
fn at_least(devices: &[Alike], layers: u32, above: &Exact, most: u64) -> (Layered, u64) {
    let Some((kinds, mut search)) = Laying::new(devices, layers, above, most) else { return (Layered::Long, 0) };
    let position = |kind: usize| kinds[kind][0];
    match search.cheap() {
        Err(_) => return (Layered::Long, search.looked),
        Ok(Some(cover)) => {
            let named = cover.into_iter().map(|(kind, layers, count)| (position(kind), layers, count)).collect();
            return (Layered::Cheap(named), search.looked);
        }
        Ok(None) => {}
    }
    let found = match search.run() {
        Err(TooLong) => Layered::Long,
        Ok(None) => Layered::Impossible,
        Ok(Some(laid)) => {
            // Devices of one kind come from all positions that it is made of.
            let mut free: Vec<Vec<usize>> = kinds
                .iter()
                .map(|of| of.iter().rev().flat_map(|&at| std::iter::repeat_n(at, devices[at].count)).collect())
                .collect();
            Layered::Laid(laid.into_iter().filter_map(|(kind, held)| Some((free[kind].pop()?, held))).collect())
        }
    };
    (found, search.looked)
}

/// Proves from worths that no plan reaches `above`, or says why not.
pub(super) fn prove(
    problem: &PlacementProblem,
    above: &Exact,
    worths: &BTreeMap<String, f64>,
    batch: Option<u32>,
) -> Vec<BoundFault> {
    let wrong = |(name, worth): &(&String, &f64)| {
        problem.graph.find(name).is_none() || !(worth.is_finite() && (0.0..WORTH_MAX).contains(*worth))
    };
    let fault = |(name, &worth): (&String, &f64)| BoundFault::Worth { device: name.clone(), worth };
    let faults: Vec<BoundFault> = worths.iter().filter(wrong).map(fault).collect();
    if !faults.is_empty() {
        return faults;
    }
    if problem.limits.partial {
        return vec![BoundFault::Choices { evidence: "layer_by_layer", what: "stages that are entered in the middle" }];
    }
    let classes = match classes(problem, above, batch) {
        Ok(classes) => classes,
        Err(fault) => return vec![fault],
    };
    let (mut devices, mut members): (Vec<Alike>, Vec<Vec<DeviceId>>) = (Vec::new(), Vec::new());
    for class in &classes {
        let mut rates: BTreeMap<u32, f64> = BTreeMap::new();
        for ((held, ..), rate) in &class.rates {
            let known = rates.entry(*held).or_insert(0.0);
            *known = known.max(nearest(rate));
        }
        let mut by_worth: BTreeMap<u64, Vec<DeviceId>> = BTreeMap::new();
        for &device in &class.devices {
            let worth = worths.get(&problem.graph.device(device).name).copied().unwrap_or(0.0);
            by_worth.entry(worth.to_bits()).or_default().push(device);
        }
        for (worth, of_worth) in by_worth {
            let rates = rates.iter().map(|(&held, &rate)| (held, rate)).collect();
            devices.push(Alike { count: of_worth.len(), worth: f64::from_bits(worth), rates });
            members.push(of_worth);
        }
    }
    let name = |of: usize, n: usize| problem.graph.device(members[of][n.min(members[of].len() - 1)]).name.clone();
    let (found, count) = at_least(&devices, problem.layers(), above, LAYERED_MAX);
    match found {
        Layered::Impossible => Vec::new(),
        Layered::Laid(laid) => {
            let mut used = vec![0; devices.len()];
            let mut named = |(of, held): (usize, Layers)| {
                used[of] += 1;
                format!("{} from {} to {}", name(of, used[of] - 1), held.start, held.end)
            };
            vec![BoundFault::Laid { laid: laid.into_iter().map(&mut named).collect() }]
        }
        Layered::Cheap(cover) => {
            let price = |&(of, held, n): &(usize, u32, u64)| devices[of].worth / f64::from(held) * n as f64;
            let cost = cover.iter().map(price).sum();
            let named = |(of, held, n): (usize, u32, u64)| format!("{n} x {} with {held} layers", name(of, 0));
            vec![BoundFault::CheapCover { cost, cover: cover.into_iter().map(named).collect() }]
        }
        Layered::Long => {
            let what = "sets of devices that begin together, kinds of devices, or devices of a kind";
            vec![BoundFault::TooLarge { what, count: count.into(), max: LAYERED_MAX.into() }]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers below a limit, the same ones every time.
    struct Draw(u64);

    impl Draw {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % limit
        }
    }

    /// The most that passes from the first border to the last, by rates of intervals: path by path.
    fn flow(layers: usize, held: &[(usize, usize, i64)]) -> i64 {
        let mut room: Vec<[i64; 2]> = held.iter().map(|&(.., rate)| [rate, 0]).collect();
        let mut all = 0;
        loop {
            let (mut seen, mut path) = (vec![false; layers + 1], Vec::new());
            if !way(0, layers, held, &room, &mut seen, &mut path) {
                return all;
            }
            let most = path.iter().map(|&(i, back): &(usize, usize)| room[i][back]).min().expect("a way");
            for (i, back) in path {
                room[i][back] -= most;
                room[i][1 - back] += most;
            }
            all += most;
        }
    }

    fn way(
        at: usize,
        layers: usize,
        held: &[(usize, usize, i64)],
        room: &[[i64; 2]],
        seen: &mut [bool],
        path: &mut Vec<(usize, usize)>,
    ) -> bool {
        if at == layers {
            return true;
        }
        seen[at] = true;
        for (i, &(start, end, _)) in held.iter().enumerate() {
            for (back, from, to) in [(0, start, end), (1, end, start)] {
                if from == at && !seen[to] && room[i][back] > 0 {
                    path.push((i, back));
                    if way(to, layers, held, room, seen, path) {
                        return true;
                    }
                    path.pop();
                }
            }
        }
        false
    }

    /// The best rate of all placements of devices, each with rates by number of layers.
    fn best(layers: usize, devices: &[&Vec<i64>], held: &mut Vec<(usize, usize, i64)>) -> i64 {
        let Some((first, others)) = devices.split_first() else { return flow(layers, held) };
        let mut most = best(layers, others, held);
        for start in 0..layers {
            for (end, &rate) in (start + 1..=layers).zip(first.iter()) {
                held.push((start, end, rate));
                most = most.max(best(layers, others, held));
                held.pop();
            }
        }
        most
    }

    #[test]
    fn no_rate_of_a_plan_is_called_impossible_and_most_rates_above_all_plans_are() {
        let mut draw = Draw(7);
        let (mut proved, mut more, mut open) = (0, 0, 0);
        for _ in 0..600 {
            let layers = 2 + draw.below(3) as usize;
            let rates: Vec<Vec<i64>> = (0..1 + draw.below(3))
                .map(|_| (0..1 + draw.below(layers as u64)).map(|k| 1 + draw.below(24 / (k + 1)) as i64).collect())
                .collect();
            let of: Vec<usize> = (0..2 + draw.below(3)).map(|_| draw.below(rates.len() as u64) as usize).collect();
            let devices: Vec<&Vec<i64>> = of.iter().map(|&kind| &rates[kind]).collect();
            let best = best(layers, &devices, &mut Vec::new());
            if best == 0 {
                continue;
            }
            // A device's share of a layer is at least its share of the rate: every cover pays for a layer.
            let alike = |bound: f64, generous: f64| -> Vec<Alike> {
                let kind = |(kind, rates): (usize, &Vec<i64>)| {
                    let rates: Vec<(u32, f64)> = (1..).zip(rates.iter().map(|&rate| rate as f64)).collect();
                    let most =
                        rates.iter().map(|&(k, rate)| f64::from(k) * (rate / bound).min(1.0)).fold(0.0, f64::max);
                    Alike { count: of.iter().filter(|&&o| o == kind).count(), worth: most * generous, rates }
                };
                rates.iter().enumerate().map(kind).collect()
            };
            let generous = 1.0 + draw.below(4) as f64 / 10.0;
            for (below, bound) in [(true, best as f64 * (1.0 - 1e-6)), (false, best as f64)] {
                let devices = alike(bound, generous);
                let (found, _) = layered(&devices, layers as u32, bound, LAYERED_MAX);
                if below {
                    let Layered::Laid(laid) = found else { panic!("{found:?} at {bound} of {rates:?} {of:?}") };
                    for layer in 0..layers as u32 {
                        let here = laid.iter().filter(|(_, held)| held.start <= layer && layer < held.end);
                        let rate = |&(of, held): &(usize, Layers)| rates[of][(held.end - held.start) as usize - 1];
                        assert!(here.map(rate).sum::<i64>() as f64 >= bound, "layer {layer} of {laid:?}");
                    }
                    for (kind, of) in devices.iter().enumerate() {
                        assert!(laid.iter().filter(|(o, _)| *o == kind).count() <= of.count, "{laid:?}");
                    }
                } else {
                    proved += usize::from(found == Layered::Impossible);
                    open += usize::from(matches!(found, Layered::Laid(_)));
                    let sum: f64 = devices.iter().map(|of| of.count as f64 * of.worth).sum();
                    more += usize::from(found == Layered::Impossible && sum >= layers as f64);
                }
            }
        }
        // Where flows divide and join again, limits may leave a rate open that no plan has.
        assert!(proved > 400 && more > 200 && open < 60, "{proved} {more} {open}");
    }

    #[test]
    fn a_cover_that_pays_too_little_is_found_and_a_search_ends_where_it_must() {
        let of = |worth: f64| vec![Alike { count: 4, worth, rates: vec![(1, 10.0), (2, 6.0), (3, 3.0)] }];
        let (found, looked) = layered(&of(0.9), 6, 10.0, LAYERED_MAX);
        assert_eq!(found, Layered::Cheap(vec![(0, 2, 2)]));
        assert!(looked < 10);
        // Two at a time hold two layers: four of the six.
        assert_eq!(layered(&of(2.4), 6, 10.0, LAYERED_MAX).0, Layered::Impossible);
        assert_eq!(layered(&of(2.4), 6, 10.0, 1).0, Layered::Long);
        assert_eq!(layered(&of(2.4), 6, f64::NAN, LAYERED_MAX).0, Layered::Long);
        assert_eq!(layered(&of(f64::NAN), 6, 10.0, LAYERED_MAX).0, Layered::Long);
    }

    #[test]
    fn kinds_named_twice_or_in_another_order_change_nothing() {
        let a = |count| Alike { count, worth: 1.3, rates: vec![(1, 9.0), (2, 5.0), (3, 3.0)] };
        let b = |count| Alike { count, worth: 1.0, rates: vec![(1, 11.0)] };
        let one = layered(&[a(4), b(2)], 6, 9.9, LAYERED_MAX);
        for other in [vec![b(2), a(4)], vec![a(1), b(1), a(3), b(1)], vec![a(4), b(0), b(2)]] {
            let (found, looked) = layered(&other, 6, 9.9, LAYERED_MAX);
            assert_eq!(looked, one.1);
            let kind = |found: &Layered| matches!(found, Layered::Impossible);
            assert_eq!(kind(&found), kind(&one.0), "{found:?} {one:?}");
        }
    }
}
