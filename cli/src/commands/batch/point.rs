//! One point: its plan, its simulation, its row.

use super::points::{Named, Points};
use super::prepare::How;
use super::rows::{KEPT_SCHEMA, Kept, Row, Solve};
use super::store::Store;
use crate::failure::Failure;
use crate::usage::thread_seconds;
use crate::{files, interrupt, models, question};
use isotherm_core::artefact::{Header, TOOL_VERSION};
use isotherm_core::check::FeasiblePlan;
use isotherm_core::device::Device;
use isotherm_core::digest::Digest;
use isotherm_core::objective::evaluate;
use isotherm_core::plan::{Plan, Provenance, Status};
use isotherm_core::problem::{Objective, PlacementProblem};
use isotherm_core::record::{Attribution, Part, SimulationReport};
use isotherm_core::scenario::Prices;
use isotherm_core::sustained::{self, Envelope};
use isotherm_core::sweep;
use isotherm_planner::Budget;
use isotherm_sim::Options;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Plans that are remembered for points with the same placement problem.
const REMEMBERED_MAX: usize = 256;
/// Joules of a kilowatt hour.
const JOULES_PER_KWH: f64 = 3.6e6;

/// What progress is told of a point.
pub struct Done {
    /// Whether an earlier run had it.
    pub resumed: bool,
    /// Whether it has no answer.
    pub failed: bool,
    /// Its plan's gap.
    pub gap: Option<f64>,
}

/// Plans and simulates points.
pub struct Solver<'a> {
    store: &'a Store,
    how: &'a How,
    machine: String,
    /// Digest over the columns and the options, part of what decides a row.
    options: Digest,
    remembered: Mutex<(BTreeMap<Digest, Plan>, VecDeque<Digest>)>,
}

/// A point's question as it was read.
struct Asked {
    problem: PlacementProblem,
    prices: Prices,
    question: String,
    text: Digest,
}

impl<'a> Solver<'a> {
    /// A solver that keeps rows in a store.
    pub fn new(store: &'a Store, how: &'a How) -> Self {
        let options = serde_json::json!({ "how": { "seeds": how.seeds, "requests": how.requests, "gap": how.gap,
            "nodes": how.nodes }, "schema": KEPT_SCHEMA, "tool_version": TOOL_VERSION });
        let options = Digest::of_json(&options).expect("a JSON value has a canonical form");
        Self { store, how, machine: crate::trust::host_id(), options, remembered: Mutex::default() }
    }

