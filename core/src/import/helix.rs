//! Helix's clusters and profiles as a full scenario: memory, operator times, network cards, links with latency.
//!
//! A cluster is an INI file: `[ComputeNode-i]` with a `type`, `[Link-a-b]` with `bandwidth` and `latency`. A machine
//! file states memory and network cards by type. A profile is two tables of a type and a model, as CSV without
//! heading: milliseconds per layer over the tokens of a prompt, and over the sequences of a decode batch. Helix's
//! units are bytes: its `mbps` is 1e6 bytes per second, its `gbps` 1e9.

use super::Imported;
use super::write::{blocks, list, names, number, quoted};
use crate::artefact::TOOL_VERSION;
use std::collections::{BTreeMap, BTreeSet};

/// Names of models in Helix, and the model tables they are.
pub const MODELS: [(&str, &str); 2] = [("llama2_70b", "llama-2-70b-f16"), ("llama1_30b", "llama-30b-f16")];

/// Most nodes of a cluster.
const NODES_MAX: usize = 1_000;
/// Most rows of a profile.
const ROWS_MAX: usize = 10_000;
/// Longest latency, in seconds.
const LATENCY_MAX: f64 = 1e6;
/// Largest memory in bytes and greatest rate in bytes per second.
const BYTES_MAX: f64 = 1e15;
/// Place where requests come in and answers go out.
const COORDINATOR: &str = "coordinator";
/// Lengths that Helix plans for, in tokens.
const LENGTHS: (u32, u32) = (750, 240);

/// The two tables of a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Time over the tokens of a prompt.
    Prompt,
    /// Time over the sequences of a decode batch.
    Decode,
}

/// Why texts make no cluster.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ClusterError {
    /// A model without table.
    #[error("model {name:?} is unknown; known: {known}")]
    Model {
        /// The name.
        name: String,
        /// Names that would do.
        known: String,
    },
    /// A line that is neither section nor key.
    #[error("{file}, line {line}: {what}")]
    Line {
        /// Which file.
        file: String,
        /// Which line.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// Something that must be there is not.
    #[error("{file} has no {what}")]
    Missing {
        /// Which file.
        file: String,
        /// What.
        what: String,
    },
    /// A profile that must be there is not.
    #[error("there is no {phase:?} profile of {machine} for {model}")]
    NoProfile {
        /// Which table.
        phase: Phase,
        /// Machine type.
        machine: String,
        /// Model as Helix names it.
        model: String,
    },
    /// More than is supported.
    #[error("{what} is {count}; at most {max} are supported")]
    TooMany {
        /// What.
        what: String,
        /// How many.
        count: usize,
        /// How many may be.
        max: usize,
    },
}

/// The texts a cluster is made of.
pub struct Texts<'t> {
    /// The cluster file.
    pub cluster: &'t str,
    /// The machine file.
    pub machines: &'t str,
    /// The CSV of a machine type (in lower case) and phase, where there is one.
    pub profile: &'t mut dyn FnMut(&str, Phase) -> Option<String>,
    /// The model as Helix names it.
    pub model: &'t str,
    /// Name for the scenario.
    pub name: &'t str,
}

/// A value and the line it stands in.
type Value = (String, usize);

/// An INI file: sections in order, each with its keys.
struct Ini {
    file: &'static str,
    sections: Vec<(String, BTreeMap<String, Value>)>,
}

