//! What the cheapest walk leaves open: all beginnings of chains, but for those that cannot become a chain below the
//! target.
//!
//! A beginning is dropped where the time it has taken, plus the cheapest completion by a walk, less the prices that it
//! has not paid, is no less than the target: the completion of a chain pays each of these prices at most once (that
//! of a pinned device exactly once). It is also dropped where another that ends on the same device (or one alike) and
//! layer has used no other devices and no more memory, stages and time of every chunk, and has passed as long a
//! stage: what completes the one completes the other no later, because each finish of a flow shop only rises with its
//! start. Devices that are alike are used in the order of their identifiers, as any chain may exchange them.
//!
//! Beginnings are taken up in order of the layer they end at, so all rivals are known by then.

use super::certificate::BoundFault;
use super::shares::Shares;
use super::walk::{Completions, Found, Prices, Walks, interval};
use std::collections::BTreeMap;

/// Most beginnings kept.
const KEPT_MAX: usize = 400_000;

/// Latest beginnings of one end that a new one is compared with, beside all those that used the same devices.
const RIVALS: usize = 48;

/// Where beginnings end, and the devices they have used.
type Place = (usize, Vec<(usize, usize)>);

struct Beginning {
    /// One past the last layer placed.
    layer: usize,
    /// First layer of the last stage.
    start: usize,
    class: usize,
    device: usize,
    before: Option<usize>,
    stages: usize,
    /// Devices used by class, in order of the classes.
    used: Vec<(usize, usize)>,
    /// Bytes drawn, by memory.
    drawn: Vec<u64>,
    /// When each chunk leaves.
    done: Vec<i128>,
    /// Whether a stage longer than the part before allows has been passed; always so for one chunk.
    turned: bool,
    /// Prices not yet paid.
    unpaid: i128,
    dropped: bool,
}

struct Search<'a, 'b> {
    walks: &'a mut Walks<'b>,
    prices: &'a Prices,
    shares: Option<&'a Shares>,
    completions: &'a Completions,
    between: (i128, i128),
    target: i128,
    classes: Vec<Vec<usize>>,
    kept: Vec<Beginning>,
    /// Beginnings by the layer they end at and the class of the last device.
    ends: Vec<Vec<usize>>,
    same: BTreeMap<Place, Vec<usize>>,
    /// A chain that takes less than the target.
    found: Found,
}

/// A chain of the part that takes less than the target; none where there is none.
pub(super) fn search(
    walks: &mut Walks<'_>,
    (prices, shares): (&Prices, Option<&Shares>),
    completions: &Completions,
    between: (i128, i128),
    target: i128,
) -> Result<Found, BoundFault> {
    let mut classes: Vec<Vec<usize>> = Vec::new();
    for device in 0..walks.devices.len() {
        match classes.iter_mut().find(|class| walks.alike(class[0], device)) {
            Some(class) => class.push(device),
            None => classes.push(vec![device]),
        }
    }
    let ends = vec![Vec::new(); (walks.layers + 1) * classes.len()];
    let (kept, same) = (Vec::new(), BTreeMap::new());
    let mut search =
        Search { walks, prices, shares, completions, between, target, classes, kept, ends, same, found: None };
    search.extend(None)?;
    for layer in 1..search.walks.layers {
        for class in 0..search.classes.len() {
            for beginning in std::mem::take(&mut search.ends[layer * search.classes.len() + class]) {
                if !search.kept[beginning].dropped {
                    search.extend(Some(beginning))?;
                }
                if search.found.is_some() {
                    return Ok(search.found);
                }
            }
        }
    }
    Ok(search.found)
}

impl Search<'_, '_> {
    /// Level of the completions after so many stages; none where no more are allowed.
    fn level(&self, stages: usize) -> Option<usize> {
        if self.walks.rule.is_none() { Some(0) } else { self.completions.top.checked_sub(stages) }
    }

