//! A device's power, energy and temperature, exact between events.

use isotherm_core::power::Draw;
use isotherm_core::thermal::{ThermalState, Throttle};
use isotherm_core::trace::DeviceSample;
use isotherm_core::units::{Celsius, Joules, Seconds, SimDuration, SimTime, Watts};

/// Most samples kept of one device.
pub const SAMPLES_MAX: usize = 400;

/// What is known of a device's power and heat; the state at the start of a run.
#[derive(Debug, Clone)]
pub struct Body {
    draw: Draw,
    /// Share of full speed that its power cap allows.
    cap: f64,
    heat: Option<Heat>,
    /// Since `since` it draws this.
    power: Watts,
    since: SimTime,
    working: bool,
    absorbed: Joules,
    pace: Pace,
    samples: Option<Samples>,
}

/// Temperature and throttle.
#[derive(Debug, Clone)]
struct Heat {
    state: ThermalState,
    throttle: Option<Throttle>,
    hottest: Celsius,
    dissipated: Joules,
    slowed: SimDuration,
}

/// What a device used and how warm it got.
#[derive(Debug, Clone, PartialEq)]
pub struct Toll {
    /// Energy it drew.
    pub absorbed: Joules,
    /// Heat that it gave to the air, where its thermal parameters are known.
    pub dissipated: Option<Joules>,
    /// Hottest it was.
    pub hottest: Option<Celsius>,
    /// Time it was slowed by heat, where its throttle is known.
    pub slowed: Option<SimDuration>,
    /// When heat first slowed it.
    pub slowed_after: Option<SimTime>,
    /// Mean speed while busy since then, as a share of full speed.
    pub sustained: Option<f64>,
    /// Its state over time.
    pub samples: Vec<DeviceSample>,
}

/// How fast a device worked: when heat first slowed it, and its speed while busy since.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Pace {
    first: Option<SimTime>,
    busy: f64,
    worked: f64,
    /// Busy since the beginning.
    total: f64,
}

impl Pace {
    /// Time passed at this clock; whether it was busy.
    pub(crate) fn pass(&mut self, span: f64, busy: bool, clock: f64) {
        if busy {
            self.total += span;
            if self.first.is_some() {
                self.busy += span;
                self.worked += span * clock;
            }
        }
    }

    /// Heat slows it now.
    pub(crate) fn slow(&mut self, now: SimTime) {
        self.first.get_or_insert(now);
    }

    /// When it was first slowed.
    pub(crate) const fn first(&self) -> Option<SimTime> {
        self.first
    }

    /// Mean speed while busy since then.
    pub(crate) fn sustained(&self) -> Option<f64> {
        (self.busy > 0.0).then(|| self.worked / self.busy)
    }

    /// Seconds that it was busy.
    pub(crate) const fn busy_seconds(&self) -> f64 {
        self.total
    }
}

impl Body {
    /// A device that has idled for a long time. `cap` is the share of full speed that its power cap allows.
    #[must_use]
    pub fn new(draw: Draw, cap: f64, heat: Option<(ThermalState, Option<Throttle>)>) -> Self {
        let heat = heat.map(|(state, throttle)| Heat {
            state,
            throttle,
            hottest: state.temperature(),
            dissipated: Joules::ZERO,
            slowed: SimDuration(0),
        });
        let since = SimTime::ZERO;
        Self {
            power: draw.idle(),
            draw,
            cap,
            heat,
            since,
            working: false,
            absorbed: Joules::ZERO,
            pace: Pace::default(),
            samples: None,
        }
    }

    /// The same device, keeping its state over time.
    #[must_use]
    pub fn sampled(mut self) -> Self {
        self.samples = Some(Samples::default());
        self.sample(self.since, true);
        self
    }

    /// Clock as a share of full speed: what heat and power cap allow.
    #[must_use]
    pub fn clock(&self) -> f64 {
        let throttle = self.heat.as_ref().and_then(|heat| heat.throttle.as_ref());
        throttle.map_or(self.cap, |throttle| throttle.speed().min(self.cap))
    }

    /// Its temperature at the last event that concerned it.
    #[must_use]
    pub fn temperature(&self) -> Option<Celsius> {
        self.heat.as_ref().map(|heat| heat.state.temperature())
    }

