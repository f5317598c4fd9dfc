//! A verified manifest, executed: devices, model and limits from the sealed files, a record of what happened.

use crate::access::{self, Guest, Wish};
use crate::commands::access::RUNNING;
use crate::commands::verify::Opened;
use crate::failure::{Code, Failure};
use crate::models::{self, LocalModel};
use crate::question;
use crate::roots::roots;
use crate::ui::Ui;
use crate::{counters, files, interrupt, trust};
use isotherm_access::Gate;
use isotherm_audit::keys::Identity;
use isotherm_audit::log::{EventKind, Severity};
use isotherm_audit::run::{Outcome, RunClaim};
use isotherm_audit::statement::{DEVICES, MANIFEST, MODEL, PLAN, RUN, SCENARIO, Statement, Subject, TOKENS};
use isotherm_core::artefact::{Header, TOOL_VERSION};
use isotherm_core::check::FeasiblePlan;
use isotherm_core::cost::StepShape;
use isotherm_core::device::Device;
use isotherm_core::digest::Digest;
use isotherm_core::graph::{DEVICES_SCHEMA, DevicesFile};
use isotherm_core::plan::{PLAN_SCHEMA, Plan, Stage};
use isotherm_core::problem::PlacementProblem;
use isotherm_core::record::{RUN_SCHEMA, RunRecord, metrics};
use isotherm_core::units::Celsius;
use isotherm_core::workload::Workload;
use isotherm_runtime::engine::Kernels;
use isotherm_runtime::execute::{
    Arriving, ExecuteError, Executed, Orders, Prompt, Token, Verdict, WeightsBudget, execute,
};
use isotherm_runtime::govern::{Pace, Paced};
use isotherm_runtime::host::{Host, Roots};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

mod governed;
mod sensed;

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
    /// The manifest's counter, where it has to be none below what ran here before, and none below it runs later.
    pub remembered: Option<u64>,
    /// The holder of a lease, where it is not this host's own key that runs it.
    pub guest: Option<Guest>,
    /// A temperature that no device may pass, in place of what is known of each.
    pub temperature_max: Option<Celsius>,
    /// Whether what governors do is left to the log.
    quiet: bool,
    /// How much memory the weights may take; as much as they want where absent.
    pub weights_budget: Option<WeightsBudget>,
    /// Where layers lie that the plan leaves on a disk; the folder for temporary files where absent.
    pub weights_folder: Option<PathBuf>,
}

impl Ready {
    /// How many layers the plan leaves on a disk of the processor's.
    pub fn on_disk(&self) -> u32 {
        let on_cpu = |stage: &&Stage| {
            let id = stage.devices.first().and_then(|name| self.problem.graph.find(name));
            id.is_some_and(|id| self.problem.graph.device(id).backend == "cpu")
        };
        self.plan.plan().stages.iter().filter(on_cpu).map(|stage| stage.bytes.away_layers).sum()
    }
}

/// What to run.
pub struct Job<'a> {
    /// The requests.
    pub prompts: &'a [Prompt],
    /// When they come.
    pub arriving: Arriving,
    /// The load they stand for, as the record names it.
    pub workload: Workload,
    /// Tokens that end an answer.
    pub stop: &'a [u32],
    /// Most requests that wait for admission; any number where absent.
    pub waiting_max: Option<u32>,
    /// Steps to do and time while no request is there, for measurements; what the load's own took is kept then too.
    pub idle: &'a [StepShape],
}

