//! Writing GGUF files, version 3, alignment 32.

use std::io::{self, Write};

use super::metadata::{Array, Value};
use crate::model::format::BlockFormat;

const ALIGNMENT: u64 = 32;

/// A tensor to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTensor {
    /// Its name.
    pub name: String,
    /// Its dimensions, innermost first.
    pub dims: Vec<u64>,
    /// How its rows are packed; the innermost dimension must be a whole number of blocks.
    pub format: BlockFormat,
}

impl NewTensor {
    /// Bytes of all rows; `None` when a row is no whole number of blocks or the product passes 64 bits.
    pub fn bytes(&self) -> Option<u64> {
        let rows = self.dims.get(1..)?.iter().try_fold(1_u64, |product, &dim| product.checked_mul(dim))?;
        self.format.row_bytes(self.dims[0])?.checked_mul(rows)
    }
}

/// Writes a file front to back: header, then each tensor's bytes as `fill(index, out)` writes them.
///
/// # Errors
/// When `out` fails, or `fill` does or writes another number of bytes than the tensor has (`InvalidData`).
///
/// # Panics
/// When a tensor's rows are no whole number of blocks; callers check [`NewTensor::bytes`].
pub fn write<'a>(
    out: &mut dyn Write,
    metadata: &[(&str, Value)],
    tensors: &[NewTensor],
    fill: &mut (dyn FnMut(usize, &mut dyn Write) -> io::Result<()> + 'a),
) -> io::Result<()> {
    let mut out = Counted { out, written: 0 };
    out.write_all(b"GGUF")?;
    out.write_all(&3_u32.to_le_bytes())?;
    out.write_all(&(tensors.len() as u64).to_le_bytes())?;
    out.write_all(&(metadata.len() as u64).to_le_bytes())?;
    for (key, value) in metadata {
        put_text(&mut out, key)?;
        put_value(&mut out, value)?;
    }
    let mut offset: u64 = 0;
    for tensor in tensors {
        put_text(&mut out, &tensor.name)?;
        out.write_all(&(tensor.dims.len() as u32).to_le_bytes())?;
        for dim in &tensor.dims {
            out.write_all(&dim.to_le_bytes())?;
        }
        out.write_all(&tensor.format.id().to_le_bytes())?;
        out.write_all(&offset.to_le_bytes())?;
        offset += size_of(tensor).next_multiple_of(ALIGNMENT);
    }
    out.pad()?;
    for (index, tensor) in tensors.iter().enumerate() {
        let start = out.written;
        fill(index, &mut out)?;
        if out.written - start != size_of(tensor) {
            let text = format!("tensor {} got {} bytes of {}", tensor.name, out.written - start, size_of(tensor));
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        out.pad()?;
    }
    out.flush()
}

fn size_of(tensor: &NewTensor) -> u64 {
    tensor.bytes().expect("the caller checked that rows are whole blocks")
}

/// A writer that knows where it is.
struct Counted<'a> {
    out: &'a mut dyn Write,
    written: u64,
}

impl Counted<'_> {
    fn pad(&mut self) -> io::Result<()> {
        let gap = self.written.next_multiple_of(ALIGNMENT) - self.written;
        self.write_all(&[0; ALIGNMENT as usize][..gap as usize])
    }
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn put_text(out: &mut dyn Write, text: &str) -> io::Result<()> {
    out.write_all(&(text.len() as u64).to_le_bytes())?;
    out.write_all(text.as_bytes())
}

fn put_value(out: &mut dyn Write, value: &Value) -> io::Result<()> {
    let mut put = |kind: u32, bytes: &[u8]| {
        out.write_all(&kind.to_le_bytes())?;
        out.write_all(bytes)
    };
    match value {
        Value::U8(number) => put(0, &number.to_le_bytes()),
        Value::I8(number) => put(1, &number.to_le_bytes()),
        Value::U16(number) => put(2, &number.to_le_bytes()),
        Value::I16(number) => put(3, &number.to_le_bytes()),
        Value::U32(number) => put(4, &number.to_le_bytes()),
        Value::I32(number) => put(5, &number.to_le_bytes()),
        Value::F32(number) => put(6, &number.to_le_bytes()),
        Value::Bool(flag) => put(7, &[u8::from(*flag)]),
        Value::Text(text) => {
            put(8, &[])?;
            put_text(out, text)
        }
        Value::Array(array) => {
            put(9, &[])?;
            put_array(out, array)
        }
        Value::U64(number) => put(10, &number.to_le_bytes()),
        Value::I64(number) => put(11, &number.to_le_bytes()),
        Value::F64(number) => put(12, &number.to_le_bytes()),
    }
}

fn put_array(out: &mut dyn Write, array: &Array) -> io::Result<()> {
    fn put<T: Copy, const N: usize>(
        out: &mut dyn Write,
        kind: u32,
        items: &[T],
        bytes: impl Fn(T) -> [u8; N],
    ) -> io::Result<()> {
        out.write_all(&kind.to_le_bytes())?;
        out.write_all(&(items.len() as u64).to_le_bytes())?;
        items.iter().try_for_each(|&item| out.write_all(&bytes(item)))
    }
    match array {
        Array::U8(items) => put(out, 0, items, u8::to_le_bytes),
        Array::I8(items) => put(out, 1, items, i8::to_le_bytes),
        Array::U16(items) => put(out, 2, items, u16::to_le_bytes),
        Array::I16(items) => put(out, 3, items, i16::to_le_bytes),
        Array::U32(items) => put(out, 4, items, u32::to_le_bytes),
        Array::I32(items) => put(out, 5, items, i32::to_le_bytes),
        Array::F32(items) => put(out, 6, items, f32::to_le_bytes),
        Array::Bool(items) => put(out, 7, items, |flag| [u8::from(flag)]),
        Array::Texts(texts) => {
            out.write_all(&8_u32.to_le_bytes())?;
            out.write_all(&(texts.len() as u64).to_le_bytes())?;
            texts.iter().try_for_each(|text| put_text(out, text))
        }
        Array::U64(items) => put(out, 10, items, u64::to_le_bytes),
        Array::I64(items) => put(out, 11, items, i64::to_le_bytes),
        Array::F64(items) => put(out, 12, items, f64::to_le_bytes),
    }
}
