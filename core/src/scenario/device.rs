//! Devices as they are written down: in tables of their own, and in the scenario's `[[devices]]`.

use super::fault::Fault;
use super::heat;
use super::reader::{At, Reader, Says};
use super::tables::Tables;
use crate::cost::{Curve, Experts, Grid, IterationTable, MIXED_FACTOR_MAX, OperatorProfile, TableError};
use crate::device::{Device, DeviceKind};
use crate::figure::How;
use crate::offload::{Offload, Store};
use crate::power::{POINTS_MAX, PowerPoint, SPEED_MIN};
use crate::units::{BytesPerSecond, Seconds, TokensPerSecond};

/// Most devices of a scenario.
pub(super) const DEVICES_MAX: u32 = 10_000;

/// A device table: a device named after the table, with whatever figures the table gives.
pub(super) fn table(reader: &Reader<'_, '_>, name: &str, tables: &mut Tables<'_>) -> Device {
    let _ = reader.text("name");
    let mut device = Device::named(name, name, DeviceKind::Gpu);
    if !reader.has("kind") {
        reader.missing("kind", "kind = \"gpu\"");
    }
    figures(reader, &mut device, &format!("device table {name}"), tables);
    device
}

/// A scenario's devices, one [`Device`] for each of an entry's `count`, with the place of its entry.
pub(super) fn entries(root: &Reader<'_, '_>, tables: &mut Tables<'_>) -> Vec<At<Device>> {
    let mut devices: Vec<At<Device>> = Vec::new();
    for reader in root.tables("devices") {
        let entry = entry(&reader, tables);
        let room = DEVICES_MAX as usize - devices.len();
        if entry.len() > room {
            let what = format!("there are more than {DEVICES_MAX} devices");
            reader.fault(Fault::Conflict { what, remedy: "lower a count".to_owned() });
        }
        let span = reader.span.clone();
        devices.extend(entry.into_iter().take(room).map(|value| At { value, span: span.clone() }));
        reader.done();
    }
    devices
}

fn entry(reader: &Reader<'_, '_>, tables: &mut Tables<'_>) -> Vec<Device> {
    let table_name = reader.name("table");
    let name = reader.name("name");
    let names = listed_names(reader);
    let count = reader.integer("count", 1, DEVICES_MAX).unwrap_or(1);
    let (host, site, class) = (reader.name("host"), reader.name("site"), reader.name("class"));
    let mut device = match &table_name {
        Some(table) => match tables.device(reader, table) {
            Some(device) => device,
            // Its other keys are still read, so that their faults are reported too.
            None => Device::named(table.value.as_str(), "", DeviceKind::Gpu),
        },
        None => {
            if name.is_none() && !reader.has("name") && !reader.has("names") {
                reader.missing("name", "table = \"rtx-4090\", or a name and figures");
            }
            if !reader.has("kind") {
                reader.missing("kind", "kind = \"gpu\", or table = \"rtx-4090\"");
            }
            Device::named(name.as_ref().map_or("", |n| &n.value), "", DeviceKind::Gpu)
        }
    };
    let changed = figures(reader, &mut device, "scenario", tables);
    let base = name.map(|n| n.value).or_else(|| table_name.as_ref().map(|t| t.value.clone()));
    let base = base.or_else(|| names.first().cloned()).unwrap_or_default();
    // Only what a table says and nothing changes is interchangeable with others of that table.
    let class = class.map(|c| c.value).or_else(|| table_name.filter(|_| !changed).map(|t| t.value));
    device.class = class.unwrap_or_else(|| base.clone());
    device.site = site.map(|s| s.value);
    let pool = device.memory_pool.take();
    let called = |name: String| {
        let mut one = device.clone();
        one.name = name;
        one.host = host.as_ref().map_or_else(|| one.name.clone(), |h| h.value.clone());
        // Memory is shared within a host, so a pool's name means something only there.
        one.memory_pool = pool.as_ref().map(|pool| format!("{}:{pool}", one.host));
        one
    };
    if reader.has("names") {
        return names.into_iter().map(called).collect();
    }
    let numbered = |i: u32| if reader.has("count") { format!("{base}-{i}") } else { base.clone() };
    (1..=count).map(|i| called(numbered(i))).collect()
}

