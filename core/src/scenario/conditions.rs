//! `[conditions]`, `[[link_conditions]]`, `[[cross_traffic]]`, `[[failures]]` and `[slo]`: what a simulation meets.
//!
//! Names of places are resolved against the device graph that is simulated, which may be a measured one.

use super::fault::{Fault, nearest};
use super::network::Network;
use super::reader::{At, Reader};
use crate::conditions::{
    Between, Conditions, CrossTraffic, Disaggregation, Failure, InFlight, LinkCondition, Moment, Place, Recovery,
    Severity, Sharing, Slo, Spread, Target,
};
use crate::device::Device;
use crate::graph::Link;
use crate::problem::Division;
use crate::units::Seconds;

/// Most times that a request may be computed again.
const ATTEMPTS_MAX: u32 = 1_000;
/// Most quantiles of a distribution.
const QUANTILES_MAX: usize = 10_000;

/// What a simulation meets, and whether plans are to divide their devices.
pub(super) fn read(root: &Reader<'_, '_>) -> (Conditions, Division) {
    let mut conditions = Conditions::default();
    let mut division = Division::Never;
    if let Some(reader) = root.table("conditions") {
        let words = [("fair", Sharing::Fair), ("fifo", Sharing::Fifo)];
        conditions.sharing = reader.word("sharing", &words).unwrap_or_default();
        conditions.recovery = recovery(&reader);
        reader.done();
    }
    if let Some(reader) = root.table("disaggregation") {
        let prefill: Vec<String> = reader.texts("prefill").into_iter().map(|name| name.value).collect();
        let choose = reader.boolean("choose").unwrap_or(false);
        match (reader.has("prefill"), choose) {
            (true, true) => root.fault(Fault::Conflict {
                what:
                    "disaggregation has prefill, which divides the devices, and choose, which leaves it to the planner"
                        .to_owned(),
                remedy: "keep one of them".to_owned(),
            }),
            (true, false) if reader.is_empty_list("prefill") => root.fault(Fault::Conflict {
                what: "disaggregation.prefill names no device".to_owned(),
                remedy: "name the devices that prefill, or write choose = true".to_owned(),
            }),
            (true, false) => {
                division = Division::Always;
                conditions.disaggregation = Some(Disaggregation { prefill });
            }
            (false, true) => division = Division::Auto,
            (false, false) if reader.has("choose") => {}
            (false, false) => {
                reader.missing("prefill", "prefill = [\"gpu-1\"], the devices whose routes prefill, or choose = true");
            }
        }
        reader.done();
    }
    for reader in root.tables("link_conditions") {
        let (jitter, loss) = (reader.table("jitter").and_then(spread), share(&reader, "loss"));
        if !reader.has("jitter") && !reader.has("loss") {
            reader.missing("jitter", "jitter = { kind = \"uniform\", min = \"0 ms\", max = \"2 ms\" }");
        }
        for link in ends(&reader).into_iter().flat_map(both_ways) {
            conditions.links.push(LinkCondition { link, jitter: jitter.clone(), loss });
        }
        reader.done();
    }
    for reader in root.tables("cross_traffic") {
        cross_traffic(&reader, &mut conditions.cross_traffic);
        reader.done();
    }
    for reader in root.tables("failures") {
        conditions.failures.extend(failure(&reader));
        reader.done();
    }
    if let Some(reader) = root.table("slo") {
        conditions.slo = Slo { ttft: span(&reader, "ttft"), tpot: span(&reader, "tpot") };
        if !reader.has("ttft") && !reader.has("tpot") {
            reader.missing("ttft", "ttft = \"2 s\" or tpot = \"50 ms\", the times that requests must keep");
        }
        reader.done();
    }
    super::heat::chassis(root, &mut conditions);
    super::heat::air(root, &mut conditions);
    (conditions, division)
}

