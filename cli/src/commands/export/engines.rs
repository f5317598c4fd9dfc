//! One writer for each engine. Options are those of the engines' own documentation.

use super::{Chain, Load, Maker, Stage, Written};
use isotherm_core::device::DeviceKind;
use isotherm_core::problem::Parallel;
use std::collections::{BTreeMap, BTreeSet};

/// Port of llama.cpp's RPC server.
const RPC_PORT: u16 = 50052;

/// A word for the shell, quoted where it must be.
fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,=@%+[]".contains(c);
    if !text.is_empty() && text.chars().all(plain) && !text.contains(['[', ']']) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

fn joined<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(",")
}

/// Stages with several devices, for engines whose pipelines are of single ones.
fn no_groups(chain: &Chain, lost: &mut Vec<String>) {
    if let Some(how) = groups(chain) {
        lost.push(format!(
            "A stage on several devices at once ({how}); its first device is written, to hold all of it."
        ));
    }
}

/// How stages are divided over several devices at once; none where none is.
fn groups(chain: &Chain) -> Option<&'static str> {
    let of =
        |parallel: Parallel| chain.stages.iter().any(|stage| stage.devices.len() > 1 && stage.parallel == parallel);
    match (of(Parallel::Tensor), of(Parallel::Experts)) {
        (false, false) => None,
        (true, false) => Some("tensor parallel"),
        (false, true) => Some("its experts divided"),
        (true, true) => Some("tensor parallel, or its experts divided"),
    }
}

/// What to say where the scenario does not say how requests come.
fn no_load(chain: &Chain, flags: &str, notes: &mut Vec<String>) {
    if chain.load.is_none() {
        notes.push(format!("The scenario states no lengths of requests, nor how many at once; set {flags} for yours."));
    }
}

/// Requests at once, where a scenario states more than one.
fn several(chain: &Chain) -> Option<u32> {
    chain.load.map(|load| load.requests).filter(|&requests| requests > 1)
}

/// What llama.cpp calls devices that it drives as this one; numbers follow, but to Apple's.
fn interface(stage: &Stage) -> &'static str {
    match (stage.maker, stage.kind) {
        (Maker::Apple, _) => "Metal",
        _ if stage.backend == "wgpu" => "Vulkan",
        (Maker::Nvidia, _) | (Maker::Unknown, DeviceKind::Gpu) => "CUDA",
        (Maker::Intel, _) => "SYCL",
        (Maker::Amd, DeviceKind::Gpu) => "ROCm",
        // ROCm knows few of the graphics that are part of a processor; Vulkan knows all of them.
        (Maker::Amd | Maker::Phone | Maker::Unknown, _) => "Vulkan",
    }
}

/// A device of a stage, with its part of those layers that lie on cards.
struct Part<'c> {
    stage: &'c Stage,
    device: &'c str,
    count: u32,
}

/// Even parts of a stage for each of its devices. Those that would get no layer are left out, but for the first.
fn parts(stage: &Stage) -> impl Iterator<Item = Part<'_>> {
    let (held, members) = (u64::from(stage.count() - stage.away), stage.devices.len() as u64);
    let until = move |member: u64| (held * member / members.max(1)) as u32;
    let parts = (0_u64..).zip(&stage.devices).map(move |(member, device)| Part {
        stage,
        device,
        count: until(member + 1) - until(member),
    });
    parts.enumerate().filter(|(i, part)| *i == 0 || part.count > 0).map(|(_, part)| part)
}

