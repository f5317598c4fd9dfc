//! Helix's flow problems: rates by number of layers and capacities of links, as JSON.
//!
//! ```text
//! { instance: { "layers": L, "partial": bool,
//!               "nodes": { node: { "k": tokens per second while holding k layers } },
//!               "links": [[from, to, tokens per second]] } }
//! ```
//!
//! A number of layers that is missing is not allowed. The place `source` enters layer 0, the place `sink` leaves
//! layer L.

use super::Imported;
use super::data::Data;
use super::write::{Block, blocks, list, names, number, quoted};
use crate::artefact::TOOL_VERSION;
use crate::objective::{SINK, SOURCE};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

/// Most layers.
const LAYERS_MAX: f64 = 10_000.0;
/// Most nodes.
const NODES_MAX: usize = 1_000;
/// Most links.
const LINKS_MAX: usize = 1_000_000;
/// Longest name of a node, in characters.
const NAME_MAX: usize = 100;
/// Greatest rate, in tokens per second.
const RATE_MAX: f64 = 1e15;

/// Why a text is no flow problem.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum FlowError {
    /// No JSON.
    #[error("is no JSON: {0} (NaN and infinities are no numbers of JSON)")]
    Json(String),
    /// The instance is not there.
    #[error("holds no instance {name:?}; it holds: {known}")]
    NoInstance {
        /// The name.
        name: String,
        /// Names that are there.
        known: String,
    },
    /// Something occurs twice.
    #[error("{place} occurs twice; keep one")]
    Duplicate {
        /// What and where.
        place: String,
    },
    /// Something is missing.
    #[error("{place} has no {key:?}")]
    Missing {
        /// Where.
        place: String,
        /// What.
        key: &'static str,
    },
    /// Something is of another type.
    #[error("{place} is {found}; it must be {must}")]
    Type {
        /// Where.
        place: String,
        /// What is there.
        found: &'static str,
        /// What must be.
        must: &'static str,
    },
    /// Something is outside of what it may be.
    #[error("{place} is {value}; it must be {must}")]
    OutOfRange {
        /// Where.
        place: String,
        /// The value.
        value: String,
        /// What must be.
        must: String,
    },
    /// A link names a node that is not there.
    #[error("{place} names {name:?}, which is no node; nodes: {known}")]
    UnknownNode {
        /// Which link.
        place: String,
        /// The name.
        name: String,
        /// Nodes that are there.
        known: String,
    },
}

/// Rates by number of layers.
type Rates = BTreeMap<u32, f64>;

/// A flow problem as it was read.
struct Flow {
    layers: u32,
    partial: bool,
    nodes: Vec<(String, Rates)>,
    /// Links by position: nodes, then source, then sink.
    links: BTreeMap<(usize, usize), f64>,
    useless: usize,
}

/// The scenario of one instance. Errors: the first thing that is wrong, with its place.
pub fn scenario(json: &str, instance: &str) -> Result<Imported, FlowError> {
    let file: Data = serde_json::from_str(json).map_err(|e| FlowError::Json(e.to_string()))?;
    let Some(instances) = file.entries() else {
        let place = "the file".to_owned();
        return Err(FlowError::Type { place, found: file.kind(), must: "an object of instances" });
    };
    let mut found = instances.iter().filter(|(name, _)| name == instance);
    let Some((_, data)) = found.next() else {
        let known = listed(instances.iter().map(|(name, _)| name.as_str()));
        return Err(FlowError::NoInstance { name: instance.to_owned(), known });
    };
    if found.next().is_some() {
        return Err(FlowError::Duplicate { place: format!("instance {instance:?}") });
    }
    let flow = read(data, instance)?;
    let mut notes = Vec::new();
    if flow.useless > 0 {
        let count = flow.useless;
        notes.push(format!("{count} links of no capacity, into the source or out of the sink, are left out."));
    }
    Ok(Imported { text: write(&flow, instance, &notes), notes })
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    let more = if names.len() > 20 { format!(" and {} more", names.len() - 20) } else { String::new() };
    names.into_iter().take(20).collect::<Vec<_>>().join(", ") + &more
}

