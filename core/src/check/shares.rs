//! The finish of a prompt in chunks as a mean over paths.
//!
//! A chain is a flow shop, whose finish is its longest path over (chunk, stage); no mean of paths is longer. Shares say
//! which part of all paths has left the first chunk for the *followed* one at each boundary between layers, and which
//! part has gone on to the last. They rise, and no path is at the last that has not left the first. So paths pass a stage
//! from `s` to `e`, with `F` and `K` the shares at its ends, with
//!
//! ```text
//! the first chunk                1 - F(s)
//! each one between               F(e) - F(s)
//! the followed one               F(e) - K(s)
//! the last                       K(e)
//! ```
//!
//! of them, and a way with as many as have come to each chunk there. What a walk costs then depends on where it stands
//! alone, and prices are as for any walk.
//!
//! What the cheapest walk leaves open are mostly walks that take longer by another path than by the mean. So beginnings
//! of walks are looked at, in order of the layer they end at, each told by when the first, the followed and the last
//! chunk leave, if those between pass a stage together. One that ends where another does and is nowhere earlier, prices
//! included, is dropped: what completes it completes the other no later. So is one whose mean over paths, with the
//! cheapest completion, is no less than the target. Devices used are not told apart, but for
//! those of which a part says that they are used once: a beginning rules another out only where it has used none of them
//! that the other has not.

use super::certificate::BoundFault;
use super::walk::{Completions, NEVER, Prices, WalkFault, Walks};
use crate::plan::PathShares;

/// All paths, in the unit of shares.
const WHOLE: i128 = 65_536;
/// Times above are taken for this: a bound only falls by it.
const LONGEST: i128 = 1 << 106;
/// Most devices that walks use once.
const ONCE_MAX: usize = 64;
/// Most beginnings kept.
const KEPT_MAX: u64 = 400_000;

/// Shares at each boundary between layers, from before the first to after the last.
pub(super) struct Shares {
    followed: Vec<i128>,
    last: Vec<i128>,
    /// The bit of each device that walks use once; none for the others.
    once: Vec<u64>,
}

/// A sum of times in so many shares each; no way where one is needed that is none.
fn sum<const N: usize>(parts: [(i128, i128); N]) -> i128 {
    if parts.iter().any(|&(share, time)| share > 0 && time >= NEVER) {
        return NEVER;
    }
    parts.iter().map(|&(share, time)| share * time.min(LONGEST)).sum::<i128>().div_euclid(WHOLE)
}

impl Shares {
    /// Errors: they are not of as many boundaries as there are, do not rise, or more paths are at the last chunk than
    /// have left the first.
    pub fn new(walks: &Walks<'_>, stated: &PathShares) -> Result<Self, BoundFault> {
        let all = |shares: &[u32], wanted: bool, otherwise: i128| {
            let inner = if wanted { walks.layers - 1 } else { 0 };
            let rises = shares.is_sorted() && shares.iter().all(|&share| i128::from(share) <= WHOLE);
            if walks.chunks < 2 || shares.len() != inner || !rises {
                return Err(BoundFault::Walk(WalkFault::Shares));
            }
            if !wanted {
                return Ok(vec![otherwise; walks.layers + 1]);
            }
            let inner = shares.iter().map(|&share| share.into());
            Ok([0].into_iter().chain(inner).chain([WHOLE]).collect::<Vec<i128>>())
        };
        let followed = all(&stated.followed, walks.followed > 0, WHOLE)?;
        let last = all(&stated.last, walks.followed + 1 < walks.chunks, 0)?;
        if followed.iter().zip(&last).any(|(followed, last)| last > followed) {
            return Err(WalkFault::Shares.into());
        }
        if stated.once.len() > ONCE_MAX {
            return Err(WalkFault::Shares.into());
        }
        let mut once = vec![0; walks.devices.len()];
        for (i, name) in stated.once.iter().enumerate() {
            let Some(device) = walks.find(name) else { return Err(WalkFault::Shares.into()) };
            once[device] |= 1 << i;
        }
        Ok(Self { followed, last, once })
    }

    /// What a mean over paths has taken before a layer, where the first, the followed and the last chunk have come so
    /// far.
    pub fn mean(&self, layer: usize, [first, followed, last]: [i128; 3]) -> i128 {
        let (left, ended) = (self.followed[layer], self.last[layer]);
        sum([(WHOLE - left, first), (left - ended, followed), (ended, last)])
    }

    /// Time of a stage as a mean over paths.
    pub fn stage(&self, walks: &Walks<'_>, device: usize, start: usize, end: usize) -> i128 {
        let time = |chunk: usize| walks.step(device, chunk, start, end);
        let (first, followed, all, last) = (time(0), time(walks.followed), time(walks.chunks), time(walks.chunks + 1));
        if all >= NEVER || last >= NEVER {
            return NEVER;
        }
        let between = if walks.followed > 0 { all - first - followed } else { 0 };
        let ([from, to], [ended, ends]) =
            ([self.followed[start], self.followed[end]], [self.last[start], self.last[end]]);
        sum([(WHOLE - from, first), (to - from, between), (to - ended, followed), (ends, last)])
    }

    /// Whether some paths are at the last chunk before a layer.
    pub fn turns_last(&self, layer: usize) -> bool {
        self.last[layer] > 0
    }