/// Loads the files of a verified manifest and checks the plan against them once more.
pub fn ready(ui: &Ui, opened: &Opened) -> Result<Ready, Failure> {
    let path = |name: &str| -> Result<&PathBuf, Failure> {
        opened.paths.get(name).ok_or_else(|| {
            Failure::new(Code::Verification, format!("the {name} that the manifest names is not here"))
                .remedy("put the sealed files beside the manifest")
        })
    };
    // A file may have changed since it was verified. So each is read once more, and what is used from here on are the
    // very bytes whose digest is compared here.
    let (plan, digest) = files::read_artefact::<Plan>(path(PLAN)?, PLAN_SCHEMA)?;
    as_sealed(opened, PLAN, path(PLAN)?, Some(digest))?;
    let (devices, digest) = files::read_artefact::<DevicesFile>(path(DEVICES)?, DEVICES_SCHEMA)?;
    as_sealed(opened, DEVICES, path(DEVICES)?, Some(digest))?;
    let text = files::read_text(path(SCENARIO)?)?;
    as_sealed(opened, SCENARIO, path(SCENARIO)?, Some(Digest::of(text.as_bytes())))?;
    let model = models::open_file(ui, path(MODEL)?)?;
    as_sealed(opened, MODEL, path(MODEL)?, model.model.digest)?;
    let objective = crate::commands::plan::objective_of(&plan, path(PLAN)?)?;
    let scenario = question::parse(path(SCENARIO)?, &text)?;
    let problem = question::made(path(SCENARIO)?, &scenario, Some(devices), Some(model.model.clone()), objective)?;
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
        remembered: None,
        guest: None,
        temperature_max: None,
        quiet: ui.quiet,
        weights_budget: None,
        weights_folder: None,
    })
}

/// Errors: what was read to be used is not what was sealed.
fn as_sealed(opened: &Opened, name: &str, path: &Path, read: Option<Digest>) -> Result<(), Failure> {
    if read.is_some() && read == opened.manifest.subject(name) {
        return Ok(());
    }
    Err(Failure::new(
        Code::Verification,
        format!("{} changed after it was verified and is not the {name} that was sealed", path.display()),
    )
    .remedy("find out who writes to the sealed files, restore them, and run again"))
}

