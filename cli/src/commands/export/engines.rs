//! One writer for each engine. Options are those of the engines' own documentation.

use super::{Chain, Stage, Written};
use isotherm_core::device::DeviceKind;
use std::collections::BTreeSet;

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
    if chain.stages.iter().any(|stage| stage.devices.len() > 1) {
        lost.push("A stage on several devices at once (tensor parallel); its first device is written.".to_owned());
    }
}

/// llama.cpp: `--rpc`, `--device`, `--tensor-split`, `-ngl`.
///
/// The split is in whole layers, in the order of `--device`; the output head counts as one more layer at the end.
/// Layers beyond `-ngl` are the first ones, on the main host's processor.
pub(super) fn llama_cpp(chain: &Chain) -> Written {
    let mut written = Written::default();
    no_groups(chain, &mut written.lost);
    let local_cpu = |stage: &Stage| stage.kind == DeviceKind::Cpu && stage.host == chain.entry;
    let offloaded: Vec<&Stage> =
        chain.stages.iter().enumerate().filter(|(i, stage)| !(*i == 0 && local_cpu(stage))).map(|(_, s)| s).collect();
    if offloaded.iter().any(|stage| local_cpu(stage)) {
        let (host, what) = (&chain.entry, "holds the first layers only; its stage is written as a server of its own");
        written.lost.push(format!("The processor of the main host {host} {what}."));
    }
    let mut servers: Vec<(&str, u16)> = Vec::new();
    let mut local = 0;
    let mut devices = Vec::new();
    let mut remote = String::new();
    for stage in &offloaded {
        if stage.host == chain.entry && stage.kind != DeviceKind::Cpu {
            devices.push(match stage.kind {
                DeviceKind::Unified => "Metal".to_owned(),
                _ if stage.backend == "wgpu" => format!("Vulkan{local}"),
                _ => format!("CUDA{local}"),
            });
            local += 1;
            continue;
        }
        let port = RPC_PORT + servers.iter().filter(|(host, _)| *host == stage.host).count() as u16;
        servers.push((&stage.host, port));
        devices.push(format!("RPC[{}:{port}]", stage.host));
        remote.push_str(&format!("# on {}, for {}:\n#   rpc-server -H 0.0.0.0 -p {port}\n", stage.host, stage.device));
    }
    let on_devices: u32 = offloaded.iter().map(|stage| stage.count()).sum();
    let mut split: Vec<u32> = offloaded.iter().map(|stage| stage.count()).collect();
    if let Some(last) = split.last_mut() {
        *last += 1;
    }
    let layers = if offloaded.is_empty() { 0 } else { on_devices + 1 };
    written.script = format!("{remote}# on {}:\nllama-server -m \"$MODEL\" \\\n", chain.entry);
    if !servers.is_empty() {
        let list = servers.iter().map(|(host, port)| format!("{host}:{port}"));
        written.script.push_str(&format!("  --rpc {} \\\n", word(&joined(list))));
    }
    if !devices.is_empty() {
        written.script.push_str(&format!("  --device {} \\\n", word(&joined(&devices))));
        written.script.push_str(&format!("  --split-mode layer --tensor-split {} \\\n", joined(split)));
    }
    let (context, requests) = (chain.context.saturating_mul(u64::from(chain.requests)), chain.requests);
    written.script.push_str(&format!("  -ngl {layers} -c {context} -np {requests} -b {}\n", chain.step_tokens.max(32)));
    let names = "Names of devices differ between releases: `llama-server --rpc ... --list-devices` prints them.";
    written.notes.push(names.to_owned());
    written.notes.push("Set MODEL to the GGUF file. The RPC server is for trusted networks only.".to_owned());
    if servers.iter().any(|(_, port)| *port > RPC_PORT) {
        let own =
            "Each of several servers on a host must see its own card alone: start it with CUDA_VISIBLE_DEVICES set.";
        written.notes.push(own.to_owned());
    }
    if !servers.is_empty() {
        let way = "Activations pass through the main host between servers, not from server to server.";
        written.lost.push(way.to_owned());
    }
    written
}

/// vLLM: `VLLM_PP_LAYER_PARTITION`, `--pipeline-parallel-size`, `--tensor-parallel-size`.
pub(super) fn vllm(chain: &Chain) -> Written {
    let mut written = Written::default();
    let sizes: BTreeSet<usize> = chain.stages.iter().map(|stage| stage.devices.len()).collect();
    let group = if sizes.len() == 1 { sizes.first().copied().unwrap_or(1) } else { 1 };
    if sizes.len() > 1 {
        written.lost.push("Stages on different numbers of devices; each is written with one.".to_owned());
    }
    if chain.stages.iter().any(|stage| stage.kind == DeviceKind::Unified) {
        written.lost.push("Devices that vLLM does not run on (Apple, phones).".to_owned());
    }
    if chain.stages.iter().any(|stage| stage.kind == DeviceKind::Cpu) {
        let mixed = "Processors and cards in one pipeline: vLLM is built for one kind of device.";
        written.lost.push(mixed.to_owned());
    }
    let hosts: BTreeSet<&str> = chain.stages.iter().map(|stage| stage.host.as_str()).collect();
    let order =
        "Order of devices: ranks follow CUDA_VISIBLE_DEVICES on a host, and the cluster's own order across hosts";
    written.lost.push(format!("{order}; wanted is {}.", joined(chain.stages.iter().map(|stage| &stage.device))));
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
    if hosts.len() > 1 {
        script.push_str("  --distributed-executor-backend ray \\\n");
    }
    let (context, requests, tokens) = (chain.context, chain.requests, chain.step_tokens.max(chain.requests));
    script.push_str(&format!(
        "  --max-model-len {context} --max-num-seqs {requests} --enable-chunked-prefill --max-num-batched-tokens {tokens}\n"
    ));
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
    if chain.requests > 1 {
        let one = "prima.cpp serves one request at a time";
        written.lost.push(format!("Several requests at once: {one}, the plan has {}.", chain.requests));
    }
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
        script.push_str(&format!("llama-cli -m \"$MODEL\" -c {}", chain.context));
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
            script.push_str(&format!(" -ngl {}", stage.count()));
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
    if chain.stages.iter().any(|stage| stage.kind != DeviceKind::Unified) {
        let others = chain.stages.iter().filter(|stage| stage.kind != DeviceKind::Unified).map(|stage| &stage.device);
        written.lost.push(format!("Devices that are no Apple machines: {}.", joined(others)));
    }
    if chain.requests > 1 {
        written.lost.push(format!("Several requests at once: this script takes one, the plan has {}.", chain.requests));
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
        let (device, host) = (device.to_owned(), host.to_owned());
        Stage { devices: vec![device.clone()], device, host, kind, backend: "cuda".to_owned(), layers }
    }

    fn chain() -> Chain {
        Chain {
            stages: vec![
                stage("cpu", "desk", DeviceKind::Cpu, (0, 5)),
                stage("card", "desk", DeviceKind::Gpu, (5, 20)),
                stage("far", "rack", DeviceKind::Gpu, (20, 32)),
            ],
            layers: 32,
            context: 1024,
            requests: 2,
            step_tokens: 256,
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
