//! Who made a device, from what the scenario says of it: engines name devices by their maker's interface.

use isotherm_core::device::{Device, DeviceKind};
use std::collections::BTreeSet;

/// Whose hardware a device is, as far as an engine cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Maker {
    Nvidia,
    Amd,
    Apple,
    Intel,
    /// Chips of phones, whoever made them.
    Phone,
    /// The scenario does not say.
    Unknown,
}

/// Words that name a maker or what only one makes.
const WORDS: [(Maker, &[&str]); 5] = [
    (
        Maker::Nvidia,
        &[
            "nvidia", "geforce", "rtx", "gtx", "quadro", "tesla", "titan", "jetson", "orin", "xavier", "tegra", "dgx",
            "hgx", "cuda",
        ],
    ),
    (Maker::Amd, &["amd", "radeon", "rx", "instinct", "ryzen", "epyc", "threadripper", "rocm"]),
    (Maker::Apple, &["apple", "mac", "macs", "macbook", "imac", "metal"]),
    (Maker::Intel, &["intel", "arc", "xeon", "gaudi"]),
    (
        Maker::Phone,
        &["phone", "phones", "iphone", "android", "qualcomm", "snapdragon", "adreno", "exynos", "dimensity", "mali"],
    ),
];

/// Numbers of NVIDIA's cards for servers, which people write without its name.
const SERVER_CARDS: [&str; 24] = [
    "a2", "a10", "a10g", "a16", "a30", "a40", "a100", "a800", "a6000", "h20", "h100", "h200", "h800", "b100", "b200",
    "k80", "l4", "l40", "l40s", "p4", "p40", "p100", "t4", "v100",
];

/// Of its backend, its class, its name and the sources of its figures, the first that says it.
pub(super) fn maker(device: &Device) -> Maker {
    let by_backend = match device.backend.as_str() {
        "cuda" => Some(Maker::Nvidia),
        "hip" | "rocm" => Some(Maker::Amd),
        "metal" => Some(Maker::Apple),
        _ => None,
    };
    let told = |text: &str| words(text).find_map(|word| named(&word, device.kind));
    let found = by_backend.or_else(|| told(&device.class)).or_else(|| told(&device.name));
    found.or_else(|| by_sources(device)).unwrap_or(Maker::Unknown)
}

/// The maker that the sources of its figures name; none where they name two, for one may be there to compare with.
fn by_sources(device: &Device) -> Option<Maker> {
    let sources = [
        device.memory_bytes.as_ref().and_then(|figure| figure.source.as_deref()),
        device.memory_bandwidth_bytes_per_second.as_ref().and_then(|figure| figure.source.as_deref()),
        device.compute_flops_per_second.as_ref().and_then(|figure| figure.source.as_deref()),
        device.busy_watts.as_ref().and_then(|figure| figure.source.as_deref()),
    ];
    let told = sources.into_iter().flatten().flat_map(words).filter_map(|word| named(&word, device.kind));
    let makers: BTreeSet<Maker> = told.collect();
    makers.first().copied().filter(|_| makers.len() == 1)
}

fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_ascii_lowercase)
}

fn named(word: &str, kind: DeviceKind) -> Option<Maker> {
    let numbered = |prefix: &str, digits: usize| {
        word.strip_prefix(prefix).is_some_and(|rest| rest.chars().take_while(char::is_ascii_digit).count() >= digits)
    };
    match kind {
        DeviceKind::Gpu if SERVER_CARDS.contains(&word) => return Some(Maker::Nvidia),
        DeviceKind::Gpu if numbered("mi", 2) => return Some(Maker::Amd),
        DeviceKind::Unified if matches!(word, "m1" | "m2" | "m3" | "m4" | "m5") => return Some(Maker::Apple),
        _ => {}
    }
    WORDS.iter().find(|(_, words)| words.contains(&word)).map(|(maker, _)| *maker)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builtin;
    use isotherm_core::scenario::Kind;

    fn of_class(class: &str, kind: DeviceKind) -> Maker {
        maker(&Device { class: class.to_owned(), ..Device::named("one", "desk", kind) })
    }

    #[test]
    fn unified_memory_is_not_taken_for_one_maker() {
        for (class, expected) in [
            ("jetson-agx-orin-64gb", Maker::Nvidia),
            ("jetson-orin-nano-8gb", Maker::Nvidia),
            ("ryzen-ai-max-395", Maker::Amd),
            ("apple-m2-max", Maker::Apple),
            ("m4-pro", Maker::Apple),
            ("board", Maker::Unknown),
        ] {
            assert_eq!(of_class(class, DeviceKind::Unified), expected, "{class}");
        }
    }

    #[test]
    fn every_card_of_the_tables_has_a_maker() {
        for (name, text) in builtin::of(Kind::Device) {
            if text.contains("kind = \"gpu\"") {
                assert_ne!(of_class(name, DeviceKind::Gpu), Maker::Unknown, "{name}");
            }
        }
        assert_eq!(of_class("amd-mi300x", DeviceKind::Gpu), Maker::Amd);
        assert_eq!(of_class("rx-7900-xtx", DeviceKind::Gpu), Maker::Amd);
        assert_eq!(of_class("NVIDIA H100 80GB HBM3 Vulkan", DeviceKind::Gpu), Maker::Nvidia);
    }

    #[test]
    fn a_backend_says_more_than_a_class() {
        let device = Device { backend: "cuda".to_owned(), ..Device::named("radeon", "desk", DeviceKind::Gpu) };
        assert_eq!(maker(&device), Maker::Nvidia);
    }
}
