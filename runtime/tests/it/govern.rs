//! The governor in closed loop with plants that it knows wrongly. The plant is stepped far finer than the governor
//! acts.

use isotherm_core::device::{Device, DeviceKind};
use isotherm_core::figure::Figure;
use isotherm_core::power::{Draw, PowerPoint};
use isotherm_core::thermal::network::Network;
use isotherm_core::thermal::{ThermalNode, ThermalState};
use isotherm_core::units::{Celsius, JoulesPerKelvin, Kelvin, KelvinPerWatt, Seconds, Watts};
use isotherm_runtime::govern::{Act, Action, Governor, Guarded, Means, Reading, Settings};
use proptest::prelude::*;

/// A card as it is: a die on a sink, air, and a sensor that may round.
#[derive(Clone, Copy, Debug)]
struct Plant {
    /// From the sink to the air, in K/W.
    resistance: f64,
    /// Of the sink, in J/K.
    capacity: f64,
    /// From the die to the sink, in K/W, and of the die, in J/K; absent for one node.
    die: Option<(f64, f64)>,
    /// The same of a package between the two; none where the die sits on the sink.
    package: Option<(f64, f64)>,
    air: f64,
    idle: f64,
    busy: f64,
    /// Steps of the sensor in kelvin; 0 for a perfect one.
    sensor_step: f64,
}

/// What came of a run.
struct Course {
    hottest: f64,
    /// Work done as a share of all that full speed would have done.
    done: f64,
    actions: Vec<Action>,
    /// Share of full work in each period.
    shares: Vec<f64>,
}

impl Plant {
    fn modes(&self) -> isotherm_core::thermal::network::Modes {
        // From the die, which is heated, to the sink, which the air cools.
        let inner: Vec<(f64, f64)> = self.die.into_iter().chain(self.package).collect();
        let capacities = inner.iter().map(|(_, capacity)| *capacity).chain([self.capacity]);
        let mut network = Network::of(capacities.collect());
        *network.to_air.last_mut().expect("a node") = 1.0 / self.resistance;
        for (node, (resistance, _)) in inner.iter().enumerate() {
            network.join(node, node + 1, 1.0 / resistance);
        }
        network.modes()
    }

    /// Runs `seconds` with the share of full work that `share` says each second; gives it the sensor's reading.
    fn run(&self, seconds: u32, mut share: impl FnMut(Option<(f64, f64, f64)>) -> f64) -> (f64, f64, Vec<f64>) {
        let modes = self.modes();
        let mut rises = vec![self.idle * self.resistance; modes.nodes()];
        let (mut hottest, mut done, mut shares) = (f64::MIN, 0.0, Vec::new());
        let mut reading = None;
        for _ in 0..seconds {
            let now = share(reading).clamp(0.0, 1.0);
            let watts = self.idle + (self.busy - self.idle) * now;
            let mut powers = vec![0.0; modes.nodes()];
            powers[0] = watts;
            for _ in 0..10 {
                modes.advance(&mut rises, &powers, 0.1);
                hottest = f64::max(hottest, self.air + rises[0]);
            }
            done += now;
            shares.push(now);
            let mut seen = self.air + rises[0];
            if self.sensor_step > 0.0 {
                seen = (seen / self.sensor_step).round() * self.sensor_step;
            }
            reading = Some((seen, watts, now));
        }
        (hottest, done / f64::from(seconds), shares)
    }

    /// The greatest share that may be done all the time, found by bisection on the plant itself.
    fn best_constant(&self, seconds: u32, limit: f64) -> f64 {
        let (mut low, mut high) = (0.0, 1.0);
        if self.run(seconds, |_| 1.0).0 <= limit {
            return 1.0;
        }
        for _ in 0..30 {
            let middle = (low + high) / 2.0;
            if self.run(seconds, |_| middle).0 <= limit { low = middle } else { high = middle }
        }
        low
    }

