//! A verified manifest, executed: devices, model and limits from the sealed files, a record of what happened.

use crate::commands::verify::Opened;
use crate::failure::{Code, Failure};
use crate::models::{self, LocalModel};
use crate::question;
use crate::ui::Ui;
use crate::{args::Sources, files, interrupt, trust};
use isotherm_audit::keys::Identity;
use isotherm_audit::log::{EventKind, Severity};
use isotherm_audit::run::{Outcome, RunClaim};
use isotherm_audit::statement::{DEVICES, MANIFEST, MODEL, PLAN, RUN, SCENARIO, Statement, Subject, TOKENS};
use isotherm_core::artefact::{Header, TOOL_VERSION};
use isotherm_core::check::FeasiblePlan;
use isotherm_core::digest::Digest;
use isotherm_core::plan::{PLAN_SCHEMA, Plan};
use isotherm_core::problem::PlacementProblem;
use isotherm_core::record::{RUN_SCHEMA, RunRecord, metrics};
use isotherm_core::workload::Workload;
use isotherm_runtime::engine::{Kernels, Sampling};
use isotherm_runtime::execute::{Arriving, ExecuteError, Executed, Orders, Prompt, Token, execute};
use isotherm_runtime::host::{Host, Roots};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

/// A manifest whose files were verified, loaded and checked once more.
pub struct Ready {
    /// The plan.
    pub plan: FeasiblePlan,
    /// The problem it answers.
    pub problem: PlacementProblem,
    /// The model.
    pub model: LocalModel,
    /// Digest of the manifest's payload.
    pub manifest: Digest,
    /// Its arithmetic.
    arithmetic: String,
    cluster_id: String,
}

/// What to run.
pub struct Job<'a> {
    /// The requests.
    pub prompts: &'a [Prompt],
    /// When they come.
    pub arriving: Arriving,
    /// The load they stand for, as the record names it.
    pub workload: Workload,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Tokens that end an answer.
    pub stop: &'a [u32],
}

/// Loads the files of a verified manifest and checks the plan against them once more.
pub fn ready(ui: &Ui, opened: &Opened) -> Result<Ready, Failure> {
    let path = |name: &str| -> Result<&PathBuf, Failure> {
        opened.paths.get(name).ok_or_else(|| {
            Failure::new(Code::Verification, format!("the {name} that the manifest names is not here"))
                .remedy("put the sealed files beside the manifest")
        })
    };
    let (plan, _) = files::read_artefact::<Plan>(path(PLAN)?, PLAN_SCHEMA)?;
    let model = models::open_file(ui, path(MODEL)?)?;
    let objective = crate::commands::plan::objective_of(&plan, path(PLAN)?)?;
    let sources = Sources { devices: Some(path(DEVICES)?.clone()), model: Some(model.path.display().to_string()) };
    let problem = question::load(ui, path(SCENARIO)?, &sources, objective)?.problem;
    let plan = plan.check(&problem).map_err(|violations| {
        Failure::all(Code::Verification, "the sealed plan", &violations).remedy("plan and seal again")
    })?;
    let predicate = &opened.manifest.predicate;
    Ok(Ready {
        plan,
        problem,
        model,
        manifest: opened.manifest.payload_digest(),
        arithmetic: predicate.arithmetic.clone(),
        cluster_id: predicate.cluster_id.clone(),
    })
}