/// Names in conditions are those of devices, links and groups. A scenario without devices leaves them to a measurement.
pub(super) fn check(root: &Reader<'_, '_>, conditions: &Conditions, devices: &[At<Device>], network: &Network) {
    if devices.is_empty() {
        return;
    }
    let known: Vec<&str> = devices.iter().map(|device| device.value.name.as_str()).collect();
    let coordinator = network.coordinator.iter().map(String::as_str);
    let junctions = network.junctions.iter().map(String::as_str);
    let places: Vec<&str> = known.iter().copied().chain(junctions).chain(coordinator).collect();
    let groups: Vec<&str> = network.groups.iter().map(|group| group.name.as_str()).collect();
    let named = |key: &str, name: &str, what: &'static str, known: &[&str]| {
        let there = known.contains(&name);
        if !there {
            root.fault(Fault::UnknownName {
                key: key.to_owned(),
                name: name.to_owned(),
                what,
                nearest: nearest(name, known.iter().copied()),
                known: known.iter().map(|&name| name.to_owned()).collect(),
            });
        }
        there
    };
    let linked = |key: &str, link: &Between| {
        let [from, to] = [&link.from, &link.to].map(|end| named(key, end, "device or junction", &places));
        // Links may be left to a measurement where devices are not.
        let there = |of: &Link| of.from == link.from && of.to == link.to;
        if from && to && !network.links.is_empty() && !network.links.iter().any(there) {
            let near = network.links.iter().filter(|of| of.from == link.from || of.to == link.to);
            let near: Vec<String> = near.take(20).map(|of| format!("{} -> {}", of.from, of.to)).collect();
            let what = format!("{key} names a link from {:?} to {:?}, and there is none", link.from, link.to);
            let remedy = if near.is_empty() {
                "no link begins or ends there; add it to [[links]]".to_owned()
            } else {
                format!("add it to [[links]], or name one of {}", near.join(", "))
            };
            root.fault(Fault::Conflict { what, remedy });
        }
    };
    conditions.links.iter().for_each(|condition| linked("link_conditions", &condition.link));
    for traffic in &conditions.cross_traffic {
        match &traffic.place {
            Place::Link(link) => linked("cross_traffic", link),
            Place::Group(name) => {
                named("cross_traffic.group", name, "group", &groups);
            }
        }
    }
    for name in conditions.disaggregation.iter().flat_map(|disaggregation| &disaggregation.prefill) {
        named("disaggregation.prefill", name, "device", &known);
    }
    for failure in &conditions.failures {
        match &failure.target {
            Target::Link(link) => linked("failures", link),
            Target::Cable(link) => {
                linked("failures", link);
                linked("failures", &Between { from: link.to.clone(), to: link.from.clone() });
            }
            Target::Device(name) => {
                named("failures.device", name, "device", &known);
            }
        }
    }
}

fn recovery(reader: &Reader<'_, '_>) -> Recovery {
    let default = Recovery::default();
    let words = [("recompute", InFlight::Recompute), ("fail", InFlight::Fail)];
    Recovery {
        in_flight: reader.word("in_flight", &words).unwrap_or(default.in_flight),
        detect: reader.quantity("detect").map_or(default.detect, |detect: Seconds| detect.max(Seconds::ZERO)),
        attempts_max: reader.integer("attempts_max", 0, ATTEMPTS_MAX).unwrap_or(default.attempts_max),
    }
}

/// A time above zero.
fn span(reader: &Reader<'_, '_>, key: &'static str) -> Option<Seconds> {
    let span: Seconds = reader.quantity(key)?;
    if span > Seconds::ZERO {
        return Some(span);
    }
    let (key, value, must) = (key.to_owned(), span.to_string(), "above zero".to_owned());
    reader.fault(Fault::OutOfRange { key, value, must });
    None
}

/// A share from 0 to below 1.
fn share(reader: &Reader<'_, '_>, key: &'static str) -> Option<f64> {
    reader.get(key).and_then(|value| reader.number_of(key, value, 0.0, 0.999))
}

/// Where something is, and whether it is there in both directions.
fn ends(reader: &Reader<'_, '_>) -> Option<(Between, bool)> {
    let between = reader.texts("between");
    let (from, to) = (reader.name("from"), reader.name("to"));
    match (between.as_slice(), from, to) {
        ([a, b], None, None) => Some((Between { from: a.value.clone(), to: b.value.clone() }, true)),
        ([], Some(from), Some(to)) => Some((Between { from: from.value, to: to.value }, false)),
        _ => {
            let what = format!("{} does not say which link it concerns", reader.place);
            let remedy =
                "write between = [\"a\", \"b\"] for both directions, or from = \"a\" and to = \"b\" for one".to_owned();
            reader.fault(Fault::Conflict { what, remedy });
            None
        }
    }
}

fn both_ways((link, both): (Between, bool)) -> Vec<Between> {
    let back = both.then(|| Between { from: link.to.clone(), to: link.from.clone() });
    std::iter::once(link).chain(back).collect()
}

