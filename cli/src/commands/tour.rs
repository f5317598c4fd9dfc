//! `isotherm tour`: the whole loop on this machine with a real model.

use crate::args::{Format, Tour};
use crate::commands::run::{Asked, ask, summary};
use crate::commands::truth::{Bench, Sealed, rows_text};
use crate::commands::{model, plan, report, verify};
use crate::failure::{Code, Done, Failure};
use crate::models::{self, LocalModel};
use crate::ui::{self, Ui};
use crate::{execution, files, question, trust};
use isotherm_core::record::TruthRow;
use isotherm_core::units::Seconds;
use isotherm_runtime::engine::Sampling;
use serde::Serialize;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Steps of the tour.
const STEPS: usize = 7;
/// Runs of each plan.
const RUNS: u32 = 2;
/// Most tokens of the streamed answer.
const ANSWER_TOKENS: u32 = 96;

/// The last thing a tour prints.
#[derive(Serialize)]
struct Summary {
    manifest: PathBuf,
    report: PathBuf,
    verified: bool,
    plan: PathBuf,
    rows: Vec<TruthRow>,
    wall_seconds: f64,
}

/// Runs the command. What people read goes to standard error, the streamed answer too; standard output gets one JSON
/// object, unless it is a terminal and nobody asked for JSON.
pub fn run(ui: &Ui, args: &Tour) -> Done {
    let begin = Instant::now();
    // The answer streams beside the progress; standard output is for the one object at the end.
    let people = Ui { format: Format::Json, ..*ui };
    ui.step(1, STEPS, "the model");
    let model = obtain(&people, args)?;
    ui.note(format!("  {} of {} layers, {}", model.model.name, model.model.layers(), model.model.quantisation));

    ui.step(2, STEPS, "measuring this machine with the model's real layers");
    let bench = Bench::new(&people, model, &args.output)?;
    for device in &bench.devices.devices {
        let profile = device.profiles.first();
        let decode = profile.map(|p| p.dense_seconds.at(1.0) * f64::from(bench.model.model.layers()));
        let shown = decode.map_or_else(|| "unknown".to_owned(), |time| time.to_string());
        ui.note(format!("  {}: cores {:?}, all layers in {shown} per token", device.name, device.cores));
    }

    ui.step(3, STEPS, "planning, with a proof; simulating; signing");
    let sealed =
        (1..=3).filter_map(|stages| bench.prepare(&people, stages).transpose()).collect::<Result<Vec<_>, _>>()?;
    let first = sealed.first().ok_or_else(|| {
        Failure::new(Code::Infeasible, "this machine has no plan for the model")
            .remedy("close other programs, or name a smaller model with --model")
    })?;
    show_plan(ui, &bench, first)?;

    ui.step(4, STEPS, "verifying the manifest");
    let bytes = files::read(&first.manifest)?;
    let opened = verify::open(&first.manifest, &bytes, &trust::trusted(1)?)?;
    let compared: Vec<&str> = opened.manifest.compared().iter().map(String::as_str).collect();
    ui.note(format!("  signature good; as sealed: {}", compared.join(", ")));

    ui.step(5, STEPS, "running the sealed plan");
    ui.note(format!("  > {}\n", args.prompt));
    let ready = execution::ready(&Ui { quiet: true, ..people }, &opened)?;
    let asked = Asked {
        prompt: &args.prompt,
        raw: false,
        tokens: ANSWER_TOKENS,
        sampling: Sampling::GREEDY,
        stop: &[],
        deadline: None,
    };
    let (record, _) = ask(&people, &bench.identity, &ready, &asked, &args.output.join("run-chat.json"))?;
    drop(ready);
    ui.note(format!("\n  {}", summary(&record)));

    ui.step(6, STEPS, "running every plan on prompts the probe did not see");
    bench.run_all(&people, &sealed, RUNS)?;

    ui.step(7, STEPS, "the report");
    let note = format!("The tour's streamed answer (run-chat.json): {}.", summary(&record));
    bench.note_session("A tour of isotherm", "tour", vec![note])?;
    let page = args.output.join("report.html");
    let rows = report::write(&args.output, &page)?;
    ui.note(format!(
        "\npredicted before the runs, measured in them (median of {RUNS} runs each):\n\n{}",
        rows_text(&rows)
    ));
    let done = Summary {
        manifest: first.manifest.clone(),
        report: page.clone(),
        verified: true,
        plan: first.plan_path.clone(),
        rows,
        wall_seconds: begin.elapsed().as_secs_f64(),
    };
    ui.note(format!("manifest  {}, verified", done.manifest.display()));
    ui.note(format!("report    {}", shown_path(&page)));
    ui.note(format!("took      {}", Seconds::of(done.wall_seconds)));
    if ui.format == Format::Json || !std::io::stdout().is_terminal() {
        let line = serde_json::to_string(&done).map_err(|e| Failure::io(format!("the summary is no JSON: {e}")))?;
        ui::print(format!("{line}\n").as_bytes())?;
    }
    Ok(())
}

/// The model asked for; where the default cannot be fetched, one of the same shape with random weights.
fn obtain(ui: &Ui, args: &Tour) -> Result<LocalModel, Failure> {
    match models::open(ui, &args.model) {
        Err(failure) if args.model == "smollm2" => {
            ui.note(format!("  {}", failure.message));
            ui.note(
                "  going on with a model of the same shape and random weights: its text is noise, its timing is real",
            );
            let path = models::store()?.folder().join("synthetic-smollm2-135m.gguf");
            if !path.is_file() {
                model::synthesise("smollm2-135m", &path, "Q4_1", 1)?;
            }
            models::open_file(ui, &path)
        }
        result => result,
    }
}

fn show_plan(ui: &Ui, bench: &Bench, sealed: &Sealed) -> Done {
    let sources = crate::args::Sources {
        devices: Some(bench.folder.join("devices.json")),
        model: Some(bench.model.path.display().to_string()),
        ..crate::args::Sources::default()
    };
    let quiet = Ui { quiet: true, ..*ui };
    let scenario = bench.folder.join(format!("scenario-{}.toml", sealed.stages));
    let problem = question::load(&quiet, &scenario, &sources, None)?.problem;
    ui.note(format!("\n{}", plan::describe(&sealed.plan, &problem)));
    Ok(())
}

fn shown_path(path: &Path) -> String {
    path.canonicalize().unwrap_or_else(|_| path.to_owned()).display().to_string()
}
