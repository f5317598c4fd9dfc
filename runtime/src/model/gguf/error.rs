//! What can be wrong with a GGUF file.

use std::io;
use std::path::PathBuf;

/// Why a GGUF file could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The operating system refused.
    #[error("model file {path:?} cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The path names a folder or a device.
    #[error("{path:?} is not a file; give the path of a .gguf file")]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The content is not sound.
    #[error("model file {path:?} is not usable: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: ParseError,
    },
}

/// What is wrong with the content of a GGUF file.
///
/// Names taken from the file are quoted and shortened before they enter a message.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ParseError {
    /// The first four bytes are not `GGUF`.
    #[error("it begins with {found}, not with \"GGUF\"; give a file in the GGUF format")]
    Magic {
        /// The first bytes, as escaped text.
        found: String,
    },
    /// A version this program cannot read.
    #[error("GGUF version {version} is not supported, only 2 and 3; convert the model again with a current converter")]
    Version {
        /// The version in the file.
        version: u32,
    },
    /// Written for a big-endian machine.
    #[error("it is in big-endian byte order; download the little-endian file of this model")]
    BigEndian,
    /// The header ends early.
    #[error("file is truncated: {what} needs bytes {start}..{end}, the file has {size}; download it again")]
    Truncated {
        /// What was being read.
        what: String,
        /// First byte needed.
        start: u64,
        /// Byte after the last one needed.
        end: u64,
        /// Bytes in the file.
        size: u64,
    },
    /// A count or length which the rest of the file cannot hold.
    #[error(
        "{what} is given as {count}, but the {remaining} bytes that remain hold at most {limit}; the file is damaged, \
         download it again"
    )]
    Count {
        /// What is counted.
        what: String,
        /// The count in the file.
        count: u64,
        /// The most that can be there.
        limit: u64,
        /// Bytes after this point.
        remaining: u64,
    },
    /// Text that is not UTF-8.
    #[error("{what} is not valid UTF-8 at byte {at} of the file; the file is damaged, download it again")]
    Text {
        /// Which text.
        what: String,
        /// Where it begins in the file.
        at: u64,
    },
    /// A name longer than the format allows.
    #[error("{what} is {length} bytes long, the format allows {limit}; the file is damaged, download it again")]
    NameLength {
        /// Which name.
        what: String,
        /// Its length.
        length: u64,
        /// The longest allowed.
        limit: u64,
    },
    /// A metadata value of a kind that does not exist.
    #[error("metadata {key} has value kind {kind}, known are 0 to 12; the file is damaged or newer than this program")]
    ValueKind {
        /// The key.
        key: String,
        /// The kind in the file.
        kind: u32,
    },
    /// An array of arrays.
    #[error("metadata {key} is an array of arrays, which is not supported; convert the model again")]
    NestedArray {
        /// The key.
        key: String,
    },
    /// A truth value that is neither 0 nor 1.
    #[error(
        "metadata {key} holds the truth value {value}, allowed are 0 and 1; the file is damaged, download it again"
    )]
    Flag {
        /// The key.
        key: String,
        /// The byte in the file.
        value: u8,
    },
    /// A key that stands twice.
    #[error("metadata {key} is given twice; convert the model again")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// An alignment that is no power of two from 8 up.
    #[error("general.alignment is {found}, allowed is a 32-bit power of two from 8 up; convert the model again")]
    Alignment {
        /// The value in the file.
        found: String,
    },
    /// A tensor with no dimension or more than four.
    #[error("tensor {tensor} has {count} dimensions, allowed are 1 to 4; the file is damaged, download it again")]
    Dimensions {
        /// The tensor.
        tensor: String,
        /// Its number of dimensions.
        count: u32,
    },
    /// A dimension of length zero, or a product past 64 bits.
    #[error(
        "tensor {tensor} has the dimensions {dims:?}, whose product is not a 64-bit number from 1 up; convert again"
    )]
    Size {
        /// The tensor.
        tensor: String,
        /// Its dimensions, innermost first.
        dims: Vec<u64>,
    },
    /// A block format this program cannot read.
    #[error(
        "tensor {tensor} is stored as type {id}, which this program cannot read; it reads F32, F16, BF16, Q8_0, Q4_0, \
         Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K: choose a file with one of them"
    )]
    UnknownFormat {
        /// The tensor.
        tensor: String,
        /// The type id in the file.
        id: u32,
    },
    /// A row that is no whole number of blocks.
    #[error(
        "tensor {tensor} has rows of {values} values, {format} needs a multiple of {block}; convert the model again"
    )]
    RowLength {
        /// The tensor.
        tensor: String,
        /// Values in a row.
        values: u64,
        /// The name of its block format.
        format: &'static str,
        /// Values in a block.
        block: u64,
    },
    /// A tensor that does not begin at a multiple of the alignment.
    #[error("tensor {tensor} begins at offset {offset}, which is no multiple of {alignment}; convert the model again")]
    Unaligned {
        /// The tensor.
        tensor: String,
        /// Its offset in the data section.
        offset: u64,
        /// The file's alignment.
        alignment: u64,
    },
    /// Two tensors that share bytes.
    #[error(
        "tensor {second} begins at byte {start}, inside tensor {first}, which ends at {end}; the file is damaged, \
         download it again"
    )]
    Overlap {
        /// The tensor that comes first.
        first: String,
        /// The tensor that begins inside it.
        second: String,
        /// Where the second begins in the file.
        start: u64,
        /// Where the first ends in the file.
        end: u64,
    },
    /// A tensor name that stands twice.
    #[error("tensor {tensor} is given twice; convert the model again")]
    DuplicateTensor {
        /// The name.
        tensor: String,
    },
}

/// Why a metadata entry cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// A value of another kind than asked for.
    #[error("metadata {key:?} is {found}, not {wanted}; convert the model again")]
    Kind {
        /// The key.
        key: String,
        /// The kind wanted, in words.
        wanted: &'static str,
        /// The kind found, in words.
        found: &'static str,
    },
    /// No such entry.
    #[error("metadata {key:?} is missing; the file is incomplete, convert the model again")]
    Missing {
        /// The key.
        key: String,
    },
}

/// A name from the file as it may stand in a message: quoted, escaped, at most 64 characters of it.
pub(super) fn quoted(name: &str) -> String {
    let mut start: String = name.chars().take(64).collect();
    if start.len() < name.len() {
        start.push('…');
    }
    format!("{start:?}")
}