/// A distribution of times.
fn spread(reader: Reader<'_, '_>) -> Option<Spread> {
    let kinds = [("uniform", 0), ("normal", 1), ("lognormal", 2), ("quantiles", 3)];
    if !reader.has("kind") {
        reader.missing("kind", "kind = \"uniform\" with min and max");
    }
    let kind = reader.word("kind", &kinds)?;
    let time = |key: &'static str, example: &'static str| {
        if !reader.has(key) {
            reader.missing(key, example);
        }
        reader.quantity::<Seconds>(key).filter(|time| *time >= Seconds::ZERO)
    };
    let spread = match kind {
        0 => {
            let (min, max) = (time("min", "min = \"0 ms\""), time("max", "max = \"2 ms\""));
            let (min, max) = (min?, max?);
            if min > max {
                let must = format!("at least min, which is {min}");
                reader.fault(Fault::OutOfRange { key: "max".to_owned(), value: max.to_string(), must });
                return None;
            }
            Spread::Uniform { min, max }
        }
        1 => {
            let mean = time("mean", "mean = \"1 ms\"");
            Spread::Normal { mean: mean?, deviation: span(&reader, "deviation")? }
        }
        2 => {
            let sigma = reader.get("sigma");
            if sigma.is_none() {
                reader.missing("sigma", "sigma = 0.5, the standard deviation of the natural logarithm");
            }
            let sigma = sigma.and_then(|value| reader.number_of("sigma", value, 0.0, 10.0));
            Spread::Lognormal { median: span(&reader, "median")?, sigma: sigma? }
        }
        _ => Spread::Quantiles { quantiles: quantiles(&reader)? },
    };
    reader.done();
    Some(spread)
}

/// `quantiles = [[0.0, "0 ms"], [0.5, "1 ms"], [1.0, "8 ms"]]`.
fn quantiles(reader: &Reader<'_, '_>) -> Option<Vec<(f64, Seconds)>> {
    const EXPECTED: &str =
        "pairs of a share and a time, for example [[0.0, \"0 ms\"], [0.5, \"1 ms\"], [1.0, \"8 ms\"]]";
    let mut quantiles: Vec<(f64, Seconds)> = Vec::new();
    let mut good = true;
    for item in reader.list("quantiles", EXPECTED).into_iter().take(QUANTILES_MAX) {
        let pair: Vec<_> = item.get_ref().as_array().map(|pair| pair.iter().collect()).unwrap_or_default();
        let read = match pair.as_slice() {
            &[share, time] => reader.number_of("quantiles", share, 0.0, 1.0).zip(reader.quantity_of("quantiles", time)),
            _ => None,
        };
        good &= read.is_some();
        quantiles.extend(read);
    }
    let rising = quantiles.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
    let whole = quantiles.first().is_some_and(|first| first.0 == 0.0 && first.1 >= Seconds::ZERO)
        && quantiles.last().is_some_and(|last| last.0 == 1.0)
        && quantiles.len() > 1;
    if good && rising && whole {
        return Some(quantiles);
    }
    let what = "these are no quantiles: shares rise from 0.0 to 1.0 and times do not fall".to_owned();
    reader.fault(Fault::Conflict { what, remedy: format!("write {EXPECTED}") });
    None
}

fn cross_traffic(reader: &Reader<'_, '_>, traffic: &mut Vec<CrossTraffic>) {
    if !reader.has("share") {
        reader.missing("share", "share = 0.3, of the capacity");
    }
    let share = share(reader, "share");
    let on_off = match (span(reader, "on"), span(reader, "off")) {
        (Some(on), Some(off)) => Some((on, off)),
        _ if reader.has("on") == reader.has("off") => None,
        _ => {
            let what = "cross traffic that comes and goes has a mean time on and a mean time off".to_owned();
            reader.fault(Fault::Conflict { what, remedy: "give both on and off, or neither".to_owned() });
            None
        }
    };
    let places: Vec<Place> = match reader.name("group") {
        Some(group) => vec![Place::Group(group.value)],
        None => ends(reader).into_iter().flat_map(both_ways).map(Place::Link).collect(),
    };
    if let Some(share) = share {
        traffic.extend(places.into_iter().map(|place| CrossTraffic { place, share, on_off }));
    }
}

