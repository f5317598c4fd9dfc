#!/usr/bin/env python3
"""A second checker of isotherm plans, in plain Python, sharing no code with isotherm.

    check_plan.py PLAN.json PROBLEM.json     judge one plan; exit 0 when it holds, 5 when it does not, 1 when a file
                                             cannot be read, 2 on wrong usage
    check_plan.py --batch CASES.jsonl        each line {"plan": ..., "problem": ...}; prints {"ok": ..., "violations":
                                             [...], "objective": ...} for each, in order; exit 0

PROBLEM.json holds the inputs of the problem and nothing derived from them: `scenario, inputs, model, devices, workload,
serving, objective, limits` (schema isotherm.problem/v1). Every coefficient is computed here from the published formulas
in exact rationals (fractions.Fraction), every float being the dyadic rational it is. Only the choice of the quickest
way uses floats, so that two equally quick ways are not told apart by rounding.

Needs Python 3.9 and nothing else. Written to be read, not to be fast.
"""
import copy
import heapq
import itertools
import json
import math
import re
import sys
from fractions import Fraction as Q

AGREE = Q(1, 10**9)
SHARE_SLACK = Q(1, 10**12)
GAP_OPTIMAL_MAX = 1e-6
# Bytes of a block over its weights.
BYTES_PER_WEIGHT = {
    "F32": Q(4), "F16": Q(2), "BF16": Q(2), "Q8_0": Q(34, 32), "Q6_K": Q(210, 256), "Q5_1": Q(24, 32), "Q5_0": Q(22, 32),
    "Q5_K": Q(176, 256), "Q4_1": Q(20, 32), "Q4_0": Q(18, 32), "Q4_K": Q(144, 256), "Q3_K": Q(110, 256),
    "Q2_K": Q(84, 256), "IQ2_XXS": Q(66, 256), "IQ1_S": Q(50, 256)}
OPERATIONS = {"norm", "product", "rotate", "remember", "attend", "gate", "add"}
U32 = 2**32 - 1
U64 = 2**64 - 1


class Malformed(Exception):
    """The plan does not have the form of a plan."""


def agree(a, b):
    return abs(a - b) <= max(abs(a), abs(b)) * AGREE


def value(figure):
    return None if figure is None else figure["value"]


def mean(length):
    return Q(length["min"] + length["max"], 2)


def curve_at(knots, x):
    if len(knots) == 1:
        return Q(knots[0][1])
    right = min(max(next((i for i, k in enumerate(knots) if k[0] >= x), len(knots)), 1), len(knots) - 1)
    (a, ta), (b, tb) = knots[right - 1], knots[right]
    u = Q(x - a) / (b - a)
    return max(Q(ta) * (1 - u) + Q(tb) * u, Q(0))


def grid_at(grid, row, column):
    def place(knots, x):
        if len(knots) == 1:
            return 0, 0, Q(0)
        right = min(max(next((i for i, k in enumerate(knots) if k >= x), len(knots)), 1), len(knots) - 1)
        return right - 1, right, Q(x - knots[right - 1]) / (knots[right] - knots[right - 1])

    r0, r1, u = place(grid["rows"], row)
    c0, c1, v = place(grid["columns"], column)
    at = lambda r, c: Q(grid["seconds"][r * len(grid["columns"]) + c])
    top, bottom = at(r0, c0) * (1 - v) + at(r0, c1) * v, at(r1, c0) * (1 - v) + at(r1, c1) * v
    return max(top * (1 - u) + bottom * u, Q(0))


def share_at(resident, start, end, total, tokens):
    """What a layer of a small stage takes of its dense time: caches keep some of the weights."""
    weights = end - start + (Q(resident["head_layers"]) if end == total else 0)
    layers, knots = [Q(x) for x in resident["layers"]], resident["tokens"]
    if weights >= layers[-1]:
        return Q(1)

    def row(r):
        shares = [Q(x) for x in resident["shares"][r * len(knots):(r + 1) * len(knots)]]
        right = next((i for i, k in enumerate(knots) if k >= tokens), len(knots))
        if right in (0, len(knots)):
            return shares[min(right, len(knots) - 1)]
        u = Q(tokens - knots[right - 1], knots[right] - knots[right - 1])
        return shares[right - 1] * (1 - u) + shares[right] * u

    r = next(i for i, x in enumerate(layers) if x >= weights)
    if r == 0:
        return row(0)
    u = (weights - layers[r - 1]) / (layers[r] - layers[r - 1])
    return row(r - 1) * (1 - u) + row(r) * u


