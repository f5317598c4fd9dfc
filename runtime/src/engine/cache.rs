//! The key-value cache of one stage.

use crate::cpu::attention::{CACHE_BLOCK, block_floats};
use crate::cpu::memory::Floats;

/// Keys and values in single precision, `[layer][key-value head]`, each as [`crate::cpu::attention`] wants it.
pub(crate) struct Cache {
    floats: Floats,
    kv_heads: usize,
    head_floats: usize,
}

impl Cache {
    /// A cache of `blocks` blocks for each of `layers` layers.
    ///
    /// # Errors
    /// When the operating system does not give the memory.
    pub(crate) fn new(layers: usize, kv_heads: usize, head_size: usize, blocks: usize) -> std::io::Result<Self> {
        let head_floats = blocks * block_floats(head_size);
        Ok(Self { floats: Floats::zeroed(layers * kv_heads * head_floats)?, kv_heads, head_floats })
    }

    /// Numbers of one key-value head in one layer.
    pub(crate) fn head_floats(&self) -> usize {
        self.head_floats
    }

    /// All heads of a layer, one after another.
    pub(crate) fn layer(&self, layer: usize) -> &[f32] {
        let length = self.kv_heads * self.head_floats;
        &self.floats[layer * length..][..length]
    }

    /// All heads of a layer, to be written.
    pub(crate) fn layer_mut(&mut self, layer: usize) -> &mut [f32] {
        let length = self.kv_heads * self.head_floats;
        &mut self.floats[layer * length..][..length]
    }
}

/// Blocks for `positions` positions.
pub(crate) fn blocks_for(positions: usize) -> usize {
    positions.div_ceil(CACHE_BLOCK)
}
