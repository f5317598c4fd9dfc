//! The self-test of one way to one device: the conformance suite, a whole model against the reference, times of single
//! operations. What it finds goes into a receipt.

use super::bench;
use super::conformance::Suite;
use super::contract::Platform;
use super::cuda::kernels::Module;
use super::decoder::Decoder;
use super::device::Device;
use super::error::DeviceError;
use super::routes::{Found, Route};
use super::{Arithmetic, Hardware, wgpu};
use crate::cpu::reference;
use crate::discover::Card;
use crate::model::Geometry;
use crate::model::format::BlockFormat;
use crate::model::gguf::Gguf;
use isotherm_core::digest::Digest;
use isotherm_core::receipt::{Agreement, CardIdentity, Conformance, Here, Operation, RouteIdentity};

/// Tokens that the device and the reference are given.
const TOKENS: usize = 16;

/// Largest distance of two logits, as a share of the largest one. A decoder of 30 layers has some 300 operations one
/// behind another, each within 2.6e-5 of its largest number for sums of 576 in single precision; errors of random sign
/// add up to the root of their count, 17 times as much: 4.5e-4. Twice that, rounded. A wrong kernel is off by whole logits.
const LOGITS_SHARE: f64 = 1e-3;

/// What to test, and how thoroughly.
#[derive(Clone, Copy)]
pub struct SelfTest<'a> {
    /// Who opens the device.
    pub platform: &'a dyn Platform,
    /// Its number there.
    pub index: usize,
    /// Whether the suite visits all shapes, as it has to for a receipt.
    pub thorough: bool,
    /// Chooses all numbers of the suite.
    pub seed: u64,
}

impl SelfTest<'_> {
    fn open(&self) -> Result<Device, DeviceError> {
        Device::open(self.platform, self.index)
    }

    /// Runs the conformance suite; gives its report too, for people.
    #[must_use]
    pub fn conformance(&self) -> (Conformance, String) {
        let open = |index: usize| Device::open(self.platform, index);
        let report = Suite { open: &open, devices: &[self.index], thorough: self.thorough, seed: self.seed }.run();
        let skipped = |check: &super::conformance::Check| Some(format!("{}: {}", check.claim, check.skipped.as_ref()?));
        let found = Conformance {
            cases: report.cases(),
            failed: report.failed(),
            skipped: report.checks.iter().filter_map(skipped).collect(),
            failures: report.checks.iter().flat_map(|check| check.failures.iter().cloned()).collect(),
        };
        (found, report.to_string())
    }

    /// What stands for a model that did not run: no position was compared.
    #[must_use]
    pub fn no_agreement(model: &str, synthesised: bool) -> Agreement {
        Agreement {
            model: model.to_owned(),
            synthesised,
            positions: 0,
            equal_top_tokens: 0,
            logit_distance_max: 0.0,
            logit_max: 0.0,
            tolerance: LOGITS_SHARE,
        }
    }

    /// Gives a model the same tokens as the reference, half of them in one batch, half one by one. Also gives how many
    /// kernels that took.
    ///
    /// # Errors
    /// What the device says.
    pub fn agreement(
        &self,
        model: &str,
        synthesised: bool,
        gguf: &Gguf,
        geometry: &Geometry,
    ) -> Result<(Agreement, u64), DeviceError> {
        let vocabulary = geometry.vocabulary.max(1) as u32;
        let tokens: Vec<u32> = (0..TOKENS as u32).map(|i| (300 + i * 411) % vocabulary).collect();
        let cuts = vec![(0..geometry.layers, self.open()?)];
        let mut decoder = Decoder::load(gguf, cuts, Arithmetic::F32, TOKENS, TOKENS)?;
        let (together, alone) = tokens.split_at(TOKENS / 2);
        let mut given = decoder.pass(together)?;
        for token in alone {
            given.extend(decoder.pass(&[*token])?);
        }
        let wanted = reference::logits::<f32>(gguf, geometry, &tokens, 0);
        let largest = |row: &[f32]| (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best });
        let pairs = || wanted.iter().zip(&given);
        let each = || pairs().flat_map(|(wanted, given)| wanted.iter().zip(given));
        // `max` would pass over what is no number.
        let most = |all: f64, one: f64| if one > all || one.is_nan() { one } else { all };
        // No number is no number in a file either: what is none counts as the greatest difference.
        let distance = each().map(|(wanted, given)| f64::from((wanted - given).abs())).fold(0.0, most);
        let distance = if distance.is_finite() { distance } else { f64::MAX };
        let largest_logit = each().map(|(wanted, _)| f64::from(wanted.abs())).fold(0.0, most);
        let agreement = Agreement {
            model: model.to_owned(),
            synthesised,
            positions: given.len(),
            equal_top_tokens: pairs().filter(|(wanted, given)| largest(wanted) == largest(given)).count(),
            logit_distance_max: distance,
            logit_max: if largest_logit.is_finite() { largest_logit } else { 0.0 },
            tolerance: LOGITS_SHARE,
        };
        Ok((agreement, decoder.counters().iter().map(|counters| counters.dispatches).sum()))
    }

    /// Times single operations; gives also how many kernels that took.
    ///
    /// # Errors
    /// What the device says.
    pub fn times(
        &self,
        size: u32,
        formats: &[BlockFormat],
        samples: usize,
    ) -> Result<(Vec<Operation>, u64), DeviceError> {
        let mut device = self.open()?;
        let timed = bench::measure(&mut device, size, formats, samples)?;
        let operation = |timed: bench::Timed| Operation {
            what: timed.what,
            bytes: timed.bytes,
            seconds: timed.seconds,
            samples: timed.samples,
        };
        Ok((timed.into_iter().map(operation).collect(), device.counters().dispatches))
    }
}

