//! What devices that hold intervals of layers pass from one border to another: a maximum flow on a line.
//!
//! Where every device that ends at a border may hand over to every device that begins there, borders are all the
//! nodes that a flow needs, and a device is an arc from where it begins to where it ends.

/// The most that passes from before the first layer to the border `end` by devices of (first layer, end, rate); those
/// that end beyond it count as ending there. No more than `enough` is looked for.
pub(super) fn passed(devices: &[(usize, usize, f64)], end: usize, enough: f64) -> f64 {
    let mut arcs: Vec<(usize, f64)> = Vec::with_capacity(2 * devices.len());
    let mut of_border = vec![Vec::new(); end + 1];
    for &(first, last, rate) in devices.iter().filter(|(first, ..)| *first < end) {
        let last = last.min(end);
        of_border[first].push(arcs.len());
        of_border[last].push(arcs.len() + 1);
        arcs.extend([(last, rate), (first, 0.0)]);
    }
    let (dust, mut all) = (enough * 1e-12, 0.0);
    let (mut came, mut queue) = (vec![usize::MAX; end + 1], Vec::with_capacity(end + 1));
    while all < enough {
        // The shortest way that still passes something.
        came.fill(usize::MAX);
        queue.clear();
        queue.push(0);
        let mut at = 0;
        while at < queue.len() && came[end] == usize::MAX {
            for &arc in &of_border[queue[at]] {
                let (to, left) = arcs[arc];
                if left > dust && to != 0 && came[to] == usize::MAX {
                    came[to] = arc;
                    queue.push(to);
                }
            }
            at += 1;
        }
        if came[end] == usize::MAX {
            break;
        }
        let (mut border, mut way) = (end, Vec::new());
        while border != 0 {
            way.push(came[border]);
            border = arcs[came[border] ^ 1].0;
        }
        let more = way.iter().map(|&arc| arcs[arc].1).fold(enough - all, f64::min);
        for arc in way {
            arcs[arc].1 -= more;
            arcs[arc ^ 1].1 += more;
        }
        all += more;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::super::random::Random;
    use super::*;

    /// The least cut: of all sets of borders with the first and without the last, what leaves the set by devices.
    fn cut(devices: &[(usize, usize, f64)], end: usize) -> f64 {
        let inside = |set: usize, border: usize| border == 0 || border < end && set >> (border - 1) & 1 == 1;
        let leaves = |set: usize| -> f64 {
            let out = devices.iter().filter(|(first, last, _)| inside(set, *first) && !inside(set, (*last).min(end)));
            out.map(|(.., rate)| rate).sum()
        };
        (0..1 << (end - 1)).map(leaves).fold(f64::INFINITY, f64::min)
    }

    #[test]
    fn what_passes_is_the_least_cut_and_no_more_than_enough() {
        let mut draws = Random::new(3);
        let mut some = 0;
        for _ in 0..300 {
            let end = 1 + draws.below(6);
            let device = |draws: &mut Random| {
                let first = draws.below(end);
                (first, first + 1 + draws.below(4), (1.0 + 9.0 * draws.real()).floor())
            };
            let devices: Vec<_> = (0..1 + draws.below(8)).map(|_| device(&mut draws)).collect();
            let (most, least) = (passed(&devices, end, 1e3), cut(&devices, end));
            assert!((most - least).abs() < 1e-9, "{devices:?} pass {most} to {end}, the least cut is {least}");
            assert!((passed(&devices, end, 3.0) - least.min(3.0)).abs() < 1e-9);
            some += usize::from(most > 0.0);
        }
        assert!(some > 60, "{some}");
    }
}
