#!/usr/bin/env bash
# On a machine with a card: the conformance suite, a whole model and the times of operations on every way to every card
# (CUDA, Vulkan, Metal, Direct3D 12), each as a receipt that this host's key signs. `isotherm devices` shows what follows
# from it. Ends with exit code 6 where there is no card.
set -euo pipefail
. "$(dirname "$0")/steps.sh"

bash scripts/bootstrap.sh
cargo build --locked --bin isotherm
out="$target/gpu-check"
mkdir -p "$out"

# Whether the dynamic loader finds a library: asked of the loader itself, for not every system has a cache of libraries.
loads() { python3 -c 'import ctypes, sys; ctypes.CDLL(sys.argv[1])' "$1" 2>/dev/null; }

# NVIDIA's run-time compiler comes with the CUDA toolkit, or from a Python package. Without it the other ways are checked.
if loads libcuda.so.1 && ! loads libnvrtc.so && ! loads libnvrtc.so.12 && ! loads libnvrtc.so.13; then
    python="$target/venv/bin/python"
    if { [ -x "$python" ] || python3 -m venv "$target/venv"; } &&
        "$python" -m pip install --quiet --disable-pip-version-check "$(grep nvidia-cuda-nvrtc scripts/requirements.txt)"; then
        folder=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/nvidia/cuda_nvrtc/lib
        export LD_LIBRARY_PATH="$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    else
        say "NVIDIA's run-time compiler could not be installed: the CUDA kernels cannot be checked."
    fi
fi
rc=0
"$target/debug/isotherm" bench device --check -o "$out" || rc=$?
[ "$rc" -eq 6 ] && exit 6
"$target/debug/isotherm" devices
say "" "Copies of the signed receipts are in $out."
exit "$rc"
