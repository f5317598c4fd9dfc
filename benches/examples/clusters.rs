//! Plans made-up clusters and prints one row each: what was found, how well it is bounded, and what it cost.
//!
//! `cargo run --profile dev --example clusters -- SET FIRST_SEED LAST_SEED [SECONDS]`; `SET` is a name of
//! [`isotherm_benches::clusters::SETS`] or `all`. With `CPU` in the environment, seconds are those of the processor, which
//! is fairer where others use the machine; with `TELL`, progress is told; with `PLAN`, the stages are listed.

use isotherm_benches::clusters::{Recipe, SETS, cluster};
use isotherm_core::units::Seconds;
use isotherm_planner::{Budget, Progress, plan};
use std::time::Instant;

/// Seconds of processor time of this process so far, and its greatest memory in MiB; zero where the system keeps no
/// such record.
fn spent() -> (f64, f64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks = |i: usize| stat.rsplit(')').next().and_then(|s| s.split_whitespace().nth(i)?.parse::<f64>().ok());
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak =
        status.lines().find_map(|l| l.strip_prefix("VmHWM:")?.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
    ((ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) / 100.0, peak.unwrap_or(0.0) / 1024.0)
}

fn row(recipe: &Recipe, seed: u64, seconds: f64) {
    let problem = cluster(recipe, seed);
    let classes: std::collections::BTreeSet<_> = problem.graph.devices().iter().map(|d| &d.class).collect();
    let (before, begun) = (spent().0, Instant::now());
    let by_processor = std::env::var_os("CPU").is_some();
    let passed = || if by_processor { spent().0 - before } else { begun.elapsed().as_secs_f64() };
    let left = || Seconds::of((seconds - passed()).max(0.0));
    let tell = |progress: Progress| {
        if std::env::var_os("TELL").is_some() {
            eprintln!("{:7.2} {progress:?}", begun.elapsed().as_secs_f64());
        }
    };
    let budget = Budget { remaining: Some(&left), progress: Some(&tell), ..Budget::default() };
    let outcome = plan(&problem, &budget);
    let (wall, (after, peak)) = (begun.elapsed().as_secs_f64(), spent());
    let found = outcome.as_ref().ok().and_then(|outcome| outcome.plan());
    let Some(plan) = found.map(|found| found.plan().clone()) else {
        println!("{:10} {seed:3}: {outcome:?}", recipe.name);
        return;
    };
    if std::env::var_os("PLAN").is_some() {
        let mut stages: Vec<_> = plan.stages.iter().collect();
        stages.sort_by_key(|stage| (stage.layers.start, stage.layers.end));
        for stage in stages {
            let device = problem.graph.find(&stage.devices[0]).map(|id| problem.graph.device(id));
            let (class, site) = device.map_or(("", ""), |d| (d.class.as_str(), d.site.as_deref().unwrap_or("")));
            println!("  {:3}..{:3} {class} {site}", stage.layers.start, stage.layers.end);
        }
    }
    let begun = Instant::now();
    plan.clone().check(&problem).expect("a plan that was checked");
    let checked = begun.elapsed().as_secs_f64();
    let certificate = plan.certificate.as_ref().expect("a certificate");
    let evidence = certificate
        .evidence
        .as_ref()
        .map(|e| format!("{e:?}").chars().take_while(|c| c.is_alphanumeric()).collect::<String>());
    println!(
        "{:10} {seed:3} N {:3} classes {:2} sites {} value {:10.3} bound {:10.3} gap {:7.3} % {:9} {:16} {:28} cpu {:6.2} wall {:6.2} check {:5.2} rss {:5.0}",
        recipe.name,
        problem.graph.devices().len(),
        classes.len(),
        recipe.sites,
        certificate.objective,
        certificate.bound.unwrap_or(f64::INFINITY),
        certificate.gap.unwrap_or(f64::INFINITY) * 100.0,
        format!("{:?}", certificate.bound_kind),
        evidence.unwrap_or_default(),
        certificate.method,
        after - before,
        wall,
        checked,
        peak,
    );
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default: f64| arguments.get(i).and_then(|a| a.parse().ok()).unwrap_or(default);
    let set = arguments.first().map_or("all", String::as_str);
    for recipe in SETS.iter().filter(|recipe| set == "all" || recipe.name == set) {
        for seed in number(1, 1.0) as u64..=number(2, 1.0) as u64 {
            row(recipe, seed, number(3, 20.0));
        }
    }
}
