//! The tables of `scenarios/models` and `scenarios/devices`, so that a scenario that names one plans anywhere.

use isotherm_core::scenario::Kind;

const MODELS: &[(&str, &str)] = &[
    ("llama-1b-synthetic-q4_0", include_str!("../../scenarios/models/llama-1b-synthetic-q4_0.toml")),
    ("llama-2-70b-f16", include_str!("../../scenarios/models/llama-2-70b-f16.toml")),
    ("llama-3.1-70b-q4_0", include_str!("../../scenarios/models/llama-3.1-70b-q4_0.toml")),
    ("llama-3.1-8b-f16", include_str!("../../scenarios/models/llama-3.1-8b-f16.toml")),
    ("llama-3.1-8b-q4_0", include_str!("../../scenarios/models/llama-3.1-8b-q4_0.toml")),
    ("llama-3.1-8b-q8_0", include_str!("../../scenarios/models/llama-3.1-8b-q8_0.toml")),
    ("llama-3.2-3b-q4_0", include_str!("../../scenarios/models/llama-3.2-3b-q4_0.toml")),
    ("llama-30b-f16", include_str!("../../scenarios/models/llama-30b-f16.toml")),
    ("mistral-7b-f16", include_str!("../../scenarios/models/mistral-7b-f16.toml")),
    ("mistral-7b-q4_0", include_str!("../../scenarios/models/mistral-7b-q4_0.toml")),
    ("mixtral-8x7b-q8_0", include_str!("../../scenarios/models/mixtral-8x7b-q8_0.toml")),
    ("qwen2.5-1.5b-q4_0", include_str!("../../scenarios/models/qwen2.5-1.5b-q4_0.toml")),
    ("qwen2.5-32b-q4_0", include_str!("../../scenarios/models/qwen2.5-32b-q4_0.toml")),
    ("qwen2.5-72b-q4_0", include_str!("../../scenarios/models/qwen2.5-72b-q4_0.toml")),
    ("qwen2.5-7b-q8_0", include_str!("../../scenarios/models/qwen2.5-7b-q8_0.toml")),
    ("smollm2-135m-instruct-q4_1", include_str!("../../scenarios/models/smollm2-135m-instruct-q4_1.toml")),
];

const DEVICES: &[(&str, &str)] = &[
    ("amd-mi210", include_str!("../../scenarios/devices/amd-mi210.toml")),
    ("amd-mi300x", include_str!("../../scenarios/devices/amd-mi300x.toml")),
    ("apple-m1-max", include_str!("../../scenarios/devices/apple-m1-max.toml")),
    ("apple-m2-max", include_str!("../../scenarios/devices/apple-m2-max.toml")),
    ("apple-m2-ultra", include_str!("../../scenarios/devices/apple-m2-ultra.toml")),
    ("apple-m4-pro", include_str!("../../scenarios/devices/apple-m4-pro.toml")),
    ("cpu-2core", include_str!("../../scenarios/devices/cpu-2core.toml")),
    ("dgx-h100-tp8", include_str!("../../scenarios/devices/dgx-h100-tp8.toml")),
    ("epyc-9654", include_str!("../../scenarios/devices/epyc-9654.toml")),
    ("jetson-agx-orin-64gb", include_str!("../../scenarios/devices/jetson-agx-orin-64gb.toml")),
    ("jetson-orin-nano-8gb", include_str!("../../scenarios/devices/jetson-orin-nano-8gb.toml")),
    ("laptop-ryzen-7840u", include_str!("../../scenarios/devices/laptop-ryzen-7840u.toml")),
    ("nvidia-a10", include_str!("../../scenarios/devices/nvidia-a10.toml")),
    ("nvidia-a100-40gb", include_str!("../../scenarios/devices/nvidia-a100-40gb.toml")),
    ("nvidia-a100-80gb", include_str!("../../scenarios/devices/nvidia-a100-80gb.toml")),
    ("nvidia-h100-pcie", include_str!("../../scenarios/devices/nvidia-h100-pcie.toml")),
    ("nvidia-h100-sxm", include_str!("../../scenarios/devices/nvidia-h100-sxm.toml")),
    ("nvidia-h200", include_str!("../../scenarios/devices/nvidia-h200.toml")),
    ("nvidia-l4", include_str!("../../scenarios/devices/nvidia-l4.toml")),
    ("nvidia-l40s", include_str!("../../scenarios/devices/nvidia-l40s.toml")),
    ("nvidia-p40", include_str!("../../scenarios/devices/nvidia-p40.toml")),
    ("nvidia-t4", include_str!("../../scenarios/devices/nvidia-t4.toml")),
    ("nvidia-v100-16gb", include_str!("../../scenarios/devices/nvidia-v100-16gb.toml")),
    ("phone-snapdragon-8-gen-2", include_str!("../../scenarios/devices/phone-snapdragon-8-gen-2.toml")),
    ("phone-snapdragon-8-gen-3", include_str!("../../scenarios/devices/phone-snapdragon-8-gen-3.toml")),
    ("raspberry-pi-5-8gb", include_str!("../../scenarios/devices/raspberry-pi-5-8gb.toml")),
    ("rtx-3060", include_str!("../../scenarios/devices/rtx-3060.toml")),
    ("rtx-3090", include_str!("../../scenarios/devices/rtx-3090.toml")),
    ("rtx-4060-ti-16gb", include_str!("../../scenarios/devices/rtx-4060-ti-16gb.toml")),
    ("rtx-4070-ti", include_str!("../../scenarios/devices/rtx-4070-ti.toml")),
    ("rtx-4080", include_str!("../../scenarios/devices/rtx-4080.toml")),
    ("rtx-4090", include_str!("../../scenarios/devices/rtx-4090.toml")),
    ("rtx-5090", include_str!("../../scenarios/devices/rtx-5090.toml")),
    ("rtx-6000-ada", include_str!("../../scenarios/devices/rtx-6000-ada.toml")),
    ("rx-7900-xtx", include_str!("../../scenarios/devices/rx-7900-xtx.toml")),
    ("ryzen-ai-max-395", include_str!("../../scenarios/devices/ryzen-ai-max-395.toml")),
    ("xeon-8480", include_str!("../../scenarios/devices/xeon-8480.toml")),
];

/// The tables of a kind: name and text, in order of name.
pub fn of(kind: Kind) -> &'static [(&'static str, &'static str)] {
    match kind {
        Kind::Model => MODELS,
        Kind::Device => DEVICES,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_of_the_checkout_is_built_in() {
        for (kind, folder) in [(Kind::Model, "models"), (Kind::Device, "devices")] {
            let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios").join(folder);
            let entries = std::fs::read_dir(folder).expect("tables are tracked");
            let mut files: Vec<String> = entries
                .map(|entry| entry.expect("an entry").path())
                .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
                .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
                .collect();
            files.sort();
            let names: Vec<&str> = of(kind).iter().map(|(name, _)| *name).collect();
            assert_eq!(names, files, "add the table to cli/src/builtin.rs");
        }
    }
}
