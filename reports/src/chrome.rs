//! A trace in the Trace Event Format that Perfetto (<https://ui.perfetto.dev>) and Chrome's `about:tracing` open.
//!
//! Devices are threads of one process and their steps slices on them. Each request is an asynchronous slice from arrival
//! to last token, with an instant at its first, and a flow from step to step that it takes part in. Counters show how
//! many requests are in the system and wait for their first step, and each device's temperature, speed and power as far
//! as they are known. Times are microseconds with three decimals: nanoseconds.
//!
//! (Google, "Trace Event Format", the phases M, X, b, n, e, s, t, f and C.)

use isotherm_core::trace::Trace;
use isotherm_core::units::SimTime;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Process of the devices.
const DEVICES: u32 = 1;
/// Process of the requests.
const REQUESTS: u32 = 2;

fn microseconds(time: SimTime) -> f64 {
    time.0 as f64 / 1e3
}

/// The trace as JSON text.
#[must_use]
pub fn chrome_json(trace: &Trace) -> String {
    let mut events = Vec::new();
    for (process, name) in [(DEVICES, "devices"), (REQUESTS, "requests")] {
        events.push(json!({ "ph": "M", "pid": process, "tid": 0, "name": "process_name", "args": { "name": name } }));
    }
    for (thread, device) in (1..).zip(&trace.devices) {
        let args = json!({ "name": device.name });
        events.push(json!({ "ph": "M", "pid": DEVICES, "tid": thread, "name": "thread_name", "args": args }));
    }
    steps(trace, &mut events);
    requests(trace, &mut events);
    counters(trace, &mut events);
    json!({ "displayTimeUnit": "ms", "traceEvents": events }).to_string()
}

/// Slices of the devices, and flows of the requests through them.
fn steps(trace: &Trace, events: &mut Vec<Value>) {
    let mut left: BTreeMap<u32, usize> = BTreeMap::new();
    for request in trace.steps.iter().flat_map(|step| &step.requests) {
        *left.entry(*request).or_default() += 1;
    }
    let whole = left.clone();
    let mut order: Vec<_> = trace.steps.iter().collect();
    order.sort_by_key(|step| (step.start_ns, step.device));
    for step in order {
        let (start, end) = (microseconds(step.start_ns), microseconds(step.end_ns));
        let thread = step.device + 1;
        events.push(json!({
            "ph": "X", "pid": DEVICES, "tid": thread, "ts": start, "dur": end - start,
            "name": format!("batch {}.{}", step.route, step.batch), "cat": "step",
            "args": { "tokens": step.tokens, "requests": step.requests.len(), "route": step.route },
        }));
        for &request in &step.requests {
            let (Some(open), all) = (left.get_mut(&request), whole[&request]) else { continue };
            // A flow of a single step would be an arrow to nowhere.
            let phase = if all < 2 {
                None
            } else if *open == all {
                Some("s")
            } else if *open == 1 {
                Some("f")
            } else {
                Some("t")
            };
            *open -= 1;
            if let Some(phase) = phase {
                events.push(json!({
                    "ph": phase, "bp": "e", "pid": DEVICES, "tid": thread, "ts": start, "id": request,
                    "name": "request", "cat": "flow",
                }));
            }
        }
    }
}

fn requests(trace: &Trace, events: &mut Vec<Value>) {
    for request in &trace.requests {
        let name = format!("request {}", request.id);
        let event = |phase: &str, at: SimTime, name: &str| {
            json!({
                "ph": phase, "pid": REQUESTS, "tid": 0, "ts": microseconds(at), "id": request.id, "name": name,
                "cat": "request",
                "args": { "prompt_tokens": request.prompt_tokens, "output_tokens": request.output_tokens },
            })
        };
        events.push(event("b", request.arrival_ns, &name));
        events.push(event("n", request.first_token_ns, "first token"));
        events.push(event("e", request.finished_ns, &name));
    }
}

