//! Piles against closed forms, conservation and small steps.

use super::*;
use isotherm_core::figure::Figure;
use isotherm_core::thermal::governor::Step;
use isotherm_core::thermal::{Branch, Fan};
use isotherm_core::units::{JoulesPerKelvin, KelvinPerWatt, Seconds};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

fn figure<T>(value: T) -> Figure<T> {
    Figure::declared(value, "test")
}

fn branch(resistance: f64, capacity: f64) -> Branch {
    Branch {
        resistance_kelvin_per_watt: figure(KelvinPerWatt::of(resistance)),
        capacity_joules_per_kelvin: figure(JoulesPerKelvin::of(capacity)),
    }
}

fn record(resistance: f64, capacity: f64) -> ThermalRecord {
    let Branch { resistance_kelvin_per_watt, capacity_joules_per_kelvin } = branch(resistance, capacity);
    ThermalRecord {
        resistance_kelvin_per_watt,
        capacity_joules_per_kelvin,
        throttle_celsius: None,
        resume_celsius: None,
        throttled_speed: None,
        die: None,
        case: None,
        fan: None,
    }
}

fn item(record: ThermalRecord, steps: &[(f64, f64, f64)]) -> Item {
    let step = |&(at, resume, speed): &(f64, f64, f64)| Step {
        at_celsius: Celsius::of(at),
        resume_celsius: Celsius::of(resume),
        speed,
        watts: None,
    };
    let governor = (!steps.is_empty()).then(|| Governor::new(steps.iter().map(step).collect()).expect("valid"));
    let draw = Draw::new(Watts::of(10.0), Watts::of(200.0));
    Item { draw, cap: 1.0, record: Some(record), governor, battery: None }
}

fn chassis(devices: usize) -> Chassis {
    Chassis {
        name: "tower".to_owned(),
        devices: (0..devices).map(|i| format!("d{i}")).collect(),
        resistance_kelvin_per_watt: KelvinPerWatt::of(0.05),
        capacity_joules_per_kelvin: JoulesPerKelvin::of(3_000.0),
    }
}

const AMBIENT: f64 = 25.0;

fn pile(items: Vec<Item>, chassis: Option<&Chassis>) -> Pile {
    Pile::new(items, chassis, Celsius::of(AMBIENT), Vec::new()).sampled()
}

fn seconds(span: f64) -> SimDuration {
    SimDuration((span * 1e9) as u64)
}

/// Follows everything that is due until `end`.
fn run(pile: &mut Pile, end: SimTime) {
    while let Some(due) = pile.due().filter(|&due| due <= end) {
        pile.change(due);
    }
}

#[test]
fn one_node_in_a_pile_throttles_at_the_closed_form_crossing() {
    // R C = 50 s; idle at 30 C, busy heads for 125 C.
    let mut pile = pile(vec![item(record(0.5, 100.0), &[(80.0, 70.0, 0.5)])], None);
    pile.work(SimTime::ZERO, 0, true);
    let due = pile.due().expect("it gets hot");
    let by_hand = 50.0 * libm::log((125.0 - 30.0) / (125.0 - 80.0));
    assert!((due.seconds().value() - by_hand).abs() < 2e-9, "{due:?} {by_hand}");
    pile.change(due);
    assert_eq!((pile.clock(0), pile.due()), (0.5, None));
    pile.work(due, 0, false);
    let resumed = pile.due().expect("it cools");
    let by_hand = 50.0 * libm::log((80.0 - 30.0) / (70.0 - 30.0));
    assert!((resumed.since(due).seconds().value() - by_hand).abs() < 5e-9);
    pile.change(resumed);
    let toll = pile.toll(resumed, 0);
    assert_eq!((pile.clock(0), toll.slowed, toll.slowed_after), (1.0, Some(resumed.since(due)), Some(due)));
}

#[test]
fn a_busy_neighbour_makes_a_device_throttle_that_would_not_alone() {
    // 25 + 160 (0.3 + 0.05) = 81; the neighbour's 200 W add 10.
    let mut mild = item(record(0.3, 100.0), &[(90.0, 80.0, 0.5)]);
    mild.draw = Draw::new(Watts::of(10.0), Watts::of(160.0));
    let mut pile = pile(vec![mild, item(record(0.3, 100.0), &[])], Some(&chassis(2)));
    pile.work(SimTime::ZERO, 0, true);
    let begun = SimTime::ZERO + seconds(20_000.0);
    run(&mut pile, begun);
    assert_eq!(pile.clone().toll(begun, 0).slowed_after, None);
    pile.work(begun, 1, true);
    let end = begun + seconds(20_000.0);
    run(&mut pile, end);
    let after = pile.toll(end, 0).slowed_after.expect("91 C would be reached");
    assert!(after > begun, "{after:?}");
}

