//! `isotherm monitor`: what the devices of this host do, live, with alerts.

use crate::access::Wish;
use crate::args::{Format, Monitor};
use crate::commands::access::{MONITORING, pass};
use crate::commands::devices::here;
use crate::failure::{Code, Done, Failure};
use crate::roots::roots;
use crate::ui::{Ui, print};
use crate::{files, interrupt, registry, trust};
use isotherm_audit::keys::Identity;
use isotherm_audit::log::{Event, EventKind, EventResult, Severity};
use isotherm_core::graph::{DEVICES_SCHEMA, DevicesFile};
use isotherm_core::plan::{PLAN_SCHEMA, Plan};
use isotherm_core::units::Celsius;
use isotherm_reports::tables::{Format as TableFormat, Values, write_columns};
use isotherm_runtime::discover::Machine;
use isotherm_runtime::discover::registry::Change;
use isotherm_runtime::telemetry::prometheus::exposition;
use isotherm_runtime::telemetry::{Alert, AlertKind, Alerts, Limits, Plugged, Ring, Sample, Sampler, Watched};
use std::io::{IsTerminal, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

mod forecast;
mod view;

/// Most bytes of a scrape's request that are read.
const REQUEST_BYTES_MAX: usize = 8192;
/// Longest that one scrape may take.
const SCRAPE_TIME: Duration = Duration::from_secs(2);
/// Alerts that are remembered for the view.
const ALERTS_MAX: usize = 100;

/// What is known of the devices at one moment, shared by sampler, view and endpoint.
struct State {
    devices: Vec<Watched>,
    ring: Ring,
    alerts: Alerts,
    /// The latest alerts, newest last.
    heard: Vec<Alert>,
    /// Connections to the endpoint that asked for something else than figures, since the last sample, and the last peer.
    refused: (u64, Option<String>),
    /// What came and went, newest last.
    plugged: Vec<String>,
    /// What is known of each device beside its samples.
    known: Vec<forecast::Known>,
    /// From where that is known.
    sources: Sources,
}

/// What was measured before, and what runs.
struct Sources {
    devices: Option<DevicesFile>,
    plan: Option<Plan>,
    air: Option<Celsius>,
}

impl Sources {
    fn read(args: &Monitor) -> Result<Self, Failure> {
        let last = registry::last_devices()?;
        let path = args.devices.clone().or_else(|| last.exists().then_some(last));
        let devices = path.map(|path| files::read_artefact::<DevicesFile>(&path, DEVICES_SCHEMA)).transpose()?;
        let plan = args.plan.as_ref().map(|path| files::read_artefact::<Plan>(path, PLAN_SCHEMA)).transpose()?;
        Ok(Self { devices: devices.map(|(file, _)| file), plan: plan.map(|(plan, _)| plan), air: args.air })
    }

    fn known(&self, watched: &[Watched]) -> Vec<forecast::Known> {
        forecast::known(watched, self.devices.as_ref(), self.plan.as_ref(), self.air)
    }
}

/// Runs the command.
pub fn run(ui: &Ui, args: &Monitor) -> Done {
    let millis = (args.interval.value() * 1e3) as u64;
    if millis < 10 {
        return Err(Failure::new(Code::Usage, format!("--interval is {}; give at least 10 ms", args.interval)));
    }
    if let Some(path) = &args.table {
        table_format(path)?;
    }
    let identity = trust::identity(ui)?;
    let roots = roots();
    let machine = Machine::discover(&roots);
    let mut sampler = Sampler::of_host(&roots, &machine);
    let mut plugged = Plugged::new(&roots, &machine);
    let looks = (args.look.value() / args.interval.value()).ceil().max(1.0) as u64;
    let devices = sampler.devices().to_vec();
    let mut names: Vec<(&str, u64)> = devices.iter().map(|device| (device.key.as_str(), 0)).collect();
    if names.is_empty() {
        // A host without a sensor is watched all the same, and asked for as a whole.
        names.push(("cpu", 0));
    }
    pass(&identity, &Wish { guest: None, permissions: &MONITORING, devices: &names, subjects: &[] })?;
    let capacity = args.keep.clamp(1, 1_000_000).saturating_mul(devices.len());
    let sources = Sources::read(args)?;
    let state = State {
        ring: Ring::new(capacity, millis),
        alerts: Alerts::new(Limits::default()),
        heard: Vec::new(),
        refused: (0, None),
        plugged: Vec::new(),
        known: sources.known(&devices),
        sources,
        devices,
    };
    let state = Arc::new(Mutex::new(state));
    if let Some(address) = args.serve {
        let listener =
            TcpListener::bind(address).map_err(|e| Failure::io(format!("cannot listen at {address}: {e}")))?;
        let bound = listener.local_addr().map_err(|e| Failure::io(e.to_string()))?;
        ui.note(format!("note: Prometheus reads http://{bound}/metrics"));
        let state = Arc::clone(&state);
        std::thread::spawn(move || serve(&listener, &state));
    }
    let live = !args.plain && ui.format == Format::Text && std::io::stdout().is_terminal();
    let mut view = if live { Some(view::View::open()?) } else { None };
    let (begun, mut count, mut busy) = (Instant::now(), 0_u64, Duration::ZERO);
    let done = loop {
        let (at_ms, started) = (now_ms(), Instant::now());
        let changes = if count > 0 && count.is_multiple_of(looks) { plugged.look(&mut sampler) } else { Vec::new() };
        if !changes.is_empty() {
            noticed(ui, &identity, &sampler, &changes)?;
        }
        let samples = sampler.sample(at_ms);
        let mut held = state.lock().unwrap_or_else(PoisonError::into_inner);
        held.plug(&sampler, &changes);
        let alerts = held.take(&samples);
        busy += started.elapsed();
        let refused = std::mem::take(&mut held.refused);
        let told = log(&identity, &alerts)
            .and_then(|()| log_refused(&identity, refused))
            .and_then(|()| show(ui, view.as_mut(), &held, &samples, &alerts, at_ms));
        drop(held);
        count += 1;
        let over = args.samples.is_some_and(|most| count >= most) || interrupt::flag().load(Ordering::Relaxed);
        if told.is_err() || over {
            break told;
        }
        let next = begun + Duration::from_millis(millis) * u32::try_from(count).unwrap_or(u32::MAX);
        if wait(view.as_mut(), next)? {
            break Ok(());
        }
    };
    drop(view);
    done?;
    let state = state.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(path) = &args.table {
        write_table(path, &state)?;
        ui.note(format!("wrote {}", path.display()));
    }
    let each = busy.as_secs_f64() / count as f64;
    ui.note(format!(
        "{count} samples; reading took {:.2} ms each, {:.3} % of a core",
        each * 1e3,
        each / args.interval.value() * 100.0
    ));
    Ok(())
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What came must be allowed to be watched; what came or went is an event.
fn noticed(ui: &Ui, identity: &Identity, sampler: &Sampler, changes: &[Change]) -> Done {
    let names: Vec<(&str, u64)> = sampler.devices().iter().map(|device| (device.key.as_str(), 0)).collect();
    pass(identity, &Wish { guest: None, permissions: &MONITORING, devices: &names, subjects: &[] })?;
    let mut events = Vec::new();
    for change in changes {
        let words = here::words(change);
        let mut event = Event::new(EventKind::DeviceInfo, trust::now()?, identity.id());
        event.severity = if matches!(change, Change::Removed { .. }) { Severity::Warning } else { Severity::Info };
        event.device = Some(change.key().to_owned());
        event.metadata.insert("change".to_owned(), words.as_str().into());
        events.push(event);
    }
    // What is told is on record by then.
    trust::record_all(identity, &events)?;
    changes.iter().for_each(|change| ui.note(format!("noticed: {}", here::words(change))));
    Ok(())
}

impl State {
    fn plug(&mut self, sampler: &Sampler, changes: &[Change]) {
        if !changes.is_empty() {
            self.devices = sampler.devices().to_vec();
            self.known = self.sources.known(&self.devices);
            self.plugged.extend(changes.iter().map(here::words));
            let over = self.plugged.len().saturating_sub(ALERTS_MAX);
            self.plugged.drain(..over);
        }
    }

    fn take(&mut self, samples: &[Sample]) -> Vec<Alert> {
        let mut alerts = Vec::new();
        for sample in samples {
            self.ring.push(*sample);
            alerts.extend(self.alerts.step(&self.devices[sample.device], sample));
        }
        self.heard.extend(alerts.iter().cloned());
        let over = self.heard.len().saturating_sub(ALERTS_MAX);
        self.heard.drain(..over);
        alerts
    }
}

/// An alert is an event like any other: what went hot or missing while somebody watched is in the log.
fn log(identity: &Identity, alerts: &[Alert]) -> Done {
    let mut events = Vec::new();
    for alert in alerts {
        let kind = match alert.kind {
            AlertKind::Memory => EventKind::MonitorMemory,
            AlertKind::Temperature | AlertKind::Throttling => EventKind::MonitorTemperature,
            AlertKind::Lost => EventKind::DeviceInfo,
        };
        let mut event = Event::new(kind, trust::now()?, identity.id());
        event.severity = if alert.raised { Severity::Warning } else { Severity::Info };
        event.device = Some(alert.device.clone());
        event.metadata.insert("alert".to_owned(), words(alert).as_str().into());
        events.push(event);
    }
    if events.is_empty() { Ok(()) } else { trust::record_all(identity, &events).map(|_| ()) }
}

/// Refused connections of one interval are one event, so that a flood of them does not become one of the log.
fn log_refused(identity: &Identity, (count, peer): (u64, Option<String>)) -> Done {
    if count == 0 {
        return Ok(());
    }
    let mut event = Event::new(EventKind::ConnectionRefused, trust::now()?, identity.id()).ended(EventResult::Denied);
    event.connection = peer;
    event.error = Some("only GET /metrics is answered".to_owned());
    event.metadata.insert("connections".to_owned(), i64::try_from(count).unwrap_or(i64::MAX).into());
    trust::record_all(identity, &[event]).map(|_| ())
}

fn words(alert: &Alert) -> String {
    let what = match alert.kind {
        AlertKind::Memory => "memory nearly full",
        AlertKind::Temperature => "hot",
        AlertKind::Throttling => "slows itself",
        AlertKind::Lost => "does not answer",
    };
    format!("{}: {what}{}", alert.device, if alert.raised { "" } else { " no more" })
}

fn show(
    ui: &Ui,
    view: Option<&mut view::View>,
    state: &State,
    samples: &[Sample],
    alerts: &[Alert],
    now_ms: u64,
) -> Done {
    if let Some(view) = view {
        return view.draw(state, now_ms);
    }
    if ui.format == Format::Json {
        // One line a sample, so that a reader need not wait for the end.
        for sample in samples {
            let mut value = serde_json::to_value(sample).map_err(|e| Failure::io(e.to_string()))?;
            value["device"] = state.devices[sample.device].key.as_str().into();
            print(format!("{value}\n").as_bytes())?;
        }
        return Ok(());
    }
    for sample in samples {
        print(format!("{}\n", line(&state.devices[sample.device], sample)).as_bytes())?;
    }
    for alert in alerts {
        ui.note(format!("alert: {}", words(alert)));
    }
    Ok(())
}

/// What one sample says, in one line; what is not known is left out.
fn line(device: &Watched, sample: &Sample) -> String {
    let mut parts = vec![device.name.clone()];
    if !sample.answered {
        parts.push("does not answer".to_owned());
    }
    parts.extend(sample.celsius.map(|celsius| celsius.to_string()));
    parts.extend(sample.hot_spot_celsius.map(|celsius| format!("hot spot {celsius}")));
    parts.extend(sample.watts.map(|watts| watts.to_string()));
    parts.extend(sample.clock_hertz.map(|clock| format!("{:.0} MHz", clock.value() / 1e6)));
    parts.extend(sample.busy.map(|busy| format!("{:.0} % busy", busy * 100.0)));
    parts.extend(sample.memory_used_bytes.map(|used| match device.memory_bytes {
        Some(all) => format!("{used} of {all}"),
        None => used.to_string(),
    }));
    parts.extend(sample.fan_rpm.map(|turns| format!("fan {turns}/min")));
    parts.extend(sample.throttled.filter(|throttled| *throttled).map(|_| "slows itself".to_owned()));
    parts.join("  ")
}

/// Waits for the next sample; gives whether somebody asked to end.
fn wait(view: Option<&mut view::View>, next: Instant) -> Result<bool, Failure> {
    let mut view = view;
    loop {
        let left = next.saturating_duration_since(Instant::now());
        let nap = left.min(Duration::from_millis(100));
        let asked = match view.as_deref_mut() {
            Some(view) => view.quits(nap)?,
            None => {
                std::thread::sleep(nap);
                false
            }
        };
        if asked || interrupt::flag().load(Ordering::Relaxed) {
            return Ok(true);
        }
        if left.is_zero() {
            return Ok(false);
        }
    }
}

/// Answers scrapes, one at a time: there is one reader, and whoever holds the line is cut off.
fn serve(listener: &TcpListener, state: &Mutex<State>) {
    for stream in listener.incoming().flatten() {
        // A scrape that fails is the scraper's to repeat.
        let _ = answer(stream, state);
    }
}

fn answer(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(SCRAPE_TIME))?;
    stream.set_write_timeout(Some(SCRAPE_TIME))?;
    let until = Instant::now() + SCRAPE_TIME;
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n")
        && request.len() < REQUEST_BYTES_MAX
        && Instant::now() < until
    {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        request.extend_from_slice(&buffer[..read]);
    }
    let (status, body) = if request.starts_with(b"GET /metrics ") || request.starts_with(b"GET /metrics?") {
        let held = state.lock().unwrap_or_else(PoisonError::into_inner);
        let raised: Vec<_> = held.alerts.raised().collect();
        ("200 OK", exposition(&trust::host_id(), &held.devices, &held.ring, &raised, now_ms()))
    } else {
        let mut held = state.lock().unwrap_or_else(PoisonError::into_inner);
        held.refused = (held.refused.0.saturating_add(1), stream.peer_addr().ok().map(|peer| peer.to_string()));
        ("404 Not Found", "only /metrics is here\n".to_owned())
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())
}

fn table_format(path: &Path) -> Result<TableFormat, Failure> {
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("parquet") => Ok(TableFormat::Parquet),
        Some("csv") => Ok(TableFormat::Csv),
        _ => Err(Failure::new(Code::Usage, format!("--table is {}; end it in .parquet or .csv", path.display()))),
    }
}