    /// What was identified of it: one node, whose resistance is `wrong` times what it is.
    fn guarded(&self, limit: f64, wrong: f64) -> Guarded {
        let inner = self.die.into_iter().chain(self.package);
        let (resistance, capacity) = inner
            .fold((self.resistance, self.capacity), |(r, c), (resistance, capacity)| (r + resistance, c + capacity));
        let node = ThermalNode::new(
            KelvinPerWatt::of(resistance * wrong),
            JoulesPerKelvin::of(capacity),
            Celsius::of(self.air),
        );
        let draw = Draw::new(Watts::of(self.idle), Watts::of(self.busy));
        Guarded { name: "card".to_owned(), limit: Celsius::of(limit), node, draw }
    }

    fn governed(&self, seconds: u32, limit: f64, wrong: f64, sensor: bool) -> Course {
        let start = sensor.then(|| Celsius::of(self.air + self.idle * self.resistance));
        let means = Means { caps: Some((Watts::of(self.idle), Watts::of(self.busy))), batch: true, shift: false };
        let mut governor = Governor::new(self.guarded(limit, wrong), means, Settings::default(), start);
        let mut actions = Vec::new();
        let (hottest, done, shares) = self.run(seconds, |reading| {
            if let Some((seen, watts, work)) = reading {
                actions.extend(governor.step(&Reading {
                    temperature: sensor.then(|| Celsius::of(seen)),
                    power: Some(Watts::of(watts)),
                    air: None,
                    work,
                    demand: 1.0,
                    charge: None,
                }));
            }
            governor.share()
        });
        Course { hottest, done, actions, shares }
    }
}

const CARD: Plant = Plant {
    resistance: 0.22,
    capacity: 420.0,
    die: None,
    package: None,
    air: 28.0,
    idle: 25.0,
    busy: 350.0,
    sensor_step: 0.0,
};
const LIMIT: f64 = 83.0;
const SECONDS: u32 = 3600;

fn spread(shares: &[f64]) -> f64 {
    let (low, high) = shares.iter().fold((1.0_f64, 0.0_f64), |(low, high), s| (low.min(*s), high.max(*s)));
    high - low
}

#[test]
fn with_a_resistance_off_by_30_percent_either_way_no_limit_is_passed_and_hardly_any_work_is_lost() {
    for plant in [
        CARD,
        Plant { sensor_step: 1.0, ..CARD },
        Plant { die: Some((0.06, 60.0)), ..CARD },
        Plant { die: Some((0.06, 60.0)), sensor_step: 1.0, ..CARD },
        Plant { resistance: 0.30, capacity: 900.0, sensor_step: 1.0, ..CARD },
    ] {
        let best = plant.best_constant(SECONDS, LIMIT);
        assert!(best < 0.95, "the plant is one that needs a governor: {best}");
        for wrong in [0.7, 1.0, 1.3] {
            let course = plant.governed(SECONDS, LIMIT, wrong, true);
            assert!(course.hottest <= LIMIT + 1.0, "{plant:?} x {wrong}: {:.2} °C", course.hottest);
            assert!(course.done >= 0.95 * best, "{plant:?} x {wrong}: {:.4} of {best:.4}", course.done);
            let settled = &course.shares[course.shares.len() / 2..];
            assert!(spread(settled) < 0.08, "{plant:?} x {wrong}: it swings by {:.3}", spread(settled));
            let late = course.actions.iter().filter(|action| action.period > u64::from(SECONDS) / 2).count();
            assert!(late < SECONDS as usize / 40, "{plant:?} x {wrong}: {late} actions in the second half");
            eprintln!(
                "{plant:?} x {wrong}: {:.2} °C, {:.4} of the best constant {best:.4}, {} actions",
                course.hottest,
                course.done / best,
                course.actions.len()
            );
        }
    }
}