/// llama.cpp: `--rpc`, `--device`, `--tensor-split`, `-ngl`.
///
/// The split is in whole layers, in the order of `--device`; the output head counts as one more layer at the end.
/// Layers beyond `-ngl` are the first ones, on the main host's processor.
pub(super) fn llama_cpp(chain: &Chain) -> Written {
    let mut written = Written::default();
    if let Some(how) = groups(chain) {
        let instead = "its layers are divided over them, and requests pass from one to the next";
        written.lost.push(format!("A stage on several devices at once ({how}): {instead}."));
    }
    let here = |stage: &Stage| stage.host == chain.entry && stage.kind != DeviceKind::Cpu;
    let local_cpu = |stage: &Stage| stage.kind == DeviceKind::Cpu && stage.host == chain.entry;
    let offloaded: Vec<&Stage> =
        chain.stages.iter().enumerate().filter(|(i, stage)| !(*i == 0 && local_cpu(stage))).map(|(_, s)| s).collect();
    if offloaded.iter().any(|stage| local_cpu(stage)) {
        let (host, what) = (&chain.entry, "holds the first layers only; its stage is written as a server of its own");
        written.lost.push(format!("The processor of the main host {host} {what}."));
    }
    let away: u32 = offloaded.iter().map(|stage| stage.away).sum();
    if away > 0 {
        let (first, host) = (chain.layers - offloaded.iter().map(|stage| stage.count()).sum::<u32>(), &chain.entry);
        written.lost.push(format!(
            "Which layers lie elsewhere: the first {} stay with the processor of {host}, which computes them.",
            first + away
        ));
    }
    let parts: Vec<Part<'_>> = offloaded.iter().flat_map(|stage| parts(stage)).collect();
    let mut servers: Vec<(&str, u16)> = Vec::new();
    let mut local: BTreeMap<&str, u32> = BTreeMap::new();
    let mut devices = Vec::new();
    let mut remote = String::new();
    for Part { stage, device, .. } in &parts {
        if here(stage) {
            let name = interface(stage);
            let next = local.entry(name).or_default();
            devices.push(if name == "Metal" { name.to_owned() } else { format!("{name}{next}") });
            *next += 1;
            continue;
        }
        let port = RPC_PORT + servers.iter().filter(|(host, _)| *host == stage.host).count() as u16;
        servers.push((&stage.host, port));
        devices.push(format!("RPC[{}:{port}]", stage.host));
        remote.push_str(&format!("# on {}, for {device}:\n#   rpc-server -H 0.0.0.0 -p {port}\n", stage.host));
    }
    let mut split: Vec<u32> = parts.iter().map(|part| part.count).collect();
    if let Some(last) = split.last_mut() {
        *last += 1;
    }
    let layers: u32 = split.iter().sum();
    written.script = format!("{remote}# on {}:\nllama-server -m \"$MODEL\" \\\n", chain.entry);
    if !servers.is_empty() {
        let list = servers.iter().map(|(host, port)| format!("{host}:{port}"));
        written.script.push_str(&format!("  --rpc {} \\\n", word(&joined(list))));
    }
    if !devices.is_empty() {
        written.script.push_str(&format!("  --device {} \\\n", word(&joined(&devices))));
        written.script.push_str(&format!("  --split-mode layer --tensor-split {} \\\n", joined(split)));
    }
    written.script.push_str(&format!("  -ngl {layers}"));
    if let Some(Load { context, requests, step_tokens }) = chain.load {
        let all = context.saturating_mul(u64::from(requests));
        written.script.push_str(&format!(" -c {all} -np {requests} -b {}", step_tokens.max(32)));
    }
    written.script.push('\n');
    no_load(chain, "-c, -np and -b", &mut written.notes);
    mixed_build(&local, &mut written.notes);
    let guessed = |stage: &Stage| stage.maker == Maker::Unknown && stage.backend != "wgpu";
    let unknown = offloaded.iter().filter(|stage| here(stage) && guessed(stage));
    let unknown: Vec<&String> = unknown.flat_map(|stage| &stage.devices).collect();
    if !unknown.is_empty() {
        let unsaid = format!("The scenario does not say who made {}; names are guessed.", joined(unknown));
        written.notes.push(unsaid);
    }
    let names = "Names of devices differ between releases: `llama-server --rpc ... --list-devices` prints them.";
    written.notes.push(names.to_owned());
    written.notes.push("Set MODEL to the GGUF file. The RPC server is for trusted networks only.".to_owned());
    if servers.iter().any(|(_, port)| *port > RPC_PORT) {
        let own = "Each of several servers on a host must see its own card alone: start it with CUDA_VISIBLE_DEVICES \
                   (NVIDIA) or HIP_VISIBLE_DEVICES (AMD) set.";
        written.notes.push(own.to_owned());
    }
    if !servers.is_empty() {
        let way = "Activations pass through the main host between servers, not from server to server.";
        written.lost.push(way.to_owned());
    }
    written
}

