//! The models that are considered: known ones in a few formats, and files that are here.

use crate::failure::Failure;
use crate::ui::Ui;
use crate::{builtin, models};
use isotherm_core::cost::OperatorProfile;
use isotherm_core::figure::Figure;
use isotherm_core::format::rescaled;
use isotherm_core::graph::DevicesFile;
use isotherm_core::model::Model;
use isotherm_core::scenario::{Kind, ModelSource, Scenario};
use isotherm_core::units::{Bytes, BytesPerSecond, FlopsPerSecond, Seconds};
use isotherm_runtime::model::geometry::Geometry as FileGeometry;
use isotherm_runtime::model::gguf::Gguf;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Formats that known models are considered in, largest first.
const FORMATS: [&str; 3] = ["F16", "Q8_0", "Q4_0"];
/// Bytes of one number in the runtime's key-value cache: it keeps f32.
const KV_ELEMENT_BYTES: u32 = 4;
/// Keys of a model table that hold for its own format alone.
const OWN_FORMAT: [&str; 6] =
    ["embedding_format", "layer_bytes", "embedding_bytes", "head_bytes", "digest", "kv_element_bytes"];

/// A model that is considered.
pub(super) struct Candidate {
    /// Its name, without the format.
    pub name: String,
    /// Geometry and bytes.
    pub model: Model,
    /// `table` or `file`.
    pub origin: &'static str,
}

/// All of them, largest weights first.
pub(super) fn all(ui: &Ui, folder: Option<&Path>) -> Result<Vec<Candidate>, Failure> {
    let mut found = known()?;
    found.extend(here(ui, folder)?);
    found.sort_by_key(|candidate| std::cmp::Reverse(candidate.model.weight_bytes(candidate.model.all_layers())));
    Ok(found)
}

/// Every known geometry once, in every format.
fn known() -> Result<Vec<Candidate>, Failure> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for (name, text) in builtin::of(Kind::Model) {
        let mut table: toml::Table =
            toml::from_str(text).map_err(|e| Failure::io(format!("model table {name}: {e}")))?;
        let format = table.get("quantisation").and_then(|f| f.as_str()).unwrap_or("").to_lowercase();
        let family = name.strip_suffix(&format!("-{format}")).unwrap_or(name);
        // Layers whose bytes are stated have parts that their shape does not say, as experts: they keep them.
        let stated = if table.contains_key("layer_bytes") { written(name, family, &table)? } else { None };
        OWN_FORMAT.iter().for_each(|key| drop(table.remove(*key)));
        for format in FORMATS {
            table.insert("quantisation".to_owned(), format.into());
            let Some(mut model) = written(name, family, &table)? else { continue };
            if let Some(stated) = &stated {
                let bytes = stated.layer_bytes.iter().map(|bytes| rescaled(bytes.0, &stated.quantisation, format));
                let bytes: Option<Vec<Bytes>> = bytes.map(|bytes| bytes.map(Bytes)).collect();
                let Some(bytes) = bytes else { continue };
                model.layer_bytes = bytes;
            }
            if seen.insert((model.geometry(), model.layers())) {
                found.push(Candidate { name: family.to_owned(), model, origin: "table" });
            }
        }
    }
    Ok(found)
}

/// A model as its table describes it; none where the table describes none.
fn written(name: &str, family: &str, table: &toml::Table) -> Result<Option<Model>, Failure> {
    let mut model = table.clone();
    model.insert("name".to_owned(), family.into());
    let mut scenario = toml::Table::new();
    scenario.insert("name".to_owned(), family.into());
    scenario.insert("question".to_owned(), "Does it fit?".into());
    scenario.insert("model".to_owned(), model.into());
    let text = toml::to_string(&scenario).map_err(|e| Failure::io(format!("model table {name}: {e}")))?;
    Ok(match Scenario::parse(&text, &mut |_, _| Err(Vec::new())) {
        Ok(Scenario { model: ModelSource::Written(model), .. }) => Some(model),
        _ => None,
    })
}

/// The model files of the cache and of a folder. What cannot be read is named and passed over.
fn here(ui: &Ui, folder: Option<&Path>) -> Result<Vec<Candidate>, Failure> {
    let mut files: Vec<PathBuf> = models::store().ok().and_then(|store| store.files().ok()).unwrap_or_default();
    if let Some(folder) = folder {
        let entries = std::fs::read_dir(folder).map_err(|e| Failure::file(folder, e))?;
        let gguf = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "gguf");
        files.extend(entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).filter(gguf));
    }
    files.sort();
    files.dedup();
    let mut found = Vec::new();
    for path in files {
        let described = Gguf::open(&path).map_err(|e| e.to_string()).and_then(|gguf| {
            let geometry = FileGeometry::from_gguf(&gguf).map_err(|e| e.to_string())?;
            Ok(geometry.describe(&gguf, &models::name_of(&path), KV_ELEMENT_BYTES, None))
        });
        match described {
            Ok(model) => found.push(Candidate { name: model.name.clone(), model, origin: "file" }),
            Err(why) => ui.note(format!("  passed over {}: {why}", path.display())),
        }
    }
    Ok(found)
}

