//! Logs made by small explicit steps of known networks, and what is identified from them.

use super::*;

/// What a made-up card is made of: K/W and J/K of die and sink, W/K to the air, the fan over 55 °C.
struct Card {
    die: (f64, f64),
    sink: f64,
    conductance: f64,
    slope: f64,
    air: f64,
}

const CARD: Card = Card { die: (0.08, 20.0), sink: 300.0, conductance: 2.0, slope: 0.0, air: 24.0 };

/// A log of one sample a second, by Euler steps of a hundredth, read by a sensor of whole degrees.
fn log(card: &Card, powers: &[(usize, f64)], beginning: f64) -> ThermalLog {
    let (mut die, mut sink) = (beginning, beginning);
    let mut log = ThermalLog::default();
    let mut second = 0.0;
    for &(count, watts) in powers {
        for _ in 0..count {
            for _ in 0..100 {
                let flow = (die - sink) / card.die.0;
                let g = card.conductance + card.slope * (die - 55.0).max(0.0);
                die += 0.01 * (watts - flow) / card.die.1;
                sink += 0.01 * (flow - g * (sink - card.air)) / card.sink;
            }
            second += 1.0;
            log.seconds.push(second);
            log.watts.push(watts);
            log.celsius.push((die + 0.5).floor());
        }
    }
    log
}

fn named(logs: Vec<ThermalLog>) -> Vec<(String, ThermalLog)> {
    logs.into_iter().enumerate().map(|(i, log)| (format!("log {i}"), log)).collect()
}

const STEPS: [(usize, f64); 6] = [(120, 20.0), (400, 90.0), (200, 40.0), (300, 120.0), (300, 15.0), (200, 70.0)];

#[test]
fn a_card_of_two_nodes_is_found_again() {
    let other = [(200, 60.0), (200, 110.0), (300, 25.0), (250, 80.0)];
    let train = named(vec![log(&CARD, &STEPS, 34.0), log(&CARD, &other, 30.0)]);
    let test = named(vec![log(&CARD, &[(150, 30.0), (300, 100.0), (200, 10.0)], 40.0)]);
    let fit = fit(&train, &test).expect("identified");
    assert!(fit.train.mae_celsius < 0.4 && fit.test.expect("scored").mae_celsius < 0.45, "{fit:?}");
    // What the air gets per kelvin, and the air itself.
    let resistance = fit.parameters["resistance_kelvin_per_watt"]
        + fit.parameters.get("die_resistance_kelvin_per_watt").unwrap_or(&0.0);
    assert!((resistance / 0.58 - 1.0).abs() < 0.05, "{resistance} {fit:?}");
    assert!((fit.parameters["reference_celsius"] - 24.0).abs() < 1.5, "{:?}", fit.parameters);
    for (name, (low, high)) in &fit.intervals {
        assert!(low <= &fit.parameters[name] && &fit.parameters[name] <= high, "{name} {low} {high}");
    }
}

#[test]
fn a_fan_is_told_from_a_plain_sink() {
    let fanned = Card { conductance: 1.2, slope: 0.05, ..CARD };
    let other = [(200, 60.0), (300, 130.0), (300, 25.0), (250, 80.0)];
    let train = named(vec![log(&fanned, &STEPS, 30.0), log(&fanned, &other, 35.0)]);
    let fit = fit(&train, &[]).expect("identified");
    assert!(fit.model.contains("fan"), "{} {:?}", fit.model, fit.candidates);
    assert!((fit.parameters["fan_start_celsius"] - 55.0).abs() < 4.0, "{:?}", fit.parameters);
    assert_eq!((fit.test, fit.test_files.len()), (None, 0));
}

#[test]
fn a_test_log_chooses_nothing() {
    let train = named(vec![log(&CARD, &STEPS, 34.0)]);
    let alone = fit(&train, &[]).expect("identified");
    let strange = named(vec![log(&Card { air: 60.0, ..CARD }, &STEPS, 70.0)]);
    let tested = fit(&train, &strange).expect("identified");
    assert_eq!((alone.model, &alone.parameters), (tested.model, &tested.parameters));
    assert!(tested.test.expect("scored").mae_celsius > 5.0 && alone.scheme.contains("blocks"));
}

#[test]
fn a_measured_ambient_temperature_is_the_reference() {
    let (mut cool, mut warm) = (log(&CARD, &STEPS, 34.0), log(&Card { air: 34.0, ..CARD }, &STEPS, 44.0));
    cool.ambient = Some(vec![24.0; cool.len()]);
    warm.ambient = Some(vec![34.0; warm.len()]);
    let fit = fit(&named(vec![cool, warm]), &[]).expect("identified");
    assert!(fit.parameters["reference_over_ambient_kelvin"].abs() < 1.5, "{:?}", fit.parameters);
    assert!(fit.cross_validation.mae_celsius < 0.6, "{:?}", fit.cross_validation);
}

