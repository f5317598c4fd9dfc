//! How devices warm, slow and are fed; the cases and the air around them.

use super::fault::{Fault, nearest};
use super::reader::{At, Reader, Says};
use crate::conditions::Conditions;
use crate::device::Device;
use crate::figure::Figure;
use crate::thermal::governor::{AirStep, Battery, Chassis, Governor, GovernorError, Step, day};
use crate::thermal::{Branch, Fan, ThermalRecord};
use crate::units::{Celsius, Joules, JoulesPerKelvin, KelvinPerWatt, Seconds, Watts};
use std::ops::Range;

/// Most steps of the air, and of a governor.
const STEPS_MAX: usize = 100_000;

/// `thermal = { ... }` of a device.
pub(super) fn thermal(reader: Reader<'_, '_>, says: &Says) -> Option<ThermalRecord> {
    let resistance = reader.figure("resistance", says);
    let capacity = reader.figure("capacity", says);
    let record = (|| {
        Some(ThermalRecord {
            resistance_kelvin_per_watt: resistance?,
            capacity_joules_per_kelvin: capacity?,
            throttle_celsius: reader.figure("throttle_at", says),
            resume_celsius: reader.figure("resume_at", says),
            throttled_speed: reader.ratio("throttled_speed", says, 0.001, 1.0),
            die: reader.table("die").and_then(|table| branch(table, says)),
            case: reader.table("case").and_then(|table| branch(table, says)),
            fan: reader.table("fan").and_then(|table| fan(table, says)),
        })
    })();
    for (key, example) in [("resistance", "resistance = \"0.3 K/W\""), ("capacity", "capacity = \"400 J/K\"")] {
        if !reader.has(key) {
            reader.missing(key, example);
        }
    }
    if record.is_some() {
        reader.done();
    }
    record
}

fn branch(reader: Reader<'_, '_>, says: &Says) -> Option<Branch> {
    let resistance = above_zero(&reader, "resistance", reader.figure("resistance", says), KelvinPerWatt::value);
    let capacity = above_zero(&reader, "capacity", reader.figure("capacity", says), JoulesPerKelvin::value);
    for (key, example) in [("resistance", "resistance = \"0.05 K/W\""), ("capacity", "capacity = \"20 J/K\"")] {
        if !reader.has(key) {
            reader.missing(key, example);
        }
    }
    let branch = Branch { resistance_kelvin_per_watt: resistance?, capacity_joules_per_kelvin: capacity? };
    reader.done();
    Some(branch)
}

fn fan(reader: Reader<'_, '_>, says: &Says) -> Option<Fan> {
    let start = reader.figure("start", says);
    let slope = reader.ratio("watts_per_kelvin_squared", says, 0.0, 1e3);
    let full = reader.figure("full", says);
    for (key, example) in
        [("start", "start = \"60 °C\""), ("watts_per_kelvin_squared", "watts_per_kelvin_squared = 0.04")]
    {
        if !reader.has(key) {
            reader.missing(key, example);
        }
    }
    let fan = Fan { start_celsius: start?, watts_per_kelvin_squared: slope?, full_celsius: full };
    if let Some(full) = fan.full_celsius.as_ref().filter(|full| full.value < fan.start_celsius.value) {
        let must = format!("at least start, which is {}", fan.start_celsius.value);
        reader.fault(Fault::OutOfRange { key: "full".to_owned(), value: full.value.to_string(), must });
        return None;
    }
    reader.done();
    Some(fan)
}

/// A figure that must be above zero, or its fault.
pub(super) fn above_zero<T: Copy + std::fmt::Display>(
    reader: &Reader<'_, '_>,
    key: &str,
    figure: Option<Figure<T>>,
    number: fn(T) -> f64,
) -> Option<Figure<T>> {
    let figure = figure?;
    if number(figure.value) > 0.0 {
        return Some(figure);
    }
    let (key, value) = (format!("{}.{key}", reader.place), figure.value.to_string());
    reader.fault(Fault::OutOfRange { key, value, must: "above zero".to_owned() });
    None
}

/// `governor = { kind = "steps", steps = [...] }` or `{ kind = "proportional", target, full, floor, steps }`.
pub(super) fn governor(reader: Reader<'_, '_>) -> Option<Governor> {
    if !reader.has("kind") {
        reader.missing("kind", "kind = \"steps\" with steps, or kind = \"proportional\" with target, full and floor");
    }
    let proportional = reader.word("kind", &[("steps", false), ("proportional", true)])?;
    let made = if proportional { self::proportional(&reader)? } else { steps(&reader)? };
    match made {
        Ok(governor) => {
            reader.done();
            Some(governor)
        }
        Err(error) => {
            let (what, remedy) = (format!("{}: {error}", reader.place), "correct the governor".to_owned());
            reader.fault(Fault::Conflict { what, remedy });
            None
        }
    }
}

type Made = Result<Governor, GovernorError>;

