"""Writes the first seeds of the corpora: small well-formed inputs from which a fuzzer finds the rest.

    python3 fuzz/seeds.py                 gguf, tokenizer, quantity, scenario, helix, replay, machine
    python3 fuzz/seeds.py PLAN DEVICES    and those two files as seeds of their targets
"""

import pathlib
import struct
import sys

# A scenario that refers to no table and uses most keys.
WHOLE = """\
name = "whole"
question = "Does every key reach its reader?"
coordinator = "desk"
junctions = ["switch"]

[model]
layers = 4
hidden = 64
feed_forward = 128
heads = 4
kv_heads = 2
vocabulary = 256
context_max = 512
quantisation = "Q4_0"
tied = true

[[devices]]
name = "desk"
kind = "gpu"
memory = "24 GiB"
memory_bandwidth = { value = "1008 GB/s", source = "data sheet", how = "declared" }
compute = "165 TFLOP/s"
idle_power = "25 W"
busy_power = "450 W"
power_points = [{ speed = 0.934, power = "315 W" }, { speed = 0.6, power = { value = "200 W", how = "measured" } }]
thermal = { resistance = "0.11 K/W", capacity = "900 J/K", throttle_at = "83 °C", resume_at = "78 °C", throttled_speed = 0.7 }

[[devices]]
name = "node"
count = 2
kind = "cpu"
host = "server"
memory = "64 GiB"
memory_pool = "ram"
memory_bandwidth = "80 GB/s"
compute = "2 TFLOP/s"

[network]
within_host = { latency = "10 us", bandwidth = "12 GB/s", kind = "pcie" }
within_site = { latency = "0.5 ms", bandwidth = "1 Gbit/s" }

[[links]]
between = ["desk", "switch"]
latency = "0.2 ms"
bandwidth = "10 Gbit/s"
groups = ["card"]

[[groups]]
name = "card"
bandwidth = "10 Gbit/s"

[[co_run]]
name = "memory bus"
devices = ["node-1", "node-2"]
slowdown = [1.0, 1.3]

[workload]
rate = "2 /s"
prompt_tokens = { min = 64, max = 128 }
output_tokens = 32
requests = 16

[serving]
requests_max = 2
step_tokens_max = 64
kv_block_tokens = 16

[objective]
minimise = "tpot"

[limits]
reserve = "64 MiB"
stages_max = 3
banned = ["node-2"]

[environment]
ambient = "25 °C"
"""

# A flow problem, and a cluster with its machines and profiles.
FLOW = """\
{"a": {"layers": 3, "partial": true,
       "nodes": {"0": {"1": 50.5, "2": 30}, "1": {"1": 50.5, "2": 30}, "2": {"3": 10}},
       "links": [["source", "0", 500], ["source", "2", 400], ["0", "1", 25.25], ["1", "0", 25.25], ["0", "2", 7],
                 ["1", "sink", 500], ["2", "sink", 0], ["2", "source", 1]]}}
"""
CLUSTER = "\0".join([
    "[ComputeNode-0]\ntype=L4\n[ComputeNode-1]\ntype=T4\n[Link-source-0]\nbandwidth=1000 * mbps\nlatency=1 * MilliSec\n"
    "[Link-0-1]\nbandwidth=10 * mbps\nlatency=5 * MilliSec\n[Link-1-sink]\nbandwidth=1000 * mbps\nlatency=1 * MilliSec\n",
    "[L4]\ninbound_nic_speed = 10 * gbps\noutbound_nic_speed = 10 * gbps\nvram_size = 24 * GB\n"
    "[T4]\ninbound_nic_speed = -1\noutbound_nic_speed = 5 * gbps\nvram_size = 16 * GB\n",
    "0,0\n250,12\n500,20\n",
    "0,0\n2,6.9\n4,7\n",
])

HERE = pathlib.Path(__file__).resolve().parent
U32, F32, STRING, ARRAY, I32 = 4, 6, 8, 9, 5


def text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def gguf(metadata, tensors):
    """A GGUF version 3 file; metadata as (key, type, bytes), tensors as (name, dimensions, type, bytes)."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    for key, kind, value in metadata:
        head += text(key) + struct.pack("<I", kind) + value
    offset, data = 0, b""
    for name, dimensions, kind, content in tensors:
        head += text(name) + struct.pack("<I", len(dimensions)) + struct.pack(f"<{len(dimensions)}Q", *dimensions)
        head += struct.pack("<IQ", kind, offset)
        content += b"\0" * (-len(content) % 32)
        data, offset = data + content, offset + len(content)
    return head + b"\0" * (-len(head) % 32) + data


def strings(values):
    return struct.pack("<IQ", STRING, len(values)) + b"".join(map(text, values))


def byte_letters():
    """The printable letter that stands for each byte in byte-level vocabularies."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(others)) for byte in range(256)]


