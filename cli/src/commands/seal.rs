//! `isotherm seal`: one signed manifest that pins plan, model, scenario, devices and prediction by digest.

use crate::access::Wish;
use crate::args::{PlanAndScenario, Seal, Sources};
use crate::commands::access::{SEALING, pass};
use crate::commands::verify::digest_of;
use crate::commands::{plan, simulate};
use crate::failure::{Code, Done, Failure};
use crate::models;
use crate::ui::Ui;
use crate::{counters, files, trust};
use isotherm_audit::figures::{Figures, TEMPERATURE_MAX_MILLICELSIUS};
use isotherm_audit::keys::Identity;
use isotherm_audit::log::{EventKind, Query, Severity};
use isotherm_audit::manifest::{ExecutionManifest, Placement, Planner};
use isotherm_audit::statement::{BINARY, DEVICES, MODEL, PLAN, SCENARIO, SIMULATION, Statement, Subject};
use isotherm_core::artefact::TOOL_VERSION;
use isotherm_core::check::FeasiblePlan;
use isotherm_core::digest::Digest;
use isotherm_core::graph::DeviceGraph;
use isotherm_core::record::{SIMULATION_SCHEMA, SimulationReport};
use isotherm_core::units::Seconds;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// The files that a manifest pins.
#[derive(Debug, Clone)]
pub struct Pinned {
    /// The plan.
    pub plan: PathBuf,
    /// The scenario it answers.
    pub scenario: PathBuf,
    /// The devices it was made with.
    pub devices: PathBuf,
    /// The model file.
    pub model: PathBuf,
    /// The prediction.
    pub simulation: PathBuf,
}

/// Runs the command.
pub fn run(ui: &Ui, args: &Seal) -> Done {
    let model = models::open(ui, &args.model)?;
    let (devices, model_path) = (Some(args.devices.clone()), Some(model.path.display().to_string()));
    let sources = Sources { devices, model: model_path, ..Sources::default() };
    let named = PlanAndScenario { plan: args.plan.clone(), scenario: args.scenario.clone(), sources };
    let (feasible, question) = plan::load_feasible(ui, &named)?;
    isotherm_runtime::execute::executable(feasible.plan(), &question.problem.model.quantisation)
        .map_err(|e| Failure::new(Code::Usage, format!("cannot seal {}: {e}", args.plan.display())))?;
    let simulation = match &args.simulation {
        Some(path) => path.clone(),
        None => {
            let path = args.output.with_extension("simulation.json");
            let report = simulate::predict(&feasible, &question.problem, simulate::Seeds::default())?;
            files::write_json(&path, &report)?;
            path
        }
    };
    let pinned = Pinned {
        plan: args.plan.clone(),
        scenario: args.scenario.clone(),
        devices: args.devices.clone(),
        model: model.path.clone(),
        simulation,
    };
    let identity = trust::identity(ui)?;
    plan::judged(feasible.plan(), None)?;
    let digest = seal(&identity, &feasible, &question.problem.graph, &pinned, args.valid, &args.output)?;
    let envelope = files::read(&args.output)?;
    if let Some(path) = &args.bundle {
        let bundle = isotherm_audit::bundle::sigstore(&envelope, identity.id());
        files::write(path, &bundle.map_err(|e| Failure::io(e.to_string()))?)?;
    }
    if let Some(path) = &args.ssh_signature {
        let signature = isotherm_audit::ssh::sign(&identity, isotherm_audit::ssh::NAMESPACE, &envelope);
        files::write(path, signature.as_bytes())?;
    }
    let receipt = Receipt { manifest: args.output.clone(), digest, signer: identity.id().to_string() };
    ui.result(&receipt, || format!("sealed {} ({digest})\n", args.output.display()))
}

#[derive(Serialize)]
struct Receipt {
    manifest: PathBuf,
    digest: Digest,
    signer: String,
}

