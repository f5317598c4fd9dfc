//! `isotherm explain`: why a plan is as it is, and what would change it.

use crate::args::Explain;
use crate::commands::plan::{self, certificate_words};
use crate::failure::{Code, Done, Failure};
use crate::interrupt;
use crate::ui::{Ui, percent, plain_percent, table};
use isotherm_core::check::Violation;
use isotherm_core::plan::{Plan, Unused};
use isotherm_core::sustained::Subject;
use isotherm_core::units::{BytesPerSecond, Seconds};
use isotherm_planner::{BreakEven, Budget, DivisionWorth, Explanation, HeatCost, SplitVerdict, Worth};
use serde::Serialize;
use std::time::Instant;

/// A share that is printed as 0.0 %.
const NOTHING: f64 = 5e-4;

/// What is printed, for programs.
#[derive(Serialize)]
struct Answer<'a> {
    status: isotherm_core::plan::Status,
    reasons: &'a [String],
    bottleneck: Option<&'a str>,
    tight_memory: Vec<Tight<'a>>,
    unused: &'a [Unused],
    split: Option<Split>,
    division: Option<Division<'a>>,
    heat: Option<Heat>,
    /// Without each of the goals.
    goals: Vec<Lifted>,
    without: Vec<Value<'a>>,
    one_more: Vec<Value<'a>>,
    /// Devices and classes of which there was no time to ask.
    unasked: &'a [String],
}

#[derive(Serialize)]
struct Tight<'a> {
    device: &'a str,
    left_bytes: u64,
    next_layer_bytes: u64,
}

/// Whether it pays to split the model, and where that turns; a threshold is absent where no figure turns it.
#[derive(Serialize)]
struct Split {
    pays: bool,
    objective_value_whole: Option<f64>,
    pays_below_latency_seconds: Option<f64>,
    pays_above_bandwidth_bytes_per_second: Option<f64>,
}

/// What dividing prompts from answers is worth; a value is absent where there is no such plan.
#[derive(Serialize)]
struct Division<'a> {
    divided_objective_value: Option<f64>,
    prefill: &'a [String],
    whole_objective_value: Option<f64>,
}

/// What heat and power cost.
#[derive(Serialize)]
struct Heat {
    air_celsius: f64,
    /// As if nothing got hot.
    cold_objective_value: Option<f64>,
    /// Without each limit that binds.
    lifted: Vec<Lifted>,
}

#[derive(Serialize)]
struct Lifted {
    limit: String,
    objective_value: Option<f64>,
}

#[derive(Serialize)]
struct Value<'a> {
    name: &'a str,
    objective_value: Option<f64>,
    gain: Option<f64>,
    /// Whether nothing better is possible then.
    proven: bool,
}

/// Runs the command.
pub fn run(ui: &Ui, args: &Explain) -> Done {
    let (stored, mut question) = plan::load_plan(ui, &args.question)?;
    let violations: Vec<Violation> = stored.violations(&question.problem);
    if !violations.is_empty() {
        let what = format!("{} against {}", args.question.plan.display(), args.question.scenario.display());
        return Err(Failure::all(Code::Verification, what, &violations));
    }
    // A plan that does not care for heat is compared with others that do not.
    question.problem.limits.cold |= stored.status.has_plan() && stored.sustained.is_none();
    // What was asked of it beside the scenario is asked of the others too.
    for goal in &stored.goals {
        if !question.problem.limits.goals.contains(goal) {
            question.problem.limits.goals.push(*goal);
        }
    }
    let begin = Instant::now();
    let remaining = || Seconds::of(args.time_limit.value() - begin.elapsed().as_secs_f64());
    let budget = Budget { remaining: Some(&remaining), interrupt: Some(interrupt::flag()), ..Budget::default() };
    let found = isotherm_planner::explain(&question.problem, &stored, &budget)
        .map_err(|e| Failure::new(Code::Limit, format!("failed to explain {}: {e}", question.problem.name)))?;
    let answer = Answer {
        status: stored.status,
        reasons: &stored.reasons,
        bottleneck: found.bottleneck.as_deref(),
        tight_memory: found
            .tight
            .iter()
            .map(|t| Tight { device: &t.device, left_bytes: t.left.0, next_layer_bytes: t.next_layer.0 })
            .collect(),
        unused: &stored.unused,
        split: found.split.as_ref().map(|split| Split {
            pays: split.pays,
            objective_value_whole: split.whole,
            pays_below_latency_seconds: at(split.latency).map(Seconds::value),
            pays_above_bandwidth_bytes_per_second: at(split.bandwidth).map(BytesPerSecond::value),
        }),
        division: found.division.as_ref().map(|worth| Division {
            divided_objective_value: worth.divided,
            prefill: &worth.prefill,
            whole_objective_value: worth.whole,
        }),
        heat: found.heat.as_ref().map(|heat| Heat {
            air_celsius: heat.air.value(),
            cold_objective_value: heat.cold,
            lifted: heat
                .lifted
                .iter()
                .map(|(limit, value)| Lifted { limit: limit.to_string(), objective_value: *value })
                .collect(),
        }),
        goals: found
            .goals
            .iter()
            .map(|(goal, value)| Lifted { limit: goal.to_string(), objective_value: *value })
            .collect(),
        without: found.without.iter().map(value).collect(),
        one_more: found.one_more.iter().map(value).collect(),
        unasked: &found.unasked,
    };
    ui.result(&answer, || describe(&stored, &found))
}

