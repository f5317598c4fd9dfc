//! What a page holds and in which order.

use crate::reading::Page;
use crate::sample::{self, Noise};
use isotherm_core::plan::BoundKind;
use isotherm_core::record::{Attribution, Cause, Part};
use isotherm_core::units::Celsius;
use isotherm_reports::{Command, Event, Step, render};
use std::collections::BTreeSet;

#[test]
fn the_verdict_comes_first_and_the_evidence_after_it() {
    let page = Page::of(&sample::sample());
    let document = page.document();
    let sections: Vec<&str> =
        document.descendants().filter(|n| n.has_tag_name("section")).filter_map(|n| n.attribute("id")).collect();
    let order = [
        "verdict",
        "plan",
        "frontier",
        "truth",
        "stages",
        "requests",
        "temperature",
        "series",
        "certificate",
        "devices",
        "evidence",
        "environment",
        "commands",
        "terms",
    ];
    assert_eq!(sections, order);
}

#[test]
fn the_verdict_says_what_is_best_how_wrong_the_prediction_was_and_who_proved_it() {
    let verdict = Page::of(&sample::sample()).section("verdict").expect("a verdict");
    for part in [
        "One device is best: 11.26 ms per token, measured; a split over 2 devices costs",
        "A split over 3 devices costs",
        "The predictions had put the plans in the same order.",
        "Predicted within",
        "median of 9 rows",
        "worst row",
        "certified, checked without a solver",
        "Predictions were sealed (log entry 129) before the runs (entries 130 to 144).",
        "All 15 runs sampled the same tokens",
        "15 runs made, all of them shown.",
        "Measured: no sensor.",
    ] {
        assert!(verdict.contains(part), "{part:?} is not in {verdict}");
    }
}

#[test]
fn every_row_of_truth_shows_the_figures_it_was_given() {
    let report = sample::sample();
    let table = Page::of(&report).table("Predicted figures").expect("rows");
    assert_eq!(table.len(), 1 + 9);
    let row = report.cases[1].truth.iter().find(|r| r.metric == "ttft").expect("a row");
    let shown = table.iter().find(|r| r[0] == "2 stages" && r[1].contains("TTFT")).expect("the same row");
    assert_eq!(shown[2], format!("{:.2} ms", row.predicted * 1e3));
    assert_eq!(shown[3], format!("{:.2} ms", row.measured * 1e3));
    assert_eq!(shown[4], format!("{:+.1} %", row.error * 100.0).replace('-', "−"));
}

#[test]
fn the_same_report_gives_the_same_page() {
    assert_eq!(render(&sample::sample()), render(&sample::sample()));
}

#[test]
fn the_page_asks_the_network_for_nothing_and_runs_only_the_script_that_its_policy_names() {
    let page = Page::of(&sample::sample());
    let document = page.document();
    for node in document.descendants().filter(|n| n.is_element()) {
        let name = node.tag_name().name();
        assert!(!["link", "img", "iframe", "object", "embed", "image", "use"].contains(&name), "{name}");
        for attribute in node.attributes() {
            let (key, value) = (attribute.name(), attribute.value());
            assert!(!key.starts_with("on"), "{key}");
            assert!(key != "src", "{value}");
            assert!(key != "href" || value.starts_with('#'), "{value}");
        }
    }
    let markup = page.markup().replace("http://www.w3.org/2000/svg", "");
    for fetch in ["url(", "@import", "http:", "https:"] {
        assert!(!markup.contains(fetch), "{fetch}");
    }
}

#[test]
fn every_link_and_citation_leads_to_something_on_the_page() {
    let page = Page::of(&sample::sample());
    let document = page.document();
    let mut anchors = BTreeSet::new();
    for id in document.descendants().filter_map(|n| n.attribute("id")) {
        assert!(anchors.insert(id), "two elements are {id}");
    }
    for href in document.descendants().filter_map(|n| n.attribute("href")) {
        assert!(anchors.contains(&href[1..]), "{href} leads nowhere");
    }
}