    /// Least value of what continues by the cheapest completion of a stage, from where each chunk is `reached`: where
    /// no stage longer than the part before allows is passed, one is to come, and walks before it and from it on are
    /// both paths of the chain; where one is, there may be another long one or not.
    fn least(&self, table: &[Vec<i128>], (layer, at): (usize, usize), reached: &[i128], turned: bool) -> i128 {
        if let Some(shares) = self.shares {
            let three = [0, self.walks.followed, self.walks.chunks - 1].map(|chunk| reached[chunk]);
            return shares.mean(layer, three).saturating_add(table[0][at]);
        }
        let value = |phase: usize| reached[self.walks.chunk_of(phase)].saturating_add(table[phase][at]);
        match (self.walks.phases(), turned) {
            (1, _) => value(0),
            (_, false) => value(0).max(value(1)),
            (2, true) => value(1),
            (_, true) => value(1).min(value(2)),
        }
    }

    /// Every stage that may follow a beginning, or be the first.
    fn extend(&mut self, before: Option<usize>) -> Result<(), BoundFault> {
        let (n, layers, chunks) = (self.walks.devices.len(), self.walks.layers, self.walks.chunks);
        let (layer, stages, unpaid, turned) = before.map_or((0, 0, self.prices.sum, chunks == 1), |b| {
            let b = &self.kept[b];
            (b.layer, b.stages, b.unpaid, b.turned)
        });
        let (Some(level), Some(below)) = (self.level(stages), self.level(stages + 1)) else { return Ok(()) };
        self.walks.look(self.classes.len() as u64)?;
        let cutoff = self.target.saturating_add(unpaid);
        for class in 0..self.classes.len() {
            let used = before.map_or(0, |b| {
                let used = &self.kept[b].used;
                used.binary_search_by_key(&class, |u| u.0).map_or(0, |at| used[at].1)
            });
            let Some(&device) = self.classes[class].get(used) else { continue };
            let arrived: Vec<i128> = match before {
                None => vec![self.walks.entry[device]; chunks],
                Some(b) => {
                    let b = &self.kept[b];
                    (0..chunks).map(|c| b.done[c].saturating_add(self.walks.hop(c, b.device, device))).collect()
                }
            };
            let at = (level * (layers + 1) + layer) * n + device;
            if self.least(&self.completions.from, (layer, at), &arrived, turned) >= cutoff {
                continue;
            }
            for end in layer + 1..=self.walks.reach[device][layer] {
                self.walks.look(chunks as u64)?;
                let all = self.walks.step(device, chunks, layer, end);
                if all > self.between.1 {
                    continue;
                }
                let mut free = 0;
                let done: Vec<i128> = (0..chunks)
                    .map(|chunk| {
                        free = arrived[chunk].max(free).saturating_add(self.walks.step(device, chunk, layer, end));
                        free
                    })
                    .collect();
                let turned = turned || all > self.between.0;
                let pay = self.walks.pay(self.prices, device, layer, end);
                let at = (below * (layers + 1) + end) * n + device;
                let least = self.least(&self.completions.after, (end, at), &done, turned);
                if least.saturating_add(pay) >= cutoff {
                    continue;
                }
                let unpaid = unpaid - pay;
                self.add(before, (class, device, layer, end), done, turned, unpaid)?;
                if self.found.is_some() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn add(
        &mut self,
        before: Option<usize>,
        (class, device, start, layer): (usize, usize, usize, usize),
        done: Vec<i128>,
        turned: bool,
        unpaid: i128,
    ) -> Result<(), BoundFault> {
        let parent = before.map(|b| &self.kept[b]);
        let mut drawn = parent.map_or_else(|| vec![0; self.walks.memories.len()], |p| p.drawn.clone());
        if let Some(memory) = self.walks.memory_of[device] {
            drawn[memory] = drawn[memory].saturating_add(self.walks.bytes(device, start, layer));
            if drawn[memory] > self.walks.memories[memory].size {
                return Ok(());
            }
        }
        let mut used = parent.map_or_else(Vec::new, |p| p.used.clone());
        match used.binary_search_by_key(&class, |u| u.0) {
            Ok(at) => used[at].1 += 1,
            Err(at) => used.insert(at, (class, 1)),
        }
        let stages = parent.map_or(0, |p| p.stages) + 1;
        let beginning = Beginning {
            layer,
            start,
            class,
            device,
            before,
            stages,
            used,
            drawn,
            done,
            turned,
            unpaid,
            dropped: false,
        };
        if layer == self.walks.layers {
            self.finish(&beginning);
            return Ok(());
        }
        if self.keeps(&beginning)? {
            if self.kept.len() >= KEPT_MAX {
                let (what, max) = ("beginnings of chains", KEPT_MAX as u128);
                return Err(BoundFault::TooLarge { what, count: max + 1, max });
            }
            self.ends[layer * self.classes.len() + class].push(self.kept.len());
            self.kept.push(beginning);
        }
        Ok(())
    }

    fn count(beginning: &Beginning, class: usize) -> usize {
        beginning.used.binary_search_by_key(&class, |u| u.0).map_or(0, |at| beginning.used[at].1)
    }

    /// Whether no other beginning rules this one out; drops those that it rules out.
    fn keeps(&mut self, new: &Beginning) -> Result<bool, BoundFault> {
        let place = new.layer * self.classes.len() + new.class;
        let same = self.same.entry((place, new.used.clone())).or_default();
        let near = &self.ends[place];
        let near = &near[near.len().saturating_sub(RIVALS)..];
        self.walks.look((same.len() + near.len()) as u64)?;
        let exact = self.walks.rule.is_some_and(|(least, most)| least == most);
        let ruled = self.walks.rule.is_some();
        let pins: Vec<usize> =
            (0..self.classes.len()).filter(|&class| self.walks.pinned[self.classes[class][0]]).collect();
        let beats = |a: &Beginning, b: &Beginning| {
            a.done.iter().zip(&b.done).all(|(a, b)| a <= b)
                && (a.turned || !b.turned)
                && (!ruled || (if exact { a.stages == b.stages } else { a.stages <= b.stages }))
                && a.used.iter().all(|&(class, count)| count <= Self::count(b, class))
                && pins.iter().all(|&class| Self::count(a, class) == Self::count(b, class))
                && a.drawn.iter().zip(&b.drawn).all(|(a, b)| a <= b)
        };
        let kept = &mut self.kept;
        if same.iter().chain(near).any(|&rival| beats(&kept[rival], new)) {
            return Ok(false);
        }
        for &rival in same.iter().chain(near) {
            kept[rival].dropped |= beats(new, &kept[rival]);
        }
        same.retain(|&rival| !kept[rival].dropped);
        same.push(kept.len());
        Ok(true)
    }

    /// Takes note of a chain that holds and takes less than the target.
    fn finish(&mut self, end: &Beginning) {
        let walks = &*self.walks;
        let value = end.done[walks.chunks - 1].saturating_add(walks.exit[end.device]);
        let pinned = (0..self.classes.len())
            .filter(|&class| walks.pinned[self.classes[class][0]])
            .all(|class| Self::count(end, class) == self.classes[class].len());
        let ruled = walks.rule.is_none_or(|(least, most)| (least..=most).contains(&end.stages));
        if value >= self.target || walks.unmet || !pinned || !ruled || !end.turned {
            return;
        }
        let mut chain = vec![(walks.devices[end.device], interval(end.start, end.layer))];
        let mut before = end.before;
        while let Some(at) = before {
            let stage = &self.kept[at];
            chain.push((walks.devices[stage.device], interval(stage.start, stage.layer)));
            before = stage.before;
        }
        chain.reverse();
        self.found = Some((value, chain));
    }
}
