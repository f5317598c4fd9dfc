//! Artefacts come from anywhere. Whatever stands in them, the page stays a page.

use crate::reading::Page;
use crate::sample;
use isotherm_core::device::DeviceKind;
use isotherm_core::ids::Layers;
use isotherm_core::plan::{Stop, Unused};
use isotherm_reports::{Event, LogEntry, Report};
use proptest::prelude::*;

/// Puts a text wherever an artefact has one.
fn poisoned(text: &str) -> Report {
    let mut report = sample::sample();
    let other = format!("{text}2");
    let devices = vec![
        sample::device(text, DeviceKind::Gpu, 24, 900.0, 83.0),
        sample::device(&other, DeviceKind::Gpu, 12, 350.0, 83.0),
    ];
    let links = vec![sample::link(text, &other, isotherm_core::graph::LinkKind::Socket, 20.0, 1.0)];
    report.devices = sample::graph(devices, links);
    let mut plan = sample::chain(&[text, &other], &[17, 24], 0.0116);
    plan.unused = vec![Unused { device: text.into(), reason: text.into() }];
    plan.model = text.into();
    plan.unit = text.into();
    plan.objective_name = text.into();
    plan.reasons = vec![text.into()];
    plan.provenance.machine = Some(text.into());
    plan.stages[0].quantisation = text.into();
    if let Some(certificate) = &mut plan.certificate {
        certificate.method = text.into();
        certificate.solver = Some(text.into());
    }
    let times = [(text, 0.008), (other.as_str(), 0.004)];
    report.cases.push(sample::case(plan, &times, &times, 2, 3));
    for case in &mut report.cases {
        for run in &mut case.runs {
            run.file = text.into();
            run.value.started = text.into();
            run.value.arithmetic = text.into();
            for device in &mut run.value.trace.devices {
                device.source = text.into();
            }
        }
        for row in &mut case.truth {
            row.metric.push_str(text);
        }
        if let Some(simulation) = &mut case.simulation {
            for device in &mut simulation.value.devices {
                device.source = text.into();
            }
        }
    }
    for field in [&mut report.title, &mut report.scenario, &mut report.question] {
        *field = text.into();
    }
    report.notice = Some(text.into());
    report.notes = vec![text.into()];
    report.evidence.checkpoint = Some(text.into());
    report.evidence.log.push(LogEntry { index: 1, time: text.into(), event: Event::Other(text.into()), subject: None });
    for manifest in &mut report.evidence.manifests {
        manifest.file = text.into();
        manifest.signers = vec![text.into(); 3];
        manifest.expires = Some(text.into());
        manifest.verification = Some(Err(text.into()));
    }
    for file in &mut report.evidence.files {
        (file.file, file.role) = (text.into(), text.into());
    }
    report.environment.tool_version = text.into();
    report.environment.load = Some(text.into());
    report.environment.host = vec![(text.into(), text.into())];
    for command in &mut report.commands {
        command.line = text.into();
    }
    report
}

#[test]
fn markup_in_names_stays_text() {
    let text = "<script>alert('x')</script><img src=x onerror=\"alert(1)\"> & \" ' ]]> --> &amp; </style></title>";
    let page = Page::of(&poisoned(text));
    let document = page.document();
    let named = |name: &str| document.descendants().filter(|node| node.has_tag_name(name)).count();
    assert_eq!((named("script"), named("img")), (1, 0), "only the page's own script is there");
    assert!(!document.descendants().any(|n| n.attributes().any(|a| a.name() == "onerror")));
    assert!(page.words().contains("<script>alert('x')</script>"), "the text itself is still there");
}

#[test]
fn text_from_right_to_left_is_isolated_and_overrides_are_gone() {
    let page = Page::of(&poisoned("\u{202e}gnp.exe\u{2066} שלום مرحبا"));
    assert!(!page.markup().contains(['\u{202e}', '\u{2066}']));
    assert!(page.words().contains("שלום"));
    let document = page.document();
    let named = document.descendants().filter(|n| n.has_tag_name("bdi")).count();
    assert!(named > 50, "{named}");
}

#[test]
fn endless_names_do_not_make_an_endless_page() {
    let page = Page::of(&poisoned(&"Wörterbuch".repeat(20_000)));
    assert!(page.markup().len() < 4 << 20, "{}", page.markup().len());
}

#[test]
fn control_characters_leave_the_page_well_formed() {
    let all: String =
        (0..32_u8).map(char::from).chain(['\u{7f}', '\u{85}', '\u{fffe}', '\u{ffff}', '\u{feff}']).collect();
    Page::of(&poisoned(&all));
}

#[test]
fn plans_that_no_checker_would_accept_do_not_break_the_page() {
    let mut report = sample::sample();
    let plan = &mut report.cases[1].plan;
    plan.stages[0].layers = Layers::new(u32::MAX, 3);
    plan.stages[1].layers = Layers::new(0, u32::MAX);
    plan.stages[1].devices.clear();
    plan.routes[0].stages.push(Stop { stage: u32::MAX, layers: Layers::new(9, 9) });
    plan.routes[0].share = f64::NAN;
    plan.routes.push(plan.routes[0].clone());
    Page::of(&report);
}

#[test]
fn figures_of_any_size_do_not_break_the_page() {
    for value in [f64::MAX, f64::MIN_POSITIVE, 1e-300, -1e300, f64::NAN, f64::INFINITY] {
        let mut report = sample::sample();
        for case in &mut report.cases {
            for row in &mut case.truth {
                row.predicted = value;
            }
            for run in &mut case.runs {
                for statistic in run.value.metrics.values_mut() {
                    (statistic.mean, statistic.p50) = (value, value);
                }
                run.value.trace.requests[0].finished_ns.0 = u64::MAX;
                run.value.trace.stages[0].busy_ns.0 = u64::MAX;
            }
            case.plan.objective_value = Some(value);
        }
        Page::of(&report);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_text_gives_a_well_formed_page(text in any::<String>()) {
        // Device names are unique, so an empty one is told apart by the second's digit.
        Page::of(&poisoned(&text));
    }
}
