#!/usr/bin/env bash
# Finds what the build needs and is missing; installs it where that needs no password, else prints the one line to run.
set -euo pipefail
. "$(dirname "$0")/steps.sh"

say "Looking for what the build needs ..."

if ! command -v cargo >/dev/null; then
    say "cargo is missing. Install Rust 1.95 or newer from https://rustup.rs, open a new shell and run this again." >&2
    exit 1
fi

# The name without a version comes with the development package, and with it the compiler's own headers.
has_libclang() {
    local folder
    for folder in ${LIBCLANG_PATH:-} /usr/lib/llvm-*/lib /usr/lib/*-linux-gnu /usr/lib64 /usr/lib \
        /opt/homebrew/opt/llvm/lib /Library/Developer/CommandLineTools/usr/lib; do
        compgen -G "$folder/libclang.so" || compgen -G "$folder/libclang-[0-9]*.so" ||
            compgen -G "$folder/libclang.dylib" || continue
        return 0
    done
    return 1
}

# A loader and a driver that computes on the processor: tests run the graphics backend on it where there is no card.
has_vulkan() {
    ldconfig -p 2>/dev/null | grep -q 'libvulkan\.so\.1' || return 1
    compgen -G '/usr/share/vulkan/icd.d/*.json' || compgen -G '/etc/vulkan/icd.d/*.json'
}

missing=()
need() { # need PACKAGE CHECK...
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || missing+=("$package")
}
need cmake command -v cmake
need g++ command -v c++
need make command -v make
need pkg-config command -v pkg-config
need libclang-dev has_libclang
need python3 command -v python3
# On other systems than Linux the system brings its own interface.
if [ "$(uname -s)" = Linux ]; then
    need libvulkan1 has_vulkan
    need mesa-vulkan-drivers has_vulkan
fi
need python3-pip python3 -m pip --version
need python3-venv python3 -c 'import venv, ensurepip'

if [ ${#missing[@]} -eq 0 ]; then
    say "Everything is here."
    exit 0
fi
say "Missing: ${missing[*]}"

install="apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends ${missing[*]}"
if ! command -v apt-get >/dev/null; then
    say "Install them with this system's package manager (the names above are Debian's), then run this again." >&2
    exit 1
fi
if [ "$(id -u)" -eq 0 ]; then
    say "Installing them ..."
    bash -c "$install" </dev/null
elif sudo -n true 2>/dev/null; then
    say "Installing them with sudo ..."
    sudo -n bash -c "$install" </dev/null
else
    say "Run this line, then try again:" "  sudo sh -c '$install'" >&2
    exit 1
fi
say "Installed."
