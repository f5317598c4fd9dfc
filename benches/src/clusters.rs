//! Made-up clusters of many kinds of devices, the same for the same seed: what planners are measured on.
//!
//! A device is known by a table of rates, as somebody measures it: `k * T(k)` falls by about half from one layer to the
//! most that fit, is not monotone, and has a step where a larger batch fits again. Links state tokens per second for each
//! pair, or bytes per second with network cards and trunks that several pairs share.

use isotherm_core::artefact::Header;
use isotherm_core::device::{Device, DeviceKind};
use isotherm_core::figure::Figure;
use isotherm_core::graph::{DEVICES_SCHEMA, DeviceGraph, DevicesFile, Link, LinkKind, SharedCapacity};
use isotherm_core::model::Model;
use isotherm_core::objective::{SINK, SOURCE};
use isotherm_core::problem::{Limits, Objective, PlacementProblem, ProblemParts};
use isotherm_core::units::{Bytes, BytesPerSecond, Celsius, FlopsPerSecond, Seconds, TokensPerSecond};
use isotherm_core::workload::{Arrivals, Length, Serving, Workload};
use std::collections::BTreeMap;

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers everywhere.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The stream of a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0xD134_2543_DE82_EF95).wrapping_add(0x9E37))
    }

    /// The next 64 bits.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A whole number of `low..=high`.
    pub const fn whole(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    /// A number of `low..high`.
    pub fn real(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number of `low..high`, each ratio as likely as any other.
    pub fn ratio(&mut self, low: f64, high: f64) -> f64 {
        low * (high / low).powf(self.real(0.0, 1.0))
    }
}

/// How devices of a cluster are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Every pair has a way of its own, stated in tokens per second: fast within a site, slow between sites.
    Pairs,
    /// The same, but that so many pairs of a hundred have none.
    Sparse(u64),
    /// Hosts of several devices share network cards, sites are joined by trunks; all in bytes per second.
    Shared,
}

/// How devices of a cluster are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figures {
    /// By a table of rates.
    Rates,
    /// By memory, bandwidth and arithmetic, as on a data sheet.
    Sheet,
}

/// What a cluster is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipe {
    /// Name of the set.
    pub name: &'static str,
    /// Number of devices.
    pub devices: usize,
    /// Most classes of devices.
    pub classes: usize,
    /// Number of sites.
    pub sites: usize,
    /// Layers of the model.
    pub layers: usize,
    /// The links.
    pub network: Network,
    /// The devices.
    pub figures: Figures,
    /// Whether a request may enter a stage in the middle.
    pub partial: bool,
}

const fn recipe(name: &'static str, devices: usize, classes: usize, sites: usize) -> Recipe {
    let (network, figures) = (Network::Pairs, Figures::Rates);
    Recipe { name, devices, classes, sites, layers: 80, network, figures, partial: false }
}

/// The sets that planning is measured on.
pub const SETS: [Recipe; 15] = [
    recipe("mesh100", 100, 10, 1),
    recipe("mesh24", 24, 4, 1),
    recipe("mesh42", 42, 7, 1),
    recipe("mesh50", 50, 7, 1),
    Recipe { layers: 60, ..recipe("mesh40-60", 40, 5, 1) },
    recipe("regions24", 24, 4, 3),
    recipe("scale100", 100, 10, 3),
    recipe("scale200", 200, 20, 5),
    recipe("scale400", 400, 30, 5),
    Recipe { network: Network::Shared, ..recipe("shared24", 24, 4, 3) },
    Recipe { network: Network::Shared, ..recipe("shared48", 48, 6, 2) },
    Recipe { network: Network::Shared, figures: Figures::Sheet, ..recipe("sheet32", 32, 5, 2) },
    Recipe { partial: true, ..recipe("partial24", 24, 4, 3) },
    Recipe { network: Network::Sparse(50), ..recipe("sparse24", 24, 4, 3) },
    Recipe { network: Network::Sparse(60), ..recipe("sparse42", 42, 7, 1) },
];