fn write_table(path: &Path, state: &State) -> Done {
    let samples: Vec<&Sample> = state.ring.iter().collect();
    let numbers = |value: fn(&Sample) -> Option<f64>| Values::Numbers(samples.iter().map(|s| value(s)).collect());
    let counts = |value: fn(&Sample) -> Option<u64>| Values::Counts(samples.iter().map(|s| value(s)).collect());
    let device = samples.iter().map(|sample| Some(state.devices[sample.device].key.clone())).collect();
    let columns = vec![
        ("device", Values::Text(device)),
        ("at_ms", counts(|s| Some(s.at_ms))),
        ("temperature_celsius", numbers(|s| Some(s.celsius?.value()))),
        ("hot_spot_celsius", numbers(|s| Some(s.hot_spot_celsius?.value()))),
        ("memory_temperature_celsius", numbers(|s| Some(s.memory_celsius?.value()))),
        ("power_watts", numbers(|s| Some(s.watts?.value()))),
        ("energy_joules", numbers(|s| Some(s.joules?.value()))),
        ("clock_hertz", numbers(|s| Some(s.clock_hertz?.value()))),
        ("busy_share", numbers(|s| s.busy)),
        ("memory_used_bytes", counts(|s| Some(s.memory_used_bytes?.0))),
        ("fan_rpm", counts(|s| s.fan_rpm.map(u64::from))),
    ];
    let mut bytes = Vec::new();
    write_columns("isotherm.telemetry/v1", columns, table_format(path)?, &mut bytes)
        .map_err(|e| Failure::file(path, e))?;
    files::write(path, &bytes)
}
