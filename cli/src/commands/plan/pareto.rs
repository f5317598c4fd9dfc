//! `isotherm plan --pareto`: plans of which none is better than another in every respect.

use crate::args::Plan as PlanArgs;
use crate::args::planning::FrontierAxis;
use crate::failure::{Code, Done, Failure};
use crate::ui::{Ui, table};
use crate::{files, interrupt};
use isotherm_core::artefact::Header;
use isotherm_core::frontier::{Asked, FRONTIER_SCHEMA, Frontier, FrontierPoint};
use isotherm_core::problem::{Objective, PlacementProblem};
use isotherm_core::units::Seconds;
use isotherm_planner::Budget;
use isotherm_planner::pareto::{Point, Vouched, frontier};
use serde::Serialize;
use std::time::Instant;

#[derive(Serialize)]
struct Row {
    vouched: &'static str,
    /// How much better a plan for its objective and goals might be.
    #[serde(skip_serializing_if = "Option::is_none")]
    gap: Option<f64>,
    figures: Vec<f64>,
    devices: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
}

/// Shows the frontier, and writes its plans where asked.
pub fn show(ui: &Ui, problem: &PlacementProblem, args: &PlanArgs) -> Done {
    let asked = &args.frontier;
    let begin = Instant::now();
    let remaining = || Seconds::of(args.time_limit.value() - begin.elapsed().as_secs_f64());
    let budget = Budget { remaining: Some(&remaining), interrupt: Some(interrupt::flag()), ..Budget::default() };
    let axes: Vec<Objective> = asked.pareto.iter().map(|axis| (*axis).into()).collect();
    let points = frontier(problem, &axes, &budget)
        .map_err(|e| Failure::new(Code::Limit, format!("failed to plan {}: {e}", problem.name)))?;
    if points.is_empty() {
        let what = format!("{} has no plan with all of these figures", problem.name);
        return Err(Failure::new(Code::Infeasible, what)
            .remedy("for energy, state idle_power and busy_power of every device; for money, [prices]"));
    }
    let mut rows = Vec::new();
    for (i, point) in points.iter().enumerate() {
        let file = asked.pareto_out.as_ref().map(|folder| folder.join(format!("{}.json", i + 1)));
        if let Some(file) = &file {
            files::write_json(file, point.plan.plan())?;
        }
        rows.push(Row {
            vouched: word(point.vouched),
            gap: point.gap,
            figures: point.figures.clone(),
            devices: point.plan.plan().stages.iter().flat_map(|stage| stage.devices.clone()).collect(),
            file: file.map(|file| file.display().to_string()),
        });
    }
    if let Some(folder) = &asked.pareto_out {
        files::write_json(&folder.join("frontier.json"), &stored(problem, args, &points))?;
    }
    ui.result(&rows, || described(&asked.pareto, &points, &rows))
}

/// The frontier as an artefact, for pages.
fn stored(problem: &PlacementProblem, args: &PlanArgs, points: &[Point]) -> Frontier {
    let inputs = points.first().map_or_else(Vec::new, |point| point.plan.plan().header.inputs.clone());
    let axis = |axis: &FrontierAxis| {
        let (objective, (name, unit)) = (Objective::from(*axis), axis.words());
        isotherm_core::frontier::FrontierAxis {
            objective: objective.name().to_owned(),
            name: name.to_owned(),
            unit: unit.to_owned(),
            maximise: objective.maximises(),
        }
    };
    let point = |(i, point): (usize, &Point)| FrontierPoint {
        file: format!("{}.json", i + 1),
        plan: point.plan.plan().digest(),
        figures: point.figures.clone(),
        vouched: word(point.vouched).to_owned(),
        gap: point.gap,
        devices: point.plan.plan().stages.iter().flat_map(|stage| stage.devices.clone()).collect(),
    };
    Frontier {
        header: Header::new(FRONTIER_SCHEMA, inputs),
        scenario: problem.name.clone(),
        asked: Asked {
            ambient_celsius: args.sources.ambient,
            pinned: args.sources.pin.clone(),
            banned: args.sources.ban.clone(),
        },
        axes: args.frontier.pareto.iter().map(axis).collect(),
        points: points.iter().enumerate().map(point).collect(),
        command: line(args),
    }
}

