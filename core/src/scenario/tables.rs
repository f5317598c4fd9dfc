//! The tables that a scenario refers to by name, each read once.

use super::fault::{Fault, Kind, Origin, ScenarioError, nearest};
use super::reader::{At, Reader, Source};
use super::{device, model};
use crate::device::Device;
use crate::model::Model;
use std::collections::BTreeMap;

/// Gives the text of a table, or else the names of the tables of that kind that there are (none where nobody knows).
pub type Lookup<'l> = dyn FnMut(Kind, &str) -> Result<String, Vec<String>> + 'l;

/// Tables read so far; none for one that is absent or broken.
pub(super) struct Tables<'l> {
    lookup: &'l mut Lookup<'l>,
    models: BTreeMap<String, Option<Model>>,
    devices: BTreeMap<String, Option<Device>>,
    /// Faults in the tables themselves.
    pub(super) faults: Vec<ScenarioError>,
}

impl<'l> Tables<'l> {
    pub(super) fn new(lookup: &'l mut Lookup<'l>) -> Self {
        Self { lookup, models: BTreeMap::new(), devices: BTreeMap::new(), faults: Vec::new() }
    }

    /// Makes a model known that the scenario itself writes down, so that operator times can name it.
    pub(super) fn know(&mut self, model: &Model) {
        self.models.insert(model.name.clone(), Some(model.clone()));
    }

    /// The model of this name; a fault at `name` where there is none.
    pub(super) fn model(&mut self, reader: &Reader<'_, '_>, name: &At<String>) -> Option<Model> {
        if let Some(known) = self.models.get(&name.value) {
            return known.clone().or_else(|| broken(reader, Kind::Model, name));
        }
        let text = self.text(reader, Kind::Model, name)?;
        let source = Source::new(Origin::Table(Kind::Model, name.value.clone()), &text);
        let found = source.parse().and_then(|root| {
            let reader = Reader::new(&source, root.get_ref(), 0..0, "the table".to_owned());
            model::read(&reader, &name.value).inspect(|_| reader.done())
        });
        let found = self.keep(source, found);
        self.models.insert(name.value.clone(), found.clone());
        found.or_else(|| broken(reader, Kind::Model, name))
    }

    /// The device table of this name; a fault at `name` where there is none.
    pub(super) fn device(&mut self, reader: &Reader<'_, '_>, name: &At<String>) -> Option<Device> {
        if let Some(known) = self.devices.get(&name.value) {
            return known.clone().or_else(|| broken(reader, Kind::Device, name));
        }
        let text = self.text(reader, Kind::Device, name)?;
        let source = Source::new(Origin::Table(Kind::Device, name.value.clone()), &text);
        let root = source.parse();
        let found = root.as_ref().map(|root| {
            let reader = Reader::new(&source, root.get_ref(), 0..0, "the table".to_owned());
            let device = device::table(&reader, &name.value, self);
            reader.done();
            device
        });
        let found = self.keep(source, found);
        self.devices.insert(name.value.clone(), found.clone());
        found.or_else(|| broken(reader, Kind::Device, name))
    }

    fn text(&mut self, reader: &Reader<'_, '_>, kind: Kind, name: &At<String>) -> Option<String> {
        // A name becomes part of a path where files are looked up, so it holds nothing that a path could.
        let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.value.is_empty() || !name.value.chars().all(safe) || name.value.starts_with('.') {
            let must = "a table's name: letters, digits, '-', '_' and '.'".to_owned();
            let (key, value) = (kind.word().to_owned(), format!("{:?}", name.value));
            reader.source.fault(name.span.clone(), Fault::OutOfRange { key, value, must });
            return None;
        }
        match (self.lookup)(kind, &name.value) {
            Ok(text) => Some(text),
            Err(known) => {
                let nearest = nearest(&name.value, known.iter().map(String::as_str));
                let name_text = name.value.clone();
                reader.source.fault(name.span.clone(), Fault::UnknownTable { kind, name: name_text, nearest, known });
                None
            }
        }
    }

    /// A table is used only where it has no fault at all.
    fn keep<T>(&mut self, source: Source<'_>, found: Option<T>) -> Option<T> {
        let faults = source.into_faults();
        let sound = faults.is_empty();
        self.faults.extend(faults);
        found.filter(|_| sound)
    }
}

fn broken<T>(reader: &Reader<'_, '_>, kind: Kind, name: &At<String>) -> Option<T> {
    reader.source.fault(name.span.clone(), Fault::BrokenTable { kind, name: name.value.clone() });
    None
}
