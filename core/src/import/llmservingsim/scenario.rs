//! A profile as a scenario: its device with the operators' times, and the model that they are of.

use super::{Assembly, Catalogue, LlmServingSimError};
use crate::artefact::TOOL_VERSION;
use crate::cost::{Curve, Experts};
use crate::import::Imported;
use crate::import::write::{list, number, quoted};
use crate::model::PublicModel;
use crate::units::{Bytes, Seconds};

/// Longest context and longest time, in milliseconds, that a scenario holds.
const CONTEXT_MAX: u32 = 1 << 24;
const MS_MAX: f64 = 1e9;

/// What a profile does not say of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceFacts {
    /// Memory that weights and cache may take.
    pub memory: Bytes,
    /// Number of such devices.
    pub count: u32,
}

/// The scenario of a profile of one device. Errors: as [`Catalogue::assemble`], or the model's shape is not known.
pub fn scenario(
    catalogue: &Catalogue,
    model: &PublicModel,
    facts: DeviceFacts,
) -> Result<Imported, LlmServingSimError> {
    if [model.hidden, model.heads, model.kv_heads, model.head_size, model.vocabulary].contains(&0) {
        return Err(LlmServingSimError::Missing {
            file: "the shape of the model",
            remedy: "give its config.json with --model-config",
        });
    }
    let profile = catalogue.assemble(model, &Assembly::default())?;
    let meta = &catalogue.meta;
    let device = word(meta.hardware.as_deref().unwrap_or("device"));
    let name = word(model.name.rsplit('/').next().unwrap_or(&model.name));
    let mut notes = catalogue.notes.clone();
    notes.push(
        "Prefill and decode attention stand apart here, as plans and simulations take them; what they cost more \
         together in one step is only in `isotherm validate llmservingsim`."
            .to_owned(),
    );
    let residuals = catalogue.residuals();
    notes.push(format!(
        "Between measured points the times are known to {:.1} % (over tokens) and {:.1} % (attention): the median \
         error of points predicted from their neighbours.",
        residuals.dense.median * 100.0,
        residuals.attention.median * 100.0
    ));
    let knots = catalogue.attention().knots();
    let context = knots[3].last().max(knots[1].last()).copied().unwrap_or(0).saturating_add(1).min(CONTEXT_MAX);
    notes.push(format!("The longest context is {context}, the longest that was measured."));
    let mut text = format!("# A profile of LLMServingSim, imported by isotherm {TOOL_VERSION}.\n");
    text.extend(notes.iter().map(|note| format!("# {note}\n")));
    let question = format!("How fast is {name} on {} {device}?", facts.count);
    text.push_str(&format!("name = {}\n", quoted(&format!("{device}-{name}").to_lowercase())));
    text.push_str(&format!("question = {}\n\n", quoted(&question)));
    text.push_str(&model_table(model, &name, context));
    text.push_str(&format!("\n[[devices]]\nname = {}\nkind = \"gpu\"\n", quoted(&device)));
    if facts.count > 1 {
        text.push_str(&format!("count = {}\n", facts.count));
    }
    text.push_str(&format!("memory = {}\n", quoted(&facts.memory.to_string())));
    text.push_str(&format!("\n[[devices.profiles]]\nmodel = {}\n", quoted(&name)));
    text.push_str(&format!("arithmetic = {}\nhow = \"measured\"\n", quoted(meta.variant.as_deref().unwrap_or("bf16"))));
    let version = meta.vllm_version.as_deref().map_or_else(String::new, |version| format!(" {version}"));
    let gpu = meta.gpu.as_deref().map_or_else(String::new, |gpu| format!(" on {gpu}"));
    text.push_str(&format!("source = {}\n", quoted(&format!("LLMServingSim profile of vLLM{version}{gpu}"))));
    if let Some(samples) = meta.iterations.filter(|&samples| samples > 0) {
        text.push_str(&format!("samples = {samples}\n"));
    }
    if let Some(when) = &meta.profiled_at {
        text.push_str(&format!("when = {}\n", quoted(when)));
    }
    let longest = std::cell::Cell::new(0.0_f64);
    let ms = |time: Seconds| {
        longest.set(longest.get().max(time.value() * 1e3));
        number(time.value() * 1e3)
    };
    let pairs = |key: &str, points: &[(u32, Seconds)]| {
        let points = points.iter().filter(|point| point.0 > 0);
        list(key, &points.map(|&(count, time)| format!("[{count}, {}]", ms(time))).collect::<Vec<_>>())
    };
    // Layers are alike to a plan: where only some have experts, each takes the mean of the others' feed-forward.
    let expert_layers = profile.experts.as_ref().map_or(0, |experts| experts.layers);
    let share = f64::from(expert_layers) / f64::from(profile.layers.max(1));
    let counts = profile.layer.knots().iter().map(|knot| knot.0);
    let dense = counts.map(|count| {
        let tokens = f64::from(count);
        let plain = profile.feed_forward.as_ref().map_or(Seconds::ZERO, |curve| curve.at(tokens));
        (count, profile.layer.at(tokens) + plain * (1.0 - share))
    });
    let dense: Vec<(u32, Seconds)> = dense.collect();
    text.push_str(&pairs("dense_ms", &dense));
    text.push_str(&pairs("head_ms", profile.tail.knots()));
    text.push_str(&pairs("embedding_ms", profile.once.knots()));
    let positive = |axis: &[u32]| axis.iter().copied().filter(|&knot| knot > 0).collect::<Vec<u32>>();
    let prefill = |tokens: u32, cached: u32| profile.attention.at(f64::from(tokens), f64::from(cached), 0.0, 0.0);
    let decode = |n: u32, context: u32| profile.attention.at(0.0, 0.0, f64::from(n), f64::from(context));
    let (chunks, sequences, contexts) = (positive(&knots[0]), positive(&knots[2]), positive(&knots[3]));
    for (key, names, rows, columns, time) in [
        ("attention_prefill_ms", ["tokens", "cached"], &chunks, &knots[1], &prefill as &dyn Fn(u32, u32) -> Seconds),
        ("attention_decode_ms", ["sequences", "context"], &sequences, &contexts, &decode),
    ] {
        // A profile may lack one kind of work altogether; then nothing is said of it.
        if rows.is_empty() || columns.is_empty() {
            continue;
        }
        text.push_str(&format!("\n[devices.profiles.{key}]\n"));
        let counts = |axis: &[u32]| axis.iter().map(u32::to_string).collect::<Vec<_>>();
        text.push_str(&list(names[0], &counts(rows)));
        text.push_str(&list(names[1], &counts(columns)));
        text.push_str("ms = [\n");
        for &row in rows {
            let cells: Vec<String> = columns.iter().map(|&column| ms(time(row, column))).collect();
            text.push_str(&format!("    [{}],\n", cells.join(", ")));
        }
        text.push_str("]\n");
    }
    let rows = |experts: &Experts| {
        let sound = |row: &&(u32, Curve)| row.0 > 0 && row.1.knots().iter().any(|knot| knot.0 > 0);
        experts.by_activated.iter().filter(sound).cloned().collect::<Vec<_>>()
    };
    if let Some(experts) = profile.experts.as_ref().filter(|experts| experts.layers > 0) {
        if rows(experts).is_empty() {
            return Err(LlmServingSimError::Document {
                file: "moe.csv",
                problem: "has no count above zero".to_owned(),
            });
        }
        text.push_str(&format!(
            "\n[devices.profiles.experts]\ncount = {}\nper_token = {}\nlayers = {}\nmeasured_per_token = {}\n",
            experts.count, experts.per_token, experts.layers, experts.measured_per_token
        ));
        for (activated, curve) in rows(experts) {
            let head = format!("\n[[devices.profiles.experts.times]]\nactivated = {activated}\n");
            text.push_str(&head);
            text.push_str(&pairs("ms", curve.knots()));
        }
    }
    if longest.get() > MS_MAX {
        let problem = format!("a step would take {:e} ms, and a scenario holds {MS_MAX:e} at most", longest.get());
        return Err(LlmServingSimError::Document { file: "the profile", problem });
    }
    if let Some((what, _)) = [("dense.csv", &dense[..]), ("per_sequence.csv", profile.tail.knots())]
        .into_iter()
        .find(|(_, points)| points.iter().all(|point| point.0 == 0))
    {
        return Err(LlmServingSimError::Document { file: what, problem: "has no count above zero".to_owned() });
    }
    text.push_str("\n[serving]\n");
    text.push_str(&format!("step_tokens_max = {}\n", meta.step_tokens_max.unwrap_or(2048).max(1)));
    text.push_str("\n[workload]\nclients = 16\nprompt_tokens = 512\noutput_tokens = 128\nrequests = 64\n");
    Ok(Imported { text, notes })
}