    /// Makes one point's row and keeps it, unless it is there; none where an interrupt came first. `placement` is what was
    /// foreseen of it, where something was. A point that cannot
    /// be answered has a row that says so: only what cannot be written is an error.
    pub fn point(&self, points: &Points, order: u64, placement: Option<Digest>) -> Result<Option<Done>, Failure> {
        let named = points.name(order);
        let asked = self.asked(&named);
        let key = self.key(&named, asked.as_ref());
        if let Some(kept) = self.store.kept(&named.id, &key) {
            return Ok(Some(Done { resumed: true, failed: kept.row.status.is_none(), gap: kept.row.gap }));
        }
        let mut row = Row {
            point: named.id.to_string(),
            scenario: named.scenario.to_owned(),
            number: named.number,
            ..Row::default()
        };
        if let Ok(point) = &named.point {
            let pair =
                |(path, value): &(String, toml::Value)| (path.clone(), (sweep::shown(value), sweep::base_value(value)));
            row.varied = point.values.iter().map(pair).collect();
        }
        let mut solve = Solve { machine: Some(self.machine.clone()), ..Solve::default() };
        match asked {
            Err(why) => row.note = Some(why),
            Ok(asked) => {
                self.store.tables(named.path, &named.point)?;
                // One point that meets a fault of the program must not take the others with it.
                let answer = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    self.answer(&named, (&asked, placement), &mut row, &mut solve)
                }));
                match answer {
                    Ok(answer) => answer?,
                    Err(_) => {
                        let fresh = Row {
                            point: row.point,
                            scenario: row.scenario,
                            number: row.number,
                            varied: row.varied,
                            ..Row::default()
                        };
                        row = Row {
                            note: Some("a fault of isotherm stopped this point; see standard error".into()),
                            ..fresh
                        };
                    }
                }
                if interrupt::flag().load(Ordering::Relaxed) {
                    return Ok(None);
                }
            }
        }
        let done = Done { resumed: false, failed: row.status.is_none(), gap: row.gap };
        self.store.keep(&named.id, &Kept { schema: KEPT_SCHEMA.to_owned(), key, row, solve })?;
        Ok(Some(done))
    }

    /// The row of a point that was made. Errors: it is not there any more.
    pub fn kept(&self, points: &Points, order: u64) -> Result<Kept, Failure> {
        let id = points.ids()[order as usize];
        self.store.row(&id).ok_or_else(|| {
            Failure::io(format!("the row of point {id} is gone from {}", self.store.folder().display()))
                .remedy("let nobody change the folder of a batch while it runs, and run the command again")
        })
    }

    fn asked(&self, named: &Named<'_>) -> Result<Asked, String> {
        let point = named.point.as_ref().map_err(Clone::clone)?;
        // A table tells the number of faults; `isotherm scenario check` tells them all. Where the folder lies is no
        // part of a result: another machine has it elsewhere.
        let path = named.path.display().to_string();
        let file = format!("{}.toml", named.scenario);
        let folder = format!("{}/", named.path.parent().unwrap_or(std::path::Path::new("")).display());
        let brief = |failure: Failure| {
            let message = failure.message.replace(&path, &file);
            // A model file beside the scenario is named first.
            let message = message.strip_prefix(&folder).unwrap_or(&message);
            let mut lines = message.lines().map(str::trim).filter(|line| !line.is_empty());
            let first = lines.next().unwrap_or_default().trim_end_matches(':').to_owned();
            lines.next().map_or(first.clone(), |second| format!("{first}: {second}"))
        };
        let scenario = question::parse(named.path, &point.text).map_err(brief)?;
        let problem = question::of_scenario(named.path, &scenario).map_err(brief)?;
        let mut asked = Asked {
            problem,
            prices: scenario.prices.clone(),
            question: scenario.question.clone(),
            text: Digest::of(point.text.as_bytes()),
        };
        if let Some(requests) = self.how.requests {
            asked.problem.workload.requests = requests;
        }
        Ok(asked)
    }

    /// What decides a row: the point, what its tables and model say, and the options.
    fn key(&self, named: &Named<'_>, asked: Result<&Asked, &String>) -> Digest {
        let inputs = match asked {
            Ok(asked) => asked.problem.inputs.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
            Err(why) => why.clone(),
        };
        Digest::of(format!("{}\n{}\n{inputs}", named.id, self.options).as_bytes())
    }

    fn answer(
        &self,
        named: &Named<'_>,
        (asked, placement): (&Asked, Option<Digest>),
        row: &mut Row,
        solve: &mut Solve,
    ) -> Result<(), Failure> {
        let problem = &asked.problem;
        describe(asked, row);
        let (begin, cpu) = (Instant::now(), thread_seconds());
        let planned = self.plan(problem, placement);
        solve.plan_seconds = Some(begin.elapsed().as_secs_f64());
        solve.plan_cpu_seconds = Some(thread_seconds() - cpu);
        let (plan, feasible, reused) = match planned {
            Ok(planned) => planned,
            Err(why) => {
                row.note = Some(why);
                return Ok(());
            }
        };
        if interrupt::flag().load(Ordering::Relaxed) {
            return Ok(());
        }
        solve.reused = reused;
        solve.nodes = plan.certificate.as_ref().and_then(|certificate| certificate.nodes);
        planned_row(&plan, problem, &asked.prices, row);
        if let Ok(point) = &named.point {
            self.store.scenario(&asked.text, &point.text)?;
        }
        self.store.plan(&plan)?;
        let Some(feasible) = feasible else { return Ok(()) };
        let (begin, cpu) = (Instant::now(), thread_seconds());
        let options = Options {
            seeds: self.how.seeds,
            seed: 1,
            attribution: true,
            interrupt: Some(interrupt::flag()),
            ..Options::default()
        };
        let simulated = isotherm_sim::simulate(&feasible, problem, &problem.workload, &options);
        solve.simulate_seconds = Some(begin.elapsed().as_secs_f64());
        solve.simulate_cpu_seconds = Some(thread_seconds() - cpu);
        match simulated {
            Ok(report) => {
                row.simulation = Some(self.store.simulation(&report)?);
                simulated_row(&report, &asked.prices, row);
            }
            Err(why) => row.note = Some(models::causes(&why)),
        }
        Ok(())
    }

    /// The plan of a problem, and whether it was taken from a point with the same placement problem.
    fn plan(
        &self,
        problem: &PlacementProblem,
        foreseen: Option<Digest>,
    ) -> Result<(Plan, Option<FeasiblePlan>, bool), String> {
        let placement = foreseen.unwrap_or_else(|| placement(problem));
        let known = self.remembered.lock().ok().and_then(|remembered| remembered.0.get(&placement).cloned());
        if let Some(known) = known {
            let mut plan = Plan {
                header: Header { inputs: problem.inputs.clone(), ..known.header.clone() },
                scenario: problem.name.clone(),
                ..known
            };
            if matches!(plan.status, Status::Infeasible | Status::Unknown) {
                return Ok((plan, None, true));
            }
            // Temperatures are those of this point's air, also where they limit nothing.
            if plan.sustained.is_some() {
                plan.sustained = sustained::state(&plan, problem);
            }
            // What holds for the same placement problem holds here, and the checker says so again.
            if let Ok(feasible) = plan.clone().check(problem) {
                return Ok((plan, Some(feasible), true));
            }
        }
        let budget = Budget {
            nodes_max: self.how.nodes,
            gap_target: self.how.gap,
            interrupt: Some(interrupt::flag()),
            ..Budget::default()
        };
        let outcome = isotherm_planner::plan(problem, &budget).map_err(|e| format!("failed to plan: {e}"))?;
        let mut plan = outcome.artefact(problem);
        plan.provenance = Provenance::default();
        if !interrupt::flag().load(Ordering::Relaxed)
            && let Ok(mut remembered) = self.remembered.lock()
            && remembered.0.insert(placement, plan.clone()).is_none()
        {
            remembered.1.push_back(placement);
            if remembered.1.len() > REMEMBERED_MAX
                && let Some(oldest) = remembered.1.pop_front()
            {
                remembered.0.remove(&oldest);
            }
        }
        Ok((plan, outcome.plan().cloned(), false))
    }

    /// Which placement problem a point asks, and about how long planning takes; none where it cannot be read.
    pub fn foresee(&self, points: &Points, order: u64) -> Option<Foreseen> {
        let asked = self.asked(&points.name(order)).ok()?;
        let problem = &asked.problem;
        let devices = problem.graph.devices();
        let classes: BTreeSet<&str> = devices.iter().map(|device| device.class.as_str()).collect();
        let sites: BTreeSet<Option<&str>> = devices.iter().map(|device| device.site.as_deref()).collect();
        let each = if problem.objective == Objective::Tpot || problem.objective == Objective::Ttft { 1 } else { 8 };
        let effort = each * devices.len() * classes.len() * sites.len();
        Some(Foreseen { placement: placement(problem), effort: effort as u64 })
    }
}

