//! Any text as the files of a profile and a run: errors in words, or operators whose passes have a finite time and a
//! scenario that is read without a fault.

use isotherm_core::cost::Span;
use isotherm_core::import::llmservingsim::{
    Assembly, Catalogue, DeviceFacts, ProfileMeta, ProfileTexts, config_link, engine, measured, other_prediction,
    prompt_names, read_link, scenario, workload,
};
use isotherm_core::model::{ExpertShape, PublicModel};
use isotherm_core::scenario::Scenario;
use isotherm_core::units::Bytes;

/// Panics where the promise above is broken.
pub fn check(text: &str) {
    let words = |error: &dyn std::fmt::Display| assert!(!error.to_string().is_empty());
    // With zero bytes in it: meta.yaml, dense, per_sequence, attention, moe, skew_fit.
    let parts: Vec<&str> = text.split('\0').collect();
    let [meta, dense, per_sequence, attention, moe, skew_fit] = parts[..] else {
        run(text);
        return;
    };
    let some = |text| if str::is_empty(text) { None } else { Some(text) };
    let texts = ProfileTexts {
        dense: Some(dense),
        per_sequence: Some(per_sequence),
        attention: Some(attention),
        moe: some(moe),
        skew_fit: some(skew_fit),
    };
    let catalogue = match Catalogue::read(ProfileMeta::read(meta, 1), texts, ProfileTexts::default()) {
        Ok(catalogue) => catalogue,
        Err(error) => return words(&error),
    };
    let model = PublicModel {
        name: "fuzz".to_owned(),
        layers: 3,
        hidden: 8,
        feed_forward: 16,
        heads: 2,
        kv_heads: 1,
        head_size: 4,
        vocabulary: 32,
        experts: Some(ExpertShape { count: 8, per_token: 2, layers: 2 }),
    };
    match catalogue.assemble(&model, &Assembly { padded: vec![1, 8], ..Assembly::default() }) {
        Ok(profile) => {
            let decode = |cached| Span { cached, tokens: 1, yields: true };
            let chunk = |tokens, cached| Span { cached, tokens, yields: false };
            for spans in [
                vec![],
                vec![decode(0)],
                vec![decode(7), decode(900), chunk(300, 0), chunk(20, 5000)],
                vec![chunk(2048, 100_000)],
            ] {
                assert!(profile.pass(&spans).value() >= 0.0);
            }
        }
        Err(error) => words(&error),
    }
    match scenario(&catalogue, &model, DeviceFacts { memory: Bytes(1 << 30), count: 1 }) {
        Ok(imported) => {
            let mut none = |_, _: &str| Err(Vec::new());
            let read = Scenario::parse(&imported.text, &mut none);
            assert!(read.is_ok(), "{:?}\n{}", read.err(), imported.text);
        }
        Err(error) => words(&error),
    }
}

/// One text as each of the files of a run.
fn run(text: &str) {
    let _ = (engine(text).is_ok(), config_link(text), read_link(text), ProfileMeta::read(text, 2));
    let _ = (measured(text).is_ok(), other_prediction(text).is_ok(), PublicModel::from_config("fuzz", text).is_ok());
    if let Ok(requests) = workload(text) {
        let names = prompt_names(&requests, 16);
        assert!(requests.iter().zip(&names).all(|(request, names)| names.len() <= request.prompt.len() / 16));
    }
}
