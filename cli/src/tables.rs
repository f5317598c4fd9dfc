//! The tables that the program brings along: the models and devices of `scenarios/`, as they were when it was built.

use isotherm_core::scenario::Kind;

macro_rules! tables {
    ($folder:literal, [$($name:literal),* $(,)?]) => {
        &[$(($name, include_str!(concat!("../../scenarios/", $folder, "/", $name, ".toml")))),*]
    };
}

/// Model tables: name and text.
pub const MODELS: &[(&str, &str)] = tables!(
    "models",
    [
        "llama-1b-synthetic-q4_0",
        "llama-2-70b-f16",
        "llama-3.1-70b-q4_0",
        "llama-3.1-8b-f16",
        "llama-3.1-8b-q4_0",
        "llama-3.1-8b-q8_0",
        "llama-30b-f16",
        "smollm2-135m-instruct-q4_1",
    ]
);

/// Device tables: name and text.
pub const DEVICES: &[(&str, &str)] = tables!(
    "devices",
    [
        "apple-m2-max",
        "cpu-2core",
        "laptop-ryzen-7840u",
        "nvidia-a100-40gb",
        "nvidia-l4",
        "nvidia-t4",
        "phone-snapdragon-8-gen-2",
        "phone-snapdragon-8-gen-3",
        "rtx-3060",
        "rtx-4090",
    ]
);

/// The tables of a kind.
pub const fn of(kind: Kind) -> &'static [(&'static str, &'static str)] {
    match kind {
        Kind::Model => MODELS,
        Kind::Device => DEVICES,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    #[test]
    fn every_table_of_the_checkout_is_brought_along() {
        for (folder, kind) in [("models", Kind::Model), ("devices", Kind::Device)] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios").join(folder);
            let entries = std::fs::read_dir(&folder).expect("the checkout has its scenarios");
            let there: BTreeSet<String> = entries
                .map(|entry| entry.expect("listed").path().file_stem().expect("a name").to_string_lossy().into_owned())
                .collect();
            let brought: BTreeSet<String> = of(kind).iter().map(|(name, _)| (*name).to_owned()).collect();
            assert_eq!(there, brought);
        }
    }
}
