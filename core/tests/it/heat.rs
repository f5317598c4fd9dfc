//! Heat in scenarios, and identification from recorded logs.

use crate::scenario::parse;
use isotherm_core::scenario::Scenario;
use isotherm_core::thermal::fit::fit;
use isotherm_core::thermal::log::ThermalLog;
use isotherm_core::units::{Celsius, Joules, Watts};
use std::path::{Path, PathBuf};

fn with(device: &str, rest: &str) -> String {
    format!(
        "name = \"t\"\nquestion = \"?\"\n[model]\nname = \"smollm2-135m-instruct-q4_1\"\n[[devices]]\nname = \"d\"\n\
         kind = \"gpu\"\nmemory = \"24 GiB\"\nmemory_bandwidth = \"500 GB/s\"\ncompute = \"50 TFLOP/s\"\n{device}\n{rest}"
    )
}

fn refusal(text: &str) -> String {
    let errors = parse(text).expect_err("it should be refused");
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn read(text: &str) -> Scenario {
    parse(text).unwrap_or_else(|errors| panic!("{errors:?}"))
}

#[test]
fn governor_battery_parts_case_and_air_are_read() {
    let device = "\
thermal = { resistance = \"0.8 K/W\", capacity = \"130 J/K\", die = { resistance = \"0.06 K/W\", capacity = \"10 J/K\" }, \
fan = { start = \"60 °C\", watts_per_kelvin_squared = 0.04 } }
governor = { kind = \"steps\", steps = [{ at = \"80 °C\", resume = \"76 °C\", speed = 0.8, power = \"250 W\" }, \
{ at = \"90 °C\", resume = \"84 °C\", speed = 0.5 }] }
battery = { capacity = \"15 Wh\", cutoff = 0.05 }";
    let rest = "[[chassis]]\nname = \"tower\"\ndevices = [\"d\"]\nresistance = \"0.02 K/W\"\ncapacity = \"5 kJ/K\"\n\
[air]\nday = { mean = \"26 °C\", swing_kelvin = 8, begins_hour = 9 }\n";
    let problem = read(&with(device, rest)).problem(None, None).expect("a problem");
    let device = &problem.graph.devices()[0];
    let record = device.thermal.as_ref().expect("stated");
    assert!(record.die.is_some() && record.case.is_none());
    assert_eq!(record.fan.as_ref().expect("stated").start_celsius.value, Celsius::of(60.0));
    let governor = device.governor.as_ref().expect("stated");
    assert_eq!((governor.steps.len(), governor.watts(1)), (2, Some(Watts::of(250.0))));
    assert_eq!(device.battery.as_ref().expect("stated").capacity_joules.value, Joules::of(54_000.0));
    assert_eq!((problem.conditions.chassis.len(), problem.conditions.air.len()), (1, 96));
}

#[test]
fn what_cannot_be_is_refused_by_name_value_and_limit() {
    let device = |line: &str| refusal(&with(line, ""));
    let step = |step: &str| device(&format!("governor = {{ kind = \"steps\", steps = [{step}] }}"));
    let refused = step("{ at = \"80 °C\", resume = \"82 °C\", speed = 0.8 }");
    assert!(refused.contains("step 1 begins at 80.00 °C and ends at 82.00 °C"), "{refused}");
    assert!(step("").contains("no step"));
    let refused = device("governor = { kind = \"proportional\", target = \"75 °C\", full = \"70 °C\", floor = 0.4 }");
    assert!(refused.contains("must end below"), "{refused}");
    let refused = device("battery = { capacity = \"15 Wh\", charge = 0.02, cutoff = 0.05 }");
    assert!(refused.contains("begin above its cutoff"), "{refused}");
    let refused = device(
        "thermal = { resistance = \"0.8 K/W\", capacity = \"130 J/K\", die = { resistance = \"0 K/W\", capacity = \"1 J/K\" } }",
    );
    assert!(refused.contains("above zero"), "{refused}");
    let chassis =
        "[[chassis]]\nname = \"tower\"\ndevices = [\"dd\"]\nresistance = \"0.02 K/W\"\ncapacity = \"5 kJ/K\"\n";
    let refused = refusal(&with("", chassis));
    assert!(refused.contains("\"dd\"") && refused.contains("known names: d"), "{refused}");
    let twice = chassis.replace("\"dd\"", "\"d\"").repeat(2);
    assert!(refusal(&with("", &twice)).contains("two cases"));
    let air = "[air]\nsteps = [{ at = \"60 s\", ambient = \"30 °C\" }, { at = \"60 s\", ambient = \"31 °C\" }]\n";
    let refused = refusal(&with("", air));
    assert!(refused.contains("later than the step before"), "{refused}");
}

#[test]
fn heat_that_would_do_nothing_is_refused() {
    let thermal = "thermal = { resistance = \"0.8 K/W\", capacity = \"130 J/K\" }";
    let governor = "governor = { kind = \"steps\", steps = [{ at = \"80 °C\", resume = \"76 °C\", speed = 0.8 }] }";
    let refused = refusal(&with(governor, ""));
    assert!(refused.contains("\"d\" has a governor and no thermal"), "{refused}");
    let case = |devices: &str| {
        format!(
            "[[chassis]]\nname = \"tower\"\ndevices = [{devices}]\nresistance = \"0.02 K/W\"\ncapacity = \"5 kJ/K\"\n"
        )
    };
    let refused = refusal(&with("", &case("\"d\"")));
    assert!(refused.contains("chassis \"tower\" and has no thermal"), "{refused}");
    let refused = refusal(&with(thermal, &case("")));
    assert!(refused.contains("at least one device"), "{refused}");
    let refused = refusal(&with(thermal, &(case("\"d\"") + &case("\"d\""))));
    assert!(refused.contains("two [[chassis]] are called \"tower\""), "{refused}");
    let refused = refusal(&with(thermal, "[air]\nsteps = []\n"));
    assert!(refused.contains("steps = [{ at"), "{refused}");
    let step = "{ at = \"80 °C\", resume = \"76 °C\", speed = 0.8 },";
    let many = format!("{thermal}\ngovernor = {{ kind = \"steps\", steps = [{}] }}", step.repeat(100_001));
    let refused = refusal(&with(&many, ""));
    assert!(refused.contains("100001 steps") && refused.contains("at most 100000"), "{refused}");
}

#[test]
fn a_device_that_draws_less_when_busy_than_idle_is_refused() {
    let scenario = read(&with("idle_power = \"60 W\"\nbusy_power = \"50 W\"", ""));
    let refused = scenario.problem(None, None).expect_err("refused");
    let refused: Vec<String> = refused.iter().map(ToString::to_string).collect();
    assert!(refused.iter().any(|why| why.contains("at least the idle power")), "{refused:?}");
}

/// The four recorded logs of one card, or none with the reason printed.
fn logs(test: &str) -> Option<Vec<(String, ThermalLog)>> {
    let named = std::env::var_os("ISOTHERM_SHARED").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|folder| folder.join("shared"));
    let folder = named.into_iter().chain(beside).map(|f| f.join("data/thermal")).find(|f| f.is_dir());
    let Some(folder) = folder else {
        eprintln!("skipped: {test}: no shared data beside the checkout (set ISOTHERM_SHARED)");
        return None;
    };
    let read = |i: usize| {
        let path = folder.join(format!("rtx4000ada_workload_{i}.csv"));
        let text = std::fs::read_to_string(&path).expect("readable");
        (path.display().to_string(), ThermalLog::parse(&text).expect("a log"))
    };
    Some((0..4).map(read).collect())
}

#[test]
fn a_recorded_card_is_identified_within_the_targets() {
    let Some(logs) = logs("a_recorded_card_is_identified_within_the_targets") else { return };
    let fit = fit(&logs, &[]).expect("identified");
    assert!(fit.train.mae_celsius <= 0.80, "{:?}", fit.train);
    let left_out = fit.cross_validation;
    assert!(left_out.mae_celsius <= 1.2 && left_out.p95_celsius <= 3.6, "{left_out:?}");
    // An office, and a card of some hundred grams of copper and aluminium.
    assert!((15.0..=40.0).contains(&fit.parameters["reference_celsius"]), "{:?}", fit.parameters);
    for (name, value) in &fit.parameters {
        let positive = name.contains("resistance") || name.contains("capacity");
        assert!(!positive || *value > 0.0, "{name} is {value}");
    }
    // Every baseline is worse, on its logs and on logs left out.
    for baseline in &fit.baselines {
        assert!(baseline.train.mae_celsius > fit.train.mae_celsius, "{baseline:?}");
        assert!(baseline.cross_validation.mae_celsius > left_out.mae_celsius, "{baseline:?}");
    }
    let predicted = fit.predicted_power.expect("clock and utilisation are recorded");
    assert!(predicted.train.mae_celsius <= 1.0 && predicted.power_mae_watts < 5.0, "{predicted:?}");
}

#[test]
fn a_fault_about_a_case_or_a_governor_stands_at_its_own_line() {
    let thermal = "thermal = { resistance = \"0.8 K/W\", capacity = \"130 J/K\" }";
    let case = |name: &str, device: &str| {
        format!(
            "[[chassis]]\nname = \"{name}\"\nresistance = \"0.02 K/W\"\ncapacity = \"5 kJ/K\"\ndevices = [\"{device}\"]\n"
        )
    };
    let line_of = |text: &str, words: &str| {
        let faults = parse(text).expect_err("a fault");
        let fault = faults.into_iter().find(|fault| fault.to_string().contains(words)).expect(words);
        text.lines().nth(fault.line - 1).expect("a line of the text").to_owned()
    };
    let two = with(thermal, &(case("tower", "d") + &case("shelf", "e")));
    assert_eq!(line_of(&two, "\"e\""), "devices = [\"e\"]");
    let twice = with(thermal, &(case("tower", "d") + &case("shelf", "d")));
    assert_eq!(line_of(&twice, "two cases"), "devices = [\"d\"]");
    let third = twice.lines().position(|line| line == "name = \"shelf\"").expect("there");
    assert!(twice.lines().take(third).any(|line| line == "devices = [\"d\"]"), "the first case comes before");
    let same = with(thermal, &(case("tower", "d") + &case("tower", "d")));
    assert_eq!(line_of(&same, "two [[chassis]]"), "[[chassis]]");
    let cold = with("", &case("tower", "d"));
    assert_eq!(line_of(&cold, "has no thermal"), "devices = [\"d\"]");
    let governor = "governor = { kind = \"steps\", steps = [{ at = \"80 °C\", resume = \"76 °C\", speed = 0.8 }] }";
    assert_eq!(line_of(&with(governor, ""), "has a governor"), "[[devices]]");
}
