//! Receipts: what a card was checked with, by which driver and which kernels, and whether that speaks of the card here.
//!
//! A receipt is made by the self-test of a device on that very device and signed by the host that ran it. Whoever reads
//! one compares it with what is here now; whatever is different makes it worth nothing, and says why.

use crate::artefact::Header;
use crate::device::Support;
use crate::digest::Digest;
use serde::{Deserialize, Serialize};

/// Kind and version of receipts.
pub const RECEIPT_SCHEMA: &str = "isotherm.receipt/v1";

/// Largest file that is read as a receipt, in bytes. One of them has a few thousand.
pub const RECEIPT_BYTES_MAX: usize = 1 << 20;

/// A self-test of one way to one card, as it is signed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// Kind, version and the program that wrote it.
    #[serde(flatten)]
    pub header: Header,
    /// Name of the host that ran it.
    pub host: String,
    /// When it ended, in UTC (RFC 3339).
    pub when: String,
    /// The card.
    pub card: CardIdentity,
    /// The way to it.
    pub route: RouteIdentity,
    /// The conformance suite.
    pub conformance: Conformance,
    /// A whole model against the reference.
    pub model: Agreement,
    /// Times of single operations.
    pub operations: Vec<Operation>,
    /// Kernels that the card executed for the model and the times. Those of the suite come on top and are not counted.
    pub kernels_executed: u64,
}

/// What tells a card from every other one. Unknown is absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CardIdentity {
    /// Name by its driver. Two cards of one kind share it.
    pub name: String,
    /// What kind of hardware, in words.
    pub hardware: String,
    /// Identifier that its maker gave it, the same on every host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// PCI address, which means something on one host only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pci: Option<String>,
    /// Memory, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
}

/// What a result depends on beside the card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteIdentity {
    /// Backend: `cuda`, `wgpu`.
    pub backend: String,
    /// Interface, with its version where it has one: `Vulkan`, `CUDA driver 13.0`.
    pub interface: String,
    /// Driver, as the interface tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// The kernel's driver of the card and its version, where the kernel tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_driver: Option<String>,
    /// Digest of the source of the backend's kernels.
    pub kernels: Digest,
}

/// What the conformance suite found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conformance {
    /// Cases tried.
    pub cases: u32,
    /// Cases that failed.
    pub failed: u32,
    /// Claims that were not tried, each with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<String>,
    /// What the first few failures were.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<String>,
}

/// A whole model on the card against the scalar reference, the same tokens given to both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agreement {
    /// Name of the model, or of the shape it was made from.
    pub model: String,
    /// Whether its weights were drawn at random on the spot, because no real model could be had.
    pub synthesised: bool,
    /// Positions compared.
    pub positions: usize,
    /// Positions at which both have the same most likely token.
    pub equal_top_tokens: usize,
    /// Largest distance of two logits.
    pub logit_distance_max: f64,
    /// Largest logit of the reference, by magnitude.
    pub logit_max: f64,
    /// Largest distance allowed, as a share of `logit_max`.
    pub tolerance: f64,
}

impl Agreement {
    /// Whether all logits are within the tolerance. Then tokens differ only where the reference itself is undecided.
    #[must_use]
    pub fn holds(&self) -> bool {
        // A distance that is no number is not within anything.
        self.positions > 0 && self.logit_distance_max <= self.tolerance * self.logit_max
    }
}

/// One operation, timed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// Which, on what.
    pub what: String,
    /// Bytes that it must read and write.
    pub bytes: u64,
    /// Median seconds.
    pub seconds: f64,
    /// Samples.
    pub samples: usize,
}

/// A card and a way to it, as they are now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Here {
    /// The card.
    pub card: CardIdentity,
    /// The way to it.
    pub route: RouteIdentity,
    /// Whether its operations run on something other than this host's processor.
    pub accelerator: bool,
    /// Whether it is a part of this host that cannot be taken out.
    pub built_in: bool,
}

/// An address without its function, which interfaces write differently, in lower case.
fn slot(address: &str) -> String {
    address.split('.').next().unwrap_or_default().to_lowercase()
}