/// Rates of a device by number of layers, from 1: about `speed / k`, falling short of it by `loss` at most, with noise,
/// and sometimes with a step where a larger batch fits again.
fn rates(random: &mut Random, layers_max: usize, speed: f64) -> Vec<(u32, TokensPerSecond)> {
    let (loss, bend) = (random.real(0.3, 0.6), random.real(0.7, 1.6));
    let step =
        if random.whole(1, 100) <= 30 { random.whole(layers_max as u64 / 2, layers_max as u64) } else { u64::MAX };
    let rise = random.real(1.05, 1.3);
    let mut table = Vec::new();
    for k in 1..=layers_max {
        let full = k as f64 / layers_max as f64;
        let noise = random.real(0.96, 1.04);
        let again = if k as u64 >= step { rise } else { 1.0 };
        let rate = speed / k as f64 * (1.0 - loss * full.powf(bend)) * noise * again;
        table.push((u32::try_from(k).unwrap_or(u32::MAX), TokensPerSecond::of(rate)));
    }
    table
}

/// A class of devices: what one of them is, but for its name.
fn class(random: &mut Random, recipe: &Recipe, index: usize) -> Device {
    let name = format!("class-{index:02}");
    let mut device = Device { class: name.clone(), ..Device::named(name, "", DeviceKind::Gpu) };
    match recipe.figures {
        Figures::Rates => {
            // From a card of a tenth of the model upwards; every third class is small.
            let most = (recipe.layers / 2) as u64;
            let layers = if index.is_multiple_of(3) { random.whole(4, 8) } else { random.whole(7, most) };
            let speed = random.ratio(4_000.0, 30_000.0);
            device.rates = rates(random, layers as usize, speed);
        }
        Figures::Sheet => {
            let gibibytes = [16.0, 24.0, 40.0, 48.0, 80.0][random.whole(0, 4) as usize];
            let bandwidth = random.ratio(3e11, 2e12);
            let compute = random.ratio(6e13, 4e14);
            let source = "made up";
            device.memory_bytes = Some(Figure::declared(Bytes((gibibytes * 1_073_741_824.0) as u64), source));
            device.memory_bandwidth_bytes_per_second = Some(Figure::declared(BytesPerSecond::of(bandwidth), source));
            device.compute_flops_per_second = Some(Figure::declared(FlopsPerSecond::of(compute), source));
        }
    }
    device
}

/// A LLaMA-2-70B-like model, in 16-bit weights, of so many layers.
fn model(layers: usize) -> Model {
    let wide = 8192_u64;
    let weights = 2 * wide * wide + 2 * wide * 1024 + 3 * wide * 28_672;
    Model {
        name: format!("dense-{layers}"),
        architecture: "llama".into(),
        hidden: 8192,
        feed_forward: 28_672,
        heads: 64,
        kv_heads: 8,
        head_size: 128,
        vocabulary: 32_000,
        context_max: 4096,
        quantisation: "F16".into(),
        layer_bytes: vec![Bytes(2 * weights); layers],
        embedding_bytes: Bytes(2 * 32_000 * wide),
        head_bytes: Bytes(2 * 32_000 * wide),
        tied: false,
        kv_element_bytes: 2,
        digest: None,
    }
}

fn stated(from: &str, to: &str, rate: f64) -> Link {
    Link {
        from: from.to_owned(),
        to: to.to_owned(),
        kind: LinkKind::Declared,
        latency_seconds: None,
        bandwidth_bytes_per_second: None,
        tokens_per_second: Some(TokensPerSecond::of(rate)),
        groups: Vec::new(),
    }
}