    /// The device begins to work, or stops.
    pub fn work(&mut self, now: SimTime, working: bool) {
        self.settle(now);
        self.working = working;
        self.power = self.power_now();
        self.sample(now, false);
    }

    /// Keeps a sample, if one is wanted, and changes nothing else: whether samples are kept decides nothing.
    pub fn observe(&mut self, now: SimTime) {
        self.sample(now, false);
    }

    /// When its clock changes next if nothing else happens, rounded up to a nanosecond; none where it never does.
    #[must_use]
    pub fn clock_change(&self) -> Option<SimTime> {
        let heat = self.heat.as_ref()?;
        let after = heat.throttle.as_ref()?.change_after(&heat.state, self.power)?;
        let nanoseconds = libm::ceil(after.value() * 1e9);
        let due = self.since + SimDuration(nanoseconds as u64);
        (due < SimTime::NEVER).then_some(due)
    }

    /// Its clock changes now: it slows, or returns to full speed.
    pub fn change_clock(&mut self, now: SimTime) {
        self.settle(now);
        if let Some(throttle) = self.heat.as_mut().and_then(|heat| heat.throttle.as_mut()) {
            throttle.change();
            if throttle.slowed() {
                self.pace.slow(now);
            }
        }
        self.power = self.power_now();
        self.sample(now, true);
    }

    /// What it used until now.
    #[must_use]
    pub fn toll(mut self, now: SimTime) -> Toll {
        self.settle(now);
        self.sample(now, true);
        let heat = self.heat.as_ref();
        Toll {
            absorbed: self.absorbed,
            dissipated: heat.map(|heat| heat.dissipated),
            hottest: heat.map(|heat| heat.hottest),
            slowed: heat.and_then(|heat| heat.throttle.is_some().then_some(heat.slowed)),
            slowed_after: self.pace.first(),
            sustained: self.pace.sustained(),
            samples: self.samples.map(Samples::kept).unwrap_or_default(),
        }
    }

    fn power_now(&self) -> Watts {
        if self.working { self.draw.power(self.clock()) } else { self.draw.idle() }
    }

    /// Lets the time since the last event pass at the power drawn since then.
    fn settle(&mut self, now: SimTime) {
        let passed = now.since(self.since);
        let span: Seconds = passed.seconds();
        self.since = now;
        self.absorbed += self.power * span;
        self.pace.pass(span.value(), self.working, self.clock());
        if let Some(heat) = &mut self.heat {
            let flow = heat.state.advance(span, self.power);
            heat.dissipated += flow.dissipated;
            // At constant power the temperature is monotone, so its greatest value is at an end of the span.
            if heat.state.temperature() > heat.hottest {
                heat.hottest = heat.state.temperature();
            }
            if heat.throttle.as_ref().is_some_and(Throttle::slowed) {
                heat.slowed = SimDuration(heat.slowed.0.saturating_add(passed.0));
            }
        }
    }

    fn sample(&mut self, now: SimTime, must: bool) {
        if !must && !self.samples.as_ref().is_some_and(|samples| samples.wants(now)) {
            return;
        }
        let clock = self.clock();
        let Some(samples) = &mut self.samples else { return };
        let span = now.since(self.since).seconds();
        let temperature = self.heat.as_ref().map(|heat| {
            let mut state = heat.state;
            state.advance(span, self.power);
            state.temperature()
        });
        let throttled = self.heat.as_ref().is_some_and(|heat| heat.throttle.is_some());
        let busy = self.pace.busy_seconds() + if self.working { span.value() } else { 0.0 };
        let sample = DeviceSample {
            at_ns: now,
            temperature_celsius: temperature,
            speed: (throttled || self.cap < 1.0).then_some(clock),
            power_watts: Some(self.power),
            energy_joules: Some(self.absorbed + self.power * span),
            utilisation: None,
            charge: None,
            waiting: None,
            cache: None,
        };
        samples.add(sample, busy);
    }
}

/// At most [`SAMPLES_MAX`] samples of a run of any length: when it is full, every other one goes and they come half as
/// often from then on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples {
    /// Samples, and for how many seconds the device had been busy by then.
    kept: Vec<(DeviceSample, f64)>,
    /// Least time between two.
    gap: SimDuration,
}

impl Samples {
    /// Whether a sample at this time would be kept.
    pub(crate) fn wants(&self, now: SimTime) -> bool {
        self.kept.last().is_none_or(|(last, _)| now.since(last.at_ns) >= self.gap)
    }