def model():
    metadata = [
        ("general.architecture", STRING, text("llama")),
        ("general.alignment", U32, struct.pack("<I", 32)),
        ("llama.rope.freq_base", F32, struct.pack("<f", 10000.0)),
    ]
    tensors = [
        ("output_norm.weight", [8], 0, struct.pack("<8f", *range(8))),
        ("half", [4, 2], 1, b"\x00\x3c" * 8),
        ("blk.0.attn_q.weight", [32, 2], 8, (b"\x00\x3c" + bytes(range(32))) * 2),
        ("blk.0.attn_k.weight", [32, 1], 3, b"\x00\x3c\x00\x3c" + bytes(range(16))),
    ]
    return gguf(metadata, tensors)


def tokenizer():
    letters = byte_letters()
    tokens = letters + ["th", "the", "<|im_end|>"]
    kinds = [1] * 258 + [3]
    metadata = [
        ("general.architecture", STRING, text("llama")),
        ("tokenizer.ggml.model", STRING, text("gpt2")),
        ("tokenizer.ggml.pre", STRING, text("smollm")),
        ("tokenizer.ggml.tokens", ARRAY, strings(tokens)),
        ("tokenizer.ggml.token_type", ARRAY, struct.pack("<IQ", I32, len(kinds)) + struct.pack(f"<{len(kinds)}i", *kinds)),
        ("tokenizer.ggml.merges", ARRAY, strings(["t h", "th e"])),
        ("tokenizer.ggml.eos_token_id", U32, struct.pack("<I", 258)),
    ]
    file = gguf(metadata, [])
    return struct.pack("<H", len(file)) + file + "the 42 Öfen<|im_end|> don't".encode()


# Recorded loads, one of each form.
LOADS = {
    "seconds": "arrived_at,num_prefill_tokens,num_decode_tokens\n0.0,374,44\n4.314579,396,109\n1e1,879,55\n",
    "dates": "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n"
    "2024-05-10T00:00:00.009930+02:00,396,109\n",
    "blocks": '{"timestamp": 0, "input_length": 1100, "output_length": 5, "hash_ids": [7, 8, 9]}\n'
    '{"timestamp": 27.5, "input_length": 600, "output_length": 5, "hash_ids": [7, 10]}\n',
    "tokens": '{"input_toks": 3, "output_toks": 2, "arrival_time_ns": 71, "input_tok_ids": [1, 2, 3]}\n',
}
OPERATORS = {
    "embedding": 5, "layernorm": 1, "qkv_proj": 10, "qk_norm": 2, "rotary_emb": 2, "o_proj": 3, "gate_up_proj": 20,
    "act_fn": 1, "down_proj": 7, "final_layernorm": 4,
}
PROFILE = "\0".join([
    "model: meta-llama/Llama-3.1-8B\nhardware: card\nmeasurement_iterations: 3\nskew_fit:\n  enabled: true\n",
    "layer,tokens,time_us\n" + "".join(f"{name},{n},{t + n / 16}\n" for name, t in OPERATORS.items() for n in (1, 16, 512)),
    "layer,sequences,time_us\nlm_head,1,30\nlm_head,16,40\nsampler,1,6\nsampler,16,12\n",
    "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us\n0,0,1,16,9\n0,0,1,64,11\n0,0,8,16,12\n0,0,8,64,30\n"
    "16,0,0,0,20\n16,64,0,0,24\n512,0,0,0,90\n512,64,0,0,99\n16,0,1,16,25\n16,0,8,64,50\n",
    "tokens,activated_experts,time_us\n1,2,10\n512,2,208\n1,8,20\n512,8,218\n",
    "pc,n_label,skew_rate_label,kv_big_label,kp_label,alpha,n_samples\n0,n<=8,sr<=40%,kvB<=1k,kp=0,0.1,4\n"
    "16,n>8,sr>70%,kvB>16k,kp>8k,-0.05,2\n",
])
RUN = """{"input_toks": 20, "output_toks": 3, "arrival_time_ns": 5, "input_tok_ids": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17], "request_id": "bench-0", "queued_ts": 1.5, "first_token_ts": 2.0, "last_token_ts": 3.0}
"""