fn wire(from: &str, to: &str, latency: f64, bandwidth: f64, groups: &[&str]) -> Link {
    Link {
        kind: LinkKind::Socket,
        latency_seconds: Some(Figure::declared(Seconds::of(latency), "made up")),
        bandwidth_bytes_per_second: Some(Figure::declared(BytesPerSecond::of(bandwidth), "made up")),
        tokens_per_second: None,
        groups: groups.iter().map(|&group| group.to_owned()).collect(),
        ..stated(from, to, 0.0)
    }
}

/// Tokens per second on a way within a site: 10 Gbit/s for rows of 8192 numbers of 16 bits, as published instances
/// read that speed.
const NEAR: f64 = 61_035.156_25;

/// Ways between all pairs, and to and from the source and the sink.
fn pairs(random: &mut Random, devices: &[Device]) -> Vec<Link> {
    let mut slow: BTreeMap<(String, String), f64> = BTreeMap::new();
    let site = |device: &Device| device.site.clone().unwrap_or_default();
    let mut links = Vec::new();
    for device in devices {
        links.push(stated(SOURCE, &device.name, 5e8));
        links.push(stated(&device.name, SINK, 5e8));
        for other in devices.iter().filter(|other| other.name != device.name) {
            let (a, b) = (site(device), site(other));
            let rate = if a == b {
                NEAR
            } else {
                let pair = if a < b { (a, b) } else { (b, a) };
                *slow.entry(pair).or_insert_with(|| random.ratio(300.0, 6_000.0))
            };
            links.push(stated(&device.name, &other.name, rate));
        }
    }
    links
}

/// Hosts of up to four devices behind a network card, a switch for each site, a trunk for each pair of sites.
fn shared(random: &mut Random, devices: &mut [Device]) -> (Vec<String>, Vec<Link>, Vec<SharedCapacity>) {
    let (mut junctions, mut links, mut groups) = (Vec::new(), Vec::new(), Vec::new());
    let mut group = |name: String, bandwidth: f64| {
        let bandwidth_bytes_per_second = Figure::declared(BytesPerSecond::of(bandwidth), "made up");
        groups.push(SharedCapacity { name, bandwidth_bytes_per_second });
    };
    let mut sites: Vec<String> = Vec::new();
    let mut left: BTreeMap<String, (usize, String)> = BTreeMap::new();
    for device in devices.iter_mut() {
        let site = device.site.clone().unwrap_or_default();
        if !sites.contains(&site) {
            sites.push(site.clone());
            junctions.push(format!("switch-{site}"));
        }
        let host = match left.get_mut(&site).filter(|(left, _)| *left > 0) {
            Some((left, host)) => {
                *left -= 1;
                host.clone()
            }
            None => {
                let host = format!("host-{:03}", junctions.len());
                let card = if random.whole(1, 100) <= 50 { 1.25e9 } else { 3.125e9 };
                for way in ["out", "in"] {
                    group(format!("{host}-{way}"), card);
                }
                let switch = format!("switch-{site}");
                links.push(wire(&host, &switch, 2e-5, 12.5e9, &[&format!("{host}-out")]));
                links.push(wire(&switch, &host, 2e-5, 12.5e9, &[&format!("{host}-in")]));
                junctions.push(host.clone());
                left.insert(site.clone(), (random.whole(0, 3) as usize, host.clone()));
                host
            }
        };
        links.push(wire(&device.name, &host, 5e-6, 12e9, &[]));
        links.push(wire(&host, &device.name, 5e-6, 12e9, &[]));
        device.host = host;
    }
    for (i, a) in sites.iter().enumerate() {
        for b in &sites[i + 1..] {
            let (trunk, bandwidth) = (format!("trunk-{a}-{b}"), random.ratio(1e7, 2e8));
            group(trunk.clone(), bandwidth);
            let (a, b) = (format!("switch-{a}"), format!("switch-{b}"));
            links.push(wire(&a, &b, 1e-2, 1.25e9, &[&trunk]));
            links.push(wire(&b, &a, 1e-2, 1.25e9, &[&trunk]));
        }
    }
    (junctions, links, groups)
}