fn proportional(reader: &Reader<'_, '_>) -> Option<Made> {
    let (target, full) = (reader.quantity("target"), reader.quantity("full"));
    let floor = reader.get("floor").and_then(|value| reader.number_of("floor", value, 0.001, 0.999));
    let count = reader.integer("steps", 1, 1_000).unwrap_or(20);
    for (key, example) in [("target", "target = \"75 °C\""), ("full", "full = \"90 °C\""), ("floor", "floor = 0.4")] {
        if !reader.has(key) {
            reader.missing(key, example);
        }
    }
    Some(Governor::proportional(target?, full?, floor?, count))
}

fn steps(reader: &Reader<'_, '_>) -> Option<Made> {
    if !reader.has("steps") {
        reader.missing("steps", "steps = [{ at = \"80 °C\", resume = \"76 °C\", speed = 0.8 }]");
    }
    let mut steps = Vec::new();
    for table in reader.tables("steps") {
        let (at, resume): (Option<Celsius>, Option<Celsius>) = (table.quantity("at"), table.quantity("resume"));
        let speed = table.get("speed").and_then(|value| table.number_of("speed", value, 0.001, 1.0));
        let watts: Option<Watts> = table.quantity("power");
        for (key, example) in [("at", "at = \"80 °C\""), ("resume", "resume = \"76 °C\""), ("speed", "speed = 0.8")] {
            if !table.has(key) {
                table.missing(key, example);
            }
        }
        steps.push(Step { at_celsius: at?, resume_celsius: resume?, speed: speed?, watts });
        table.done();
    }
    if steps.len() > STEPS_MAX {
        let (key, value) = (format!("{}.steps", reader.place), format!("{} steps", steps.len()));
        reader.fault(Fault::OutOfRange { key, value, must: format!("at most {STEPS_MAX} steps") });
        return None;
    }
    Some(Governor::new(steps))
}

/// `battery = { capacity = "15 Wh", ... }`.
pub(super) fn battery(reader: Reader<'_, '_>, says: &Says) -> Option<Battery> {
    let capacity: Option<Figure<Joules>> = reader.figure("capacity", says);
    if !reader.has("capacity") {
        reader.missing("capacity", "capacity = \"15 Wh\"");
    }
    let share = |key: &'static str| reader.get(key).and_then(|value| reader.number_of(key, value, 0.0, 1.0));
    let battery = Battery {
        charge: share("charge").unwrap_or(1.0),
        cutoff: share("cutoff").unwrap_or(0.0),
        low: share("low"),
        low_speed: share("low_speed"),
        charging_watts: reader.quantity("charging"),
        capacity_joules: capacity?,
    };
    if let Some(fault) = battery.fault() {
        let what = format!("{}: {fault}", reader.place);
        reader.fault(Fault::Conflict { what, remedy: "correct the battery".to_owned() });
        return None;
    }
    reader.done();
    Some(battery)
}

/// `[[chassis]]`.
pub(super) fn chassis(root: &Reader<'_, '_>, conditions: &mut Conditions) {
    for reader in root.tables("chassis") {
        let name = reader.name("name");
        let devices: Vec<String> = reader.names("devices").into_iter().map(|name| name.value).collect();
        let resistance: Option<KelvinPerWatt> = reader.quantity("resistance");
        let capacity: Option<JoulesPerKelvin> = reader.quantity("capacity");
        for (key, example) in [
            ("name", "name = \"tower\""),
            ("devices", "devices = [\"gpu-1\", \"gpu-2\"]"),
            ("resistance", "resistance = \"0.02 K/W\""),
            ("capacity", "capacity = \"5 kJ/K\""),
        ] {
            if !reader.has(key) {
                reader.missing(key, example);
            }
        }
        let (Some(name), Some(resistance), Some(capacity)) = (name, resistance, capacity) else { continue };
        for (key, value) in [("resistance", resistance.value()), ("capacity", capacity.value())] {
            if value <= 0.0 {
                let (key, value, must) = (key.to_owned(), value.to_string(), "above zero".to_owned());
                reader.fault(Fault::OutOfRange { key, value, must });
            }
        }
        conditions.chassis.push(Chassis {
            name: name.value,
            devices,
            resistance_kelvin_per_watt: resistance,
            capacity_joules_per_kelvin: capacity,
        });
        reader.done();
    }
}