/// Seals a feasible plan with the files around it, logs it, and writes the manifest. Gives the digest of its payload.
pub fn seal(
    identity: &Identity,
    feasible: &FeasiblePlan,
    graph: &DeviceGraph,
    pinned: &Pinned,
    valid: Seconds,
    output: &Path,
) -> Result<Digest, Failure> {
    let (simulation, _) = files::read_artefact::<SimulationReport>(&pinned.simulation, SIMULATION_SCHEMA)?;
    if simulation.plan != feasible.plan().digest() {
        return Err(Failure::new(
            Code::Verification,
            format!("{} predicts another plan than {}", pinned.simulation.display(), pinned.plan.display()),
        )
        .remedy("simulate this plan, or leave --simulation out"));
    }
    let folder = output.parent().unwrap_or(Path::new(""));
    let subject = |name: &str, path: &Path| -> Result<Subject, Failure> {
        let bytes = std::fs::metadata(path).map_err(|e| Failure::file(path, e))?.len();
        Ok(Subject { bytes: Some(bytes), ..Subject::new(name, digest_of(path)?).at(&hint(folder, path)) })
    };
    let subjects = vec![
        subject(PLAN, &pinned.plan)?,
        subject(MODEL, &pinned.model)?,
        subject(SCENARIO, &pinned.scenario)?,
        subject(DEVICES, &pinned.devices)?,
        subject(SIMULATION, &pinned.simulation)?,
        Subject::new(BINARY, program()?),
    ];
    let placements = placements(feasible, graph, identity);
    let devices: Vec<(&str, u64)> = placements.iter().map(|placement| (placement.device.as_str(), 0)).collect();
    let about: Vec<(&str, Digest)> = subjects.iter().map(|subject| (subject.name.as_str(), subject.digest)).collect();
    let policy_digest =
        pass(identity, &Wish { guest: None, permissions: &SEALING, devices: &devices, subjects: &about })?;
    let now = trust::now()?;
    let position = match trust::read_log(identity) {
        Ok(view) => Some(view.position()),
        Err(failure) if failure.code == Code::Io => None,
        Err(failure) => return Err(failure),
    };
    let newest = counters::greatest(trust::LOCAL_CLUSTER)?;
    let plan = feasible.plan();
    let certificate = plan
        .certificate
        .as_ref()
        .ok_or_else(|| Failure::new(Code::Verification, "the plan has no certificate to seal"))?;
    let predicate = ExecutionManifest {
        tool_version: TOOL_VERSION.to_owned(),
        planner: Planner {
            name: "isotherm".to_owned(),
            version: plan.header.tool_version.clone(),
            solver: certificate.solver.clone().unwrap_or_else(|| certificate.method.clone()),
            seed: None,
        },
        certificate: trust::certificate_figures(plan, certificate)?,
        placements,
        predicted: predicted(&simulation)?,
        arithmetic: arithmetic(feasible, graph),
        created_on: now,
        not_before: now,
        expires_on: now.later_by(valid.value() as u64),
        cluster_id: trust::LOCAL_CLUSTER.to_owned(),
        host_id: Some(trust::host_id()),
        nonce: trust::nonce()?,
        // The log grows with every manifest and run; one that was begun anew must not make its manifests old.
        counter: position.as_ref().map_or(0, |at| at.size).max(newest.map_or(0, |ran| ran.saturating_add(1))),
        previous_manifest: previous_manifest(identity)?,
        policy_digest: Some(policy_digest),
        audit_log: position,
    };
    let statement = Statement { subjects, predicate };
    let sealed = isotherm_audit::seal(&statement, &[identity])
        .map_err(|e| Failure::io(format!("failed to seal {}: {}", pinned.plan.display(), models::causes(&e))))?;
    files::write(output, &sealed.envelope)?;
    let mut note = trust::Note::default().about("manifest", sealed.payload_digest);
    note.subjects.extend(statement.subjects.iter().map(|s| (s.name.clone(), s.digest)));
    trust::record(identity, EventKind::Seal, Severity::Info, note)?;
    Ok(sealed.payload_digest)
}

/// What a simulation promises: its metrics, and how hot the hottest device gets.
fn predicted(simulation: &SimulationReport) -> Result<Figures, Failure> {
    let mut figures = trust::figures(&simulation.metrics)?;
    let hottest = simulation.devices.iter().filter_map(|device| device.temperature_max_celsius);
    if let Some(hottest) = hottest.max_by(|a, b| a.value().total_cmp(&b.value())) {
        figures
            .set_scaled(TEMPERATURE_MAX_MILLICELSIUS, hottest.value(), 1e3)
            .map_err(|e| Failure::io(format!("a predicted figure cannot be sealed: {e}")))?;
    }
    Ok(figures)
}

/// Digest of the program that runs, read once.
pub fn program() -> Result<Digest, Failure> {
    static PROGRAM: std::sync::OnceLock<Digest> = std::sync::OnceLock::new();
    if let Some(digest) = PROGRAM.get() {
        return Ok(*digest);
    }
    let path = std::env::current_exe().map_err(|e| Failure::io(format!("the running program is not found: {e}")))?;
    let digest = digest_of(&path)?;
    Ok(*PROGRAM.get_or_init(|| digest))
}

/// The manifest this host sealed last, as its log has it.
fn previous_manifest(identity: &Identity) -> Result<Option<Digest>, Failure> {
    let view = match trust::read_log(identity) {
        Ok(view) => view,
        Err(failure) if failure.code == Code::Io => return Ok(None),
        Err(failure) => return Err(failure),
    };
    let last = Query { kind: Some("seal".to_owned()), limit: 1, ..Query::default() };
    let found = view.query(&last).map_err(|e| trust::log_failure(&e))?;
    Ok(found.entries.first().and_then(|entry| entry.subjects.get("manifest")).copied())
}

fn placements(feasible: &FeasiblePlan, graph: &DeviceGraph, identity: &Identity) -> Vec<Placement> {
    let stages = feasible.plan().stages.iter().zip(0..);
    stages
        .flat_map(|(stage, index)| {
            stage.devices.iter().map(move |device| Placement {
                stage: index,
                device: device.clone(),
                device_uuid: graph.find(device).and_then(|id| graph.device(id).uuid.clone()),
                host_id: None,
                node_id: Some(identity.id().to_string()),
                layers: stage.layers,
                memory_bytes: stage.bytes.total.0,
                power_cap_milliwatts: stage.power_cap_watts.map(|cap| (cap.value() * 1e3).round() as u64),
            })
        })
        .collect()
}

/// The arithmetic of the plan's devices, as their profiles name it.
fn arithmetic(feasible: &FeasiblePlan, graph: &DeviceGraph) -> String {
    let devices = feasible.plan().stages.iter().flat_map(|stage| &stage.devices);
    let profiles = devices.filter_map(|name| graph.find(name)).filter_map(|id| graph.device(id).profiles.first());
    let mut names: Vec<&str> = profiles.map(|profile| profile.arithmetic.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() { "unknown".to_owned() } else { names.join("+") }
}

/// Where a pinned file lies, relative to the manifest's folder where it is below it.
fn hint(folder: &Path, path: &Path) -> String {
    let (folder, path) = (absolute(folder), absolute(path));
    path.strip_prefix(&folder).unwrap_or(&path).display().to_string()
}

fn absolute(path: &Path) -> PathBuf {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}
