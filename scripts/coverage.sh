#!/usr/bin/env bash
# Lines of core, planner, sim and audit that their tests execute, crate by crate: coverage.sh [CRATE ...]
set -uo pipefail
. "$(dirname "$0")/steps.sh"

crates=("$@")
[ ${#crates[@]} -gt 0 ] || crates=(core planner sim audit)

if ! cargo llvm-cov --version >/dev/null 2>&1; then
    say "cargo-llvm-cov is not installed:" \
        "  rustup component add llvm-tools && cargo install --locked cargo-llvm-cov" \
        "Coverage was NOT measured." >&2
    exit 1
fi

# One crate at a time: what another crate's tests execute is not what its own tests check. The build is a separate one,
# since instrumented code differs; it stays under the target folder.
measure() {
    local crate=$1
    cargo llvm-cov --locked -p "isotherm-$crate" --json --summary-only --quiet \
        --ignore-filename-regex '/(tests|examples|benches)/' --output-path "$target/coverage-$crate.json" \
        >"$target/coverage-$crate.log" 2>&1 || { tail -n 20 "$target/coverage-$crate.log"; return 1; }
    python3 - "$crate" "$target/coverage-$crate.json" <<'PY'
import json, sys
crate, path = sys.argv[1:]
files = [f for f in json.load(open(path))["data"][0]["files"] if f"/{crate}/src/" in f["filename"]]
lines = [f["summary"]["lines"] for f in files]
count, covered = sum(l["count"] for l in lines), sum(l["covered"] for l in lines)
print(f"{crate}: {100 * covered / count:.1f} % of {count} lines")
for f in sorted(files, key=lambda f: f["summary"]["lines"]["percent"])[:5]:
    name = f["filename"].split(f"/{crate}/src/")[1]
    print(f"  {f['summary']['lines']['percent']:5.1f} %  {crate}/src/{name}")
PY
}

mkdir -p "$target"
for crate in "${crates[@]}"; do
    step "coverage of $crate" measure "$crate"
done
[ ${#failures[@]} -eq 0 ]
