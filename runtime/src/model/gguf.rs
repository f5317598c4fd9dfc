//! GGUF files: weights and metadata, mapped into memory and checked once.
//!
//! The layout is that of ggml's `docs/gguf.md`, versions 2 and 3, little-endian. Opening a file reads its header only:
//! weights stay in the page cache until somebody touches them. Nothing in a file is trusted. Every count and length is
//! compared with the bytes that remain before anything is allocated, so a hostile file costs a small multiple of its
//! own size and an error message.

mod error;
mod metadata;
mod parse;
mod write;

#[cfg(not(target_family = "wasm"))]
use std::fs::File;
#[cfg(not(target_family = "wasm"))]
use std::path::Path;
use std::sync::Arc;

#[cfg(not(target_family = "wasm"))]
use memmap2::Mmap;

pub use self::error::{GgufError, MetadataError, ParseError};
pub use self::metadata::{Array, Metadata, Strings, Value};
pub use self::write::{NewTensor, write};
use super::format::BlockFormat;

/// An opened GGUF file. Cloning shares the mapping.
#[derive(Clone)]
pub struct Gguf(Arc<Opened>);

struct Opened {
    bytes: Backing,
    header: Header,
}

/// Where the bytes of a file live.
enum Backing {
    #[cfg(not(target_family = "wasm"))]
    Mapped(Mmap),
    Owned(Vec<u8>),
}

/// Everything a file says before its weights.
struct Header {
    version: u32,
    alignment: u64,
    data_offset: u64,
    metadata: Metadata,
    tensors: Vec<Descriptor>,
    /// Positions in `tensors`, ordered by name.
    by_name: Vec<u32>,
}

/// One tensor's place in the file; `start..start + bytes` is checked to lie inside it.
struct Descriptor {
    name: Box<str>,
    dims: Box<[u64]>,
    format: BlockFormat,
    start: u64,
    bytes: u64,
}

/// One tensor of a file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tensor<'a> {
    /// Its name, as in `"blk.0.attn_q.weight"`.
    pub name: &'a str,
    /// Its dimensions, innermost first: a weight `[input, output]` is `output` rows of `input` contiguous values.
    pub dims: &'a [u64],
    /// How its rows are packed.
    pub format: BlockFormat,
    /// Its rows, one after another. The address has no promised alignment.
    pub bytes: &'a [u8],
    /// Where its bytes begin in the file.
    pub offset: u64,
}

impl<'a> Tensor<'a> {
    /// Values in one row: the innermost dimension.
    pub fn row_values(&self) -> u64 {
        self.dims[0]
    }

    /// Number of rows: the product of all other dimensions.
    pub fn rows(&self) -> u64 {
        self.dims[1..].iter().product()
    }

    /// Number of values in the tensor.
    pub fn values(&self) -> u64 {
        self.dims.iter().product()
    }

    /// The bytes of row `index`, or `None` past the last row.
    pub fn row(&self, index: u64) -> Option<&'a [u8]> {
        let length = self.bytes.len() / usize::try_from(self.rows()).ok()?;
        let start = usize::try_from(index).ok()?.checked_mul(length)?;
        self.bytes.get(start..start.checked_add(length)?)
    }

    /// The whole tensor in single precision, rows one after another.
    pub fn dequantise(&self) -> Vec<f32> {
        let mut values = vec![0.0; usize::try_from(self.values()).expect("a tensor that is mapped fits in memory")];
        self.format.dequantise_row(self.bytes, &mut values);
        values
    }
}

