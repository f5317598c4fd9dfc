//! How every stored artefact begins: what it is, what wrote it, what it was made from.

use crate::digest::Digest;
use serde::{Deserialize, Serialize};

/// First fields of every stored artefact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Kind and major version, for example `isotherm.plan/v1`.
    pub schema: String,
    /// Version of isotherm that wrote it.
    pub tool_version: String,
    /// Digests of the artefacts it was made from.
    #[serde(default)]
    pub inputs: Vec<Digest>,
}

/// Version of isotherm.
pub const TOOL_VERSION: &str = env!("CARGO_PKG_VERSION");

/// An artefact of another kind or major version than was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is a {found:?}, not a {expected:?}; it was written by another command or an incompatible version")]
pub struct WrongSchema {
    /// What it says it is.
    pub found: String,
    /// What was asked for.
    pub expected: &'static str,
}

impl Header {
    /// A header for an artefact that this version writes.
    #[must_use]
    pub fn new(schema: &str, inputs: Vec<Digest>) -> Self {
        Self { schema: schema.to_owned(), tool_version: TOOL_VERSION.to_owned(), inputs }
    }

    /// Errors: the artefact is of another kind.
    pub fn expect(&self, schema: &'static str) -> Result<(), WrongSchema> {
        if self.schema == schema { Ok(()) } else { Err(WrongSchema { found: self.schema.clone(), expected: schema }) }
    }
}