/// The names of an entry that stands for several equal devices, each called by its own.
fn listed_names(reader: &Reader<'_, '_>) -> Vec<String> {
    let names = reader.names("names");
    for key in ["name", "count"].into_iter().filter(|key| reader.has("names") && reader.has(key)) {
        let what = format!("an entry has both names and {key}");
        let remedy = format!("keep names (devices called so) or {key}");
        reader.fault(Fault::Conflict { what, remedy });
    }
    if reader.has("names") && names.is_empty() {
        let (key, value) = ("names".to_owned(), "no name".to_owned());
        reader.fault(Fault::OutOfRange { key, value, must: "a list of at least one name".to_owned() });
    }
    names.into_iter().map(|name| name.value).collect()
}

/// Writes the figures that a table gives into a device. Whether there were any.
fn figures(reader: &Reader<'_, '_>, device: &mut Device, place: &str, tables: &mut Tables<'_>) -> bool {
    let source = reader.text("source").map_or_else(|| place.to_owned(), |s| s.value);
    let says = Says { how: reader.how().unwrap_or(How::Declared), source };
    let mut changed = false;
    macro_rules! set {
        ($field:ident, $value:expr) => {
            if let Some(value) = $value {
                device.$field = value;
                changed = true;
            }
        };
    }
    let kinds = [("cpu", DeviceKind::Cpu), ("gpu", DeviceKind::Gpu), ("unified", DeviceKind::Unified)];
    set!(kind, reader.word("kind", &kinds));
    set!(backend, reader.name("backend").map(|b| b.value));
    set!(memory_bytes, reader.figure("memory", &says).map(Some));
    set!(memory_pool, reader.name("memory_pool").map(|p| Some(p.value)));
    set!(memory_bandwidth_bytes_per_second, reader.figure("memory_bandwidth", &says).map(Some));
    set!(compute_flops_per_second, reader.figure("compute", &says).map(Some));
    set!(offload, reader.table("offload").and_then(|reader| offload(reader, &says)).map(Some));
    set!(idle_watts, reader.figure("idle_power", &says).map(Some));
    set!(busy_watts, reader.figure("busy_power", &says).map(Some));
    set!(power_points, reader.has("power_points").then(|| power_points(reader, &says)));
    if reader.has("busy_power") && !reader.has("power_points") {
        // Points of a table are those of the busy power that the table states.
        device.power_points.clear();
    }
    if device.busy_watts.is_none() {
        // The point of full speed stands for the busy power.
        let full = device.power_points.iter().find(|point| point.speed >= 1.0);
        device.busy_watts = full.map(|point| point.watts.clone());
    }
    set!(thermal, reader.table("thermal").and_then(|reader| heat::thermal(reader, &says)).map(Some));
    set!(governor, reader.table("governor").and_then(heat::governor).map(Some));
    set!(battery, reader.table("battery").and_then(|reader| heat::battery(reader, &says)).map(Some));
    let rates = reader.pairs("rates", |rate| reader.quantity_of::<TokensPerSecond>("rates", rate));
    set!(rates, (!rates.is_empty()).then_some(rates));
    let formats: Vec<String> = reader.texts("formats").into_iter().map(|f| f.value).collect();
    set!(formats, (!formats.is_empty()).then_some(formats));
    let operations: Vec<String> = reader.texts("operations").into_iter().map(|o| o.value).collect();
    set!(operations, (!operations.is_empty()).then_some(operations));
    let profiles: Vec<OperatorProfile> =
        reader.tables("profiles").into_iter().filter_map(|reader| profile(reader, &says, tables)).collect();
    set!(profiles, (!profiles.is_empty()).then_some(profiles));
    changed
}

/// `power_points = [{ speed = 1.0, power = "350 W" }, { speed = 0.75, power = "190 W" }]`.
fn power_points(reader: &Reader<'_, '_>, says: &Says) -> Vec<PowerPoint> {
    let mut points = Vec::new();
    let tables = reader.tables("power_points");
    if tables.len() > POINTS_MAX {
        let (key, value) = ("power_points".to_owned(), format!("{} points", tables.len()));
        reader.fault(Fault::OutOfRange { key, value, must: format!("at most {POINTS_MAX} points") });
        return points;
    }
    for table in tables {
        let speed = table.get("speed").and_then(|value| table.number_of("speed", value, SPEED_MIN, 1.0));
        let watts = table.figure("power", says);
        for (key, example) in [("speed", "speed = 0.75"), ("power", "power = \"190 W\"")] {
            if !table.has(key) {
                table.missing(key, example);
            }
        }
        points.extend(speed.zip(watts).map(|(speed, watts)| PowerPoint { speed, watts }));
        table.done();
    }
    points
}