/// The cluster of a recipe and a seed, as a problem of highest throughput.
///
/// # Panics
/// Never: what is made up is well formed.
#[must_use]
pub fn cluster(recipe: &Recipe, seed: u64) -> PlacementProblem {
    let random = &mut Random::new(seed);
    let count = if recipe.classes > 3 { random.whole(recipe.classes as u64 * 2 / 3, recipe.classes as u64) } else { 3 };
    let classes: Vec<Device> = (0..count as usize).map(|index| class(random, recipe, index)).collect();
    let mut devices: Vec<Device> = (0..recipe.devices)
        .map(|i| {
            // One of every class, then whichever; classes gather at sites, as they are bought.
            let class = if i < classes.len() { i } else { random.whole(0, classes.len() as u64 - 1) as usize };
            let elsewhere = random.whole(1, 100) <= 35;
            let site = if elsewhere { random.whole(0, recipe.sites as u64 - 1) as usize } else { class % recipe.sites };
            let name = format!("d{i:03}");
            Device { name, site: Some(format!("site-{site}")), host: format!("h{i:03}"), ..classes[class].clone() }
        })
        .collect();
    let (junctions, links, groups) = match recipe.network {
        Network::Pairs => (vec![SOURCE.to_owned(), SINK.to_owned()], pairs(random, &devices), Vec::new()),
        Network::Sparse(missing) => {
            let mut links = pairs(random, &devices);
            links.retain(|link| link.from == SOURCE || link.to == SINK || random.whole(1, 100) > missing);
            (vec![SOURCE.to_owned(), SINK.to_owned()], links, Vec::new())
        }
        Network::Shared => shared(random, &mut devices),
    };
    let file = DevicesFile {
        header: Header::new(DEVICES_SCHEMA, Vec::new()),
        host: BTreeMap::new(),
        devices,
        junctions,
        links,
        groups,
        co_run: Vec::new(),
        coordinator: None,
    };
    // Rates of a table count each token once, so that a row crosses a boundary once for each.
    let (prompt, output) = match recipe.figures {
        Figures::Rates => (1, 1),
        Figures::Sheet => (512, 256),
    };
    PlacementProblem::new(ProblemParts {
        name: format!("{}-{seed}", recipe.name),
        model: model(recipe.layers),
        graph: DeviceGraph::new(file).expect("a well-formed graph"),
        workload: Workload {
            arrivals: Arrivals::ClosedLoop { clients: 8 },
            prompt_tokens: Length::fixed(prompt),
            output_tokens: Length::fixed(output),
            requests: 100,
        },
        serving: Serving { requests_max: 8, step_tokens_max: 512, kv_block_tokens: 16, ..Serving::default() },
        objective: Objective::Throughput,
        limits: Limits { partial: recipe.partial, ..Limits::default() },
        ambient: Celsius::of(25.0),
        inputs: Vec::new(),
    })
    .expect("a well-formed problem")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_one_cluster_and_another_seed_another() {
        for recipe in SETS.iter().filter(|recipe| recipe.devices <= 50) {
            let file = |seed| cluster(recipe, seed).graph.file().clone();
            assert_eq!(file(3), file(3), "{}", recipe.name);
            assert_ne!(file(3), file(4), "{}", recipe.name);
        }
    }

    #[test]
    fn a_cluster_has_the_devices_and_at_most_the_classes_and_sites_of_its_recipe() {
        for recipe in &SETS {
            let problem = cluster(recipe, 1);
            let devices = problem.graph.devices();
            let distinct = |of: &dyn Fn(&Device) -> String| {
                devices.iter().map(of).collect::<std::collections::BTreeSet<_>>().len()
            };
            assert_eq!(devices.len(), recipe.devices, "{}", recipe.name);
            assert!(distinct(&|d| d.class.clone()) <= recipe.classes, "{}", recipe.name);
            assert!(distinct(&|d| d.site.clone().unwrap_or_default()) <= recipe.sites, "{}", recipe.name);
        }
    }
}