impl Ini {
    fn read(file: &'static str, text: &str) -> Result<Self, ClusterError> {
        let mut ini = Self { file, sections: Vec::new() };
        let mut seen = BTreeSet::new();
        for (i, line) in text.lines().enumerate() {
            let wrong = |what: String| ClusterError::Line { file: file.to_owned(), line: i + 1, what };
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                if !seen.insert(name.to_owned()) {
                    return Err(wrong(format!("section [{name}] occurs twice; keep one")));
                }
                ini.sections.push((name.to_owned(), BTreeMap::new()));
                continue;
            }
            let Some((key, value)) = line.split_once('=') else {
                return Err(wrong(format!("{:?} is neither [section] nor key = value", shortened(line))));
            };
            let Some((section, keys)) = ini.sections.last_mut() else {
                return Err(wrong("a key before the first [section]".to_owned()));
            };
            if keys.insert(key.trim().to_owned(), (value.trim().to_owned(), i + 1)).is_some() {
                return Err(wrong(format!("{:?} of [{section}] occurs twice; keep one", key.trim())));
            }
        }
        Ok(ini)
    }

    fn keys(&self, section: &str) -> Option<&BTreeMap<String, Value>> {
        self.sections.iter().find(|(name, _)| name == section).map(|(_, keys)| keys)
    }

    fn value<'i>(
        &self,
        section: &str,
        keys: &'i BTreeMap<String, Value>,
        key: &str,
    ) -> Result<&'i Value, ClusterError> {
        let missing = || ClusterError::Missing { file: self.file.to_owned(), what: format!("{key:?} in [{section}]") };
        keys.get(key).ok_or_else(missing)
    }

    /// A product of numbers and units, in base units: bytes, bytes per second, seconds. None where it is negative,
    /// which stands for no limit.
    fn quantity(&self, section: &str, keys: &BTreeMap<String, Value>, key: &str) -> Result<Option<f64>, ClusterError> {
        const UNITS: [(&str, f64); 10] = [
            ("kbps", 1e3),
            ("mbps", 1e6),
            ("gbps", 1e9),
            ("Byte", 1.0),
            ("KB", 1e3),
            ("MB", 1e6),
            ("GB", 1e9),
            ("Sec", 1.0),
            ("MilliSec", 1e-3),
            ("MicroSec", 1e-6),
        ];
        let (text, line) = self.value(section, keys, key)?;
        let factor = |word: &str| {
            let unit = UNITS.iter().find(|(name, _)| *name == word).map(|(_, size)| *size);
            unit.or_else(|| word.parse::<f64>().ok())
        };
        let product = text.split('*').map(|word| factor(word.trim())).try_fold(1.0, |product, f| Some(product * f?));
        let most = if key == "latency" { LATENCY_MAX } else { BYTES_MAX };
        match product.filter(|&value| value <= most) {
            Some(value) => Ok(Some(value).filter(|&value| value >= 0.0)),
            None => Err(ClusterError::Line {
                file: self.file.to_owned(),
                line: *line,
                what: format!(
                    "{key} is {:?}; it must be a number times a unit, like 10 * gbps, and at most {most:e}",
                    shortened(text)
                ),
            }),
        }
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(60).collect()
}

/// What a machine type is.
struct Machine {
    memory: f64,
    outbound: Option<f64>,
    inbound: Option<f64>,
    members: Vec<usize>,
}

/// Latency and bandwidth as bits, so that equal ones can be gathered.
type Way = (u64, u64);

/// Two places and the way between them, both directions of it.
type Ways = BTreeMap<Way, Vec<(usize, usize)>>;

