#!/usr/bin/env bash
# On a machine with an NVIDIA card: the conformance suite, a whole model and the times of all kernels on the card
# itself, as a record that this host's key signs. Ends with exit code 6 where there is no card.
set -euo pipefail
. "$(dirname "$0")/steps.sh"

bash scripts/bootstrap.sh
cargo build --locked --bin isotherm
out="$target/gpu-check"
mkdir -p "$out"
# The run-time compiler comes with the CUDA toolkit, or from a Python package.
python="$target/venv/bin/python"
if ! ldconfig -p 2>/dev/null | grep -q 'libnvrtc\.so'; then
    python3 -m venv "$target/venv"
    "$python" -m pip install --quiet --disable-pip-version-check "$(grep nvidia-cuda-nvrtc scripts/requirements.txt)"
    folder=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/nvidia/cuda_nvrtc/lib
    export LD_LIBRARY_PATH="$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
fi
"$target/debug/isotherm" bench cuda --check -o "$out"
say "The signed record is $out/bench-cuda.json with bench-cuda.json.sig beside it."
