//! Workload, serving limits, objective, limits and environment: what is asked of the plan.

use super::fault::Fault;
use super::reader::{At, Reader};
use crate::problem::{Choices, Goal, Limits, Objective, PowerLimit, PowerScope};
use crate::units::{Celsius, Hertz, Watts};
use crate::workload::{Arrivals, Length, Serving, Workload};

/// Longest prompt or answer, in tokens.
const TOKENS_MAX: u32 = 1 << 20;
/// Most requests of a workload, and most at once.
const REQUESTS_MAX: u32 = 10_000_000;
/// Most devices that hold a stage together.
const DEGREE_MAX: u32 = 64;
/// Greatest limit on a figure.
const FIGURE_MAX: f64 = 1e12;
/// Most steps in which a prompt is prefilled.
const CHUNKS_MAX: u32 = 10_000;

/// `[workload]`. Unless stated: one client that waits for each answer, prompts of 128 tokens, answers of 64, 16
/// requests.
pub(super) fn workload(root: &Reader<'_, '_>) -> Workload {
    let mut workload = Workload {
        arrivals: Arrivals::ClosedLoop { clients: 1 },
        prompt_tokens: Length::fixed(128),
        output_tokens: Length::fixed(64),
        requests: 16,
    };
    let Some(reader) = root.table("workload") else { return workload };
    let clients = reader.integer("clients", 1, REQUESTS_MAX);
    let rate = reader.quantity::<Hertz>("rate");
    match (clients, rate) {
        (Some(_), Some(_)) => {
            let what = "a workload has both clients and a rate".to_owned();
            let remedy = "keep clients (each waits for its answer) or rate (requests come by themselves)".to_owned();
            reader.fault(Fault::Conflict { what, remedy });
        }
        (Some(clients), None) => workload.arrivals = Arrivals::ClosedLoop { clients },
        (None, Some(rate)) if rate > Hertz::ZERO => workload.arrivals = Arrivals::Poisson { rate },
        (None, Some(_)) => {
            let (key, value, must) = ("rate".to_owned(), "0".to_owned(), "above zero".to_owned());
            reader.fault(Fault::OutOfRange { key, value, must });
        }
        (None, None) => {}
    }
    let lengths = [("prompt_tokens", &mut workload.prompt_tokens), ("output_tokens", &mut workload.output_tokens)];
    for (key, length) in lengths {
        if let Some(given) = self::length(&reader, key) {
            *length = given;
        }
    }
    if let Some(requests) = reader.integer("requests", 1, REQUESTS_MAX) {
        workload.requests = requests;
    }
    reader.done();
    workload
}

/// A number of tokens, or a table of `min` and `max`.
fn length(reader: &Reader<'_, '_>, key: &'static str) -> Option<Length> {
    let value = reader.get(key)?;
    if value.get_ref().as_table().is_none() {
        return reader.integer_of(key, value, 1, TOKENS_MAX).map(Length::fixed);
    }
    let table = reader.table(key)?;
    let (min, max) = (table.integer("min", 1, TOKENS_MAX), table.integer("max", 1, TOKENS_MAX));
    for (end, example) in [("min", "{ min = 16, max = 64 }"), ("max", "{ min = 16, max = 64 }")] {
        if !table.has(end) {
            table.missing(end, example);
        }
    }
    let length = Length { min: min?, max: max? };
    if length.min > length.max {
        let must = format!("at least min, which is {}", length.min);
        table.fault(Fault::OutOfRange { key: "max".to_owned(), value: length.max.to_string(), must });
        return None;
    }
    table.done();
    Some(length)
}

