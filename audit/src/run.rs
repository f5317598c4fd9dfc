//! The run claim: what a run under a manifest measured, and how it ended.

use crate::figures::Figures;
use crate::manifest::{LogPosition, Nonce};
use crate::statement::{self, Predicate, Statement, StatementError, Subject};
use crate::text::{self, LINE_BYTES_MAX, NAME_BYTES_MAX};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// A statement about a run. Its subjects are the manifest's payload (`manifest`), the sampled tokens (`tokens`) and,
/// where it was kept, the record with the whole trace (`run`).
pub type SignedRun = Statement<RunClaim>;

/// What was measured, in integers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunClaim {
    /// Version of isotherm that ran.
    pub tool_version: String,
    /// The cluster it ran in.
    pub cluster_id: String,
    /// The host that ran it.
    pub host_id: String,
    /// When it began.
    pub started_on: Timestamp,
    /// When it ended.
    pub finished_on: Timestamp,
    /// Arithmetic of the kernels.
    pub arithmetic: String,
    /// How it ended.
    pub outcome: Outcome,
    /// How many tokens were sampled.
    pub token_count: u64,
    /// What was measured, under the names the manifest's predictions have.
    pub measured: Figures,
    /// What each stage did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<Part>,
    /// What each device did: time, energy, temperature, as far as it has sensors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Part>,
    /// What went over each link, named `from->to`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Part>,
    /// Sixteen random bytes that make two runs differ.
    pub nonce: Nonce,
    /// The audit log as it was when this was sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit_log: Option<LogPosition>,
}

/// What was measured of one part of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Part {
    /// Which: `stage 0 on cpu0`, a device, `cpu0->gpu0`.
    pub name: String,
    /// What was measured.
    pub measured: Figures,
}

/// Most parts of a run of one kind.
pub const PARTS_MAX: usize = 16_384;

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Outcome {
    /// All that was asked for was done.
    Completed,
    /// Somebody or some limit ended it early.
    Stopped {
        /// Who or which.
        reason: String,
    },
    /// It broke.
    Failed {
        /// How.
        reason: String,
    },
}

impl Predicate for RunClaim {
    const NAME: &'static str = "urn:isotherm:run-record";
    const MAJOR: u32 = 1;

    fn check(&self, subjects: &[Subject]) -> Result<(), StatementError> {
        statement::require(subjects, &[statement::MANIFEST, statement::TOKENS])?;
        for (what, name) in [
            ("toolVersion", &self.tool_version),
            ("clusterId", &self.cluster_id),
            ("hostId", &self.host_id),
            ("arithmetic", &self.arithmetic),
        ] {
            text::check(what, name, NAME_BYTES_MAX)?;
        }
        if let Outcome::Stopped { reason } | Outcome::Failed { reason } = &self.outcome {
            text::check("reason", reason, LINE_BYTES_MAX)?;
        }
        if let Some(position) = &self.audit_log {
            position.check()?;
        }
        self.measured.check()?;
        for (what, parts) in [("stages", &self.stages), ("devices", &self.devices), ("links", &self.links)] {
            statement::too_many(what, parts.len(), PARTS_MAX)?;
            for part in parts {
                text::check("name of a part", &part.name, NAME_BYTES_MAX)?;
                part.measured.check()?;
            }
        }
        // A run may begin and end within one second.
        statement::in_order(("startedOn", self.started_on), ("finishedOn plus 1 s", self.finished_on.later_by(1)))
    }
}
