"""Which steps vLLM's own scheduler forms, as digests for `sim/src/policy/vllm/tests.rs`.

usage: python3 vllm_steps.py VLLM_SOURCE [WORKLOAD.jsonl]

VLLM_SOURCE is an unpacked source distribution of vLLM 0.19.0. Its AsyncScheduler, cache manager and block pool run as
they stand; whatever else they import (torch, the engine's messages, metrics) is replaced by stand-ins that do nothing.
The loop is that of `step_with_batch_queue` in `vllm/v1/engine/core.py`: a step is formed while one runs, requests are
taken in when a step is over. Steps take a made-up time, so that nothing but the rules of the scheduler decides.

Printed for each cache size: an FNV-1a digest over (request, tokens before, tokens) of every step and over the times of
all first and last tokens, the number of steps, of preemptions, and the end in nanoseconds.
"""

import contextlib
import enum
import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import pathlib
import sys
import types
from unittest.mock import MagicMock

ROOT = pathlib.Path(sys.argv[1])
CORE = "vllm.v1.core."
REAL = {CORE + name for name in [
    "sched.scheduler", "sched.async_scheduler", "sched.request_queue", "sched.utils", "sched.output", "sched.interface",
    "kv_cache_manager", "kv_cache_coordinator", "single_type_kv_cache_manager", "block_pool", "kv_cache_utils",
    "kv_cache_metrics",
]} | {"vllm.v1.request", "vllm.v1.kv_cache_interface", "vllm.utils.math_utils", "vllm.utils.mem_constants"}
PACKAGES = {"vllm", "vllm.v1", "vllm.v1.core", "vllm.v1.core.sched", "vllm.utils"}
ABSENT = {"vllm", "torch", "cbor2", "blake3", "xxhash", "msgspec", "zmq", "transformers", "numpy", "PIL", "cloudpickle",
          "psutil", "regex"}
Plain = types.SimpleNamespace


class StandIn(types.ModuleType):
    """A module whose classes take any arguments and whose functions do nothing."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        if name[0].isupper():
            body = {
                "__init__": lambda self, *args, **kwargs: None,
                "__class_getitem__": classmethod(lambda cls, item: cls),
                "__getattr__": lambda self, key: MagicMock(),
            }
            made = type(name, (), body)
        else:
            made = MagicMock(name=name)
        setattr(self, name, made)
        return made


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """The real modules of the scheduler from VLLM_SOURCE, stand-ins for the rest."""

    def find_spec(self, name, path, target=None):
        if name in REAL:
            return importlib.util.spec_from_file_location(name, ROOT.joinpath(*name.split(".")).with_suffix(".py"))
        if name in PACKAGES or name.split(".")[0] in ABSENT:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return types.ModuleType(spec.name) if spec.name in PACKAGES else StandIn(spec.name)

    def exec_module(self, module):
        module.__path__ = []


sys.meta_path.insert(0, Finder())

messages = importlib.import_module("vllm.v1.engine")
messages.FinishReason = enum.IntEnum("FinishReason", "STOP LENGTH ABORT ERROR REPETITION", start=0)
messages.EngineCoreOutput = lambda **fields: Plain(**fields)
messages.EngineCoreOutputs = lambda **fields: Plain(
    **{"outputs": [], "finished_requests": None, "scheduler_stats": None, **fields})
tools = importlib.import_module("vllm.v1.utils")
tools.record_function_or_nullcontext = lambda *args, **kwargs: contextlib.nullcontext()
tools.ConstantList = lambda items: items

import vllm.v1.core.sched.async_scheduler as async_scheduler  # noqa: E402
import vllm.v1.core.sched.scheduler as scheduler  # noqa: E402
import vllm.v1.request as requests  # noqa: E402
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec  # noqa: E402

scheduler.envs = Plain(VLLM_USE_V2_MODEL_RUNNER=False)
for name in ["EventPublisherFactory", "EncoderCacheManager", "KVCacheMetricsCollector"]:
    setattr(scheduler, name, MagicMock())
requests.StructuredOutputRequest = Plain(from_sampling_params=lambda params: None)
requests.length_from_prompt_token_ids_or_embeds = lambda tokens, embeds: len(tokens)
requests.Request.get_skip_reading_prefix_cache = lambda self: False
requests.Request.use_structured_output = property(lambda self: False)
requests.Request.has_encoder_inputs = property(lambda self: False)


def engine(blocks, block, budget, requests_max):
    """vLLM's scheduler with its defaults: prefix caching, chunked prefill, look-ahead, whole prompts reserved."""
    spec = object.__new__(FullAttentionSpec)
    fields = {"block_size": block, "num_kv_heads": 1, "head_size": 1, "dtype": None, "head_size_v": 1,
              "sliding_window": None, "attention_chunk_size": None, "page_size_padded": None}
    for key, value in fields.items():
        object.__setattr__(spec, key, value)
    groups = [KVCacheGroupSpec(layer_names=["layer"], kv_cache_spec=spec)]
    cache = KVCacheConfig(num_blocks=blocks, kv_cache_tensors=[], kv_cache_groups=groups)
    limits = Plain(max_num_seqs=requests_max, max_num_scheduled_tokens=None, max_num_batched_tokens=budget,
                   policy="fcfs", long_prefill_token_threshold=0, enable_chunked_prefill=True,
                   scheduler_reserve_full_isl=True,
                   async_scheduling=True)
    parallel = Plain(data_parallel_index=0, decode_context_parallel_size=1, prefill_context_parallel_size=1,
                     pipeline_parallel_size=1)
    config = Plain(
        scheduler_config=limits, parallel_config=parallel, lora_config=None, kv_events_config=None,
        kv_transfer_config=None, ec_transfer_config=None, speculative_config=None,
        cache_config=Plain(
            enable_prefix_caching=True, num_gpu_blocks=blocks, block_size=block, mamba_cache_mode="none"),
        observability_config=Plain(kv_cache_metrics=False, enable_mfu_metrics=False),
        model_config=Plain(is_encoder_decoder=False, max_model_len=32768, enable_return_routed_experts=False))
    registry = Plain(supports_multimodal_inputs=lambda config: False)
    grammar = Plain(should_advance=lambda request: False)
    return async_scheduler.AsyncScheduler(config, cache, grammar, block, mm_registry=registry)


