//! The key-value part of a GGUF file.

use super::error::MetadataError;

/// One metadata value, of the kind the file gives it.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the variants are the value kinds of the format, named after their Rust types")]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    Text(Box<str>),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// A metadata array; all elements are of one kind.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the variants are the element kinds of the format, named after their Rust types")]
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    Bool(Vec<bool>),
    Texts(Strings),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F64(Vec<f64>),
}

/// Many short texts in one allocation: a vocabulary has tens of thousands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Strings {
    text: String,
    /// Where each text ends in `text`.
    ends: Vec<usize>,
}

impl Strings {
    /// An empty list with room for `count` texts.
    pub(super) fn with_capacity(count: usize) -> Self {
        Self { text: String::new(), ends: Vec::with_capacity(count) }
    }

    /// Appends one text.
    pub(super) fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.ends.push(self.text.len());
    }

    /// Number of texts.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Text number `index`, from 0.
    pub fn get(&self, index: usize) -> Option<&str> {
        let end = *self.ends.get(index)?;
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        Some(&self.text[start..end])
    }

    /// All texts in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        (0..self.len()).map(|index| self.get(index).expect("the index is below the length"))
    }
}

impl<'a> FromIterator<&'a str> for Strings {
    fn from_iter<I: IntoIterator<Item = &'a str>>(texts: I) -> Self {
        let mut all = Self::default();
        for text in texts {
            all.push(text);
        }
        all
    }
}

/// All metadata of a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    /// In the order of the file.
    entries: Vec<(Box<str>, Value)>,
    /// Positions in `entries`, ordered by key.
    by_key: Vec<u32>,
}

impl Metadata {
    /// Indexes the entries; a key that stands twice is returned as the error.
    pub(super) fn new(entries: Vec<(Box<str>, Value)>) -> Result<Self, Box<str>> {
        let count = u32::try_from(entries.len()).expect("a header of 2^32 entries is refused before it is read");
        let mut by_key: Vec<u32> = (0..count).collect();
        by_key.sort_unstable_by_key(|&index| &entries[index as usize].0);
        for pair in by_key.windows(2) {
            if entries[pair[0] as usize].0 == entries[pair[1] as usize].0 {
                return Err(entries[pair[0] as usize].0.clone());
            }
        }
        Ok(Self { entries, by_key })
    }

    /// All entries, in the order of the file.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_ref(), value))
    }

    /// The value of a key, of whatever kind.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let place = self.by_key.binary_search_by(|&index| self.entries[index as usize].0.as_ref().cmp(key)).ok()?;
        Some(&self.entries[self.by_key[place] as usize].1)
    }

    /// A text; `None` when the key is absent.
    ///
    /// # Errors
    /// When the value is of another kind.
    pub fn text(&self, key: &str) -> Result<Option<&str>, MetadataError> {
        self.typed(key, "a text", |value| match value {
            Value::Text(text) => Some(text.as_ref()),
            _ => None,
        })
    }

    /// A whole number from 0 up, stored as any integer kind.
    ///
    /// # Errors
    /// When the value is of another kind.
    pub fn count(&self, key: &str) -> Result<Option<u64>, MetadataError> {
        self.typed(key, "a whole number from 0 up", |value| u64::try_from(value.integer()?).ok())
    }

    /// A number, stored as either float kind, finite or not.
    ///
    /// # Errors
    /// When the value is of another kind.
    pub fn real(&self, key: &str) -> Result<Option<f64>, MetadataError> {
        self.typed(key, "a floating-point number", |value| match *value {
            Value::F32(number) => Some(f64::from(number)),
            Value::F64(number) => Some(number),
            _ => None,
        })
    }

    /// A truth value.
    ///
    /// # Errors
    /// When the value is of another kind.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, MetadataError> {
        self.typed(key, "a truth value", |value| match *value {
            Value::Bool(flag) => Some(flag),
            _ => None,
        })
    }

    /// An array of texts.
    ///
    /// # Errors
    /// When the value is of another kind.
    pub fn texts(&self, key: &str) -> Result<Option<&Strings>, MetadataError> {
        self.typed(key, "an array of texts", |value| match value {
            Value::Array(Array::Texts(texts)) => Some(texts),
            _ => None,
        })
    }

    /// An array of whole numbers, stored as any integer kind; numbers past the range of `i64` do not count as such.
    ///
    /// # Errors
    /// When the value is of another kind.
    pub fn integers(&self, key: &str) -> Result<Option<Vec<i64>>, MetadataError> {
        self.typed(key, "an array of whole numbers", |value| match value {
            Value::Array(array) => array.integers(),
            _ => None,
        })
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        wanted: &'static str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, MetadataError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match read(value) {
            Some(typed) => Ok(Some(typed)),
            None => Err(MetadataError::Kind { key: key.into(), wanted, found: value.kind() }),
        }
    }
}

impl Value {
    /// The kind of the value, in words.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Array(array) => array.kind(),
            Self::Text(_) => "a text",
            Self::Bool(_) => "a truth value",
            Self::F32(_) | Self::F64(_) => "a floating-point number",
            _ if self.integer().is_some_and(|number| number < 0) => "a negative number",
            _ => "a whole number",
        }
    }

    /// The value if it is of an integer kind.
    fn integer(&self) -> Option<i128> {
        Some(match *self {
            Self::U8(number) => number.into(),
            Self::I8(number) => number.into(),
            Self::U16(number) => number.into(),
            Self::I16(number) => number.into(),
            Self::U32(number) => number.into(),
            Self::I32(number) => number.into(),
            Self::U64(number) => number.into(),
            Self::I64(number) => number.into(),
            _ => return None,
        })
    }
}

impl Array {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(items) => items.len(),
            Self::I8(items) => items.len(),
            Self::U16(items) => items.len(),
            Self::I16(items) => items.len(),
            Self::U32(items) => items.len(),
            Self::I32(items) => items.len(),
            Self::F32(items) => items.len(),
            Self::Bool(items) => items.len(),
            Self::Texts(items) => items.len(),
            Self::U64(items) => items.len(),
            Self::I64(items) => items.len(),
            Self::F64(items) => items.len(),
        }
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Texts(_) => "an array of texts",
            Self::Bool(_) => "an array of truth values",
            Self::F32(_) | Self::F64(_) => "an array of floating-point numbers",
            _ => "an array of whole numbers",
        }
    }

    fn integers(&self) -> Option<Vec<i64>> {
        fn widen<T: Copy + Into<i64>>(items: &[T]) -> Vec<i64> {
            items.iter().map(|&item| item.into()).collect()
        }
        match self {
            Self::U8(items) => Some(widen(items)),
            Self::I8(items) => Some(widen(items)),
            Self::U16(items) => Some(widen(items)),
            Self::I16(items) => Some(widen(items)),
            Self::U32(items) => Some(widen(items)),
            Self::I32(items) => Some(widen(items)),
            Self::I64(items) => Some(items.clone()),
            Self::U64(items) => items.iter().map(|&item| i64::try_from(item).ok()).collect(),
            _ => None,
        }
    }
}