    /// Time from one device to another before a layer, as a mean over paths.
    pub fn way(&self, walks: &Walks<'_>, layer: usize, from: usize, to: usize) -> i128 {
        let way = |chunk: usize| walks.hop(chunk, from, to);
        match self.last[layer] {
            0 => way(0),
            last => sum([(WHOLE - last, way(0)), (last, way(walks.chunks - 1))]),
        }
    }
}

/// A beginning of a walk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Beginning {
    /// When the first, the followed and the last chunk leave, prices included.
    done: [i128; 3],
    /// Devices used of those that are used once, as bits.
    used: u64,
}

fn beats(a: &Beginning, b: &Beginning) -> bool {
    a.used & !b.used == 0 && a.done.iter().zip(&b.done).all(|(a, b)| a <= b)
}

/// Whether a walk takes less than the target, as far as three chunks tell.
pub(super) fn quicker_walk(
    walks: &mut Walks<'_>,
    prices: &Prices,
    shares: &Shares,
    completions: &Completions,
    most: i128,
    target: i128,
) -> Result<bool, BoundFault> {
    let same = |walks: &Walks<'_>, a: usize, b: usize| {
        prices.device[a] == prices.device[b] && shares.once[a] | shares.once[b] == 0 && walks.alike(a, b)
    };
    let mut classes: Vec<Vec<usize>> = Vec::new();
    for device in 0..walks.devices.len() {
        match classes.iter_mut().find(|class| same(walks, class[0], device)) {
            Some(class) => class.push(device),
            None => classes.push(vec![device]),
        }
    }
    let (n, layers, cutoff) = (walks.devices.len(), walks.layers, target.saturating_add(prices.sum));
    let mut fronts: Vec<Vec<Beginning>> = vec![Vec::new(); (layers + 1) * classes.len()];
    let mut kept = 0;
    for layer in 0..layers {
        for (to, class) in classes.iter().enumerate() {
            let device = class[0];
            let rest = completions.from[0][layer * n + device];
            let mut arrivals: Vec<Beginning> = Vec::new();
            if layer == 0 {
                arrivals.push(Beginning { done: [walks.entry[device]; 3], used: 0 });
            }
            for (from, others) in classes.iter().enumerate() {
                let front = &fronts[layer * classes.len() + from];
                // A device has no way to itself; one like it has.
                let target = if from == to { class.get(1) } else { class.first() };
                let Some(&target) = target.filter(|_| !front.is_empty()) else { continue };
                let [first, last] = [0, walks.chunks - 1].map(|chunk| walks.hop(chunk, others[0], target));
                let unused = front.iter().filter(|beginning| beginning.used & shares.once[device] == 0);
                arrivals.extend(unused.map(|&Beginning { done: [a, b, c], used }| {
                    let done = [(a, first), (b, first), (c, last)].map(|(done, way)| done.saturating_add(way));
                    Beginning { done, used }
                }));
            }
            let looked = arrivals.len() as u64;
            arrivals.retain(|beginning| shares.mean(layer, beginning.done).saturating_add(rest) < cutoff);
            // One that beats another has the lesser sum, or is equal and has used less.
            arrivals.sort_by_key(|beginning| {
                (beginning.done.iter().fold(0_i128, |sum, time| sum.saturating_add(*time)), *beginning)
            });
            let mut first: Vec<Beginning> = Vec::new();
            let mut compared = 0;
            for beginning in arrivals {
                compared += first.len() as u64;
                if !first.iter().any(|other| beats(other, &beginning)) {
                    first.push(beginning);
                }
            }
            walks.look(looked + compared)?;
            for end in layer + 1..=walks.reach[device][layer] {
                let all = walks.step(device, walks.chunks, layer, end);
                if all > most || all >= NEVER || first.is_empty() {
                    continue;
                }
                let [one, followed, last] =
                    [0, walks.followed, walks.chunks + 1].map(|chunk| walks.step(device, chunk, layer, end));
                let pay = walks.pay(prices, device, layer, end);
                let rest = completions.after[0][end * n + device];
                let mut compared = first.len() as u64;
                for arrived in &first {
                    let a = arrived.done[0].saturating_add(one);
                    let b = arrived.done[1].saturating_add(followed).max(a.saturating_add(all - one));
                    let c = arrived.done[2].max(b).saturating_add(last);
                    let done = [a, b, c].map(|time| time.saturating_add(pay));
                    if shares.mean(end, done).saturating_add(rest) >= cutoff {
                        continue;
                    }
                    if end == layers {
                        return Ok(true);
                    }
                    let new = Beginning { done, used: arrived.used | shares.once[device] };
                    let front = &mut fronts[end * classes.len() + to];
                    compared += front.len() as u64;
                    if !front.iter().any(|other| beats(other, &new)) {
                        front.retain(|other| !beats(&new, other));
                        front.push(new);
                        kept += 1;
                    }
                }
                walks.look(compared)?;
                if kept > KEPT_MAX {
                    let (what, max) = ("beginnings of walks", u128::from(KEPT_MAX));
                    return Err(BoundFault::TooLarge { what, count: max + 1, max });
                }
            }
        }
        fronts[layer * classes.len()..][..classes.len()].iter_mut().for_each(|front| *front = Vec::new());
    }
    Ok(false)
}