/// `offload = { store = "host memory", bandwidth = "20 GB/s", room = "64 GiB" }`.
fn offload(reader: Reader<'_, '_>, says: &Says) -> Option<Offload> {
    let store = reader.word("store", &[("host memory", Store::HostMemory), ("disk", Store::Disk)]);
    let bandwidth = reader.figure("bandwidth", says);
    for (key, example) in [("store", "store = \"disk\""), ("bandwidth", "bandwidth = \"3 GB/s\"")] {
        if !reader.has(key) {
            reader.missing(key, example);
        }
    }
    let bandwidth = heat::above_zero(&reader, "bandwidth", bandwidth, BytesPerSecond::value);
    let (room_bytes, beside) = (reader.figure("room", says), reader.boolean("beside").unwrap_or(true));
    reader.done();
    Some(Offload { store: store?, bandwidth_bytes_per_second: bandwidth?, beside, room_bytes })
}

/// Operator times of one model. Times are numbers of milliseconds per layer; what is left out takes no time of its
/// own, because it is counted in `dense_ms`.
fn profile(reader: Reader<'_, '_>, says: &Says, tables: &mut Tables<'_>) -> Option<OperatorProfile> {
    let model = reader.name("model");
    if model.is_none() && !reader.has("model") {
        reader.missing("model", "model = \"llama-3.1-8b-f16\"");
    }
    let geometry = model.and_then(|name| tables.model(&reader, &name)).map(|model| model.geometry());
    let curve = |key: &'static str| reader.has(key).then(|| curve(&reader, key));
    let nothing = || Curve::constant(Seconds::ZERO);
    let whole_steps = match reader.table("iterations") {
        Some(table) => Some(iterations(table)),
        // Something else stands there, and was reported.
        None => reader.has("iterations").then_some(None),
    };
    let dense = match (curve("dense_ms"), reader.has("iterations")) {
        (Some(dense), false) => dense,
        (None, true) => Some(nothing()),
        (Some(_), true) => {
            let what = "a profile has both iterations and dense_ms".to_owned();
            let remedy = "keep iterations (times of whole steps) or the times of the operators".to_owned();
            reader.fault(Fault::Conflict { what, remedy });
            None
        }
        (None, false) => {
            reader.missing("dense_ms", "dense_ms = [[1, 0.8], [256, 1.9]]");
            None
        }
    };
    let head = curve("head_ms").unwrap_or_else(|| Some(nothing()));
    let embedding = curve("embedding_ms").unwrap_or_else(|| Some(nothing()));
    let grid = |key: &'static str, rows: &'static str, columns: &'static str| {
        let Some(table) = reader.table(key) else {
            let empty = Grid::new(vec![1], vec![0], vec![Seconds::ZERO]).ok();
            return if reader.has(key) { None } else { empty };
        };
        let axis = |axis: &'static str| -> Vec<u32> {
            let values = table.list(axis, "a list of counts, for example [1, 8, 64]");
            values.into_iter().filter_map(|v| table.integer_of(axis, v, 0, u32::MAX)).collect()
        };
        let (row_knots, column_knots) = (axis(rows), axis(columns));
        let mut seconds = Vec::new();
        for row in table.list("ms", "a list of rows, for example [[0.1, 0.2], [0.3, 0.4]]") {
            for value in row.get_ref().as_array().into_iter().flat_map(|row| row.iter()) {
                seconds.extend(milliseconds(&table, value));
            }
        }
        let grid = kept(&table, key, Grid::new(row_knots, column_knots, seconds));
        table.done();
        grid
    };
    let attention_prefill = grid("attention_prefill_ms", "tokens", "cached");
    let attention_decode = grid("attention_decode_ms", "sequences", "context");
    let experts = match reader.table("experts") {
        Some(table) => Some(experts(table)),
        None => reader.has("experts").then_some(None),
    };
    let step = match reader.get("step_ms") {
        Some(value) => milliseconds(&reader, value),
        None => Some(Seconds::ZERO),
    };
    let arithmetic = reader.name("arithmetic").map_or_else(|| "unstated".to_owned(), |a| a.value);
    let how = reader.how().unwrap_or(says.how);
    let source = Some(reader.text("source").map_or_else(|| says.source.clone(), |s| s.value));
    let samples = reader.integer("samples", 1, u32::MAX);
    let spread = reader.get("spread").and_then(|v| reader.number_of("spread", v, 0.0, 1e6));
    let when = reader.text("when").map(|w| w.value);
    reader.done();
    Some(OperatorProfile {
        geometry: geometry?,
        arithmetic,
        how,
        source,
        samples,
        spread,
        when,
        dense_seconds: dense?,
        attention_prefill_seconds: attention_prefill?,
        attention_decode_seconds: attention_decode?,
        head_seconds: head?,
        embedding_seconds: embedding?,
        step_seconds: step?,
        iterations: match whole_steps {
            Some(table) => Some(table?),
            None => None,
        },
        experts: match experts {
            Some(experts) => Some(experts?),
            None => None,
        },
        resident: None,
        conditions: None,
    })
}