fn at<T>(turn: BreakEven<T>) -> Option<T> {
    match turn {
        BreakEven::At(figure) => Some(figure),
        BreakEven::Always | BreakEven::Never => None,
    }
}

/// Whether it pays to split, in words.
fn split_words(plan: &Plan, split: &SplitVerdict) -> String {
    let whole = match split.whole {
        None => "no device holds the model by itself".to_owned(),
        Some(value) => format!("whole on devices by themselves it would be {}", plan::quantity(value, &plan.unit)),
    };
    let verdict = if split.pays { "splitting the model pays" } else { "do not split the model" };
    let turns = |what: &str, side: &str, turn: BreakEven<String>| match turn {
        BreakEven::At(figure) => format!("it pays where every way between two devices has a {what} {side} {figure}"),
        BreakEven::Always => format!("no {what} of the ways changes that it pays"),
        BreakEven::Never => format!("no {what} of the ways would make it pay"),
    };
    format!(
        "  {verdict}: {whole};\n  {}, {}\n",
        turns("latency", "below", shown(split.latency)),
        turns("bandwidth", "above", shown(split.bandwidth)),
    )
}

/// What dividing prompts from answers is worth, in words.
fn division_words(plan: &Plan, worth: &DivisionWorth) -> String {
    let value = |value: Option<f64>| {
        value.map_or_else(|| "there is no plan".to_owned(), |value| plan::quantity(value, &plan.unit))
    };
    let verdict = match (worth.divided, worth.whole) {
        (Some(divided), Some(whole)) if divided > whole => "dividing prompts from answers pays",
        (Some(_), None) => "only a division of prompts from answers fits",
        _ => "do not divide prompts from answers",
    };
    let on =
        if worth.prefill.is_empty() { String::new() } else { format!(" (prompts on {})", worth.prefill.join(", ")) };
    format!("  {verdict}: divided {}{on}, not divided {}\n", value(worth.divided), value(worth.whole))
}

fn shown<T: std::fmt::Display>(turn: BreakEven<T>) -> BreakEven<String> {
    match turn {
        BreakEven::At(figure) => BreakEven::At(figure.to_string()),
        BreakEven::Always => BreakEven::Always,
        BreakEven::Never => BreakEven::Never,
    }
}

fn value(worth: &Worth) -> Value<'_> {
    Value { name: &worth.name, objective_value: worth.objective, gain: worth.gain, proven: worth.proven }
}

fn describe(plan: &Plan, found: &Explanation) -> String {
    let mut text = format!("{}: {}\n", plan.scenario, certificate_words(plan));
    if !plan.reasons.is_empty() {
        text = format!("{}: no plan, because\n", plan.scenario);
        text.extend(plan.reasons.iter().map(|reason| format!("  {reason}\n")));
    }
    if let Some(bottleneck) = &found.bottleneck {
        // Of a plan for the least time it says nothing but what bounds its throughput.
        let what = if plan.unit == "s" { "its throughput is " } else { "" };
        text.push_str(&format!("\n  {what}held back by {bottleneck}\n"));
    }
    for tight in &found.tight {
        text.push_str(&format!(
            "  {} has {} left; one more layer needs {}\n",
            tight.device, tight.left, tight.next_layer
        ));
    }
    if let Some(split) = &found.split {
        text.push_str(&split_words(plan, split));
    }
    if let Some(worth) = &found.division {
        text.push_str(&division_words(plan, worth));
    }
    if let Some(heat) = &found.heat {
        text.push_str(&heat_words(plan, heat, &found.one_more));
    }
    text.push_str(&goal_words(plan, found));
    if !plan.unused.is_empty() {
        text.push_str("\n  not used:\n");
        text.extend(plan.unused.iter().map(|unused| format!("    {}: {}\n", unused.device, unused.reason)));
    }
    for (title, worths) in [("without", &found.without), ("one more", &found.one_more)] {
        if !worths.is_empty() {
            text.push('\n');
            text.push_str(&worth_table(plan, title, worths));
        }
    }
    if found.without.iter().chain(&found.one_more).any(|worth| !worth.proven) {
        text.push_str("\n  ~ the best that was found in the time: a longer search may find better (--time-limit)\n");
    }
    let better = found.without.iter().filter(|worth| worth.gain.is_some_and(|gain| gain >= 5e-4));
    if let Some(worth) = better.max_by(|a, b| a.gain.partial_cmp(&b.gain).unwrap_or(std::cmp::Ordering::Equal)) {
        text.push_str(&format!(
            "  this plan is not the best: without {} a better one was found; plan again\n",
            worth.name
        ));
    }
    if !found.unasked.is_empty() {
        text.push_str(&format!("\n  not asked for want of time (raise --time-limit): {}\n", found.unasked.join(", ")));
    }
    text
}

