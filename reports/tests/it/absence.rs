//! What is not there is said to be unknown or not measured: never a zero, never "NaN".

use crate::reading::Page;
use crate::sample;
use isotherm_core::device::{Device, DeviceKind};
use isotherm_core::plan::{Plan, Status};
use isotherm_core::record::TruthRow;
use isotherm_reports::{Case, Evidence, Failure};

fn bare(plan: Plan) -> Case {
    Case { plan, sealed: None, simulation: None, runs: Vec::new(), truth: Vec::new() }
}

#[test]
fn one_plan_without_runs_is_a_page_of_predictions() {
    let mut report = sample::sample();
    report.cases.truncate(1);
    report.cases[0].runs.clear();
    report.cases[0].truth.clear();
    let page = Page::of(&report);
    let verdict = page.section("verdict").expect("a verdict");
    assert!(verdict.starts_with("Verdict One device: 11.19 ms per token, predicted."), "{verdict}");
    assert!(verdict.contains("This is predicted and sealed, not measured."), "{verdict}");
    assert!(verdict.contains("not measured") && verdict.contains("No run of this load is here."), "{verdict}");
    assert!(page.section("truth").expect("predictions").contains("not measured"));
}

#[test]
fn a_plan_of_which_nothing_else_is_known_still_makes_a_page() {
    let mut report = sample::sample();
    let mut plan = sample::chain(&["gpu-a"], &[24], 0.0112);
    plan.certificate = None;
    report.cases = vec![bare(plan)];
    report.model = None;
    report.commands.clear();
    report.evidence = Evidence::default();
    report.question.clear();
    let page = Page::of(&report);
    let verdict = page.section("verdict").expect("a verdict");
    assert!(verdict.contains("One device: 11.20 ms per token, predicted."), "{verdict}");
    assert!(verdict.contains("by the plan's own estimate, not measured"), "{verdict}");
    assert!(verdict.contains("the plan has no certificate"), "{verdict}");
    let evidence = page.section("evidence").expect("evidence");
    assert!(evidence.contains("Nothing was signed.") && evidence.contains("no log"), "{evidence}");
    assert!(page.words().contains("The command that remakes it was not recorded."));
    assert!(page.section("temperature").is_none() && page.section("requests").is_none());
}

#[test]
fn an_infeasible_problem_is_answered_with_its_reasons() {
    let mut report = sample::sample();
    let mut plan = sample::chain(&[], &[], 0.0);
    plan.status = Status::Infeasible;
    (plan.objective_value, plan.certificate) = (None, None);
    plan.routes.clear();
    plan.reasons = vec!["the layers need 904 MiB, the devices hold 512 MiB together".into()];
    report.cases = vec![bare(plan)];
    let page = Page::of(&report);
    let verdict = page.section("verdict").expect("a verdict");
    assert!(verdict.contains("There is no placement that fits."), "{verdict}");
    assert!(verdict.contains("the devices hold 512 MiB together"), "{verdict}");
    assert!(page.section("plan").expect("reasons").contains("No placement fits: the layers need 904 MiB"));
    assert!(page.table("Certificates.").expect("a row")[1][1].contains("no plan"));
}

#[test]
fn a_limit_that_came_first_is_no_answer() {
    let mut report = sample::sample();
    let mut plan = sample::chain(&[], &[], 0.0);
    plan.status = Status::Unknown;
    (plan.objective_value, plan.certificate) = (None, None);
    report.cases = vec![bare(plan)];
    let page = Page::of(&report);
    assert!(page.section("verdict").expect("a verdict").contains("whether a placement exists is unknown"));
}

#[test]
fn a_report_without_any_plan_is_still_a_page() {
    let mut report = sample::sample();
    report.cases.clear();
    let page = Page::of(&report);
    assert!(page.section("verdict").expect("a verdict").contains("There is no plan in this report."));
    assert!(page.section("plan").is_none());
}

#[test]
fn an_unknown_figure_of_a_device_is_unknown_and_not_zero() {
    let mut report = sample::sample();
    report.devices = sample::graph(vec![Device::named("mystery", "attic", DeviceKind::Unified)], Vec::new());
    report.cases.clear();
    let page = Page::of(&report);
    let table = page.table("Devices, from").expect("devices");
    assert_eq!(table[1][2..7], ["unknown"; 5]);
    assert!(table[1][8].contains("untested"), "{:?}", table[1]);
    assert!(page.section("devices").expect("devices").contains("No links are known."));
}

#[test]
fn no_page_shows_a_number_that_is_none() {
    let mut report = sample::sample();
    let case = &mut report.cases[0];
    case.truth = vec![
        TruthRow::new(1, "tpot", f64::NAN, 0.01),
        TruthRow::new(1, "ttft", 0.01, 0.0),
        TruthRow::new(1, "tokens_per_second", f64::INFINITY, f64::NEG_INFINITY),
        TruthRow::new(1, "no such metric", 3.0, f64::NAN),
    ];
    for figure in &mut case.sealed.as_mut().expect("sealed").figures {
        figure.value = f64::NAN;
    }
    if let Some(certificate) = &mut case.plan.certificate {
        (certificate.bound, certificate.gap) = (Some(f64::NAN), Some(f64::INFINITY));
    }
    case.plan.objective_value = Some(f64::NAN);
    for statistic in case.runs[0].value.metrics.values_mut() {
        (statistic.mean, statistic.p50) = (f64::NAN, f64::INFINITY);
    }
    let words = Page::of(&report).words();
    for nonsense in ["NaN", "inf ", "inf%", "-inf", "Infinity"] {
        assert!(!words.contains(nonsense), "{nonsense}: {words}");
    }
    let row = Page::of(&report).table("Predicted figures").expect("rows");
    assert_eq!((row[1][2].as_str(), row[1][4].as_str()), ("unknown", "unknown"));
}

#[test]
fn a_run_that_gave_no_record_is_not_forgotten() {
    let mut report = sample::sample();
    report.failures = vec![Failure { run: "3 stages, run 6".into(), reason: "device gpu-b was lost".into() }];
    let verdict = Page::of(&report).section("verdict").expect("a verdict");
    assert!(verdict.contains("15 runs made, all of them shown; 1 further run gave no record."), "{verdict}");
    assert!(verdict.contains("3 stages, run 6: device gpu-b was lost"), "{verdict}");
}

#[test]
fn a_percentile_is_not_told_from_too_few_requests() {
    let table = Page::of(&sample::sample()).table("Distribution").expect("a distribution");
    let measured = table.iter().find(|row| row[2].starts_with("measured")).expect("a measured row");
    assert_eq!(measured[3], "40");
    assert_eq!((measured[6].as_str(), measured[7].as_str()), ("too few requests", "too few requests"));
    let simulated = table.iter().find(|row| row[2].starts_with("simulated")).expect("a simulated row");
    assert_eq!(simulated[3], "160");
    assert!(simulated[6].ends_with("ms") && simulated[7] == "too few requests", "{simulated:?}");
}
