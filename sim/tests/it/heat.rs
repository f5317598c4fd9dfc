//! Heat feeds back into speed exactly when and as much as the closed form says; energy adds up.

use crate::material::{Case, Costs, UNIT, closed, poisson};
use isotherm_core::conditions::{Between, Conditions, CrossTraffic, Failure, Moment, Place, Severity, Target};
use isotherm_core::device::Device;
use isotherm_core::figure::Figure;
use isotherm_core::thermal::ThermalRecord;
use isotherm_core::thermal::governor::Battery;
use isotherm_core::units::{Celsius, Joules, JoulesPerKelvin, KelvinPerWatt, Seconds, Watts};
use isotherm_core::workload::Serving;
use isotherm_sim::{Options, SimulateError, simulate};

fn heated(device: &mut Device, idle: f64, busy: f64, capacity: f64) {
    let source = "test";
    device.idle_watts = Some(Figure::declared(Watts::of(idle), source));
    device.busy_watts = Some(Figure::declared(Watts::of(busy), source));
    device.thermal = Some(ThermalRecord {
        resistance_kelvin_per_watt: Figure::declared(KelvinPerWatt::of(0.5), source),
        capacity_joules_per_kelvin: Figure::declared(JoulesPerKelvin::of(capacity), source),
        throttle_celsius: Some(Figure::declared(Celsius::of(80.0), source)),
        resume_celsius: Some(Figure::declared(Celsius::of(70.0), source)),
        throttled_speed: Some(Figure::declared(0.5, source)),
        die: None,
        case: None,
        fan: None,
    });
}

/// Devices that throttle within seconds.
pub fn warm(i: usize, device: &mut Device) {
    heated(device, 10.0, 150.0 + 10.0 * i as f64, 4.0);
}

#[test]
fn a_hot_device_slows_when_and_as_the_closed_form_says() {
    // One step of 100 s. R C = 50 s, idle at 10 W and 30 C, busy at 200 W towards 125 C.
    let mut case = Case::single(Costs::fixed(51_200.0), closed(1, 1, 1, 1));
    case.adjust = |_, device| heated(device, 10.0, 200.0, 100.0);
    let trace = case.trace();
    let throttled = 50.0 * libm::log((125.0 - 30.0) / (125.0 - 80.0));
    // At half speed 105 W hold 77.5 C, above 70 C: it stays slow to the end.
    let end = throttled + (100.0 - throttled) / 0.5;
    let device = &trace.devices[0];
    assert!((trace.end_ns.seconds().value() - end).abs() < 5e-9, "{} {end}", trace.end_ns.seconds());
    let slow = device.throttled_ns.expect("known").seconds().value();
    assert!((slow - (end - throttled)).abs() < 5e-9);
    let energy = device.energy_joules.expect("known").value();
    assert!((energy - (200.0 * throttled + 105.0 * (end - throttled))).abs() < 1e-5, "{energy}");
    assert!((device.temperature_max_celsius.expect("known").value() - 80.0).abs() < 1e-6);
    assert_eq!(device.source, "simulated, declared power, declared thermal parameters");
}

#[test]
fn a_throttled_device_recovers_in_the_pauses_and_the_curve_shows_it() {
    let mut case = Case::single(Costs::fixed(512.0), poisson(0.08, 60, 1, 4));
    case.adjust = |_, device| heated(device, 10.0, 200.0, 20.0);
    let trace = case.trace();
    let device = &trace.devices[0];
    let speeds: Vec<f64> = device.samples.iter().filter_map(|s| s.speed).collect();
    let changes = speeds.windows(2).filter(|pair| pair[0] < pair[1]).count();
    assert!(changes >= 3, "it should have recovered several times: {speeds:?}");
    assert!(device.samples.iter().all(|s| s.temperature_celsius.expect("known") <= Celsius::of(80.0 + 1e-6)));
    let slow = device.throttled_ns.expect("known");
    // Work that ran slow took twice as long; pauses spent slow cost nothing.
    let least = 60 * 4 * 512 * UNIT;
    let busy = device.busy_ns.0;
    assert!(busy > least && busy <= least + slow.0, "{busy} {least} {slow:?}");
}

