//! `isotherm bench sim`: the simulator's speed, memory and agreement with its peers, side by side in one run.

mod peers;
mod queues;
mod serving;

use crate::args::BenchSim;
use crate::commands::bench_planner::instances;
use crate::failure::{Code, Done, Failure};
use crate::files;
use crate::ui::{Ui, table};
use isotherm_core::artefact::TOOL_VERSION;
use isotherm_core::digest::Digest;
use isotherm_core::units::Bytes;
use serde::Serialize;

/// What a peer's run on the whole trace took, as measured on a 2-core AMD EPYC (Zen 5) under load.
#[derive(Debug, Clone, Copy, Serialize)]
struct Stated {
    peer: &'static str,
    cpu_seconds: f64,
    peak_bytes: u64,
}

const VIDUR_STATED: Stated = Stated { peer: "Vidur 7d47513, sarathi", cpu_seconds: 26.75, peak_bytes: 328_000_000 };

#[derive(Serialize)]
struct Record {
    schema: &'static str,
    tool_version: &'static str,
    machine: String,
    queues: Vec<queues::Row>,
    speeds: Vec<serving::Row>,
    /// Absent without the data of others.
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<serving::Row>,
    trace_stated: Stated,
    lengths: Vec<serving::Row>,
    peers: Vec<peers::Row>,
    digests: Vec<(usize, Digest)>,
    notes: Vec<String>,
}

/// Runs the command.
pub fn run(ui: &Ui, args: &BenchSim) -> Done {
    if let Some(requests) = args.length {
        let row = serving::length(requests)?;
        return ui.result(&row, || format!("{:.4} s, peak {}\n", row.cpu_seconds, memory(row.peak_bytes)));
    }
    if args.requests < 10 {
        return Err(Failure::new(Code::Usage, "--requests must be at least 10"));
    }
    let mut notes = Vec::new();
    let shared = instances::shared().map(|folder| folder.join("data"));
    let azure = shared.as_ref().map(|data| data.join("traces/AzureLLMInferenceTrace_conv.csv"));
    let azure = azure.filter(|path| path.is_file());
    if azure.is_none() {
        notes.push(
            "the recorded trace and the peers' answers were NOT compared: there is no folder `shared` beside the \
             checkout (or set ISOTHERM_SHARED)"
                .to_owned(),
        );
    }
    ui.note("queues");
    let queues = queues::rows();
    ui.note("tokens per second");
    let speeds = serving::speeds()?;
    let (mut trace, mut agreement) = (None, Vec::new());
    if let (Some(path), Some(data)) = (&azure, &shared) {
        ui.note("recorded trace and peers");
        trace = Some(serving::trace(&files::read_text(path)?)?);
        agreement = peers::rows(data)?;
    }
    ui.note("memory");
    let lengths = serving::lengths(args.requests)?;
    ui.note("threads");
    let digests = serving::digests()?;
    let record = Record {
        schema: "isotherm.bench-sim/v1",
        tool_version: TOOL_VERSION,
        machine: crate::trust::host_id(),
        queues,
        speeds,
        trace,
        trace_stated: VIDUR_STATED,
        lengths,
        peers: agreement,
        digests,
        notes,
    };
    let text = describe(&record);
    if let Some(folder) = &args.output {
        files::write_json(&folder.join("sim.json"), &record)?;
        files::write(&folder.join("sim.txt"), text.as_bytes())?;
    }
    ui.result(&record, || text)
}

fn cells<const N: usize>(heading: [&str; N]) -> Vec<Vec<String>> {
    vec![heading.map(str::to_owned).to_vec()]
}

fn millions(rate: f64) -> String {
    format!("{:.2} M/s", rate / 1e6)
}

fn memory(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "-".to_owned(), |bytes| Bytes(bytes).to_string())
}

fn describe(record: &Record) -> String {
    let mut text = String::from("event queue, holds per CPU second\n\n");
    let mut rows = cells(["pending", "isotherm", "BinaryHeap", "ratio", "order"]);
    rows.extend(record.queues.iter().map(|row| {
        vec![
            row.pending.to_string(),
            millions(row.queue_events_per_second),
            millions(row.heap_events_per_second),
            format!("{:.2}", row.ratio),
            if row.same_order { "same" } else { "DIFFERENT" }.to_owned(),
        ]
    }));
    text += &table(&rows, &[0, 1, 2, 3]);
    text += "\nserving, two replicas, one core, generated load\n\n";
    let heading = ["run", "requests", "tokens", "CPU", "tokens per CPU second", "requests per CPU second", "peak"];
    let serving = |row: &serving::Row| {
        vec![
            row.run.clone(),
            row.requests.to_string(),
            row.output_tokens.to_string(),
            format!("{:.4} s", row.cpu_seconds),
            millions(row.output_tokens_per_cpu_second),
            format!("{:.0}", row.requests_per_cpu_second),
            memory(row.peak_bytes),
        ]
    };
    let mut rows = cells(heading);
    rows.extend(record.speeds.iter().map(serving));
    text += &table(&rows, &[1, 2, 3, 4, 5, 6]);
    if let Some(trace) = &record.trace {
        text += "\nwhole conversation trace of Azure 2023, two replicas in turn, one core\n\n";
        let mut rows = cells(heading);
        rows.push(serving(trace));
        let stated = record.trace_stated;
        rows.push(vec![
            format!("{}, stated", stated.peer),
            trace.requests.to_string(),
            trace.output_tokens.to_string(),
            format!("{} s", stated.cpu_seconds),
            millions(trace.output_tokens as f64 / stated.cpu_seconds),
            format!("{:.0}", f64::from(trace.requests) / stated.cpu_seconds),
            memory(Some(stated.peak_bytes)),
        ]);
        text += &table(&rows, &[1, 2, 3, 4, 5, 6]);
        text += &format!("\n  {:.0} times fewer CPU seconds\n", stated.cpu_seconds / trace.cpu_seconds);
    }
    text += "\nmemory by number of requests, one core\n\n";
    let mut rows = cells(heading);
    rows.extend(record.lengths.iter().map(serving));
    text += &table(&rows, &[1, 2, 3, 4, 5, 6]);
    if !record.peers.is_empty() {
        text += "\nrequest by request against the peers' own answers\n\n";
        let mut rows = cells(["policy", "peer", "requests", "worst TTFT", "worst E2E", "off by more than 1e-6"]);
        rows.extend(record.peers.iter().map(|row| {
            vec![
                row.policy.clone(),
                row.peer.to_owned(),
                row.requests.to_string(),
                format!("{:.1e}", row.worst_ttft),
                format!("{:.1e}", row.worst_e2e),
                row.differing.to_string(),
            ]
        }));
        text += &table(&rows, &[2, 3, 4, 5]);
    }
    text += "\ndigest of eight replications with heat, by threads\n\n";
    let mut rows = cells(["threads", "digest"]);
    rows.extend(record.digests.iter().map(|(threads, digest)| vec![threads.to_string(), digest.to_string()]));
    text += &table(&rows, &[0]);
    text.extend(record.notes.iter().map(|note| format!("\n  {note}\n")));
    text
}
