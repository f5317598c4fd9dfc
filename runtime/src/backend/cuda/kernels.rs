//! The kernels' source, and what each kernel takes.
//!
//! One source in CUDA C serves every format and every card. It is compiled in modules: one for each format of weights
//! that a model uses, and one for everything else.

use crate::model::format::BlockFormat;

/// What is common to all modules, and all kernels that read no weights.
const COMMON: &[&str] = &[
    include_str!("../../../kernels/base.cu"),
    include_str!("../../../kernels/element.cu"),
    include_str!("../../../kernels/attention.cu"),
];

/// Kernels of one format.
const OF_FORMAT: &[&str] = &[
    include_str!("../../../kernels/base.cu"),
    include_str!("../../../kernels/format.cu"),
    include_str!("../../../kernels/product.cu"),
    include_str!("../../../kernels/integer.cu"),
];

/// Threads of a block of every kernel but the one for tiles. `THREADS` in `base.cu`.
pub const THREADS: u32 = 256;
/// Threads of a block of `product_8`. `TILE_THREADS` in `product.cu`.
pub const TILE_THREADS: u32 = 128;
/// Positions that one block of threads attends to. `SEGMENT` in `base.cu`.
pub const SEGMENT: u32 = 256;
/// Query heads that one block of threads attends for. `QUERIES` in `base.cu`.
pub const QUERIES: u32 = 4;
/// Largest head. `HEAD_SIZE_MAX` in `base.cu`.
pub const HEAD_SIZE_MAX: u32 = 256;
/// Rows of numbers that `rounded_tensor` multiplies together. `TENSOR_TOKENS` in `integer.cu`.
pub const TENSOR_ROWS: u32 = 32;
/// Least compute capability, times ten, whose tensor cores `rounded_tensor` is written for.
pub const TENSOR_CAPABILITY: u32 = 80;

/// The most segments that a row has which sees at most so many positions: what `segment_of` in `attention.cu` says.
#[must_use]
pub fn segments(reachable: u64) -> u32 {
    const SHORT: u64 = 2048;
    let whole = u64::from(SEGMENT);
    let most = match reachable {
        ..=SHORT => reachable.div_ceil(whole / 4),
        4097.. => reachable.div_ceil(whole).max(4 * SHORT / whole),
        _ => 4 * SHORT / whole,
    };
    u32::try_from(most.max(1)).unwrap_or(u32::MAX)
}

/// One unit of compilation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Module {
    /// Norms, rotations, the cache, attention, element by element.
    Common,
    /// Products with weights of one format, and their lookup.
    Of(BlockFormat),
}

impl Module {
    /// Every module.
    #[must_use]
    pub fn all() -> Vec<Self> {
        std::iter::once(Self::Common).chain(BlockFormat::ALL.map(Self::Of)).collect()
    }

    /// Its name: `common`, `q4_1`.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Common => "common".to_owned(),
            Self::Of(format) => format.name().to_ascii_lowercase(),
        }
    }

    /// Its source, complete: the format is part of it.
    #[must_use]
    pub fn source(self) -> String {
        match self {
            Self::Common => COMMON.concat(),
            Self::Of(format) => format!("#define FORMAT_ID {}\n{}", format.id(), OF_FORMAT.concat()),
        }
    }

    /// Its kernels on a card of this compute capability, times ten.
    #[must_use]
    pub fn kernels(self, capability: u32) -> Vec<Kernel> {
        match self {
            Self::Common => {
                COMMON_KERNELS.iter().map(|&(name, takes)| Kernel { name: name.to_owned(), takes }).collect()
            }
            Self::Of(format) => FORMAT_KERNELS
                .iter()
                .filter(|(_, _, rounded)| !rounded || is_quantised(format))
                .filter(|(name, _, _)| *name != "rounded_tensor" || capability >= TENSOR_CAPABILITY)
                .map(|&(name, takes, _)| Kernel { name: format!("{name}_{}", self.name()), takes })
                .collect(),
        }
    }
}

/// Whether a format's weights are integers times a scale, so that they can be multiplied with rounded numbers.
#[must_use]
pub const fn is_quantised(format: BlockFormat) -> bool {
    !matches!(format, BlockFormat::F32 | BlockFormat::F16 | BlockFormat::BF16)
}

/// A kernel and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Its name in the module.
    pub name: String,
    /// One letter an argument: `p` pointer, `u` 32-bit number, `f` single precision, `l` 64-bit number.
    pub takes: &'static str,
}

impl Kernel {
    /// Threads of a block.
    #[must_use]
    pub fn threads(&self) -> u32 {
        if self.name.starts_with("product_8") { TILE_THREADS } else { THREADS }
    }
}

/// Arguments of the kernels of [`Module::Common`], as `element.cu` and `attention.cu` declare them.
const COMMON_KERNELS: &[(&str, &str)] = &[
    ("norm_rows", "ppfup"),
    ("round_numbers", "ppfuppp"),
    ("rotate_heads", "puuppuuu"),
    ("remember", "pppuuuppupuuuppu"),
    ("gate_numbers", "ppl"),
    ("add_numbers", "ppl"),
    ("copy_numbers", "ppl"),
    ("argmax_rows", "pup"),
    ("attend", "puuuppuppufpppp"),
];

/// Arguments of the kernels of [`Module::Of`], as `product.cu` and `integer.cu` declare them; and whether they take
/// rounded numbers, which float formats do not.
const FORMAT_KERNELS: &[(&str, &str, bool)] = &[
    ("lookup", "puupp", false),
    ("product_1", "pppuuupppppfuuu", false),
    ("product_1_few", "pppuuupppppfuuu", false),
    ("product_4", "pppuuupppppfuuu", false),
    ("product_8", "pppuuuppppuuu", false),
    ("gated_1", "ppupppfuu", false),
    ("rounded_1", "pppuuuppppppuuu", true),
    ("rounded_4", "pppuuuppppppuuu", true),
    ("rounded_tensor", "pppuuuppppppuuu", true),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_shared_with_the_source_are_those_of_the_source() {
        let source = COMMON.concat() + &OF_FORMAT.concat();
        for (name, value) in [
            ("THREADS", THREADS),
            ("TILE_THREADS", TILE_THREADS),
            ("SEGMENT", SEGMENT),
            ("QUERIES", QUERIES),
            ("HEAD_SIZE_MAX", HEAD_SIZE_MAX),
            ("CACHE_BLOCK", u32::try_from(crate::backend::CACHE_BLOCK).unwrap()),
        ] {
            assert!(source.contains(&format!("#define {name} {value}\n")), "{name} is not {value} in the source");
        }
        assert!(source.contains("#define TENSOR_TILES 4\n#define TENSOR_TOKENS (8 * TENSOR_TILES)"));
        assert_eq!(TENSOR_ROWS, 8 * 4);
    }
}
