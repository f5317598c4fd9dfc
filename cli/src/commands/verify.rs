//! `isotherm verify`, and the opening of a manifest with the files it names.

use crate::args::Verify;
use crate::failure::{Code, Done, Failure};
use crate::trust::Trusted;
use crate::ui::Ui;
use crate::{counters, files, trust};
use isotherm_audit::keys::{PublicKey, TrustedKeys};
use isotherm_audit::log::{EventKind, Severity};
use isotherm_audit::manifest::Manifest;
use isotherm_audit::statement::{BINARY, Subject};
use isotherm_audit::time::Timestamp;
use isotherm_audit::{Expectations, Inspected, OpenError, Verified};
use isotherm_core::digest::Digest;
use rayon::prelude::*;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

mod receipt;

/// A manifest that verified, and where the files it names were found.
pub struct Opened {
    /// The manifest.
    pub manifest: Verified<Manifest>,
    /// Path of each subject, by name.
    pub paths: BTreeMap<String, PathBuf>,
}

/// Runs the command.
pub fn run(ui: &Ui, args: &Verify) -> Done {
    let trusted = match args.key.as_slice() {
        [] => trust::trusted(args.threshold)?,
        paths => Trusted::of(named_keys(paths, trust::threshold(args.threshold)?)?),
    };
    let bytes = files::read(&args.manifest)?;
    if args.signature_only {
        let Inspected { statement, signers, payload_digest } =
            trusted.inspect(&bytes, trust::now()?).map_err(|e| refused(&args.manifest, &e))?;
        let verdict =
            verdict(&statement, signers.iter().map(ToString::to_string).collect(), payload_digest, Vec::new());
        return ui.result(&verdict, || verdict.text(&args.manifest));
    }
    if let Some(run) = &args.run {
        return receipt::show(ui, &args.manifest, &bytes, run, &trusted);
    }
    let opened = open(&args.manifest, &bytes, &trusted)?;
    let manifest = &opened.manifest;
    let signers = manifest.signers().iter().map(ToString::to_string).collect();
    let compared = manifest.compared().iter().cloned().collect();
    accepted("manifest", manifest.payload_digest())?;
    let verdict = verdict(manifest, signers, manifest.payload_digest(), compared);
    ui.result(&verdict, || verdict.text(&args.manifest))
}

/// Writes down that a document verified, where this host has a log.
fn accepted(role: &str, payload: Digest) -> Result<(), Failure> {
    // Without a home there is no log of this host.
    if files::home().is_err() {
        return Ok(());
    }
    let Some(identity) = super::audit::identity_if_any()? else { return Ok(()) };
    let note = trust::Note::default().about(role, payload);
    trust::record_or_warn(&identity, EventKind::VerifyAccepted, Severity::Info, note);
    Ok(())
}

/// Opens a manifest for this host and now, comparing every file it names with what was sealed.
///
/// Files are looked for beside the manifest first, then where they lay when they were sealed.
pub fn open(path: &Path, bytes: &[u8], trusted: &Trusted) -> Result<Opened, Failure> {
    open_at(path, bytes, trusted, trust::now()?, || Ok(BTreeMap::new()), (0, None))
}

/// The same for running it: the program that runs has to be the one that sealed, the node the one that is named by its
/// key, and no newer manifest of the cluster may have run here. Looking at a manifest of another day or node stays
/// allowed, so [`open`] asks for none of these.
pub fn open_to_run(path: &Path, bytes: &[u8], trusted: &Trusted) -> Result<Opened, Failure> {
    let inspected = trusted.inspect(bytes, trust::now()?).map_err(|e| refused(path, &e))?;
    // Manifests of earlier versions name no program.
    let named = inspected.statement.subject(BINARY).is_some();
    let own =
        || if named { Ok(BTreeMap::from([(BINARY.to_owned(), super::seal::program()?)])) } else { Ok(BTreeMap::new()) };
    let least = counters::greatest(trust::LOCAL_CLUSTER)?.unwrap_or(0);
    open_at(path, bytes, trusted, trust::now()?, own, (least, Some(trust::nodes()?)))
}