/// `[serving]`. Unless stated: as many requests at once as there are clients, or 8 where they come by themselves;
/// steps of 256 tokens; cache blocks of 16 tokens, enough for every admitted request at its greatest length; no
/// watermark.
pub(super) fn serving(root: &Reader<'_, '_>, workload: &Workload) -> Serving {
    let requests_max = match workload.arrivals {
        Arrivals::ClosedLoop { clients } => clients,
        Arrivals::Poisson { .. } | Arrivals::Recorded { .. } => 8,
    };
    let mut serving = Serving { requests_max, ..Serving::default() };
    let Some(reader) = root.table("serving") else { return serving };
    let limits = [
        ("requests_max", &mut serving.requests_max, REQUESTS_MAX),
        ("step_tokens_max", &mut serving.step_tokens_max, TOKENS_MAX),
        ("kv_block_tokens", &mut serving.kv_block_tokens, TOKENS_MAX),
    ];
    for (key, limit, max) in limits {
        if let Some(given) = reader.integer(key, 1, max) {
            *limit = given;
        }
    }
    serving.kv_blocks = reader.integer("kv_blocks", 1, u32::MAX);
    serving.kv_watermark =
        reader.get("kv_watermark").and_then(|share| reader.number_of("kv_watermark", share, 0.0, 0.99));
    serving.kv_swap_blocks = reader.integer("kv_swap_blocks", 1, u32::MAX);
    let chunks = workload.prompt_tokens.max.div_ceil(serving.step_tokens_max);
    if chunks > CHUNKS_MAX {
        let must = format!("large enough for {CHUNKS_MAX} steps to prefill a prompt");
        let value = serving.step_tokens_max.to_string();
        reader.fault(Fault::OutOfRange { key: "step_tokens_max".to_owned(), value, must });
    }
    reader.done();
    serving
}

/// `[objective]`: `maximise = "throughput"`, or `minimise` the time per output token (`"tpot"`) or to the first token
/// (`"ttft"`), or what serving costs (`"energy"`, `"money"`, `"money_per_hour"`). Unless stated: throughput.
pub(super) fn objective(root: &Reader<'_, '_>) -> Objective {
    let Some(reader) = root.table("objective") else { return Objective::Throughput };
    let maximise = reader.word("maximise", &[("throughput", Objective::Throughput)]);
    let minimise = reader.word(
        "minimise",
        &[
            ("tpot", Objective::Tpot),
            ("ttft", Objective::Ttft),
            ("energy", Objective::Energy),
            ("money", Objective::Money),
            ("money_per_hour", Objective::MoneyPerHour),
        ],
    );
    if reader.has("maximise") == reader.has("minimise") {
        let what = "an objective is one thing to maximise or minimise".to_owned();
        let remedy = "write maximise = \"throughput\", or minimise = \"tpot\", \"ttft\", \"energy\", \"money\" or \"money_per_hour\"".to_owned();
        reader.fault(Fault::Conflict { what, remedy });
    }
    reader.done();
    maximise.or(minimise).unwrap_or(Objective::Throughput)
}

/// `[limits]`. Unless stated: 64 MiB of each device left free, no partial inference, any number of stages, no device
/// pinned or banned, no power limit, and plans that heat allows.
pub(super) fn limits(root: &Reader<'_, '_>) -> Limits {
    let mut limits = Limits::default();
    let Some(reader) = root.table("limits") else { return limits };
    if let Some(reserve) = reader.quantity("reserve") {
        limits.reserve_bytes = reserve;
    }
    limits.partial = reader.boolean("partial").unwrap_or(limits.partial);
    limits.stages_max = reader.integer("stages_max", 1, u32::MAX);
    limits.stages_exact = reader.integer("stages_exact", 1, u32::MAX);
    if let (Some(exact), Some(max)) = (limits.stages_exact, limits.stages_max)
        && exact > max
    {
        let what = format!("stages_exact is {exact} and stages_max is {max}");
        reader.fault(Fault::Conflict { what, remedy: "keep one of them".to_owned() });
    }
    let names = |list: Vec<At<String>>| -> Vec<String> { list.into_iter().map(|n| n.value).collect() };
    limits.pinned = names(reader.texts("pinned"));
    let banned = reader.texts("banned");
    for name in banned.iter().filter(|name| limits.pinned.contains(&name.value)) {
        let what = format!("device {:?} is pinned and banned", name.value);
        let fault = Fault::Conflict { what, remedy: "keep it in one of the lists".to_owned() };
        reader.source.fault(name.span.clone(), fault);
    }
    limits.banned = names(banned);
    limits.cold = reader.boolean("cold").unwrap_or(limits.cold);
    limits.power = power(&reader);
    for (key, figure) in [
        ("throughput_min", Objective::Throughput),
        ("energy_max", Objective::Energy),
        ("money_max", Objective::Money),
        ("money_per_hour_max", Objective::MoneyPerHour),
    ] {
        let limit = reader.get(key).and_then(|value| reader.number_of(key, value, 0.0, FIGURE_MAX));
        limits.goals.extend(limit.map(|limit| Goal { figure, limit }));
    }
    reader.done();
    limits
}

