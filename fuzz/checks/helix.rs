//! Any text as a flow problem or a cluster of Helix: an error in words, or a scenario that is read without a fault.

use isotherm_core::import::helix::{Phase, Texts};
use isotherm_core::import::{Imported, helix, helix_flow};
use isotherm_core::scenario::{Kind, Scenario};

/// A model table, for whatever model an imported scenario names.
const MODEL: &str = "layers = 4\nhidden = 64\nfeed_forward = 128\nheads = 4\nvocabulary = 256\ncontext_max = 4096\n\
quantisation = \"F16\"\n";

/// Panics where the promise above is broken.
pub fn check(text: &str) {
    // With zero bytes in it: cluster, machines, prompt profile, decode profile.
    let parts: Vec<&str> = text.split('\0').collect();
    let imported = if let [cluster, machines, prompt, decode] = parts[..] {
        let mut profile = |_: &str, phase| Some(if phase == Phase::Prompt { prompt } else { decode }.to_owned());
        let mut texts = Texts { cluster, machines, profile: &mut profile, model: "llama2_70b", name: "fuzz" };
        helix::scenario(&mut texts).map_err(|error| error.to_string())
    } else {
        helix_flow::scenario(text, "a").map_err(|error| error.to_string())
    };
    match imported {
        Err(words) => assert!(!words.is_empty()),
        Ok(imported) => read(&imported),
    }
}

fn read(imported: &Imported) {
    let mut lookup = |kind, _: &str| match kind {
        Kind::Model => Ok(MODEL.to_owned()),
        Kind::Device => Err(Vec::new()),
    };
    let scenario = Scenario::parse(&imported.text, &mut lookup);
    assert!(scenario.is_ok(), "{:?}\n{}", scenario.err(), imported.text);
}