/// What is known of a point's search before it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Foreseen {
    /// Points of the same have the same plan.
    pub placement: Digest,
    /// The more, the longer it takes, as far as one can tell: only the order of the work depends on it.
    pub effort: u64,
}

/// Digest over everything that planning sees: two problems with the same differ in name, load's pace and conditions
/// alone.
fn placement(problem: &PlacementProblem) -> Digest {
    // Air and chassis are seen where heat or power limits something, prices where something is paid for.
    let limited = !Envelope::of(problem).is_empty();
    let paid = problem.objective.spends() || !problem.limits.goals.is_empty();
    let mut devices = problem.graph.file().clone();
    devices.header.inputs.clear();
    let (workload, conditions) = (&problem.workload, &problem.conditions);
    // Thousands of links: the order of fields is enough where nobody else makes this digest, and takes a fraction of the time
    // that a canonical form takes.
    let seen = serde_json::to_vec(&(
        devices,
        &problem.model,
        (&workload.prompt_tokens, &workload.output_tokens),
        &problem.serving,
        problem.objective,
        &problem.limits,
        limited.then(|| sustained::hottest_air(problem)),
        limited.then_some(&conditions.chassis),
        paid.then(|| format!("{:?}", problem.prices)),
    ));
    Digest::of(&seen.expect("a problem was read from text and can be written"))
}