#[test]
fn without_a_throttle_energy_is_idle_and_busy_power_times_their_time() {
    let mut case = Case::single(Costs::fixed(10.0), poisson(10.0, 500, 4, 3));
    case.adjust = |_, device| {
        heated(device, 12.0, 90.0, 100.0);
        device.thermal.as_mut().expect("set").throttle_celsius = None;
    };
    let trace = case.trace();
    let device = &trace.devices[0];
    let (busy, end) = (device.busy_ns.seconds().value(), trace.end_ns.seconds().value());
    let by_hand = 90.0 * busy + 12.0 * (end - busy);
    let energy = device.energy_joules.expect("known").value();
    assert!((energy / by_hand - 1.0).abs() < 1e-9, "{energy} {by_hand}");
    assert_eq!(device.throttled_ns, None);
    assert!(device.source.ends_with("no throttle parameters"), "{}", device.source);
}

#[test]
fn what_nobody_knows_is_not_made_up() {
    let trace = Case::single(Costs::fixed(10.0), closed(1, 3, 1, 1)).trace();
    let device = &trace.devices[0];
    assert_eq!((device.energy_joules, device.temperature_max_celsius, device.throttled_ns), (None, None, None));
    assert_eq!(device.source, "no power figures");
    for sample in &device.samples {
        let physical =
            (sample.temperature_celsius, sample.power_watts, sample.energy_joules, sample.speed, sample.charge);
        assert_eq!(physical, (None, None, None, None, None));
    }
}

#[test]
fn what_waits_and_what_is_cached_is_known_over_time_of_every_device() {
    // Four clients at once, two admitted: each prompt of 16 tokens holds one block of the eight, and a second one later.
    let mut case = Case::single(Costs::fixed(10.0), closed(4, 8, 16, 3));
    case.serving = Serving { requests_max: 2, kv_blocks: Some(8), ..case.serving };
    let samples = case.trace().devices[0].samples.clone();
    assert_eq!((samples[0].at_ns.0, samples[0].waiting, samples[0].cache), (0, Some(2), Some(2.0 / 8.0)));
    assert!(samples.iter().all(|sample| sample.waiting <= Some(2) && sample.cache <= Some(0.5)), "{samples:?}");
    assert!(samples.iter().any(|sample| sample.cache == Some(0.5)));
    let last = samples.last().expect("a sample");
    assert_eq!((last.waiting, last.utilisation), (Some(0), Some(1.0)));
    // Beside power and heat it stands in the same samples.
    let warm = Case { adjust: |_, device| heated(device, 10.0, 100.0, 100.0), ..case };
    let samples = warm.trace().devices[0].samples.clone();
    assert!(samples.iter().skip(1).all(|sample| sample.waiting.is_some() && sample.power_watts.is_some()));
}

#[test]
fn more_power_is_never_cooler_and_never_faster() {
    let run = |adjust: fn(usize, &mut Device)| {
        let mut case = Case::single(Costs::fixed(400.0), poisson(0.5, 200, 1, 2));
        case.adjust = adjust;
        let report = case.report(&Options { seeds: 3, ..Options::default() });
        let device = report.devices[0].clone();
        (device.temperature_max_celsius.expect("known"), report.metrics["e2e_seconds"].mean, device.utilisation)
    };
    let runs = [
        run(|_, d| heated(d, 10.0, 60.0, 50.0)),
        run(|_, d| heated(d, 10.0, 120.0, 50.0)),
        run(|_, d| heated(d, 10.0, 180.0, 50.0)),
        run(|_, d| heated(d, 10.0, 240.0, 50.0)),
    ];
    for pair in runs.windows(2) {
        assert!(pair[0].0.value() <= pair[1].0.value() + 1e-6 && pair[0].1 <= pair[1].1, "{runs:?}");
    }
    assert!(runs[0].1 < runs[3].1, "the hottest should have throttled: {runs:?}");
}

