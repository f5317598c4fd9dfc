#!/usr/bin/env bash
# Licences, bans and sources by cargo-deny, and advisories where their database can be had.
set -uo pipefail
. "$(dirname "$0")/steps.sh"

if ! cargo deny --version >/dev/null 2>&1; then
    say "cargo-deny is not installed: cargo install --locked cargo-deny" \
        "Licences and bans are also checked by make test. Advisories were NOT checked." >&2
    exit 1
fi
cargo deny --locked check licenses bans sources || exit 1
if cargo deny --locked check advisories; then
    say "Advisories were checked."
else
    say "Advisories failed or could not be fetched: read the lines above. They do not count as passed." >&2
    exit 1
fi
