//! Flow problems as scenarios: every figure is the stated one, whatever the links look like.

use isotherm_core::import::helix_flow;
use isotherm_core::scenario::Scenario;
use std::collections::BTreeMap;

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % most
    }

    fn rate(&mut self) -> f64 {
        (1 + self.below(1 << 40)) as f64 / (1 + self.below(1 << 20)) as f64
    }
}

type Links = BTreeMap<(String, String), f64>;

/// A flow problem as JSON, and its rates and links: regions with rates of their own, some links missing, some alone in
/// what they carry.
fn instance(seed: u64) -> (String, BTreeMap<String, BTreeMap<u32, f64>>, Links) {
    let random = &mut Random(seed);
    let names: Vec<String> = (0..2 + random.below(9)).map(|i| format!("n {i}\"")).collect();
    let tables: Vec<BTreeMap<u32, f64>> =
        (0..3).map(|_| (1..=1 + random.below(6) as u32).map(|k| (k, random.rate())).collect()).collect();
    let nodes: BTreeMap<String, BTreeMap<u32, f64>> =
        names.iter().map(|name| (name.clone(), tables[random.below(3) as usize].clone())).collect();
    let levels = [random.rate(), random.rate(), random.rate()];
    let missing = [0, 0, 20, 60][random.below(4) as usize];
    let mut links = Links::new();
    let mut add = |random: &mut Random, from: &str, to: &str, region: usize| {
        if random.below(100) >= missing {
            let own = random.below(100) < 5;
            let rate = if own { random.rate() } else { levels[region] };
            links.insert((from.to_owned(), to.to_owned()), rate);
        }
    };
    for (i, from) in names.iter().enumerate() {
        add(random, "source", from, 0);
        add(random, from, "sink", i % 2);
        for (j, to) in names.iter().enumerate().filter(|(j, _)| *j != i) {
            add(random, from, to, if i % 2 == j % 2 { 1 } else { 2 });
        }
    }
    let text = serde_json::json!({ "i": {
        "layers": 12,
        "partial": seed.is_multiple_of(2),
        "nodes": nodes,
        "links": links.iter().map(|((from, to), rate)| serde_json::json!([from, to, rate])).collect::<Vec<_>>(),
    }});
    (text.to_string(), nodes, links)
}

#[test]
fn an_imported_flow_problem_has_exactly_the_stated_rates_and_links() {
    let mut compact = 0;
    for seed in 0..200 {
        let (json, nodes, links) = instance(seed);
        let closed = |end: &str| !links.keys().any(|(from, to)| from == end || to == end);
        if links.is_empty() || closed("source") || closed("sink") {
            helix_flow::scenario(&json, "i").expect_err("nothing enters, or nothing leaves");
            continue;
        }
        let imported = helix_flow::scenario(&json, "i").unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        let scenario = Scenario::parse(&imported.text, &mut |_, _| Err(Vec::new()))
            .unwrap_or_else(|e| panic!("seed {seed}: {e:?}\n{}", imported.text));
        let read: BTreeMap<String, BTreeMap<u32, f64>> = scenario
            .devices
            .devices
            .iter()
            .map(|device| (device.name.clone(), device.rates.iter().map(|(k, rate)| (*k, rate.value())).collect()))
            .collect();
        assert_eq!(read, nodes, "seed {seed}");
        assert_eq!(scenario.devices.links.len(), links.len(), "seed {seed}");
        let of = |link: &isotherm_core::graph::Link| {
            let rate = link.tokens_per_second.expect("a rate").value();
            ((link.from.clone(), link.to.clone()), rate)
        };
        assert_eq!(scenario.devices.links.iter().map(of).collect::<Links>(), links, "seed {seed}");
        assert_eq!(scenario.limits.partial, seed.is_multiple_of(2));
        compact += usize::from(imported.text.matches("[[links]]").count() * 4 < links.len());
    }
    assert!(compact > 50, "{compact}: equal links should be gathered");
}
