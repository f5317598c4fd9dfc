//! What a device draws at each speed, and what it does with so much power.
//!
//! A device that is busy at a share `s` of its full speed draws `idle + (busy - idle) d(s)`. Where its operating points
//! are known, `d` passes through them and is straight between them, and from the slowest of them to idle; else `d(s) =
//! s`, as switching power `C V^2 f` of CMOS goes with the clock at constant voltage. Points are where the voltage falls
//! with the clock too (DVFS): then `d(s) < s`, and slower is cheaper for each piece of work.
//!
//! A device that works a share `u` of the time at a speed `s` does the *work* `w = u s` and has the *load* `x = u
//! d(s)`: mean power is `idle + (busy - idle) x`. Whatever its speed, work `w` asks for no less load than the
//! [`least`](Draw::least),
//!
//! ```text
//! min over s from w to 1 of w d(s) / s   >=   the greatest convex function below d that is 0 at 0
//! ```
//!
//! and the latter is what is used: it is equal where points are convex, as those of silicon are.

use crate::device::Device;
use crate::figure::Figure;
use crate::units::Watts;
use serde::{Deserialize, Serialize};

/// Most operating points of a device.
pub const POINTS_MAX: usize = 1_000;
/// Least speed of an operating point, as a share of full speed.
pub const SPEED_MIN: f64 = 0.001;
/// Least difference of the speeds of two points, and of the fastest below full speed from that: of points much nearer,
/// power would rise so steeply between them that a bound on it could not be told from rounding.
pub const SPEED_STEP: f64 = 0.001;
/// Relative difference up to which the point of full speed agrees with the busy power.
const AGREE: f64 = 1e-9;

/// An operating point: a speed at which a device may work, and what it draws then.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PowerPoint {
    /// Share of full speed, above 0 and at most 1.
    pub speed: f64,
    /// Power while busy at this speed.
    pub watts: Figure<Watts>,
}

impl PowerPoint {
    /// That of so many such devices at once.
    #[must_use]
    pub fn of_devices(&self, count: usize) -> Self {
        let watts = Figure { value: self.watts.value * count as f64, ..self.watts.clone() };
        Self { speed: self.speed, watts }
    }
}

/// What is wrong with operating points: a place, and what there must be. None where nothing is.
#[must_use]
pub fn fault(points: &[PowerPoint], idle: Option<Watts>, busy: Option<Watts>) -> Option<(f64, &'static str)> {
    if points.is_empty() {
        return None;
    }
    let Some(busy) = busy else { return Some((points[0].speed, "with busy power beside it")) };
    let idle = idle.unwrap_or(Watts::ZERO);
    if points.len() > POINTS_MAX {
        return Some((points.len() as f64, "at most 1000 of them"));
    }
    let mut above = (f64::INFINITY, f64::INFINITY);
    for point in points {
        let (speed, watts) = (point.speed, point.watts.value.value());
        if !(SPEED_MIN..=1.0).contains(&speed) {
            return Some((speed, "at a speed from 0.001 to 1"));
        }
        if speed >= above.0 {
            return Some((speed, "slower than the one before it"));
        }
        if speed < 1.0 && speed > above.0.min(1.0) - SPEED_STEP {
            return Some((speed, "slower than the one before it, and than full speed, by at least 0.001"));
        }
        if watts >= above.1 {
            return Some((watts, "of less power than the one before it"));
        }
        if watts <= idle.value() {
            return Some((watts, "above the idle power"));
        }
        let full = (watts - busy.value()).abs() <= AGREE * busy.value();
        if speed >= 1.0 && !full {
            return Some((watts, "of the busy power at speed 1"));
        }
        if speed < 1.0 && (watts >= busy.value() || full) {
            return Some((watts, "below the busy power at less than full speed"));
        }
        above = (speed, watts);
    }
    None
}