/// Executes a job, logs its begin and end, writes and signs its record. Gives the record and the answers.
pub fn run(
    identity: &Identity,
    ready: &Ready,
    job: &Job<'_>,
    output: &Path,
    observe: &mut (dyn FnMut(Token) -> bool + Send),
) -> Result<(RunRecord, Executed), Failure> {
    let kernels = Kernels::detect();
    let arithmetic = kernels.arithmetic.name();
    if arithmetic != ready.arithmetic {
        return Err(Failure::new(
            Code::Verification,
            format!("the manifest is for {} arithmetic, this program computes in {arithmetic}", ready.arithmetic),
        )
        .remedy("probe, plan and seal again"));
    }
    let started = trust::now()?;
    let note = trust::Note::default()
        .about("manifest", ready.manifest)
        .with("requests", i64::try_from(job.prompts.len()).unwrap_or(i64::MAX));
    trust::record(identity, EventKind::RunStarted, Severity::Info, note)?;
    let orders = Orders {
        plan: &ready.plan,
        graph: &ready.problem.graph,
        gguf: &ready.model.gguf,
        geometry: &ready.model.geometry,
        serving: ready.problem.serving,
        kernels,
        sampling: job.sampling,
        stop: job.stop,
        memory_available: Host::discover(&Roots::default()).memory_available_bytes,
    };
    let mut watched = |token: Token| observe(token) && !interrupt::flag().load(Ordering::Relaxed);
    let executed = execute(&orders, job.prompts, &job.arriving, &mut watched).map_err(|error| {
        let failure = refusal(&error);
        let note = trust::Note::default().about("manifest", ready.manifest).with("failed", failure.message.as_str());
        // The failure itself matters more than a log that cannot be written.
        if let Err(unlogged) = trust::record(identity, EventKind::RunFinished, Severity::Error, note) {
            eprintln!("warning: the failure was not logged: {}", unlogged.message);
        }
        failure
    })?;
    let tokens =
        Digest::of_json(&executed.answers).map_err(|e| Failure::io(format!("the answers are no JSON: {e}")))?;
    let record = RunRecord {
        header: Header::new(RUN_SCHEMA, ready.problem.inputs.clone()),
        manifest: ready.manifest,
        plan: ready.plan.plan().digest(),
        started: started.to_string(),
        arithmetic: arithmetic.to_owned(),
        workload: job.workload.clone(),
        tokens,
        metrics: metrics(&executed.trace),
        trace: executed.trace.clone(),
    };
    let digest = files::write_json(output, &record)?;
    let count: usize = executed.answers.iter().map(Vec::len).sum();
    let note = trust::Note::default()
        .about("manifest", ready.manifest)
        .about("run", digest)
        .about("tokens", tokens)
        .with("tokens", i64::try_from(count).unwrap_or(i64::MAX))
        .with("interrupted", executed.interrupted);
    let position = trust::record(identity, EventKind::RunFinished, Severity::Info, note)?;
    let claim = RunClaim {
        tool_version: TOOL_VERSION.to_owned(),
        cluster_id: ready.cluster_id.clone(),
        host_id: trust::host_id(),
        started_on: started,
        finished_on: trust::now()?,
        arithmetic: arithmetic.to_owned(),
        outcome: if executed.interrupted {
            Outcome::Stopped { reason: "interrupted".to_owned() }
        } else {
            Outcome::Completed
        },
        token_count: count as u64,
        measured: trust::figures(&record.metrics)?,
        nonce: trust::nonce()?,
        audit_log: Some(position),
    };
    let subjects = vec![
        Subject::new(MANIFEST, ready.manifest),
        Subject::new(TOKENS, tokens),
        Subject::new(RUN, digest)
            .at(&output.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned())),
    ];
    let sealed = isotherm_audit::seal(&Statement { subjects, predicate: claim }, &[identity])
        .map_err(|e| Failure::io(format!("failed to seal the run record: {}", models::causes(&e))))?;
    files::write(&output.with_extension("signed.json"), &sealed.envelope)?;
    Ok((record, executed))
}

fn refusal(error: &ExecuteError) -> Failure {
    let code = match error {
        ExecuteError::Absent { .. }
        | ExecuteError::Start(_)
        | ExecuteError::Memory { .. }
        | ExecuteError::Thread(_) => Code::Device,
        _ => Code::Io,
    };
    Failure::new(code, format!("failed to execute the plan: {}", models::causes(error)))
}