/// Executes a job, logs its begin and end, writes and signs its record. Gives the record and the answers.
pub fn run(
    identity: &Identity,
    ready: &Ready,
    job: &Job<'_>,
    output: &Path,
    observe: &mut (dyn FnMut(Token<'_>) -> Verdict + Send),
) -> Result<(RunRecord, Executed), Failure> {
    let kernels = Kernels::of(&ready.arithmetic).ok_or_else(|| {
        let computed = "this program computes in f32 and in int8";
        Failure::new(Code::Verification, format!("the manifest is for {} arithmetic, {computed}", ready.arithmetic))
            .remedy("probe, plan and seal again")
    })?;
    let devices: Vec<(&str, u64)> = ready
        .plan
        .plan()
        .stages
        .iter()
        .flat_map(|stage| stage.devices.iter().map(|device| (device.as_str(), stage.bytes.total.0)))
        .collect();
    let subjects = [("manifest", ready.manifest)];
    let wish = Wish { guest: ready.guest.as_ref(), permissions: &RUNNING, devices: &devices, subjects: &subjects };
    let mut gate = access::gate(identity)?;
    let admission = access::enter(&mut gate, identity, &wish)?;
    gate.commit(&admission, trust::now()?).map_err(|e| access::failure(&e))?;
    let newest =
        ready.remembered.map_or(Ok(()), |counter| counters::remember(&ready.cluster_id, counter, ready.manifest));
    let done = newest.and_then(|()| admitted(identity, (ready, kernels), job, output, observe, (&mut gate, &wish)));
    let left = gate.leave(admission, trust::now()?, &mut access::recorder(identity));
    let done = done?;
    left.map_err(|e| access::failure(&e))?;
    Ok(done)
}

/// How often the rules are asked at most whether a job may go on: looking whether they changed takes some thirty
/// microseconds, a hundredth of a token of the smallest models.
const ASKED_EVERY: Duration = Duration::from_millis(20);

/// Whether the rules still let a job go on: asked at the first token after [`ASKED_EVERY`], so that a revocation ends
/// it after that time and one step.
fn revoked(gate: &mut Gate, identity: &Identity, wish: &Wish<'_>) -> Option<String> {
    let request = match wish.request(identity, "") {
        Ok(request) => request,
        // Nobody can say what counts at a time that the clock does not tell.
        Err(failure) => return Some(failure.message),
    };
    match gate.still_allowed(&request) {
        Ok(None) => None,
        Ok(Some(decision)) => Some(decision.because()),
        // Rules that cannot be read allow nothing.
        Err(error) => Some(models::causes(&error)),
    }
}

fn admitted(
    identity: &Identity,
    (ready, kernels): (&Ready, Kernels),
    job: &Job<'_>,
    output: &Path,
    observe: &mut (dyn FnMut(Token<'_>) -> Verdict + Send),
    (gate, wish): (&mut Gate, &Wish<'_>),
) -> Result<(RunRecord, Executed), Failure> {
    let arithmetic = kernels.arithmetic.name();
    let started = trust::now()?;
    let note = trust::Note::default()
        .about("manifest", ready.manifest)
        .with("requests", i64::try_from(job.prompts.len()).unwrap_or(i64::MAX));
    trust::record(identity, EventKind::RunStarted, Severity::Info, note)?;
    let backend = || trust::Note::default().about("manifest", ready.manifest).with("arithmetic", arithmetic);
    trust::record(identity, EventKind::SystemBackendInitialized, Severity::Info, backend())?;
    let orders = Orders {
        plan: &ready.plan,
        graph: &ready.problem.graph,
        gguf: &ready.model.gguf,
        geometry: &ready.model.geometry,
        serving: ready.problem.serving,
        kernels,
        stop: job.stop,
        waiting_max: job.waiting_max,
        cancels: None,
        memory_available: Host::discover(&Roots::default()).memory_available_bytes,
        weights_budget: ready.weights_budget.clone(),
        weights_folder: ready.weights_folder.clone(),
        looks_beside: false,
        idle: job.idle,
        keeps_steps: !job.idle.is_empty(),
    };
    let mut stopped = None;
    let pace = Pace::default();
    let mut paced = Paced::new(&pace);
    let mut asked = Instant::now();
    let mut watched = |token: Token<'_>| {
        if asked.elapsed() >= ASKED_EVERY {
            stopped = revoked(gate, identity, wish);
            asked = Instant::now();
        }
        if stopped.is_some() || interrupt::flag().load(Ordering::Relaxed) {
            return Verdict::EndRun;
        }
        let verdict = observe(token);
        paced.rest(&|| interrupt::flag().load(Ordering::Relaxed));
        verdict
    };
    let graph = &ready.problem.graph;
    let held = ready.plan.plan().stages.iter().flat_map(|stage| &stage.devices).filter_map(|name| graph.find(name));
    let held: Vec<&Device> = held.map(|id| graph.device(id)).collect();
    let limit = ready.temperature_max;
    let sensed = sensed::Sensed::attach(&roots(), &held);
    let keeper = governed::attach(&roots(), &held, ready.problem.ambient, limit, ready.quiet);
    let over = AtomicBool::new(false);
    let (executed, kept, sensed) = std::thread::scope(|scope| {
        let ended = Ended(&over);
        let sensed = scope.spawn(|| sensed.watch(&over));
        let kept = keeper.map(|keeper| {
            scope.spawn(|| governed::keep((identity, ready.manifest), keeper, &pace, &over, ready.quiet))
        });
        let executed = execute(&orders, job.prompts, &job.arriving, &mut watched);
        drop(ended);
        (executed, kept.map(std::thread::ScopedJoinHandle::join), sensed.join())
    });
    if let Some(Ok(Err(unlogged))) = &kept {
        eprintln!("warning: what the governor did was not logged: {}", unlogged.message);
    }
    trust::record_or_warn(identity, EventKind::SystemBackendShutdown, Severity::Info, backend());
    let mut executed = executed.map_err(|error| {
        let failure = refusal(&error);
        let note = trust::Note::default().about("manifest", ready.manifest).with("failed", failure.message.as_str());
        // The failure itself matters more than a log that cannot be written.
        if let Err(unlogged) = trust::record(identity, EventKind::RunFinished, Severity::Error, note) {
            eprintln!("warning: the failure was not logged: {}", unlogged.message);
        }
        failure
    })?;
    if let Ok(sensed) = sensed {
        sensed.tell(&mut executed.trace);
    }
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
            Outcome::Stopped { reason: stopped.clone().unwrap_or_else(|| "interrupted".to_owned()) }
        } else {
            Outcome::Completed
        },
        token_count: count as u64,
        measured: parts::whole(&record)?,
        stages: parts::stages(&record)?,
        devices: parts::devices(&record)?,
        links: parts::links(&record)?,
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
    match stopped {
        Some(reason) => Err(Failure::new(Code::Denied, format!("the run was ended: {reason}"))),
        None => Ok((record, executed)),
    }
}

/// What a record measured of its stages and devices, in integers.
mod parts {
    use crate::failure::Failure;
    use crate::trust;
    use isotherm_audit::figures::{ENERGY_MJ, FigureError, Figures, TEMPERATURE_MAX_MILLICELSIUS};
    use isotherm_audit::run::Part;
    use isotherm_core::record::RunRecord;

    fn refused(error: &FigureError) -> Failure {
        Failure::io(format!("a measured figure cannot be sealed: {error}"))
    }

    /// What the whole run measured: its metrics, and how hot the hottest device became.
    pub(super) fn whole(record: &RunRecord) -> Result<Figures, Failure> {
        let mut measured = trust::figures(&record.metrics)?;
        let hottest = record.trace.devices.iter().filter_map(|device| device.temperature_max_celsius);
        if let Some(hottest) = hottest.max_by(|a, b| a.value().total_cmp(&b.value())) {
            measured.set_scaled(TEMPERATURE_MAX_MILLICELSIUS, hottest.value(), 1e3).map_err(|e| refused(&e))?;
        }
        Ok(measured)
    }

    pub(super) fn links(record: &RunRecord) -> Result<Vec<Part>, Failure> {
        let part = |link: &isotherm_core::trace::LinkRecord| {
            let mut measured = Figures::default();
            let whole = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
            measured.set("messages_count", whole(link.messages))?;
            measured.set("sent_bytes", whole(link.bytes))?;
            measured.set("between_ns", whole(link.between_ns.0))?;
            Ok(Part { name: format!("{}->{}", link.from, link.to), measured })
        };
        record.trace.links.iter().map(|link| part(link).map_err(|e| refused(&e))).collect()
    }

    pub(super) fn stages(record: &RunRecord) -> Result<Vec<Part>, Failure> {
        let part = |stage: &isotherm_core::trace::StageRecord| {
            let mut measured = Figures::default();
            let whole = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
            measured.set("steps_count", whole(stage.steps))?;
            measured.set("tokens_count", whole(stage.tokens))?;
            measured.set("busy_ns", whole(stage.busy_ns.0))?;
            Ok(Part { name: format!("stage {} on {}", stage.stage, stage.device), measured })
        };
        record.trace.stages.iter().map(|stage| part(stage).map_err(|e| refused(&e))).collect()
    }

    pub(super) fn devices(record: &RunRecord) -> Result<Vec<Part>, Failure> {
        let part = |device: &isotherm_core::trace::DeviceRecord| {
            let mut measured = Figures::default();
            measured.set("busy_ns", i64::try_from(device.busy_ns.0).unwrap_or(i64::MAX))?;
            if let Some(energy) = device.energy_joules {
                measured.set_scaled(ENERGY_MJ, energy.value(), 1e3)?;
            }
            if let Some(hottest) = device.temperature_max_celsius {
                measured.set_scaled(TEMPERATURE_MAX_MILLICELSIUS, hottest.value(), 1e3)?;
            }
            if let Some(throttled) = device.throttled_ns {
                measured.set("throttled_ns", i64::try_from(throttled.0).unwrap_or(i64::MAX))?;
            }
            Ok(Part { name: device.name.clone(), measured })
        };
        record.trace.devices.iter().map(|device| part(device).map_err(|e| refused(&e))).collect()
    }
}

fn refusal(error: &ExecuteError) -> Failure {
    let code = match error {
        ExecuteError::Absent { .. }
        | ExecuteError::Start(_)
        | ExecuteError::Memory { .. }
        | ExecuteError::Device(_)
        | ExecuteError::Thread(_) => Code::Device,
        _ => Code::Io,
    };
    Failure::new(code, format!("failed to execute the plan: {}", models::causes(error)))
}

/// Tells those who watch a run that it is over, also where it ends in a panic: they would otherwise watch for ever.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
