//! Stages that leave layers where their device brings them from.

use super::{PlacementProblem, StageBytes};
use crate::ids::{DeviceId, Layers};
use crate::offload::{self, BUFFERS, Offload, Store, total};
use crate::units::{Bytes, Seconds};

impl PlacementProblem {
    /// The place where a device may leave layers, if plans may use it. Devices that share their memory with others, and
    /// groups, have none: what one of them may hold would hang on the others.
    #[must_use]
    pub fn offload(&self, device: DeviceId) -> Option<&Offload> {
        let known = self.graph.device(device);
        if !self.limits.choices.offload || self.degree(device) > 1 {
            return None;
        }
        let shares = |pool: &String| {
            let members = self.graph.devices().iter().filter(|other| other.memory_pool.as_ref() == Some(pool));
            members.count() > 1
        };
        known.offload.as_ref().filter(|_| !known.memory_pool.as_ref().is_some_and(shares))
    }

    /// What a stage needs in memory with as few layers away as surely make it fit; as it is where it fits, or never does.
    ///
    /// How many are away follows, like a step's time, from how many layers the stage holds and whether the first and the
    /// last are among them: of all stages of so many layers the largest has to fit, and a layer away is counted for no
    /// more than the smallest saves. What fits has parts that fit, since fewer layers only make all of it less.
    pub(super) fn offloaded(&self, device: DeviceId, layers: Layers, whole: StageBytes) -> StageBytes {
        let Some((place, memory)) = self.offload(device).zip(self.memory(device)) else { return whole };
        let each = self.layer_bytes(device, layers);
        let body = total(each.iter().copied());
        let rest = whole.total.0.saturating_sub(body);
        let all = self.layer_bytes(device, self.model.all_layers());
        let most = all.windows(each.len().max(1)).map(|some| total(some.iter().copied())).max().unwrap_or(body);
        let Some(room) = memory.0.checked_sub(rest).filter(|&room| room < most) else { return whole };
        let (smallest, largest) = (all.iter().min().copied().unwrap_or(0), all.iter().max().copied().unwrap_or(0));
        let buffers = |count: usize| largest.saturating_mul(BUFFERS.min(count) as u64);
        if buffers(each.len()) > room || place.room_bytes.as_ref().is_some_and(|room| most > room.value.0) {
            return whole;
        }
        // One layer away takes a buffer as large as itself at least, so it takes two or more to save anything.
        let count = most.saturating_add(buffers(2)).saturating_sub(room).div_ceil(smallest.max(1));
        let count = usize::try_from(count).unwrap_or(usize::MAX).clamp(2, each.len().max(2)).min(each.len());
        let away = offload::spread(each.len(), count);
        let held = offload::held(&each, &away);
        StageBytes {
            weights: Bytes(whole.weights.0.saturating_sub(body).saturating_add(held)),
            total: Bytes(rest.saturating_add(held)),
            away_layers: u32::try_from(count).unwrap_or(u32::MAX),
            away: Bytes(total(away.iter().map(|&layer| each[layer]))),
            ..whole
        }
    }

    /// The time of a step of so much computing: longer where layers come that lie elsewhere, at the mean size of the
    /// model's layers, by the longer of both where they come while others are computed, else by their sum.
    pub(super) fn with_bringing(&self, device: DeviceId, layers: Layers, computing: Seconds) -> Seconds {
        let Some(place) = self.offload(device) else { return computing };
        let count = self.stage_bytes(device, layers).away_layers;
        if count == 0 {
            return computing;
        }
        let all = self.layer_bytes(device, self.model.all_layers());
        let bytes = total(all.iter().copied()) as f64 / all.len().max(1) as f64 * f64::from(count);
        let most = Seconds::of(f64::MAX);
        let bringing = Seconds::new(bytes / place.bandwidth_bytes_per_second.value.value()).unwrap_or(most);
        // A card has two places for layers that are alike, and one for each of two kinds.
        let alike = all.iter().all(|bytes| *bytes == all[0]);
        if place.beside && (place.store == Store::Disk || alike) {
            computing.max(bringing)
        } else {
            Seconds::new(computing.value() + bringing.value()).unwrap_or(most)
        }
    }
}
