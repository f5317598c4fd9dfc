//! The frontier of a plan's question: drawn with the plan's own figures on it, or the command that makes one.

use crate::reading::Page;
use crate::sample;
use isotherm_core::artefact::Header;
use isotherm_core::digest::Digest;
use isotherm_core::frontier::{Asked, FRONTIER_SCHEMA, Frontier, FrontierAxis, FrontierPoint};
use isotherm_reports::{Report, Stored};

fn axis(objective: &str, unit: &str, maximise: bool) -> FrontierAxis {
    FrontierAxis { objective: objective.into(), name: objective.into(), unit: unit.into(), maximise }
}

/// The sample with a frontier of three plans for the question of its first plan.
fn with_frontier() -> Report {
    let mut report = sample::sample();
    let point = |i: u8, rate: f64, time: f64| FrontierPoint {
        file: format!("{i}.json"),
        plan: Digest::of(&[i]),
        figures: vec![rate, time],
        vouched: "certified".into(),
        gap: Some(0.0),
        devices: vec!["gpu-a".into(), "gpu-b".into()],
    };
    let value = Frontier {
        header: Header::new(FRONTIER_SCHEMA, report.cases[0].plan.header.inputs.clone()),
        scenario: "sample".into(),
        asked: Asked::default(),
        axes: vec![axis("throughput", "tok/s", true), axis("tpot", "s", false)],
        points: vec![point(1, 240.0, 0.016), point(2, 160.0, 0.012), point(3, 90.0, 0.011)],
        command: "isotherm plan sample.toml --pareto throughput,latency --pareto-out frontier".into(),
    };
    report.frontier = Some(Stored { file: "frontier.json".into(), digest: Digest::of(b"frontier"), value });
    report
}

fn marks(page: &Page) -> Vec<String> {
    let document = page.document();
    let section = document.descendants().find(|node| node.attribute("id") == Some("frontier")).expect("a section");
    let marks = section.descendants().filter(|node| node.attribute("class").is_some_and(|c| c.starts_with("mark g")));
    marks.filter_map(|node| node.first_element_child()?.text().map(str::to_owned)).collect()
}

#[test]
fn a_frontier_shows_its_plans_and_where_the_plan_and_its_runs_stand_among_them() {
    let report = with_frontier();
    let page = Page::of(&report);
    let marks = marks(&page);
    assert_eq!(marks.iter().filter(|words| words.starts_with("plan ")).count(), 3);
    let own = |what: &str| marks.iter().filter(|words| words.contains(what)).count();
    let asked = report.cases.iter().filter(|case| case.plan.header.inputs == report.cases[0].plan.header.inputs);
    let runs: usize = asked.clone().map(|case| case.runs.len()).sum();
    assert_eq!((own(", predicted: "), own(", run ")), (asked.count(), runs), "{marks:?}");
    assert_eq!(page.table("Plans of the frontier").expect("a table").len(), 1 + 3);
    assert!(page.words().contains("--pareto throughput,latency"), "the command that remakes it");
    assert!(page.markup().contains(&Digest::of(b"frontier").to_string()), "its digest");
}

#[test]
fn a_plan_for_another_question_is_not_drawn_on_the_frontier() {
    let mut report = with_frontier();
    if let Some(frontier) = &mut report.frontier {
        frontier.value.header.inputs = vec![Digest::of(b"another scenario")];
    }
    let page = Page::of(&report);
    assert_eq!(marks(&page).len(), 3, "only the plans of the frontier");
    assert!(page.words().contains("answer another scenario"));
}

#[test]
fn a_plan_that_is_a_point_of_the_frontier_stands_where_the_point_does() {
    let mut report = with_frontier();
    let digest = report.cases[0].plan.digest();
    if let Some(frontier) = &mut report.frontier {
        frontier.value.points[1].plan = digest;
    }
    let predicted = |report: &Report| -> Vec<String> {
        marks(&Page::of(report)).into_iter().filter(|words| words.contains(", predicted: ")).collect()
    };
    let at_point = |words: &&String| words.contains("throughput 160") && words.contains("tpot 12");
    assert_eq!(predicted(&report).iter().filter(at_point).count(), 1, "{:?}", predicted(&report));
    assert_eq!(predicted(&with_frontier()).iter().filter(at_point).count(), 0);
}

#[test]
fn a_plan_on_a_device_that_the_frontier_bans_is_not_drawn() {
    let mut report = with_frontier();
    let all = marks(&Page::of(&report)).len();
    let banned = report.cases[0].plan.stages[0].devices[0].clone();
    if let Some(frontier) = &mut report.frontier {
        frontier.value.asked.banned = vec![banned];
    }
    let page = Page::of(&report);
    assert!(marks(&page).len() < all && page.words().contains("were asked for otherwise"));
}

#[test]
fn without_a_frontier_the_page_says_how_to_make_one() {
    let page = Page::of(&sample::sample());
    let words = page.words();
    assert!(words.contains("No frontier was asked for"));
    let line = "isotherm plan sample.toml --devices devices.json --pareto throughput,latency --pareto-out frontier";
    assert!(words.contains(line), "the plan's own line without its objective and file");
}

#[test]
fn command_lines_that_nobody_recorded_say_that_they_were_put_together() {
    let mut report = sample::sample();
    assert!(!Page::of(&report).words().contains("Nobody recorded"));
    report.commands_inferred = true;
    assert!(Page::of(&report).words().contains("Nobody recorded"));
}
