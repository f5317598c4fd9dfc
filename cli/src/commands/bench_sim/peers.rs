//! Request by request against the peers' own answers, on the first 2,000 requests of a recorded trace.

use super::serving::{Replicas, VIDUR};
use crate::failure::Failure;
use crate::files;
use isotherm_core::workload::replay::Replay;
use isotherm_sim::Options;
use isotherm_sim::policy::PolicyName;
use serde::Serialize;
use std::path::Path;

/// One peer.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Row {
    pub policy: String,
    pub peer: &'static str,
    pub requests: usize,
    /// Largest relative difference of the time to the first token, over all requests, and of that to the last.
    pub worst_ttft: f64,
    pub worst_e2e: f64,
    /// Requests of which either differs by more than a millionth.
    pub differing: usize,
}

/// A peer's answers: its policy, who it is, its file, the limits of its run, the columns of request, first and last token.
struct Peer {
    policy: PolicyName,
    name: &'static str,
    file: &'static str,
    serving: String,
    columns: [usize; 3],
}

/// Cache of SplitwiseSim in tokens: eight times 85,899,345,920 bytes less 135 GB of weights, over two numbers of two
/// bytes for each of 8,192 and of 80 layers.
const SPLITWISE_TOKENS: u64 = (8 * 85_899_345_920 - 135_000_000_000) / (2 * 8192 * 80 * 2);

pub(super) fn rows(data: &Path) -> Result<Vec<Row>, Failure> {
    let peers = [
        Peer {
            policy: PolicyName::VidurVllm,
            name: "Vidur 7d47513",
            file: "vidur-vllm-2000.csv",
            serving: format!("step_tokens_max = 8192\n{VIDUR}"),
            columns: [0, 4, 5],
        },
        Peer {
            policy: PolicyName::VidurSarathi,
            name: "Vidur 7d47513",
            file: "vidur-sarathi-2000.csv",
            serving: format!("step_tokens_max = 2048\n{VIDUR}"),
            columns: [0, 4, 5],
        },
        Peer {
            policy: PolicyName::Splitwise,
            name: "SplitwiseSim 8f99e7d",
            file: "splitwise-2000.csv",
            serving: format!(
                "requests_max = 512\nstep_tokens_max = 8192\nkv_block_tokens = 1\nkv_blocks = {SPLITWISE_TOKENS}\n"
            ),
            columns: [0, 3, 1],
        },
    ];
    let folder = data.join("peers");
    let text = files::read_text(&folder.join("azure-conv-2000.csv"))?;
    let load = Replay::parse(&text).map_err(|e| Failure::io(format!("azure-conv-2000.csv: {e}")))?;
    peers.into_iter().map(|peer| row(&folder, &load, &peer)).collect()
}

fn row(folder: &Path, load: &Replay, peer: &Peer) -> Result<Row, Failure> {
    let path = folder.join(peer.file);
    let text = files::read_text(&path)?;
    let one = Replicas::new(1, &peer.serving, "", false)?;
    let report = one.replay(load, &Options { policy: peer.policy, trace: true, ..Options::default() })?;
    let requests = report.trace.map(|trace| trace.requests).unwrap_or_default();
    let (mut worst_ttft, mut worst_e2e, mut differing, mut seen) = (0.0_f64, 0.0_f64, 0, 0);
    for line in text.lines().skip(1) {
        let fields: Vec<f64> = line.split(',').map_while(|field| field.parse().ok()).collect();
        let [id, ttft, e2e] = peer.columns.map(|column| fields.get(column).copied().unwrap_or(f64::NAN));
        let Some(ours) = requests.get(id as usize).filter(|_| id >= 0.0) else {
            return Err(Failure::io(format!("{} names request {id}, which was not simulated", path.display())));
        };
        let off = |ours: f64, theirs: f64| (ours / theirs - 1.0).abs();
        let (first, last) = (off(ours.ttft().seconds().value(), ttft), off(ours.e2e().seconds().value(), e2e));
        (worst_ttft, worst_e2e) = (worst_ttft.max(first), worst_e2e.max(last));
        differing += usize::from(!(first <= 1e-6 && last <= 1e-6));
        seen += 1;
    }
    Ok(Row { policy: peer.policy.to_string(), peer: peer.name, requests: seen, worst_ttft, worst_e2e, differing })
}
