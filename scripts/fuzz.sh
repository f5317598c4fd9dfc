#!/usr/bin/env bash
# Fuzzes one target, or all of them one after another: fuzz.sh [TARGET] [SECONDS_FOR_EACH]
set -uo pipefail
. "$(dirname "$0")/steps.sh"

wanted=${1:-}
seconds=${2:-180}
if ! cargo fuzz --version >/dev/null 2>&1; then
    say "cargo-fuzz is not installed: cargo install --locked cargo-fuzz" >&2
    exit 1
fi
# Coverage instrumentation needs flags that a stable compiler accepts only when told so. The address sanitizer is left
# out: our crates are safe Rust but for the runtime's kernels, and without it the stable toolchain is enough.
export RUSTC_BOOTSTRAP=1
known=$(cargo fuzz list) || exit 1
if [ -n "$wanted" ] && ! grep -qx "$wanted" <<<"$known"; then
    say "There is no target $wanted. Known: $(tr '\n' ' ' <<<"$known")" >&2
    exit 2
fi
for name in ${wanted:-$known}; do
    step "fuzz $name for $seconds s" cargo fuzz run --sanitizer none "$name" -- \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1
done
say "" "Seconds for each target:"
printf '%s\n' "${durations[@]}"
[ ${#failures[@]} -eq 0 ] || {
    say "Crashed: ${failures[*]}. The inputs are in fuzz/artifacts; save each as a named test before fixing it." >&2
    exit 1
}
