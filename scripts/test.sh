#!/usr/bin/env bash
# Everything that must hold before a change lands. Goes through all steps, then names what failed and what was skipped.
set -uo pipefail
. "$(dirname "$0")/steps.sh"

say "Testing isotherm: format, lints, build, tests, documentation."
log="$target/tests.log"
mkdir -p "$target"
: >"$log"

build_all() { cargo build --workspace --bins --tests --locked; }

fetch_model() {
    "$target/debug/isotherm" model fetch smollm2 && return
    on_ci && say "On CI the tests with the real model may not be skipped." >&2 && return 1
    say "The real model could not be fetched; tests that need it will be skipped by name."
}

# A second implementation, in another language, checks our signatures.
independent_verifier() {
    local python="$target/venv/bin/python"
    if ! python3 -m venv "$target/venv" ||
        ! "$python" -m pip install --quiet --disable-pip-version-check -r scripts/requirements.txt; then
        on_ci && say "On CI the tests with the independent verifier may not be skipped." >&2 && return 1
        say "The Python verifier could not be installed; tests that need it will be skipped by name."
        return 0
    fi
    ISOTHERM_PYTHON="$(cd "$target" && pwd)/venv/bin/python"
    export ISOTHERM_PYTHON
    # Sigstore's own verifier lives with npm; where that is missing its test says so by name.
    if command -v npm >/dev/null &&
        npm install --silent --no-audit --no-fund --prefix "$target/sigstore" \
            @sigstore/verify@3.1.1 @sigstore/bundle@4.0.0 >/dev/null 2>&1; then
        ISOTHERM_NODE_MODULES="$(cd "$target" && pwd)/sigstore/node_modules"
        export ISOTHERM_NODE_MODULES
    else
        say "npm or its packages are not to be had; the test with Sigstore's verifier will be skipped by name."
    fi
    say "ready"
}

# Shows one line for each test binary while it runs; the whole output stays in the log.
run_tests() {
    cargo test --workspace --locked --no-fail-fast -- --show-output 2>&1 | tee "$log" | awk -f scripts/progress.awk
    local rc=${PIPESTATUS[0]}
    [ "$rc" -eq 0 ] || say "The whole output is in $log"
    return "$rc"
}

# Model, verifiers and solvers were installed before, so a test that did not find them hides a mistake. Only others'
# measured data and cards may be absent, and tools that not every machine lets one have: npm, and strace's tracing.
nothing_else_skipped() { ! grep -E '^skipped: ' "$log" | grep -vE 'shared (data )?folder|shared data|ISOTHERM_SHARED|no GPU|ISOTHERM_NODE_MODULES|strace|chromium|GNU parallel|slurm'; }

# The part of the runtime that needs no file, thread or socket, for browsers: compiled, never run.
webassembly() {
    if [ ! -d "$(rustc --print sysroot)/lib/rustlib/wasm32-unknown-unknown/lib" ]; then
        say "skipped: the target wasm32-unknown-unknown is not installed (rustup target add wasm32-unknown-unknown)"
        return 0
    fi
    cargo check --locked -p isotherm-runtime --lib --target wasm32-unknown-unknown
}

build_docs() { RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet; }

step "bootstrap" bash scripts/bootstrap.sh || exit 1
step "format" cargo fmt --all --check
step "lints" cargo clippy --workspace --all-targets --locked -- -D warnings
if step "build" build_all; then
    step "real model" fetch_model
    step "independent verifier" independent_verifier
    step "tests" run_tests
    on_ci && step "no test skipped but for want of others' data or a card" nothing_else_skipped
fi
step "WebAssembly" webassembly
step "documentation" build_docs

say "" "Seconds for each step:"
printf '%s\n' "${durations[@]}"
[ ${#failures[@]} -eq 0 ] || say "" "Failed: $(printf '%s, ' "${failures[@]}" | sed 's/, $//')"
say ""
awk -f scripts/summary.awk "$log"
[ ${#failures[@]} -eq 0 ]