def experts_at(experts, tokens):
    """The time of a layer's experts on the device that takes longest, for steps of so many tokens."""
    count, k, devices = experts["count"], experts["per_token"], experts.get("devices", 1)
    popularity = experts.get("popularity") or [1] * count
    whole = sum(popularity)
    shares = [min(p / whole * k, 1.0) for p in popularity]

    def of_device(held):
        activated = sum(1 - (1 - share) ** tokens for share in held)
        pairs = sum(share * tokens for share in held)
        at, rows = max(Q(pairs) / experts["measured_per_token"], Q(1)), experts["by_activated"]
        high = next((i for i, row in enumerate(rows) if row[0] >= activated), len(rows))
        if not rows:
            return Q(0)
        if high == 0 or high == len(rows):
            return curve_at(rows[min(high, len(rows) - 1)][1], at)
        (a, below), (b, above) = rows[high - 1], rows[high]
        u = (Q(activated) - a) / (b - a)
        return curve_at(below, at) * (1 - u) + curve_at(above, at) * u

    parts = [shares[count * d // devices:count * (d + 1) // devices] for d in range(devices)]
    return max(max(of_device(held), Q(0)) for held in parts) / experts.get("width", 1)


def speed_under(device, cap):
    """Share of full speed at which a device is busy under a power cap: on the lines from idle through its operating points to
    full speed. None where its powers are not known, which a cap then slows by nothing that is known."""
    idle, busy = value(device.get("idle_watts")), value(device.get("busy_watts"))
    if idle is None or busy is None or not busy > idle:
        return None
    share = min(max((cap - Q(idle)) / (Q(busy) - Q(idle)), Q(0)), Q(1))
    points = [((Q(value(p["watts"])) - Q(idle)) / (Q(busy) - Q(idle)), Q(p["speed"]))
              for p in reversed(device.get("power_points", [])) if p["speed"] < 1]
    below = (Q(0), Q(0))
    for above in points + [(Q(1), Q(1))]:
        if share <= above[0]:
            return below[1] + (above[1] - below[1]) * (share - below[0]) / (above[0] - below[0])
        below = above
    return Q(1)


class Problem:
    """The inputs, and what follows from them by the published formulas."""

    def __init__(self, data, degree=None):
        self.data, self.degree, self.role, self.speeds = data, degree or {}, None, {}
        self.model, self.limits = data["model"], data["limits"]
        self.workload, self.serving, self.objective = data["workload"], data["serving"], data["objective"]
        self.devices = {d["name"]: d for d in data["devices"]["devices"]}
        self.links = data["devices"].get("links", [])
        self.groups = {g["name"]: g["bandwidth_bytes_per_second"]["value"] for g in data["devices"].get("groups", [])}
        self.coordinator = data["devices"].get("coordinator")
        self.layers = len(self.model["layer_bytes"])
        self.ways = {}
        self.formats = self.limits.get("choices", {}).get("quantisations") or [self.model["quantisation"]]
        self.profile_in = {}
        able = lambda d: next((f for f in self.formats if f in d.get("formats", []) or not d.get("formats")), None)
        self.assign({name: able(d) or self.formats[0] for name, d in self.devices.items()})
        self.out_of = {}
        for link in self.links:
            self.out_of.setdefault(link["from"], []).append(link)

    def assign(self, format):
        """Gives devices a format for the layers that they hold."""
        self.format = format
        for name, device in self.devices.items():
            if (name, format[name]) not in self.profile_in:
                self.profile_in[name, format[name]] = self.profile_of(device, format[name])
        self.profiles = {name: self.profile_in[name, format[name]] for name in self.devices}

    def variants(self):
        """Every format that may be chosen, for all devices alike, one after another."""
        before = self.format
        try:
            for format in self.formats:
                self.assign(dict.fromkeys(self.devices, format))
                yield format
        finally:
            self.assign(before)

    def side(self, role):
        """What routes that only prefill, or only decode, are judged by: prompts yield one token, answers follow it."""
        side = copy.copy(self)
        side.role = role
        if role == "prefill":
            side.workload = dict(self.workload, output_tokens={"min": 1, "max": 1})
        return side

    def capped(self, plan):
        """The problem in which every device is as fast as the power cap of its stage leaves it."""
        slower = copy.copy(self)
        slower.speeds, seen = {}, set()
        for stage in plan["stages"]:
            for name in [name for name in stage["devices"] if name not in seen]:
                # The first stage that names a device counts.
                seen.add(name)
                capped = stage.get("power_cap_watts") is not None
                speed = speed_under(self.devices[name], Q(stage["power_cap_watts"])) if capped else None
                if speed is not None:
                    slower.speeds[name] = speed
        return slower

    # -- the model --------------------------------------------------------------------------------------------------
    def geometry(self, format):
        keys = "architecture hidden feed_forward heads kv_heads head_size vocabulary".split()
        return dict({k: self.model[k] for k in keys}, quantisation=format)

    def layer_bytes(self, format):
        """Bytes of each layer, in proportion to the bits per weight, rounded up."""
        own = self.model["quantisation"]
        scale = Q(1) if format == own else BYTES_PER_WEIGHT[format] / BYTES_PER_WEIGHT[own]
        return [math.ceil(b * scale) for b in self.model["layer_bytes"]]

    def weight_bytes(self, name, start, end):
        m, body = self.model, sum(self.layer_bytes(self.format[name])[start:end])
        body = -(-body // self.degree.get(name, 1))
        if start == 0 and end == self.layers:
            ends = max(m["embedding_bytes"], m["head_bytes"]) if m["tied"] else m["embedding_bytes"] + m["head_bytes"]
        else:
            ends = m["embedding_bytes"] * (start == 0) + m["head_bytes"] * (end == self.layers)
        return body + ends

    def row_bytes(self):
        return 4 * self.model["hidden"]

    def stage_bytes(self, name, start, end):
        keys = ("weights", "kv", "activations", "reserve")
        if self.timing(name) == "rates":
            return dict.fromkeys((*keys, "total", "away", "away_layers"), 0)
        m, w, s = self.model, self.workload, self.serving
        longest = w["prompt_tokens"]["max"] + w["output_tokens"]["max"]
        blocks = -(-longest // s["kv_block_tokens"]) * s["requests_max"]
        tokens = (s.get("kv_blocks") or blocks) * s["kv_block_tokens"]
        kv = 2 * m["kv_heads"] * m["head_size"] * m["kv_element_bytes"] * tokens * (end - start) // self.degree.get(name, 1)
        attention = m["head_size"] * (2 * m["heads"] + 2 * m["kv_heads"])
        row = 3 * m["hidden"] + attention + 3 * m["feed_forward"] + (m["vocabulary"] if end == self.layers else 0)
        parts = (self.weight_bytes(name, start, end), kv, 4 * row * s["step_tokens_max"], self.limits["reserve_bytes"])
        return self.offloaded(name, start, end, dict(zip(keys, parts), total=sum(parts), away=0, away_layers=0))

    # -- layers that a device brings from elsewhere -------------------------------------------------------------------
    def offload(self, name):
        """The place where a device may leave layers: not where memory is shared, and not for groups."""
        pool = self.devices[name].get("memory_pool")
        shared = pool and sum(d.get("memory_pool") == pool for d in self.devices.values()) > 1
        allowed = self.limits.get("choices", {}).get("offload", False) and self.degree.get(name, 1) == 1
        return self.devices[name].get("offload") if allowed and not shared else None

    def offloaded(self, name, start, end, whole):
        """As few layers away as surely make the largest stage of so many layers fit; spread evenly, through two buffers."""
        place, memory = self.offload(name), self.memory(name)
        if not place or memory is None or end > self.layers:
            return whole
        all_layers, count = self.layer_bytes(self.format[name]), end - start
        each, room = all_layers[start:end], value(place.get("room_bytes"))
        body, rest = sum(each), whole["total"] - sum(each)
        most = max(sum(all_layers[s : s + count]) for s in range(self.layers - count + 1))
        left = memory - rest
        if not 0 <= left < most or min(2, count) * max(all_layers) > left or room is not None and most > room:
            return whole
        surely = lambda n: n >= count or most - n * min(all_layers) + min(2, n) * max(all_layers) <= left
        n = next(n for n in range(1, count + 1) if surely(n))
        away = [each[(2 * i + 1) * count // (2 * n)] for i in range(n)]
        held = body - sum(away) + min(2, n) * max(away)
        return dict(whole, weights=whole["weights"] - body + held, total=rest + held, away=sum(away), away_layers=n)

    def with_bringing(self, name, start, end, computing):
        """The longer of computing and bringing where they go on beside each other, else their sum."""
        place, all_layers = self.offload(name), self.layer_bytes(self.format[name])
        count = self.stage_bytes(name, start, end)["away_layers"] if place else 0
        if not count:
            return computing
        rate = Q(place["bandwidth_bytes_per_second"]["value"])
        bringing = Q(sum(all_layers), self.layers) * count / rate if rate > 0 else Q(sys.float_info.max)
        beside = place.get("beside", True) and (place["store"] == "disk" or len(set(all_layers)) == 1)
        return max(computing, bringing) if beside else computing + bringing

    # -- times ------------------------------------------------------------------------------------------------------
    def profile_of(self, device, format):
        for profile in device.get("profiles", []):
            if profile["geometry"] == self.geometry(format):
                return profile
        return None if device.get("rates") else self.roofline(device, format)

    def timing(self, name):
        if self.profiles[name]:
            return "profile"
        return "rates" if self.devices[name].get("rates") else "unknown"

    def roofline(self, device, format):
        bandwidth = value(device.get("memory_bandwidth_bytes_per_second"))
        if bandwidth is None or bandwidth <= 0:
            return None
        flops, m = value(device.get("compute_flops_per_second")), self.model
        moved = lambda n: Q(n) / Q(bandwidth)
        worked = lambda n: Q(n) / Q(flops) if flops else Q(0)
        q, kv_width = m["heads"] * m["head_size"], m["kv_heads"] * m["head_size"]
        weights = 2 * m["hidden"] * q + 2 * m["hidden"] * kv_width + 3 * m["hidden"] * m["feed_forward"]
        kv = 2 * kv_width * m["kv_element_bytes"]

        def matrix(count, size):
            time = lambda n: max(moved(size), worked(2 * count * n))
            ridge = Q(size) / Q(bandwidth) * Q(flops) / (2 * max(count, 1)) if flops else Q(1)
            ridge = math.floor(min(max(ridge, Q(1)), Q(10**6)))
            return [[k, time(k)] for k in sorted({1, ridge, ridge + 1, 2 * ridge + 2})]

        def attention(queries, cached):
            work = 4 * q * queries * (cached + Q(queries + 1, 2))
            return max(moved(kv * (cached + queries)), worked(work))

        contexts = [0, 256, 1024, 4096, 16384]
        grid = lambda rows, time: {
            "rows": rows, "columns": contexts, "seconds": [time(r, c) for r in rows for c in contexts]}
        return {
            "dense_seconds": matrix(weights, Q(sum(self.layer_bytes(format)), max(self.layers, 1))),
            "attention_prefill_seconds": grid([1, 64, 256, 1024, 4096], attention),
            "attention_decode_seconds": grid([1, 8, 32, 128, 512], lambda n, c: n * attention(1, c)),
            "head_seconds": matrix(m["hidden"] * m["vocabulary"], m["head_bytes"]),
            "embedding_seconds": [[1, 0.0]],
            "step_seconds": 0.0,
        }

    def step(self, name, start, end, prefills=(), decodes=0, context=Q(0), sequences=0):
        p = self.profiles[name]
        if not p:
            return None
        tokens = decodes + sum(chunk for chunk, _ in prefills)
        layer = curve_at(p["dense_seconds"], tokens)
        if p.get("resident") and not self.shares_caches(name):
            layer *= share_at(p["resident"], start, end, self.layers, tokens)
        layer += sum((grid_at(p["attention_prefill_seconds"], c, cached) for c, cached in prefills), Q(0))
        if decodes:
            layer += grid_at(p["attention_decode_seconds"], decodes, context)
        total = Q(p["step_seconds"]) + layer * (end - start)
        if p.get("experts"):
            share = Q(min(p["experts"]["layers"], self.layers), self.layers)
            total += experts_at(p["experts"], tokens) * (end - start) * share
        if start == 0:
            total += curve_at(p["embedding_seconds"], tokens)
        if end == self.layers and sequences:
            total += curve_at(p["head_seconds"], sequences)
        speed = self.speeds.get(name, Q(1))
        return self.with_bringing(name, start, end, total / speed if speed > 0 else Q(sys.float_info.max))

    def shares_caches(self, name):
        """Whether another device computes on the processor of its host."""
        on_processor = lambda d: d["kind"] == "cpu" and d["host"] == self.devices[name]["host"]
        return on_processor(self.devices[name]) and sum(map(on_processor, self.devices.values())) > 1

    def context(self):
        return mean(self.workload["prompt_tokens"]) + mean(self.workload["output_tokens"]) / 2

    def decode_time(self, name, start, end):
        return self.step(name, start, end, decodes=1, context=self.context(), sequences=1)

    def chunks(self):
        """(tokens, cached before, 1 where it completes the prompt) of each chunk of a mean prompt."""
        prompt = max(math.floor(mean(self.workload["prompt_tokens"]) + Q(1, 2)), 1)
        size = self.serving["step_tokens_max"]
        starts = range(0, prompt, size)
        return [(min(size, prompt - at), at, int(at + size >= prompt)) for at in starts]

    def chunk_time(self, name, start, end, chunk):
        return self.step(name, start, end, prefills=[chunk[:2]], sequences=chunk[2])

    # -- requests that keep coming ------------------------------------------------------------------------------------
    def batches(self):
        """The numbers of requests that may go round as one batch."""
        most = self.serving["requests_max"]
        if not any(self.profiles.values()):
            return [most]
        if self.role == "prefill":
            return [1]
        given = {b for b in self.limits.get("choices", {}).get("batches", []) if 1 <= b <= most}
        if given:
            return sorted(given, reverse=True)
        powers = [2**i for i in range(32) if 2**i < most]
        return sorted({-(-most // parts) for parts in range(1, 9)} | set(powers), reverse=True)

    def life(self, batch):
        """[(how often, prefill chunks, decodes, sampled)]: what a batch goes through in the life of one request."""
        if self.role == "decode":
            return [(mean(self.workload["output_tokens"]) - 1, [], batch, batch)]
        chunks, decoded = self.chunks(), mean(self.workload["output_tokens"]) - 1
        beside = math.ceil(min(Q(batch - 1), decoded / len(chunks)))
        steps = [(Q(batch), [c[:2]], beside, c[2] + beside) for c in chunks]
        alone = len(chunks) + decoded - batch * len(chunks)
        return steps + ([(alone, [], batch, batch)] if alone > 0 else [])

    def waits(self, batch):
        """The same, a step being as long as that of whichever batch holds up the others that go round."""
        if self.role == "decode":
            return self.life(batch)
        life, count = self.life(batch), len(self.chunks())
        rounds = max(count + mean(self.workload["output_tokens"]) - 1, Q(batch * count))
        others = -(-self.serving["requests_max"] // batch)
        held_up = rounds * (1 - (1 - batch * count / rounds) ** others)
        steps = [(held_up / count, *step) for _, *step in life[:count]]
        return steps + ([(rounds - held_up, [], batch, batch)] if rounds > held_up else [])

    def life_totals(self, life):
        """Steps, tokens that pass the layers, tokens sampled."""
        count = sum(n for n, _, _, _ in life)
        tokens = sum(n * (decodes + sum(c for c, _ in prefills)) for n, prefills, decodes, _ in life)
        return count, tokens, sum(n * sampled for n, _, _, sampled in life)

    def residence(self, name, start, end, life):
        return sum(n * self.step(name, start, end, prefills, decodes, self.context(), sampled)
                   for n, prefills, decodes, sampled in life)

    def rate(self, name, start, end, batch):
        if self.timing(name) == "rates":
            full = next((Q(r) for k, r in self.devices[name]["rates"] if k == end - start), None)
            speed = self.speeds.get(name, Q(1))
            return None if full is None or speed <= 0 else full * speed
        if self.timing(name) == "unknown":
            return None
        residence = self.residence(name, start, end, self.life(batch))
        return batch * mean(self.workload["output_tokens"]) / residence if residence > 0 else None

    def spent(self, start, goal, size, messages, moved):
        """So many messages with so many bytes in all, by the way that one of this size takes."""
        links = self.path(start, goal, size)
        if links is None:
            return None
        latency = sum((Q(link["latency_seconds"]["value"]) for link in links), Q(0))
        return latency * messages + (moved / Q(min(map(self.link_rate, links))) if links else 0)

    def route_residence(self, stops, life, waits):
        count, tokens, sampled = self.life_totals(life)
        times = [self.residence(d, *held, waits) for d, _, held in stops if self.timing(d) == "profile"]
        for (a, _, _), (b, _, _) in zip(stops, stops[1:]):
            time = self.spent(a, b, self.row_bytes(), count, self.row_bytes() * tokens)
            times.append(Q(0) if time is None and self.stated(a, b) is not None else time)
        if self.coordinator is not None:
            times.append(self.spent(self.coordinator, stops[0][0], 4, count, 4 * tokens))
            times.append(self.spent(stops[-1][0], self.coordinator, 4, count, 4 * sampled))
        return added(*times)

    # -- devices that hold a stage together ---------------------------------------------------------------------------
    def may_group(self):
        choices = self.limits.get("choices", {})
        return any(d > 1 for key in ("tensor_parallel", "expert_parallel") for d in choices.get(key, []))

    def together(self, members, parallel="tensor"):
        """Whether these devices may hold a stage together, dividing it so, in their present formats."""
        degree, m = len(members), self.model
        if degree not in self.limits.get("choices", {}).get(parallel + "_parallel", []):
            return False
        experts = (self.profiles[members[0]] or {}).get("experts")
        if parallel == "expert" and (not experts or experts["count"] % degree):
            return False
        wide = parallel == "tensor" or experts["layers"] < self.layers
        keys = ("heads", "kv_heads", "feed_forward") if wide else ("heads", "kv_heads")
        if any(m[key] % degree for key in keys) or len(set(members)) < degree:
            return False
        known = lambda d: (self.memory(d), self.profiles[d], self.devices[d].get("formats", []), self.devices[d]["host"])
        return (all(not self.excluded(d) and self.timing(d) == "profile" and not self.devices[d].get("memory_pool")
                    and known(d) == known(members[0]) for d in members)
                and all(self.path(a, b, self.row_bytes()) is not None for a in members for b in members if a != b))

    def as_one(self, members, parallel):
        """A group as one device: half the matrices on each of two, two all-reduces in a ring per layer."""
        t, row = len(members), self.row_bytes()
        ways = [self.path(a, b, row) for a in members for b in members if a != b]
        latency = max(sum((Q(l["latency_seconds"]["value"]) for l in links), Q(0)) for links in ways)
        rates = [Q(min(map(self.link_rate, links))) for links in ways if links]
        moved = lambda n: Q(t - 1, t) * n * row / min(rates) if rates else Q(0)
        added = lambda n: 2 * ((t - 1) * latency + moved(n))
        profiles = []
        for format in self.variants():
            p = self.profiles[members[0]]
            if not p:
                continue
            counts = [k[0] for k in p["dense_seconds"]]
            counts += [counts[0] + 1] if len(counts) == 1 else []
            experts, share, exchange = p.get("experts"), Q(0), lambda n: Q(0)
            if experts and parallel == "expert":
                # Tokens go to the members that hold their experts, and come back.
                share = Q(min(experts["layers"], self.layers), self.layers)
                part = Q(experts["per_token"], t)
                exchange = lambda n: 2 * ((t - 1) * latency + part * moved(n))
                experts = dict(experts, devices=experts.get("devices", 1) * t)
            elif experts:
                experts = dict(experts, width=experts.get("width", 1) * t)
            results = lambda n: (2 - share) * added(n) + share * exchange(n)
            dense = [[n, curve_at(p["dense_seconds"], n) / t + results(n)] for n in counts]
            grid = lambda g: dict(g, seconds=[Q(x) / t for x in g["seconds"]])
            profiles.append(dict(p, geometry=self.geometry(format), dense_seconds=dense, experts=experts, resident=None,
                                 attention_prefill_seconds=grid(p["attention_prefill_seconds"]),
                                 attention_decode_seconds=grid(p["attention_decode_seconds"])))
        device = dict(self.devices[members[0]], name=" + ".join(members), profiles=profiles, rates=[])
        return {k: v for k, v in device.items() if not k.endswith("_per_second")}

    def grouped(self, groups, parallel):
        """The problem in which each group is one device, at the place of its first member."""
        called = {d: g[0] for g in groups for d in g}
        name = lambda place: " + ".join(next(g for g in groups if g[0] == place)) if place in called else place
        gone = {d for d, first in called.items() if d != first}
        devices = self.data["devices"]
        kept = [self.as_one(next(g for g in groups if g[0] == d), parallel[d]) if d in called else device
                for d, device in self.devices.items() if d not in gone]
        links = [dict(l, **{"from": name(l["from"]), "to": name(l["to"])}) for l in self.links
                 if l["from"] not in gone and l["to"] not in gone]
        limits = dict(self.limits, pinned=sorted({name(called.get(p, p)) for p in self.limits.get("pinned", [])}))
        limits["choices"] = {k: v for k, v in limits["choices"].items() if not k.endswith("_parallel")}
        coordinator = name(called.get(self.coordinator, self.coordinator))
        changed = dict(devices, devices=kept, links=links, coordinator=coordinator)
        degree = {" + ".join(g): len(g) for g in groups}
        result = Problem(dict(self.data, devices=changed, limits=limits), degree)
        format = {name(d): f for d, f in self.format.items() if d not in gone}
        result.assign(format)
        return result

    # -- ways -------------------------------------------------------------------------------------------------------
    def link_rate(self, link):
        rates = [link["bandwidth_bytes_per_second"]["value"]] + [self.groups[g] for g in link.get("groups", [])]
        return min(rates)

    def path(self, start, goal, size):
        """The links of the quickest way; devices do not forward. None where there is no way."""
        if (start, goal, size) in self.ways:
            return self.ways[start, goal, size]
        found, seen, queue, tick = None, set(), [(0.0, 0, start, [])], 0
        while queue:
            time, _, at, links = heapq.heappop(queue)
            if at == goal:
                found = links
                break
            if at in seen or (at in self.devices and at != start):
                continue
            seen.add(at)
            for link in self.out_of.get(at, []):
                if link.get("latency_seconds") and link.get("bandwidth_bytes_per_second"):
                    tick += 1
                    leg = link["latency_seconds"]["value"] + size / self.link_rate(link)
                    heapq.heappush(queue, (time + leg, tick, link["to"], links + [link]))
        self.ways[start, goal, size] = found
        return found

    def hop(self, start, goal, size):
        links = self.path(start, goal, size)
        if links is None:
            return None
        latency = sum((Q(link["latency_seconds"]["value"]) for link in links), Q(0))
        return latency + (Q(size) / Q(min(map(self.link_rate, links))) if links else 0)

    def stated(self, start, goal):
        link = next((l for l in self.links if l["from"] == start and l["to"] == goal), None)
        rate = link and link.get("tokens_per_second")
        return None if rate is None else Q(rate)

    def hop_rate(self, start, goal):
        """output tokens per second of the way between two devices; none where there is no way"""
        stated = self.stated(start, goal)
        if stated is not None:
            return stated
        links = self.path(start, goal, self.row_bytes())
        return None if links is None else min(self.link_rate(link) for link in links) / self.moved_per_token()

    def entry(self, name, tokens):
        return Q(0) if self.coordinator is None else self.hop(self.coordinator, name, 4 * tokens)

    def exit(self, name):
        return Q(0) if self.coordinator is None else self.hop(name, self.coordinator, 4)

    def moved_per_token(self):
        output = mean(self.workload["output_tokens"])
        prompt = Q(0) if self.role == "decode" else mean(self.workload["prompt_tokens"])
        return max(self.row_bytes() * (prompt + output - 1), Q(1)) / output

    def cache_of_prompt(self, name, layers):
        """Bytes of whole blocks that a mean prompt leaves on a device, or on each member of a group."""
        m, block = self.model, self.serving["kv_block_tokens"]
        blocks = -(-math.ceil(mean(self.workload["prompt_tokens"])) // block)
        token = 2 * m["kv_heads"] * m["head_size"] * m["kv_element_bytes"]
        return token * layers * block // self.degree.get(name, 1) * blocks

    def divisible(self):
        """Whether plans may have prompts and answers on devices of their own."""
        return (self.objective == "throughput" and any(self.profiles.values())
                and mean(self.workload["output_tokens"]) > 1 and self.limits.get("stages_exact") is None)

    # -- what a device may hold -------------------------------------------------------------------------------------
    def memory(self, name):
        return value(self.devices[name].get("memory_bytes"))

    def excluded(self, name):
        formats = self.devices[name].get("formats", [])
        operations = self.devices[name].get("operations", [])
        unable = formats and self.format[name] not in formats or operations and not OPERATIONS <= set(operations)
        return (name in self.limits.get("banned", []) or unable or self.timing(name) == "unknown")

    def fits(self, name, start, end):
        need, memory = self.stage_bytes(name, start, end)["total"], self.memory(name)
        return need == 0 or (memory is not None and need <= memory)

    def pools(self):
        pools = {}
        for name, device in self.devices.items():
            pools.setdefault((device.get("memory_pool") or "", name if not device.get("memory_pool") else ""), []).append(name)
        return pools.values()


# -- the form of a plan ----------------------------------------------------------------------------------------------
def form(plan):
    def need(ok, what):
        if not ok:
            raise Malformed(what)

    def text(x, what):
        need(isinstance(x, str), what)

    def count(x, most, what):
        need(type(x) is int and 0 <= x <= most, what)

    def number(x, what):
        need(type(x) in (int, float) and math.isfinite(x), what)

    def well_formed_case(case):
        need(isinstance(case, dict) and case.get("kind") in ("holding", "alone", "within", "proof"), "case")
        if case["kind"] == "within":
            count(case.get("site"), U32, "case"), number(case.get("rate"), "case")
            return
        if case["kind"] == "proof":
            need(isinstance(case.get("worths"), dict) and isinstance(case.get("counted"), list), "case")
            for x in [*case["worths"].values(), *case["counted"]]:
                number(x, "case")
            return
        need(isinstance(case.get("devices"), list) and all(isinstance(d, str) for d in case["devices"]), "case")
        count(case.get("count"), U32, "case")
        if case["kind"] == "holding":
            count(case.get("layers_max"), U32, "case")

    def well_formed_bridges(case):
        need(isinstance(case, dict) and isinstance(case.get("mains"), list), "case")
        for site in case["mains"]:
            count(site, U32, "case")
        need(isinstance(case.get("worths"), dict) and isinstance(case.get("bridges", []), list), "case")
        for worth in case["worths"].values():
            number(worth, "case")
        for bridge in case.get("bridges", []):
            need(isinstance(bridge, dict), "bridge")
            count(bridge.get("from"), U32, "bridge"), number(bridge.get("waste"), "bridge")
            optional(bridge.get("to"), lambda to, what: count(to, U32, what), "bridge")

    def well_formed_crossing(crossing):
        need(isinstance(crossing, dict), "crossing")
        sites, capacities = crossing.get("sites"), crossing.get("capacities")
        need(isinstance(sites, list) and all(isinstance(site, list) for site in sites), "crossing.sites")
        need(all(isinstance(name, str) for site in sites for name in site), "crossing.sites")
        need(isinstance(capacities, list) and all(isinstance(c, dict) for c in capacities), "crossing.capacities")
        for capacity in capacities:
            need(capacity.get("kind") in ("group", "link"), "crossing.capacities")
            for key in ("name",) if capacity["kind"] == "group" else ("from", "to"):
                text(capacity.get(key), "crossing.capacities")

    def optional(x, kind, what):
        need(x is None or (kind(x, what) or True), what)

    def layers(x, what):
        need(isinstance(x, dict), what)
        count(x.get("start"), U32, what), count(x.get("end"), U32, what)

    need(isinstance(plan, dict), "plan")
    for key in ("schema", "tool_version", "scenario", "model", "objective_name", "unit"):
        text(plan.get(key), key)
    need(plan.get("status") in ("optimal", "feasible", "infeasible", "unknown"), "status")
    need(isinstance(plan.get("inputs", []), list), "inputs")
    for digest in plan.get("inputs", []):
        need(isinstance(digest, str) and re.fullmatch("sha256:[0-9a-f]{64}", digest), "inputs")
    optional(plan.get("objective_value"), number, "objective_value")
    optional(plan.get("batch"), lambda x, what: count(x, U32, what), "batch")
    need(plan.get("division", "never") in ("never", "auto", "always"), "division")
    for key in ("stages", "routes", "unused"):
        need(isinstance(plan.get(key), list), key)
    need(isinstance(plan.get("reasons", []), list) and all(isinstance(r, str) for r in plan.get("reasons", [])), "reasons")
    for stage in plan["stages"]:
        need(isinstance(stage, dict) and isinstance(stage.get("devices"), list), "stage")
        need(all(isinstance(d, str) for d in stage["devices"]), "stage.devices")
        layers(stage.get("layers"), "stage.layers"), text(stage.get("quantisation"), "stage.quantisation")
        need(stage.get("parallel", "tensor") in ("tensor", "experts"), "stage.parallel")
        need(isinstance(stage.get("bytes"), dict), "stage.bytes")
        for key in ("weights", "kv", "activations", "reserve", "total"):
            count(stage["bytes"].get(key), U64, "stage.bytes")
        for key in ("away", "away_layers"):
            count(stage["bytes"].get(key, 0), U64, "stage.bytes")
        optional(stage.get("power_cap_watts"), number, "stage.power_cap_watts")
    for route in plan["routes"]:
        need(isinstance(route, dict) and isinstance(route.get("stages"), list), "route")
        number(route.get("share"), "route.share")
        need(route.get("role") in (None, "prefill", "decode"), "route.role")
        for stop in route["stages"]:
            need(isinstance(stop, dict), "stop")
            count(stop.get("stage"), U32, "stop.stage"), layers(stop.get("layers"), "stop.layers")
    for unused in plan["unused"]:
        need(isinstance(unused, dict), "unused")
        text(unused.get("device"), "unused.device"), text(unused.get("reason"), "unused.reason")
    certificate = plan.get("certificate")
    if certificate is not None:
        need(isinstance(certificate, dict), "certificate")
        number(certificate.get("objective"), "certificate.objective"), text(certificate.get("method"), "certificate.method")
        optional(certificate.get("bound"), number, "certificate.bound")
        optional(certificate.get("gap"), number, "certificate.gap")
        need(certificate.get("bound_kind") in ("certified", "solver", "none"), "certificate.bound_kind")
        top = certificate.get("evidence")
        entries = [] if top is None else [top]
        if isinstance(top, dict) and top.get("kind") == "divided":
            optional(top.get("weight"), number, "evidence.weight")
            entries, top = [], top.get("whole")
            need(top is None or isinstance(top, dict), "evidence.whole")
            entries = [] if top is None else [top]
        if isinstance(top, dict) and top.get("kind") == "batches":
            need(isinstance(top.get("batches"), list), "evidence.batches")
            for entry in top["batches"]:
                need(isinstance(entry, dict), "evidence.batches")
                count(entry.get("batch"), U32, "evidence.batch")
                need(isinstance(entry.get("evidence"), dict), "evidence.batches")
                need(entry["evidence"].get("kind") != "batches", "evidence.batches")
                entries.append(entry["evidence"])
        for evidence in entries:
            need(isinstance(evidence, dict), "evidence")
            need(evidence.get("kind") in ("clip_bound", "in_flight", "routes", "enumeration", "device_worths", "weighed_worths",
                                          "walk_prices", "layer_by_layer", "cases", "bridges", "batches"), "evidence.kind")
            if evidence["kind"] == "bridges":
                sites, cases = evidence.get("sites"), evidence.get("cases")
                need(isinstance(sites, list) and all(isinstance(site, list) for site in sites), "evidence.sites")
                need(all(isinstance(name, str) for site in sites for name in site), "evidence.sites")
                need(isinstance(cases, list), "evidence.cases")
                number(evidence.get("main"), "evidence.main")
                for case in cases:
                    well_formed_bridges(case)
            if evidence["kind"] == "cases":
                ends, cases = evidence.get("ends", {"first": 0, "last": 0}), evidence.get("cases")
                need(isinstance(ends, dict) and isinstance(cases, list), "evidence.cases")
                number(ends.get("first"), "evidence.ends"), number(ends.get("last"), "evidence.ends")
                for case in cases:
                    well_formed_case(case)
                if evidence.get("crossing") is not None:
                    well_formed_crossing(evidence["crossing"])
            if evidence["kind"] == "in_flight":
                ends = evidence.get("ends", {"first": 0, "last": 0})
                need(isinstance(ends, dict), "evidence.ends"), number(evidence.get("price"), "evidence.price")
                number(ends.get("first"), "evidence.ends"), number(ends.get("last"), "evidence.ends")
            if evidence["kind"] == "routes":
                number(evidence.get("price"), "evidence.price")
            if evidence["kind"] in ("routes", "device_worths", "weighed_worths", "layer_by_layer"):
                need(isinstance(evidence.get("worths"), dict), "worths")
                for worth in evidence["worths"].values():
                    number(worth, "worths")
                ends, sites = evidence.get("ends", {"first": 0, "last": 0}), evidence.get("sites", [])
                need(isinstance(ends, dict), "evidence.ends")
                number(ends.get("first"), "evidence.ends"), number(ends.get("last"), "evidence.ends")
                need(isinstance(sites, list) and all(isinstance(site, list) for site in sites), "evidence.sites")
                need(all(isinstance(name, str) for site in sites for name in site), "evidence.sites")
            if evidence["kind"] == "walk_prices":
                need(isinstance(evidence.get("parts"), list), "parts")
                for part in evidence["parts"]:
                    need(isinstance(part, dict), "part")
                    optional(part.get("stage_seconds_max"), number, "part.stage_seconds_max")
                    for key in ("devices", "pools"):
                        need(isinstance(part.get(key, {}), dict), "part." + key)
                        for price in part.get(key, {}).values():
                            number(price, "part." + key)
                    if part.get("shares") is not None:
                        shares = part["shares"]
                        need(isinstance(shares, dict), "part.shares")
                        for key in ("followed", "last", "once"):
                            need(isinstance(shares.get(key, []), list), "shares." + key)
                            for entry in shares.get(key, []):
                                text(entry, key) if key == "once" else count(entry, 2**32 - 1, key)


# -- what a plan is worth --------------------------------------------------------------------------------------------
def stops_of(plan, route):
    """[(device, served, held)] of a route."""
    pair = lambda layers: (layers["start"], layers["end"])
    stages = plan["stages"]
    return [(stages[s["stage"]]["devices"][0], pair(s["layers"]), pair(stages[s["stage"]]["layers"]))
            for s in route["stages"]]


def added(*times):
    return None if any(t is None for t in times) else sum(times, Q(0))


def tpot(problem, stops):
    times = [problem.entry(stops[0][0], 1), problem.exit(stops[-1][0])]
    times += [problem.decode_time(d, *served) for d, served, _ in stops]
    times += [problem.hop(a[0], b[0], problem.row_bytes()) for a, b in zip(stops, stops[1:])]
    return added(*times)


def ttft(problem, stops):
    chunks = problem.chunks()
    arrive = [Q(0)] * len(chunks)
    for i, (device, served, _) in enumerate(stops):
        if i:
            hops = [problem.hop(stops[i - 1][0], device, problem.row_bytes() * c[0]) for c in chunks]
            arrive = [added(t, h) for t, h in zip(arrive, hops)]
        steps = [problem.chunk_time(device, *served, c) for c in chunks]
        if any(x is None for x in arrive + steps):
            return None
        free, leave = Q(0), []
        for at, step in zip(arrive, steps):
            free = max(free, at) + step
            leave.append(free)
        arrive = leave
    return added(arrive[-1], problem.entry(stops[0][0], sum(c[0] for c in chunks)), problem.exit(stops[-1][0]))


def cache_parts(problem, prefill, decode):
    """[(from, to, bytes)] of what a request's cache is fetched in."""
    parts = []
    for a, held, _ in prefill:
        for b, wanted, _ in decode:
            layers = min(held[1], wanted[1]) - max(held[0], wanted[0])
            if layers > 0:
                parts.append((a, b, max(problem.cache_of_prompt(a, layers), problem.cache_of_prompt(b, layers))))
    return parts


def throughput_divided(problem, routes, batch):
    """The rate of routes that prefill and routes that decode, in output tokens per second."""
    sides = {role: problem.side(role) for role in ("prefill", "decode")}
    own, output = {"prefill": 1, "decode": batch}, mean(problem.workload["output_tokens"])
    tokens, resident, loads, capacity = {"prefill": 1 / output, "decode": Q(1)}, Q(0), {}, {}

    def load(key, amount, limit):
        loads[key] = loads.get(key, Q(0)) + amount
        capacity[key] = limit

    def load_way(links, amount):
        for link in links:
            load(("link", link["from"], link["to"]), amount, Q(link["bandwidth_bytes_per_second"]["value"]))
            for group in set(link.get("groups", [])):
                load(("group", group), amount, Q(problem.groups[group]))

    flow_in = any(l["from"] == "source" and l.get("tokens_per_second") is not None for l in problem.links)
    flow_out = any(l["to"] == "sink" and l.get("tokens_per_second") is not None for l in problem.links)
    for share, stops, role in routes:
        side = sides[role]
        for device, _, held in stops:
            load(("stage", device), share * tokens[role], side.rate(device, *held, own[role]))
        for (a, _, _), (b, _, _) in zip(stops, stops[1:]):
            links = problem.path(a, b, problem.row_bytes())
            if links is None:
                return None
            load_way(links, share * tokens[role] * side.moved_per_token())
        first, last = stops[0][0], stops[-1][0]
        if role == "prefill" and flow_in:
            load(("source", first), share, problem.stated("source", first))
        if role == "decode" and flow_out:
            load(("sink", last), share, problem.stated(last, "sink"))
        time = side.route_residence(stops, side.life(own[role]), side.waits(own[role]))
        if time is None:
            return None
        resident += share * time
    of = lambda wanted: [(share, stops) for share, stops, role in routes if role == wanted]
    for (share, prefill), (other, decode) in itertools.product(of("prefill"), of("decode")):
        slowest = Q(0)
        for a, b, size in cache_parts(problem, prefill, decode):
            links = problem.path(a, b, size)
            if links is None:
                return None
            load_way(links, share * other * size / output)
            slowest = max(slowest, problem.hop(a, b, size))
        resident += share * other * slowest
    load(("in flight",), resident, problem.serving["requests_max"] * output)
    if any(limit is None for limit in capacity.values()):
        return None
    return min(capacity[key] / amount for key, amount in loads.items())


def throughput(problem, routes, batch):
    figures = [throughput_in(problem, routes, b) for b in ([batch] if batch else problem.batches())]
    return None if None in figures else max(figures)


def throughput_in(problem, routes, batch):
    life, resident = problem.life(batch), Q(0)
    loads, capacity = {}, {}

    def load(key, amount, limit):
        loads[key] = loads.get(key, Q(0)) + amount
        capacity[key] = limit

    flow_in = any(l["from"] == "source" and l.get("tokens_per_second") is not None for l in problem.links)
    flow_out = any(l["to"] == "sink" and l.get("tokens_per_second") is not None for l in problem.links)
    for share, stops in routes:
        for device, _, held in stops:
            load(("stage", device), share, problem.rate(device, *held, batch))
        for (a, _, _), (b, _, _) in zip(stops, stops[1:]):
            stated = problem.stated(a, b)
            if stated is not None:
                load(("pair", a, b), share, stated)
                continue
            links = problem.path(a, b, problem.row_bytes())
            if links is None:
                return None
            for link in links:
                amount = share * problem.moved_per_token()
                load(("link", link["from"], link["to"]), amount, Q(link["bandwidth_bytes_per_second"]["value"]))
                for group in set(link.get("groups", [])):
                    load(("group", group), amount, Q(problem.groups[group]))
        if flow_in:
            load(("source", stops[0][0]), share, problem.stated("source", stops[0][0]))
        if flow_out:
            load(("sink", stops[-1][0]), share, problem.stated(stops[-1][0], "sink"))
        time = problem.route_residence(stops, life, problem.waits(batch))
        if time is None:
            return None
        resident += share * time
    if any(problem.profiles.values()) and resident > 0:
        load(("in flight",), resident, problem.serving["requests_max"] * mean(problem.workload["output_tokens"]))
    if any(limit is None for limit in capacity.values()):
        return None
    return min(capacity[key] / amount for key, amount in loads.items())


def evaluate(problem, plan):
    if any(r.get("role") for r in plan["routes"]):
        routes = [(Q(r["share"]), stops_of(plan, r), r["role"]) for r in plan["routes"]]
        return throughput_divided(problem, routes, plan["batch"])
    routes = [(Q(r["share"]), stops_of(plan, r)) for r in plan["routes"]]
    if problem.objective == "throughput":
        return throughput(problem, routes, plan.get("batch"))
    figure = tpot if problem.objective == "tpot" else ttft
    figures = [figure(problem, stops) for _, stops in routes]
    if any(f is None for f in figures):
        return None
    return sum(share * f for (share, _), f in zip(routes, figures)) / sum(share for share, _ in routes)


# -- bounds ----------------------------------------------------------------------------------------------------------
def open_batches(problem, above):
    """The batches in which Little's law leaves a rate possible: requests stay at least as long as the cheapest way of
    passing all layers, each interval on whichever device is quickest."""
    in_flight = problem.serving["requests_max"] * mean(problem.workload["output_tokens"])
    batches = sorted({b for _ in problem.variants() for b in problem.batches()}, reverse=True)
    return [b for b in batches if not in_flight < above * least_stay(problem, problem.life(b), problem.waits(b))]


def least_stay(problem, life, waits):
    """The least time of any route, or infinity; 0 where a device states rates alone."""
    return cheapest_route(problem, life, waits, lambda device, start, end, stay: stay, Q(1))


def cheapest_route(problem, life, waits, paid, second):
    """A shortest path over (layers passed, device) by what is paid for a stage and for a second on the way, or infinity; 0
    where a device states rates alone."""
    count, tokens, sampled = problem.life_totals(life)
    holders = []
    for format in problem.variants():
        for device in (d for d in problem.devices if not problem.excluded(d)):
            if problem.timing(device) != "profile":
                return Q(0)
            stays = {}
            for start in range(problem.layers):
                for end in range(start + 1, problem.layers + 1):
                    if not problem.fits(device, start, end):
                        break
                    stage = paid(device, start, end, problem.residence(device, start, end, waits))
                    if stage is not None:
                        stays.setdefault(start, []).append((end, stage))
            holders.append((device, stays))
    far = len(holders) > 64  # then ways are left aside

    def spent(start, goal, size, moved):
        if far:
            return Q(0)
        time = problem.spent(start, goal, size, count, moved)
        if time is None:
            return Q(0) if size > 4 and problem.stated(start, goal) is not None else None
        return second * time

    row, center = problem.row_bytes(), problem.coordinator
    passed = [{} for _ in range(problem.layers + 1)]
    for start in range(problem.layers):
        for i, (device, stays) in enumerate(holders):
            if start == 0:
                arrive = Q(0) if center is None else spent(center, device, 4, 4 * tokens)
            else:
                ways = [(t, spent(holders[j][0], device, row, row * tokens)) for j, t in passed[start].items()
                        if far or holders[j][0] != device]
                arrive = min((t + way for t, way in ways if way is not None), default=None)
            for end, stay in stays.get(start, []) if arrive is not None else []:
                passed[end][i] = min(passed[end].get(i, arrive + stay), arrive + stay)
    leave = lambda i: Q(0) if center is None else spent(holders[i][0], center, 4, 4 * sampled)
    ends = [(t, leave(i)) for i, t in passed[problem.layers].items()]
    return min((t + way for t, way in ends if way is not None), default=Q(10**30))


def shapes(problem, name, batches):
    """{(layers held, whether the first, whether the last): greatest rate in any of these batches} where it fits"""
    table, total = {}, problem.layers
    for _ in problem.variants():
        memo = {}
        for start in range(0 if problem.excluded(name) else total):
            for end in range(start + 1, total + 1):
                key = (end - start, start == 0, end == total)
                if key not in memo and problem.fits(name, start, end):
                    rates = [problem.rate(name, start, end, batch) for batch in batches]
                    memo[key] = max((r for r in rates if r is not None), default=None)
                    if memo[key] and memo[key] > 0:
                        table[key] = max(table.get(key, Q(0)), memo[key])
    return table


def greatest_rates(problem, name, batches):
    """{layers held: greatest rate over the intervals of that length that fit, in any of these batches}"""
    table = {}
    for (held, _, _), rate in shapes(problem, name, batches).items():
        table[held] = max(table.get(held, Q(0)), rate)
    return table


def clip_bound(problem, bound, batch=None):
    above = Q(bound) * (1 + AGREE)
    batches = open_batches(problem, above) if batch is None else [batch]
    covered = sum(max((k * min(r, above) for k, r in greatest_rates(problem, d, batches).items()), default=Q(0))
                  for d in problem.devices)
    return [] if above > 0 and covered < problem.layers * above else ["the clip bound is not binding"]


def divided_bound(problem, bound, weight):
    """No division of the devices covers all layers on both sides: by a weight of the side that prefills, or one by one."""
    above, output, covers = Q(bound) * (1 + AGREE), mean(problem.workload["output_tokens"]), {}
    if above <= 0:
        return ["a bound on divided plans that is not positive"]
    named = problem.limits.get("prefill", [])
    for role, at in (("prefill", above / output), ("decode", above)):
        side = problem.side(role)
        batches = open_batches(side, at)
        for d in problem.devices:
            table = {} if named and (d in named) != (role == "prefill") else greatest_rates(side, d, batches)
            covers.setdefault(d, []).append(max((k * min(r, at) for k, r in table.items()), default=Q(0)) / at)
    if weight is not None:
        w = Q(weight)
        covered = sum(max(w * p, (1 - w) * d) for p, d in covers.values())
        return [] if 0 <= w <= 1 and covered < problem.layers else ["the weight of the sides does not prove the bound"]
    kinds = {}
    for cover in covers.values():
        kinds[tuple(cover)] = kinds.get(tuple(cover), 0) + 1
    if math.prod(n + 1 for n in kinds.values()) > 200_000:
        return ["too many divisions to look at one by one"]
    for numbers in itertools.product(*(range(n + 1) for n in kinds.values())):
        prefill = sum(k * p for k, (p, _) in zip(numbers, kinds))
        decode = sum((n - k) * d for k, n, (_, d) in zip(numbers, kinds.values(), kinds))
        if prefill >= problem.layers and decode >= problem.layers:
            return ["a division covers all layers on both sides"]
    return []


def in_flight_price(problem, bound, price, first=0, last=0, batch=None):
    """The clip bound where a token pays for each second that it stays on a device."""
    above, price = Q(bound) * (1 + AGREE), Q(price)
    if price < 0 or Q(first) < 0 or Q(last) < 0 or above <= 0:
        return ["a price or weight is negative, or the bound is not above zero"]
    far = sum(1 for _ in problem.variants() for d in problem.devices if not problem.excluded(d)) > 64
    weight = lambda k, begins, ends: k + (Q(first) if begins else 0) + (Q(last) if ends else 0)
    tokens = problem.serving["requests_max"] * mean(problem.workload["output_tokens"])
    whole, row, center = weight(problem.layers, True, True), problem.row_bytes(), problem.coordinator
    for size in open_batches(problem, above) if batch is None else [batch]:
        life, waits = problem.life(size), problem.waits(size)
        count, moved, sampled = problem.life_totals(life)

        def way(start, goal, bytes, amount):
            time = problem.spent(start, goal, bytes, count, amount)
            return Q(0) if time is None and bytes > 4 and problem.stated(start, goal) is not None else time

        covered = price * tokens
        for name in problem.devices:
            gains = [Q(0)]
            for _ in problem.variants():
                if problem.excluded(name):
                    continue
                entry = exit = between = Q(0)
                if not far:
                    others = [d for d in problem.devices if d != name and not problem.excluded(d)]
                    ways = [way(d, name, row, row * moved) for d in others]
                    between = min((time for time in ways if time is not None), default=None)
                    if center is not None:
                        entry, exit = way(center, name, 4, 4 * moved), way(name, center, 4, 4 * sampled)
                seen = set()
                for start in range(problem.layers):
                    for end in range(start + 1, problem.layers + 1):
                        shape = (end - start, start == 0, end == problem.layers)
                        if shape in seen or not problem.fits(name, start, end):
                            continue
                        seen.add(shape)
                        rate = problem.rate(name, start, end, size)
                        inward, outward = entry if start == 0 else between, exit if end == problem.layers else Q(0)
                        if not rate or rate <= 0 or inward is None or outward is None:
                            continue
                        timed = problem.timing(name) == "profile"
                        stay = (problem.residence(name, start, end, waits) if timed else 0) + inward + outward
                        gains.append(min(rate, above) * (weight(*shape) - price * stay))
            covered += max(gains)
        if covered >= whole * above:
            return ["the clip bound with a price on requests in flight is not binding"]
    return []


def routes_prove(problem, bound, price, worths, batch=None):
    """Requests that pay for seconds in flight and for work of devices pay more by the cheapest route than all may pay."""
    above, price = Q(bound) * (1 + AGREE), Q(price)
    if above <= 0 or price < 0 or any(Q(worth) < 0 for worth in worths.values()) or set(worths) - set(problem.devices):
        return ["a price or worth is negative or of no device, or the bound is not above zero"]
    most = sum(map(Q, worths.values())) + price * problem.serving["requests_max"] * mean(problem.workload["output_tokens"])
    for size in open_batches(problem, above) if batch is None else [batch]:
        known = {}

        def paid(device, start, end, stay):
            shape = (device, problem.format.get(device), end - start, start == 0, end == problem.layers)
            if shape not in known:
                rate = problem.rate(device, start, end, size)
                cost = price * stay + Q(worths.get(device, 0)) / min(rate, above) if rate and rate > 0 else None
                # Rounded down, so that sums stay short.
                known[shape] = None if cost is None else Q(math.floor(cost * 2**100), 2**100)
            return known[shape]

        least = cheapest_route(problem, problem.life(size), problem.waits(size), paid, price)
        if above * least <= most:
            return ["the cheapest route does not prove the bound"]
    return []


def cheap_cover(choices, above, limit, several, parts=None, most=None):
    """Whether some slots, at most one of each device, reach the rate for less than the limit; two of them at least
    where several: then one that reaches it alone stands by the cheapest of all. With parts, the part of each device or
    None where it is of none, not of one part alone: what is of one stands by the cheapest of all others. None where more
    than so many partial covers would have to be looked at."""
    slots = [slot for of_device in choices for slot in of_device]
    least = min((p for p, _ in slots), default=Q(0))
    order = sorted(range(len(choices)), key=lambda d: min(p / r for p, r in choices[d]))
    parts = None if parts is None else [parts[d] for d in order]
    choices = [choices[d] for d in order]
    cheapest = [None] * (len(choices) + 1)
    for i in reversed(range(len(choices))):
        here = min(p / r for p, r in choices[i])
        cheapest[i] = here if cheapest[i + 1] is None else min(here, cheapest[i + 1])
    outside = {part: min((p for of, slots in zip(parts, choices) for p, _ in slots if of != part), default=None)
               for part in set(parts or ()) - {None}}

    def joined(within, d):
        """The one part of all that is chosen: () where nothing is, None where there is none."""
        return None if parts is None or within not in ((), parts[d]) else parts[d]

    seen, stack = set(), [(0, Q(0), Q(0), 0, ())]
    while stack:
        i, rate, price, count, within = stack.pop()
        if rate >= above:
            besides = least if several and count < 2 else Q(0)
            besides = outside[within] if within in outside else besides
            if besides is not None and price + besides < limit:
                return True
            continue
        state = (i, rate, price, min(count, 2), within)
        if i == len(choices) or price + (above - rate) * cheapest[i] >= limit or state in seen:
            continue
        seen.add(state)
        if most is not None and len(seen) > most:
            return None
        stack.append((i + 1, rate, price, count, within))
        stack += [(i + 1, rate + r, price + p, count + 1, joined(within, i)) for p, r in choices[i] if price + p < limit]
    return False


def crossings(problem, crossing):
    """The site of each device, the most that requests which visit several sites pass in all, and those at each site; or
    what is wrong. Without the links of the capacities named, no device reaches one of another site, unless by a link that
    states tokens per second for itself."""
    site_of = {}
    for i, names in enumerate(crossing["sites"]):
        for name in names:
            if name in site_of or name not in problem.devices:
                return "a site of the crossing names no device, or one twice"
            site_of[name] = i
    usable = {d for _ in problem.variants() for d in problem.devices if not problem.excluded(d)}
    if usable - set(site_of):
        return "a device is of no site of the crossing"
    part = lambda link, c: (c["name"] in link.get("groups", []) if c["kind"] == "group"
                            else (link["from"], link["to"]) == (c["from"], c["to"]))
    moved = problem.moved_per_token()
    capacities, rates = crossing["capacities"], []
    for i, c in enumerate(capacities):
        if c["kind"] == "group":
            known = [problem.groups.get(c["name"])]
        else:
            known = [value(link.get("bandwidth_bytes_per_second")) for link in problem.links if part(link, c)]
        if c in capacities[:i] or not known or None in known or not max(known) > 0:
            return "a capacity of the crossing is none"
        rates.append(Q(max(known)) / moved)
    total, at = sum(rates), [Q(0)] * len(crossing["sites"])
    for link in problem.links:
        a, b, rate = site_of.get(link["from"]), site_of.get(link["to"]), link.get("tokens_per_second")
        if rate is not None and a is not None and b is not None and a != b:
            total, at[a], at[b] = total + Q(rate), at[a] + Q(rate), at[b] + Q(rate)
    for own in range(len(at)):
        met = set()
        for near, far in (("from", "to"), ("to", "from")):
            reached = {d for d, site in site_of.items() if site == own}
            stack = list(reached)
            while stack:
                place = stack.pop()
                for link in problem.links:
                    stated = link.get("tokens_per_second") is not None and link.get("bandwidth_bytes_per_second") is None
                    if link[near] != place or stated:
                        continue
                    through = next((i for i, c in enumerate(capacities) if part(link, c)), None)
                    if through is not None:
                        met.add(through)
                    elif link[far] not in reached:
                        if site_of.get(link[far], own) != own:
                            return "a way leads around the capacities of the crossing"
                        reached.add(link[far])
                        stack.append(link[far])
        at[own] += sum(rates[i] for i in met)
    return site_of, total, at


def shares(above, within, crossed):
    """What each site passes of a layer at least and at most, under bounds of (site, rate, whether at least); None where no
    plan has such rates."""
    _, total, at = crossed
    least, most = [Q(0)] * len(at), [above] * len(at)
    for site, rate, more in within:
        if more:
            least[site] = max(least[site], rate)
        else:
            most[site] = min(most[site], rate)
    if any(a > b for a, b in zip(least, most)) or sum(least) > above or sum(most) + total < above:
        return None
    low, high = sum(least), sum(most)
    most, least = ([min(b, above - (low - a)) for a, b in zip(least, most)],
                   [max(a, above - total - (high - b)) for a, b in zip(least, most)])
    low = sum(least)
    return least, [min(b + x, above - (low - a)) for a, b, x in zip(least, most, at)]


def least_costs(choices, sites, floors, tops, above, grid=512):
    """Two tables in parts of the rate, rounded so that no cover costs less. here[i][x]: what the devices from i on that are
    of i's site are paid at least for x parts; later[s][x]: the same of site s and those after it, where each passes its
    floor and none counts beyond its top. Devices are in the order of their sites. And what makes parts of rates."""
    never, unit = float("inf"), above / grid
    up, down = (lambda rate: min(math.ceil(rate / unit), grid)), (lambda rate: min(math.floor(rate / unit), grid))
    scale = 2**60
    nothing = [0] + [never] * grid
    here, later = [nothing] * (len(choices) + 1), [None] * len(floors) + [nothing]
    for i in reversed(range(len(choices))):
        rest = here[i + 1] if i + 1 < len(choices) and sites[i + 1] == sites[i] else nothing
        costs = list(rest)
        for price, rate in choices[i]:
            price, step = math.floor(price * scale), up(rate)
            for x in range(1, grid + 1):
                paid = price + rest[x - step if x > step else 0]
                if paid < costs[x]:
                    costs[x] = paid
        here[i] = costs
    for site in reversed(range(len(floors))):
        first = next((i for i in range(len(choices)) if sites[i] == site), None)
        rest, after = nothing if first is None else here[first], later[site + 1]
        floor, top = down(floors[site]), max(up(tops[site]), down(floors[site]))
        later[site] = [min(rest[c] + after[x - c if x > c else 0] for c in range(floor, min(top, max(x, floor)) + 1))
                       for x in range(grid + 1)]
    return here, later, up, down, scale


def cheap_shares(choices, sites, floors, tops, above, limit, parts):
    """Whether some slots, at most one of each device, cost less than the limit while every site passes its floor and all
    together the rate, no site counting beyond its top. With parts, not of one part alone, as in cheap_cover."""
    order = sorted(range(len(choices)), key=lambda d: (sites[d], min(p / r for p, r in choices[d])))
    choices, sites = [choices[d] for d in order], [sites[d] for d in order]
    parts = None if parts is None else [parts[d] for d in order]
    here, later, up, down, scale = least_costs(choices, sites, floors, tops, above)
    outside = {part: min((p for of, slots in zip(parts, choices) for p, _ in slots if of != part), default=None)
               for part in set(parts or ()) - {None}}

    def joined(within, d):
        return None if parts is None or within not in ((), parts[d]) else parts[d]

    seen, stack = set(), [(0, tuple(Q(0) for _ in floors), Q(0), ())]
    while stack:
        i, passed, price, within = stack.pop()
        short = [max(floor - had, Q(0)) for floor, had in zip(floors, passed)]
        need = above - sum(min(had, top) for had, top in zip(passed, tops))
        if need <= 0 and not any(short):
            besides = outside[within] if within in outside else Q(0)
            if besides is not None and price + besides < limit:
                return True
            continue
        state = (i, passed, price, within)
        if state in seen or i == len(choices):
            continue
        # Sites before this one are done with; what this one and those after it are still paid at least.
        site = sites[i]
        if any(short[:site]):
            continue
        done = sum(min(had, top) for had, top in zip(passed[:site], tops))
        need, had = down(max(above - done, Q(0))), up(passed[site])
        floor, top = down(floors[site]), max(up(tops[site]), down(floors[site]))
        left = min(here[i][max(c - had, 0)] + later[site + 1][max(need - c, 0)]
                   for c in range(floor, min(top, max(need, floor)) + 1))
        if math.floor(price * scale) + left >= math.ceil(limit * scale):
            continue
        seen.add(state)
        # Who pays nothing stands by every cover.
        gift = all(p == 0 for p, _ in choices[i])
        if not gift:
            stack.append((i + 1, passed, price, within))
        for p, r in [max(choices[i], key=lambda slot: slot[1])] if gift else choices[i]:
            if price + p < limit:
                had = tuple(h + r if s == sites[i] else h for s, h in enumerate(passed))
                stack.append((i + 1, had, price + p, joined(within, i)))
    return False


def worths_prove(problem, bound, worths, first=0, last=0, sites=(), batch=None):
    above, first, last = Q(bound) * (1 + AGREE), Q(first), Q(last)
    if any(d not in problem.devices or w < 0 for d, w in worths.items()):
        return ["a worth is negative or of no device"]
    if first < 0 or last < 0:
        return ["an end of the model has a negative weight"]
    if above <= 0:
        return ["no positive bound"]
    batches = open_batches(problem, above) if batch is None else [batch]
    tables = {d: t for d, t in ((d, shapes(problem, d, batches)) for d in problem.devices) if t}
    worth = {d: Q(worths.get(d, 0)) for d in tables}
    choices = []
    for d, table in tables.items():
        # A heavier interval that is as fast is no dearer.
        slots, fastest = [], Q(0)
        weighed = [(k + first * a + last * b, min(r, above)) for (k, a, b), r in table.items()]
        for weight, rate in sorted(weighed, reverse=True):
            if rate > fastest:
                slots.append((worth[d] / weight, rate))
                fastest = rate
        choices.append(slots)
    wrong = ["a cover costs less than 1"] if cheap_cover(choices, above, Q(1), False) else []
    total, whole = sum(worth.values()), problem.layers + first + last
    if total < whole:
        return wrong
    if not sites:
        return wrong + ["the worths are not less than the layers"]
    site_of = {}
    for i, names in enumerate(sites):
        for name in names:
            if name in site_of or name not in problem.devices:
                return wrong + ["a site names no device, or one twice"]
            site_of[name] = i
    if any(d not in site_of for d in tables):
        return wrong + ["a device is of no site"]
    for i in range(len(sites)):
        if sum(worth[d] for d in tables if site_of[d] == i) >= whole:
            wrong.append("a site could hold the whole model")
    for a in tables:
        for b in tables:
            if site_of[a] != site_of[b]:
                rate = problem.hop_rate(a, b)
                if rate is not None and rate >= above:
                    return wrong + ["a way between sites carries the bound"]
    # Any price above this one would do; a trillionth more is above.
    limit = (1 + total - whole) * (1 + Q(1, 10**12))
    if cheap_cover(choices, above, limit, True):
        wrong.append("several devices carry a layer for too little")
    return wrong


def layers_prove(problem, bound, worths, batch=None):
    """Worths leave so little to waste that no devices hold one layer after another up to the last. In parts of 2^-50."""
    above, one, shift = Q(bound) * (1 + AGREE), 1 << 50, 38
    if any(d not in problem.devices or not 0 <= w < 2048 for d, w in worths.items()):
        return ["a worth is negative, too large or of no device"]
    if above <= 0:
        return ["no positive bound"]
    if problem.limits.get("partial", False):
        return ["evidence says nothing of stages that are entered in the middle"]
    batches = open_batches(problem, above) if batch is None else [batch]
    kinds = {}
    for d in problem.devices:
        table = greatest_rates(problem, d, batches)
        if table:
            # Those that hold few layers where they pass most come first.
            most = max(table, key=lambda k: (k * min(table[k], above), k))
            key = (most, Q(worths.get(d, 0)), tuple(sorted(table.items())))
            kinds[key] = kinds.get(key, 0) + 1
    if len(kinds) > 16 or max(kinds.values(), default=0) > 255:
        return ["too many kinds of devices, or too many of a kind"]
    order = sorted(kinds)
    count, worth = [kinds[key] for key in order], [math.ceil(key[1] * one) for key in order]
    slack = sum(n * u for n, u in zip(count, worth)) - problem.layers * one
    # (layers held, kind, rate, what is paid for a layer)
    ways = [(k, kind, math.ceil(min(r, above) / above * one), worth[kind] // k)
            for kind, (_, _, table) in enumerate(order) for k, r in table]
    ways.sort(key=lambda way: (-way[0], way[2]))
    slots = [[(Q(p), Q(r)) for _, of, r, p in ways if of == kind] for kind, n in enumerate(count) for _ in range(n)]
    if cheap_cover(slots, Q(one), Q(one), False):
        return ["a cover costs less than 1"]
    if slack < 0:
        return []
    least = [0]
    for need in range(1, 4097):
        least.append(min([one] + [p + least[max(0, need - -(-r >> shift))] for _, _, r, p in ways]))

    def to_come(holding):
        """What is wasted at least while those hold on that hold the next layer: (layers left, may pass, price), longest
        first."""
        passed = price = waste = 0
        for (left, passes, p), (after, _, _) in zip(holding, holding[1:] + [(0, 0, 0)]):
            passed, price = passed + passes, price + p
            if left > after:
                waste += max(0, price + least[max(0, one - passed) >> shift] - one) * (left - after)
        return waste

    looked = [0]

    def sets(usable, holding, used, passed, need, handed, most, chosen=()):
        """Sets of ways that begin together where so much is handed over and so much is needed."""
        looked[0] += 1
        if chosen and min(passed, handed) >= need:
            yield chosen
        fit = []
        for way in usable:
            k, kind, r, p = way
            if used[kind] < count[kind]:
                more = sorted(holding + [(k, min(r, handed), p)], reverse=True)
                if to_come(more) <= most:
                    fit.append((way, more))
        for i, (way, more) in enumerate(fit):
            then = list(used)
            then[way[1]] += 1
            rest = [w for w, _ in fit[i:]]
            yield from sets(rest, more, then, passed + min(way[2], handed), need, handed, most, chosen + (way,))

    def may_pass(active):
        """What all of these may pass: (way, layers left, may pass, what all may pass that began with it)."""
        together = {}
        for _, _, passes, group in active:
            together[group] = together.get(group, 0) + passes
        return sum(passed if group is None else min(passed, group[1]) for group, passed in together.items())

    # Beginnings by layer: the first kind of the stretch, whether it has come, what is handed over, who has layers left.
    waiting, border = [{} for _ in range(problem.layers)], (False, one, ())
    waiting[0][(0, *border)] = [tuple([0] * len(count))]
    for at in range(problem.layers):
        for (first, has, handed, open_), all_used in waiting[at].items():
            holding = sorted(((left, passes, way[3]) for way, left, passes, _ in open_), reverse=True)
            still, room = sum(left * p for left, _, p in holding), [way for way in ways if way[0] <= problem.layers - at]
            for before, kind in ((u, k) for u in all_used for k in (range(first, len(count)) if not open_ else [first])):
                if not open_ and before[kind] == count[kind]:
                    continue
                used = tuple(count[:kind]) + before[kind:]
                wasted = sum(n * u for n, u in zip(used, worth)) - still - at * one
                if wasted > slack:
                    continue
                for begun in sets(room, holding, used, 0, one - may_pass(open_), handed, slack - wasted):
                    if looked[0] > 15_000_000:
                        return ["too many sets of devices to look at"]
                    now = list(used)
                    for way in begun:
                        now[way[1]] += 1
                    alone = sum(min(way[2], handed) for way in begun) <= handed
                    active = list(open_) + [(way, way[0], min(way[2], handed), None if alone else (at, handed))
                                            for way in begun]
                    end = at + min(left for _, left, _, _ in active)
                    active = [(way, left - (end - at), passes, group) for way, left, passes, group in active]
                    if sum(n * u for n, u in zip(now, worth)) - sum(l * w[3] for w, l, _, _ in active) - end * one > slack:
                        continue
                    came = has or any(way[1] == kind for way in begun)
                    if end == problem.layers:
                        if came:
                            return ["devices hold all layers and waste no more than they may"]
                        continue
                    over = min(one, may_pass([device for device in active if device[1] == 0]))
                    active = [device for device in active if device[1] > 0]
                    # Limits of groups that matter, by what they are and who is in them.
                    together = {}
                    for _, _, passes, group in active:
                        together[group] = together.get(group, 0) + passes
                    active = [(way, left, passes, None if group is None or together[group] <= group[1] else group)
                              for way, left, passes, group in active]
                    if not active and not came:
                        continue
                    active.sort(key=lambda device: (device[:3], device[3] or (-1, 0)))
                    key = (kind, came, over, tuple(active)) if active else (kind, *border)
                    known = waiting[end].setdefault(key, [])
                    if not any(all(a <= b for a, b in zip(other, now)) for other in known):
                        known[:] = [other for other in known if not all(a <= b for a, b in zip(now, other))]
                        known.append(tuple(now))
        waiting[at] = {}
    return []


def cases_prove(problem, bound, ends, cases, batch=None, crossing=None):
    """Each division of plans is followed by both its cases, and each case that is not divided is proved by worths."""
    above, first, last = Q(bound) * (1 + AGREE), Q(ends.get("first", 0)), Q(ends.get("last", 0))
    if above <= 0 or first < 0 or last < 0:
        return ["no positive bound, or an end of the model of negative weight"]
    batches = open_batches(problem, above) if batch is None else [batch]
    tables = {d: t for d, t in ((d, shapes(problem, d, batches)) for d in problem.devices) if t}
    groups, crossed = [], None
    if crossing is not None:
        crossed = crossings(problem, crossing)
        if isinstance(crossed, str):
            return [crossed]

    def proved(case, over):
        """What is wrong with worths below these divisions: (its entry, whether more are counted)."""
        worths, counted = case["worths"], [Q(v) for v in case["counted"]]
        if any(d not in problem.devices or w < 0 for d, w in worths.items()):
            return "a worth of a case is negative or of no device"
        if len(counted) != len(over) or any(v * (-1 if more else 1) < 0 for v, (_, more) in zip(counted, over)):
            return "a case does not value each division above it, by the right sign"
        within = [(entry["site"], Q(entry["rate"]), more) for entry, more in over if entry["kind"] == "within"]
        if any(v and entry["kind"] == "within" for v, (entry, _) in zip(counted, over)):
            return "a rate is given a value"
        limits = shares(above, within, crossed) if within else None
        if within and limits is None:
            return None
        counts = lambda entry, more: 0 if entry["kind"] == "within" else entry["count"] + more
        values = [(v, entry, counts(entry, more)) for v, (entry, more) in zip(counted, over)]
        if (first or last) and any(v and entry["kind"] == "alone" for v, entry, _ in values):
            return "layers are counted that differ in weight"
        worth = {d: Q(worths.get(d, 0)) for d in tables}
        if sum(worth.values()) + sum(v * n for v, _, n in values) >= problem.layers + first + last:
            return "a case has as much to pay as its layers ask for"
        choices = {}
        for d, table in tables.items():
            slots = {}
            for (k, a, b), rate in table.items():
                holding = [v for v, entry, _ in values
                           if entry["kind"] == "holding" and k <= entry["layers_max"] and d in entry["devices"]]
                pays = worth[d] + sum(holding)
                if pays < 0:
                    return "a device of a case is paid for holding layers"
                price = pays / (k + first * a + last * b)
                slots[price] = max(slots.get(price, Q(0)), min(rate, above))
            kept, fastest = [], Q(0)
            for price, rate in sorted(slots.items()):
                if rate > fastest:
                    kept.append((price, rate))
                    fastest = rate
            choices[d] = kept
        let_off = [sum(v for v, entry, _ in values if entry["kind"] == "alone" and entry["devices"] == group)
                   for group in groups]

        def cheap(devices, limit, parts=None):
            slots = [choices[d] for d in devices]
            if limits is None:
                found = cheap_cover(slots, above, limit, False, parts, 20_000)
                return cheap_shares(slots, [0] * len(slots), [Q(0)], [above], above, limit, parts) if found is None else found
            return cheap_shares(slots, [crossed[0][d] for d in devices], *limits, above, limit, parts)

        if not any(let_off):
            return "a cover of a case is cheap" if cheap(list(choices), Q(1)) else None
        for group, off in zip(groups, let_off):
            if cheap([d for d in group if d in choices], 1 - off):
                return "a cover of one group is cheap"
        part = {d: i for i, group in enumerate(groups) for d in group}
        apart = cheap(list(choices), Q(1), [part.get(d) for d in choices])
        return "a cover of several groups is cheap" if apart else None

    at, over = 0, []
    while at < len(cases):
        case = cases[at]
        at += 1
        if case["kind"] == "within":
            if crossed is None or case["site"] >= len(crossed[2]) or case["rate"] < 0:
                return ["a division speaks of a rate within no site"]
            over.append((case, 0))
            continue
        if case["kind"] != "proof":
            devices = case["devices"]
            if len(set(devices)) < len(devices) or not set(devices) <= set(problem.devices):
                return ["a division names no device, or one twice"]
            if case["kind"] == "alone" and devices not in groups:
                if any(d in group for group in groups for d in devices):
                    return ["a device is of two groups"]
                groups.append(devices)
            over.append((case, 0))
            continue
        wrong = proved(case, over)
        if wrong:
            return [wrong]
        while over and over[-1][1]:
            over.pop()
        if not over:
            return [] if at == len(cases) else ["the list of cases goes on after the last"]
        over[-1] = (over[-1][0], 1)
    return ["the list of cases ends within one"]


UNIT = 1 << 50


def paid_beside(ways, most):
    """What devices, of which none passes more than `most`, are paid at least, in parts of UNIT, for passing so much: by 4096ths
    of UNIT, and never less than one is."""
    step = UNIT // 4096
    offers = {(-(-min(rate, most) // step), price) for *_, rate, price in ways if rate > 0}
    if not offers:
        return lambda much: 0 if much <= 0 else 2**64
    least, one = [0], min(price for _, price in offers)
    for at in range(1, 4097):
        least.append(min(least[max(0, at - parts)] + price for parts, price in offers))
    return lambda much: 0 if much <= 0 else max(least[min(4096, much // step)], one)


def cheapest_bridge(groups, between, main, start, goal, below):
    """The least that layers pay beyond 1 each, in parts of UNIT, between a main device of site `start`, one that passes more
    than `main`, and the next main one, of `goal`; with no goal, as long as devices last that hold layers up to the first
    stretch without devices of `start`. None where every bridge wastes `below` or more. Groups: (site, how many devices,
    [(layers, rate, price)]). Devices that may stand beside the main one at the end pass little; all others come to their ends
    before it begins, so what their layers waste counts once they begin. Where little is next to nothing, requests that
    such devices pass are left out. It takes as long as it takes: the other checker refuses what takes it too many steps."""
    if below <= 0:
        return None
    ways = [(g, site, k, rate, price) for g, (site, _, slots) in enumerate(groups) for k, rate, price in slots]
    passes = lambda a, b: UNIT if a == b else between[a][b]
    # Without a main device at the end, others may follow while devices last.
    pays, little = paid_beside(ways, main if goal is not None else UNIT), UNIT - main
    left_out = little * sum(count for _, count, _ in groups)
    left_out = left_out if left_out <= UNIT >> 24 else 0
    layer = main - left_out
    each = lambda devices: max(0, sum(d[2] for d in devices) + pays(UNIT - sum(d[1] for d in devices)) - UNIT)

    def wastes(devices, first):
        """Of devices (layers, rate, price, big): what they waste as long as big ones last, and on the first layers."""
        until = max([first] + [left for left, *_, big in devices if big])
        ends = sorted({min(left, until) for left, *_ in devices})
        return sum((b - a) * each([d for d in devices if d[0] >= b]) for a, b in zip([0] + ends, ends))

    def choices(options, need, devices, free, room, chosen=()):
        """All sets of options that pass what is needed and waste no more than there is room for."""
        if need <= 0 and chosen:
            layers = min(left for left, *_ in devices)
            ahead = wastes(devices, layers)
            if ahead <= room:
                yield chosen, layers, layers * each(devices), ahead
        options = [o for o in options if free[ways[o[0]][0]] > 0 and wastes(devices + [o[2]], 1) <= room]
        # The cheapest that might pass it, whole groups at a time.
        offers = {}
        for way, rate, (_, _, price, _) in options:
            most, least = offers.get(ways[way][0], (0, None))
            offers[ways[way][0]] = max(most, rate), Q(price, rate) if least is None else min(least, Q(price, rate))
        rest, paid = need, sum(d[2] for d in devices)
        for group, (most, least) in sorted(offers.items(), key=lambda offer: offer[1][1]):
            much = min(max(rest, 0), most * free[group])
            rest, paid = rest - much, paid + math.floor(much * least)
        if rest > 0 or paid - UNIT > room:
            return
        for i, option in enumerate(options):
            way, rate, device = option
            fewer = [count - (g == ways[way][0]) for g, count in enumerate(free)]
            yield from choices(options[i:], need - rate, devices + [device], fewer, room, chosen + (option,))

    first = ((-1, start, 0, UNIT, True),)
    known, queue, tick = {first: 0}, [(0, 0, 0, first)], 1
    while queue:
        least, _, waste, active = heapq.heappop(queue)
        if active is None:
            return least
        if known[active] < waste:
            continue
        ended = [(site, rate) for _, site, left, rate, _ in active if left == 0]
        going = [entry for entry in active if entry[2] > 0]
        need = max(0, layer - sum(entry[3] for entry in going))
        free = [count for _, count, _ in groups]
        for way, *_ in going:
            free[ways[way][0]] -= 1
        handed = [sum(min(rate, passes(a, b)) for a, rate in ended) for b in range(len(between))]
        held = lambda way, left, big: (left, min(ways[way][3], main if big else little), ways[way][4], big)
        options = []
        for way, (_, site, k, rate, _) in enumerate(ways):
            for big in (False, True):
                # Beside a main device; one that passes no more than little may always.
                stands = goal is not None and not left_out
                if (stands and (not big or rate > little)) or (not stands and big):
                    device = held(way, k, big)
                    if min(device[1], handed[site]) > 0:
                        options.append((way, min(device[1], handed[site]), device))
        options.sort(key=lambda option: -option[2][0])
        arrives = any(site == goal and rate > main and min(rate, handed[site]) >= layer - little for _, site, _, rate, _ in ways)
        if arrives and not any(big for *_, big in going):
            heapq.heappush(queue, (waste, tick, waste, None))
            tick += 1
        devices = [held(way, left, big) for way, _, left, _, big in going]
        for chosen, layers, wasted, ahead in choices(options, need, devices, free, below - 1 - waste):
            begun = [(way, ways[way][1], ways[way][2], rate, device[3]) for way, rate, device in chosen]
            takes = lambda a: sum(min(passes(a, b), got) for _, b, _, got, _ in begun)
            main_one = not going and len(begun) == 1 and not left_out
            if main_one or sum(min(rate, takes(a)) for a, rate in ended) < need:
                continue
            after = [(way, site, left - layers, rate, big) for way, site, left, rate, big in [*going, *begun]]
            over = goal is None and all(site != start for _, site, *_ in after)
            after = None if over else tuple(sorted(after))
            if after is not None:
                if known.get(after, below) <= waste + wasted:
                    continue
                known[after] = waste + wasted
            heapq.heappush(queue, (waste + ahead, tick, waste + wasted, after))
            tick += 1
    return None


def bridges_prove(problem, bound, sites, main, cases, batch=None):
    """Every set of sites that may have main devices, which pass more than a share `main` of the rate, has a case, or is part
    of one without bridges. In each, all worths are less than all layers and what bridges between its sites waste."""
    above = Q(bound) * (1 + AGREE)
    if problem.limits["partial"] or above <= 0:
        return ["bridges speak of devices that pass all their layers"]
    if len(sites) > 64 or not all(sites):
        return ["there are too many sites, or one without devices"]
    batches = open_batches(problem, above) if batch is None else [batch]
    tables = {d: t for d, t in ((d, shapes(problem, d, batches)) for d in problem.devices) if t}
    site_of = {}
    for i, names in enumerate(sites):
        for name in names:
            if name in site_of or name not in problem.devices:
                return ["a site names no device, or one twice"]
            site_of[name] = i
    if any(d not in site_of for d in tables):
        return ["a device is of no site"]
    share = lambda rate: min(UNIT, math.ceil(rate / above * UNIT))
    held, between = {}, [[0] * len(sites) for _ in sites]
    for d, table in tables.items():
        fastest = {}
        for (k, _, _), rate in table.items():
            fastest[k] = max(fastest.get(k, 0), share(rate))
        held[d] = tuple(sorted(fastest.items()))
    for a in tables:
        for b in tables:
            if site_of[a] != site_of[b]:
                rate = problem.hop_rate(a, b)
                if rate is not None:
                    to = between[site_of[a]]
                    to[site_of[b]] = max(to[site_of[b]], share(rate))
    parts = lambda value: math.floor(Q(value) * UNIT)
    if not 0.5 < main < 1 or not UNIT // 2 < parts(main) < UNIT:
        return ["main devices pass more than half of the rate, and less than all"]
    main = parts(main)
    able = sorted({site_of[d] for d, ways in held.items() if any(rate > main for _, rate in ways)})
    turned = [list(row) for row in zip(*between)]
    named = []
    for case in cases:
        mains, worths = case["mains"], case["worths"]
        if len(set(mains)) < len(mains) or not set(mains) <= set(able) or any(set(mains) == of for of, _ in named):
            return ["a case is of no set of sites, or there twice"]
        if any(d not in problem.devices or not 0 <= w < 1024 for d, w in worths.items()):
            return ["a worth of a case is negative, too large or of no device"]
        worth = {d: parts(worths.get(d, 0)) for d in tables}
        # Elsewhere no device passes more than main ones pass at least.
        clipped = {d: tuple((k, rate if site_of[d] in mains else min(rate, main)) for k, rate in ways) for d, ways in held.items()}
        choices = [[(Q(worth[d] // k), Q(rate)) for k, rate in ways] for d, ways in clipped.items()]
        if cheap_cover([of for of in choices if of], Q(UNIT), Q(UNIT), False):
            return ["a cover costs less than 1"]
        groups = {}
        for d in tables:
            key = (site_of[d], worth[d], clipped[d])
            groups[key] = groups.get(key, 0) + 1
        groups = [(site, count, [(k, rate, w // k) for k, rate in ways]) for (site, w, ways), count in groups.items()]
        wastes, one = {}, 0
        for bridge in case.get("bridges", []):
            start, goal, waste = bridge["from"], bridge.get("to"), bridge["waste"]
            pair = frozenset((start, goal))
            joins = start in mains and start != goal and (goal is None or goal in mains)
            if not joins or not 0 <= waste <= problem.layers or waste >= 1024:
                return ["a bridge joins no two sites of its case, or wastes less than nothing or too much"]
            if pair in wastes:
                return ["two bridges join the same sites"]
            most = sum(held[d][-1][0] for d in tables if site_of[d] == start)
            if goal is None and (len(mains) > 1 or most >= problem.layers):
                return ["a bridge leads nowhere"]
            wastes[pair] = parts(waste)
            for ways in [between] if between == turned else [between, turned]:
                if cheapest_bridge(groups, ways, main, start, goal, parts(waste)) is not None:
                    return ["a bridge wastes less than is said"]
            one = parts(waste) if goal is None else one
        if len(mains) > 1:
            joined, left, one = {mains[0]}, set(mains[1:]), 0
            while left:
                least, nearest = min((min(wastes.get(frozenset((a, b)), 0) for b in joined), a) for a in left)
                one, joined, left = one + least, joined | {nearest}, left - {nearest}
        if sum(worth.values()) + len(worth) >= problem.layers * UNIT + one:
            return ["the worths of a case are not less than its layers and bridges"]
        named.append((set(mains), not case.get("bridges")))
    for n in range(len(able) + 1):
        for some in itertools.combinations(able, n):
            if not any(set(some) == of or (plain and set(some) <= of) for of, plain in named):
                return ["a set of sites has no case"]
    return []


def rate_proves(problem, bound, evidence, batch=None):
    """Evidence for a bound on throughput, in batches of one size where one is named."""
    if evidence["kind"] == "clip_bound":
        return clip_bound(problem, bound, batch)
    if evidence["kind"] == "in_flight":
        ends = evidence.get("ends", {})
        return in_flight_price(problem, bound, evidence["price"], ends.get("first", 0), ends.get("last", 0), batch)
    if evidence["kind"] == "routes":
        return routes_prove(problem, bound, evidence["price"], evidence["worths"], batch)
    if evidence["kind"] == "device_worths":
        return worths_prove(problem, bound, evidence["worths"], batch=batch)
    if evidence["kind"] == "weighed_worths":
        ends = evidence.get("ends", {})
        return worths_prove(problem, bound, evidence["worths"], ends.get("first", 0), ends.get("last", 0),
                            evidence.get("sites", ()), batch)
    if evidence["kind"] == "layer_by_layer":
        return layers_prove(problem, bound, evidence["worths"], batch)
    if evidence["kind"] == "cases":
        return cases_prove(problem, bound, evidence.get("ends", {}), evidence["cases"], batch, evidence.get("crossing"))
    if evidence["kind"] == "bridges":
        return bridges_prove(problem, bound, evidence["sites"], evidence["main"], evidence["cases"], batch)
    return ["evidence for a batch does not speak of throughput"]


def batches_prove(problem, bound, entries):
    """Each batch that Little's law leaves open has evidence, and all that there is holds."""
    named = [entry["batch"] for entry in entries]
    wrong = ["a batch is without evidence" for b in open_batches(problem, Q(bound) * (1 + AGREE)) if b not in named]
    known = {b for _ in problem.variants() for b in problem.batches()}
    if len(set(named)) < len(named) or not set(named) <= known:
        return wrong + ["a batch is named twice, or is none of this problem"]
    for entry in entries:
        wrong += rate_proves(problem, bound, entry["evidence"], entry["batch"])
    return wrong


def enumeration(problem, bound):
    """Looks for any chain that takes less than the bound; parts of a chain that already take as much are dropped."""
    target = Q(bound) * (1 - AGREE)
    usable = [d for d in problem.devices if not problem.excluded(d)]
    limits, figure = problem.limits, tpot if problem.objective == "tpot" else ttft
    fewest = limits.get("stages_exact") or 1
    most = limits.get("stages_exact") or limits.get("stages_max") or len(usable)
    # A chain cannot be quicker than its stages' own work on one token or on the last chunk.
    chunks = problem.chunks()

    def own(device, start, end):
        return problem.decode_time(device, start, end) if problem.objective == "tpot" \
            else problem.chunk_time(device, start, end, chunks[-1])

    def extend(start, chain, spent):
        if start == problem.layers:
            stops = [(d, layers, layers) for d, layers in chain]
            names = {d for d, _ in chain}
            pinned = all(p in names for p in limits.get("pinned", []))
            if len(chain) >= fewest and pinned and pools_hold(problem, {d: [(problem, l)] for d, l in chain}):
                time = figure(problem, stops)
                return time is not None and time < target
            return False
        if len(chain) >= most or spent >= target:
            return False
        for device in usable:
            if any(device == d for d, _ in chain):
                continue
            for end in range(start + 1, problem.layers + 1):
                time = own(device, start, end) if problem.fits(device, start, end) else None
                if time is not None and extend(end, chain + [(device, (start, end))], spent + time):
                    return True
        return False

    return ["a placement is quicker than the bound"] if extend(0, [], Q(0)) else []


class Refused(Exception):
    """Evidence that proves nothing."""


class Walks:
    """Walks through all layers: chains that may use a device again, not twice in a row, paying its price each time.

    Times are whole multiples of 2^-80 s, rounded down; a price is the same whole number where it is paid and where it is
    subtracted. A stage is long where all chunks up to the followed one, the last that is as long as the first, take longer than
    nine tenths of the greatest stage time of the part before. Phase 0 goes with the first chunk up to the first long stage, which
    takes all up to the followed one; phase 1 goes on with that one; where there is another after it, the last long stage takes
    that one too, and phase 2 goes on with it alone. One chunk knows phase 0 alone.
    Where a part states shares of paths, walks are charged a mean over paths instead, which depends on layers alone; walks that
    it leaves open are looked at by when three chunks leave, each path by itself.
    """
    UNIT, NEVER, LONGEST, PRICE_MAX = 2**80, 2**125, 2**120, 2**100

    def __init__(self, problem):
        self.problem, self.layers, limits = problem, problem.layers, problem.limits
        self.devices = [d for d in problem.devices if not problem.excluded(d) and problem.timing(d) == "profile"]
        tpot = problem.objective == "tpot"
        chunks = [None] if tpot else problem.chunks()
        self.chunks = len(chunks)
        tokens = [1] if tpot else [c[0] for c in chunks]
        self.followed = len(chunks) - (1 if tokens[0] == tokens[-1] else 2)
        last = len(chunks) - 1
        self.follows = [0] if last == 0 else [0, self.followed] + ([last] if self.followed < last else [])
        self.step, self.reach = {}, {}
        for d in self.devices:
            for ends, k in ((ends, k) for ends in range(4) for k in range(1, self.layers + 1)):
                start = (self.layers - k if ends & 1 else 0 if ends & 2 else 1)
                if start < 0 or (start == 0, start + k == self.layers) != (ends & 2 > 0, ends & 1 > 0):
                    continue
                span = (d, start, start + k)
                times = [self.down(problem.decode_time(*span) if tpot else problem.chunk_time(*span, c)) for c in chunks]
                self.step[d, ends, k] = times + [min(sum(part), self.NEVER) for part in (
                    times[self.followed + 1:], times[:self.followed + 1])]
            fits = lambda s: [e for e in range(s + 1, self.layers + 1) if problem.fits(d, s, e)]
            self.reach[d] = [max(fits(s), default=s) for s in range(self.layers)]
        row = problem.row_bytes()
        self.hop = {(t, a, b): self.down(problem.hop(a, b, row * t) if a != b else None)
                    for t in set(tokens) for a in self.devices for b in self.devices}
        self.tokens = tokens
        self.entry = {d: self.down(problem.entry(d, sum(tokens))) for d in self.devices}
        self.exit = {d: self.down(problem.exit(d)) for d in self.devices}
        self.pinned = set(limits.get("pinned", []))
        self.memory, self.size = {}, {}
        for names in problem.pools():
            usable, sizes = [n for n in names if n in self.devices], [problem.memory(n) for n in names]
            size = 0 if None in sizes else min(sizes)
            # A device that holds nothing may still say that their memory is smaller.
            if len(usable) > 1 or usable and len(names) > 1 and size != problem.memory(usable[0]):
                pool = problem.devices[usable[0]]["memory_pool"]
                self.size[pool] = size
                self.memory.update(dict.fromkeys(usable, pool))
        exact, most = limits.get("stages_exact"), limits.get("stages_max")
        self.exact = exact is not None
        self.most = exact if self.exact else None if most is None else min(most, len(self.devices), self.layers)

    def down(self, time):
        return self.NEVER if time is None else min(math.floor(Q(time) * self.UNIT), self.LONGEST)

    def times(self, d, start, end):
        return self.step[d, 2 * (start == 0) + (end == self.layers), end - start]

    def bytes(self, d, start, end):
        return self.problem.stage_bytes(d, start, end)["total"]

    def prices(self, part):
        """(price of each device, of a byte of each memory, all that a chain may pay)"""
        device, byte, most = dict.fromkeys(self.devices, 0), dict.fromkeys(self.size, 0), 0
        for d, price in part.get("devices", {}).items():
            size = math.floor(abs(Q(price)) * self.UNIT)
            if d not in device or (price < 0 and d not in self.pinned) or abs(price) > 2**20:
                raise Refused("a price is of no usable device, negative or too large")
            device[d] = -size if price < 0 else size
            most += device[d]
        for pool, price in part.get("pools", {}).items():
            units = math.floor(Q(price) * self.UNIT)
            if pool not in byte or not 0 <= price <= 2**20 or units * self.size[pool] > self.PRICE_MAX:
                raise Refused("a price is of no shared memory, negative or too large")
            byte[pool] = units
            most += units * self.size[pool]
        return device, byte, most

    def pay(self, prices, d, start, end):
        byte = prices[1].get(self.memory.get(d), 0)
        return prices[0][d] + (byte * self.bytes(d, start, end) if byte else 0)

    def shares(self, part):
        """(paths that have left the first chunk, those at the last, in 65536ths at each boundary between layers; devices
        used once) where walks are charged a mean over paths."""
        stated = part.get("shares")
        if stated is None:
            return None

        def whole(shares, wanted, otherwise):
            if self.chunks < 2 or len(shares) != (self.layers - 1 if wanted else 0):
                raise Refused("shares are not of the chunks and layers that there are")
            return [0, *shares, 65536] if wanted else [otherwise] * (self.layers + 1)

        left = whole(stated.get("followed", []), self.followed > 0, 65536)
        at_last = whole(stated.get("last", []), self.followed + 1 < self.chunks, 0)
        once = stated.get("once", [])
        if any(a > b for shares in (left, at_last) for a, b in zip(shares, shares[1:])) or \
                any(a > b for a, b in zip(at_last, left)) or min(left + at_last) < 0:
            raise Refused("shares do not rise from 0 to 65536, or more paths are at the last chunk than have left the first")
        if len(once) > 64 or not set(once) <= set(self.devices):
            raise Refused("too many devices are used once, or one that is not usable")
        return left, at_last, frozenset(once)

    def mean(self, *parts):
        """The sum of times in so many shares each."""
        if any(share > 0 and time >= self.NEVER for share, time in parts):
            return self.NEVER
        return sum(share * min(time, 2**106) for share, time in parts) // 65536

    def come(self, shares, layer, done):
        """A mean over paths of when chunks have come: the first, the followed and the last one."""
        left, at_last = shares[0][layer], shares[1][layer]
        return self.mean((65536 - left, done[0]), (left - at_last, done[1]), (at_last, done[2]))

    def mean_step(self, shares, d, start, end):
        times, (left, at_last, _) = self.times(d, start, end), shares
        between = times[-1] - times[0] - times[self.followed] if self.followed else 0
        if max(times[-2:]) >= self.NEVER:
            return self.NEVER
        return self.mean((65536 - left[start], times[0]), (left[end] - left[start], between),
                         (left[end] - at_last[start], times[self.followed]), (at_last[end], times[-2]))

    def mean_hop(self, shares, layer, a, b):
        at_last = shares[1][layer]
        return self.mean((65536 - at_last, self.hop[self.tokens[0], a, b]), (at_last, self.hop[self.tokens[-1], a, b]))

    def walks_quicker(self, shares, prices, after, begun, most, target):
        """Whether a walk takes less than the target, told by when the first, the followed and the last chunk leave."""
        cutoff, beats = target + prices[2], lambda a, b: a[1] <= b[1] and all(x <= y for x, y in zip(a[0], b[0]))
        fronts = {}
        for layer in range(self.layers):
            for d in self.devices:
                come = [([self.entry[d]] * 3, frozenset())] if layer == 0 else []
                for before in self.devices if layer else ():
                    first, last = self.hop[self.tokens[0], before, d], self.hop[self.tokens[-1], before, d]
                    if before != d:
                        come += [([a + first, b + first, c + last], used)
                                 for (a, b, c), used in fronts.get((layer, before), ()) if d not in used]
                least = begun[0, 0, layer][d]
                come = sorted(((done, used) for done, used in come if self.come(shares, layer, done) + least < cutoff),
                              key=lambda label: (sum(label[0]), len(label[1])))
                best = []
                for label in come:
                    if not any(beats(other, label) for other in best):
                        best.append(label)
                for end in range(layer + 1, self.reach[d][layer] + 1) if best else ():
                    times, pay = self.times(d, layer, end), self.pay(prices, d, layer, end)
                    if times[-1] > most or times[-1] >= self.NEVER:
                        continue
                    for (a, b, c), used in best:
                        a += times[0]
                        b = max(b + times[self.followed], a + times[-1] - times[0])
                        c = max(b, c) + times[-2]
                        new = ([a + pay, b + pay, c + pay], used | {d} & shares[2])
                        if self.come(shares, end, new[0]) + after[0, 0, end][d] >= cutoff:
                            continue
                        if end == self.layers:
                            return True
                        front = fronts.setdefault((end, d), [])
                        if not any(beats(other, new) for other in front):
                            front[:] = [other for other in front if not beats(new, other)] + [new]
        return False

    def completions(self, prices, shares, over, most, ruled):
        """Cheapest ways to the end, {(phase, stages still allowed, layer): {device: cost}}, from the end of a stage and
        from the start of one."""
        after, begun, phases = {}, {}, range(1 if shares else len(self.follows))
        never = dict.fromkeys(self.devices, self.NEVER)
        top, long_from = self.most if ruled else 0, over - max(over, 0) // 10
        for level in range(top + 1):
            may_end = not (ruled and self.exact) or level == 0
            for phase in phases:
                after[phase, level, self.layers] = self.exit if may_end and phase == phases[-1] else never
            for start in reversed(range(self.layers)):
                best = {phase: dict(never) for phase in phases}
                below = level - 1 if ruled else 0
                for d in self.devices if below >= 0 else ():
                    for end in range(start + 1, self.reach[d][start] + 1):
                        times, pay = self.times(d, start, end), self.pay(prices, d, start, end)
                        if times[-1] > most:
                            continue
                        moves = [(0, 0, self.mean_step(shares, d, start, end) if shares else times[0])]
                        if len(phases) > 1:
                            moves = [(1, 1, times[self.followed]),
                                     (0, 1, times[-1]) if times[-1] > long_from else (0, 0, times[0])]
                        if len(phases) == 3:
                            moves += [(0, 2, times[-1] + times[-2]), (1, 2, times[self.followed] + times[-2])] \
                                if times[-1] > long_from else [(2, 2, times[self.chunks - 1])]
                        for phase, then, time in moves:
                            best[phase][d] = min(best[phase][d], time + pay + after[then, below, end][d])
                for phase in phases:
                    begun[phase, level, start] = best[phase]
                    t = self.tokens[self.follows[phase]]
                    hop = (lambda a, b: self.mean_hop(shares, start, a, b)) if shares else lambda a, b: self.hop[t, a, b]
                    after[phase, level, start] = {
                        a: min(hop(a, b) + best[phase][b] for b in self.devices) for a in self.devices}
        return after, begun, top

    def alike(self, a, b):
        """Whether two devices may change places in any chain."""
        facts = lambda d: ([self.step.get((d, ends, k)) for ends in range(4) for k in range(1, self.layers + 1)],
                           self.reach[d], self.entry[d], self.exit[d], d in self.pinned, self.memory.get(d))
        others = [c for c in self.devices if c not in (a, b)]
        return facts(a) == facts(b) and all(
            self.hop[t, a, b] == self.hop[t, b, a]
            and all((self.hop[t, a, c], self.hop[t, c, a]) == (self.hop[t, b, c], self.hop[t, c, b]) for c in others)
            for t in set(self.tokens))

    def quicker(self, part, over, most, target):
        """Whether a chain whose longest stage is in the part takes less than the target."""
        shares, prices = self.shares(part), self.prices(part)
        for ruled in (False, True) if self.most is not None else (False,):
            after, begun, top = self.completions(prices, shares, over, most, ruled)
            first = begun[0, top, 0]
            if min((self.entry[d] + first[d] for d in self.devices), default=self.NEVER) - prices[2] >= target:
                return False
            if shares and not ruled and not self.walks_quicker(shares, prices, after, begun, most, target):
                return False
        classes = []
        for d in self.devices:
            like = next((c for c in classes if self.alike(c[0], d)), None)
            like.append(d) if like else classes.append([d])
        # Beginnings by (layer, class of the last device): (device, devices used, drawn, chunks' times, turned, unpaid).
        ends = {}
        ends[0] = {None: [(None, frozenset(), {}, None, self.chunks == 1, prices[2])]}
        for layer in range(self.layers):
            for label in (label for labels in ends.get(layer, {}).values() for label in labels):
                for i, like in enumerate(classes):
                    d = next((d for d in like if d not in label[1]), None)
                    if d and self.extend(label, layer, i, d, (prices, shares), (after, top), over, most, target, ends):
                        return True
        return False

    def extend(self, label, layer, i, d, charged, completions, over, most, target, ends):
        before, used, drawn, done, turned, unpaid = label
        prices, shares = charged
        after, top = completions
        level = top - len(used) - 1 if self.most is not None else 0
        if level < 0:
            return False
        arrived = [self.entry[d]] * self.chunks if before is None else \
            [done[c] + self.hop[t, before, d] for c, t in enumerate(self.tokens)]
        for end in range(layer + 1, self.reach[d][layer] + 1):
            times, free, left = self.times(d, layer, end), 0, []
            if times[-1] > most:
                continue
            for at, step in zip(arrived, times[:self.chunks]):
                free = max(free, at) + step
                left.append(free)
            turns, owing = turned or times[-1] > over, unpaid - self.pay(prices, d, layer, end)
            if shares:
                least = [self.come(shares, end, [left[0], left[self.followed], left[-1]]) + after[0, level, end][d]]
            else:
                least = [left[c] + after[phase, level, end][d] for phase, c in enumerate(self.follows)]
            if len(least) > 1:
                # Before a long stage both of the first phases are paths of the chain; after one, another may come or not.
                least = [min(least[1:])] if turns else [max(least[:2])]
            if least[0] - owing >= target:
                continue
            draws, pool = dict(drawn), self.memory.get(d)
            if pool is not None:
                draws[pool] = draws.get(pool, 0) + self.bytes(d, layer, end)
                if draws[pool] > self.size[pool]:
                    continue
            holds = used | {d}
            if end == self.layers:
                count = self.most is None or (len(holds) == self.most if self.exact else len(holds) <= self.most)
                if turns and count and self.pinned <= holds and left[-1] + self.exit[d] < target:
                    return True
                continue
            new = (d, holds, draws, left, turns, owing)
            rivals = ends.setdefault(end, {}).setdefault(i, [])
            if not any(self.beats(a, new) for a in rivals):
                rivals[:] = [a for a in rivals if not self.beats(new, a)] + [new]
        return False

    def beats(self, a, b):
        return (a[1] <= b[1] and all(x <= y for x, y in zip(a[3], b[3])) and (a[4] or not b[4])
                and all(n <= b[2].get(pool, 0) for pool, n in a[2].items())
                and (not self.exact or len(a[1]) == len(b[1])) and a[1] & self.pinned == b[1] & self.pinned)


def walk_prices(problem, bound, parts):
    target = math.ceil(Q(bound) * (1 - AGREE) * Walks.UNIT)
    if target > 2**124:
        return ["the bound is more than can be verified"]
    if target <= 0:
        return []
    walks, over = Walks(problem), -1
    try:
        if not parts or (walks.most or 0) > 10**5:
            raise Refused("there are no parts, or too many stages")
        for i, part in enumerate(parts):
            most, last = part.get("stage_seconds_max"), i + 1 == len(parts)
            if (most is None) != last:
                raise Refused("the parts leave chains out")
            most = walks.NEVER if last else min(math.floor(Q(most) * walks.UNIT), walks.LONGEST)
            if most <= over:
                raise Refused("the parts are in disorder")
            if walks.quicker(part, over, most, target):
                return ["a placement is quicker than the bound"]
            over = most
    except Refused as fault:
        return [str(fault)]
    return []


def stage_roles(plan):
    """The role of each stage's routes; none where it has none or several."""
    roles = [set() for _ in plan["stages"]]
    for route in plan["routes"]:
        for stop in route["stages"]:
            if stop["stage"] < len(roles):
                roles[stop["stage"]].add(route.get("role"))
    return [next(iter(own)) if len(own) == 1 else None for own in roles]


def pools_hold(problem, held):
    for names in problem.pools():
        need = sum(side.stage_bytes(n, *layers)["total"] for n in names for side, layers in held.get(n, []))
        sizes = [problem.memory(n) for n in names]
        if need and (None in sizes or need > min(sizes)):
            return False
    return True


def certificate_faults(problem, plan):
    c, wrong, maximise = plan.get("certificate"), [], problem.objective == "throughput"
    if c is None:
        return ["there is no certificate"]
    if float(c["objective"]) != float(plan["objective_value"]):
        wrong.append("the certificate is for another objective value")
    if not c["method"].strip():
        wrong.append("the certificate names no method")
    bounded = c["bound_kind"] != "none"
    if (c.get("bound") is not None) != bounded or (c.get("gap") is not None) != bounded:
        wrong.append("bound and gap must be there exactly where somebody vouches for the bound")
    if (c.get("evidence") is not None) != (c["bound_kind"] == "certified"):
        wrong.append("evidence must be there exactly for a certified bound")
    gap, objective = math.inf, Q(c["objective"])
    if c.get("bound") is not None:
        bound = Q(c["bound"])
        better = objective > bound if maximise else objective < bound
        if better and not agree(objective, bound):
            wrong.append("the plan is better than its bound")
        gap = Q(0) if bound == objective else abs(bound - objective) / abs(objective) if objective else math.inf
        if c.get("gap") is not None:
            stated = Q(c["gap"])
            if gap == math.inf or (abs(stated - gap) > Q(1e-12) and not agree(stated, gap)):
                wrong.append("the gap is not the distance to the bound")
    if plan["status"] == "optimal" and not (gap <= GAP_OPTIMAL_MAX and c["bound_kind"] == "certified"):
        wrong.append("the plan is called optimal and is not known to be")
    if c["bound_kind"] == "certified" and c.get("bound") is not None and c.get("evidence") is not None:
        evidence = c["evidence"]
        division = problem.limits.get("division", "never")
        if division != "always" or problem.limits.get("prefill"):
            division = plan.get("division", "never")
        if division != "never" and problem.divisible():
            if evidence["kind"] != "divided":
                return wrong + ["evidence says nothing of divided plans"]
            if problem.may_group():
                return wrong + ["evidence says nothing of devices that hold a stage together"]
            wrong += divided_bound(problem, c["bound"], evidence.get("weight"))
            if division == "always":
                return wrong
            if evidence.get("whole") is None:
                return wrong + ["evidence says nothing of plans that are not divided"]
            evidence = evidence["whole"]
        c = dict(c, evidence=evidence)
        kind = evidence["kind"]
        if maximise != (kind in ("clip_bound", "in_flight", "routes", "device_worths", "weighed_worths", "layer_by_layer",
                                 "cases", "bridges", "batches")):
            wrong.append("evidence of the wrong kind")
        elif problem.may_group():
            wrong.append("evidence says nothing of devices that hold a stage together")
        elif kind in ("enumeration", "walk_prices") and len(problem.formats) > 1:
            wrong.append("evidence speaks of one format where several may be chosen")
        elif kind == "batches":
            wrong += batches_prove(problem, c["bound"], c["evidence"]["batches"])
        elif maximise:
            wrong += rate_proves(problem, c["bound"], c["evidence"])
        elif kind == "walk_prices":
            wrong += walk_prices(problem, c["bound"], c["evidence"]["parts"])
        else:
            wrong += enumeration(problem, c["bound"])
    return wrong


# -- the plan --------------------------------------------------------------------------------------------------------
def structure_faults(problem, plan):
    """Faults of stages and routes; where there are any, the plan's figures are not worth computing."""
    wrong, limits, total = [], problem.limits, problem.layers
    used, roles, sides = [], stage_roles(plan), {role: problem.side(role) for role in ("prefill", "decode")}
    divided = any(r.get("role") for r in plan["routes"])
    asked = limits.get("division", "never")
    # Devices that a scenario names prefill in simulation of a plan that is not divided.
    asked = asked if asked == "always" and not limits.get("prefill") else plan.get("division", "never")
    if divided and (asked == "never" or not problem.divisible() or plan.get("batch") is None
                    or {r.get("role") for r in plan["routes"]} != {"prefill", "decode"} or None in roles):
        wrong.append("prompts and answers are divided where they may not be, or by halves")
        return wrong
    if asked == "always" and not divided:
        wrong.append("prompts and answers are not divided")
    for i, stage in enumerate(plan["stages"]):
        where, start, end = f"stage {i}", stage["layers"]["start"], stage["layers"]["end"]
        if len(stage["devices"]) != 1 or stage["devices"][0] not in problem.devices:
            wrong.append(f"{where} is not on one known device, or on devices that may not hold it together")
            continue
        name = stage["devices"][0]
        if name in used:
            wrong.append(f"{name} holds two stages")
        used.append(name)
        if not start < end <= total:
            wrong.append(f"{where} holds no layers of the model")
            continue
        if stage["quantisation"] not in problem.formats:
            wrong.append(f"{where} is in another format")
        side = sides.get(roles[i], problem)
        named = limits.get("prefill", [])
        if divided and named and {d in named for d in name.split(" + ")} != {roles[i] == "prefill"}:
            wrong.append(f"{name} is on the other side of the division")
        need = side.stage_bytes(name, start, end)
        if any(stage["bytes"].get(key, 0) != need[key] for key in need):
            wrong.append(f"{where} states other bytes than it needs")
        if not side.fits(name, start, end):
            wrong.append(f"{where} does not fit {name}")
        if problem.excluded(name):
            wrong.append(f"{name} may hold no stage")
        if (stage.get("power_cap_watts") or 1) <= 0:
            wrong.append(f"{where} caps its power at nothing")
    batch = plan.get("batch")
    if batch is not None and (problem.objective != "throughput" or batch not in problem.batches()):
        wrong.append("a batch that this problem does not know")
    if not plan["stages"] or not plan["routes"]:
        wrong.append("no stages or no routes")
    for i, route in enumerate(plan["routes"]):
        at, passed = 0, []
        for stop in route["stages"]:
            start, end = stop["layers"]["start"], stop["layers"]["end"]
            if start != at or stop["stage"] in passed or stop["stage"] >= len(plan["stages"]):
                wrong.append(f"route {i} is no chain of stages")
                break
            held = plan["stages"][stop["stage"]]["layers"]
            inside = held["start"] <= start < end <= held["end"]
            if not inside or (not limits["partial"] and (start, end) != (held["start"], held["end"])):
                wrong.append(f"route {i} is served layers that stage {stop['stage']} does not serve")
            at = end
            passed.append(stop["stage"])
        if at != total:
            wrong.append(f"route {i} does not end with the last layer")
        if not 0 < route["share"] <= 1:
            wrong.append(f"route {i} has no share")
        if limits.get("stages_max") is not None and len(route["stages"]) > limits["stages_max"]:
            wrong.append(f"route {i} passes too many stages")
    for role in {r.get("role") for r in plan["routes"]}:
        if abs(sum(Q(r["share"]) for r in plan["routes"] if r.get("role") == role) - 1) > SHARE_SLACK:
            wrong.append("the shares do not add to 1")
    passed = {stop["stage"] for route in plan["routes"] for stop in route["stages"]}
    if passed != set(range(len(plan["stages"]))):
        wrong.append("a stage is on no route")
    exact = limits.get("stages_exact")
    if exact is not None and (len(plan["stages"]) != exact or len(plan["routes"]) != 1):
        wrong.append("not the number of stages that was asked for")
    if problem.objective != "throughput" and len(plan["routes"]) > 1:
        wrong.append("several routes for a latency objective")
    wrong += [f"{p} is pinned and unused" for p in limits.get("pinned", []) if p not in used]
    left = [u["device"] for u in plan["unused"]]
    if sorted(left + list(dict.fromkeys(used))) != sorted(problem.devices) or any(not u["reason"].strip() for u in plan["unused"]):
        wrong.append("not every device is either used or unused with a reason")
    return wrong


def violations(problem, plan):
    try:
        form(plan)
    except Malformed as fault:
        return [f"{fault} is missing or malformed"], None
    wrong, data = [], problem.data
    for key, expected in (("schema", "isotherm.plan/v1"), ("scenario", data["scenario"]), ("model", problem.model["name"]),
                          ("objective_name", problem.objective),
                          ("unit", "tok/s" if problem.objective == "throughput" else "s")):
        if plan[key] != expected:
            wrong.append(f"{key} is {plan[key]!r}, not {expected!r}")
    if sorted(plan.get("inputs", [])) != sorted(data["inputs"]):
        wrong.append("made from other inputs")
    if plan["status"] in ("infeasible", "unknown"):
        return wrong + ["there is no plan to follow"], None
    if plan.get("reasons"):
        wrong.append("reasons for there being no plan, beside a plan")
    chosen = {d: s["quantisation"] for s in reversed(plan["stages"]) for d in s["devices"]
              if d in problem.devices and s["quantisation"] in problem.formats}
    problem.assign({**problem.format, **chosen})
    asked, stated = problem, plan
    groups = [stage["devices"] for stage in plan["stages"] if len(stage["devices"]) > 1]
    parallel = {stage["devices"][0]: {"tensor": "tensor", "experts": "expert"}[stage.get("parallel", "tensor")]
                for stage in plan["stages"] if stage["devices"]}
    once = [d for stage in plan["stages"] for d in stage["devices"]]
    if groups and all(d in problem.devices for g in groups for d in g):
        within = [d for g in groups for d in g]
        if len(set(within)) == len(within) and all(problem.together(g, parallel[g[0]]) for g in groups):
            # The plan in the terms of the problem in which groups are devices.
            problem = problem.grouped(groups, parallel)
            joined = [dict(s, devices=[" + ".join(s["devices"])]) for s in plan["stages"]]
            unused = [u for u in plan["unused"] if u["device"] not in within]
            if len(unused) < len(plan["unused"]) or len(set(once)) < len(once):
                wrong.append("a device is in two places")
            plan = dict(plan, stages=joined, unused=unused)
    structure = structure_faults(problem, plan)
    wrong += structure
    if plan.get("objective_value") is None:
        return wrong + ["no objective value"], None
    worth = None
    if not structure:
        held = {}
        for stage, role in zip(plan["stages"], stage_roles(plan)):
            side = problem.side(role) if role else problem
            layers = (stage["layers"]["start"], stage["layers"]["end"])
            held.setdefault(stage["devices"][0], []).append((side, layers))
        if not pools_hold(problem, held):
            wrong.append("stages do not fit the memory they share")
        for route in plan["routes"]:
            stops = stops_of(plan, route)
            if problem.entry(stops[0][0], 1) is None or problem.exit(stops[-1][0]) is None:
                wrong.append("no way between a route and where requests come in")
        worth = evaluate(problem.capped(plan), plan)
        # A device that a cap stops never ends a step.
        worth = None if worth is not None and worth > Q(sys.float_info.max) else worth
        if worth is None:
            wrong.append("a time, way or rate that the plan needs is unknown")
        elif not agree(worth, Q(plan["objective_value"])):
            wrong.append(f"the objective value is {float(worth)!r}, not {plan['objective_value']!r}")
    wrong += certificate_faults(asked, stated)
    return wrong, worth


def main(arguments):
    sys.setrecursionlimit(100_000)
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        if arguments[0] == "--batch":
            with open(arguments[1], encoding="utf-8") as lines:
                for line in lines:
                    case = json.loads(line)
                    wrong, worth = violations(Problem(case["problem"]), case["plan"])
                    objective = None if worth is None else float(worth)
                    print(json.dumps({"ok": not wrong, "violations": wrong, "objective": objective}))
            return 0
        plan, data = (json.load(open(path, encoding="utf-8")) for path in arguments)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    wrong, worth = violations(Problem(data), plan)
    for fault in wrong:
        print(f"violation: {fault}")
    if not wrong:
        print(f"the plan holds: {plan['objective_name']} {float(worth)!r} {plan['unit']}")
    return 5 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