/// The devices with what their measurements with one model say of any other: arithmetic from the dense time of the most
/// tokens, bandwidth from that of one. Both are marked as estimated, and no figure that is stated is changed.
pub(super) fn completed(mut file: DevicesFile) -> DevicesFile {
    for device in &mut file.devices {
        let Some(profile) = device.profiles.first() else { continue };
        // A probe lists the formats it measured with, which need not be all there are.
        let measured = |format: &String| device.profiles.iter().any(|p| p.geometry.quantisation == *format);
        if device.formats.iter().all(measured) {
            device.formats.clear();
        }
        let weights = weights(profile);
        let Some(&(tokens, time)) = profile.dense_seconds.knots().last().filter(|(_, time)| *time > Seconds::ZERO)
        else {
            continue;
        };
        let flops = FlopsPerSecond::new(2.0 * weights * f64::from(tokens) / time.value());
        let source = "measured with another model";
        if let (None, Ok(flops)) = (&device.compute_flops_per_second, flops) {
            device.compute_flops_per_second = Some(Figure::estimated(flops, source));
        }
        let one = profile.dense_seconds.at(1.0);
        let bytes = bits(&profile.geometry.quantisation).map(|bits| weights * bits / 8.0);
        let rate =
            bytes.filter(|_| one > Seconds::ZERO).and_then(|bytes| BytesPerSecond::new(bytes / one.value()).ok());
        if let (None, Some(rate)) = (&device.memory_bandwidth_bytes_per_second, rate) {
            device.memory_bandwidth_bytes_per_second = Some(Figure::estimated(rate, source));
        }
    }
    file
}

/// Weights of the matrices of one layer that a profile's dense time is about: experts have times of their own.
fn weights(profile: &OperatorProfile) -> f64 {
    let geometry = &profile.geometry;
    let [hidden, feed_forward, heads, kv_heads, head_size] =
        [geometry.hidden, geometry.feed_forward, geometry.heads, geometry.kv_heads, geometry.head_size].map(f64::from);
    let feed_forward = if profile.experts.is_some() { 0.0 } else { feed_forward };
    2.0 * hidden * heads * head_size + 2.0 * hidden * kv_heads * head_size + 3.0 * hidden * feed_forward
}

/// Bits of a weight, of the formats that are measured with.
fn bits(format: &str) -> Option<f64> {
    let known = [("F32", 32.0), ("F16", 16.0), ("BF16", 16.0), ("Q8_0", 8.5), ("Q4_0", 4.5), ("Q4_1", 5.0)];
    known.into_iter().find(|(name, _)| *name == format).map(|(_, bits)| bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_model_is_considered_in_every_format_and_larger_formats_weigh_more() {
        let found = known().expect("the tables are well formed");
        let names: BTreeSet<&str> = found.iter().map(|c| c.name.as_str()).collect();
        assert!(names.contains("llama-3.1-8b") && names.contains("llama-2-70b"), "{names:?}");
        for name in names {
            let weights = |format: &str| {
                let of = found.iter().find(|c| c.name == name && c.model.quantisation == format).expect(format);
                of.model.weight_bytes(of.model.all_layers())
            };
            assert!(weights("F16") > weights("Q8_0") && weights("Q8_0") > weights("Q4_0"), "{name}");
        }
    }

    #[test]
    fn a_model_with_experts_weighs_what_all_of_them_weigh_in_every_format() {
        let found = known().expect("the tables are well formed");
        let weights = |name: &str, format: &str| {
            let of = found.iter().find(|c| c.name == name && c.model.quantisation == format).expect(format);
            of.model.weight_bytes(of.model.all_layers()).0 as f64 / f64::from(1 << 30)
        };
        // 46.7 thousand million weights, of 2 bytes, of 34 bytes for 32, of 18 bytes for 32.
        for (format, gib) in [("F16", 87.0), ("Q8_0", 46.2), ("Q4_0", 24.5)] {
            let of = weights("mixtral-8x7b", format);
            assert!((of - gib).abs() < 0.1, "{format}: {of} GiB");
        }
        let dense = weights("mistral-7b", "F16");
        assert!((dense - 13.5).abs() < 0.1, "{dense} GiB");
    }
}