#[test]
fn every_action_has_the_forecast_that_caused_it() {
    let course = CARD.governed(SECONDS, LIMIT, 0.7, true);
    let first = course.actions.first().expect("it acts");
    assert!(matches!(first.act, Act::Cap { .. }), "{first:?}");
    // It acted before the limit was reached, because it saw it coming.
    assert!(first.forecast.now.value() < LIMIT && first.forecast.unacted.value() > LIMIT - 1.0, "{first:?}");
    assert!(first.forecast.measured);
    for action in &course.actions {
        if let Act::Cap { watts } = action.act {
            assert!(watts.value() <= action.forecast.allowed.value() + 1e-9, "{action:?}");
        }
    }
    // What it learnt of the unknown heat makes up for the wrong resistance: at the end the power it takes for good is
    // the plant's own.
    let own = (LIMIT - 1.0 - CARD.air) / CARD.resistance;
    let learnt = course.actions.last().expect("it acts").forecast.sustained.value();
    assert!((learnt / own - 1.0).abs() < 0.02, "{learnt} of {own}");
}

#[test]
fn a_device_that_stays_cool_is_left_alone() {
    let cool = Plant { busy: 200.0, ..CARD };
    let course = cool.governed(SECONDS, LIMIT, 1.3, true);
    assert!(course.actions.is_empty(), "{:?}", course.actions);
    assert!((course.done - 1.0).abs() < 1e-9);
}

#[test]
fn without_a_sensor_the_model_alone_keeps_more_distance_and_says_so() {
    let course = CARD.governed(SECONDS, LIMIT, 1.0, false);
    assert!(course.hottest <= LIMIT - 4.0, "{:.2}", course.hottest);
    assert!(course.actions.iter().all(|action| !action.forecast.measured));
    let best = CARD.best_constant(SECONDS, LIMIT);
    assert!(course.done >= 0.8 * best, "{:.3} of {best:.3}", course.done);
}

#[test]
fn a_power_limit_leaves_the_speed_of_its_operating_point_and_pauses_leave_less() {
    let mut device = Device::named("card", "host", DeviceKind::Gpu);
    let watts = |watts: f64| Figure::declared(Watts::of(watts), "test");
    (device.idle_watts, device.busy_watts) = (Some(watts(20.0)), Some(watts(220.0)));
    device.power_points = vec![PowerPoint { speed: 0.8, watts: watts(120.0) }];
    let node = ThermalNode::new(KelvinPerWatt::of(0.4), JoulesPerKelvin::of(100.0), Celsius::of(25.0));
    // 25 °C and 120 W at 0.4 K/W make 73 °C, a kelvin below which it aims.
    let share = |caps: Option<(Watts, Watts)>| {
        let draw = Draw::of(&device).expect("powers are known");
        let guarded = Guarded { name: "card".to_owned(), limit: Celsius::of(74.0), node, draw };
        let means = Means { caps, batch: true, shift: false };
        let mut governor = Governor::new(guarded, means, Settings::default(), Some(Celsius::of(73.0)));
        let mut state = ThermalState::new(node, Celsius::of(73.0));
        for _ in 0..600 {
            state.advance(Seconds::of(1.0), governor.power());
            let (temperature, power) = (Some(state.temperature()), Some(governor.power()));
            governor.step(&Reading { temperature, power, work: 1.0, demand: 1.0, ..Reading::default() });
        }
        governor.share()
    };
    let (limited, paused) = (share(Some((Watts::of(50.0), Watts::of(220.0)))), share(None));
    assert!((limited - 0.8).abs() < 0.02, "{limited}");
    assert!((paused - 0.5).abs() < 0.02, "{paused}");
}