fn counters(trace: &Trace, events: &mut Vec<Value>) {
    let mut begun: BTreeMap<u32, SimTime> = BTreeMap::new();
    for step in &trace.steps {
        for &request in &step.requests {
            let first = begun.entry(request).or_insert(step.start_ns);
            *first = (*first).min(step.start_ns);
        }
    }
    // Changes of: requests in the system, requests that wait for their first step.
    let mut changes: BTreeMap<SimTime, (i64, i64)> = BTreeMap::new();
    for request in &trace.requests {
        let mut change = |at: SimTime, inside: i64, waiting: i64| {
            let entry = changes.entry(at).or_default();
            *entry = (entry.0 + inside, entry.1 + waiting);
        };
        let first = begun.get(&request.id).copied();
        change(request.arrival_ns, 1, i64::from(first.is_some()));
        change(request.finished_ns, -1, 0);
        if let Some(first) = first {
            change(first, 0, -1);
        }
    }
    let (mut inside, mut waiting) = (0, 0);
    for (at, change) in changes {
        (inside, waiting) = (inside + change.0, waiting + change.1);
        let args = json!({ "in the system": inside, "waiting": waiting });
        events.push(json!({
            "ph": "C", "pid": REQUESTS, "tid": 0, "ts": microseconds(at), "name": "requests", "args": args,
        }));
    }
    for device in &trace.devices {
        for sample in &device.samples {
            let known = [
                ("temperature °C", sample.temperature_celsius.map(|celsius| celsius.value())),
                ("power W", sample.power_watts.map(|watts| watts.value())),
                ("charge", sample.charge),
                ("speed", sample.speed),
                ("waiting requests", sample.waiting.map(f64::from)),
                ("cache", sample.cache),
            ];
            for (name, value) in known.into_iter().filter_map(|(name, value)| Some((name, value?))) {
                events.push(json!({
                    "ph": "C", "pid": DEVICES, "tid": 0, "ts": microseconds(sample.at_ns),
                    "name": format!("{} {name}", device.name), "args": { "value": value },
                }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isotherm_core::trace::{DeviceRecord, DeviceSample, Origin, RequestRecord, StepRecord};
    use isotherm_core::units::{Celsius, SimDuration, Watts};

    fn trace() -> Trace {
        let request = |id: u32, arrival: u64, first: u64, finished: u64| RequestRecord {
            id,
            arrival_ns: SimTime(arrival),
            prompt_tokens: 3,
            output_tokens: 2,
            first_token_ns: SimTime(first),
            finished_ns: SimTime(finished),
        };
        let step = |device, start: u64, end: u64, batch, requests: &[u32]| StepRecord {
            device,
            start_ns: SimTime(start),
            end_ns: SimTime(end),
            route: 0,
            batch,
            tokens: 4,
            requests: requests.to_vec(),
        };
        let device = |name: &str, samples| DeviceRecord {
            name: name.into(),
            busy_ns: SimDuration(0),
            energy_joules: None,
            temperature_max_celsius: None,
            throttled_ns: None,
            throttled_after_ns: None,
            sustained_speed: None,
            source: "test".into(),
            samples,
        };
        let warm = DeviceSample {
            at_ns: SimTime(1_500),
            temperature_celsius: Some(Celsius::of(41.5)),
            speed: Some(0.5),
            power_watts: Some(Watts::of(90.0)),
            energy_joules: None,
            utilisation: None,
            charge: None,
            waiting: None,
            cache: None,
        };
        Trace {
            origin: Origin::Predicted,
            requests: vec![request(0, 0, 3_001, 6_000), request(1, 500, 6_000, 6_000)],
            stages: Vec::new(),
            links: Vec::new(),
            devices: vec![device("d\"0", vec![warm]), device("d1", Vec::new())],
            end_ns: SimTime(6_000),
            steps: vec![
                step(0, 0, 1_000, 0, &[0]),
                step(1, 1_200, 3_000, 0, &[0]),
                step(0, 3_001, 4_000, 1, &[0, 1]),
                step(1, 4_100, 6_000, 1, &[0, 1]),
            ],
        }
    }

    fn events() -> Vec<Value> {
        let parsed: Value = serde_json::from_str(&chrome_json(&trace())).expect("JSON");
        parsed["traceEvents"].as_array().expect("a list").clone()
    }

    fn of<'e>(events: &'e [Value], phase: &str) -> Vec<&'e Value> {
        events.iter().filter(|event| event["ph"] == phase).collect()
    }

    #[test]
    fn every_event_has_the_fields_that_its_phase_must_have() {
        for event in events() {
            let phase = event["ph"].as_str().expect("a phase");
            assert!(event["pid"].is_u64() && event["tid"].is_u64() && event["name"].is_string(), "{event}");
            if phase != "M" {
                assert!(event["ts"].as_f64().is_some_and(|ts| ts >= 0.0), "{event}");
            }
            match phase {
                "M" | "C" => assert!(event["args"].is_object(), "{event}"),
                "X" => assert!(event["dur"].as_f64().is_some_and(|dur| dur >= 0.0), "{event}"),
                "b" | "n" | "e" | "s" | "t" | "f" => {
                    assert!(event["id"].is_u64() && event["cat"].is_string(), "{event}");
                }
                other => panic!("phase {other}"),
            }
        }
    }

    #[test]
    fn steps_are_slices_that_do_not_overlap_on_their_device() {
        let events = events();
        let slices = of(&events, "X");
        assert_eq!(slices.len(), 4);
        assert_eq!((slices[2]["ts"].as_f64(), slices[2]["dur"].as_f64()), (Some(3.001), Some(4.0 - 3.001)));
        for device in [1, 2] {
            let spans: Vec<(f64, f64)> = slices
                .iter()
                .filter(|slice| slice["tid"] == device)
                .map(|slice| (slice["ts"].as_f64().expect("ts"), slice["dur"].as_f64().expect("dur")))
                .collect();
            assert!(spans.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0 + 1e-9), "{spans:?}");
        }
    }

    #[test]
    fn each_request_begins_and_ends_once_and_flows_from_its_first_step_to_its_last() {
        let events = events();
        for request in [0, 1] {
            let ids = |phase| of(&events, phase).iter().filter(|event| event["id"] == request).count();
            assert_eq!((ids("b"), ids("n"), ids("e")), (1, 1, 1));
            assert_eq!((ids("s"), ids("f"), ids("t")), (1, 1, if request == 0 { 2 } else { 0 }));
        }
        // Each flow event lies in a slice of its thread.
        for flow in ["s", "t", "f"].iter().flat_map(|phase| of(&events, phase)) {
            let inside = of(&events, "X").iter().any(|slice| {
                let (ts, start) = (flow["ts"].as_f64().expect("ts"), slice["ts"].as_f64().expect("ts"));
                slice["tid"] == flow["tid"] && ts >= start && ts <= start + slice["dur"].as_f64().expect("dur")
            });
            assert!(inside, "{flow}");
        }
    }

    #[test]
    fn counters_show_the_queue_and_what_is_known_of_the_devices() {
        let events = events();
        let queue: Vec<(f64, i64, i64)> = of(&events, "C")
            .iter()
            .filter(|event| event["name"] == "requests")
            .map(|event| {
                let count = |name: &str| event["args"][name].as_i64().expect("a count");
                (event["ts"].as_f64().expect("ts"), count("in the system"), count("waiting"))
            })
            .collect();
        assert_eq!(queue, [(0.0, 1, 0), (0.5, 2, 1), (3.001, 2, 0), (6.0, 0, 0)]);
        let of_device: Vec<&str> = of(&events, "C").iter().filter_map(|event| event["name"].as_str()).collect();
        assert!(of_device.contains(&"d\"0 temperature °C") && of_device.contains(&"d\"0 speed"), "{of_device:?}");
        assert!(of_device.contains(&"d\"0 power W") && !of_device.contains(&"d\"0 charge"), "{of_device:?}");
    }
}
