#!/usr/bin/env bash
# From a fresh checkout to the whole loop on this machine: build, then `isotherm tour`.
set -euo pipefail
. "$(dirname "$0")/steps.sh"

bash scripts/bootstrap.sh
say "" "Building isotherm. The first build compiles everything and takes a while; later ones take seconds."
cargo build --locked -p isotherm-cli
say "" "Taking the tour ..."
exec "$target/debug/isotherm" tour "$@"
