//! `isotherm bench device --check`: the self-test of every way to every card of this host, with a signed receipt of each.

use crate::args::BenchDevice;
use crate::commands::bench_device::FORMATS;
use crate::failure::{Code, Done, Failure};
use crate::roots::roots;
use crate::ui::{Ui, table};
use crate::{models, receipts, trust};
use isotherm_audit::keys::Identity;
use isotherm_audit::log::{EventKind, Severity};
use isotherm_core::artefact::Header;
use isotherm_core::receipt::{RECEIPT_SCHEMA, Receipt};
use isotherm_core::units::Seconds;
use isotherm_runtime::backend::DeviceError;
use isotherm_runtime::backend::routes::{self, Found, Route, Routes};
use isotherm_runtime::backend::self_test::{self, SelfTest};
use isotherm_runtime::discover::{Card, Machine};
use isotherm_runtime::model::Geometry;
use isotherm_runtime::model::format::BlockFormat;
use isotherm_runtime::model::gguf::Gguf;
use isotherm_runtime::model::synth::{self, SynthSpec, SynthTokenizer};
use serde::Serialize;
use std::path::Path;

/// Model of the check where none is named, and the shape that takes its place where it cannot be had.
const MODEL: &str = "smollm2";
const SHAPE: &str = "smollm2-135m";

/// What to check with.
pub struct Check<'a> {
    /// Backends to look at; all where empty.
    pub backends: &'a [String],
    /// A model to run in place of the usual one.
    pub model: Option<&'a str>,
    /// Rows and columns of the matrices that are timed.
    pub size: u32,
    /// Samples of each time.
    pub samples: usize,
    /// Folder for copies of the receipts.
    pub output: Option<&'a Path>,
}

impl<'a> Check<'a> {
    /// What the options of `isotherm bench device` ask for.
    pub fn of(args: &'a BenchDevice) -> Self {
        let (model, output) = (args.model.as_deref(), args.output.as_deref());
        Self { backends: &args.backends, model, size: args.size, samples: args.samples, output }
    }
}

/// What the check of all cards found.
#[derive(Serialize)]
struct Record {
    schema: &'static str,
    routes: Vec<Tested>,
    /// What was found and is no card.
    passed_over: Vec<String>,
}

/// One way to one card.
#[derive(Serialize)]
struct Tested {
    device: String,
    through: String,
    /// Where the receipt is; absent where the self-test did not come to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<Receipt>,
    /// Why it did not come to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<String>,
}

impl Tested {
    fn holds(&self) -> bool {
        self.receipt.as_ref().is_some_and(|receipt| receipt.shortcomings().is_empty())
    }
}

/// Runs the command.
pub fn run(ui: &Ui, check: &Check<'_>) -> Done {
    let record = all(ui, check)?;
    ui.result(&record, || text(&record))?;
    passed(&record)
}

/// The same for a command with a result of its own: what was found is only noted.
pub fn checked(ui: &Ui, check: &Check<'_>) -> Done {
    let record = all(ui, check)?;
    ui.note(text(&record));
    passed(&record)
}

fn passed(record: &Record) -> Done {
    let bad = record.routes.iter().filter(|tested| !tested.holds()).count();
    if bad > 0 {
        let of = record.routes.len();
        return Err(Failure::new(Code::Verification, format!("{bad} of {of} ways to cards did not pass")));
    }
    Ok(())
}

/// Tests every way to every card.
fn all(ui: &Ui, check: &Check<'_>) -> Result<Record, Failure> {
    let order: Vec<&str> = check.backends.iter().map(String::as_str).collect();
    let found = Routes::discover(routes::platforms(), &order);
    let all = || found.devices.iter().flat_map(|found| found.routes.iter().map(move |route| (found, route)));
    let (cards, others): (Vec<_>, Vec<_>) = all().partition(|(_, route)| route.info.hardware.is_accelerator());
    let over = |(found, route): &(&Found, &Route)| format!("{} is a {}", way(found, route), route.info.hardware.name());
    let passed_over: Vec<String> = others.iter().map(over).collect();
    if cards.is_empty() {
        let absent = found.absent.iter().map(|(backend, why)| format!("{backend}: {why}"));
        let why: Vec<String> = passed_over.iter().cloned().chain(absent).collect();
        let why = if why.is_empty() { String::new() } else { format!(" ({})", why.join("; ")) };
        return Err(Failure::new(Code::Device, format!("there is no card to check{why}"))
            .remedy("run this on a machine with a card; nothing that runs on a processor speaks for one"));
    }
    let names: Vec<&str> = cards.iter().map(|(found, _)| found.name.as_str()).collect();
    crate::access::timing(&names)?;
    let identity = trust::identity(ui)?;
    let model = Model::of(ui, check.model)?;
    let kernel = Machine::discover(&roots()).cards;
    let mut routes = Vec::new();
    let with = With { model: &model, size: check.size, samples: check.samples, thorough: true };
    for (found, route) in cards {
        ui.note(format!("{}: the self-test", way(found, route)));
        let receipt = tested(ui, found, route, &kernel, &with);
        let (device, through) = (found.name.clone(), format!("{} ({})", route.info.backend, route.info.interface));
        routes.push(match receipt {
            Ok(receipt) => {
                let file = signed(&identity, &receipt, check.output)?;
                Tested { device, through, file: Some(file), receipt: Some(receipt), ended: None }
            }
            // The next way may be better.
            Err(why) => Tested { device, through, file: None, receipt: None, ended: Some(why) },
        });
    }
    Ok(Record { schema: "isotherm.card-check/v1", routes, passed_over })
}