#[test]
fn one_reading_far_too_high_and_a_silent_sensor_cost_little_work() {
    // A slow card, of which a high reading asks for far less power than none.
    let slow = Plant { resistance: 0.5, capacity: 800.0, busy: 220.0, ..CARD };
    let means = Means { caps: Some((Watts::of(slow.idle), Watts::of(slow.busy))), batch: true, shift: false };
    for fault in [None, Some(20.0)] {
        let start = Celsius::of(slow.air + slow.idle * slow.resistance);
        let mut governor = Governor::new(slow.guarded(LIMIT, 1.0), means, Settings::default(), Some(start));
        let (mut second, mut idle) = (0, 0);
        let (hottest, _, _) = slow.run(3600, |reading| {
            second += 1;
            if let Some((seen, watts, work)) = reading {
                let temperature = match (fault, second) {
                    (Some(more), 1800) => Some(seen + more),
                    (None, 1800..1810) => None,
                    _ => Some(seen),
                };
                governor.step(&Reading {
                    temperature: temperature.map(Celsius::of),
                    power: Some(Watts::of(watts)),
                    air: None,
                    work,
                    demand: 1.0,
                    charge: None,
                });
            }
            idle += u32::from(second >= 1800 && governor.share() == 0.0);
            governor.share()
        });
        assert!(hottest <= LIMIT + 1.0, "{fault:?}: {hottest:.2} °C");
        assert!(idle <= 60, "{fault:?}: idle for {idle} s");
        eprintln!("{fault:?}: {hottest:.2} °C, idle for {idle} s");
    }
}

#[test]
fn a_sensor_that_is_lost_is_an_alarm_and_its_return_is_noticed() {
    let means = Means { caps: None, batch: true, shift: false };
    let mut governor = Governor::new(CARD.guarded(LIMIT, 1.0), means, Settings::default(), Some(Celsius::of(40.0)));
    let reading = |temperature: Option<f64>| Reading {
        temperature: temperature.map(Celsius::of),
        work: 1.0,
        demand: 1.0,
        ..Reading::default()
    };
    let mut acts = Vec::new();
    for second in 0..30 {
        let seen = if (10..20).contains(&second) { None } else { Some(40.0) };
        acts.extend(governor.step(&reading(seen)).into_iter().map(|action| (second, action.act)));
    }
    assert!(acts.contains(&(13, Act::SensorLost)), "three readings may be missing: {acts:?}");
    assert!(acts.contains(&(20, Act::SensorFound)), "{acts:?}");
    let blind = Governor::new(CARD.guarded(LIMIT, 1.0), means, Settings::default(), None);
    assert!(blind.is_blind());
}

#[test]
fn where_the_least_work_is_too_much_it_pauses_as_long_as_it_takes_and_questions_the_plan() {
    // A card in a room that got hot: next to nothing is left.
    let hot = Plant { air: 72.0, resistance: 0.6, ..CARD };
    let course = hot.governed(SECONDS, LIMIT, 1.0, true);
    assert!(course.hottest <= LIMIT + 6.5, "idle alone is {:.1} °C", hot.air + hot.idle * hot.resistance);
    assert!(course.actions.iter().any(|action| matches!(action.act, Act::Pause { seconds } if seconds.value() >= 1.0)));
    assert!(course.actions.iter().any(|action| matches!(action.act, Act::Replan { bears } if bears < 0.5)));
}

#[test]
fn the_cheapest_means_at_hand_is_taken_and_work_resumes_with_hysteresis() {
    let acts = |means: Means| {
        let mut governor = Governor::new(CARD.guarded(LIMIT, 1.0), means, Settings::default(), Some(Celsius::of(82.0)));
        let hot = Reading { temperature: Some(Celsius::of(82.0)), work: 1.0, demand: 1.0, ..Reading::default() };
        let first = governor.step(&hot);
        // The demand ends: a moment later it is let go, and not asked for again while nothing changes.
        let idle = Reading { temperature: Some(Celsius::of(80.0)), work: 0.0, demand: 0.0, ..Reading::default() };
        let mut later = Vec::new();
        for _ in 0..50 {
            later.extend(governor.step(&idle).into_iter().map(|action| action.act));
        }
        (first.first().map(|action| action.act), later)
    };
    let caps = Some((Watts::of(100.0), Watts::of(350.0)));
    assert!(matches!(acts(Means { caps, batch: true, shift: true }).0, Some(Act::Cap { .. })));
    assert!(matches!(acts(Means { caps: None, batch: true, shift: true }).0, Some(Act::Batch { .. })));
    let (first, later) = acts(Means { caps: None, batch: false, shift: true });
    assert!(matches!(first, Some(Act::Shift { .. })));
    assert_eq!(later, [Act::Resume], "once, and no more");
}

