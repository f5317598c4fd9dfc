#!/usr/bin/env python3
"""One decoded token of a Llama-shaped model in PyTorch, as a CUDA graph: the peer of `isotherm bench cuda`.

Weights are random and in bfloat16, products are cuBLAS's, attention is PyTorch's own over a cache that is full. What a
serving engine does around a step (sampling, scheduling) is in neither figure. Needs a card, PyTorch and nothing else.

    python3 benches/peers/torch_decode.py [--positions N]
"""

import argparse

import torch
import torch.nn.functional as functional

# The shape that `isotherm bench cuda --shape llama-1b` takes.
HIDDEN, FEED_FORWARD, LAYERS, VOCABULARY = 2048, 8192, 16, 49_152
HEADS, KV_HEADS, HEAD_SIZE = 32, 8, 64


def layer(positions: int) -> dict[str, torch.Tensor]:
    def weights(rows: int, columns: int) -> torch.Tensor:
        return torch.randn(rows, columns, device="cuda", dtype=torch.bfloat16) * 0.02

    cache = (1, KV_HEADS, positions, HEAD_SIZE)
    kv = KV_HEADS * HEAD_SIZE
    return {
        "norm": torch.ones(HIDDEN, device="cuda", dtype=torch.bfloat16),
        "qkv": weights(HIDDEN + 2 * kv, HIDDEN),
        "output": weights(HIDDEN, HIDDEN),
        "gate_up": weights(2 * FEED_FORWARD, HIDDEN),
        "down": weights(HIDDEN, FEED_FORWARD),
        "keys": torch.randn(cache, device="cuda", dtype=torch.bfloat16),
        "values": torch.randn(cache, device="cuda", dtype=torch.bfloat16),
    }


def step(hidden: torch.Tensor, layers: list[dict[str, torch.Tensor]], head: torch.Tensor) -> torch.Tensor:
    for one in layers:
        normed = functional.rms_norm(hidden, (HIDDEN,), one["norm"])
        query = functional.linear(normed, one["qkv"])[:, :HIDDEN].view(1, HEADS, 1, HEAD_SIZE)
        attended = functional.scaled_dot_product_attention(query, one["keys"], one["values"], enable_gqa=True)
        hidden = hidden + functional.linear(attended.reshape(1, HIDDEN), one["output"])
        normed = functional.rms_norm(hidden, (HIDDEN,), one["norm"])
        gate, up = functional.linear(normed, one["gate_up"]).chunk(2, dim=1)
        hidden = hidden + functional.linear(functional.silu(gate) * up, one["down"])
    return functional.linear(hidden, head)


def median_seconds(body, samples: int = 21) -> float:
    """Median of replays of a graph that holds `body`, by the card's own marks."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            body()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        body()
    times = []
    for _ in range(samples):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return sorted(times)[samples // 2]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--positions", type=int, default=1024)
    positions = arguments.parse_args().positions
    with torch.no_grad():
        layers = [layer(positions) for _ in range(LAYERS)]
        head = torch.randn(VOCABULARY, HIDDEN, device="cuda", dtype=torch.bfloat16) * 0.02
        first = torch.randn(1, HIDDEN, device="cuda", dtype=torch.bfloat16)
        token = median_seconds(lambda: step(first, layers, head))
        numbers = sum(tensor.numel() for one in layers for tensor in one.values()) + head.numel()
        print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, bfloat16, {positions} positions")
        print(f"one token: {token * 1e6:.1f} us, {1 / token:.0f} tokens a second, {2 * numbers / token / 1e9:.0f} GB/s")
        source = torch.empty(1 << 28, device="cuda")
        target = torch.empty_like(source)
        copy = median_seconds(lambda: target.copy_(source))
        print(f"copy of 1 GiB: {2 * 4 * source.numel() / copy / 1e9:.0f} GB/s read and written")


if __name__ == "__main__":
    main()