#[test]
fn a_governor_of_several_steps_settles_where_heat_and_speed_agree() {
    // 10 + 190 s watts over 0.5 K/W: at 0.8 it heads for 106, at 0.6 for 87, at 0.4 for 68.
    let steps = [(80.0, 76.0, 0.8), (85.0, 80.0, 0.6), (90.0, 84.0, 0.4)];
    let mut pile = pile(vec![item(record(0.5, 100.0), &steps)], None);
    pile.work(SimTime::ZERO, 0, true);
    run(&mut pile, SimTime::ZERO + seconds(3_000.0));
    assert_eq!(pile.clock(0), 0.6);
    let toll = pile.toll(SimTime::ZERO + seconds(3_000.0), 0);
    assert!((toll.hottest.expect("known").value() - 87.0).abs() < 0.01, "{toll:?}");
    assert!((toll.sustained.expect("slowed") - 0.6).abs() < 0.01);
}

#[test]
fn the_stated_power_of_an_operating_point_holds_and_only_a_cap_lowers_it() {
    let step = Step { at_celsius: Celsius::of(50.0), resume_celsius: Celsius::of(45.0), speed: 0.5, watts: None };
    let stated = Governor::new(vec![Step { watts: Some(Watts::of(180.0)), ..step }]).expect("valid");
    // By speed alone it would draw 10 + 190 / 2 = 105 W; a cap to 0.6 leaves 10 + 190 * 0.6 = 124 W.
    for (cap, watts) in [(1.0, 180.0), (0.6, 124.0)] {
        let mut pile = pile(vec![Item { cap, governor: Some(stated.clone()), ..item(record(0.5, 100.0), &[]) }], None);
        pile.work(SimTime::ZERO, 0, true);
        run(&mut pile, SimTime::ZERO + seconds(3_000.0));
        assert_eq!(pile.clock(0), 0.5);
        assert!((pile.members[0].power.value() - watts).abs() < 1e-9, "{cap}: {:?}", pile.members[0].power);
    }
}

#[test]
fn a_fan_holds_a_device_where_its_steps_say() {
    let fan =
        Fan { start_celsius: figure(Celsius::of(60.0)), watts_per_kelvin_squared: figure(0.05), full_celsius: None };
    let fanned = ThermalRecord { die: Some(branch(0.05, 10.0)), fan: Some(fan), ..record(0.5, 150.0) };
    let mut pile = pile(vec![item(fanned, &[])], None);
    pile.work(SimTime::ZERO, 0, true);
    let end = SimTime::ZERO + seconds(5_000.0);
    run(&mut pile, end);
    pile.settle(end);
    // (T - 10 - 25) (2 + 0.05 (T - 60)) = 200 with the die 10 K over its sink.
    let found = pile.temperature(0).expect("known").value();
    let balance = |t: f64| (t - 35.0) * (2.0 + 0.05 * (t - 60.0)) - 200.0;
    assert!(balance(found - 0.7) < 0.0 && balance(found + 0.7) > 0.0, "{found}");
}

#[test]
fn hotter_air_is_felt_when_it_comes() {
    let later = AirStep { at_seconds: Seconds::of(500.0), celsius: Celsius::of(40.0) };
    let mut pile =
        Pile::new(vec![item(record(0.3, 100.0), &[(95.0, 85.0, 0.5)])], None, Celsius::of(AMBIENT), vec![later])
            .sampled();
    pile.work(SimTime::ZERO, 0, true);
    assert_eq!(pile.due(), Some(SimTime::ZERO + seconds(500.0)), "85 C hold below 95");
    pile.change(SimTime::ZERO + seconds(500.0));
    let throttled = pile.due().expect("100 C would be reached");
    let by_hand = 30.0 * libm::log((100.0 - 85.0) / (100.0 - 95.0));
    assert!((throttled.seconds().value() - 500.0 - by_hand).abs() < 1e-3, "{throttled:?} {by_hand}");
}