#[test]
fn every_figure_names_the_command_that_remakes_it_and_says_what_it_shows() {
    let page = Page::of(&sample::sample());
    let document = page.document();
    let figures: Vec<_> = document.descendants().filter(|n| n.has_tag_name("figure")).collect();
    assert_eq!(figures.len(), 3 + 1 + 1 + 1 + 1 + 1);
    for figure in figures {
        let remake = figure.descendants().find(|n| n.attribute("class") == Some("remake")).expect("a command");
        assert!(remake.descendants().any(|n| n.has_tag_name("a") || n.has_tag_name("code")));
        let drawings: Vec<_> = figure.descendants().filter(|n| n.tag_name().name() == "svg").collect();
        assert!(!drawings.is_empty());
        for svg in drawings {
            assert_eq!(svg.attribute("role"), Some("img"));
            for part in ["title", "desc"] {
                let text = svg.children().find(|n| n.tag_name().name() == part).and_then(|n| n.text());
                assert!(text.is_some_and(|t| !t.is_empty()), "a drawing without {part}");
            }
        }
    }
}

#[test]
fn every_drawing_takes_its_colours_from_the_theme_and_stays_inside_its_frame() {
    let page = Page::of(&sample::sample());
    let document = page.document();
    for svg in document.descendants().filter(|n| n.tag_name().name() == "svg") {
        let frame: Vec<f64> =
            svg.attribute("viewBox").expect("a frame").split(' ').map(|n| n.parse().expect("a number")).collect();
        for node in svg.descendants().filter(|n| n.is_element() && *n != svg) {
            for paint in ["fill", "stroke"] {
                assert!(node.attribute(paint).is_none_or(|value| value == "none"), "{node:?}");
            }
            if node.tag_name().name() == "text" {
                let (x, y) = (number(node.attribute("x")), number(node.attribute("y")));
                let size = number(node.attribute("font-size"));
                let letters = node.text().unwrap_or_default().trim().chars().count() as f64;
                let width = letters * size * 0.56;
                let left = match node.attribute("text-anchor") {
                    Some("middle") => x - width / 2.0,
                    Some("end") => x - width,
                    _ => x,
                };
                let inside = left >= -1.0 && left + width <= frame[2] + 1.0 && (0.0..=frame[3]).contains(&y);
                assert!(inside, "{:?} is clipped: {left} to {} of {}", node.text(), left + width, frame[2]);
            }
        }
    }
}

fn number(attribute: Option<&str>) -> f64 {
    attribute.and_then(|text| text.parse().ok()).expect("a number")
}

#[test]
fn tables_are_real_tables_with_captions_and_scoped_headings() {
    let page = Page::of(&sample::sample());
    let document = page.document();
    let tables: Vec<_> = document.descendants().filter(|n| n.has_tag_name("table")).collect();
    assert!(tables.len() >= 10, "{}", tables.len());
    for table in tables {
        let caption = table.children().find(|n| n.is_element()).expect("something");
        assert!(caption.has_tag_name("caption"));
        let columns = table.descendants().filter(|n| n.attribute("scope") == Some("col")).count();
        let body = table.children().find(|n| n.has_tag_name("tbody")).expect("a body");
        for row in body.children().filter(|n| n.has_tag_name("tr")) {
            let cells = row.children().filter(|n| n.is_element()).count();
            assert_eq!(cells, columns, "{:?}", caption.descendants().find_map(|n| n.text()));
        }
    }
}

#[test]
fn a_bound_is_told_with_who_vouches_for_it() {
    let mut report = sample::sample();
    let certificate = report.cases[1].plan.certificate.as_mut().expect("a certificate");
    (certificate.bound_kind, certificate.bound, certificate.gap) = (BoundKind::None, None, None);
    let table = Page::of(&report).table("Certificates.").expect("certificates");
    assert!(table[1][5].starts_with("certified: the checker verified it without a solver"), "{:?}", table[1]);
    assert_eq!((table[2][3].as_str(), table[2][4].as_str()), ("unknown", "unknown"));
    assert!(table[2][5].starts_with("none"), "{:?}", table[2]);
    assert!(table[3][5].starts_with("solver's word"), "{:?}", table[3]);
}

