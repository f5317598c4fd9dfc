//! What a longer command did, kept beside its artefacts so that the report can tell it: `session.json`.

use isotherm_core::artefact::TOOL_VERSION;
use isotherm_core::digest::Digest;
use isotherm_core::model::Model;
use isotherm_reports::{Command, Step};
use serde::{Deserialize, Serialize};

/// Schema of a session.
pub const SCHEMA: &str = "isotherm.session/v1";

/// The story of a directory of artefacts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Session {
    /// Kind and version.
    pub schema: String,
    /// Version that wrote it.
    pub tool_version: String,
    /// Digests of artefacts it speaks of.
    pub inputs: Vec<Digest>,
    /// Title for the report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The question that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<String>,
    /// The model that was run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Model>,
    /// Load of the machine, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<String>,
    /// Sentences for the report.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Command lines that make the artefacts again: what for, and the line.
    #[serde(default)]
    pub lines: Vec<(String, String)>,
}

impl Default for Session {
    fn default() -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            tool_version: TOOL_VERSION.to_owned(),
            inputs: Vec::new(),
            title: None,
            question: None,
            model: None,
            load: None,
            notes: Vec::new(),
            lines: Vec::new(),
        }
    }
}

impl Session {
    /// The command lines as the report wants them; lines for unknown purposes are left out.
    pub fn commands(&self) -> Vec<Command> {
        self.lines
            .iter()
            .filter_map(|(purpose, line)| {
                let step = match purpose.as_str() {
                    "tour" => Step::Tour,
                    "probe" => Step::Probe,
                    "plan" => Step::Plan,
                    "simulate" => Step::Simulate,
                    "seal" => Step::Seal,
                    "run" => Step::Run,
                    "report" => Step::Report,
                    _ => return None,
                };
                Some(Command { step, line: line.clone() })
            })
            .collect()
    }
}
