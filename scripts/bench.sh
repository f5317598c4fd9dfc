#!/usr/bin/env bash
# Benchmarks under the one profile everything else is built with. Extra arguments go to the harness.
set -euo pipefail
. "$(dirname "$0")/steps.sh"

say "Benchmarking; close other programs for steady figures."
bash scripts/bootstrap.sh
exec cargo bench --profile dev --locked -p isotherm-benches "$@"