/// `power = [{ host = "tower", most = "900 W" }]`.
fn power(reader: &Reader<'_, '_>) -> Vec<PowerLimit> {
    let mut limits = Vec::new();
    for table in reader.tables("power") {
        let name = |key: &'static str| table.name(key).map(|name| name.value);
        let scopes = [
            name("device").map(PowerScope::Device),
            name("host").map(PowerScope::Host),
            name("site").map(PowerScope::Site),
        ];
        let mut scopes = scopes.into_iter().flatten();
        let (scope, second) = (scopes.next(), scopes.next());
        if scope.is_none() || second.is_some() {
            let what = "a power limit is for one device, one host or one site".to_owned();
            let remedy = "write { device = \"desk\", most = \"300 W\" }, or host or site".to_owned();
            table.fault(Fault::Conflict { what, remedy });
        }
        if !table.has("most") {
            table.missing("most", "most = \"300 W\"");
        }
        let most: Option<Watts> = table.quantity("most");
        if let (Some(scope), Some(most_watts)) = (scope, most) {
            if most_watts > Watts::ZERO {
                limits.push(PowerLimit { scope, most_watts });
            } else {
                let (key, value) = ("most".to_owned(), most_watts.to_string());
                table.fault(Fault::OutOfRange { key, value, must: "above zero".to_owned() });
            }
        }
        table.done();
    }
    limits
}

/// `[choices]`: what may be chosen for each stage. Unless stated: nothing.
pub(super) fn choices(root: &Reader<'_, '_>) -> Choices {
    let mut choices = Choices::default();
    let Some(reader) = root.table("choices") else { return choices };
    for format in reader.texts("quantisations") {
        if choices.quantisations.contains(&format.value) {
            reader.source.fault(format.span, Fault::Duplicate { what: "format", name: format.value });
        } else {
            choices.quantisations.push(format.value);
        }
    }
    for batch in reader.list("batches", "numbers of requests") {
        choices.batches.extend(reader.integer_of("batches", batch, 1, REQUESTS_MAX));
    }
    for degree in reader.list("tensor_parallel", "numbers of devices") {
        choices.tensor_parallel.extend(reader.integer_of("tensor_parallel", degree, 1, DEGREE_MAX));
    }
    for degree in reader.list("expert_parallel", "numbers of devices") {
        choices.expert_parallel.extend(reader.integer_of("expert_parallel", degree, 1, DEGREE_MAX));
    }
    choices.offload = reader.boolean("offload").unwrap_or_default();
    reader.done();
    choices
}

/// `[environment]`. Unless stated: air of 25 °C.
pub(super) fn ambient(root: &Reader<'_, '_>) -> Celsius {
    let default = Celsius::of(25.0);
    let Some(reader) = root.table("environment") else { return default };
    let ambient = reader.quantity("ambient");
    reader.done();
    ambient.unwrap_or(default)
}