#[test]
fn a_low_battery_slows_a_phone_and_an_empty_one_stops_it() {
    let skin = Plant { resistance: 4.0, capacity: 60.0, idle: 0.6, busy: 6.0, air: 25.0, ..CARD };
    let means = Means { caps: None, batch: true, shift: false };
    let mut governor = Governor::new(skin.guarded(43.0, 1.0), means, Settings::default(), Some(Celsius::of(28.0)));
    let at = |charge: f64| Reading {
        temperature: Some(Celsius::of(28.0)),
        work: 0.2,
        demand: 0.2,
        charge: Some(charge),
        ..Reading::default()
    };
    assert!(governor.step(&at(0.9)).is_empty());
    assert!(matches!(governor.step(&at(0.19))[0].act, Act::BatteryLow { share } if share == 0.5));
    assert!(governor.share() <= 0.5);
    assert!(governor.step(&at(0.22)).is_empty(), "hysteresis");
    assert!(matches!(governor.step(&at(0.05))[0].act, Act::Pause { .. }));
    assert_eq!(governor.share(), 0.0);
    assert_eq!(governor.power(), Watts::of(0.6));
}

#[test]
fn the_margin_is_all_that_is_given_up_where_the_model_is_right() {
    let course = CARD.governed(SECONDS, LIMIT, 1.0, true);
    let state = ThermalState::settled(CARD.guarded(LIMIT, 1.0).node, Watts::of(CARD.idle));
    let sustained = state.node().sustained(Celsius::of(LIMIT) - Kelvin::of(1.0));
    let share = (sustained.value() - CARD.idle) / (CARD.busy - CARD.idle);
    let settled = &course.shares[course.shares.len() / 2..];
    let mean = settled.iter().sum::<f64>() / settled.len() as f64;
    assert!((mean - share).abs() < 0.02, "{mean} of {share}");
    assert!(Seconds::of(1.0) == Settings::default().period);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Cards of all kinds, each known up to 30 % wrong.
    #[test]
    fn no_card_is_cooked_and_none_is_idle_for_nothing(
        resistance in 0.12..0.5, tau in 40.0..400.0, die in proptest::option::of((0.1..0.35, 0.02..0.2)),
        package in proptest::option::of((0.1..0.35, 0.05..0.3)),
        air in 15.0..35.0, surplus in 1.1..2.0, wrong in 0.7..1.3, rounded in any::<bool>(),
    ) {
        let idle = 20.0;
        // So much power that full work passes the limit by some.
        let busy = (LIMIT - air) / resistance * surplus;
        let die = die.map(|(r, c): (f64, f64)| (r * resistance, c * tau / resistance));
        let package = die.and(package).map(|(r, c): (f64, f64)| (r * resistance, c * tau / resistance));
        let inner: f64 = die.iter().chain(&package).map(|(r, _)| r).sum();
        let plant = Plant {
            resistance: resistance - inner, capacity: tau / resistance, die, package, air, idle, busy,
            sensor_step: if rounded { 1.0 } else { 0.0 },
        };
        let best = plant.best_constant(1800, LIMIT);
        let course = plant.governed(1800, LIMIT, wrong, true);
        let most = if package.is_some() { 0.5 } else { 1.0 };
        prop_assert!(course.hottest <= LIMIT + most, "{:.2} °C", course.hottest);
        // Of cards of three nodes one in some hundred loses up to a tenth while it is learnt how they are.
        let least = if package.is_some() { 0.85 } else { 0.95 };
        prop_assert!(course.done >= least * best, "{:.4} of {:.4}", course.done, best);
    }
}