/// What a chain ends with whose first device has energy for twenty seconds, in these conditions.
fn drained(conditions: Conditions) -> SimulateError {
    let mut case = Case::chain(&[Costs::fixed(512.0), Costs::fixed(512.0)], 1, closed(1, 500, 1, 4));
    case.adjust = |i, device| {
        heated(device, 10.0, 50.0, 100.0);
        device.battery = (i == 0).then(|| Battery {
            capacity_joules: Figure::declared(Joules::of(600.0), "test"),
            charge: 1.0,
            cutoff: 0.0,
            low: None,
            low_speed: None,
            charging_watts: None,
        });
    };
    let mut problem = case.problem();
    problem.conditions = conditions;
    let options = Options { seeds: 1, ..Options::default() };
    simulate(&case.plan(&problem), &problem, &case.workload, &options).expect_err("the battery is too small")
}

#[test]
fn an_empty_battery_ends_a_run_whatever_else_goes_on() {
    let alone = drained(Conditions::default());
    let SimulateError::BatteryEmpty { device, finished } = &alone else { panic!("{alone}") };
    // At 30 W in the mean it lasts 20 s: two requests of 8 s and some transfers.
    assert_eq!((device.as_str(), *finished), ("d0", 2));
    let traffic = CrossTraffic {
        place: Place::Link(Between { from: "driver".into(), to: "d1".into() }),
        share: 0.3,
        on_off: Some((Seconds::of(0.5), Seconds::of(1.0))),
    };
    assert_eq!(drained(Conditions { cross_traffic: vec![traffic], ..Conditions::default() }), alone);
    let (mean_between, mean_repair) = (Seconds::of(1e6), Seconds::of(60.0));
    let moment = Moment::Random { mean_between, mean_repair };
    let failure = Failure { target: Target::Device("d1".into()), severity: Severity::Lost, moment };
    assert_eq!(drained(Conditions { failures: vec![failure], ..Conditions::default() }), alone);
}

#[test]
fn a_closed_load_ends_when_all_its_clients_wait_for_an_empty_battery() {
    // The second replica works on, but in the end every client has a request on the first one.
    let mut case = Case::replicas(&[Costs::fixed(512.0); 2], closed(3, 500, 1, 4));
    case.links = true;
    case.adjust = |i, device| {
        heated(device, 10.0, 50.0, 100.0);
        device.battery = (i == 0).then(|| Battery {
            capacity_joules: Figure::declared(Joules::of(600.0), "test"),
            charge: 1.0,
            cutoff: 0.0,
            low: None,
            low_speed: None,
            charging_watts: None,
        });
    };
    let mut problem = case.problem();
    // Traffic of others, and failures that are repaired, go on for ever.
    problem.conditions.cross_traffic = vec![CrossTraffic {
        place: Place::Link(Between { from: "driver".into(), to: "d1".into() }),
        share: 0.3,
        on_off: Some((Seconds::of(0.5), Seconds::of(1.0))),
    }];
    let options = Options { events_max: 20_000, ..Options::default() };
    let run = |problem: &isotherm_core::problem::PlacementProblem| {
        simulate(&case.plan(problem), problem, &case.workload, &options).expect_err("the battery is too small")
    };
    let ended = run(&problem);
    assert!(
        matches!(&ended, SimulateError::BatteryEmpty { device, finished } if device == "d0" && *finished < 30),
        "{ended}"
    );
    let (mean_between, mean_repair) = (Seconds::of(40.0), Seconds::of(1.0));
    let moment = Moment::Random { mean_between, mean_repair };
    let target = Target::Device("d1".into());
    problem.conditions = Conditions {
        failures: vec![Failure { target, severity: Severity::Slowed(0.5), moment }],
        ..Conditions::default()
    };
    assert!(matches!(run(&problem), SimulateError::BatteryEmpty { .. }));
}