impl Receipt {
    /// Whether it is about this card. `own` says that this very host signed it: addresses mean nothing elsewhere.
    ///
    /// Identifiers decide where both are known. Without them the address decides, together with the name, and for what
    /// is built in and has no address the name alone.
    #[must_use]
    pub fn is_of(&self, here: &Here, own: bool) -> bool {
        let (then, now) = (&self.card, &here.card);
        if let (Some(then), Some(now)) = (&then.uuid, &now.uuid) {
            return then.eq_ignore_ascii_case(now);
        }
        if !own || then.name != now.name {
            return false;
        }
        match (&then.pci, &now.pci) {
            (Some(then), Some(now)) => slot(then) == slot(now),
            (None, None) => here.built_in,
            _ => false,
        }
    }

    /// What is different now from when it was made; empty where nothing is. To be asked of a receipt [of this card](Self::is_of).
    #[must_use]
    pub fn contradicted_by(&self, here: &Here) -> Vec<String> {
        let (then, now) = (&self.route, &here.route);
        let mut reasons = Vec::new();
        if !here.accelerator {
            reasons.push(format!("what computes here is no card: {}", here.card.hardware));
        }
        if then.backend != now.backend {
            reasons.push(format!("it was made through {}, this is {}", then.backend, now.backend));
            return reasons;
        }
        let unknown = || "unknown".to_owned();
        let mut compare = |what: &str, then: &Option<String>, now: &Option<String>| {
            if then != now {
                let (then, now) = (then.clone().unwrap_or_else(unknown), now.clone().unwrap_or_else(unknown));
                reasons.push(format!("the {what} was {then}, is {now}"));
            }
        };
        compare("interface", &Some(then.interface.clone()), &Some(now.interface.clone()));
        compare("driver", &then.driver, &now.driver);
        compare("kernel's driver", &then.kernel_driver, &now.kernel_driver);
        if then.kernels != now.kernels {
            reasons.push(format!("the kernels were {}, are {}", then.kernels.short(), now.kernels.short()));
        }
        reasons
    }

    /// What of the self-test did not hold; empty where all of it did.
    #[must_use]
    pub fn shortcomings(&self) -> Vec<String> {
        let Conformance { cases, failed, .. } = self.conformance;
        let mut short = Vec::new();
        if failed > 0 || cases == 0 {
            short.push(format!("{failed} of {cases} cases of the conformance suite failed"));
        }
        if !self.model.holds() {
            let Agreement { model, logit_distance_max, tolerance, logit_max, .. } = &self.model;
            short.push(format!(
                "logits of {model} are {logit_distance_max:.1e} apart, {:.1e} is allowed",
                tolerance * logit_max
            ));
        }
        if self.operations.is_empty() {
            short.push("no operation was timed".to_owned());
        }
        if self.kernels_executed == 0 {
            short.push("the card executed no kernel".to_owned());
        }
        short
    }

    /// What it makes of the card that it is about, where nothing contradicts it.
    #[must_use]
    pub fn support(&self) -> Support {
        if self.shortcomings().is_empty() { Support::Supported } else { Support::Partial }
    }