/// What is known before planning.
fn describe(asked: &Asked, row: &mut Row) {
    let problem = &asked.problem;
    let devices = problem.graph.devices();
    row.name = Some(problem.name.clone());
    row.question = Some(asked.question.clone());
    row.objective_name = Some(problem.objective.name().to_owned());
    row.unit = Some(problem.objective.unit().to_owned());
    row.model = Some(problem.model.name.clone());
    row.quantisation = Some(problem.model.quantisation.clone());
    row.devices = Some(devices.len() as u64);
    let mut classes: BTreeMap<&str, usize> = BTreeMap::new();
    devices.iter().for_each(|device| *classes.entry(&device.class).or_default() += 1);
    let pile: Vec<String> = classes.iter().map(|(class, count)| format!("{count} {class}")).collect();
    row.pile = Some(pile.join(", "));
    row.pile_price = asked.prices.sum(devices);
    row.currency = asked.prices.currency.clone();
    row.scenario_text = Some(asked.text);
    // Scenario, devices, model: the order in which a scenario states them.
    row.devices_digest = problem.inputs.get(1).copied();
    row.model_digest = problem.inputs.get(2).copied();
}

fn planned_row(plan: &Plan, problem: &PlacementProblem, prices: &Prices, row: &mut Row) {
    let certificate = plan.certificate.as_ref();
    row.status = Some(plan.status);
    row.objective_value = plan.objective_value;
    row.bound = certificate.and_then(|c| c.bound);
    row.gap = certificate.and_then(|c| c.gap).filter(|gap| gap.is_finite());
    row.bound_kind = certificate.map(|c| c.bound_kind);
    row.plan = Some(plan.digest());
    row.note = (!plan.reasons.is_empty()).then(|| plan.reasons.join("; "));
    if plan.stages.is_empty() {
        return;
    }
    row.stages = Some(plan.stages.len() as u64);
    row.routes = Some(plan.routes.len() as u64);
    row.batch = plan.batch.map(u64::from);
    let used: Vec<&str> = plan.stages.iter().flat_map(|stage| stage.devices.iter().map(String::as_str)).collect();
    row.devices_used = Some(used.len() as u64);
    row.bottleneck = evaluate(plan, problem).bottleneck.map(|bottleneck| bottleneck.to_string());
    let device = |name: &&str| problem.graph.find(name).map(|id| problem.graph.device(id));
    let devices: Option<Vec<&Device>> = used.iter().map(device).collect();
    row.used_price = devices.and_then(|devices| prices.sum(devices));
}

fn simulated_row(report: &SimulationReport, prices: &Prices, row: &mut Row) {
    let mut put = |name: String, value: Option<f64>| {
        if let Some(value) = value.filter(|value| value.is_finite()) {
            row.figures.insert(name, value);
        }
    };
    for metric in ["ttft", "tpot", "e2e"] {
        let key = format!("{metric}_seconds");
        let statistic = report.metrics.get(&key);
        put(key.clone(), statistic.map(|statistic| statistic.mean));
        put(format!("{metric}_ci95_seconds"), statistic.and_then(|statistic| statistic.ci95));
        // A percentile for which there are too few requests is no figure.
        for percentile in report.percentiles.get(&key).into_iter().flatten().filter(|p| p.is_supported()) {
            put(format!("{metric}_p{}_seconds", percentile.percent), Some(percentile.value));
        }
    }
    let rate = report.metrics.get("tokens_per_second");
    put("tokens_per_second".into(), rate.map(|rate| rate.mean));
    put("tokens_per_second_ci95".into(), rate.and_then(|rate| rate.ci95));
    put("goodput_share".into(), report.goodput.as_ref().map(|goodput| goodput.share));
    put("availability".into(), report.reliability.as_ref().map(isotherm_core::record::Reliability::availability));
    // Energy is known only where it is known of every device.
    let energy: Option<f64> = report.devices.iter().map(|device| device.energy_joules.map(|e| e.value())).sum();
    let tokens = f64::from(report.requests) * report.workload.output_tokens.mean();
    let per_token = energy.filter(|_| !report.devices.is_empty()).map(|energy| energy / tokens);
    put("energy_joules".into(), energy.filter(|_| !report.devices.is_empty()));
    put("joules_per_token".into(), per_token);
    let electricity = prices.electricity_per_kwh.zip(per_token).map(|(price, joules)| price * joules / JOULES_PER_KWH);
    put("electricity_per_million_tokens".into(), electricity.map(|price| price * 1e6));
    let warm = |device: &isotherm_core::record::DeviceSummary| {
        Some((device.temperature_max_celsius?.value(), device.name.clone()))
    };
    let hottest = report.devices.iter().filter_map(warm).max_by(|a, b| a.0.total_cmp(&b.0));
    put("temperature_max_celsius".into(), hottest.as_ref().map(|(celsius, _)| *celsius));
    let throttled: Vec<f64> = report.devices.iter().filter_map(|d| d.throttled_seconds).map(|t| t.value()).collect();
    put("throttled_seconds".into(), (!throttled.is_empty()).then(|| throttled.iter().sum()));
    let after = report.devices.iter().filter_map(|device| device.throttled_after_seconds).map(|t| t.value());
    put("throttled_after_seconds".into(), after.reduce(f64::min));
    row.throttled_devices =
        (!throttled.is_empty()).then(|| throttled.iter().filter(|seconds| **seconds > 0.0).count() as u64);
    row.hottest = hottest.map(|(_, name)| name);
    row.seeds = Some(report.seeds.into());
    row.requests = Some(report.requests.into());
    row.events = Some(report.digest);
    row.ttft_cause = cause(report.attribution.as_ref(), |part| part.ttft_seconds);
    row.tpot_cause = cause(report.attribution.as_ref(), |part| part.tpot_seconds);
}