/// The scenario of a cluster. Errors: the first thing that is wrong, with its place.
pub fn scenario(texts: &mut Texts<'_>) -> Result<Imported, ClusterError> {
    let Some((_, table)) = MODELS.iter().find(|(name, _)| *name == texts.model) else {
        let known = MODELS.map(|(name, _)| name).join(", ");
        return Err(ClusterError::Model { name: texts.model.to_owned(), known });
    };
    let cluster = Ini::read("the cluster file", texts.cluster)?;
    let machine_file = Ini::read("the machine file", texts.machines)?;
    let (nodes, machines) = machines(&cluster, &machine_file)?;
    let ways = ways(&cluster, &nodes)?;
    let mut notes = vec!["Helix states no time for the output head, so none is counted.".to_owned()];
    notes.push(
        "Prefill attention is part of its prompt times; the context of its decode times is not stated.".to_owned(),
    );
    let mut text = format!("# A cluster of Helix, imported by isotherm {TOOL_VERSION}.\n");
    text.extend(notes.iter().map(|note| format!("# {note}\n")));
    let question = format!("How many tokens per second can {} machines give with {table}?", nodes.len());
    text.push_str(&format!("name = {}\nquestion = {}\n", quoted(texts.name), quoted(&question)));
    text.push_str(&format!("coordinator = {}\n\n[model]\nname = {}\n", quoted(COORDINATOR), quoted(table)));
    for (machine, facts) in &machines {
        text.push_str("\n[[devices]]\n");
        text.push_str(&names("names", facts.members.iter().map(|&i| nodes[i].as_str())));
        text.push_str(&format!("class = {}\nkind = \"gpu\"\nsource = \"Helix\"\n", quoted(machine)));
        text.push_str(&format!("memory = \"{}B\"\n\n", scaled(facts.memory)));
        let mut csv = |phase| {
            let missing = || ClusterError::NoProfile { phase, machine: machine.clone(), model: texts.model.to_owned() };
            let text = (texts.profile)(&machine.to_lowercase(), phase).ok_or_else(missing)?;
            profile(&text, machine, phase)
        };
        let (prompt, decode) = (csv(Phase::Prompt)?, csv(Phase::Decode)?);
        text.push_str(&operators(table, &prompt, &decode));
    }
    text.push_str("\n# Where requests come in and answers go out. It computes nothing, and forwards nothing.\n");
    text.push_str(&format!("[[devices]]\nname = {}\nkind = \"cpu\"\n", quoted(COORDINATOR)));
    for facts in machines.values() {
        let ends = [("outbound", facts.outbound), ("inbound", facts.inbound)];
        let stated: String = ends
            .iter()
            .filter_map(|(key, rate)| rate.map(|rate| format!("{key} = \"{}B/s\"\n", scaled(rate))))
            .collect();
        if !stated.is_empty() {
            text.push_str("\n[[network_cards]]\n");
            text.push_str(&names("devices", facts.members.iter().map(|&i| nodes[i].as_str())));
            text.push_str(&stated);
        }
    }
    let name = |place: usize| nodes.get(place).map_or(COORDINATOR, String::as_str);
    for ((latency, bandwidth), pairs) in ways {
        for block in blocks(&pairs) {
            text.push_str("\n[[links]]\n");
            text.push_str(&names("from", block.from.iter().map(|&place| name(place))));
            text.push_str(&names("to", block.to.iter().map(|&place| name(place))));
            let (latency, bandwidth) = (f64::from_bits(latency), f64::from_bits(bandwidth));
            text.push_str(&format!("latency = \"{} s\"\n", number(latency)));
            text.push_str(&format!("bandwidth = \"{}B/s\"\n", scaled(bandwidth)));
        }
    }
    let (prompt, output) = LENGTHS;
    text.push_str("\n# The mean lengths that Helix plans for.\n[workload]\nclients = 32\n");
    text.push_str(&format!("prompt_tokens = {prompt}\noutput_tokens = {output}\nrequests = 128\n"));
    text.push_str("\n# A prompt passes in one step.\n[serving]\nstep_tokens_max = 1024\n");
    text.push_str("\n[objective]\nmaximise = \"throughput\"\n");
    Ok(Imported { text, notes })
}

/// A number of bytes with the largest prefix that leaves it whole, up to the unit itself.
fn scaled(bytes: f64) -> String {
    let prefixes = [(1e9, "G"), (1e6, "M"), (1e3, "k")];
    let whole = prefixes.into_iter().find(|(size, _)| bytes >= *size && bytes % size == 0.0);
    whole.map_or_else(|| format!("{} ", number(bytes)), |(size, prefix)| format!("{} {prefix}", number(bytes / size)))
}

