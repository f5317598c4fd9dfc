//! Receipts of self-tests: written and signed by this host, read back with all doubts, matched with what is here now.

use crate::failure::Failure;
use crate::roots::roots;
use crate::{files, models, trust};
use isotherm_audit::keys::{Identity, TrustedKeys};
use isotherm_audit::ssh::{self, RECEIPT_NAMESPACE};
use isotherm_audit::time::Timestamp;
use isotherm_core::device::Support;
use isotherm_core::digest::Digest;
use isotherm_core::receipt::{Here, RECEIPT_BYTES_MAX, Receipt};
use isotherm_runtime::backend::routes::{Found, Routes};
use isotherm_runtime::backend::{Hardware, self_test};
use isotherm_runtime::discover::Machine;
use serde::Serialize;
use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Most receipts that are looked at, the newest names first.
const RECEIPTS_MAX: usize = 4096;
/// Longest signature that is read, in bytes.
const SIGNATURE_BYTES_MAX: u64 = 4096;

/// Where they are kept.
pub fn folder() -> Result<PathBuf, Failure> {
    files::home().map(|home| home.join("receipts"))
}

/// Signs a receipt and keeps it, and a copy in `beside` where that is named. Gives where it is kept and its digest.
pub fn keep(receipt: &Receipt, identity: &Identity, beside: Option<&Path>) -> Result<(PathBuf, Digest), Failure> {
    let bytes = files::json(receipt)?;
    let digest = Digest::of(&bytes);
    let signature = ssh::sign(identity, RECEIPT_NAMESPACE, &bytes);
    let when: String = receipt.when.chars().filter(char::is_ascii_alphanumeric).collect();
    let name = format!("{when}-{}-{}.json", receipt.route.backend, digest.short());
    let kept = folder()?.join(&name);
    for path in [Some(kept.clone()), beside.map(|folder| folder.join(&name))].into_iter().flatten() {
        // The signature first: what has none yet is refused, and a signature alone is passed over.
        files::write(&signature_of(&path), signature.as_bytes())?;
        files::write(&path, &bytes)?;
    }
    Ok((kept, digest))
}

fn signature_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".sig");
    PathBuf::from(name)
}

/// A receipt that somebody who is believed signed.
struct Signed {
    file: String,
    receipt: Receipt,
    signer: String,
    /// Whether this host signed it.
    own: bool,
}

/// A receipt that counts for nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// Its file.
    pub file: String,
    /// Why.
    pub why: String,
}

/// What the newest receipt says of one way to one card.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Checked {
    /// When the self-test ended.
    pub when: String,
    /// Cases of the conformance suite.
    pub cases: u32,
    /// Those that failed.
    pub failed: u32,
    /// The model that ran.
    pub model: String,
    /// Whether its weights were drawn at random.
    pub synthesised: bool,
    /// Positions at which it agreed with the reference on the most likely token, and all.
    pub equal_top_tokens: (usize, usize),
    /// Operations that were timed.
    pub operations: usize,
    /// Key that signed.
    pub signer: String,
    /// The receipt's file.
    pub file: String,
    /// What did not hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shortcomings: Vec<String>,
    #[serde(skip)]
    support: Support,
}

/// What receipts say of everything that is here.
#[derive(Default)]
pub struct Standing {
    /// One for each device and each of its routes, in their order.
    checked: Vec<Vec<Option<Checked>>>,
    /// Receipts that count for nothing here.
    pub refused: Vec<Refused>,
}

impl Standing {
    /// Reads this host's receipts and compares them with what is here. What cannot be read or believed counts for nothing;
    /// it never ends a command.
    #[must_use]
    pub fn of(routes: &Routes) -> Self {
        let Ok(folder) = folder() else { return Self::default() };
        let (signed, refused) = read_all(&folder);
        let cards = if signed.is_empty() { Vec::new() } else { Machine::discover(&roots()).cards };
        let here = |found: &Found| -> Vec<Option<Here>> {
            found.routes.iter().map(|route| self_test::here(found, route, &cards)).collect()
        };
        let mut standing = judge(signed, &routes.devices.iter().map(here).collect::<Vec<_>>());
        standing.refused.splice(0..0, refused);
        standing
    }

    /// What was checked of a route of a device, both by number.
    #[must_use]
    pub fn checked(&self, device: usize, route: usize) -> Option<&Checked> {
        self.checked.get(device)?.get(route)?.as_ref()
    }