/// What it takes to drive devices of one host over several interfaces.
fn mixed_build(local: &BTreeMap<&str, u32>, notes: &mut Vec<String>) {
    if local.len() > 1 {
        let names: Vec<&str> = local.keys().copied().collect();
        notes.push(format!(
            "{} in one process takes a build with each of them (GGML_BACKEND_DL); a build with Vulkan alone drives all \
             of these cards, as Vulkan0, Vulkan1 and so on.",
            names.join(" and ")
        ));
    }
}

/// What vLLM has to be built for to run on a stage's devices; none where it does not run on them.
fn vllm_build(stage: &Stage) -> Option<&'static str> {
    match (stage.maker, stage.kind) {
        (Maker::Apple | Maker::Phone, _) => None,
        (_, DeviceKind::Cpu) => Some("processors"),
        (Maker::Nvidia, _) => Some("NVIDIA"),
        (Maker::Amd, _) => Some("AMD"),
        (Maker::Intel, _) => Some("Intel"),
        (Maker::Unknown, _) => Some("unknown make"),
    }
}

/// vLLM: `VLLM_PP_LAYER_PARTITION`, `--pipeline-parallel-size`, `--tensor-parallel-size`, `--enable-expert-parallel`.
pub(super) fn vllm(chain: &Chain) -> Written {
    let mut written = Written::default();
    let sizes: BTreeSet<usize> = chain.stages.iter().map(|stage| stage.devices.len()).collect();
    let group = if sizes.len() == 1 { sizes.first().copied().unwrap_or(1) } else { 1 };
    if sizes.len() > 1 {
        written.lost.push("Stages on different numbers of devices; each is written with one.".to_owned());
    }
    let others: Vec<&String> =
        chain.stages.iter().filter(|stage| vllm_build(stage).is_none()).flat_map(|stage| &stage.devices).collect();
    if !others.is_empty() {
        written.lost.push(format!("Devices that vLLM does not run on (Apple, phones): {}.", joined(others)));
    }
    let builds: BTreeSet<&str> = chain.stages.iter().filter_map(vllm_build).collect();
    if builds.len() > 1 {
        let mixed = builds.iter().copied().collect::<Vec<_>>().join(", ");
        written.lost.push(format!("Several kinds of devices in one pipeline ({mixed}): vLLM is built for one."));
    } else if let Some(build) = builds.first().filter(|build| ["processors", "AMD", "Intel"].contains(build)) {
        written.notes.push(format!("It takes vLLM's build for {build}."));
    }
    let hosts: BTreeSet<&str> = chain.stages.iter().map(|stage| stage.host.as_str()).collect();
    let order =
        "Order of devices: ranks follow CUDA_VISIBLE_DEVICES on a host, and the cluster's own order across hosts";
    written.lost.push(format!("{order}; wanted is {}.", joined(chain.stages.iter().flat_map(|stage| &stage.devices))));
    let partition = joined(chain.stages.iter().map(Stage::count));
    let mut script = String::new();
    if hosts.len() > 1 {
        let head = chain.stages.first().map_or(&chain.entry, |stage| &stage.host);
        script.push_str(&format!("# on {head}:\n#   ray start --head --port 6379\n# on each other host:\n"));
        script.push_str(&format!("#   ray start --address {}\n", word(&format!("{head}:6379"))));
        written.notes.push("Set VLLM_PP_LAYER_PARTITION on every host before `ray start`.".to_owned());
    }
    script.push_str(&format!("export VLLM_PP_LAYER_PARTITION={partition}\nvllm serve \"$MODEL\" \\\n"));
    let stages = chain.stages.len();
    script.push_str(&format!("  --pipeline-parallel-size {stages} --tensor-parallel-size {group} \\\n"));
    if group > 1 && chain.stages.iter().any(|stage| stage.parallel == Parallel::Experts) {
        script.push_str("  --enable-expert-parallel \\\n");
        if chain.stages.iter().any(|stage| stage.parallel == Parallel::Tensor) {
            let some =
                "Stages that divide experts beside others that divide every matrix; all are written to divide experts.";
            written.lost.push(some.to_owned());
        }
    }
    if hosts.len() > 1 {
        script.push_str("  --distributed-executor-backend ray \\\n");
    }
    script.push_str("  --enable-chunked-prefill");
    if let Some(Load { context, requests, step_tokens }) = chain.load {
        let tokens = step_tokens.max(requests);
        script.push_str(&format!(
            " --max-model-len {context} --max-num-seqs {requests} --max-num-batched-tokens {tokens}"
        ));
    }
    script.push('\n');
    no_load(chain, "--max-model-len, --max-num-seqs and --max-num-batched-tokens", &mut written.notes);
    written.notes.push("Set MODEL to the name or folder of the model.".to_owned());
    written.script = script;
    written
}