fn open_at(
    path: &Path,
    bytes: &[u8],
    trusted: &Trusted,
    now: Timestamp,
    own: impl FnOnce() -> Result<BTreeMap<String, Digest>, Failure> + Send,
    (counter_min, nodes): (u64, Option<BTreeSet<String>>),
) -> Result<Opened, Failure> {
    let inspected = trusted.inspect(bytes, now).map_err(|e| refused(path, &e))?;
    let mut paths = BTreeMap::new();
    let found = |subject: &Subject| Some((subject.name.clone(), find(path, subject.path_hint.as_deref())?));
    let found: Vec<(String, PathBuf)> = inspected.statement.subjects.iter().filter_map(found).collect();
    // One of them is a model: the others and the program are read meanwhile.
    let digests = || found.par_iter().map(|(_, path)| digest_of(path)).collect::<Vec<_>>();
    let (digests, own) = rayon::join(digests, own);
    let mut presented = own?;
    for ((name, path), digest) in found.into_iter().zip(digests) {
        presented.insert(name.clone(), digest?);
        paths.insert(name, path);
    }
    let expected = Expectations {
        cluster_id: trust::LOCAL_CLUSTER.to_owned(),
        host_id: trust::host_id(),
        counter_min,
        previous_manifest: None,
        presented,
        nodes,
    };
    let manifest = trusted.open(bytes, now, &expected).map_err(|e| refused(path, &e))?;
    Ok(Opened { manifest, paths })
}

/// The failure of a manifest that did not open; the refusal itself goes to the log where that can be written.
pub fn refused(path: &Path, error: &OpenError) -> Failure {
    let reason = crate::models::causes(error);
    if let Ok(directory) = trust::key_directory()
        && let Ok(identity) = isotherm_audit::keys::Identity::load(&directory)
    {
        let shown = path.display().to_string();
        let note = trust::Note::default().with("manifest", shown.as_str()).with("reason", reason.as_str());
        // A log that cannot be written must not hide the refusal itself.
        if let Err(failure) = trust::record(&identity, EventKind::VerifyRefused, Severity::Warning, note) {
            eprintln!("warning: the refusal was not logged: {}", failure.message);
        }
    }
    let failure = Failure::new(Code::Verification, format!("{} does not verify: {reason}", path.display()));
    match error {
        OpenError::Subjects { .. } => failure.remedy("restore the sealed files, or plan and seal again"),
        OpenError::NotPresented { .. } => failure.remedy("put the named files beside the manifest"),
        OpenError::OtherPlace { what: "node", .. } => failure.remedy("seal the plan on the host that is to run it"),
        OpenError::Expired { .. } => failure.remedy("seal the plan again"),
        OpenError::Rollback { .. } => failure.remedy("seal the plan again"),
        OpenError::BelowThreshold { .. } | OpenError::BelowRole { .. } => failure.remedy(
            "have another trusted key sign it with `isotherm keys approve`; or verify with the signer's public key \
             (--key), if you trust it",
        ),
        _ => failure,
    }
}

fn find(manifest: &Path, hint: Option<&str>) -> Option<PathBuf> {
    let hint = Path::new(hint?);
    let folder = manifest.parent().unwrap_or(Path::new(""));
    let beside = hint.file_name().map(|name| folder.join(name));
    [Some(folder.join(hint)), beside, Some(hint.to_owned())].into_iter().flatten().find(|path| path.is_file())
}

/// The digest of a file of any size, read in pieces.
pub fn digest_of(path: &Path) -> Result<Digest, Failure> {
    use sha2::{Digest as _, Sha256};
    let mut file = std::fs::File::open(path).map_err(|e| Failure::file(path, e))?;
    let mut hasher = Sha256::new();
    std::io::copy(&mut file, &mut hasher).map_err(|e| Failure::file(path, e))?;
    Ok(Digest::from_bytes(hasher.finalize().into()))
}

fn named_keys(paths: &[PathBuf], threshold: u32) -> Result<TrustedKeys, Failure> {
    let keys = paths
        .iter()
        .map(|path| PublicKey::read(&files::read_text(path)?).map_err(|e| Failure::file(path, e)))
        .collect::<Result<Vec<_>, _>>()?;
    TrustedKeys::new(keys, threshold as usize).map_err(|e| Failure::new(Code::Usage, e.to_string()))
}

/// What verified, for people and programs.
#[derive(Debug, Serialize)]
struct Verdict {
    verified: bool,
    manifest: Digest,
    signers: Vec<String>,
    compared: Vec<String>,
    expires_on: String,
    placements: Vec<String>,
}

fn verdict(manifest: &Manifest, signers: Vec<String>, payload: Digest, compared: Vec<String>) -> Verdict {
    let placements = manifest.predicate.placements.iter().map(|p| format!("{} on {}", p.layers, p.device)).collect();
    let expires_on = manifest.predicate.expires_on.to_string();
    Verdict { verified: true, manifest: payload, signers, compared, expires_on, placements }
}

impl Verdict {
    fn text(&self, path: &Path) -> String {
        let compared = if self.compared.is_empty() {
            "signature only; no file was looked at".to_owned()
        } else {
            format!("as sealed: {}", self.compared.join(", "))
        };
        format!(
            "{} verifies\n  signed by   {}\n  files       {compared}\n  layers      {}\n  valid until {}\n",
            path.display(),
            self.signers.join(", "),
            self.placements.join("; "),
            self.expires_on,
        )
    }
}