/// What every way is tested with.
struct With<'a> {
    model: &'a Model,
    size: u32,
    samples: usize,
    thorough: bool,
}

/// Tests one way to one card. Errors: why it did not come to its end.
fn tested(ui: &Ui, found: &Found, route: &Route, kernel: &[Card], with: &With<'_>) -> Result<Receipt, String> {
    let info = &route.info;
    let test = SelfTest { platform: &*route.platform, index: info.index, thorough: with.thorough, seed: 1 };
    let here = self_test::here(found, route, kernel).ok_or_else(|| format!("{} has no kernels", info.backend))?;
    if !here.accelerator {
        return Err(format!("a {} is no card", info.hardware.name()));
    }
    let told = |error: DeviceError| models::causes(&error);
    let (conformance, report) = test.conformance();
    ui.note(report);
    let Model { name, synthesised, gguf, geometry } = with.model;
    // A test that does not come to its end is one that the card did not pass, and is on record as that: an older receipt
    // would otherwise speak for it.
    let (model, of_model) = test.agreement(name, *synthesised, gguf, geometry).unwrap_or_else(|error| {
        ui.note(format!("{name} did not run: {}", told(error)));
        (SelfTest::no_agreement(name, *synthesised), 0)
    });
    let (operations, of_times) = test.times(with.size, &FORMATS, with.samples).unwrap_or_else(|error| {
        ui.note(format!("the times were not measured: {}", told(error)));
        (Vec::new(), 0)
    });
    Ok(Receipt {
        header: Header::new(RECEIPT_SCHEMA, Vec::new()),
        host: trust::host_id(),
        when: trust::now().map_err(|failure| failure.message)?.to_string(),
        card: here.card,
        route: here.route,
        conformance,
        model,
        operations,
        kernels_executed: of_model + of_times,
    })
}

/// Signs, keeps and logs a receipt; gives where it is.
fn signed(identity: &Identity, receipt: &Receipt, output: Option<&Path>) -> Result<String, Failure> {
    let (path, digest) = receipts::keep(receipt, identity, output)?;
    let severity = if receipt.shortcomings().is_empty() { Severity::Info } else { Severity::Warning };
    let note = trust::Note::default()
        .about("receipt", digest)
        .with("cases", i64::from(receipt.conformance.cases))
        .with("failed", i64::from(receipt.conformance.failed));
    trust::record(identity, EventKind::Probe, severity, note)?;
    Ok(path.display().to_string())
}

fn way(found: &Found, route: &Route) -> String {
    let info = &route.info;
    format!("{} through {} ({}), {}", found.name, info.backend, info.interface, info.name)
}

/// The model that cards and reference run.
struct Model {
    name: String,
    synthesised: bool,
    gguf: Gguf,
    geometry: Geometry,
}

impl Model {
    /// The model of that name. Where none is named and the usual one cannot be had, one of its shape with random weights.
    fn of(ui: &Ui, name: Option<&str>) -> Result<Self, Failure> {
        match models::open(ui, name.unwrap_or(MODEL)) {
            Ok(model) => {
                let file = model.path.file_name().map(|name| name.to_string_lossy().into_owned());
                Ok(Self {
                    name: file.unwrap_or_else(|| MODEL.to_owned()),
                    synthesised: false,
                    gguf: model.gguf,
                    geometry: model.geometry,
                })
            }
            Err(failure) if name.is_none() => {
                ui.note(format!(
                    "{}\n{MODEL} cannot be had; a model of the shape {SHAPE} with random weights takes its place",
                    failure.message
                ));
                Self::synthesised(SHAPE)
            }
            Err(failure) => Err(failure),
        }
    }

    fn synthesised(shape: &str) -> Result<Self, Failure> {
        let wrong = |why: String| Failure::io(format!("failed to make a model of the shape {shape}: {why}"));
        let geometry = synth::named(shape).ok_or_else(|| wrong("there is no such shape".to_owned()))?;
        let (format, embedding, tokenizer) = (BlockFormat::Q4_0, BlockFormat::Q8_0, SynthTokenizer::Small);
        let spec = SynthSpec { geometry: &geometry, format, embedding, seed: 1, tokenizer };
        let bytes = synth::bytes(&spec).map_err(|error| wrong(error.to_string()))?;
        let gguf = Gguf::from_bytes(bytes).map_err(|error| wrong(error.to_string()))?;
        let geometry = Geometry::from_gguf(&gguf).map_err(|error| wrong(error.to_string()))?;
        Ok(Self { name: shape.to_owned(), synthesised: true, gguf, geometry })
    }
}