/// What a device draws at each speed.
#[derive(Debug, Clone, PartialEq)]
pub struct Draw {
    idle: Watts,
    busy: Watts,
    /// Speeds below 1 and the share `d` of what full speed adds, rising; none where only idle and busy are known.
    points: Vec<(f64, f64)>,
    /// Corners of the greatest convex function below `d`: from the end of the straight piece that begins at 0, to (1,
    /// 1).
    corners: Vec<(f64, f64)>,
}

impl Draw {
    /// Of a device that has no operating points.
    #[must_use]
    pub fn new(idle: Watts, busy: Watts) -> Self {
        Self { idle, busy, points: Vec::new(), corners: vec![(1.0, 1.0)] }
    }

    /// Of a device; none where its idle or its busy power is not known. Points that are [no table](fault) are left out.
    #[must_use]
    pub fn of(device: &Device) -> Option<Self> {
        let (idle, busy) = (device.idle_watts.as_ref()?.value, device.busy_watts.as_ref()?.value);
        let mut draw = Self::new(idle, busy);
        if device.power_points.is_empty() || fault(&device.power_points, Some(idle), Some(busy)).is_some() {
            return Some(draw);
        }
        let slower = device.power_points.iter().rev().filter(|point| point.speed < 1.0);
        draw.points = slower.map(|point| (point.speed, (point.watts.value - idle) / (busy - idle))).collect();
        draw.corners = lower_hull(draw.points.iter().copied().chain([(1.0, 1.0)]));
        Some(draw)
    }

    /// Power when idle.
    #[must_use]
    pub const fn idle(&self) -> Watts {
        self.idle
    }

    /// Power when busy at full speed.
    #[must_use]
    pub const fn busy(&self) -> Watts {
        self.busy
    }

    /// What full speed adds to idle power.
    #[must_use]
    pub fn span(&self) -> Watts {
        self.busy - self.idle
    }

    /// Whether operating points are known.
    #[must_use]
    pub fn has_points(&self) -> bool {
        !self.points.is_empty()
    }

    /// Speeds of the operating points below full speed, rising.
    pub fn speeds(&self) -> impl Iterator<Item = f64> + '_ {
        self.points.iter().map(|point| point.0)
    }

    /// Power while busy at a share of full speed.
    #[must_use]
    pub fn power(&self, speed: f64) -> Watts {
        self.idle + (self.busy - self.idle) * self.share(speed)
    }

    /// The share `d` of what full speed adds to idle power that is drawn while busy at a share of full speed.
    #[must_use]
    pub fn share(&self, speed: f64) -> f64 {
        if self.points.is_empty() { speed } else { through(self.points.iter().copied(), speed) }
    }

    /// The share of full speed at which a device is busy under a power cap: 0 where that leaves nothing above idle, 1
    /// where it leaves all.
    #[must_use]
    pub fn speed_under(&self, cap: Watts) -> f64 {
        let share = ((cap - self.idle) / (self.busy - self.idle)).clamp(0.0, 1.0);
        if self.points.is_empty() {
            return share;
        }
        through(self.points.iter().map(|&(speed, share)| (share, speed)), share).clamp(0.0, 1.0)
    }

    /// The least load for this much work, both as shares of all the time at full speed: no speed asks for less.
    #[must_use]
    pub fn least(&self, work: f64) -> f64 {
        if self.points.is_empty() { work } else { through(self.convex(), work) }
    }

    /// The greatest work at this load: no speed does more.
    #[must_use]
    pub fn work(&self, load: f64) -> f64 {
        if self.points.is_empty() {
            return load;
        }
        through(self.convex().map(|(work, load)| (load, work)), load)
    }

    /// The pieces of the [least](Self::least) load, rising: how much work each takes, and the load of a unit of it.
    pub fn pieces(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        let begins = std::iter::once((0.0, 0.0)).chain(self.corners.iter().copied());
        begins.zip(&self.corners).map(|((w, x), &(to, load))| (to - w, (load - x) / (to - w)))
    }

    /// The work and the load at which those pieces end, rising.
    pub fn corners(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        self.corners.iter().copied()
    }

    /// The slowest speed of those at which work takes least power.
    #[must_use]
    pub fn thriftiest(&self) -> f64 {
        self.corners.first().map_or(1.0, |corner| corner.0)
    }

    /// The corners below (1, 1).
    fn convex(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        self.corners.iter().copied().take(self.corners.len().saturating_sub(1))
    }
}

