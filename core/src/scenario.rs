//! Scenarios: a question about a model, a load and some devices, as text with units.
//!
//! [`Scenario::parse`] reads the text and the tables it refers to, which a closure supplies; nothing here touches a
//! file. Every fault of the scenario and of its tables is reported at once, each with its place, cause and remedy. A
//! key that nothing reads is a fault, so that a slip is not taken for a default.
//!
//! What may stand in a scenario is written down, with every default, in [`Scenario::template`]. Device tables
//! (`scenarios/devices/NAME.toml`) hold the keys of a `[[devices]]` entry that state figures; model tables
//! (`scenarios/models/NAME.toml`) the keys of an inline `[model]`.

mod conditions;
mod device;
mod fault;
mod heat;
mod load;
mod model;
mod network;
mod prices;
mod reader;
mod tables;

pub use fault::{Fault, Kind, Origin, ScenarioError};
pub use prices::Prices;
pub use tables::Lookup;

use crate::artefact::{Header, WrongSchema};
use crate::conditions::Conditions;
use crate::digest::Digest;
use crate::graph::{DEVICES_SCHEMA, DeviceGraph, DevicesFile, GraphError};
use crate::model::Model;
use crate::problem::{Limits, Objective, PlacementProblem, ProblemError, ProblemParts};
use crate::units::{Bytes, Celsius};
use crate::workload::{Serving, Workload};
pub(crate) use reader::{Reader, Source, toml_value};
use std::collections::{BTreeMap, BTreeSet};
use tables::Tables;

/// The model a scenario asks about.
#[derive(Debug, Clone, PartialEq)]
pub enum ModelSource {
    /// Written down in the scenario or a model table.
    Written(Model),
    /// A model file that the caller has to read; a path as the scenario gives it.
    File(String),
}

/// A scenario, its tables looked up.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// The question it asks, in words.
    pub question: String,
    /// The model.
    pub model: ModelSource,
    /// The devices and links it declares; no devices where it leaves them to a measurement.
    pub devices: DevicesFile,
    /// The load.
    pub workload: Workload,
    /// Limits of the serving loop.
    pub serving: Serving,
    /// What to optimise.
    pub objective: Objective,
    /// What else to respect.
    pub limits: Limits,
    /// Temperature of the air around the devices.
    pub ambient: Celsius,
    /// What a simulation meets beside plan and load.
    pub conditions: Conditions,
    /// What devices and electricity cost.
    pub prices: Prices,
    /// Digest of the scenario's text.
    pub digest: Digest,
}

/// Why a scenario makes no problem.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BuildError {
    /// The scenario's model is a file and nobody has read it.
    #[error("the scenario's model is the file {0:?}; give that model file")]
    ModelFile(String),
    /// The devices are no device graph.
    #[error(transparent)]
    Schema(#[from] WrongSchema),
    /// The devices and links do not fit together.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The parts do not make a problem.
    #[error(transparent)]
    Problem(#[from] ProblemError),
}

impl Scenario {
    /// Reads a scenario. `lookup` gives the text of a model or device table, or the names there are.
    /// Errors: every fault of the scenario and of the tables it refers to.
    pub fn parse(text: &str, lookup: &mut Lookup<'_>) -> Result<Self, Vec<ScenarioError>> {
        let source = Source::new(Origin::Scenario, text);
        let mut tables = Tables::new(lookup);
        let scenario = source.parse().and_then(|root| {
            let root = Reader::new(&source, root.get_ref(), 0..0, "the scenario".to_owned());
            let scenario = read(&root, &mut tables, Digest::of(text.as_bytes()));
            root.done();
            scenario
        });
        let mut faults = source.into_faults();
        faults.append(&mut tables.faults);
        match scenario {
            Some(scenario) if faults.is_empty() => Ok(scenario),
            _ => Err(faults),
        }
    }

    /// The placement problem of this scenario. `devices`, where given, stand in the place of everything that the
    /// scenario says about devices and links; `model` in the place of its model.
    ///
    /// The problem's inputs are the digests of the scenario's text, of the devices and of the model, the latter two
    /// over their canonical JSON, so that a changed table is noticed as well as a changed scenario.
    /// Errors: everything that does not fit together.
    pub fn problem(
        &self,
        devices: Option<DevicesFile>,
        model: Option<Model>,
    ) -> Result<PlacementProblem, Vec<BuildError>> {
        let model = match (model, &self.model) {
            (Some(model), _) => model,
            (None, ModelSource::Written(model)) => model.clone(),
            (None, ModelSource::File(path)) => return Err(vec![BuildError::ModelFile(path.clone())]),
        };
        let devices = devices.unwrap_or_else(|| self.devices.clone());
        devices.header.expect(DEVICES_SCHEMA).map_err(|wrong| vec![wrong.into()])?;
        let digests = [Digest::of_json(&devices), Digest::of_json(&model)];
        let inputs = std::iter::once(self.digest).chain(digests.into_iter().flatten()).collect();
        let graph = DeviceGraph::new(devices)
            .map_err(|errors| errors.into_iter().map(BuildError::Graph).collect::<Vec<_>>())?;
        let parts = ProblemParts {
            name: self.name.clone(),
            model,
            graph,
            workload: self.workload.clone(),
            serving: self.serving,
            objective: self.objective,
            limits: self.limits.clone(),
            ambient: self.ambient,
            inputs,
        };
        let problem = PlacementProblem::new(parts);
        let mut problem = problem.map_err(|errors| errors.into_iter().map(BuildError::Problem).collect::<Vec<_>>())?;
        problem.conditions = self.conditions.clone();
        problem.prices = self.prices.clone();
        Ok(problem)
    }

    /// A scenario to start from: every key with its default or an example, explained.
    #[must_use]
    pub const fn template() -> &'static str {
        include_str!("scenario/template.toml")
    }
}