/// The command line that makes it, by the names of files and not by where they lie on this machine.
fn line(args: &PlanArgs) -> String {
    let name = |path: &std::path::Path| path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    let mut line = format!("isotherm plan {}", name(&args.scenario));
    if let Some(devices) = &args.sources.devices {
        line.push_str(&format!(" --devices {}", name(devices)));
    }
    if let Some(model) = &args.sources.model {
        line.push_str(&format!(" --model {}", name(model.as_ref())));
    }
    if let Some(ambient) = args.sources.ambient {
        line.push_str(&format!(" --ambient '{} °C'", ambient.value()));
    }
    line.extend(args.sources.pin.iter().map(|device| format!(" --pin {device}")));
    line.extend(args.sources.ban.iter().map(|device| format!(" --ban {device}")));
    let goals = &args.goals;
    for (option, limit) in [
        ("throughput-min", goals.throughput_min),
        ("energy-max", goals.energy_max),
        ("money-max", goals.money_max),
        ("money-per-hour-max", goals.money_per_hour_max),
    ] {
        line.extend(limit.map(|limit| format!(" --{option} {limit}")));
    }
    if args.cold {
        line.push_str(" --cold");
    }
    line.push_str(&format!(" --time-limit '{} s'", args.time_limit.value()));
    let axes: Vec<String> = args.frontier.pareto.iter().map(|axis| axis.option()).collect();
    format!("{line} --pareto {} --pareto-out frontier", axes.join(","))
}

const fn word(vouched: Vouched) -> &'static str {
    match vouched {
        Vouched::Certified => "certified",
        Vouched::Solver => "solver",
        Vouched::Heuristic => "heuristic",
    }
}

fn described(axes: &[FrontierAxis], points: &[Point], rows: &[Row]) -> String {
    let mut heading = vec!["".to_owned()];
    heading.extend(axes.iter().map(|axis| axis.heading().to_owned()));
    heading.extend(["vouched", "gap", "devices"].map(str::to_owned));
    let mut cells = vec![heading];
    for (i, (point, row)) in points.iter().zip(rows).enumerate() {
        let mut line = vec![(i + 1).to_string()];
        line.extend(axes.iter().zip(&point.figures).map(|(axis, figure)| axis.shown(*figure)));
        let gap = row.gap.map_or_else(|| "-".to_owned(), |gap| format!("{:.2} %", gap * 100.0));
        line.extend([row.vouched.to_owned(), gap, row.devices.join(" > ")]);
        cells.push(line);
    }
    let right: Vec<usize> = (0..=axes.len()).collect();
    table(&cells, &right)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser;

    fn parsed(words: &[&str]) -> PlanArgs {
        match Cli::try_parse_from(words).expect("a command line").command {
            Command::Plan(args) => args,
            _ => panic!("another command"),
        }
    }

    #[test]
    fn the_line_of_a_frontier_asks_for_the_same_again() {
        let asked = [
            "isotherm",
            "plan",
            "a.toml",
            "--ambient",
            "-5.5 °C",
            "--pin",
            "one",
            "--pin",
            "two",
            "--ban",
            "three",
            "--money-max",
            "2.5",
            "--cold",
            "--time-limit",
            "90 s",
            "--pareto",
            "throughput,latency",
            "--pareto-out",
            "frontier",
        ];
        let line = line(&parsed(&asked));
        // As a shell takes it apart: what stands between quotes is one word.
        let parts: Vec<&str> = line.split('\'').collect();
        let words: Vec<&str> = parts
            .iter()
            .enumerate()
            .flat_map(|(i, part)| if i % 2 == 1 { vec![*part] } else { part.split_whitespace().collect() })
            .collect();
        let again = parsed(&words);
        let before = parsed(&asked);
        assert_eq!(format!("{again:?}"), format!("{before:?}"), "{line}");
    }
}