/// exo: layers of each rank, put into a placement that exo proposes and posted to its API.
pub(super) fn exo(chain: &Chain) -> Written {
    let mut written = Written::default();
    no_groups(chain, &mut written.lost);
    let wanted = joined(chain.stages.iter().map(|stage| &stage.device));
    written.lost.push(format!("Order of devices: exo chooses which node is which rank; wanted is {wanted}."));
    written
        .lost
        .push("Links: exo measures none of its own for pipelines, and takes any that joins two nodes.".to_owned());
    let shard = |(rank, stage): (usize, &Stage)| {
        let (start, end) = stage.layers;
        format!("  \"{rank}\": {{\"startLayer\": {start}, \"endLayer\": {end}, \"nLayers\": {}}}", chain.layers)
    };
    let shards: Vec<String> = chain.stages.iter().enumerate().map(shard).collect();
    let (stages, entry) = (chain.stages.len(), word(&format!("http://{}:52415", chain.entry)));
    written.script = format!(
        "EXO={entry}\ncat > shards.json <<'END'\n{{\n{}\n}}\nEND\n\
         # Takes the pipeline over {stages} nodes that exo proposes, and gives each rank the layers of the plan.\n\
         curl -s \"$EXO/instance/previews?model_id=$MODEL\" |\n  jq --slurpfile shards shards.json '\n    \
         [(.previews? // .)[] | select(.sharding == \"Pipeline\" and .instance != null) | .instance]\n    \
         | map(select([.. | objects | select(has(\"PipelineShardMetadata\"))] | length == {stages})) | first\n    \
         | walk(if type == \"object\" and has(\"PipelineShardMetadata\")\n           \
         then .PipelineShardMetadata |= (. + $shards[0][.deviceRank | tostring]) else . end)\n    \
         | {{instance: .}}' |\n  curl -s -X POST -H 'Content-Type: application/json' -d @- \"$EXO/instance\"\n",
        shards.join(",\n")
    );
    written.notes.push("Set MODEL to the identifier of a model that exo lists; it needs curl and jq.".to_owned());
    written.notes.push("exo may refuse a placement that it finds too large for a node.".to_owned());
    written
}