/// What each goal costs.
fn goal_words(plan: &Plan, found: &Explanation) -> String {
    let Some(value) = plan.objective_value else { return String::new() };
    let mut text = String::new();
    for (goal, without) in &found.goals {
        let Some(without) = *without else { continue };
        let gain = if plan.objective_name == "throughput" { without / value - 1.0 } else { 1.0 - without / value };
        let price =
            if gain.abs() < NOTHING { "costs nothing".to_owned() } else { format!("costs {}", plain_percent(gain)) };
        text.push_str(&format!(
            "\n  {goal} {price}: without it {} = {}\n",
            plan.objective_name,
            plan::quantity(without, &plan.unit)
        ));
    }
    text
}

/// What heat costs, what lifting each limit is worth, and whether cooling is worth more than one more device.
fn heat_words(plan: &Plan, heat: &HeatCost, one_more: &[Worth]) -> String {
    let Some(value) = plan.objective_value else { return String::new() };
    let better = |other: f64| if plan.unit == "s" { value / other - 1.0 } else { other / value - 1.0 };
    let mut text = String::new();
    if let Some(cold) = heat.cold {
        let lost = if plan.unit == "s" { 1.0 - cold / value } else { 1.0 - value / cold };
        let cold = plan::quantity(cold, &plan.unit);
        text.push_str(&format!(
            "\n  at {} this pile loses {:.1} % to heat and power: cold it would be {cold}\n",
            heat.air,
            lost * 100.0
        ));
    }
    let mut best: Option<(&Subject, f64)> = None;
    for (limit, lifted) in &heat.lifted {
        let Some(lifted) = *lifted else { continue };
        let gain = better(lifted);
        text.push_str(&format!(
            "    without the limit on {limit}: {}, {}\n",
            plan::quantity(lifted, &plan.unit),
            if gain.abs() < NOTHING { "the same".to_owned() } else { percent(gain) }
        ));
        if best.as_ref().is_none_or(|(_, known)| gain > *known) {
            best = Some((limit, gain));
        }
    }
    let device =
        one_more.iter().filter_map(|worth| Some((&worth.name, worth.gain?))).max_by(|a, b| a.1.total_cmp(&b.1));
    if let (Some((limit, gain)), Some((class, more))) = (best, device)
        && gain.max(more) >= NOTHING
    {
        let verdict = match gain - more {
            apart if apart.abs() < NOTHING => "is worth as much as",
            apart if apart > 0.0 => "is worth more than",
            _ => "is worth less than",
        };
        let what = match limit {
            Subject::Temperature(device) => format!("a fan on {device}, as strong as it takes,"),
            Subject::Power(scope) => format!("more power for {scope}"),
        };
        text.push_str(&format!("    {what} ({}) {verdict} one more {class} ({})\n", percent(gain), percent(more)));
    }
    text
}

fn worth_table(plan: &Plan, title: &str, worths: &[Worth]) -> String {
    let mut rows = vec![[title, &plan.objective_name, "change"].map(str::to_owned).to_vec()];
    rows.extend(worths.iter().map(|worth| {
        let objective = match worth.objective {
            None => "no plan".to_owned(),
            Some(value) if worth.proven => plan::quantity(value, &plan.unit),
            Some(value) => format!("~ {}", plan::quantity(value, &plan.unit)),
        };
        let change = worth.gain.map_or_else(String::new, |gain| match gain {
            g if g.abs() < NOTHING => "none".to_owned(),
            g if g > 0.0 => format!("{} better", plain_percent(g)),
            g => format!("{} worse", plain_percent(-g)),
        });
        vec![worth.name.clone(), objective, change]
    }));
    table(&rows, &[1, 2])
}