fn entry<'d>(data: &'d Data, key: &'static str, place: &str) -> Result<&'d Data, FlowError> {
    let Some(entries) = data.entries() else {
        return Err(FlowError::Type { place: place.to_owned(), found: data.kind(), must: "an object" });
    };
    if entries.iter().filter(|(known, _)| known == key).count() > 1 {
        return Err(FlowError::Duplicate { place: format!("{key:?} of {place}") });
    }
    data.get(key).ok_or_else(|| FlowError::Missing { place: place.to_owned(), key })
}

fn out_of_range(place: String, value: impl Display, must: impl Into<String>) -> FlowError {
    FlowError::OutOfRange { place, value: format!("{value}"), must: must.into() }
}

/// A rate of zero or more.
fn rate(data: &Data, place: impl Fn() -> String) -> Result<f64, FlowError> {
    let Data::Number(value) = *data else {
        return Err(FlowError::Type { place: place(), found: data.kind(), must: "a number of tokens per second" });
    };
    if !(0.0..=RATE_MAX).contains(&value) {
        return Err(out_of_range(place(), value, format!("from 0 to {RATE_MAX:e} tokens per second")));
    }
    Ok(value)
}

fn read(data: &Data, instance: &str) -> Result<Flow, FlowError> {
    let place = format!("instance {instance:?}");
    let layers = match entry(data, "layers", &place)? {
        Data::Number(n) if (1.0..=LAYERS_MAX).contains(n) && n.fract() == 0.0 => *n as u32,
        Data::Number(n) => {
            let must = format!("a whole number from 1 to {LAYERS_MAX}");
            return Err(out_of_range(format!("\"layers\" of {place}"), n, must));
        }
        other => {
            let place = format!("\"layers\" of {place}");
            return Err(FlowError::Type { place, found: other.kind(), must: "a whole number" });
        }
    };
    let partial = match entry(data, "partial", &place) {
        Ok(Data::Boolean(partial)) => *partial,
        Ok(other) => {
            let place = format!("\"partial\" of {place}");
            return Err(FlowError::Type { place, found: other.kind(), must: "true or false" });
        }
        // Helix's own default.
        Err(FlowError::Missing { .. }) => false,
        Err(error) => return Err(error),
    };
    let nodes = nodes(entry(data, "nodes", &place)?, layers, &place)?;
    let (links, useless) = links(entry(data, "links", &place)?, &nodes, &place)?;
    Ok(Flow { layers, partial, nodes, links, useless })
}

fn nodes(data: &Data, layers: u32, place: &str) -> Result<Vec<(String, Rates)>, FlowError> {
    let Some(entries) = data.entries() else {
        let place = format!("\"nodes\" of {place}");
        return Err(FlowError::Type { place, found: data.kind(), must: "an object of nodes" });
    };
    if entries.is_empty() || entries.len() > NODES_MAX {
        let must = format!("from 1 to {NODES_MAX}");
        return Err(out_of_range(format!("the number of nodes of {place}"), entries.len(), must));
    }
    let mut seen = BTreeSet::new();
    let mut nodes = Vec::new();
    for (name, table) in entries {
        let place = format!("node {name:?} of {place}");
        let blank = name.trim().is_empty() || name.chars().any(char::is_control) || name.chars().count() > NAME_MAX;
        if blank || name == SOURCE || name == SINK {
            let must = format!("a name of at most {NAME_MAX} letters that is neither {SOURCE:?} nor {SINK:?}");
            return Err(out_of_range("the name of a node".to_owned(), format!("{name:?}"), must));
        }
        if !seen.insert(name) {
            return Err(FlowError::Duplicate { place });
        }
        let Some(rows) = table.entries() else {
            return Err(FlowError::Type { place, found: table.kind(), must: "an object of rates by number of layers" });
        };
        let mut rates = Rates::new();
        let mut held = BTreeSet::new();
        for (key, value) in rows {
            let place = || format!("the rate of {place} for {key:?} layers");
            let Some(count) = key.parse::<u32>().ok().filter(|&k| k >= 1 && f64::from(k) <= LAYERS_MAX) else {
                let must = format!("a whole number from 1 to {LAYERS_MAX}");
                return Err(out_of_range(format!("a number of layers of node {name:?}"), format!("{key:?}"), must));
            };
            let rate = rate(value, place)?;
            if !held.insert(count) {
                return Err(FlowError::Duplicate { place: place() });
            }
            // Who carries nothing, or would hold more than there is, is of no use; leaving the row out forbids it.
            if rate > 0.0 && count <= layers {
                rates.insert(count, rate);
            }
        }
        nodes.push((name.clone(), rates));
    }
    Ok(nodes)
}