/// prima.cpp: one command for each rank, `-lw` with the layers of all on the first.
pub(super) fn prima(chain: &Chain) -> Written {
    let mut written = Written::default();
    no_groups(chain, &mut written.lost);
    let world = chain.stages.len();
    if let Some(requests) = several(chain) {
        let one = "prima.cpp serves one request at a time";
        written.lost.push(format!("Several requests at once: {one}, the plan has {requests}."));
    }
    no_load(chain, "-c", &mut written.notes);
    let hosts: BTreeSet<&str> = chain.stages.iter().map(|stage| stage.host.as_str()).collect();
    if hosts.len() < world {
        written
            .lost
            .push("Several stages of one host: prima.cpp runs one rank on each, so ports must differ.".to_owned());
    }
    if chain.stages.first().is_some_and(|first| first.host != chain.entry) {
        let (first, entry) = (&chain.stages[0].host, &chain.entry);
        written.lost.push(format!("Requests come in at {entry}; rank 0, which takes them, is {first}."));
    }
    let mut script = String::new();
    for (rank, stage) in chain.stages.iter().enumerate() {
        let (master, next) = (&chain.stages[0].host, &chain.stages[(rank + 1) % world].host);
        let ring = format!("--world {world} --rank {rank} --master {} --next {}", word(master), word(next));
        script.push_str(&format!("# on {}, for {}:\n", stage.host, stage.device));
        script.push_str("llama-cli -m \"$MODEL\"");
        if let Some(load) = chain.load {
            script.push_str(&format!(" -c {}", load.context));
        }
        if world > 1 {
            script.push_str(&format!(" {ring} --prefetch"));
        }
        if rank == 0 {
            script.push_str(" -n 256 -p \"$PROMPT\"");
            if world > 1 {
                script.push_str(&format!(" -lw \"{}\"", joined(chain.stages.iter().map(Stage::count))));
            }
        }
        if stage.kind != DeviceKind::Cpu {
            script.push_str(&format!(" -ngl {}", stage.count() - stage.away));
        }
        script.push('\n');
    }
    written.script = script;
    written
        .notes
        .push("Each command runs on the host above it. Set MODEL to the GGUF file, PROMPT on rank 0.".to_owned());
    written
}