/// The largest part of a time, in words.
fn cause(attribution: Option<&Attribution>, seconds: impl Fn(&Part) -> f64) -> Option<String> {
    let parts = attribution?.parts.iter().filter(|part| seconds(part) > 0.0);
    let most = parts.max_by(|a, b| seconds(a).total_cmp(&seconds(b)))?;
    let word = most.cause.word();
    Some(if most.place.is_empty() { word.to_owned() } else { format!("{word} on {}", most.place) })
}

/// The text of a scenario and its problem again, for a point taken out of a batch.
pub fn read_again(path: &std::path::Path) -> Result<PlacementProblem, Failure> {
    let scenario = question::parse(path, &files::read_text(path)?)?;
    question::of_scenario(path, &scenario)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const TEXT: &str = "name = \"a\"\nquestion = \"?\"\n[model]\nname = \"llama-3.1-8b-q4_0\"\n[[devices]]\n\
        table = \"rtx-4090\"\n[workload]\nrate = \"2 /s\"\nprompt_tokens = 128\noutput_tokens = 32\n[objective]\n\
        OBJECTIVE\n[environment]\nambient = \"20 °C\"\n[prices]\ncurrency = \"USD\"\nelectricity_per_kwh = 0.3\n";

    const WARM: &str = "table = \"rtx-4090\"\nidle_power = \"20 W\"\nhow = \"estimated\"\nsource = \"test\"\n\
        thermal = { resistance = \"0.125 K/W\", capacity = \"900 J/K\", throttle_at = \"83 °C\", \
        resume_at = \"78 °C\", throttled_speed = 0.7 }\n";

    fn asked(objective: &str, change: (&str, &str)) -> Digest {
        asked_of(TEXT, objective, change)
    }

    fn asked_of(text: &str, objective: &str, change: (&str, &str)) -> Digest {
        let text = text.replace("OBJECTIVE", objective).replace(change.0, change.1);
        let path = Path::new("a.toml");
        let scenario = question::parse(path, &text).expect("a scenario");
        placement(&question::of_scenario(path, &scenario).expect("a problem"))
    }

    #[test]
    fn points_ask_the_same_placement_problem_where_planning_sees_no_difference_and_else_do_not() {
        let (fast, cheap) = ("maximise = \"throughput\"", "minimise = \"money\"");
        let none = ("", "");
        let rate = ("2 /s", "5 /s");
        let price = ("kwh = 0.3", "kwh = 0.2");
        let air = ("20 °C", "45 °C");
        assert_eq!(asked(fast, none), asked(fast, rate));
        assert_eq!(asked(fast, none), asked(fast, price));
        assert_ne!(asked(cheap, none), asked(cheap, price), "what is paid for is seen");
        assert_eq!(asked(fast, none), asked(fast, air), "nothing is known of how the card warms");
        let warm = TEXT.replace("table = \"rtx-4090\"\n", WARM);
        assert_ne!(asked_of(&warm, fast, none), asked_of(&warm, fast, air), "the card throttles at a temperature");
        assert_ne!(asked(fast, none), asked(fast, ("output_tokens = 32", "output_tokens = 64")));
    }
}