/// The model as a scenario writes it down. What experts there are takes memory whole and time by its own table.
fn model_table(model: &PublicModel, name: &str, context: u32) -> String {
    let mut text = format!(
        "[model]\nname = {}\nlayers = {}\nhidden = {}\nfeed_forward = {}\nheads = {}\nkv_heads = {}\nhead_size = {}\n\
         vocabulary = {}\ncontext_max = {context}\nquantisation = \"BF16\"\n",
        quoted(name),
        model.layers,
        model.hidden,
        model.feed_forward.max(1),
        model.heads,
        model.kv_heads,
        model.head_size,
        model.vocabulary
    );
    if let Some(experts) = model.experts {
        let (hidden, heads) = (u64::from(model.hidden), u64::from(model.heads) + u64::from(model.kv_heads));
        let attention = 2 * hidden * heads * u64::from(model.head_size);
        let each = 3 * hidden * u64::from(model.feed_forward) + hidden;
        let bytes = 2 * (attention + each * u64::from(experts.count)) + 8 * hidden;
        text.push_str(&format!("layer_bytes = \"{bytes} B\"\n"));
    }
    text
}

/// A name that a scenario can look up.
fn word(text: &str) -> String {
    let safe: String = text
        .chars()
        .take(80)
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' })
        .collect();
    let safe = safe.trim_start_matches(['.', '-']);
    if safe.is_empty() { "unnamed".to_owned() } else { safe.to_owned() }
}