    /// Keeps a sample in the place of one at the same time.
    pub(crate) fn add(&mut self, sample: DeviceSample, busy: f64) {
        if let Some(last) = self.kept.last_mut()
            && last.0.at_ns == sample.at_ns
        {
            *last = (sample, busy);
            return;
        }
        if self.kept.len() == SAMPLES_MAX {
            let span = sample.at_ns.since(self.kept[0].0.at_ns);
            self.gap = SimDuration((self.gap.0 * 2).max(span.0 / SAMPLES_MAX as u64));
            let mut number = 0;
            self.kept.retain(|_| {
                number += 1;
                number % 2 == 1
            });
        }
        self.kept.push((sample, busy));
    }

    /// The samples, each with the share of the time since the one before that the device was busy.
    pub(crate) fn kept(self) -> Vec<DeviceSample> {
        let mut before: Option<(SimTime, f64)> = None;
        let shared = self.kept.into_iter().map(|(mut sample, busy)| {
            sample.utilisation =
                before.map(|(at, until)| ((busy - until) / sample.at_ns.since(at).seconds().value()).clamp(0.0, 1.0));
            before = Some((sample.at_ns, busy));
            sample
        });
        shared.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isotherm_core::device::{Device, DeviceKind};
    use isotherm_core::figure::Figure;
    use isotherm_core::power::PowerPoint;
    use isotherm_core::thermal::{ThermalNode, ThermalRecord};
    use isotherm_core::units::{JoulesPerKelvin, KelvinPerWatt};
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    fn record(resistance: f64, capacity: f64) -> ThermalRecord {
        ThermalRecord {
            resistance_kelvin_per_watt: Figure::declared(KelvinPerWatt::of(resistance), "test"),
            capacity_joules_per_kelvin: Figure::declared(JoulesPerKelvin::of(capacity), "test"),
            throttle_celsius: Some(Figure::declared(Celsius::of(80.0), "test")),
            resume_celsius: Some(Figure::declared(Celsius::of(70.0), "test")),
            throttled_speed: Some(Figure::declared(0.5, "test")),
            die: None,
            case: None,
            fan: None,
        }
    }

    fn body(record: &ThermalRecord, idle: f64, busy: f64) -> Body {
        let node = ThermalNode::of(record, Celsius::of(25.0));
        let state = ThermalState::settled(node, Watts::of(idle));
        Body::new(Draw::new(Watts::of(idle), Watts::of(busy)), 1.0, Some((state, Throttle::of(record)))).sampled()
    }

    /// Drives a body through spans of work and rest, following every change of its clock.
    fn drive(body: &mut Body, spans: &[(u64, bool)]) -> SimTime {
        let mut now = SimTime::ZERO;
        for &(span, working) in spans {
            body.work(now, working);
            let end = now + SimDuration(span);
            while let Some(due) = body.clock_change().filter(|&due| due <= end) {
                body.change_clock(due);
            }
            now = end;
        }
        now
    }

    #[test]
    fn heat_slows_a_device_at_the_closed_form_crossing_and_rest_frees_it() {
        // R C = 50 s; idle at 10 W settles at 30 C, busy at 200 W heads for 125 C.
        let mut body = body(&record(0.5, 100.0), 10.0, 200.0);
        body.work(SimTime::ZERO, true);
        let due = body.clock_change().expect("it gets hot");
        let by_hand = 50.0 * libm::log((125.0 - 30.0) / (125.0 - 80.0));
        assert!((due.seconds().value() - by_hand).abs() < 2e-9, "{due:?} {by_hand}");
        body.change_clock(due);
        assert_eq!(body.clock(), 0.5);
        // 10 + (200 - 10) / 2 = 105 W holds 77.5 C: it stays slow while it works.
        assert_eq!(body.clock_change(), None);
        body.work(due, false);
        let resumed = body.clock_change().expect("it cools");
        let by_hand = 50.0 * libm::log((80.0 - 30.0) / (70.0 - 30.0));
        assert!((resumed.since(due).seconds().value() - by_hand).abs() < 2e-9);
        body.change_clock(resumed);
        assert_eq!(body.clock(), 1.0);
        let toll = body.toll(resumed);
        assert_eq!(toll.slowed, Some(resumed.since(due)));
        assert_eq!((toll.slowed_after, toll.sustained), (Some(due), None));
        assert!((toll.hottest.expect("known").value() - 80.0).abs() < 1e-6);
    }

    #[test]
    fn a_power_cap_takes_the_same_share_of_speed_and_of_power_above_idle() {
        let mut body = Body::new(Draw::new(Watts::of(10.0), Watts::of(110.0)), 0.6, None).sampled();
        body.work(SimTime::ZERO, true);
        assert_eq!(body.clock(), 0.6);
        let toll = body.toll(SimTime(2_000_000_000));
        assert!((toll.absorbed.value() - 140.0).abs() < 1e-9);
        assert_eq!((toll.hottest, toll.slowed), (None, None));
        let last = toll.samples.last().expect("power is known");
        assert_eq!((last.temperature_celsius, last.speed, last.utilisation), (None, Some(0.6), Some(1.0)));
        assert!((last.energy_joules.expect("known").value() - 140.0).abs() < 1e-9);
    }

    #[test]
    fn at_an_operating_point_a_device_draws_what_the_point_says() {
        let mut device = Device::named("card", "host", DeviceKind::Gpu);
        let watts = |watts: f64| Figure::declared(Watts::of(watts), "test");
        (device.idle_watts, device.busy_watts) = (Some(watts(10.0)), Some(watts(110.0)));
        device.power_points = vec![PowerPoint { speed: 0.8, watts: watts(60.0) }];
        let draw = Draw::of(&device).expect("powers are known");
        let cap = draw.speed_under(Watts::of(60.0));
        let mut body = Body::new(draw, cap, None);
        body.work(SimTime::ZERO, true);
        assert_eq!(body.clock(), 0.8);
        assert!((body.toll(SimTime(2_000_000_000)).absorbed.value() - 120.0).abs() < 1e-9);
    }

    #[test]
    fn a_run_of_any_length_keeps_a_bounded_number_of_samples_in_order() {
        let mut body = body(&record(0.5, 100.0), 10.0, 100.0);
        let spans: Vec<(u64, bool)> = (0..100_000).map(|i| (1_000_000 + i, i % 2 == 0)).collect();
        let end = drive(&mut body, &spans);
        let samples = body.toll(end).samples;
        assert!((SAMPLES_MAX / 2 - 1..=SAMPLES_MAX).contains(&samples.len()), "{}", samples.len());
        assert!(samples.windows(2).all(|pair| pair[0].at_ns < pair[1].at_ns));
        assert_eq!((samples[0].at_ns, samples[samples.len() - 1].at_ns), (SimTime::ZERO, end));
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]
        #[test]
        fn all_energy_is_stored_or_given_to_the_air(
            resistance in 0.05..2.0, capacity in 5.0..1_000.0, idle in 0.0..50.0, more in 0.0..400.0,
            spans in prop::collection::vec((0_u64..100_000_000_000, any::<bool>()), 1..60),
        ) {
            let mut body = body(&record(resistance, capacity), idle, idle + more);
            let before = body.temperature().expect("known");
            let end = drive(&mut body, &spans);
            body.settle(end);
            let stored = capacity * (body.temperature().expect("known") - before).value();
            let toll = body.toll(end);
            let (absorbed, dissipated) = (toll.absorbed.value(), toll.dissipated.expect("known").value());
            prop_assert!((absorbed - stored - dissipated).abs() <= 1e-9 * (absorbed + dissipated + capacity));
        }

        #[test]
        fn more_power_never_cools(
            idle in 0.0..50.0, busy in 50.0..300.0, more in 0.0..200.0,
            spans in prop::collection::vec((0_u64..50_000_000_000, any::<bool>()), 1..40),
        ) {
            // Without a throttle: with one, more power may slow the device sooner and so leave it cooler.
            let never = ThermalRecord { throttle_celsius: None, ..record(0.4, 120.0) };
            let (mut mild, mut hot) = (body(&never, idle, busy), body(&never, idle, busy + more));
            let (one, two) = (drive(&mut mild, &spans), drive(&mut hot, &spans));
            let (mild, hot) = (mild.toll(one), hot.toll(two));
            prop_assert!(hot.hottest >= mild.hottest && hot.absorbed >= mild.absorbed);
            for (cool, warm) in mild.samples.iter().zip(&hot.samples) {
                prop_assert!(warm.temperature_celsius >= cool.temperature_celsius);
            }
        }
    }
}