/// The check as text.
fn text(record: &Record) -> String {
    let mut text = String::new();
    for tested in &record.routes {
        text.push_str(&format!("{} through {}\n", tested.device, tested.through));
        if let Some(why) = &tested.ended {
            text.push_str(&format!("  did not come to its end: {why}\n\n"));
        }
        let Some(receipt) = &tested.receipt else { continue };
        let model = &receipt.model;
        text.push_str(&format!(
            "  {}, conformance: {} cases, {} failed\n  {}{}: {} of {} top tokens equal the reference's, logits within {:.1e} \
             of {:.1e} allowed\n  {} kernels executed on the card for model and times\n",
            receipt.card.name,
            receipt.conformance.cases,
            receipt.conformance.failed,
            model.model,
            if model.synthesised { ", random weights" } else { "" },
            model.equal_top_tokens,
            model.positions,
            model.logit_distance_max,
            model.tolerance * model.logit_max,
            receipt.kernels_executed,
        ));
        let mut rows = vec![["operation", "median", "GB/s"].map(str::to_owned).to_vec()];
        rows.extend(receipt.operations.iter().map(|operation| {
            let rate = operation.bytes as f64 / operation.seconds / 1e9;
            vec![operation.what.clone(), Seconds::of(operation.seconds).to_string(), format!("{rate:.2}")]
        }));
        text.push_str(&table(&rows, &[1, 2]));
        for short in receipt.shortcomings() {
            text.push_str(&format!("  does not hold: {short}\n"));
        }
        if let Some(file) = &tested.file {
            text.push_str(&format!("  signed receipt: {file}\n\n"));
        }
    }
    for other in &record.passed_over {
        text.push_str(&format!("{other}: no receipt\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Format;
    use isotherm_core::device::Support;
    use isotherm_runtime::backend::scalar::ScalarPlatform;
    use isotherm_runtime::backend::{Backend, DeviceError, DeviceInfo, Hardware, Platform};
    use std::sync::Arc;

    /// Plain loops that say that they are something else.
    struct Saying(Hardware);

    impl Platform for Saying {
        fn name(&self) -> &'static str {
            "wgpu"
        }

        fn devices(&self) -> Result<Vec<DeviceInfo>, DeviceError> {
            let pci = Some("0000:01:00.0".to_owned());
            let of = |info| DeviceInfo { backend: "wgpu", hardware: self.0, pci: pci.clone(), ..info };
            Ok(loops().devices()?.into_iter().map(of).collect())
        }

        fn open(&self, index: usize) -> Result<Box<dyn Backend>, DeviceError> {
            loops().open(index)
        }
    }

    fn loops() -> ScalarPlatform {
        ScalarPlatform { devices: 1, memory_bytes: 1 << 28 }
    }

    fn test(hardware: Hardware) -> (Routes, Result<Receipt, String>) {
        let model = Model::synthesised("tiny").expect("a listed shape");
        let platforms: [Arc<dyn Platform>; 1] = [Arc::new(Saying(hardware))];
        let routes = Routes::discover(&platforms, &[]);
        let found = &routes.devices[0];
        let with = With { model: &model, size: 256, samples: 1, thorough: false };
        let ui = Ui { format: Format::Text, quiet: true };
        let receipt = tested(&ui, found, &found.routes[0], &[], &with);
        (routes, receipt)
    }

    #[test]
    fn a_self_test_makes_a_receipt_of_the_card_that_it_ran_on() {
        let (routes, receipt) = test(Hardware::Discrete);
        let receipt = receipt.expect("it comes to its end");
        let found = &routes.devices[0];
        let here = self_test::here(found, &found.routes[0], &[]).expect("it has kernels");
        assert!(receipt.is_of(&here, true) && receipt.contradicted_by(&here).is_empty(), "{receipt:?}");
        assert!(receipt.conformance.cases > 100 && receipt.conformance.failed == 0, "{:?}", receipt.conformance);
        assert!(receipt.kernels_executed > 0 && receipt.shortcomings().is_empty(), "{receipt:?}");
        assert_eq!(receipt.support(), Support::Supported);
        // A card that starts no kernel was not used.
        let idle = Receipt { kernels_executed: 0, ..receipt };
        assert_eq!(idle.support(), Support::Partial);
        assert_eq!(idle.shortcomings(), ["the card executed no kernel"]);
    }

    #[test]
    fn what_computes_on_a_processor_gets_no_receipt() {
        for hardware in [Hardware::Software, Hardware::Emulated, Hardware::Processor, Hardware::Unknown] {
            let (_, receipt) = test(hardware);
            assert!(receipt.is_err_and(|why| why.contains("is no card")), "{hardware:?}");
        }
    }
}