#[test]
fn what_no_device_can_be_is_refused_with_the_reason() {
    let flat = ThermalLog {
        seconds: (0..50).map(f64::from).collect(),
        watts: vec![40.0; 50],
        celsius: vec![50.0; 50],
        ..ThermalLog::default()
    };
    assert!(matches!(fit(&named(vec![flat]), &[]), Err(FitError::NoContrast { .. })));
    assert_eq!(fit(&[], &[]), Err(FitError::NoLog));
    // A device that cools while it draws power: the columns are exchanged, or the sensor is another device's.
    let mut turned = log(&CARD, &STEPS, 34.0);
    turned.celsius.iter_mut().for_each(|t| *t = 110.0 - *t);
    let refused = fit(&named(vec![turned]), &[]).expect_err("unphysical").to_string();
    assert!(refused.contains("no better than a constant") || refused.contains("warmer than the coldest"), "{refused}");
}

#[test]
fn the_same_logs_give_the_same_bits() {
    let train = named(vec![log(&CARD, &STEPS, 34.0)]);
    assert_eq!(fit(&train, &[]), fit(&train, &[]));
}

#[test]
fn power_that_follows_clock_and_utilisation_is_predicted_from_them() {
    let mut logs = vec![log(&CARD, &STEPS, 34.0), log(&CARD, &[(300, 50.0), (300, 100.0), (300, 20.0)], 30.0)];
    for log in &mut logs {
        log.clock = Some(log.watts.iter().map(|watts| watts * 15.0).collect());
        log.utilisation = Some(vec![1.0; log.len()]);
    }
    let fit = fit(&named(logs), &[]).expect("identified");
    let predicted = fit.predicted_power.expect("clock and utilisation are there");
    assert!(predicted.power_mae_watts < 0.5 && predicted.cross_validation.mae_celsius < 1.0, "{predicted:?}");
}

#[test]
fn a_log_given_twice_is_refused_by_both_names() {
    let twice = named(vec![log(&CARD, &STEPS, 34.0), log(&CARD, &STEPS, 34.0)]);
    let refused = fit(&twice, &[]).expect_err("the same").to_string();
    assert!(refused.contains("log 0") && refused.contains("log 1"), "{refused}");
    assert!(matches!(fit(&twice[..1], &twice[1..]), Err(FitError::Repeated { .. })));
}

#[test]
fn exchanged_columns_are_refused() {
    let exchange = |mut log: ThermalLog| {
        std::mem::swap(&mut log.watts, &mut log.celsius);
        log
    };
    let other = [(200, 60.0), (200, 110.0), (300, 25.0), (250, 80.0)];
    let logs = named(vec![exchange(log(&CARD, &STEPS, 34.0)), exchange(log(&CARD, &other, 30.0))]);
    for train in [&logs[..], &logs[..1]] {
        let refused = fit(train, &[]).expect_err("power does not follow temperature").to_string();
        assert!(refused.contains("constant temperature") || refused.contains("do not determine"), "{refused}");
    }
}

#[test]
fn most_intervals_hold_the_truth_of_made_up_cards() {
    // SplitMix64 (Steele, Lea, Flood 2014).
    let mut state = 11_u64;
    let mut real = |low: f64, high: f64| {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        low + (high - low) * (z >> 11) as f64 / (1_u64 << 53) as f64
    };
    let (mut held, mut all, mut missed) = (0, 0, Vec::new());
    for card in 0..12 {
        let made = Card {
            die: (real(0.05, 0.15), real(5.0, 60.0)),
            sink: real(150.0, 900.0),
            conductance: real(1.2, 3.0),
            slope: 0.0,
            air: real(18.0, 32.0),
        };
        let mut steps =
            || -> Vec<(usize, f64)> { (0..6).map(|_| (real(100.0, 400.0) as usize, real(15.0, 140.0))).collect() };
        let logs = [steps(), steps()];
        let logs = logs.iter().map(|steps| log(&made, steps, made.air + 6.0)).collect();
        let Ok(fit) = fit(&named(logs), &[]) else { continue };
        let truth = [
            ("reference_celsius", made.air),
            ("resistance_kelvin_per_watt", 1.0 / made.conductance),
            ("capacity_joules_per_kelvin", made.sink),
            ("die_resistance_kelvin_per_watt", made.die.0),
            ("die_capacity_joules_per_kelvin", made.die.1),
        ];
        // A model of another shape means other things by these names.
        for (name, value) in truth.into_iter().filter(|_| fit.model == "two-node") {
            let (low, high) = fit.intervals[name];
            all += 1;
            held += usize::from(low <= value && value <= high);
            if !(low <= value && value <= high) {
                missed.push(format!("card {card}: {name} is {value:.3}, interval {low:.3} to {high:.3}"));
            }
        }
    }
    assert!(all >= 30 && held * 100 >= all * 70, "{held} of {all}: {missed:#?}");
}
