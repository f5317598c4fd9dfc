//! Large buffers straight from the operating system.

use memmap2::MmapMut;

/// Zeroed bytes, page-aligned, on large pages where the system has them.
///
/// # Errors
/// When the system does not give that much memory.
pub(crate) fn zeroed(bytes: usize) -> std::io::Result<MmapMut> {
    let memory = MmapMut::map_anon(bytes.max(1))?;
    // Refusing large pages costs speed only.
    #[cfg(target_os = "linux")]
    let _ = memory.advise(memmap2::Advice::HugePage);
    Ok(memory)
}

/// A fixed number of single-precision numbers, zero at first.
pub(crate) struct Floats {
    memory: MmapMut,
    length: usize,
}

impl Floats {
    /// Room for `length` numbers, every page of it touched, so that the memory is really there.
    ///
    /// # Errors
    /// When the system does not give that much memory.
    pub(crate) fn zeroed(length: usize) -> std::io::Result<Self> {
        let mut memory = zeroed(length * size_of::<f32>())?;
        for page in memory.chunks_mut(4096) {
            page[0] = 0;
        }
        Ok(Self { memory, length })
    }
}

impl std::ops::Deref for Floats {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: the mapping is page-aligned, holds `length` numbers, is initialised (zeroed by the system), and every
        // bit pattern is a number.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().cast(), self.length) }
    }
}

impl std::ops::DerefMut for Floats {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_mut_ptr().cast(), self.length) }
    }
}
