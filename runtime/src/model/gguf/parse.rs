//! Reading the header of a GGUF file.

use super::error::{ParseError, quoted};
use super::metadata::{Array, Metadata, Strings, Value};
use super::{Descriptor, Header};
use crate::model::format::BlockFormat;

/// The longest key or tensor name the format allows.
const NAME_BYTES_MAX: u64 = 65_535;
/// Key length, value kind and the smallest value.
const ENTRY_BYTES_MIN: u64 = 8 + 4 + 1;
/// Name length, number of dimensions, one dimension, type and offset.
const DESCRIPTOR_BYTES_MIN: u64 = 8 + 4 + 8 + 4 + 8;
const DEFAULT_ALIGNMENT: u32 = 32;

/// Reads and checks everything before the weights, and where the weights lie.
pub(super) fn header(bytes: &[u8]) -> Result<Header, ParseError> {
    let mut reader = Reader { bytes, at: 0 };
    let magic = &bytes[..bytes.len().min(4)];
    if magic != b"GGUF" {
        return Err(ParseError::Magic { found: format!("\"{}\"", magic.escape_ascii()) });
    }
    reader.at = 4;
    let version = reader.u32(&|| "the version".into())?;
    if !(2..=3).contains(&version) {
        return Err(if (1..=3).contains(&version.swap_bytes()) {
            ParseError::BigEndian
        } else {
            ParseError::Version { version }
        });
    }
    let tensor_count = reader.u64(&|| "the number of tensors".into())?;
    let entry_count = reader.u64(&|| "the number of metadata entries".into())?;
    let metadata = read_metadata(&mut reader, entry_count)?;
    let alignment = alignment(&metadata)?;

    let count = reader.bounded(tensor_count, DESCRIPTOR_BYTES_MIN, &|| "the number of tensors".into())?;
    let mut tensors = Vec::with_capacity(count);
    for index in 0..count {
        tensors.push(read_descriptor(&mut reader, index)?);
    }
    let data_offset = (reader.at as u64).next_multiple_of(alignment);
    let by_name = index_by_name(&tensors)?;
    place(&mut tensors, data_offset, alignment, bytes.len() as u64)?;
    Ok(Header { version, alignment, data_offset, metadata, tensors, by_name })
}

fn read_metadata(reader: &mut Reader<'_>, count: u64) -> Result<Metadata, ParseError> {
    let count = reader.bounded(count, ENTRY_BYTES_MIN, &|| "the number of metadata entries".into())?;
    let mut entries = Vec::with_capacity(count);
    for index in 0..count {
        let key = reader.name(&|| format!("the key of metadata entry {index}"))?;
        let value = read_value(reader, key)?;
        entries.push((key.into(), value));
    }
    Metadata::new(entries).map_err(|key| ParseError::DuplicateKey { key: quoted(&key) })
}

fn read_value(reader: &mut Reader<'_>, key: &str) -> Result<Value, ParseError> {
    let what = || format!("metadata {}", quoted(key));
    Ok(match reader.u32(&what)? {
        0 => Value::U8(u8::from_le_bytes(reader.array(&what)?)),
        1 => Value::I8(i8::from_le_bytes(reader.array(&what)?)),
        2 => Value::U16(u16::from_le_bytes(reader.array(&what)?)),
        3 => Value::I16(i16::from_le_bytes(reader.array(&what)?)),
        4 => Value::U32(u32::from_le_bytes(reader.array(&what)?)),
        5 => Value::I32(i32::from_le_bytes(reader.array(&what)?)),
        6 => Value::F32(f32::from_le_bytes(reader.array(&what)?)),
        7 => Value::Bool(flag(reader.array::<1>(&what)?[0], key)?),
        8 => Value::Text(reader.text(&what)?.into()),
        9 => Value::Array(read_array(reader, key)?),
        10 => Value::U64(u64::from_le_bytes(reader.array(&what)?)),
        11 => Value::I64(i64::from_le_bytes(reader.array(&what)?)),
        12 => Value::F64(f64::from_le_bytes(reader.array(&what)?)),
        kind => {
            return Err(ParseError::ValueKind { key: quoted(key), kind });
        }
    })
}