def request(number, tokens, output, block):
    """A request that is answered in full length, with its blocks hashed as vLLM chains them."""
    params = Plain(max_tokens=output, min_tokens=output, extra_args=None, eos_token_id=None, stop_token_ids=(),
                   repetition_detection=None, logprobs=None, prompt_logprobs=None)

    def hashes(request):
        known, made = len(request.block_hashes), []
        before = request.block_hashes[-1] if known else b""
        tokens = request._all_token_ids
        while (known + 1) * block <= len(tokens):
            content = repr(tokens[known * block:(known + 1) * block]).encode()
            before = hashlib.sha256(before + content).digest()
            made.append(before)
            known += 1
        return made

    return requests.Request(str(number), list(tokens), params, None, arrival_time=0.0, block_hasher=hashes)


def steps(load, blocks, block, budget, requests_max, cost):
    """Serves the load, (arrival, prompt, output) each; gives digest, steps, preemptions and end."""
    core = engine(blocks, block, budget, requests_max)
    waiting = [(at, request(i, prompt, output, block)) for i, (at, prompt, output) in enumerate(load)]
    digest = 0xCBF29CE484222325

    def mix(number):
        nonlocal digest
        for byte in int(number).to_bytes(8, "little"):
            digest = (digest ^ byte) * 0x100000001B3 % 2**64

    now = free_at = formed = preemptions = 0
    first, last, queue = [None] * len(load), [None] * len(load), []
    while True:
        while waiting and waiting[0][0] <= now:
            core.add_request(waiting.pop(0)[1])
        if not core.has_requests() and not queue:
            if not waiting:
                break
            now = waiting[0][0]
            continue
        executed = False
        if core.has_requests():
            out = core.schedule()
            preemptions += len(out.preempted_req_ids)
            executed, end, yields = out.total_num_scheduled_tokens > 0, now, []
            if executed:
                formed += 1
                for key, tokens in out.num_scheduled_tokens.items():
                    for number in (key, core.requests[key].num_computed_tokens - tokens, tokens):
                        mix(number)
                mix(0xFFFFFFFF)
                end = free_at = max(free_at, now) + cost(out.total_num_scheduled_tokens)
                yields = [not core.requests[key].is_prefill_chunk for key in out.num_scheduled_tokens]
            queue.insert(0, (end, out, yields))
            if executed and len(queue) < 2 and queue[-1][0] > now:
                continue
        end, out, yields = queue.pop()
        now = max(now, end)
        keys = list(out.num_scheduled_tokens)
        # A token that no other request has.
        sampled = [[-(int(key) + 1) * 100_000 - core.requests[key].num_tokens] if some and key in core.requests else []
                   for key, some in zip(keys, yields)]
        core.update_from_output(out, Plain(
            sampled_token_ids=sampled, logprobs=None, prompt_logprobs_dict={}, pooler_output=None, cudagraph_stats=None,
            num_nans_in_logits=None, kv_connector_output=None, req_id_to_index={key: i for i, key in enumerate(keys)}))
        for key, tokens in zip(keys, sampled):
            if tokens:
                first[int(key)] = first[int(key)] or now
                last[int(key)] = now
    for pair in zip(first, last):
        for number in pair:
            mix(number)
    return digest, formed, preemptions, now


def made_up():
    """The load of the test: prompts that begin with up to seven blocks of one of four texts."""
    state = 42

    def below(most):
        nonlocal state
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (state >> 33) % most

    at, load = 0, []
    for i in range(200):
        at += below(30_000_000)
        text, shared, own, output = below(4), below(8) * 16, 1 + below(120), 1 + below(150)
        prompt = [text * 1000 + k for k in range(shared)] + [10_000_000 + i * 1000 + k for k in range(own)]
        load.append((at, prompt, output))
    return load


for sizes in [(150, 16, 256, 32), (90, 16, 64, 8), (400, 16, 512, 64)]:
    print(sizes, *steps(made_up(), *sizes, lambda tokens: 5_000_000 + 20_000 * tokens))
if len(sys.argv) > 2:
    rows = [json.loads(line) for line in pathlib.Path(sys.argv[2]).read_text().splitlines()]
    recorded = [(row["arrival_time_ns"], row["input_tok_ids"], row["output_toks"]) for row in rows]
    print("recorded", *steps(recorded, 2588, 16, 2048, 256, lambda tokens: 20_000_000 + 90_000 * tokens))
