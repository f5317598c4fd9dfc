"""Throughput placement as a CP-SAT model (OR-Tools), for comparison. Prints one JSON object.

    python3 cpsat_planner.py PROBLEM.json SECONDS

The problem: layers, partial, rates (one table {layers held: rate} for each device), source and sink (a rate for
each device, null where nothing limits, 0 where there is no way) and pair (rates between devices). A device may stay
unused. One worker, no starting point. Rates become whole numbers, rounded up, in millionths of what all devices
could carry if no layer were served twice: so the bound holds, and what a placement really carries is for the caller
to find out.
"""

import json
import math
import resource
import sys
import time

UNITS = 1_000_000


def main():
    try:
        from ortools import __version__ as version
        from ortools.sat.python import cp_model
    except ImportError:
        print(json.dumps({"error": "not installed"}))
        return
    limit, begin = float(sys.argv[2]), time.monotonic()
    with open(sys.argv[1], encoding="utf-8") as file:
        problem = json.load(file)
    layers, tables = problem["layers"], [{int(k): t for k, t in table.items()} for table in problem["rates"]]
    count = len(tables)
    unit = sum(max((k * t for k, t in table.items()), default=0.0) for table in tables) / layers
    if not unit > 0.0:
        print(json.dumps({"error": "no device has a rate"}))
        return

    def whole(rate):
        return UNITS if rate is None else min(UNITS, math.ceil(rate / unit * UNITS))

    model = cp_model.CpModel()
    start = [model.new_int_var(0, layers - 1, f"start{i}") for i in range(count)]
    end = [model.new_int_var(0, layers, f"end{i}") for i in range(count)]
    hold = [{k: model.new_bool_var(f"hold{i}_{k}") for k in table if k <= layers} for i, table in enumerate(tables)]
    into, out = [[] for _ in range(count)], [[] for _ in range(count)]
    total = []
    for i in range(count):
        model.add_at_most_one(hold[i].values())
        held = sum(k * column for k, column in hold[i].items())
        model.add(end[i] == start[i] + held)

    def link(name, capacity):
        flow, switch = model.new_int_var(0, capacity, f"flow{name}"), model.new_bool_var(f"switch{name}")
        model.add(flow == 0).only_enforce_if(switch.negated())
        return flow, switch

    for i in range(count):
        if whole(problem["source"][i]) > 0:
            flow, switch = link(f"s_{i}", whole(problem["source"][i]))
            model.add(start[i] == 0).only_enforce_if(switch)
            into[i].append(flow)
            total.append(flow)
        if whole(problem["sink"][i]) > 0:
            flow, switch = link(f"{i}_t", whole(problem["sink"][i]))
            model.add(end[i] == layers).only_enforce_if(switch)
            out[i].append(flow)
        for j in range(count):
            capacity = whole(problem["pair"][i][j]) if i != j else 0
            if capacity == 0:
                continue
            flow, switch = link(f"{i}_{j}", capacity)
            if problem["partial"]:
                model.add(start[j] <= end[i]).only_enforce_if(switch)
                model.add(end[i] < end[j]).only_enforce_if(switch)
            else:
                model.add(end[i] == start[j]).only_enforce_if(switch)
            out[i].append(flow)
            into[j].append(flow)
    for i in range(count):
        capacity = sum(whole(tables[i][k]) * column for k, column in hold[i].items())
        model.add(sum(into[i]) <= capacity)
        model.add(sum(into[i]) == sum(out[i]))
    model.add(sum(total) <= UNITS)
    model.maximize(sum(total))
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 1
    solver.parameters.max_time_in_seconds = max(0.1, limit - (time.monotonic() - begin))
    status = solver.solve(model)
    # Kibibytes, as Linux counts.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    seconds = time.monotonic() - begin
    answer = {"version": version, "status": solver.status_name(status), "seconds": seconds, "peak_bytes": peak}
    if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        answer["objective"] = solver.objective_value / UNITS * unit
        chosen = [(i, solver.value(start[i]), solver.value(end[i])) for i in range(count)]
        answer["placement"] = [stage for stage in chosen if stage[1] < stage[2]]
    if status != cp_model.INFEASIBLE:
        answer["bound"] = solver.best_objective_bound / UNITS * unit
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
