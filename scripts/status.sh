#!/usr/bin/env bash
# Runs the command of every capability in status.toml and writes what happened to STATUS.md.
set -euo pipefail
. "$(dirname "$0")/steps.sh"

bash scripts/bootstrap.sh
cargo build --locked --workspace --bins
PATH="$(cd "$target" && pwd)/debug:$PATH" exec python3 scripts/status.py "$@"
