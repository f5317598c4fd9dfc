//! `isotherm bench probe`: the probe repeated, and what it says held against steps that it never timed.
//!
//! After each probe every device is timed apart, with shapes that are no knots of its tables, and through half of the model
//! as well as all of it. Each of those times is taken twice over, in turns: by what the two differ the machine errs, and no
//! table can be nearer than that.

mod judge;

use crate::access::Wish;
use crate::args::{ArithmeticName, BenchProbe};
use crate::commands::access::{PROBING, pass};
use crate::commands::others::Ticks;
use crate::commands::probe;
use crate::failure::{Code, Done, Failure};
use crate::ui::{Ui, percent, table};
use crate::{files, interrupt, models, trust};
use isotherm_core::artefact::Header;
use isotherm_core::cost::StepShape;
use isotherm_core::ids::Layers;
use isotherm_core::units::Seconds;
use judge::{Probed, Row, Verdicts};
use serde::Serialize;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Schema of what this command writes.
const SCHEMA: &str = "isotherm.probe-bench/v1";

#[derive(Serialize)]
struct Artefact {
    #[serde(flatten)]
    header: Header,
    rows: Vec<Row>,
    verdicts: Verdicts,
}

/// Steps that no probe times: numbers of sequences at contexts between its own, chunks of other lengths, both in one step.
fn shapes() -> Vec<StepShape> {
    let mixed = |decodes, context: f64, tokens, cached| StepShape {
        prefills: vec![(tokens, cached)],
        decodes,
        decode_context: context,
        sequences: decodes + 1,
    };
    vec![
        StepShape::decode(1, 91.0),
        StepShape::decode(1, 700.0),
        StepShape::decode(2, 130.0),
        StepShape::decode(3, 71.0),
        StepShape::decode(5, 180.0),
        StepShape::decode(7, 120.0),
        StepShape::prefill(41, 0, true),
        StepShape::prefill(53, 70, true),
        StepShape::prefill(131, 0, true),
        mixed(2, 91.0, 24, 0),
        mixed(5, 120.0, 70, 16),
    ]
}

/// Runs the command.
pub fn run(ui: &Ui, args: &BenchProbe) -> Done {
    if args.runs == 0 {
        return Err(Failure::new(Code::Usage, "--runs is 0; give at least 1"));
    }
    let identity = trust::identity(ui)?;
    pass(&identity, &Wish { guest: None, permissions: &PROBING, devices: &[("cpu", 0)], subjects: &[] })?;
    std::fs::create_dir_all(&args.output).map_err(|e| Failure::file(&args.output, e))?;
    let model = models::open(ui, &args.model)?;
    let backends = args.backends.as_slice();
    let wanted = probe::Wanted {
        split: args.split,
        backends,
        logical: 1,
        slow: &args.slow,
        arithmetic: ArithmeticName::F32,
        offload: None,
    };
    let total = model.model.layers();
    let parts = [Layers::new(0, total), Layers::new(0, total.div_ceil(2))];
    let quiet = Ui { quiet: true, ..*ui };
    let mut runs: Vec<Probed> = Vec::new();
    for run in 0..args.runs {
        ui.note(format!("  probe {} of {}", run + 1, args.runs));
        let (begin, ticks) = (Instant::now(), Ticks::now());
        let output = args.output.join(format!("devices-{}.json", run + 1));
        let (devices, _) = probe::measure(&quiet, &identity, None, &model, &wanted, args.budget, &output)?;
        let seconds = begin.elapsed().as_secs_f64();
        let mut witnessed = Vec::new();
        for part in parts {
            witnessed.extend(probe::witnessed(&model, &wanted, None, part, &shapes(), args.look)?);
        }
        let others = ticks.zip(Ticks::now()).and_then(|(before, now)| now.others_since(before));
        runs.push(Probed { seconds, others, devices, witnessed });
        if interrupt::flag().load(Ordering::Relaxed) {
            return Err(Failure::io("interrupted; the devices measured so far are kept"));
        }
    }
    let rows = judge::rows(&runs, total);
    let verdicts = judge::verdicts(&runs, &rows, total);
    let artefact = Artefact { header: Header::new(SCHEMA, model.model.digest.into_iter().collect()), rows, verdicts };
    files::write_json(&args.output.join("probe.json"), &artefact)?;
    ui.result(&artefact, || text(&artefact))
}

fn text(artefact: &Artefact) -> String {
    let time = |seconds: f64| Seconds::new(seconds).map_or_else(|_| "-".to_owned(), |seconds| seconds.to_string());
    let heading = ["device", "layers", "step", "predicted", "measured", "error", "machine's own"];
    let mut cells = vec![heading.map(str::to_owned).to_vec()];
    cells.extend(artefact.rows.iter().map(|row| {
        vec![
            row.device.clone(),
            row.layers.to_string(),
            row.step.clone(),
            time(row.predicted),
            time(row.measured),
            percent(row.error),
            format!("{:.1} %", row.noise * 100.0),
        ]
    }));
    format!("{}\n{}", table(&cells, &[1, 3, 4, 5, 6]), artefact.verdicts.words())
}