# A scenario of a model of experts.
EXPERTS = """\
name = "experts"
question = "How fast do prompts and answers apart serve a model of experts?"
[model]
name = "m"
layers = 4
hidden = 64
feed_forward = 128
heads = 2
vocabulary = 100
context_max = 4096
quantisation = "F16"
[[devices]]
name = "a"
kind = "gpu"
count = 2
host = "box"
memory = "1 GiB"
[[devices.profiles]]
model = "m"
dense_ms = [[1, 0.1], [256, 1.0]]
[devices.profiles.experts]
count = 8
per_token = 2
layers = 2
measured_per_token = 2
popularity = [4, 1, 1, 1, 1, 1, 1, 1]
[[devices.profiles.experts.times]]
activated = 2
ms = [[1, 0.1], [64, 0.4]]
[[devices.profiles.experts.times]]
activated = 8
ms = [[1, 0.3], [64, 0.6]]
[network]
within_host = { latency = "10 us", bandwidth = "20 GB/s" }
[serving]
requests_max = 2
kv_blocks = 64
kv_swap_blocks = 32
[disaggregation]
prefill = ["a-1"]
[[chassis]]
name = "tower"
devices = ["a-1", "a-3"]
resistance = "0.02 K/W"
capacity = "5 kJ/K"
"""

# A scenario that divides its devices in two ways at once, which is a fault that the reader states.
DIVISION = """\
name = "division"
question = "?"
[model]
layers = 2
hidden = 8
feed_forward = 16
heads = 2
vocabulary = 10
context_max = 64
quantisation = "F16"
[[devices]]
name = "a"
kind = "gpu"
memory = "1 GiB"
memory_bandwidth = "1 GB/s"
count = 2
[choices]
expert_parallel = [2]
[disaggregation]
choose = true
prefill = ["a-1"]
[workload]
clients = 1
prompt_tokens = 4
output_tokens = 2
requests = 1
[objective]
maximise = "throughput"
"""

# Logs of power and temperature, as nvidia-smi and as a monitor of one's own write them.
THERMAL = {
    "smi": "timestamp, temperature.gpu, power.draw [W], clocks.current.sm [MHz], utilization.gpu [%]\n"
    + "".join(f"2025/02/27 03:29:{i:02}.500, {40 + i}, {30 + i}.50 W, 1500 MHz, 80 %\n" for i in range(24)),
    "own": "time_ms;Power (mW);temp_c;ambient;fan.speed [%]\n"
    + "".join(f"{i * 500};{42500 + i};{40 + i % 5};21.5;{30 + i}\n" for i in range(24)),
}


# The kernel's files of a machine, in the order of checks/machine.rs.
MACHINE = "\0".join(
    [
        "model name\t: Example CPU\n",
        "MemTotal: 1000 kB\nMemAvailable: 600 kB\n",
        "cpu  1 2 3 4 5 6 7 8 9 10\n",
        "Board 5",
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Thu\n",
        "Model: \t Card 9\nGPU UUID: \t GPU-0d7e\n",
        "0-3",
        "0x030000",
        "0x1002",
        "0",
        "16.0 GT/s PCIe",
        "16",
        "a1b2",
        "25753026560",
        "0: 500Mhz\n1: 2526Mhz *\n",
        "37",
        "47000",
        "303000000",
        "1000",
        "Disk",
        "1000",
        "0",
        "Battery",
        "4855000",
        "3900000",
        "312",
        "DRIVER=v3d\n",
        "9000000",
    ]
)


def write(target, name, data):
    folder = HERE / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def main():
    write("gguf", "seed-model", model())
    write("tokenizer", "seed-tokenizer", tokenizer())
    for number, quantity in enumerate(["80 GiB", "83 °C", "10 Gbit/s", "60 s", "1.5e3 W", "-1 ms"]):
        write("quantity", f"seed-{number}", quantity.encode())
    write("scenario", "seed-whole", WHOLE.encode())
    write("scenario", "seed-division", DIVISION.encode())
    write("scenario", "seed-experts", EXPERTS.encode())
    for scenario in sorted((HERE.parent / "scenarios" / "smoke").glob("*.toml")):
        write("scenario", f"seed-{scenario.stem}", scenario.read_bytes())
    write("helix", "seed-flow", FLOW.encode())
    write("helix", "seed-cluster", CLUSTER.encode())
    for name, load in LOADS.items():
        write("replay", f"seed-{name}", load.encode())
    for name, log in THERMAL.items():
        write("thermal_log", f"seed-{name}", log.encode())
    write("llmservingsim", "seed-profile", PROFILE.encode())
    write("llmservingsim", "seed-run", RUN.encode())
    write("machine", "seed-card", MACHINE.encode())
    for target, path in zip(["plan", "devices"], sys.argv[1:]):
        write(target, "seed-" + target, pathlib.Path(path).read_bytes())


if __name__ == "__main__":
    main()