/// MLX distributed: a host file whose last host holds the first layers, because ranks count from the end of the model.
pub(super) fn mlx(chain: &Chain) -> Written {
    let mut written = Written::default();
    no_groups(chain, &mut written.lost);
    let world = u32::try_from(chain.stages.len()).unwrap_or(u32::MAX).max(1);
    if chain.stages.iter().any(|stage| stage.count() * world != chain.layers) {
        let wanted = joined(chain.stages.iter().map(Stage::count));
        let even = format!("MLX divides the {} layers evenly over {world} ranks", chain.layers);
        written.lost.push(format!("Numbers of layers: {even}; wanted is {wanted}."));
    }
    let others: Vec<&String> =
        chain.stages.iter().filter(|stage| stage.maker != Maker::Apple).flat_map(|stage| &stage.devices).collect();
    if !others.is_empty() {
        written.lost.push(format!("Devices that are no Apple machines, as far as is known: {}.", joined(others)));
    }
    if let Some(requests) = several(chain) {
        written.lost.push(format!("Several requests at once: this script takes one, the plan has {requests}."));
    }
    let text = |name: &str| serde_json::Value::from(name).to_string();
    let host = |stage: &Stage| format!("  {{\"ssh\": {0}, \"ips\": [{0}]}}", text(&stage.host));
    let hosts: Vec<String> = chain.stages.iter().rev().map(host).collect();
    written.script = format!(
        "cat > hosts.json <<'END'\n{{\"backend\": \"ring\", \"envs\": [], \"hosts\": [\n{}\n]}}\nEND\n\
         mlx.launch --hostfile hosts.json --backend ring pipeline_generate.py --model \"$MODEL\" --prompt \"$PROMPT\"\n",
        hosts.join(",\n")
    );
    let script = "pipeline_generate.py is in mlx_lm/examples of mlx-lm and lies at the same path on every host.";
    written.notes.push(script.to_owned());
    written.notes.push("ips are the addresses that the ring talks over. Set MODEL and PROMPT.".to_owned());
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(device: &str, host: &str, kind: DeviceKind, layers: (u32, u32)) -> Stage {
        Stage {
            devices: vec![device.to_owned()],
            device: device.to_owned(),
            host: host.to_owned(),
            kind,
            backend: "declared".to_owned(),
            maker: Maker::Nvidia,
            parallel: Parallel::Tensor,
            layers,
            away: 0,
        }
    }

    fn chain() -> Chain {
        Chain {
            stages: vec![
                stage("cpu", "desk", DeviceKind::Cpu, (0, 5)),
                stage("card", "desk", DeviceKind::Gpu, (5, 20)),
                stage("far", "rack", DeviceKind::Gpu, (20, 32)),
            ],
            layers: 32,
            load: Some(Load { context: 1024, requests: 2, step_tokens: 256 }),
            entry: "desk".to_owned(),
        }
    }

    /// Where llama.cpp puts a layer, by its own rule: the first device whose share of layers, summed up, is past it.
    fn placed(split: &[u32], offloaded: u32, layers: u32, layer: u32) -> Option<usize> {
        let total: u32 = split.iter().sum();
        let first = (layers + 1).saturating_sub(offloaded);
        let at = layer.checked_sub(first)? as f32 / offloaded as f32;
        let mut sum = 0.0_f32;
        split.iter().position(|part| {
            sum += *part as f32;
            sum / total as f32 > at
        })
    }

    #[test]
    fn the_tensor_split_puts_every_layer_where_the_plan_has_it() {
        let written = llama_cpp(&chain());
        assert!(written.script.contains("--tensor-split 15,13 "), "{}", written.script);
        assert!(written.script.contains("-ngl 28 "), "{}", written.script);
        assert!(written.script.contains("--device 'CUDA0,RPC[rack:50052]'"), "{}", written.script);
        for layer in 0..32 {
            let expected = match layer {
                0..5 => None,
                5..20 => Some(0),
                _ => Some(1),
            };
            assert_eq!(placed(&[15, 13], 28, 32, layer), expected, "layer {layer}");
        }
    }

    /// One stage of the whole model on these devices.
    fn whole(maker: Maker, kind: DeviceKind, devices: &[&str]) -> Chain {
        let first = Stage { maker, ..stage(devices[0], "desk", kind, (0, 32)) };
        let all = devices.iter().map(|&device| device.to_owned()).collect();
        Chain { stages: vec![Stage { devices: all, ..first }], ..chain() }
    }

    #[test]
    fn devices_are_called_by_their_maker_and_not_by_their_memory() {
        for (maker, kind, name) in [
            (Maker::Nvidia, DeviceKind::Unified, "CUDA0"),
            (Maker::Amd, DeviceKind::Unified, "Vulkan0"),
            (Maker::Apple, DeviceKind::Unified, "Metal"),
            (Maker::Amd, DeviceKind::Gpu, "ROCm0"),
            (Maker::Intel, DeviceKind::Gpu, "SYCL0"),
        ] {
            let chain = whole(maker, kind, &["one"]);
            let script = llama_cpp(&chain).script;
            assert!(script.contains(&format!("--device {name} \\\n")), "{maker:?}: {script}");
            let (apple, of_vllm, of_mlx) = (maker == Maker::Apple, vllm(&chain).lost, mlx(&chain).lost);
            assert_eq!(of_vllm.iter().any(|lost| lost.contains("does not run on")), apple, "{maker:?}: {of_vllm:?}");
            assert_eq!(of_mlx.iter().any(|lost| lost.contains("no Apple machines")), !apple, "{maker:?}: {of_mlx:?}");
        }
    }

    #[test]
    fn cards_of_two_makers_have_names_and_numbers_of_their_own_and_a_note() {
        let red = Stage { maker: Maker::Amd, ..stage("red", "desk", DeviceKind::Gpu, (0, 16)) };
        let mixed = Chain { stages: vec![red, stage("green", "desk", DeviceKind::Gpu, (16, 32))], ..chain() };
        let written = llama_cpp(&mixed);
        assert!(written.script.contains("--device ROCm0,CUDA0 "), "{}", written.script);
        assert!(written.notes.iter().any(|note| note.contains("GGML_BACKEND_DL")), "{:?}", written.notes);
        let lost = vllm(&mixed).lost;
        assert!(lost.iter().any(|lost| lost.contains("(AMD, NVIDIA): vLLM is built for one")), "{lost:?}");
    }

    #[test]
    fn experts_over_cards_stay_on_all_of_the_cards() {
        let mut cards = whole(Maker::Nvidia, DeviceKind::Gpu, &["a", "b", "c", "d"]);
        assert!(!vllm(&cards).script.contains("--enable-expert-parallel"));
        cards.stages[0].parallel = Parallel::Experts;
        let script = vllm(&cards).script;
        assert!(script.contains("--tensor-parallel-size 4 \\\n  --enable-expert-parallel \\\n"), "{script}");
        let written = llama_cpp(&cards);
        assert!(written.script.contains("--device CUDA0,CUDA1,CUDA2,CUDA3 "), "{}", written.script);
        assert!(written.script.contains("--tensor-split 8,8,8,9 "), "{}", written.script);
        assert!(written.lost[0].contains("experts divided") && !written.lost[0].contains("tensor"), "{written:?}");
    }

    #[test]
    fn layers_that_lie_elsewhere_are_none_of_the_card() {
        let mut card = whole(Maker::Nvidia, DeviceKind::Gpu, &["card"]);
        card.stages[0].away = 15;
        let written = llama_cpp(&card);
        // The head is one more.
        assert!(written.script.contains("-ngl 18 "), "{}", written.script);
        assert!(written.lost.iter().any(|lost| lost.contains("the first 15 stay")), "{:?}", written.lost);
        assert!(prima(&card).script.contains("-ngl 17\n"));
        card.stages[0].away = 32;
        assert!(llama_cpp(&card).script.contains("--tensor-split 1 "), "{}", llama_cpp(&card).script);
    }

    #[test]
    fn lengths_that_nobody_stated_are_left_out_and_a_note_says_so() {
        let unstated = Chain { load: None, ..chain() };
        let flags = ["-c ", "-np", " -b ", "--max-model-len", "--max-num-seqs", "--max-num-batched-tokens"];
        for written in [llama_cpp(&unstated), vllm(&unstated), prima(&unstated)] {
            assert!(!flags.iter().any(|flag| written.script.contains(flag)), "{}", written.script);
            assert!(written.notes.iter().any(|note| note.contains("states no lengths")), "{:?}", written.notes);
        }
    }

    #[test]
    fn the_partition_of_vllm_and_the_windows_of_prima_are_the_layers_of_the_stages() {
        assert!(vllm(&chain()).script.contains("VLLM_PP_LAYER_PARTITION=5,15,12\n"));
        let prima = prima(&chain()).script;
        assert!(prima.contains("-lw \"5,15,12\"") && prima.contains("--rank 2 --master desk --next desk"), "{prima}");
        assert!(prima.contains("-ngl 15\n") && !prima.contains("-ngl 5\n"), "{prima}");
    }

    #[test]
    fn mlx_gets_its_hosts_from_the_end_of_the_model_and_says_that_it_divides_evenly() {
        let written = mlx(&chain());
        let json = written.script.split("END").nth(1).expect("a here document").trim_start_matches("'\n");
        let hosts: serde_json::Value = serde_json::from_str(json).expect("a JSON host file");
        assert_eq!(hosts["hosts"][0]["ssh"], "rack");
        assert!(written.lost.iter().any(|lost| lost.contains("evenly")), "{:?}", written.lost);
    }

    #[test]
    fn the_shards_of_exo_are_half_open_and_cover_the_model() {
        let script = exo(&chain()).script;
        let json = script.split("END").nth(1).expect("a here document").trim_start_matches("'\n");
        let shards: serde_json::Value = serde_json::from_str(json).expect("JSON");
        assert_eq!(shards["0"]["startLayer"], 0);
        assert_eq!(shards["1"]["startLayer"], shards["0"]["endLayer"]);
        assert_eq!(shards["2"]["endLayer"], 32);
    }

    #[test]
    fn a_name_that_the_shell_would_read_is_quoted() {
        assert_eq!(word("a b"), "'a b'");
        assert_eq!(word("x'; rm -r $HOME"), "'x'\\''; rm -r $HOME'");
        assert_eq!(word("rack:50052"), "rack:50052");
    }
}