fn read_array(reader: &mut Reader<'_>, key: &str) -> Result<Array, ParseError> {
    let what = || format!("metadata {}", quoted(key));
    let kind = reader.u32(&what)?;
    let count = reader.u64(&what)?;
    Ok(match kind {
        0 => Array::U8(reader.numbers(count, &what, u8::from_le_bytes)?),
        1 => Array::I8(reader.numbers(count, &what, i8::from_le_bytes)?),
        2 => Array::U16(reader.numbers(count, &what, u16::from_le_bytes)?),
        3 => Array::I16(reader.numbers(count, &what, i16::from_le_bytes)?),
        4 => Array::U32(reader.numbers(count, &what, u32::from_le_bytes)?),
        5 => Array::I32(reader.numbers(count, &what, i32::from_le_bytes)?),
        6 => Array::F32(reader.numbers(count, &what, f32::from_le_bytes)?),
        7 => {
            let raw = reader.numbers(count, &what, u8::from_le_bytes)?;
            Array::Bool(raw.into_iter().map(|byte| flag(byte, key)).collect::<Result<_, _>>()?)
        }
        8 => {
            let count = reader.bounded(count, 8, &|| format!("the number of elements of {}", what()))?;
            let mut texts = Strings::with_capacity(count);
            for _ in 0..count {
                texts.push(reader.text(&what)?);
            }
            Array::Texts(texts)
        }
        9 => return Err(ParseError::NestedArray { key: quoted(key) }),
        10 => Array::U64(reader.numbers(count, &what, u64::from_le_bytes)?),
        11 => Array::I64(reader.numbers(count, &what, i64::from_le_bytes)?),
        12 => Array::F64(reader.numbers(count, &what, f64::from_le_bytes)?),
        kind => {
            return Err(ParseError::ValueKind { key: quoted(key), kind });
        }
    })
}

fn flag(byte: u8, key: &str) -> Result<bool, ParseError> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        value => Err(ParseError::Flag { key: quoted(key), value }),
    }
}

fn alignment(metadata: &Metadata) -> Result<u64, ParseError> {
    match metadata.get("general.alignment") {
        None => Ok(DEFAULT_ALIGNMENT.into()),
        Some(&Value::U32(value)) if value >= 8 && value.is_power_of_two() => Ok(value.into()),
        Some(Value::U32(value)) => Err(ParseError::Alignment { found: value.to_string() }),
        Some(other) => Err(ParseError::Alignment { found: other.kind().into() }),
    }
}

/// Reads one descriptor; its `start` is still the offset inside the data section.
fn read_descriptor(reader: &mut Reader<'_>, index: usize) -> Result<Descriptor, ParseError> {
    let name = reader.name(&|| format!("the name of tensor {index}"))?;
    let what = || format!("the descriptor of tensor {}", quoted(name));
    let count = reader.u32(&what)?;
    if !(1..=4).contains(&count) {
        return Err(ParseError::Dimensions { tensor: quoted(name), count });
    }
    let dims = (0..count).map(|_| reader.u64(&what)).collect::<Result<Box<[u64]>, _>>()?;
    let id = reader.u32(&what)?;
    let start = reader.u64(&what)?;

    let format = BlockFormat::from_id(id).ok_or_else(|| ParseError::UnknownFormat { tensor: quoted(name), id })?;
    let size = || ParseError::Size { tensor: quoted(name), dims: dims.to_vec() };
    let values = dims.iter().try_fold(1_u64, |product, &dim| product.checked_mul(dim)).ok_or_else(size)?;
    if values == 0 {
        return Err(size());
    }
    let block = format.values_per_block() as u64;
    if !dims[0].is_multiple_of(block) {
        return Err(ParseError::RowLength { tensor: quoted(name), values: dims[0], format: format.name(), block });
    }
    let bytes = format.row_bytes(values).ok_or_else(size)?;
    Ok(Descriptor { name: name.into(), dims, format, start, bytes })
}

