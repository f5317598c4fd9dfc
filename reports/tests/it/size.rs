//! One device, sixty devices, ten thousand requests: the page stays legible and small.

use crate::reading::Page;
use crate::sample::{self, Noise};
use isotherm_core::device::DeviceKind;
use isotherm_core::record::metrics;
use isotherm_core::trace::Origin;
use isotherm_reports::Report;

/// One run of ten thousand requests.
pub fn many_requests() -> Report {
    let mut report = sample::sample();
    for run in &mut report.cases[0].runs {
        let trace = sample::trace(Origin::Measured, &[("gpu-a", 0.0112)], 10_000, &mut Noise::new(5), None);
        run.value.metrics = metrics(&trace);
        run.value.trace = trace;
    }
    report
}

#[test]
fn sixty_devices_of_two_classes_are_a_picture_of_two_rows() {
    let page = Page::of(&sample::sixty());
    let words = page.words();
    assert!(words.contains("30 × RTX 4090") && words.contains("30 × Phone 16"));
    let document = page.document();
    let picture = document.descendants().find(|n| n.tag_name().name() == "svg").expect("a picture");
    assert!(picture.descendants().filter(|n| n.tag_name().name() == "text").count() < 30);
    let table = page.table("Devices, from").expect("devices");
    assert_eq!(table.len(), 1 + 2);
    assert_eq!(page.table("Stages of all plans").expect("stages").len(), 1 + 2);
    assert_eq!(page.table("Links between stages").expect("links").len(), 1 + 1);
    let routes = page.table("Routes").expect("routes");
    assert_eq!((routes[1][1].as_str(), routes[1][3].as_str()), ("30", "100.0 %"));
    assert!(page.markup().len() < 2 << 20, "{}", page.markup().len());
}

#[test]
fn one_device_has_no_links_and_says_so() {
    let mut report = sample::sample();
    report.devices = sample::graph(vec![sample::device("gpu-a", DeviceKind::Gpu, 24, 930.0, 83.0)], Vec::new());
    report.cases.truncate(1);
    let page = Page::of(&report);
    assert!(page.section("devices").expect("devices").contains("No links are known."));
    assert!(page.table("Links between stages").is_none());
}

#[test]
fn ten_thousand_requests_a_run_are_thinned_and_the_page_says_so() {
    let report = many_requests();
    let page = Page::of(&report);
    assert!(page.markup().len() < 2 << 20, "{}", page.markup().len());
    let requests = page.section("requests").expect("requests");
    assert!(requests.contains("Thinned to") && requests.contains("its fastest and slowest request always among them"));
    // 15 runs of two metrics, of which 5 runs hold ten thousand requests and 10 hold eight.
    assert!(requests.contains("of 100 160 dots"), "{requests}");
}

#[test]
fn a_hundred_differing_devices_are_cut_and_the_picture_says_so() {
    let names: Vec<String> = (0..100).map(|i| format!("device-{i:03}")).collect();
    let refs: Vec<&str> = names.iter().map(String::as_str).collect();
    let devices = refs.iter().map(|name| sample::device(name, DeviceKind::Gpu, 24, 930.0, 83.0)).collect();
    let ends: Vec<u32> = (1..=100).collect();
    let mut report = sample::sample();
    report.devices = sample::graph(devices, Vec::new());
    let plan = sample::chain(&refs, &ends, 0.1);
    let times: Vec<(&str, f64)> = refs.iter().map(|name| (*name, 0.001)).collect();
    report.cases = vec![sample::case(plan, &times, &times, 1, 4)];
    report.model = None;
    let page = Page::of(&report);
    assert!(page.words().contains("80 more rows not drawn; the table below has them"));
    assert_eq!(page.table("Stages of all plans").expect("stages").len(), 1 + 100);
    assert!(page.markup().len() < 2 << 20, "{}", page.markup().len());
}
