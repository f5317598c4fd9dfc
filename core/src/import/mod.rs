//! Other people's measurements as scenarios: from their text to ours, no file touched.
//!
//! What comes out is a scenario that a person can read and change: devices of equal figures are one entry, links of
//! equal figures one list. Every figure stands in it exactly as it was stated.

mod data;
pub mod helix;
pub mod helix_flow;
pub mod llmservingsim;
pub mod ollama;
mod write;

/// A scenario made of somebody else's measurements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The scenario's text.
    pub text: String,
    /// What was left out or assumed, in whole sentences; the text says so too.
    pub notes: Vec<String>,
}