    /// Whether a route to a device may be trusted to compute. `measured` says that operations of a model have run there.
    #[must_use]
    pub fn support(&self, routes: &Routes, device: usize, route: usize, measured: bool) -> Support {
        let hardware = routes.devices.get(device).and_then(|found| found.routes.get(route)).map(|r| r.info.hardware);
        if !hardware.is_some_and(Hardware::is_accelerator) {
            // Whatever ran on a processor in place of a card says nothing of a card.
            return Support::Experimental;
        }
        match self.checked(device, route) {
            Some(checked) => checked.support,
            None if measured => Support::Partial,
            None => Support::Untested,
        }
    }

    /// The state of a device that was measured, by what is here now.
    #[must_use]
    pub fn of_measured(&self, routes: &Routes, device: &isotherm_core::device::Device) -> Support {
        if device.backend == "cpu" || device.backend == "declared" {
            return device.support;
        }
        let (uuid, pci) = (device.uuid.as_deref(), device.pci.as_deref());
        let found = routes.find(&device.backend, &device.name, uuid, pci);
        let same = |route: &isotherm_runtime::backend::routes::Route| {
            found.is_some_and(|f| f.info.backend == route.info.backend && f.info.index == route.info.index)
        };
        let place =
            routes.devices.iter().enumerate().find_map(|(i, found)| Some((i, found.routes.iter().position(same)?)));
        match place {
            Some((i, j)) => self.support(routes, i, j, true),
            // What is not here now is not known to be what it was.
            None => device.support.max(Support::Partial),
        }
    }
}

/// Matches receipts with what is here. The newest one of a route decides.
fn judge(mut signed: Vec<Signed>, here: &[Vec<Option<Here>>]) -> Standing {
    signed.sort_by(|a, b| (&b.receipt.when, &b.file).cmp(&(&a.receipt.when, &a.file)));
    let mut checked: Vec<Vec<Option<Checked>>> = here.iter().map(|routes| vec![None; routes.len()]).collect();
    let mut refused = Vec::new();
    for Signed { file, receipt, signer, own } in signed {
        let of_card = |routes: &&Vec<Option<Here>>| routes.iter().flatten().any(|here| receipt.is_of(here, own));
        let Some(device) = here.iter().position(|routes| of_card(&routes)) else {
            let card = &receipt.card;
            let name = card.uuid.as_ref().or(card.pci.as_ref()).unwrap_or(&card.name);
            let why = format!("it is of another card ({}, {name}) than those here", card.name);
            refused.push(Refused { file, why });
            continue;
        };
        // The route that fits best is the one it was made through, or what became of it.
        let ways = here[device].iter().enumerate().filter_map(|(i, here)| Some((i, here.as_ref()?)));
        let ways =
            ways.map(|(i, here)| (receipt.contradicted_by(here), here.route.backend != receipt.route.backend, i));
        let Some((reasons, _, route)) = ways.min_by_key(|(reasons, other, i)| (*other, reasons.len(), *i)) else {
            continue;
        };
        if !reasons.is_empty() {
            refused.push(Refused { file, why: reasons.join(", ") });
            continue;
        }
        let slot = &mut checked[device][route];
        // An older one of the same route is history.
        if slot.is_none() {
            let (conformance, model) = (&receipt.conformance, &receipt.model);
            *slot = Some(Checked {
                when: receipt.when.clone(),
                cases: conformance.cases,
                failed: conformance.failed,
                model: model.model.clone(),
                synthesised: model.synthesised,
                equal_top_tokens: (model.equal_top_tokens, model.positions),
                operations: receipt.operations.len(),
                signer,
                file,
                shortcomings: receipt.shortcomings(),
                support: receipt.support(),
            });
        }
    }
    Standing { checked, refused }
}

/// All receipts of a folder whose signatures count here, and what is wrong with the others.
fn read_all(folder: &Path) -> (Vec<Signed>, Vec<Refused>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return (Vec::new(), Vec::new()) };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    if paths.is_empty() {
        return (Vec::new(), Vec::new());
    }
    paths.sort();
    let surplus = paths.len().saturating_sub(RECEIPTS_MAX);
    let keys = trust::believed(1).map_err(|failure| format!("no key is believed here: {}", failure.message));
    let own = trust::nodes().unwrap_or_default();
    let (mut signed, mut refused) = (Vec::new(), Vec::new());
    for path in paths.drain(surplus..) {
        let file = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        match keys.as_ref().map_err(Clone::clone).and_then(|keys| read(&path, keys, &own)) {
            Ok((receipt, signer)) => signed.push(Signed { own: own.contains(&signer), file, receipt, signer }),
            Err(why) => refused.push(Refused { file, why }),
        }
    }
    (signed, refused)
}