/// The nodes by name, and the types they are of.
fn machines(cluster: &Ini, file: &Ini) -> Result<(Vec<String>, BTreeMap<String, Machine>), ClusterError> {
    let mut nodes = Vec::new();
    let mut machines: BTreeMap<String, Machine> = BTreeMap::new();
    for (section, keys) in &cluster.sections {
        let Some(name) = section.strip_prefix("ComputeNode-") else { continue };
        let (machine, line) = cluster.value(section, keys, "type")?;
        let sound = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !sound(name) || !sound(machine) || name == COORDINATOR {
            let what = format!("[{}] of type {:?} has a name that is none", shortened(section), shortened(machine));
            return Err(ClusterError::Line { file: cluster.file.to_owned(), line: *line, what });
        }
        let position = nodes.len();
        nodes.push(name.to_owned());
        if let Some(known) = machines.get_mut(machine) {
            known.members.push(position);
            continue;
        }
        let Some(facts) = file.keys(machine) else {
            return Err(ClusterError::Missing { file: file.file.to_owned(), what: format!("section [{machine}]") });
        };
        let read = |key| file.quantity(machine, facts, key);
        let Some(memory) = read("vram_size")? else {
            let what = format!("\"vram_size\" of zero or more in [{machine}]");
            return Err(ClusterError::Missing { file: file.file.to_owned(), what });
        };
        let (outbound, inbound) = (read("outbound_nic_speed")?, read("inbound_nic_speed")?);
        machines.insert(machine.clone(), Machine { memory, outbound, inbound, members: vec![position] });
    }
    if nodes.is_empty() {
        return Err(ClusterError::Missing {
            file: cluster.file.to_owned(),
            what: "section [ComputeNode-0]".to_owned(),
        });
    }
    if nodes.len() > NODES_MAX {
        let what = "the number of nodes".to_owned();
        return Err(ClusterError::TooMany { what, count: nodes.len(), max: NODES_MAX });
    }
    Ok((nodes, machines))
}

/// The ways between nodes, both directions, and between the coordinator (numbered after the nodes) and nodes.
fn ways(cluster: &Ini, nodes: &[String]) -> Result<Ways, ClusterError> {
    let position: BTreeMap<&str, usize> = nodes.iter().enumerate().map(|(i, name)| (name.as_str(), i)).collect();
    let place = |name: &str| match name {
        "source" | "sink" => Some(nodes.len()),
        name => position.get(name).copied(),
    };
    let (mut ways, mut seen) = (Ways::new(), BTreeSet::new());
    for (section, keys) in &cluster.sections {
        let Some(ends) = section.strip_prefix("Link-") else { continue };
        let line = keys.values().map(|(_, line)| *line).next().unwrap_or(0);
        let wrong = |what: String| ClusterError::Line { file: cluster.file.to_owned(), line, what };
        let Some((a, b)) = ends.split_once('-') else {
            return Err(wrong(format!("[{}] does not name two nodes", shortened(section))));
        };
        let (Some(from), Some(to)) = (place(a), place(b)) else {
            return Err(wrong(format!("[{}] names a node that is not there", shortened(section))));
        };
        let limit = |key| match cluster.quantity(section, keys, key)? {
            Some(value) => Ok(value),
            None => Err(wrong(format!("{key} of [{section}] is below zero"))),
        };
        let (latency, bandwidth) = (limit("latency")?, limit("bandwidth")?);
        if bandwidth < 1.0 || from == to {
            return Err(wrong(format!("[{section}] has a bandwidth below 1 byte per second, or one end only")));
        }
        // Requests leave the source and answers reach the sink; between nodes a link serves both directions.
        let directions: &[(usize, usize)] = match (a, b) {
            ("source", _) | (_, "sink") => &[(from, to)],
            (_, "source") | ("sink", _) => &[(to, from)],
            _ => &[(from, to), (to, from)],
        };
        for &pair in directions {
            if !seen.insert(pair) {
                return Err(wrong(format!("there are two links between {a} and {b}; keep one")));
            }
            ways.entry((latency.to_bits(), bandwidth.to_bits())).or_default().push(pair);
        }
    }
    Ok(ways)
}