type Links = BTreeMap<(usize, usize), f64>;

fn links(data: &Data, nodes: &[(String, Rates)], place: &str) -> Result<(Links, usize), FlowError> {
    let Data::List(items) = data else {
        let place = format!("\"links\" of {place}");
        return Err(FlowError::Type { place, found: data.kind(), must: "a list of [from, to, tokens per second]" });
    };
    if items.len() > LINKS_MAX {
        return Err(out_of_range(
            format!("the number of links of {place}"),
            items.len(),
            format!("at most {LINKS_MAX}"),
        ));
    }
    let (source, sink) = (nodes.len(), nodes.len() + 1);
    let mut position: BTreeMap<&str, usize> = nodes.iter().enumerate().map(|(i, (n, _))| (n.as_str(), i)).collect();
    position.extend([(SOURCE, source), (SINK, sink)]);
    let (mut links, mut seen, mut useless) = (BTreeMap::new(), BTreeSet::new(), 0);
    for (i, item) in items.iter().enumerate() {
        let place = || format!("link number {} of {place}", i + 1);
        let triple = match item {
            Data::List(triple) => triple.as_slice(),
            _ => &[],
        };
        let [from, to, capacity] = triple else {
            let must = "a list of three: from, to, tokens per second";
            return Err(FlowError::Type { place: place(), found: item.kind(), must });
        };
        let end = |data: &Data| match data {
            Data::Text(name) => position.get(name.as_str()).copied().ok_or_else(|| FlowError::UnknownNode {
                place: place(),
                name: name.chars().take(NAME_MAX).collect(),
                known: listed(nodes.iter().map(|(name, _)| name.as_str())),
            }),
            other => Err(FlowError::Type { place: place(), found: other.kind(), must: "between two names in quotes" }),
        };
        let (from, to) = (end(from)?, end(to)?);
        let rate = rate(capacity, || format!("the capacity of {}", place()))?;
        if from == to || (from, to) == (source, sink) {
            let must = "between two different nodes, or a node and the source or the sink";
            return Err(out_of_range(place(), "from a place to itself or from the source to the sink", must));
        }
        if !seen.insert((from, to)) {
            let name = |i: usize| nodes.get(i).map_or(if i == source { SOURCE } else { SINK }, |(name, _)| name);
            return Err(FlowError::Duplicate { place: format!("the link from {:?} to {:?}", name(from), name(to)) });
        }
        if rate == 0.0 || to == source || from == sink {
            useless += 1;
        } else {
            links.insert((from, to), rate);
        }
    }
    let carries = [
        ("that carry anything".to_owned(), !links.is_empty()),
        (format!("from {SOURCE:?} that carry anything"), links.keys().any(|&(from, _)| from == source)),
        (format!("to {SINK:?} that carry anything"), links.keys().any(|&(_, to)| to == sink)),
    ];
    if let Some((which, _)) = carries.iter().find(|(_, some)| !some) {
        return Err(out_of_range(format!("the number of links of {place} {which}"), 0, "at least 1"));
    }
    Ok((links, useless))
}