impl Gguf {
    /// Maps a file and checks its header. Not on WebAssembly, which has no files: see [`from_bytes`](Self::from_bytes).
    ///
    /// # Errors
    /// When the file cannot be read, or its content is not a sound GGUF file; the message names what is wrong, where
    /// and what to do.
    #[cfg(not(target_family = "wasm"))]
    pub fn open(path: &Path) -> Result<Self, GgufError> {
        let read = |source| GgufError::Read { path: path.into(), source };
        let file = File::open(path).map_err(read)?;
        if !file.metadata().map_err(read)?.is_file() {
            return Err(GgufError::NotAFile { path: path.into() });
        }
        // SAFETY: the mapping is private and read-only, and lives as long as every slice taken from it. What no program
        // can rule out is another process changing the file meanwhile: text is copied out while parsing, so no `&str`
        // depends on the mapping, and weights are plain bytes of which every pattern is valid. A file cut short under
        // us ends the process with SIGBUS; the store therefore replaces files by renaming and never writes in place.
        let map = unsafe { Mmap::map(&file) }.map_err(read)?;
        Self::from_backing(Backing::Mapped(map)).map_err(|source| GgufError::Parse { path: path.into(), source })
    }

    /// Checks a file that is already in memory.
    ///
    /// # Errors
    /// When the content is not a sound GGUF file.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, ParseError> {
        Self::from_backing(Backing::Owned(bytes))
    }

    fn from_backing(bytes: Backing) -> Result<Self, ParseError> {
        let header = parse::header(bytes.as_slice())?;
        Ok(Self(Arc::new(Opened { bytes, header })))
    }

    /// The version of the container, 2 or 3.
    pub fn version(&self) -> u32 {
        self.0.header.version
    }

    /// Tensors begin at multiples of this many bytes after [`data_offset`](Self::data_offset).
    pub fn alignment(&self) -> u64 {
        self.0.header.alignment
    }

    /// Where the weights begin in the file.
    pub fn data_offset(&self) -> u64 {
        self.0.header.data_offset
    }

    /// The size of the whole file, in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.0.bytes.as_slice().len() as u64
    }

    /// The whole file as it is mapped, for digests.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.bytes.as_slice()
    }

    /// Lets the system take back the memory in which it shows `bytes`, a part of the file, or all of it. What is read
    /// there afterwards comes from the file again.
    pub(crate) fn release(&self, bytes: &[u8]) {
        #[cfg(unix)]
        if let Backing::Mapped(map) = &self.0.bytes {
            let offset = (bytes.as_ptr() as usize).wrapping_sub(map.as_ptr() as usize);
            if offset.checked_add(bytes.len()).is_some_and(|end| end <= map.len()) {
                // SAFETY: the mapping is of a file, read-only and never written through: pages that are dropped come back
                // with the file's bytes. Where the system refuses, memory stays as it was.
                let _ = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, offset, bytes.len()) };
            }
        }
    }

    /// What the file says about itself.
    pub fn metadata(&self) -> &Metadata {
        &self.0.header.metadata
    }

    /// The tensor of that name.
    pub fn tensor(&self, name: &str) -> Option<Tensor<'_>> {
        let header = &self.0.header;
        let place =
            header.by_name.binary_search_by(|&index| header.tensors[index as usize].name.as_ref().cmp(name)).ok()?;
        Some(self.view(&header.tensors[header.by_name[place] as usize]))
    }

    /// All tensors, in the order of the file's descriptors.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = Tensor<'_>> {
        self.0.header.tensors.iter().map(|descriptor| self.view(descriptor))
    }

    fn view<'a>(&'a self, descriptor: &'a Descriptor) -> Tensor<'a> {
        // Parsing checked that the range lies inside the file, whose length fits in `usize` because it is mapped.
        let start = descriptor.start as usize;
        Tensor {
            name: &descriptor.name,
            dims: &descriptor.dims,
            format: descriptor.format,
            bytes: &self.0.bytes.as_slice()[start..start + descriptor.bytes as usize],
            offset: descriptor.start,
        }
    }
}

impl Backing {
    fn as_slice(&self) -> &[u8] {
        match self {
            #[cfg(not(target_family = "wasm"))]
            Self::Mapped(map) => map,
            Self::Owned(bytes) => bytes,
        }
    }
}

impl std::fmt::Debug for Gguf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gguf")
            .field("file_bytes", &self.file_bytes())
            .field("tensors", &self.0.header.tensors.len())
            .finish_non_exhaustive()
    }
}
