//! The governors of a run: they read sensors beside it, slow it before a limit is reached, and log every action with the
//! forecast that caused it.

use crate::failure::Failure;
use crate::trust;
use isotherm_audit::keys::Identity;
use isotherm_audit::log::{Event, EventKind, Severity};
use isotherm_core::device::Device;
use isotherm_core::digest::Digest;
use isotherm_core::units::{Celsius, Watts};
use isotherm_runtime::govern::{Act, Acted, Keeper, Pace, Settings};
use isotherm_runtime::host::Roots;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Longest nap before it is looked whether the run is over.
const NAP: Duration = Duration::from_millis(25);

/// The governors of a run's devices; none where of no device enough is known.
pub(super) fn attach(
    roots: &Roots,
    devices: &[&Device],
    air: Celsius,
    limit: Option<Celsius>,
    quiet: bool,
) -> Option<Keeper> {
    let (keeper, unguarded) = Keeper::attach(roots, devices, air, limit, Settings::default());
    let note = |text: String| {
        if !quiet {
            eprintln!("{text}");
        }
    };
    // Most devices were never identified; that is worth a word only to whoever asked for a limit.
    if limit.is_some() {
        for one in &unguarded {
            note(format!("note: nothing governs {}: {}; run `isotherm probe --thermal`", one.device, one.why));
        }
    }
    for (device, _) in keeper.guarded().filter(|(_, sensor)| !sensor) {
        note(format!("note: {device} has no sensor; its thermal model alone says how warm it is"));
    }
    let any = keeper.guarded().next().is_some();
    any.then_some(keeper)
}

/// Reads and acts until the run is over. Gives how many actions there were.
///
/// Errors: the log cannot be written. The governors go on all the same.
pub(super) fn keep(
    (identity, manifest): (&Identity, Digest),
    mut keeper: Keeper,
    pace: &Pace,
    over: &AtomicBool,
    quiet: bool,
) -> Result<usize, Failure> {
    let period = Duration::from_secs_f64(keeper.period().value().max(0.01));
    let begun = Instant::now();
    let (mut count, mut unlogged) = (0, None);
    for round in 1_u32.. {
        let next = begun + period * round;
        while Instant::now() < next {
            if over.load(Ordering::Relaxed) {
                return unlogged.map_or(Ok(count), Err);
            }
            std::thread::sleep(NAP.min(next.saturating_duration_since(Instant::now())));
        }
        let work = (pace.worked().as_secs_f64() / period.as_secs_f64()).min(1.0);
        let at_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let acted = keeper.step(at_ms, work, pace);
        count += acted.len();
        if !quiet {
            acted.iter().for_each(|acted| eprintln!("governor: {}", words(acted)));
        }
        if let Err(error) = log(identity, manifest, &acted) {
            unlogged = Some(error);
        }
    }
    Ok(count)
}

fn log(identity: &Identity, manifest: Digest, acted: &[Acted]) -> Result<(), Failure> {
    let mut events = Vec::new();
    for one in acted {
        let mut event = Event::new(EventKind::ThermalAction, trust::now()?, identity.id());
        let alarm = matches!(one.action.act, Act::SensorLost | Act::Pause { .. } | Act::Replan { .. });
        event.severity = if alarm { Severity::Warning } else { Severity::Info };
        event.device = Some(one.device.clone());
        event.subjects.insert("manifest".to_owned(), manifest);
        let forecast = &one.action.forecast;
        let milli = |value: f64| (value * 1e3).round().clamp(-1e15, 1e15) as i64;
        let mut put = |name: &str, value: i64| drop(event.metadata.insert(name.to_owned(), value.into()));
        put("now_millicelsius", milli(forecast.now.value()));
        put("unacted_millicelsius", milli(forecast.unacted.value()));
        put("allowed_milliwatts", milli(forecast.allowed.value()));
        put("sustained_milliwatts", milli(forecast.sustained.value()));
        put("unaccounted_milliwatts", milli(forecast.unaccounted.value()));
        if let Some(reached) = forecast.reached_in {
            put("limit_reached_in_ms", milli(reached.value()));
        }
        event.metadata.insert("sensor".to_owned(), forecast.measured.into());
        event.metadata.insert("action".to_owned(), words(one).as_str().into());
        events.push(event);
    }
    if events.is_empty() { Ok(()) } else { trust::record_all(identity, &events).map(|_| ()) }
}

/// An action in words.
fn words(acted: &Acted) -> String {
    let share = |share: f64| format!("{:.0} %", share * 100.0);
    let watts = |watts: Watts| format!("{:.0} W", watts.value());
    let what = match acted.action.act {
        Act::Cap { watts: limit } if acted.set == Some(false) => format!("power limit {} was refused", watts(limit)),
        Act::Cap { watts: limit } if acted.set.is_some() => format!("power limit {}", watts(limit)),
        Act::Cap { watts: limit } => format!("at most {}, by pauses between steps", watts(limit)),
        Act::Batch { share: part } => format!("{} of full work, by pauses between steps", share(part)),
        Act::Shift { share: part } => format!("{} of its work to another route", share(part)),
        Act::Pause { seconds } => format!("pause of {seconds}; every request keeps its cache"),
        Act::Resume => "full work again".to_owned(),
        Act::Replan { bears } => {
            format!("it bears {} of what the plan asks of it in the long run; plan again", share(bears))
        }
        Act::SensorLost => "its sensor is lost; the model alone governs, further below the limit".to_owned(),
        Act::SensorFound => "its sensor is back".to_owned(),
        Act::BatteryLow { share: part } => format!("the battery is low: {} of full work", share(part)),
    };
    let forecast = &acted.action.forecast;
    format!(
        "{}: {what} ({:.1} °C now, {:.1} °C soon if nothing were done)",
        acted.device,
        forecast.now.value(),
        forecast.unacted.value()
    )
}