fn failure(reader: &Reader<'_, '_>) -> Option<Failure> {
    let target = match reader.name("device") {
        Some(device) => Some(Target::Device(device.value)),
        None => ends(reader).map(|(link, both)| if both { Target::Cable(link) } else { Target::Link(link) }),
    };
    let severity = match reader.get("slowed_to") {
        Some(value) => reader.number_of("slowed_to", value, 1e-6, 1.0).map(Severity::Slowed),
        None => Some(Severity::Lost),
    };
    let at: Option<Seconds> = reader.quantity("at");
    let repair_after = span(reader, "repair_after");
    let (between, repair) = (span(reader, "mean_between"), span(reader, "mean_repair"));
    let read = [
        ("at", at.is_some()),
        ("repair_after", repair_after.is_some()),
        ("mean_between", between.is_some()),
        ("mean_repair", repair.is_some()),
    ];
    if read.iter().any(|&(key, read)| reader.has(key) && !read) {
        // What is wrong with a time has been said; that it is not there would be untrue.
        return None;
    }
    let moment = match (at, between, repair) {
        (Some(at), None, None) => Some(Moment::At { at, repair_after }),
        (None, Some(mean_between), Some(mean_repair)) if repair_after.is_none() => {
            Some(Moment::Random { mean_between, mean_repair })
        }
        _ => {
            let both = reader.has("at") && (reader.has("mean_between") || reader.has("mean_repair"));
            let what = if both {
                format!("{} happens both at a stated time and by chance", reader.place)
            } else if reader.has("repair_after") && reader.has("mean_between") {
                format!("{} comes back both after a stated time and by chance", reader.place)
            } else {
                format!("{} does not say when it happens", reader.place)
            };
            let remedy = "write at = \"60 s\" and, where it comes back, repair_after = \"2 min\"; or \
                          mean_between = \"10 h\" and mean_repair = \"5 min\" for chance";
            reader.fault(Fault::Conflict { what, remedy: remedy.to_owned() });
            None
        }
    };
    Some(Failure { target: target?, severity: severity?, moment: moment? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;

    const FRAME: &str = r#"
name = "t"
question = "what happens?"
[model]
name = "m"
layers = 2
hidden = 64
feed_forward = 128
heads = 2
vocabulary = 100
context_max = 4096
quantisation = "F32"
[[devices]]
name = "a"
kind = "gpu"
memory = "1 GiB"
memory_bandwidth = "1 GB/s"
compute = "1 TFLOP/s"
[[devices]]
name = "b"
kind = "gpu"
memory = "1 GiB"
memory_bandwidth = "1 GB/s"
compute = "1 TFLOP/s"
[[links]]
between = ["a", "b"]
latency = "1 ms"
bandwidth = "1 Gbit/s"
groups = ["card"]
[[groups]]
name = "card"
bandwidth = "1 Gbit/s"
"#;

    fn parse(text: &str) -> Result<Conditions, Vec<String>> {
        let scenario = Scenario::parse(&format!("{FRAME}{text}"), &mut |_, _| Err(Vec::new()));
        scenario.map(|s| s.conditions).map_err(|faults| faults.iter().map(ToString::to_string).collect())
    }

    fn seconds(value: f64) -> Seconds {
        Seconds::of(value)
    }

    #[test]
    fn everything_that_may_be_said_is_read() {
        let text = r#"
[conditions]
sharing = "fair"
detect = "2 s"
in_flight = "fail"
attempts_max = 3
[[link_conditions]]
between = ["a", "b"]
jitter = { kind = "normal", mean = "1 ms", deviation = "300 us" }
[[link_conditions]]
from = "a"
to = "b"
jitter = { kind = "quantiles", quantiles = [[0.0, "0 ms"], [0.5, "1 ms"], [1.0, "8 ms"]] }
loss = 0.01
[[cross_traffic]]
from = "a"
to = "b"
share = 0.25
on = "2 s"
off = "6 s"
[[cross_traffic]]
group = "card"
share = 0.5
[[failures]]
device = "a"
at = "60 s"
repair_after = "2 min"
[[failures]]
between = ["a", "b"]
slowed_to = 0.5
mean_between = "10 h"
mean_repair = "5 min"
[slo]
ttft = "2 s"
tpot = "50 ms"
"#;
        let found = parse(text).expect("no fault");
        let link = |from: &str, to: &str| Between { from: from.into(), to: to.into() };
        let normal = Spread::Normal { mean: seconds(1e-3), deviation: seconds(300e-6) };
        let quantiles = vec![(0.0, seconds(0.0)), (0.5, seconds(1e-3)), (1.0, seconds(8e-3))];
        let quantiles = Spread::Quantiles { quantiles };
        let condition = |link, jitter, loss| LinkCondition { link, jitter: Some(jitter), loss };
        let expected = Conditions {
            sharing: Sharing::Fair,
            links: vec![
                condition(link("a", "b"), normal.clone(), None),
                condition(link("b", "a"), normal, None),
                condition(link("a", "b"), quantiles, Some(0.01)),
            ],
            cross_traffic: vec![
                CrossTraffic {
                    place: Place::Link(link("a", "b")),
                    share: 0.25,
                    on_off: Some((seconds(2.0), seconds(6.0))),
                },
                CrossTraffic { place: Place::Group("card".into()), share: 0.5, on_off: None },
            ],
            failures: vec![
                Failure {
                    target: Target::Device("a".into()),
                    severity: Severity::Lost,
                    moment: Moment::At { at: seconds(60.0), repair_after: Some(seconds(120.0)) },
                },
                Failure {
                    target: Target::Cable(link("a", "b")),
                    severity: Severity::Slowed(0.5),
                    moment: Moment::Random { mean_between: seconds(36_000.0), mean_repair: seconds(300.0) },
                },
            ],
            recovery: Recovery { in_flight: InFlight::Fail, detect: seconds(2.0), attempts_max: 3 },
            slo: Slo { ttft: Some(seconds(2.0)), tpot: Some(seconds(0.05)) },
            ..Conditions::default()
        };
        assert_eq!(found, expected);
        assert_eq!(parse(""), Ok(Conditions::default()));
    }

    #[test]
    fn what_makes_no_sense_is_a_fault_that_says_what_to_write() {
        for (text, words) in [
            ("[conditions]\nsharing = \"fare\"", "known choices: fair, fifo"),
            ("[[failures]]\ndevice = \"a\"", "does not say when it happens"),
            ("[[failures]]\nat = \"1 s\"", "does not say which link it concerns"),
            ("[[failures]]\ndevice = \"a\"\nat = \"1 s\"\nslowed_to = 2.0", "from 0.000001 to 1"),
            ("[[failures]]\ndevice = \"a\"\nmean_between = \"1 s\"", "does not say when it happens"),
            ("[[cross_traffic]]\ngroup = \"g\"", "lacks \"share\""),
            ("[[cross_traffic]]\ngroup = \"g\"\nshare = 1.0", "from 0 to 0.999"),
            ("[[cross_traffic]]\ngroup = \"g\"\nshare = 0.5\non = \"1 s\"", "give both on and off"),
            ("[[link_conditions]]\nfrom = \"a\"\nto = \"b\"", "lacks \"jitter\""),
            (
                "[[link_conditions]]\nfrom = \"a\"\nto = \"b\"\njitter = { kind = \"uniform\", min = \"2 ms\", max = \"1 ms\" }",
                "at least min",
            ),
            (
                "[[link_conditions]]\nfrom = \"a\"\nto = \"b\"\njitter = { kind = \"quantiles\", quantiles = [[0.1, \"1 ms\"]] }",
                "shares rise from 0.0 to 1.0",
            ),
            (
                "[[failures]]\ndevice = \"a\"\nat = \"1 s\"\nmean_between = \"1 s\"\nmean_repair = \"1 s\"",
                "happens both at",
            ),
            ("[[failures]]\ndevice = \"a\"\nat = \"-1 s\"", "give a number from 0"),
            ("[[failures]]\ndevice = \"c\"\nat = \"1 s\"", "known names: a, b"),
            ("[[failures]]\nbetween = [\"a\", \"c\"]\nat = \"1 s\"", "failures names \"c\""),
            ("[[link_conditions]]\nfrom = \"a\"\nto = \"a\"\nloss = 0.1", "or name one of a -> b"),
            ("[[cross_traffic]]\ngroup = \"cart\"\nshare = 0.5", "did you mean \"card\""),
            ("[disaggregation]\nprefill = []", "write choose = true"),
            ("[slo]\n", "lacks \"ttft\""),
            ("[slo]\nttft = \"0 s\"", "above zero"),
            ("[slo]\nttfb = \"1 s\"", "did you mean \"ttft\""),
        ] {
            let faults = parse(text).expect_err(text);
            assert!(faults.iter().any(|fault| fault.contains(words)), "{text}: {faults:?}");
        }
    }
}