/// Feed-forward by experts: how many there are and what they take, over tokens, for each number that was activated.
fn experts(reader: Reader<'_, '_>) -> Option<Experts> {
    for (key, example) in [
        ("count", "count = 128, the experts of a layer"),
        ("per_token", "per_token = 8, the experts that each token goes to"),
        ("layers", "layers = 48, the layers that have experts"),
        ("times", "[[devices.profiles.experts.times]] with activated = 8 and ms = [[1, 0.2], [64, 0.5]]"),
    ] {
        if !reader.has(key) {
            reader.missing(key, example);
        }
    }
    let whole = |key: &'static str| reader.integer(key, 1, Experts::COUNT_MAX);
    let (count, per_token, layers) = (whole("count"), whole("per_token"), whole("layers"));
    let measured_per_token = whole("measured_per_token");
    let popularity = reader.list("popularity", "one number for each expert");
    let popularity: Vec<f64> =
        popularity.iter().filter_map(|value| reader.number_of("popularity", value, 0.0, 1e12)).collect();
    let mut by_activated = Vec::new();
    for row in reader.tables("times") {
        let (activated, ms) = (row.integer("activated", 1, Experts::COUNT_MAX), curve(&row, "ms"));
        row.done();
        by_activated.push((activated?, ms?));
    }
    let (per_token, devices, width) = (per_token?, 1, 1);
    let measured_per_token = measured_per_token.unwrap_or(per_token);
    let (count, layers) = (count?, layers?);
    let experts = Experts { count, per_token, layers, devices, width, measured_per_token, popularity, by_activated };
    let experts = kept(&reader, "times", experts.checked());
    reader.done();
    experts
}

fn milliseconds(reader: &Reader<'_, '_>, value: &toml::Spanned<toml::de::DeValue<'_>>) -> Option<Seconds> {
    Some(Seconds::of(reader.number_of("ms", value, 0.0, 1e9)? / 1e3))
}

fn curve(reader: &Reader<'_, '_>, key: &'static str) -> Option<Curve> {
    let knots = reader.pairs(key, |value| milliseconds(reader, value));
    kept(reader, key, Curve::new(knots))
}

/// Times of whole steps: `prefill_ms` over tokens, `decode_ms` over sequences, and what a step of both takes over a
/// prefill of as many tokens.
fn iterations(reader: Reader<'_, '_>) -> Option<IterationTable> {
    for (key, example) in [
        ("prefill_ms", "prefill_ms = [[128, 58.2], [2048, 134.4]]"),
        ("decode_ms", "decode_ms = [[1, 29.8], [64, 31.0]]"),
        ("mixed_factor", "mixed_factor = 1.1"),
    ] {
        if !reader.has(key) {
            reader.missing(key, example);
        }
    }
    let (prefill, decode) = (curve(&reader, "prefill_ms"), curve(&reader, "decode_ms"));
    let factor = reader.get("mixed_factor");
    let factor = factor.and_then(|value| reader.number_of("mixed_factor", value, 0.0, MIXED_FACTOR_MAX));
    let table = kept(&reader, "mixed_factor", IterationTable::new(prefill?, decode?, factor?));
    reader.done();
    table
}

/// A cost table, or its fault.
fn kept<T>(reader: &Reader<'_, '_>, key: &'static str, table: Result<T, TableError>) -> Option<T> {
    match table {
        Ok(table) => Some(table),
        Err(cause) => {
            let span = reader.get(key).map_or_else(|| reader.span.clone(), toml::Spanned::span);
            reader.source.fault(span, Fault::Table { key: key.to_owned(), cause });
            None
        }
    }
}
