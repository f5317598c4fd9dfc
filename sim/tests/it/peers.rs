//! The peers' policies against the peers: request by request, on the same trace and the same times of steps.
//!
//! The answers of Vidur (7d47513) and SplitwiseSim (8f99e7d) lie in a folder of measured data beside the checkout.

#![expect(
    clippy::disallowed_methods,
    reason = "the simulator reads no files, but what it is compared with lies in some"
)]

use isotherm_core::check::FeasiblePlan;
use isotherm_core::problem::PlacementProblem;
use isotherm_core::scenario::{Kind, Scenario};
use isotherm_core::trace::{RequestRecord, Trace};
use isotherm_core::workload::replay::Replay;
use isotherm_sim::policy::PolicyName;
use isotherm_sim::{Options, replay};
use std::path::{Path, PathBuf};

/// A file of the data folder; none, with a word, where there is none.
pub fn shared(test: &str, name: &str) -> Option<String> {
    let roots = std::env::var_os("ISOTHERM_SHARED").map(PathBuf::from).into_iter();
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join("shared");
    let found = roots.chain([beside]).map(|root| root.join("data").join(name)).find(|path| path.is_file());
    if found.is_none() {
        eprintln!("skipped: {test}: no {name} under ISOTHERM_SHARED or a shared/ folder beside the checkout");
    }
    found.map(|path| std::fs::read_to_string(path).expect("a readable file"))
}

/// So many replicas of the measured DGX H100, with these limits.
pub fn replicas(count: u32, serving: &str) -> (PlacementProblem, FeasiblePlan) {
    let text = format!(
        "name = \"peers\"\nquestion = \"?\"\n[model]\nname = \"llama-2-70b-f16\"\n[[devices]]\ntable = \
         \"dgx-h100-tp8\"\nname = \"dgx\"\ncount = {count}\n[objective]\nmaximise = \"throughput\"\n[serving]\n{serving}"
    );
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    let mut lookup = |kind: Kind, name: &str| {
        let place = if matches!(kind, Kind::Model) { "models" } else { "devices" };
        std::fs::read_to_string(folder.join(place).join(format!("{name}.toml"))).map_err(|_| Vec::new())
    };
    let scenario = Scenario::parse(&text, &mut lookup).unwrap_or_else(|faults| panic!("{faults:?}"));
    let problem = scenario.problem(None, None).expect("a problem");
    let plan = crate::material::replicas_of(&problem);
    (problem, plan)
}

/// What Vidur and the knowledge of its configuration say.
const VIDUR: &str = "requests_max = 512\nkv_blocks = 100000\nkv_watermark = 0.01\n";

fn trace(policy: PolicyName, count: u32, serving: &str, load: &str) -> Trace {
    let (problem, plan) = replicas(count, serving);
    let load = Replay::parse(load).expect("a load");
    let options = Options { policy, trace: true, ..Options::default() };
    let watched = replay(&plan, &problem, &load, &options).expect("simulates");
    // Where nobody asks whom a batch serves, Vidur's policies on one stage keep sums in the place of lists: the same run.
    let alone = replay(&plan, &problem, &load, &Options { trace: false, ..options }).expect("simulates");
    assert_eq!(watched.digest, alone.digest, "{policy}");
    watched.trace.expect("asked for")
}

/// Rows of a CSV file as numbers.
fn rows(text: &str) -> Vec<Vec<f64>> {
    text.lines().skip(1).map(|row| row.split(',').map(|field| field.parse().expect("a number")).collect()).collect()
}

fn seconds(record: &RequestRecord) -> [f64; 2] {
    [record.ttft().seconds().value(), record.e2e().seconds().value()]
}

/// Largest relative difference between two times, over all requests.
fn worst(trace: &Trace, answers: &[(usize, [f64; 2])]) -> f64 {
    assert_eq!(trace.requests.len(), answers.len());
    let difference = |&(id, theirs): &(usize, [f64; 2])| {
        let ours = seconds(&trace.requests[id]);
        (0..2).map(|i| (ours[i] / theirs[i] - 1.0).abs()).fold(0.0, f64::max)
    };
    answers.iter().map(difference).fold(0.0, f64::max)
}

fn agrees_with_vidur(test: &str, policy: PolicyName, step: u32) {
    let Some(load) = shared(test, "peers/azure-conv-2000.csv") else { return };
    let Some(answers) = shared(test, &format!("peers/{policy}-2000.csv")) else { return };
    let trace = trace(policy, 1, &format!("step_tokens_max = {step}\n{VIDUR}"), &load);
    let answers: Vec<_> = rows(&answers).iter().map(|row| (row[0] as usize, [row[4], row[5]])).collect();
    let worst = worst(&trace, &answers);
    // Times are whole nanoseconds here and doubles there: of a first token after 0.03 s that is 3e-8 at most.
    assert!(worst < 5e-8, "the worst of {} requests differs by {worst:e}", answers.len());
}

#[test]
fn every_request_takes_the_time_that_vidur_says_under_vllm() {
    agrees_with_vidur("every_request_takes_the_time_that_vidur_says_under_vllm", PolicyName::VidurVllm, 8192);
}

#[test]
fn every_request_takes_the_time_that_vidur_says_under_sarathi() {
    agrees_with_vidur("every_request_takes_the_time_that_vidur_says_under_sarathi", PolicyName::VidurSarathi, 2048);
}

#[test]
fn every_request_takes_the_time_that_splitwise_says() {
    let test = "every_request_takes_the_time_that_splitwise_says";
    let Some(load) = shared(test, "peers/azure-conv-2000.csv") else { return };
    let Some(answers) = shared(test, "peers/splitwise-2000.csv") else { return };
    // Its memory less its weights, over two numbers of two bytes for each of 64 heads' 128 and 80 layers.
    let tokens = (8_u64 * 85_899_345_920 - 135_000_000_000) / (2 * 8192 * 80 * 2);
    let serving = format!("requests_max = 512\nstep_tokens_max = 8192\nkv_block_tokens = 1\nkv_blocks = {tokens}\n");
    let trace = trace(PolicyName::Splitwise, 1, &serving, &load);
    let answers: Vec<_> = rows(&answers).iter().map(|row| (row[0] as usize, [row[3], row[1]])).collect();
    let worst = worst(&trace, &answers);
    assert!(worst < 5e-8, "the worst of {} requests differs by {worst:e}", answers.len());
}

/// A prefill step of 374 tokens and 43 steps of one decode, on the published table.
#[test]
fn a_lone_request_takes_the_time_of_its_steps() {
    let load = "arrived_at,num_prefill_tokens,num_decode_tokens\n0.0,374,44\n";
    for policy in PolicyName::ALL {
        let trace = trace(policy, 1, &format!("step_tokens_max = 2048\n{VIDUR}"), load);
        let [ttft, e2e] = seconds(&trace.requests[0]);
        assert!((ttft - 0.052_672_326_913_125_29).abs() < 2e-9, "{policy}: {ttft}");
        assert!((e2e - 1.405_719_752_671_821_3).abs() < 2e-9, "{policy}: {e2e}");
    }
}