/// `[air]`: the air's temperature in steps, or as a sine of the day.
pub(super) fn air(root: &Reader<'_, '_>, conditions: &mut Conditions) {
    let Some(reader) = root.table("air") else { return };
    for table in reader.tables("steps") {
        let (at, celsius): (Option<Seconds>, Option<Celsius>) = (table.quantity("at"), table.quantity("ambient"));
        for (key, example) in [("at", "at = \"600 s\""), ("ambient", "ambient = \"32 °C\"")] {
            if !table.has(key) {
                table.missing(key, example);
            }
        }
        let (Some(at_seconds), Some(celsius)) = (at, celsius) else { continue };
        if conditions.air.last().is_some_and(|last| last.at_seconds >= at_seconds) || at_seconds < Seconds::ZERO {
            let (key, value, must) = ("at".to_owned(), at_seconds.to_string(), "later than the step before".to_owned());
            table.fault(Fault::OutOfRange { key, value, must });
        }
        conditions.air.push(AirStep { at_seconds, celsius });
        table.done();
    }
    if let Some(table) = reader.table("day") {
        let mean: Option<Celsius> = table.quantity("mean");
        let swing = table.get("swing_kelvin").and_then(|value| table.number_of("swing_kelvin", value, 0.0, 40.0));
        let hour = |key: &'static str| table.get(key).and_then(|value| table.number_of(key, value, 0.0, 24.0));
        let (hottest, begins) = (hour("hottest_hour").unwrap_or(15.0), hour("begins_hour").unwrap_or(0.0));
        let days = table.integer("days", 1, 366).unwrap_or(1);
        for (key, example) in [("mean", "mean = \"26 °C\""), ("swing_kelvin", "swing_kelvin = 8")] {
            if !table.has(key) {
                table.missing(key, example);
            }
        }
        if let (Some(mean), Some(swing)) = (mean, swing) {
            if !conditions.air.is_empty() {
                let what = "[air] has both steps and day".to_owned();
                table.fault(Fault::Conflict { what, remedy: "keep one of them".to_owned() });
            }
            let hours = |hours: f64| Seconds::of(hours * 3_600.0);
            conditions.air = day(mean, swing, hours(hottest), hours(begins), days);
        }
        table.done();
    }
    if conditions.air.is_empty() && !reader.has("day") {
        reader.missing("steps", "steps = [{ at = \"600 s\", ambient = \"32 °C\" }], or [air.day]");
    }
    reader.done();
}

/// Where a case stands in the text, or a device's name in it.
fn place_of(root: &Reader<'_, '_>, conditions: &Conditions, case: usize, device: Option<&str>) -> Range<usize> {
    let chassis = &conditions.chassis[case];
    let before = conditions.chassis[..case].iter().filter(|other| other.name == chassis.name).count();
    let called = |reader: &Reader<'_, '_>| {
        reader.get("name").is_some_and(|name| name.get_ref().as_str() == Some(chassis.name.as_str()))
    };
    let Some(reader) = root.tables("chassis").into_iter().filter(called).nth(before) else { return root.span.clone() };
    let name = device.and_then(|device| reader.names("devices").into_iter().rfind(|name| name.value == device));
    name.map_or_else(|| reader.span.clone(), |name| name.span)
}

/// Devices of cases are there, and each stands in one case at most.
pub(super) fn check(root: &Reader<'_, '_>, conditions: &Conditions, devices: &[At<Device>]) {
    let known = || devices.iter().map(|device| device.value.name.as_str());
    let fault = |case: usize, device: Option<&str>, fault: Fault| {
        root.source.fault(place_of(root, conditions, case, device), fault);
    };
    for (i, chassis) in conditions.chassis.iter().enumerate() {
        if chassis.devices.is_empty() {
            let (key, value) = (format!("chassis {:?}, devices", chassis.name), "no name".to_owned());
            fault(i, None, Fault::OutOfRange { key, value, must: "a list of at least one device".to_owned() });
        }
        if conditions.chassis[..i].iter().any(|other| other.name == chassis.name) {
            let what = format!("two [[chassis]] are called {:?}", chassis.name);
            fault(i, None, Fault::Conflict { what, remedy: "give each its own name".to_owned() });
        }
        // What has no thermal record gives the case no heat that is known, and takes none.
        let cold = |name: &&String| devices.iter().any(|d| d.value.name == **name && d.value.thermal.is_none());
        for name in chassis.devices.iter().filter(cold) {
            let what = format!("device {name:?} stands in chassis {:?} and has no thermal", chassis.name);
            let remedy = "state how it warms (thermal), or leave it out".to_owned();
            fault(i, Some(name), Fault::Conflict { what, remedy });
        }
    }
    for At { value: device, span } in devices {
        if device.governor.is_some() && device.thermal.is_none() {
            let what =
                format!("device {:?} has a governor and no thermal, so its temperature is not known", device.name);
            let remedy = "state how it warms (thermal), or drop it".to_owned();
            root.source.fault(span.clone(), Fault::Conflict { what, remedy });
        }
    }
    let mut seen: Vec<&str> = Vec::new();
    let named = conditions.chassis.iter().enumerate();
    for (i, name) in named.flat_map(|(i, chassis)| chassis.devices.iter().map(move |name| (i, name))) {
        // A scenario without devices leaves them to a measurement.
        if !devices.is_empty() && !known().any(|device| device == name) {
            let unknown = Fault::UnknownName {
                key: "chassis.devices".to_owned(),
                name: name.clone(),
                what: "device",
                nearest: nearest(name, known()),
                known: known().map(str::to_owned).collect(),
            };
            fault(i, Some(name), unknown);
        }
        if seen.contains(&name.as_str()) {
            let what = format!("device {name:?} stands in two cases");
            fault(i, Some(name), Fault::Conflict { what, remedy: "name it in one [[chassis]] only".to_owned() });
        }
        seen.push(name);
    }
}
