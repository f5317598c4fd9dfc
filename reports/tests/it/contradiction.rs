//! A page says itself where its artefacts cannot all be true.

use crate::reading::Page;
use crate::sample;
use isotherm_core::digest::Digest;
use isotherm_reports::{Event, Report};

fn said(report: &Report) -> String {
    Page::of(report).section("verdict").expect("a verdict")
}

#[test]
fn a_sound_report_contradicts_nothing() {
    let verdict = said(&sample::sample());
    assert!(!verdict.contains("contradicts"), "{verdict}");
}

#[test]
fn a_figure_that_is_not_the_sealed_one_is_told() {
    let mut report = sample::sample();
    report.cases[0].truth[0].predicted *= 1.01;
    let verdict = said(&report);
    assert!(verdict.contains("This report contradicts itself"), "{verdict}");
    assert!(verdict.contains("TPOT was sealed as 11.19 ms, compared as 11.30 ms"), "{verdict}");
}

#[test]
fn a_measured_figure_outside_its_runs_is_told() {
    let mut report = sample::sample();
    report.cases[0].truth[0].measured = 0.010;
    assert!(said(&report).contains("its runs lie from"));
}

#[test]
fn a_prediction_sealed_after_the_run_is_told_in_the_verdict() {
    let mut report = sample::sample();
    let seal = report.evidence.log.iter().position(|e| e.event == Event::Seal).expect("a seal");
    report.evidence.log[seal].index = 900;
    let verdict = said(&report);
    assert!(verdict.contains("they predict nothing"), "{verdict}");
    assert!(verdict.contains("5 runs logged before the prediction was sealed"), "{verdict}");
}

#[test]
fn runs_without_seal_or_log_are_not_called_sealed_before() {
    let mut report = sample::sample();
    report.evidence.log.clear();
    assert!(said(&report).contains("The log does not show that the predictions were sealed before the runs."));
    for case in &mut report.cases {
        case.sealed = None;
    }
    assert!(said(&report).contains("The predictions were not sealed"));
}

#[test]
fn a_run_of_another_plan_or_manifest_is_told() {
    let mut report = sample::sample();
    report.cases[1].runs[0].value.plan = Digest::of(b"another plan");
    report.cases[1].runs[1].value.manifest = Digest::of(b"another manifest");
    let verdict = said(&report);
    assert!(verdict.contains("executed plan") && verdict.contains("was allowed by manifest"), "{verdict}");
}

#[test]
fn a_manifest_that_does_not_verify_or_lacks_signers_is_told() {
    let mut report = sample::sample();
    report.evidence.manifests[0].verification = Some(Err("it expired".into()));
    report.evidence.manifests[1].signers.truncate(1);
    let verdict = said(&report);
    assert!(verdict.contains("does not verify: it expired"), "{verdict}");
    assert!(verdict.contains("has 1 of 2 signers"), "{verdict}");
}

#[test]
fn different_tokens_are_counted() {
    let mut report = sample::sample();
    report.cases[2].runs[0].value.tokens = Digest::of(b"other tokens");
    assert!(said(&report).contains("The 15 runs sampled 2 different sequences of tokens."));
}

#[test]
fn a_difference_within_the_spread_of_runs_is_not_called_clear() {
    let mut report = sample::sample();
    report.cases[1] = report.cases[0].clone();
    report.cases[1].plan = sample::chain(&["gpu-b"], &[24], 0.0112);
    assert!(said(&report).contains("less than the spread between runs"));
}