fn read(root: &Reader<'_, '_>, tables: &mut Tables<'_>, digest: Digest) -> Option<Scenario> {
    for (key, example) in [
        ("name", "name = \"home\""),
        ("question", "question = \"How fast does the 8B model answer at home?\""),
        ("model", "[model] with name = \"llama-3.1-8b-q4_0\""),
    ] {
        if !root.has(key) {
            root.missing(key, example);
        }
    }
    let (name, question) = (root.name("name"), root.name("question"));
    // What varies belongs to whoever asks for all points; alone, the scenario is what it says without.
    crate::sweep::check(root);
    let model = model_source(root, tables);
    let mut devices = device::entries(root, tables);
    let network = network::read(root, &mut devices);
    let workload = load::workload(root);
    let serving = load::serving(root, &workload);
    let (objective, ambient) = (load::objective(root), load::ambient(root));
    let (conditions, division) = conditions::read(root);
    let prices = prices::read(root);
    let prefill = conditions.disaggregation.as_ref().map_or_else(Vec::new, |named| named.prefill.clone());
    let limits = Limits { choices: load::choices(root), division, prefill, ..load::limits(root) };
    let mut places = BTreeSet::new();
    for device in &devices {
        if !places.insert(device.value.name.clone()) {
            let fault = Fault::Duplicate { what: "device", name: device.value.name.clone() };
            root.source.fault(device.span.clone(), fault);
        }
    }
    heat::check(root, &conditions, &devices);
    conditions::check(root, &conditions, &devices, &network);
    for name in network.junctions.iter().filter(|name| !places.insert((*name).clone())) {
        root.fault(Fault::Duplicate { what: "device or junction", name: name.clone() });
    }
    let devices = DevicesFile {
        header: Header::new(DEVICES_SCHEMA, vec![digest]),
        host: BTreeMap::new(),
        devices: devices.into_iter().map(|d| d.value).collect(),
        junctions: network.junctions,
        links: network.links,
        groups: network.groups,
        co_run: network.co_run,
        coordinator: network.coordinator,
    };
    Some(Scenario {
        name: name?.value,
        question: question?.value,
        model: model?,
        devices,
        workload,
        serving,
        objective,
        limits,
        ambient,
        conditions,
        prices,
        digest,
    })
}

/// `[model]`: a table's name, a file, the geometry itself, or for a flow problem only the number of layers.
fn model_source(root: &Reader<'_, '_>, tables: &mut Tables<'_>) -> Option<ModelSource> {
    let reader = root.table("model")?;
    let flow_only = root.has("flow") && reader.has("layers") && !reader.has("hidden");
    let model = if reader.has("file") {
        // A name beside a file is for people: the file says what the model is.
        let _ = reader.name("name");
        reader.name("file").map(|file| ModelSource::File(file.value))
    } else if flow_only {
        let name = reader.name("name").map_or_else(|| "flow".to_owned(), |n| n.value);
        reader.integer("layers", 1, model::LAYERS_MAX).map(|layers| ModelSource::Written(layers_only(name, layers)))
    } else if model::KEYS.iter().any(|key| reader.has(key)) {
        model::read(&reader, "model").inspect(|model| tables.know(model)).map(ModelSource::Written)
    } else if let Some(name) = reader.name("name") {
        tables.model(&reader, &name).map(ModelSource::Written)
    } else {
        if !reader.has("name") {
            reader.missing("name", "name = \"llama-3.1-8b-q4_0\", file = \"model.gguf\", or the geometry");
        }
        None
    };
    // After a fault, keys that were never reached would be reported as unknown.
    if model.is_some() {
        reader.done();
    }
    model
}

/// A model of which only the number of layers matters: every rate of a flow problem is stated, no byte is counted.
fn layers_only(name: String, layers: u32) -> Model {
    Model {
        name,
        architecture: "flow".to_owned(),
        hidden: 0,
        feed_forward: 0,
        heads: 0,
        kv_heads: 0,
        head_size: 0,
        vocabulary: 0,
        context_max: u32::MAX,
        quantisation: "none".to_owned(),
        layer_bytes: vec![Bytes::ZERO; layers as usize],
        embedding_bytes: Bytes::ZERO,
        head_bytes: Bytes::ZERO,
        tied: false,
        kv_element_bytes: 0,
        digest: None,
    }
}