/// At most `most` bytes of a file.
fn bytes(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|e| e.to_string())?;
    file.take(most + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if bytes.len() as u64 > most { Err(format!("it has more than {most} bytes")) } else { Ok(bytes) }
}

/// One receipt and who signed it. Errors: why it counts for nothing, whatever is here.
fn read(path: &Path, keys: &TrustedKeys, own: &BTreeSet<String>) -> Result<(Receipt, String), String> {
    let content = bytes(path, RECEIPT_BYTES_MAX as u64)?;
    let signature =
        bytes(&signature_of(path), SIGNATURE_BYTES_MAX).map_err(|why| format!("it has no signature: {why}"))?;
    let signature = String::from_utf8(signature).map_err(|_| "its signature is no text".to_owned())?;
    let key = ssh::verify(RECEIPT_NAMESPACE, &content, &signature)
        .map_err(|error| format!("it does not verify: {}", models::causes(&error)))?;
    if keys.get(key.id()).is_none() && !own.contains(&key.id().to_string()) {
        return Err(format!("it is signed by {}, a key that is not believed here", key.id()));
    }
    let receipt = Receipt::parse(&content)?;
    // The newest receipt of a route decides, so that a time which is none, or one to come, would decide for ever.
    let when: Timestamp =
        receipt.when.parse().map_err(|error| format!("its time {:?} is none: {error}", receipt.when))?;
    if when > trust::now().map_err(|failure| failure.message)? {
        return Err(format!("its time {when} is still to come"));
    }
    Ok((Receipt { when: when.to_string(), ..receipt }, key.id().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use isotherm_audit::keys::Seed;
    use isotherm_core::artefact::Header;
    use isotherm_core::receipt::{Agreement, CardIdentity, Conformance, Operation, RECEIPT_SCHEMA, RouteIdentity};

    fn here() -> Here {
        Here {
            card: CardIdentity {
                name: "Some Card".into(),
                hardware: "card".into(),
                uuid: Some("aa-01".into()),
                pci: Some("0000:01:00.0".into()),
                memory_bytes: None,
            },
            route: RouteIdentity {
                backend: "cuda".into(),
                interface: "CUDA driver 13.0".into(),
                driver: Some("13.0".into()),
                kernel_driver: None,
                kernels: Digest::of(b"kernels"),
            },
            accelerator: true,
            built_in: false,
        }
    }

    fn receipt(when: &str) -> Receipt {
        let Here { card, route, .. } = here();
        Receipt {
            header: Header::new(RECEIPT_SCHEMA, Vec::new()),
            host: "tower".into(),
            when: when.into(),
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

    /// A folder with one signed receipt, who signed it, and whom to believe.
    struct Kept {
        folder: tempfile::TempDir,
        path: PathBuf,
        identity: Identity,
        keys: TrustedKeys,
    }

    fn kept(receipt: &Receipt) -> Kept {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let identity = Identity::from_seed(&Seed::from_bytes([7; 32])).expect("a key");
        let keys = TrustedKeys::new([identity.public().clone()], 1).expect("one key");
        let path = folder.path().join("receipt.json");
        let bytes = files::json(receipt).expect("JSON");
        files::write(&signature_of(&path), ssh::sign(&identity, RECEIPT_NAMESPACE, &bytes).as_bytes())
            .expect("written");
        files::write(&path, &bytes).expect("written");
        Kept { folder, path, identity, keys }
    }

    fn signed(receipt: Receipt, own: bool) -> Signed {
        Signed { file: receipt.when.clone(), receipt, signer: "key".into(), own }
    }

    #[test]
    fn a_receipt_is_believed_as_it_was_signed_and_in_no_other_form() {
        let Kept { folder: _folder, path, identity, keys } = kept(&receipt("2026-01-02T03:04:05Z"));
        let nobody = BTreeSet::new();
        let read = || read(&path, &keys, &nobody);
        assert_eq!(read().expect("it verifies").1, identity.id().to_string());
        let whole = std::fs::read(&path).expect("readable");
        for at in 0..whole.len() {
            let mut altered = whole.clone();
            altered[at] ^= 1;
            std::fs::write(&path, &altered).expect("written");
            let why = read().expect_err("an altered receipt");
            assert!(why.contains("does not verify"), "byte {at}: {why}");
        }
        // A failure that was edited away, in a file that is sound in form.
        let text = String::from_utf8(whole.clone()).expect("UTF-8");
        std::fs::write(&path, text.replace("\"cases\": 100", "\"cases\": 999")).expect("written");
        assert!(read().is_err());
        std::fs::write(&path, &whole).expect("written");
        read().expect("as it was");
        let stranger = Identity::from_seed(&Seed::from_bytes([8; 32])).expect("a key");
        std::fs::write(signature_of(&path), ssh::sign(&stranger, RECEIPT_NAMESPACE, &whole)).expect("written");
        assert!(read().expect_err("a stranger's").contains("not believed here"));
        std::fs::write(signature_of(&path), ssh::sign(&identity, ssh::NAMESPACE, &whole)).expect("written");
        assert!(read().is_err(), "signed as a manifest");
        std::fs::remove_file(signature_of(&path)).expect("removed");
        assert!(read().expect_err("unsigned").contains("no signature"));
        let large = vec![b' '; RECEIPT_BYTES_MAX + 1];
        std::fs::write(&path, &large).expect("written");
        assert!(read().expect_err("too large").contains("more than"));
    }

    #[test]
    fn a_receipt_of_a_time_to_come_or_of_none_does_not_outlive_every_later_one() {
        for (when, why) in [("9999-01-01T00:00:00Z", "still to come"), ("zzz", "is none")] {
            let Kept { folder: _folder, path, keys, .. } = kept(&receipt(when));
            let refused = read(&path, &keys, &BTreeSet::new()).expect_err("a time that is none of the past");
            assert!(refused.contains(why), "{when}: {refused}");
        }
    }

    #[test]
    fn the_newest_receipt_of_a_route_decides_and_what_speaks_of_something_else_is_refused_with_the_reason() {
        let mut failing = receipt("2026-03-01T00:00:00Z");
        failing.conformance.failed = 3;
        let older = receipt("2026-02-01T00:00:00Z");
        let mut other_card = receipt("2026-04-01T00:00:00Z");
        other_card.card.uuid = Some("aa-02".into());
        let mut other_driver = receipt("2026-05-01T00:00:00Z");
        other_driver.route.driver = Some("12.0".into());
        let mut other_kernels = receipt("2026-06-01T00:00:00Z");
        other_kernels.route.kernels = Digest::of(b"other");
        let all = [failing, older, other_card, other_driver, other_kernels].map(|receipt| signed(receipt, true));
        let standing = judge(all.into(), &[vec![Some(here())]]);
        let checked = standing.checked(0, 0).expect("one is of this card");
        assert_eq!(
            (checked.when.as_str(), checked.failed, checked.support),
            ("2026-03-01T00:00:00Z", 3, Support::Partial)
        );
        let whys: Vec<&str> = standing.refused.iter().map(|refused| refused.why.as_str()).collect();
        assert_eq!(whys.len(), 3, "{whys:?}");
        assert!(whys[0].contains("kernels were") && whys[1].contains("driver was 12.0, is 13.0"), "{whys:?}");
        assert!(whys[2].contains("another card (Some Card, aa-02)"), "{whys:?}");
    }

    #[test]
    fn each_way_to_a_card_needs_a_receipt_of_its_own_and_what_is_no_card_never_counts() {
        let mut vulkan = here();
        vulkan.route = RouteIdentity {
            backend: "wgpu".into(),
            interface: "Vulkan".into(),
            driver: None,
            kernel_driver: None,
            kernels: Digest::of(b"shaders"),
        };
        let standing = judge(vec![signed(receipt("2026-01-01T00:00:00Z"), false)], &[vec![Some(vulkan), Some(here())]]);
        assert!(standing.checked(0, 0).is_none());
        assert_eq!(standing.checked(0, 1).map(|checked| checked.support), Some(Support::Supported));
        // The same numbers, but the processor behind them: a driver that pretends.
        let mut pretended = here();
        (pretended.accelerator, pretended.card.hardware) = (false, "host-emulated".into());
        let standing = judge(vec![signed(receipt("2026-01-01T00:00:00Z"), true)], &[vec![Some(pretended)]]);
        assert!(standing.checked(0, 0).is_none() && standing.refused[0].why.contains("no card: host-emulated"));
    }
}