/// Positions of the tensors in the order of their names, which must differ.
fn index_by_name(tensors: &[Descriptor]) -> Result<Vec<u32>, ParseError> {
    let count = u32::try_from(tensors.len()).map_err(|_| ParseError::Count {
        what: "the number of tensors".into(),
        count: tensors.len() as u64,
        limit: u32::MAX.into(),
        remaining: 0,
    })?;
    let mut by_name: Vec<u32> = (0..count).collect();
    by_name.sort_unstable_by_key(|&index| &tensors[index as usize].name);
    match by_name.windows(2).find(|pair| tensors[pair[0] as usize].name == tensors[pair[1] as usize].name) {
        Some(pair) => Err(ParseError::DuplicateTensor { tensor: quoted(&tensors[pair[0] as usize].name) }),
        None => Ok(by_name),
    }
}

/// Turns offsets in the data section into offsets in the file, and checks that every tensor is aligned, inside the file
/// and alone.
fn place(tensors: &mut [Descriptor], data_offset: u64, alignment: u64, size: u64) -> Result<(), ParseError> {
    for tensor in tensors.iter_mut() {
        if !tensor.start.is_multiple_of(alignment) {
            let (tensor, offset) = (quoted(&tensor.name), tensor.start);
            return Err(ParseError::Unaligned { tensor, offset, alignment });
        }
        let start = data_offset.saturating_add(tensor.start);
        let end = start.saturating_add(tensor.bytes);
        if end > size {
            return Err(ParseError::Truncated { what: format!("tensor {}", quoted(&tensor.name)), start, end, size });
        }
        tensor.start = start;
    }
    let mut by_start: Vec<&Descriptor> = tensors.iter().collect();
    by_start.sort_unstable_by_key(|tensor| tensor.start);
    for pair in by_start.windows(2) {
        let end = pair[0].start + pair[0].bytes;
        if pair[1].start < end {
            let (first, second) = (quoted(&pair[0].name), quoted(&pair[1].name));
            return Err(ParseError::Overlap { first, second, start: pair[1].start, end });
        }
    }
    Ok(())
}

/// A place in the file. The closures name what is being read, and are called only when it cannot be.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn remaining(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    fn take(&mut self, count: u64, what: &dyn Fn() -> String) -> Result<&'a [u8], ParseError> {
        if count > self.remaining() {
            let start = self.at as u64;
            let (end, size) = (start.saturating_add(count), self.bytes.len() as u64);
            return Err(ParseError::Truncated { what: what(), start, end, size });
        }
        let taken = &self.bytes[self.at..][..count as usize];
        self.at += taken.len();
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &dyn Fn() -> String) -> Result<[u8; N], ParseError> {
        Ok(self.take(N as u64, what)?.try_into().expect("take returns as many bytes as asked for"))
    }

    fn u32(&mut self, what: &dyn Fn() -> String) -> Result<u32, ParseError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn u64(&mut self, what: &dyn Fn() -> String) -> Result<u64, ParseError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A count as `usize`, if that many things of `each` bytes can follow.
    fn bounded(&self, count: u64, each: u64, what: &dyn Fn() -> String) -> Result<usize, ParseError> {
        let (remaining, limit) = (self.remaining(), self.remaining() / each);
        if count > limit {
            return Err(ParseError::Count { what: what(), count, limit, remaining });
        }
        Ok(count as usize)
    }

    fn numbers<const N: usize, T>(
        &mut self,
        count: u64,
        what: &dyn Fn() -> String,
        read: impl Fn([u8; N]) -> T,
    ) -> Result<Vec<T>, ParseError> {
        let count = self.bounded(count, N as u64, &|| format!("the number of elements of {}", what()))?;
        let raw = self.take((count * N) as u64, what)?;
        Ok(raw.chunks_exact(N).map(|item| read(item.try_into().expect("chunks have N bytes"))).collect())
    }

    fn text(&mut self, what: &dyn Fn() -> String) -> Result<&'a str, ParseError> {
        let length = self.u64(what)?;
        let at = self.at as u64;
        let raw = self.take(length, what)?;
        std::str::from_utf8(raw).map_err(|_| ParseError::Text { what: what(), at })
    }

    /// A key or tensor name.
    fn name(&mut self, what: &dyn Fn() -> String) -> Result<&'a str, ParseError> {
        let text = self.text(what)?;
        let length = text.len() as u64;
        if length > NAME_BYTES_MAX {
            return Err(ParseError::NameLength { what: what(), length, limit: NAME_BYTES_MAX });
        }
        Ok(text)
    }
}
