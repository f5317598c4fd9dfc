//! A figure about a device or link, with how it came to be known. What is unknown is absent (`Option`), never zero.

use serde::{Deserialize, Serialize};

/// How a figure is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// Measured on the very device or link.
    Measured,
    /// Stated by a driver, a data sheet or the user.
    Declared,
    /// Computed by a model (a roofline) because nothing was measured.
    Estimated,
}

impl How {
    /// The weaker of two: a sum is as well known as its worst part.
    #[must_use]
    pub fn weaker(self, other: Self) -> Self {
        self.max(other)
    }
}

impl std::fmt::Display for How {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Measured => "measured",
            Self::Declared => "declared",
            Self::Estimated => "estimated",
        })
    }
}

/// A value and how it is known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure<T> {
    /// The value, in the unit that the enclosing field names.
    pub value: T,
    /// How it is known.
    pub how: How,
    /// Who says so: the method of measurement, the driver, or the document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Number of samples behind a measured value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<u32>,
    /// Interquartile range over median of those samples, without unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<f64>,
    /// When it was measured, in RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
}

impl<T> Figure<T> {
    /// A figure that somebody states.
    pub fn declared(value: T, source: impl Into<String>) -> Self {
        Self { value, how: How::Declared, source: Some(source.into()), samples: None, spread: None, when: None }
    }

    /// A figure computed for want of a measurement.
    pub fn estimated(value: T, source: impl Into<String>) -> Self {
        Self { value, how: How::Estimated, source: Some(source.into()), samples: None, spread: None, when: None }
    }

    /// A figure measured `samples` times by `source`, with the given relative spread.
    pub fn measured(value: T, source: impl Into<String>, samples: u32, spread: f64, when: Option<String>) -> Self {
        Self {
            value,
            how: How::Measured,
            source: Some(source.into()),
            samples: Some(samples),
            spread: Some(spread),
            when,
        }
    }
}
