# shellcheck shell=bash
# Sourced by the other scripts: where the checkout is, and how a step is announced, timed and remembered.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
target="${CARGO_TARGET_DIR:-target}"
durations=()
failures=()

say() { printf '%s\n' "$@"; }

# step NAME COMMAND...: runs the command; a failure is remembered, not fatal, so that one run reports everything.
step() {
    local name=$1 begun=$SECONDS rc=0
    shift
    say "" "== $name"
    "$@" || rc=$?
    durations+=("$(printf '%6d s  %s' $((SECONDS - begun)) "$name")")
    [ "$rc" -eq 0 ] || failures+=("$name")
    return "$rc"
}

on_ci() { [ "${CI:-}" = true ]; }