/// Milliseconds per layer by count, rising in the count, without the row of nothing.
fn profile(csv: &str, machine: &str, phase: Phase) -> Result<Vec<(u32, f64)>, ClusterError> {
    let file = format!("the {phase:?} profile of {machine}");
    let mut rows: Vec<(u32, f64)> = Vec::new();
    for (i, line) in csv.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let row = line.split_once(',').and_then(|(count, time)| {
            let (count, time) = (count.trim().parse::<u32>().ok()?, time.trim().parse::<f64>().ok()?);
            (0.0..=1e9).contains(&time).then_some((count, time))
        });
        let wrong = |what: String| ClusterError::Line { file: file.clone(), line: i + 1, what };
        let Some((count, time)) = row else {
            let must = "a count, a comma and milliseconds of zero or more";
            return Err(wrong(format!("{:?} is not {must}", shortened(line))));
        };
        if rows.last().is_some_and(|(before, _)| *before >= count) {
            return Err(wrong(format!("the count {count} does not rise")));
        }
        if rows.len() >= ROWS_MAX {
            return Err(ClusterError::TooMany {
                what: format!("the rows of {file}"),
                count: rows.len(),
                max: ROWS_MAX,
            });
        }
        if count > 0 {
            rows.push((count, time));
        }
    }
    if rows.is_empty() { Err(ClusterError::Missing { file, what: "rows".to_owned() }) } else { Ok(rows) }
}

/// Between knots linear; before the first and after the last as the nearest segment has it.
fn at(rows: &[(u32, f64)], count: u32) -> f64 {
    let [first, .., last] = rows else { return rows.first().map_or(0.0, |row| row.1) };
    let next = rows.partition_point(|(knot, _)| *knot < count).clamp(1, rows.len() - 1);
    let (from, to) = match rows.get(next - 1..=next) {
        Some([from, to]) => (from, to),
        _ => (first, last),
    };
    from.1 + (to.1 - from.1) * (f64::from(count) - f64::from(from.0)) / (f64::from(to.0) - f64::from(from.0))
}

/// The profile section: prompt times as dense times, and what a decode batch takes beyond them.
///
/// Prompt tables begin at hundreds of tokens. Below, a straight line leads down to the time of the smallest decode
/// batch for one token.
fn operators(table: &str, prompt: &[(u32, f64)], decode: &[(u32, f64)]) -> String {
    let mut dense = prompt.to_vec();
    if dense.first().is_none_or(|(first, _)| *first > 1) {
        dense.insert(0, (1, decode.first().map_or(0.0, |row| row.1)));
    }
    let last = decode.last().map_or(1, |row| row.0);
    let mut knots: BTreeSet<u32> = decode.iter().map(|row| row.0).collect();
    // Where a segment of the dense times ends, one of the difference ends too.
    knots.extend(dense.iter().map(|row| row.0).filter(|&knot| knot <= last));
    let decode_time = |n: u32| if n <= decode[0].0 { decode[0].1 } else { at(decode, n) };
    let beyond = |n: u32| (decode_time(n) - at(&dense, n)).max(0.0);
    let mut text = format!("[[devices.profiles]]\nmodel = {}\narithmetic = \"f16\"\n", quoted(table));
    text.push_str("source = \"Helix, measured ms per layer over prompt tokens and decode batch\"\n");
    let pairs = dense.iter().map(|(count, ms)| format!("[{count}, {}]", number(*ms)));
    text.push_str(&list("dense_ms", &pairs.collect::<Vec<_>>()));
    text.push_str("\n[devices.profiles.attention_decode_ms]\n# What a decode batch takes beyond dense_ms.\n");
    text.push_str(&list("sequences", &knots.iter().map(u32::to_string).collect::<Vec<_>>()));
    text.push_str("context = [0]\n");
    // Six digits of a millisecond: the difference of two stated times has no more.
    let rounded = |ms: f64| number((ms * 1e6).round() / 1e6);
    let rows = knots.iter().map(|&n| format!("[{}]", rounded(beyond(n))));
    text.push_str(&list("ms", &rows.collect::<Vec<_>>()));
    text
}