fn cell(charging: Option<f64>) -> Battery {
    Battery {
        capacity_joules: figure(Joules::of(10_000.0)),
        charge: 1.0,
        cutoff: 0.1,
        low: Some(0.5),
        low_speed: Some(0.5),
        charging_watts: charging.map(Watts::of),
    }
}

#[test]
fn a_battery_slows_its_device_and_then_stops_it() {
    let mut one = item(record(0.1, 100.0), &[]);
    one.battery = Some(cell(None));
    let mut pile = pile(vec![one], None);
    pile.work(SimTime::ZERO, 0, true);
    // 200 W from 10 kJ to 5 kJ, then 105 W to 1 kJ.
    let low = pile.due().expect("it runs low");
    assert_eq!(low, SimTime::ZERO + seconds(25.0));
    pile.change(low);
    assert_eq!(pile.clock(0), 0.5);
    let empty = pile.due().expect("it runs empty");
    assert!((empty.since(low).seconds().value() - 4_000.0 / 105.0).abs() < 1e-6);
    pile.change(empty);
    assert_eq!(pile.clock(0), 0.0);
    assert!(pile.is_spent(0));
    let toll = pile.toll(empty + seconds(10.0), 0);
    assert!((toll.absorbed.value() - 9_000.0).abs() < 1e-3 && toll.slowed_after.is_none(), "{toll:?}");
    assert!((toll.samples.last().expect("kept").charge.expect("known") - 0.1).abs() < 1e-6);
}

#[test]
fn a_charged_device_stops_and_goes_on() {
    let mut one = item(record(0.1, 100.0), &[]);
    one.battery = Some(Battery { low: None, low_speed: None, ..cell(Some(50.0)) });
    let mut pile = pile(vec![one], None);
    pile.work(SimTime::ZERO, 0, true);
    let empty = pile.due().expect("200 W out, 50 W in");
    assert!((empty.seconds().value() - 60.0).abs() < 1e-6);
    pile.change(empty);
    assert!(pile.clock(0) == 0.0 && !pile.is_spent(0));
    let again = pile.due().expect("50 W in");
    assert!((again.since(empty).seconds().value() - 10.0).abs() < 1e-6);
    pile.change(again);
    assert_eq!(pile.clock(0), 1.0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]
    #[test]
    fn all_energy_is_stored_or_given_to_the_air_whatever_steps(
        resistances in prop::collection::vec(0.1..0.8_f64, 3), capacity in 20.0..400.0,
        spans in prop::collection::vec((0_u64..60_000_000_000, 0_usize..3, any::<bool>()), 1..40),
    ) {
        let fan = |start: f64| Fan {
            start_celsius: figure(Celsius::of(start)),
            watts_per_kelvin_squared: figure(0.04),
            full_celsius: Some(figure(Celsius::of(start + 20.0))),
        };
        let items = resistances.iter().map(|&r| {
            let record = ThermalRecord {
                die: Some(branch(0.05, 12.0)), case: Some(branch(3.0, 900.0)), fan: Some(fan(55.0)), ..record(r, capacity)
            };
            item(record, &[(75.0, 70.0, 0.7), (85.0, 78.0, 0.4)])
        });
        let mut pile = pile(items.collect(), Some(&chassis(3)));
        let before: f64 = pile.rises.iter().zip(&pile.network.capacities).map(|(t, c)| t * c).sum();
        let mut now = SimTime::ZERO;
        for (span, member, working) in spans {
            pile.work(now, member, working);
            let end = now + SimDuration(span);
            run(&mut pile, end);
            now = end;
        }
        pile.settle(now);
        let after: f64 = pile.rises.iter().zip(&pile.network.capacities).map(|(t, c)| t * c).sum();
        let Balance { absorbed, dissipated, .. } = pile.balance();
        let scale = absorbed + dissipated.abs() + before.abs() + after.abs();
        prop_assert!((absorbed - (after - before) - dissipated).abs() <= 1e-9 * scale, "{absorbed} {dissipated}");
        // What each drew is what all drew.
        let drawn: f64 = (0..3).map(|member| pile.toll(now, member).absorbed.value()).sum();
        prop_assert!((drawn - absorbed).abs() <= 1e-9 * (1.0 + absorbed));
    }
}