fn write(flow: &Flow, instance: &str, notes: &[String]) -> String {
    let classes = classes(&flow.nodes);
    let (devices, kinds) = (flow.nodes.len(), classes.len());
    let mut text = format!("# A flow problem of Helix, imported by isotherm {TOOL_VERSION}: rates by number of layers");
    text.push_str(
        "\n# and capacities of links in tokens per second, exactly as stated. It knows no bytes and no times.\n",
    );
    text.extend(notes.iter().map(|note| format!("# {note}\n")));
    let question =
        format!("What is the greatest flow through {devices} devices of {kinds} kinds and {} layers?", flow.layers);
    text.push_str(&format!("name = {}\nquestion = {}\n", quoted(instance), quoted(&question)));
    let (ways, flow_section) = ways(flow);
    if ways.iter().any(|(_, block)| block.from.iter().chain(&block.to).any(|&place| place >= devices)) {
        text.push_str(&names("junctions", [SOURCE, SINK]));
    }
    text.push_str(&format!("\n[model]\nname = {}\nlayers = {}\n", quoted(instance), flow.layers));
    for (i, (members, rates)) in classes.iter().enumerate() {
        text.push_str("\n[[devices]]\n");
        text.push_str(&names("names", members.iter().copied()));
        text.push_str(&format!("class = \"class-{}\"\nkind = \"gpu\"\n", i + 1));
        text.push_str(&format!("source = {}\n", quoted(&format!("Helix, instance {instance}"))));
        let rows = rates.iter().map(|(k, rate)| format!("[{k}, \"{} tok/s\"]", number(*rate)));
        text.push_str(&list("rates", &rows.collect::<Vec<_>>()));
    }
    text.push_str(&format!("\n[flow]\n{flow_section}"));
    let name =
        |place: usize| flow.nodes.get(place).map_or(if place == devices { SOURCE } else { SINK }, |(name, _)| name);
    for (rate, block) in ways {
        text.push_str("\n[[links]]\n");
        text.push_str(&names("from", block.from.iter().map(|&place| name(place))));
        text.push_str(&names("to", block.to.iter().map(|&place| name(place))));
        text.push_str(&format!("tokens_per_second = \"{} tok/s\"\n", number(rate)));
    }
    text.push_str("\n# Prompt and decode tokens are one flow, so the lengths say nothing.\n");
    text.push_str("[workload]\nclients = 1\nprompt_tokens = 1\noutput_tokens = 1\n");
    text.push_str("\n[objective]\nmaximise = \"throughput\"\n");
    if flow.partial {
        text.push_str("\n[limits]\npartial = true\n");
    }
    text
}

/// Nodes of equal rates, in order of the first of each.
fn classes(nodes: &[(String, Rates)]) -> Vec<(Vec<&str>, &Rates)> {
    let mut classes: Vec<(Vec<&str>, &Rates)> = Vec::new();
    for (name, rates) in nodes {
        match classes.iter_mut().find(|(_, known)| *known == rates) {
            Some((members, _)) => members.push(name),
            None => classes.push((vec![name], rates)),
        }
    }
    classes
}

/// The links: those that `[flow]` can say for all devices at once as its lines, the others as blocks of one rate.
fn ways(flow: &Flow) -> (Vec<(f64, Block)>, String) {
    let devices = flow.nodes.len();
    let (source, sink) = (devices, devices + 1);
    let mut section = String::new();
    let mut left: Links = flow.links.clone();
    let mut uniform = |key: &str, all: usize, of_kind: &dyn Fn((usize, usize)) -> bool| {
        let mut rates = flow.links.iter().filter(|(pair, _)| of_kind(**pair)).map(|(_, rate)| *rate);
        let Some(first) = rates.next() else { return };
        let mut count = 1;
        if rates.inspect(|_| count += 1).all(|rate| rate == first) && count == all {
            section.push_str(&format!("{key} = \"{} tok/s\"\n", number(first)));
            left.retain(|pair, _| !of_kind(*pair));
        }
    };
    uniform("source", devices, &|(from, _)| from == source);
    uniform("between_devices", devices * (devices - 1), &|(from, to)| from < devices && to < devices);
    uniform("sink", devices, &|(_, to)| to == sink);
    let mut by_rate: BTreeMap<u64, Vec<(usize, usize)>> = BTreeMap::new();
    for (pair, rate) in left {
        // Positive floats are in the order of their bits.
        by_rate.entry(rate.to_bits()).or_default().push(pair);
    }
    let blocks = by_rate
        .into_iter()
        .rev()
        .flat_map(|(bits, pairs)| blocks(&pairs).into_iter().map(move |block| (f64::from_bits(bits), block)))
        .collect();
    (blocks, section)
}