/// What makes launches of operations, and lays weights out for the kernels.
const LAUNCHERS: [&str; 4] = [
    include_str!("cuda/plan.rs"),
    include_str!("cuda/planes.rs"),
    include_str!("cuda/kernels.rs"),
    include_str!("cuda/driver.rs"),
];

/// Digest of the source of a backend's kernels, and of what starts them; `None` for a backend without any of its own.
#[must_use]
pub fn kernels_digest(backend: &str) -> Option<Digest> {
    let sources: Vec<String> = match backend {
        // What starts the kernels is as much of their result as they are.
        "cuda" => Module::all().into_iter().map(Module::source).chain(LAUNCHERS.map(str::to_owned)).collect(),
        "wgpu" => wgpu::SOURCES.iter().map(|&source| source.to_owned()).collect(),
        _ => return None,
    };
    // With their lengths, so that no text can move from one source to the next unseen.
    let parts: Vec<String> = sources.iter().map(|source| format!("{}\n{source}", source.len())).collect();
    Some(Digest::of(parts.concat().as_bytes()))
}

/// A card and a way to it as they are now; `None` for what has no kernels of its own. What one interface does not tell
/// of the card, another one may; `cards` are what the kernel tells of.
#[must_use]
pub fn here(found: &Found, route: &Route, cards: &[Card]) -> Option<Here> {
    let info = &route.info;
    let any = |of: fn(&Route) -> Option<String>| of(route).or_else(|| found.routes.iter().find_map(of));
    let pci = any(|route| route.info.pci.clone());
    let place = pci.as_deref().and_then(super::routes::pci);
    let known = cards.iter().find(|card| place.is_some() && card.pci.as_deref().and_then(super::routes::pci) == place);
    let kernel_driver = known.and_then(|card| {
        let driver = card.driver.as_ref()?;
        Some(card.driver_version.as_ref().map_or_else(|| driver.clone(), |version| format!("{driver} {version}")))
    });
    Some(Here {
        card: CardIdentity {
            name: info.name.clone(),
            hardware: info.hardware.name().to_owned(),
            uuid: any(|route| route.info.uuid.clone()),
            pci,
            memory_bytes: info
                .memory_bytes
                .or_else(|| found.routes.iter().find_map(|route| route.info.memory_bytes))
                .or_else(|| known?.memory_bytes.map(|bytes| bytes.0)),
        },
        route: RouteIdentity {
            backend: info.backend.to_owned(),
            interface: info.interface.clone(),
            driver: info.driver.clone(),
            kernel_driver,
            kernels: kernels_digest(info.backend)?,
        },
        accelerator: info.hardware.is_accelerator(),
        built_in: info.hardware == Hardware::Integrated,
    })
}

#[cfg(test)]
mod tests {
    use super::super::scalar::ScalarPlatform;
    use super::*;
    use crate::model::synth::{self, SynthSpec, SynthTokenizer};

    #[test]
    fn the_reference_device_passes_its_self_test_and_an_altered_one_does_not() {
        let geometry = Geometry { layers: 2, ..synth::named("tiny").expect("a listed name") };
        let (format, tokenizer) = (BlockFormat::Q8_0, SynthTokenizer::Small);
        let spec = SynthSpec { geometry: &geometry, format, embedding: format, seed: 1, tokenizer };
        let gguf = Gguf::from_bytes(synth::bytes(&spec).expect("sound")).expect("sound");
        let platform = ScalarPlatform { devices: 1, memory_bytes: 1 << 28 };
        let test = SelfTest { platform: &platform, index: 0, thorough: false, seed: 1 };
        let (agreement, _) = test.agreement("tiny", true, &gguf, &geometry).expect("it runs");
        assert!(agreement.holds() && agreement.positions == TOKENS, "{agreement:?}");
        let (times, _) = test.times(256, &[format], 1).expect("it runs");
        assert_eq!(times.len(), 6, "two copies, a launch, a sum and two products");

        struct Wrong(ScalarPlatform);
        impl Platform for Wrong {
            fn name(&self) -> &'static str {
                "wrong"
            }
            fn devices(&self) -> Result<Vec<super::super::DeviceInfo>, DeviceError> {
                self.0.devices()
            }
            fn open(&self, index: usize) -> Result<Box<dyn super::super::Backend>, DeviceError> {
                let alter = |op: &super::super::Op| match op {
                    super::super::Op::Gate { gate, up, count } => {
                        super::super::Op::Gate { gate: *gate, up: *up, count: count / 2 }
                    }
                    super::super::Op::Gated { input, rows, gate, up: _, out, arithmetic } => super::super::Op::Gated {
                        input: *input,
                        rows: *rows,
                        gate: *gate,
                        up: *gate,
                        out: *out,
                        arithmetic: *arithmetic,
                    },
                    other => other.clone(),
                };
                Ok(super::super::altering(self.0.open(index)?, Box::new(alter)))
            }
        }
        let wrong = SelfTest { platform: &Wrong(platform), ..test };
        let (agreement, _) = wrong.agreement("tiny", true, &gguf, &geometry).expect("it runs");
        assert!(!agreement.holds(), "{agreement:?}");
        let (conformance, report) = wrong.conformance();
        assert!(conformance.failed > 0 && !conformance.failures.is_empty(), "{report}");
    }

    #[test]
    fn each_backend_has_kernels_of_its_own_and_what_has_none_gets_no_digest() {
        let digests: Vec<Digest> = ["cuda", "wgpu"].map(|name| kernels_digest(name).expect("it has kernels")).to_vec();
        assert_ne!(digests[0], digests[1]);
        for name in ["cpu", "scalar", "host-emulated"] {
            assert_eq!(kernels_digest(name), None, "{name}");
        }
    }
}
