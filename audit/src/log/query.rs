//! Questions to a log: newest entries first, by time, principal, device, kind and severity.

use crate::keys::KeyId;
use crate::log::entry::Entry;
use crate::log::kind::{EventResult, Severity};
use crate::log::{LogError, LogView};
use crate::time::Timestamp;

/// Entries given where nobody says how many.
pub const QUERY_LIMIT: usize = 100;

/// What entries are wanted. Absent conditions are fulfilled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Not before this time.
    pub since: Option<Timestamp>,
    /// Before this time.
    pub until: Option<Timestamp>,
    /// On behalf of this key.
    pub principal: Option<KeyId>,
    /// About this device.
    pub device: Option<String>,
    /// Of this kind: a whole name (`isotherm.memory.allocate` or `memory.allocate`) or, ending in a dot, all below it
    /// (`memory.`).
    pub kind: Option<String>,
    /// That ended so.
    pub result: Option<EventResult>,
    /// At least this severe.
    pub severity: Option<Severity>,
    /// Before this position: where the last answer said to go on.
    pub before: Option<u64>,
    /// Most entries to give.
    pub limit: usize,
}

impl Default for Query {
    fn default() -> Self {
        Self {
            since: None,
            until: None,
            principal: None,
            device: None,
            kind: None,
            result: None,
            severity: None,
            before: None,
            limit: QUERY_LIMIT,
        }
    }
}

/// Some of the entries asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The newest first.
    pub entries: Vec<Entry>,
    /// Where to go on ([`Query::before`]); absent where all were looked at.
    pub next: Option<u64>,
}

impl Query {
    /// Whether an entry is wanted; its position aside.
    #[must_use]
    pub fn wants(&self, entry: &Entry) -> bool {
        self.since.is_none_or(|since| entry.time >= since)
            && self.until.is_none_or(|until| entry.time < until)
            && self.principal.is_none_or(|principal| entry.principal == principal)
            && self.device.as_ref().is_none_or(|device| entry.device.as_ref() == Some(device))
            && self.kind.as_ref().is_none_or(|kind| is_kind(&entry.kind, kind))
            && self.result.is_none_or(|result| entry.result == Some(result))
            && self.severity.is_none_or(|severity| entry.severity >= severity)
    }
}

fn is_kind(found: &str, wanted: &str) -> bool {
    let bare = |name: &str| name.strip_prefix("isotherm.").unwrap_or(name).to_owned();
    let (found, wanted) = (bare(found), bare(wanted));
    if wanted.ends_with('.') { found.starts_with(&wanted) } else { found == wanted }
}

impl LogView {
    /// The newest entries that a query wants, each compared with the signed tree.
    ///
    /// Errors: an entry that is not what the log signed.
    pub fn query(&self, query: &Query) -> Result<Answer, LogError> {
        let mut entries = Vec::new();
        let first = self.retained_from().min(self.size());
        let mut index = query.before.unwrap_or(u64::MAX).min(self.size());
        while index > first {
            if entries.len() == query.limit {
                return Ok(Answer { entries, next: Some(index) });
            }
            index -= 1;
            let entry = self.entry(index)?;
            if query.wants(&entry) {
                entries.push(entry);
            }
        }
        Ok(Answer { entries, next: None })
    }
}
