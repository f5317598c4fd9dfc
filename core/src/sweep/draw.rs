//! Latin hypercube sampling (McKay, Beckman and Conover, Technometrics 1979): with n points, each of n equal parts of
//! every axis holds exactly one.

/// The part of each axis that each point lies in, and where inside.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Strata {
    points: u32,
    axes: Vec<(u64, Vec<u32>)>,
}

/// The generator SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): one step from a state.
pub(super) fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Strata {
    /// Draws an order for each axis. An axis has a stream of its own by its name, so that a new one does not move the others.
    pub(super) fn draw<'a>(points: u32, seed: u32, names: impl Iterator<Item = &'a str>) -> Self {
        let axes = names.map(|name| {
            let stream = name.bytes().fold(mix(u64::from(seed)), |state, byte| mix(state ^ u64::from(byte)));
            let mut order: Vec<u32> = (0..points).collect();
            let mut state = stream;
            for i in (1..order.len()).rev() {
                state = mix(state);
                // The high half of a product is uniform up to a bias of i / 2^64.
                let at = (u128::from(state) * (i as u128 + 1)) >> 64;
                order.swap(i, at as usize);
            }
            (stream, order)
        });
        Self { points, axes: axes.collect() }
    }

    /// Where a point lies on an axis, from 0 to below 1.
    pub(super) fn share(&self, axis: usize, point: u64) -> f64 {
        let (stream, order) = &self.axes[axis];
        let inside = (mix(stream ^ mix(point ^ 0x5eed)) >> 11) as f64 / (1_u64 << 53) as f64;
        let share = (f64::from(order[point as usize]) + inside) / f64::from(self.points);
        share.min(1.0 - f64::EPSILON)
    }
}
