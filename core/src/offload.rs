//! Layers whose weights are not held in a device's memory: which they are, and what that takes.
//!
//! A pass visits the layers of a stage in a circle. Those held are always the same, and those brought from elsewhere are
//! spread evenly between them, so that one of two buffers is filled while a layer from the other is computed. A pass then
//! takes the longer of computing and bringing.

use crate::figure::Figure;
use crate::units::{Bytes, BytesPerSecond};
use serde::{Deserialize, Serialize};

/// Buffers between which bringing and computing alternate.
pub const BUFFERS: usize = 2;

/// Where weights lie that a device does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Store {
    /// Memory of its host.
    #[serde(rename = "host memory")]
    HostMemory,
    /// A disk of its host.
    #[serde(rename = "disk")]
    Disk,
}

/// The place from which a device brings weights that it does not hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Offload {
    /// What kind of place it is.
    pub store: Store,
    /// Rate at which layers come from there, whole layers one after another.
    pub bandwidth_bytes_per_second: Figure<BytesPerSecond>,
    /// Whether layers come while others are computed; else a step takes both one after the other.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub beside: bool,
    /// Its room: the layers of a stage that leaves some there have no more bytes than this. Absent where it is ample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room_bytes: Option<Figure<Bytes>>,
}

const fn yes() -> bool {
    true
}

// Serde's skip condition takes a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
const fn is_yes(flag: &bool) -> bool {
    *flag
}

/// Which of `layers` layers are away when `count` are: spread evenly, in rising order.
#[must_use]
pub fn spread(layers: usize, count: usize) -> Vec<usize> {
    let count = count.min(layers);
    (0..count).map(|i| (2 * i + 1) * layers / (2 * count)).collect()
}

/// Bytes in memory while these layers are away: those held, and the buffers.
#[must_use]
pub fn held(bytes: &[u64], away: &[usize]) -> u64 {
    let largest = away.iter().map(|&layer| bytes[layer]).max().unwrap_or(0);
    let kept = (0..bytes.len()).filter(|layer| away.binary_search(layer).is_err()).map(|layer| bytes[layer]);
    total(kept).saturating_add(largest.saturating_mul(BUFFERS.min(away.len()) as u64))
}

/// The sum, or the largest number there is: such a need never fits.
pub(crate) fn total(bytes: impl IntoIterator<Item = u64>) -> u64 {
    bytes.into_iter().fold(0, u64::saturating_add)
}

/// How many layers of these sizes are away so that what is held and the buffers fit `budget`: as few as possible; all
/// where nothing less is enough.
#[must_use]
pub fn fewest(bytes: &[u64], budget: u64) -> usize {
    let all = total(bytes.iter().copied());
    if all <= budget {
        return 0;
    }
    // Each layer away saves no more than the largest.
    let largest = bytes.iter().copied().max().unwrap_or(0).max(1);
    let least = usize::try_from((all - budget).div_ceil(largest)).unwrap_or(usize::MAX);
    let fits = |&count: &usize| held(bytes, &spread(bytes.len(), count)) <= budget;
    (least..bytes.len()).find(fits).unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_few_layers_as_possible_are_away_and_they_are_spread() {
        assert_eq!(fewest(&[10; 8], 80), 0);
        // One away needs a buffer of its own, and two need two: only the third saves anything.
        assert_eq!(fewest(&[10; 8], 79), 3);
        assert_eq!(fewest(&[10; 8], 70), 3);
        assert_eq!(fewest(&[10; 8], 30), 7);
        assert_eq!(fewest(&[10; 8], 20), 8);
        assert_eq!(fewest(&[10; 8], 1), 8, "what is least, although it does not fit");
        assert_eq!(spread(8, 3), [1, 4, 6]);
        assert_eq!(spread(8, 8), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert!(spread(0, 1).is_empty());
    }

    #[test]
    fn no_smaller_number_fits() {
        let bytes = [30, 10, 25, 40, 10, 10, 35];
        for budget in 0..200 {
            let dumb = (0..=bytes.len()).find(|&count| held(&bytes, &spread(bytes.len(), count)) <= budget);
            assert_eq!(fewest(&bytes, budget), dumb.unwrap_or(bytes.len()), "{budget}");
        }
    }
}
