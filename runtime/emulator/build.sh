#!/usr/bin/env bash
# Builds the stand-in for NVIDIA's driver library: bash runtime/emulator/build.sh FOLDER [KERNELS [FORMAT_ID ...]]
# FOLDER gets libcuda.so.1. KERNELS is the folder of the kernels' source, this checkout's where none is named. With
# formats named, only their modules are built. Nothing is built again while the sources are the same.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?usage: build.sh FOLDER [KERNELS [FORMAT_ID ...]]}
kernels=${2:-$here/../kernels}
shift $(($# < 2 ? $# : 2))
formats=("$@")
[ ${#formats[@]} -gt 0 ] || formats=(0 1 2 3 6 7 8 12 13 14 30)
mkdir -p "$out"
out=$(cd "$out" && pwd)
digest=$( (cat "$here"/*.cpp "$here"/*.h "$here"/build.sh "$kernels"/*.cu; echo "${formats[@]}"; c++ --version; uname -m) | sha256sum | cut -d' ' -f1)
[ "$(cat "$out/digest" 2>/dev/null || true)" = "$digest" ] && [ -f "$out/libcuda.so.1" ] && exit 0
work=$(mktemp -d "$out/build.XXXXXX")
trap 'rm -rf "$work"' EXIT
flags=(-std=c++17 -O2 -fPIC -fvisibility=hidden -ffp-contract=off -fno-strict-aliasing -Wall -Wno-unknown-pragmas
    -Wno-unused-variable -Wno-sign-compare -I"$here" -I"$kernels")
case $(uname -m) in x86_64) flags+=(-march=native) ;; esac
# An access that a device would refuse, or one past an array of shared memory, ends in a trap that the driver reports.
checks=(-fsanitize=alignment,bounds -fsanitize-undefined-trap-on-error)
# The driver itself is the same for all kernels: its objects are kept beside the folder.
own=$( (cat "$here"/block.* "$here"/memory.* "$here"/stream.* "$here"/driver.cpp "$here"/build.sh; c++ --version; uname -m) | sha256sum | cut -c1-16)
objects=$(dirname "$out")/objects-$own
list=(common)
for format in "${formats[@]}"; do list+=("format:$format"); done
[ -d "$objects" ] || list+=(block memory stream driver)
build_one() {
    case $1 in
        common) c++ "${flags[@]}" "${checks[@]}" -c "$here/kernels.cpp" -o "$work/common.o" ;;
        format:*) c++ "${flags[@]}" "${checks[@]}" -DFORMAT_ID="${1#format:}" -c "$here/kernels.cpp" -o "$work/${1#format:}.o" ;;
        *) c++ "${flags[@]}" -c "$here/$1.cpp" -o "$work/$1.o" ;;
    esac
}
# Two at a time.
for ((i = 0; i < ${#list[@]}; i += 2)); do
    build_one "${list[i]}" & first=$!
    if ((i + 1 < ${#list[@]})); then build_one "${list[i + 1]}"; fi
    wait "$first"
done
if [ ! -d "$objects" ]; then
    mkdir "$work/objects"
    mv "$work"/{block,memory,stream,driver}.o "$work/objects/"
    mv -T "$work/objects" "$objects" 2>/dev/null || [ -d "$objects" ]
fi
c++ -shared -Wl,-soname,libcuda.so.1 -o "$work/libcuda.so.1" "$work"/*.o "$objects"/*.o -lpthread
mv "$work/libcuda.so.1" "$out/libcuda.so.1"
echo "$digest" >"$out/digest"