#[test]
fn a_sensor_is_named_where_there_is_one() {
    let mut report = sample::sample();
    let plan = report.cases[0].plan.clone();
    let stages = [("gpu-a", 0.01125)];
    let trace = sample::trace(isotherm_core::trace::Origin::Measured, &stages, 8, &mut Noise::new(3), Some("NVML"));
    assert_eq!(plan.stages[0].devices, ["gpu-a"]);
    report.cases[0].runs[0].value.trace.devices = trace.devices;
    let page = Page::of(&report);
    let table = page.table("Temperature, and energy").expect("temperatures");
    let hottest = Celsius::of(75.0).to_string();
    assert!(table[1][3].starts_with(&hottest) && table[1][3].ends_with("NVML"), "{:?}", table[1]);
    assert_eq!(table[2][3], "no sensor");
    assert!(page.section("verdict").expect("a verdict").contains("Temperatures were measured as well."));
}

#[test]
fn a_single_command_is_printed_whole_under_each_figure() {
    let mut report = sample::sample();
    report.commands = vec![Command { step: Step::Tour, line: "isotherm tour --seed 7".into() }];
    let page = Page::of(&report);
    assert_eq!(page.markup().matches("Remake: <code>isotherm tour --seed 7</code>").count(), 8);
}

#[test]
fn the_log_is_shown_in_its_order() {
    let report = sample::sample();
    let table = Page::of(&report).table("Transparency log").expect("a log");
    let indices: Vec<u64> = table[1..].iter().map(|row| row[0].parse().expect("an index")).collect();
    assert!(indices.is_sorted() && indices.len() == report.evidence.log.len());
    let seals = report.evidence.log.iter().filter(|e| e.event == Event::Seal).count();
    assert_eq!(table.iter().filter(|row| row[2] == "prediction sealed").count(), seals);
}

#[test]
fn every_simulated_device_is_drawn_over_time_in_the_figures_it_has_and_no_others() {
    let report = sample::sample();
    let page = Page::of(&report);
    let section = page.section("series").expect("devices over time");
    for figure in ["utilisation", "requests that wait", "share of cache held", "clock", "temperature"] {
        assert!(section.contains(figure), "{figure} is not in {section}");
    }
    for absent in ["power, W", "energy, J", "charge"] {
        assert!(!section.contains(absent), "{absent} was never simulated");
    }
    let simulated = report.cases.iter().filter_map(|case| case.simulation.as_ref()?.value.trace.as_ref());
    let devices: usize = simulated.map(|trace| trace.devices.len()).sum();
    let document = page.document();
    let drawn = document.descendants().find(|n| n.attribute("id") == Some("series")).expect("the section");
    let drawings = drawn.descendants().filter(|n| n.tag_name().name() == "svg").count();
    assert_eq!(drawings, devices.min(8), "one drawing for each, of the busiest eight");
}

#[test]
fn what_holds_requests_up_is_told_part_by_part_and_where_nobody_asked_nothing_is_told() {
    let mut report = sample::sample();
    assert!(Page::of(&report).section("attribution").is_none());
    let part = |cause, place: &str, ttft_seconds, tpot_seconds| Part {
        cause,
        place: place.to_owned(),
        ttft_seconds,
        tpot_seconds,
    };
    let parts = vec![
        part(Cause::Admission, "", 0.030, 0.0),
        part(Cause::Compute, "cpu-0", 0.060, 0.009),
        part(Cause::Link, "cpu-0 -> cpu-1", 0.010, 0.001),
    ];
    let simulation = report.cases[1].simulation.as_mut().expect("a simulation");
    simulation.value.attribution = Some(Attribution { parts });
    let page = Page::of(&report);
    assert!(page.section("attribution").is_some_and(|text| text.contains("admission")));
    let table = page.table("Where the time of requests goes").expect("rows");
    // The greatest share of either time first: nine tenths of TPOT, three tenths of TTFT, a tenth of both.
    let shares: Vec<(&str, &str, &str)> =
        table[1..].iter().map(|row| (row[1].as_str(), row[4].as_str(), row[6].as_str())).collect();
    assert_eq!(
        shares,
        [("compute", "60.0 %", "90.0 %"), ("admission", "30.0 %", "0.0 %"), ("link", "10.0 %", "10.0 %")]
    );
}
