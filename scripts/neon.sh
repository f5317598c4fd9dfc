#!/usr/bin/env bash
# Runs the tests of the processor's kernels as a 64-bit ARM program in an emulator: bash scripts/neon.sh [FOLDER]
# Needs the compiler's target aarch64-unknown-linux-gnu, aarch64-linux-gnu-gcc and qemu-aarch64. Only the kernels and what they
# stand on are built, as a crate of its own in FOLDER, target/neon where none is named. An emulator proves results, not speed.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
out=${1:-$here/target/neon}
for tool in aarch64-linux-gnu-gcc qemu-aarch64; do
    command -v "$tool" >/dev/null || { echo "$tool is not here: apt-get install gcc-aarch64-linux-gnu qemu-user" >&2; exit 1; }
done
mkdir -p "$out/src"
ln -sfn "$here/runtime/src/cpu" "$out/src/cpu"
ln -sfn "$here/runtime/src/model" "$out/src/model"
cp "$here/Cargo.lock" "$out/Cargo.lock"
cat > "$out/Cargo.toml" <<'TOML'
[package]
name = "isotherm-neon"
version = "0.1.0"
edition = "2024"
[workspace]
[dependencies]
core_affinity = "0.8"
half = "2.7"
memmap2 = "0.9"
thiserror = "2"
[profile.dev]
opt-level = 1
debug = 0
incremental = false
TOML
{
    # The shapes that kernels name, without the files that they are read from.
    cat <<'RUST'
#![allow(dead_code, unused_imports)]
pub mod model {
    pub mod format;
    pub mod geometry {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Activation { Silu, Gelu }
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum RopePairs { Adjacent, SplitHalves }
        #[derive(Clone, Debug, PartialEq)]
        pub struct Rope {
            pub base: f64,
            pub dimensions: usize,
            pub pairs: RopePairs,
            pub position_divisor: f64,
            pub yarn: Option<()>,
            pub divisors: Vec<f32>,
        }
        impl Rope {
            pub fn frequencies(&self) -> Vec<f64> {
                (0..self.dimensions / 2).map(|i| self.base.powf(-2.0 * i as f64 / self.dimensions as f64)).collect()
            }
            pub fn magnitude(&self) -> f64 { 1.0 }
        }
    }
}
pub mod cpu {
RUST
    # The reference decoder reads whole models; everything else is taken as it stands.
    sed -e '/^\/\/!/d' -e '/^pub mod reference;/d' "$here/runtime/src/cpu/mod.rs"
    echo '}'
} > "$out/src/lib.rs"
cd "$out"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu"
CARGO_TARGET_DIR="$out/target" cargo test --quiet --lib --target aarch64-unknown-linux-gnu