    /// Reads one.
    ///
    /// # Errors
    /// Too large, no JSON, another kind or version, or a damaged one.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > RECEIPT_BYTES_MAX {
            return Err(format!("it has {} bytes; a receipt has at most {RECEIPT_BYTES_MAX}", bytes.len()));
        }
        let header: Header = serde_json::from_slice(bytes).map_err(|e| format!("it is no receipt: {e}"))?;
        header.expect(RECEIPT_SCHEMA).map_err(|e| e.to_string())?;
        serde_json::from_slice(bytes).map_err(|e| format!("it is damaged: {e}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> Here {
        Here {
            card: CardIdentity {
                name: "Some Card".into(),
                hardware: "card".into(),
                uuid: Some("aa-01".into()),
                pci: Some("0000:01:00.0".into()),
                memory_bytes: Some(1 << 34),
            },
            route: RouteIdentity {
                backend: "cuda".into(),
                interface: "CUDA driver 13.0".into(),
                driver: Some("13.0".into()),
                kernel_driver: Some("nvidia 580.1".into()),
                kernels: Digest::of(b"kernels"),
            },
            accelerator: true,
            built_in: false,
        }
    }

    fn receipt() -> Receipt {
        let Here { card, route, .. } = here();
        Receipt {
            header: Header::new(RECEIPT_SCHEMA, Vec::new()),
            host: "tower".into(),
            when: "2026-01-02T03:04:05Z".into(),
            card,
            route,
            conformance: Conformance { cases: 100, failed: 0, skipped: Vec::new(), failures: Vec::new() },
            model: Agreement {
                model: "tiny".into(),
                synthesised: true,
                positions: 16,
                equal_top_tokens: 16,
                logit_distance_max: 1e-4,
                logit_max: 10.0,
                tolerance: 1e-3,
            },
            operations: vec![Operation { what: "sum".into(), bytes: 12, seconds: 1e-6, samples: 5 }],
            kernels_executed: 1000,
        }
    }

    #[test]
    fn a_receipt_survives_its_file_and_other_files_are_refused() {
        let bytes = serde_json::to_vec(&receipt()).expect("JSON");
        assert_eq!(Receipt::parse(&bytes), Ok(receipt()));
        let text = String::from_utf8(bytes.clone()).expect("UTF-8");
        for (from, to) in [("receipt/v1", "receipt/v2"), ("\"uuid\"", "\"uuidd\""), ("\"cases\":100", "\"cases\":-1")] {
            assert!(text.contains(from) && Receipt::parse(text.replace(from, to).as_bytes()).is_err(), "{from}");
        }
        assert!(Receipt::parse(&bytes[..bytes.len() / 2]).is_err());
        assert!(Receipt::parse(&vec![b' '; RECEIPT_BYTES_MAX + 1]).is_err());
    }

    #[test]
    fn a_receipt_speaks_of_its_own_card_under_its_own_driver_and_kernels_alone() {
        let (receipt, here) = (receipt(), here());
        assert!(receipt.is_of(&here, false) && receipt.contradicted_by(&here).is_empty());
        let changed = |change: fn(&mut Here)| {
            let mut other = here.clone();
            change(&mut other);
            receipt.contradicted_by(&other)
        };
        for (change, word) in [
            ((|h| h.route.driver = Some("13.1".into())) as fn(&mut Here), "driver was 13.0, is 13.1"),
            (|h| h.route.kernel_driver = Some("nvidia 590".into()), "nvidia 590"),
            (|h| h.route.kernel_driver = None, "is unknown"),
            (|h| h.route.kernels = Digest::of(b"other"), "kernels were"),
            (|h| h.route.interface = "CUDA driver 13.1".into(), "interface"),
            (|h| h.route.backend = "wgpu".into(), "through cuda, this is wgpu"),
            (|h| h.accelerator = false, "no card"),
        ] {
            let reasons = changed(change);
            assert!(reasons.len() == 1 && reasons[0].contains(word), "{reasons:?} for {word}");
        }
    }

    #[test]
    fn a_card_is_known_by_its_identifier_and_without_one_by_its_place_in_the_host_that_signed() {
        let mut receipt = receipt();
        let of = |receipt: &Receipt, change: fn(&mut Here), own: bool| {
            let mut other = here();
            change(&mut other);
            receipt.is_of(&other, own)
        };
        assert!(of(&receipt, |h| h.card.pci = Some("0000:99:00.0".into()), false), "a card that was moved");
        assert!(!of(&receipt, |h| h.card.uuid = Some("aa-02".into()), true), "its twin in its place");
        receipt.card.uuid = None;
        assert!(of(&receipt, |h| h.card.pci = Some("0000:01:00".into()), true));
        assert!(!of(&receipt, |_| (), false), "an address of another host");
        assert!(!of(&receipt, |h| h.card.name = "Other Card".into(), true));
        assert!(!of(&receipt, |h| h.card.pci = Some("0000:02:00.0".into()), true));
        receipt.card.pci = None;
        assert!(!of(&receipt, |h| h.card.pci = None, true), "nothing tells which card it was");
        assert!(of(&receipt, |h| (h.card.pci, h.built_in) = (None, true), true));
    }

    #[test]
    fn only_a_whole_and_clean_self_test_makes_a_card_supported() {
        assert_eq!(receipt().support(), Support::Supported);
        for break_it in [
            (|r| r.conformance.failed = 1) as fn(&mut Receipt),
            |r| r.conformance.cases = 0,
            |r| r.model.logit_distance_max = 0.1,
            |r| r.model.logit_distance_max = f64::NAN,
            |r| r.model.positions = 0,
            |r| r.operations.clear(),
            |r| r.kernels_executed = 0,
        ] {
            let mut broken = receipt();
            break_it(&mut broken);
            assert_eq!(broken.support(), Support::Partial, "{:?}", broken.shortcomings());
            assert_eq!(broken.shortcomings().len(), 1);
        }
    }
}
