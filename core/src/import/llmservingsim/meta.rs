//! `meta.yaml` and `hardware.yaml`: the part of YAML that a dumper of plain mappings writes.

use std::collections::BTreeMap;

/// What uneven batches cost, as far as the metadata says.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct SkewMeta {
    /// Whether the profile's makers hold the fitted table to be valid; none where they do not say.
    pub enabled: Option<bool>,
    /// The share where no bucket of the table holds; none where it is not stated.
    pub default: Option<f64>,
}

/// What `meta.yaml` says of a profile. Everything may be absent.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ProfileMeta {
    /// Name of the model.
    pub model: Option<String>,
    /// Label of the hardware.
    pub hardware: Option<String>,
    /// Name of the card.
    pub gpu: Option<String>,
    /// Formats of weights and cache, for example `bf16`.
    pub variant: Option<String>,
    /// Version of vLLM.
    pub vllm_version: Option<String>,
    /// When it was measured.
    pub profiled_at: Option<String>,
    /// Timed passes behind each time.
    pub iterations: Option<u32>,
    /// Most tokens of a step that was measured.
    pub step_tokens_max: Option<u32>,
    /// Most sequences of a step that was measured.
    pub sequences_max: Option<u32>,
    /// Cost of uneven batches, for the degree of tensor parallelism that was asked for.
    pub skew: SkewMeta,
}

/// A mapping of mappings as paths to scalars, keys joined by dots. Lists are left out.
fn flatten(text: &str) -> BTreeMap<String, String> {
    let mut open: Vec<(usize, &str)> = Vec::new();
    let mut flat = BTreeMap::new();
    for line in text.lines() {
        let content = line.trim_start();
        if content.is_empty() || content.starts_with('#') || content.starts_with('-') {
            continue;
        }
        let depth = line.len() - content.len();
        let Some((key, value)) = content.split_once(':') else { continue };
        // More levels than any profile has would only cost time.
        if open.len() > 32 {
            continue;
        }
        while open.last().is_some_and(|&(at, _)| at >= depth) {
            open.pop();
        }
        open.push((depth, unquoted(key.trim())));
        let value = value.trim();
        let value = if value.starts_with(['\'', '"']) { value } else { value.split(" #").next().unwrap_or("").trim() };
        if !value.is_empty() {
            let path: Vec<&str> = open.iter().map(|&(_, key)| key).collect();
            flat.insert(path.join("."), unquoted(value).to_owned());
        }
    }
    flat
}

fn unquoted(text: &str) -> &str {
    let inner = |quote: char| text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    inner('\'').or_else(|| inner('"')).unwrap_or(text)
}

fn number(flat: &BTreeMap<String, String>, path: &str) -> Option<f64> {
    flat.get(path)?.parse().ok().filter(|value: &f64| value.is_finite())
}

impl ProfileMeta {
    /// Reads `meta.yaml` for a degree of tensor parallelism. Lines that are no mapping of scalars mean nothing to us.
    #[must_use]
    pub fn read(text: &str, tensor_parallel: u32) -> Self {
        let flat = flatten(text);
        let word = |path: &str| flat.get(path).cloned();
        let count = |path: &str| flat.get(path).and_then(|value| value.parse::<u32>().ok());
        let truth = |path: &str| match flat.get(path).map(String::as_str) {
            Some("true" | "True") => Some(true),
            Some("false" | "False") => Some(false),
            _ => None,
        };
        let per_tp = format!("skew_fit.per_tp.{tensor_parallel}.alpha_default");
        Self {
            model: word("model"),
            hardware: word("hardware"),
            gpu: word("gpu"),
            variant: word("variant"),
            vllm_version: word("vllm_version"),
            profiled_at: word("profiled_at"),
            iterations: count("measurement_iterations"),
            step_tokens_max: count("engine_effective.max_num_batched_tokens"),
            sequences_max: count("engine_effective.max_num_seqs"),
            skew: SkewMeta {
                enabled: truth("skew_fit.enabled"),
                default: number(&flat, &per_tp).or_else(|| number(&flat, "skew_fit.alpha_default")),
            },
        }
    }
}

/// Bandwidth (gigabytes per second) and latency (nanoseconds) of `hardware.yaml`, where it was measured.
#[must_use]
pub fn read_link(text: &str) -> Option<(f64, f64)> {
    let flat = flatten(text);
    let either = |name: &str| {
        number(&flat, &format!("defaults.{name}.value")).or_else(|| number(&flat, &format!("defaults.{name}")))
    };
    Some((either("link_bw")?, either("link_latency")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_the_keys_above_a_value() {
        let text = "a: 1\nb:\n  c: 'two: 2'\n  d:\n    \"e\": true # said so\n  list:\n  - 1\n  - 2\nf: [1, 2]\n";
        let flat = flatten(text);
        let expected = [("a", "1"), ("b.c", "two: 2"), ("b.d.e", "true"), ("f", "[1, 2]")];
        assert_eq!(flat.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_uneven_batches_cost_is_read_for_the_degree_that_was_asked_for() {
        let text = "skew_fit:\n  enabled: true\n  per_tp:\n    1:\n      alpha_default: 0.25\n    '2':\n      \
                    alpha_default: 0.5\n";
        assert_eq!(ProfileMeta::read(text, 1).skew, SkewMeta { enabled: Some(true), default: Some(0.25) });
        assert_eq!(ProfileMeta::read(text, 2).skew.default, Some(0.5));
        assert_eq!(ProfileMeta::read(text, 4).skew.default, None);
    }

    #[test]
    fn a_link_is_read_only_where_both_figures_are_there() {
        let link = "defaults:\n  link_bw:\n    value: 24.5\n    source: measured\n  link_latency:\n    value: 16100\n";
        assert_eq!(read_link(link), Some((24.5, 16_100.0)));
        assert_eq!(read_link("defaults:\n  link_bw: 3\n"), None);
    }
}
