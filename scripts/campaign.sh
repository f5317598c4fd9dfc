#!/usr/bin/env bash
# The long checks, for a night or a weekend: every fuzz target, then the property tests with many more cases.
# HOURS says how long in all (default 1).
set -uo pipefail
. "$(dirname "$0")/steps.sh"

hours=${HOURS:-1}
say "A campaign of about $hours h: half fuzzing, half property tests and repeated runs."
bash scripts/bootstrap.sh || exit 1

fuzz_all() {
    local targets
    if ! cargo fuzz --version >/dev/null 2>&1; then
        say "Fuzzing was NOT run: cargo-fuzz is not installed (cargo install --locked cargo-fuzz)."
        return 0
    fi
    targets=$(cargo fuzz list | wc -l)
    bash scripts/fuzz.sh "" $((hours * 1800 / (targets > 0 ? targets : 1)))
}

# Each round draws new cases; a failing case is saved by proptest and becomes part of the ordinary tests.
property_rounds() {
    local until=$((SECONDS + hours * 1800)) round=0
    while [ "$SECONDS" -lt "$until" ]; do
        round=$((round + 1))
        say "round $round"
        PROPTEST_CASES=20000 cargo test --workspace --locked --quiet || return 1
    done
}

# Every system call of a writer fails once, and a thousand writers are killed.
crash_matrix() { ISOTHERM_CAMPAIGN=1 cargo test -p isotherm-access --locked --test it crash; }

# The whole model on the graphics backend, every shape of the conformance suite.
devices() {
    ISOTHERM_CAMPAIGN=1 cargo test -p isotherm-runtime --locked --test it backend -- --nocapture &&
        ISOTHERM_CAMPAIGN=1 cargo test -p isotherm-runtime --locked --test it device_stage -- --nocapture
}
# Tokens a second of the real model on a software rasteriser, beside llama.cpp through Vulkan there, where npm is.
rasteriser() {
    command -v npm >/dev/null || { say "npm is not installed; llama.cpp was NOT run beside"; return 0; }
    mkdir -p "$target/peer" && npm install --silent --no-audit --no-fund --ignore-scripts --omit=optional --prefix "$target/peer" \
        node-llama-cpp@3.22.1 @node-llama-cpp/linux-x64-vulkan@3.22.1 &&
        "$target/debug/isotherm" bench runtime --speed --device wgpu0 --peer "$target/peer" --model smollm2 --prompt-tokens 8 \
            --output-tokens 4 --rounds 1
}
# The same on this processor beside candle, built for it where its sources can be had.
candle() {
    cargo fetch --locked --manifest-path benches/peers/candle/Cargo.toml ||
        { say "candle could not be fetched; it was NOT run beside"; return 0; }
    RUSTFLAGS="-C target-cpu=native" CARGO_TARGET_DIR="$target/candle" cargo build --release --locked \
        --manifest-path benches/peers/candle/Cargo.toml && cargo build --locked --bin isotherm &&
        "$target/debug/isotherm" bench runtime --speed --peer-program "$target/candle/release/isotherm-peer-candle" \
            --model smollm2 --rounds 1
}
# Shaped links, to three percent.
links() { ISOTHERM_CAMPAIGN=1 cargo test -p isotherm-cli --locked --test it links -- --nocapture; }

# Ten million requests for each figure of queueing theory, instead of a few.
theory() { ISOTHERM_CAMPAIGN=1 cargo test -p isotherm-sim --locked --test it theory -- --nocapture; }

# The simulator's pinned digests, built without optimisation in a folder of its own.
unoptimised() {
    CARGO_PROFILE_DEV_OPT_LEVEL=0 CARGO_PROFILE_TEST_OPT_LEVEL=0 CARGO_TARGET_DIR=target/unoptimised \
        cargo test -p isotherm-sim --locked --test it determinism
}
# Every shape of the conformance suite and a text of the real model on the host-emulated driver. Nothing runs on a GPU.
host_emulated() { ISOTHERM_CAMPAIGN=1 cargo test -p isotherm-runtime --locked --test it emulated -- --nocapture; }
# A Slurm of one node, installed where that needs no password, runs a batch's shards as an array; every scenario is run.
slurm_array() {
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null && ! command -v sbatch >/dev/null; then
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge
    fi
    cargo test -p isotherm-cli --locked --test it slurm -- --nocapture
}
whole_corpus() { "$target/debug/isotherm" batch scenarios -o "$target/corpus" && "$target/debug/isotherm" report "$target/corpus"; }

step "fuzzing" fuzz_all
step "crash matrix" crash_matrix
step "shaped links" links
step "queueing theory" theory
step "digests of an unoptimised build" unoptimised
step "devices" devices
step "host-emulated driver" host_emulated
step "llama.cpp through Vulkan on the same rasteriser" rasteriser
step "candle on this processor" candle
step "shards in a Slurm array" slurm_array
step "every scenario" whole_corpus
step "property tests and repeated runs" property_rounds
printf '%s\n' "" "Seconds for each step:" "${durations[@]}"
[ ${#failures[@]} -eq 0 ] || { say "Failed: ${failures[*]}" >&2; exit 1; }