/// The line from (0, 0) through these points, rising in both, to (1, 1) and on.
fn through(points: impl Iterator<Item = (f64, f64)>, at: f64) -> f64 {
    let mut from = (0.0, 0.0);
    for to in points.chain([(1.0, 1.0)]) {
        if at <= to.0 || to.0 >= 1.0 {
            let way = (at - from.0) / (to.0 - from.0);
            // Exact at the end.
            return if at == to.0 { to.1 } else { from.1 + (to.1 - from.1) * way };
        }
        from = to;
    }
    at
}

/// The lower convex hull of (0, 0) and these points, rising, without (0, 0).
fn lower_hull(points: impl Iterator<Item = (f64, f64)>) -> Vec<(f64, f64)> {
    let mut hull: Vec<(f64, f64)> = vec![(0.0, 0.0)];
    for point in points {
        while let [.., a, b] = hull[..] {
            // `b` lies on or above the line from `a` to the new point.
            if (b.1 - a.1) * (point.0 - a.0) < (point.1 - a.1) * (b.0 - a.0) {
                break;
            }
            hull.pop();
        }
        hull.push(point);
    }
    hull.split_off(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::DeviceKind;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    fn card(points: &[(f64, f64)]) -> Device {
        let mut device = Device::named("card", "host", DeviceKind::Gpu);
        device.idle_watts = Some(Figure::declared(Watts::of(20.0), "test"));
        device.busy_watts = Some(Figure::declared(Watts::of(350.0), "test"));
        let point = |&(speed, watts)| PowerPoint { speed, watts: Figure::declared(Watts::of(watts), "test") };
        device.power_points = points.iter().map(point).collect();
        device
    }

    fn draw(points: &[(f64, f64)]) -> Draw {
        Draw::of(&card(points)).unwrap()
    }

    #[test]
    fn power_follows_the_points_and_goes_straight_between_them() {
        let draw = draw(&[(1.0, 350.0), (0.9, 260.0), (0.75, 190.0)]);
        let power = |speed| draw.power(speed).value();
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} {b}");
        near(power(1.0), 350.0);
        near(power(0.9), 260.0);
        near(power(0.95), 305.0);
        near(power(0.75), 190.0);
        near(power(0.825), 225.0);
        // Below the slowest towards idle: half of what it adds at half its speed.
        near(power(0.375), 20.0 + 85.0);
        near(power(0.0), 20.0);
    }

    #[test]
    fn without_points_power_goes_with_the_speed() {
        let draw = draw(&[]);
        assert_eq!(draw.power(0.5).value(), 185.0);
        assert_eq!(draw.speed_under(Watts::of(185.0)), 0.5);
        assert_eq!((draw.least(0.3), draw.work(0.3)), (0.3, 0.3));
        assert_eq!(draw.pieces().collect::<Vec<_>>(), vec![(1.0, 1.0)]);
    }

    #[test]
    fn a_cap_outside_what_a_device_draws_leaves_nothing_or_all() {
        let draw = draw(&[(0.5, 100.0)]);
        assert_eq!(draw.speed_under(Watts::of(20.0)), 0.0);
        assert_eq!(draw.speed_under(Watts::of(5.0)), 0.0);
        assert_eq!(draw.speed_under(Watts::of(350.0)), 1.0);
        assert_eq!(draw.speed_under(Watts::of(400.0)), 1.0);
    }

    #[test]
    fn a_point_above_the_line_between_its_neighbours_is_no_corner() {
        // 0.75 draws more for its work than going back and forth between 0.5 and 1 would.
        let draw = draw(&[(0.75, 330.0), (0.5, 100.0)]);
        let corners: Vec<f64> = draw.pieces().map(|piece| piece.0).collect();
        assert_eq!(corners, vec![0.5, 0.5]);
        assert_eq!(draw.thriftiest(), 0.5);
    }

    #[test]
    fn what_is_no_table_is_named() {
        let of = |points: &[(f64, f64)]| {
            let device = card(points);
            let watts = |figure: &Option<Figure<Watts>>| figure.as_ref().map(|figure| figure.value);
            fault(&device.power_points, watts(&device.idle_watts), watts(&device.busy_watts)).map(|fault| fault.1)
        };
        assert_eq!(of(&[(1.0, 350.0), (0.9, 260.0)]), None);
        assert_eq!(of(&[(0.9, 260.0)]), None);
        assert!(of(&[(0.9, 260.0), (0.9, 250.0)]).unwrap().contains("slower"));
        assert!(of(&[(0.9, 260.0), (0.8, 260.0)]).unwrap().contains("less power"));
        assert!(of(&[(0.9, 20.0)]).unwrap().contains("idle"));
        assert!(of(&[(1.0, 340.0)]).unwrap().contains("busy power"));
        assert!(of(&[(0.9, 350.0)]).unwrap().contains("below the busy power"));
        assert!(of(&[(0.0, 50.0)]).unwrap().contains("0.001"));
        assert!(of(&[(1.5, 500.0)]).unwrap().contains("0.001"));
    }

    fn tables() -> impl Strategy<Value = Vec<(f64, f64)>> {
        let steps = prop::collection::vec((0.01..0.3_f64, 1.0..100.0_f64), 1..5);
        steps.prop_map(|steps| {
            let (mut at, mut points) = ((1.0, 350.0), Vec::new());
            for (slower, less) in steps {
                at = (at.0 - slower, at.1 - less);
                if at.0 > 0.01 && at.1 > 21.0 {
                    points.push(at);
                }
            }
            points
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(53), ..ProptestConfig::default() })]

        #[test]
        fn the_speed_under_a_cap_draws_what_the_cap_allows(points in tables(), speed in 0.0..1.0_f64) {
            let draw = draw(&points);
            prop_assert!((draw.speed_under(draw.power(speed)) - speed).abs() < 1e-9);
        }

        /// Oracle: every speed of a fine grid that does the work.
        #[test]
        fn no_speed_does_work_for_less_load(points in tables(), work in 0.001..1.0_f64) {
            let draw = draw(&points);
            let least = (0..=1_000).map(|i| work + (1.0 - work) * f64::from(i) / 1e3)
                .map(|speed| work / speed * draw.share(speed))
                .fold(f64::INFINITY, f64::min);
            prop_assert!(draw.least(work) <= least + 1e-12, "{} {}", draw.least(work), least);
            prop_assert!((draw.work(draw.least(work)) - work).abs() < 1e-9);
            // A point that is a corner is worth what it draws.
            let corner = draw.thriftiest();
            prop_assert!((draw.least(corner) - draw.share(corner)).abs() < 1e-12);
        }

        #[test]
        fn pieces_add_up_to_all_and_cost_more_and_more(points in tables()) {
            let pieces: Vec<(f64, f64)> = draw(&points).pieces().collect();
            prop_assert!((pieces.iter().map(|piece| piece.0).sum::<f64>() - 1.0).abs() < 1e-12);
            prop_assert!((pieces.iter().map(|piece| piece.0 * piece.1).sum::<f64>() - 1.0).abs() < 1e-9);
            prop_assert!(pieces.windows(2).all(|pair| pair[0].1 < pair[1].1 + 1e-12));
        }
    }
}
