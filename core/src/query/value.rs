//! Values, columns and tables that queries see.

use std::cmp::Ordering;

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Unknown.
    Null,
    /// A truth value.
    Truth(bool),
    /// A finite number.
    Number(f64),
    /// A text.
    Text(String),
}

impl Value {
    /// A number; one that is not finite is unknown.
    pub(crate) fn number(value: f64) -> Self {
        if value.is_finite() { Self::Number(value) } else { Self::Null }
    }

    /// Whether it is unknown.
    #[must_use]
    pub const fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    pub(crate) fn as_number(&self) -> Option<f64> {
        if let Self::Number(number) = self { Some(*number) } else { None }
    }

    pub(crate) fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    pub(crate) fn as_truth(&self) -> Option<bool> {
        if let Self::Truth(truth) = self { Some(*truth) } else { None }
    }

    /// A total order: truth values, numbers, texts, and unknown last.
    pub(crate) fn order(&self, other: &Self) -> Ordering {
        let kind = |value: &Self| match value {
            Self::Truth(_) => 0,
            Self::Number(_) => 1,
            Self::Text(_) => 2,
            Self::Null => 3,
        };
        match (self, other) {
            (Self::Truth(a), Self::Truth(b)) => a.cmp(b),
            (Self::Number(a), Self::Number(b)) => a.total_cmp(b),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            _ => kind(self).cmp(&kind(other)),
        }
    }
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    /// Only unknown values.
    Any,
    Truth,
    Number,
    Text,
}

impl Type {
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::Any => "unknown",
            Self::Truth => "a condition",
            Self::Number => "a number",
            Self::Text => "a text",
        }
    }
}

/// The values of one column.
#[derive(Debug, Clone, PartialEq)]
pub enum Column {
    /// Truth values.
    Truths(Vec<Option<bool>>),
    /// Numbers; counts are exact up to 2^53.
    Numbers(Vec<Option<f64>>),
    /// Texts.
    Texts(Vec<Option<String>>),
}

impl Column {
    /// Number of values.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self {
            Self::Truths(values) => values.len(),
            Self::Numbers(values) => values.len(),
            Self::Texts(values) => values.len(),
        }
    }

    /// Whether there is no value.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of a row; unknown past the last.
    #[must_use]
    pub fn value(&self, row: usize) -> Value {
        match self {
            Self::Truths(values) => values.get(row).copied().flatten().map_or(Value::Null, Value::Truth),
            Self::Numbers(values) => values.get(row).copied().flatten().map_or(Value::Null, Value::number),
            Self::Texts(values) => values.get(row).cloned().flatten().map_or(Value::Null, Value::Text),
        }
    }

    pub(crate) const fn kind(&self) -> Type {
        match self {
            Self::Truths(_) => Type::Truth,
            Self::Numbers(_) => Type::Number,
            Self::Texts(_) => Type::Text,
        }
    }

    /// A column of these values, which are of one type or unknown.
    pub(crate) fn of(values: Vec<Value>, kind: Type) -> Self {
        match kind {
            Type::Truth => Self::Truths(values.iter().map(Value::as_truth).collect()),
            Type::Number => Self::Numbers(values.iter().map(Value::as_number).collect()),
            Type::Text | Type::Any => {
                let text = |value| if let Value::Text(text) = value { Some(text) } else { None };
                Self::Texts(values.into_iter().map(text).collect())
            }
        }
    }
}

/// Named columns of one length.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Table {
    columns: Vec<(String, Column)>,
    rows: usize,
}

impl Table {
    /// A table; none where the columns differ in length or share a name.
    #[must_use]
    pub fn new(columns: Vec<(String, Column)>) -> Option<Self> {
        let rows = columns.first().map_or(0, |(_, column)| column.len());
        let equal = columns.iter().all(|(_, column)| column.len() == rows);
        let mut names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        let distinct = names.windows(2).all(|pair| pair[0] != pair[1]);
        (equal && distinct).then_some(Self { columns, rows })
    }

    /// The columns, in order.
    #[must_use]
    pub fn columns(&self) -> &[(String, Column)] {
        &self.columns
    }

    /// Number of rows.
    #[must_use]
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// A column by its name.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|(known, _)| known == name).map(|(_, column)| column)
    }
}
