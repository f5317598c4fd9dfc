//! Log entries: one canonical JSON text per event, chained to the one before it.
//!
//! Attribute names are those of CloudEvents 1.0; `previous` is an extension attribute. Each entry names its log and its
//! position, so it fits one place of one log and no other. The log's signature is over the tree of all entries, in the
//! checkpoint; an entry has none of its own.

use crate::canonical::{self, CanonicalError, INTEGER_LIMIT};
use crate::keys::KeyId;
use crate::log::kind::{EventKind, EventResult, Severity};
use crate::log::merkle::Hash;
use crate::manifest::RootHash;
use crate::text::{self, LINE_BYTES_MAX, NAME_BYTES_MAX, TextError};
use crate::time::Timestamp;
use isotherm_core::digest::Digest;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Largest entry: tlog-tiles puts a 16-bit length before each.
pub const ENTRY_BYTES_MAX: usize = 65_535;
const SPEC_VERSION: &str = "1.0";
const ELLIPSIS: &str = "...";

/// One detail of an event. There are no floats: write an integer with its unit in the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Detail {
    /// Yes or no.
    Flag(bool),
    /// A count or a quantity in the unit the key names.
    Integer(i64),
    /// Words.
    Text(String),
}

impl From<&str> for Detail {
    /// Control characters become U+FFFD and long text ends in an ellipsis: a log that refused to record a hostile name
    /// would be silenced by it.
    fn from(words: &str) -> Self {
        Self::Text(if words.is_empty() { String::new() } else { harmless(words, LINE_BYTES_MAX).into_owned() })
    }
}

impl From<i64> for Detail {
    fn from(integer: i64) -> Self {
        Self::Integer(integer)
    }
}

impl From<bool> for Detail {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

/// Something that happened, to be logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What.
    pub kind: EventKind,
    /// How much it matters.
    pub severity: Severity,
    /// When.
    pub time: Timestamp,
    /// Who: the key on whose behalf it was done.
    pub principal: KeyId,
    /// The device it is about, by its name in plans.
    pub device: Option<String>,
    /// What was asked for, where the kind alone does not say it: a permission, a command.
    pub operation: Option<String>,
    /// How it ended; absent where it only happened.
    pub result: Option<EventResult>,
    /// Why it ended so.
    pub error: Option<String>,
    /// The node it happened on, where a log gathers several.
    pub node: Option<String>,
    /// The connection it came over.
    pub connection: Option<String>,
    /// Digests of the files it is about, by their role.
    pub subjects: BTreeMap<String, Digest>,
    /// Further details by name. Large things are logged by digest.
    pub metadata: BTreeMap<String, Detail>,
}

impl Event {
    /// An event of severity `info` about nothing yet.
    #[must_use]
    pub const fn new(kind: EventKind, time: Timestamp, principal: KeyId) -> Self {
        Self {
            kind,
            severity: Severity::Info,
            time,
            principal,
            device: None,
            operation: None,
            result: None,
            error: None,
            node: None,
            connection: None,
            subjects: BTreeMap::new(),
            metadata: BTreeMap::new(),
        }
    }

    /// The same event with how it ended, and the severity that goes with that.
    #[must_use]
    pub fn ended(self, result: EventResult) -> Self {
        Self { result: Some(result), severity: result.severity(), ..self }
    }
}

/// An event as it stands in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Which log.
    pub origin: String,
    /// Its position, from 0.
    pub index: u64,
    /// Name of the kind, also where this version does not know it.
    pub kind: String,
    /// How much it matters.
    pub severity: Severity,
    /// When.
    pub time: Timestamp,
    /// On whose behalf.
    pub principal: KeyId,
    /// The device it is about.
    pub device: Option<String>,
    /// What was asked for.
    pub operation: Option<String>,
    /// How it ended.
    pub result: Option<EventResult>,
    /// Why it ended so.
    pub error: Option<String>,
    /// The node it happened on.
    pub node: Option<String>,
    /// The connection it came over.
    pub connection: Option<String>,
    /// Digests of the files it is about.
    pub subjects: BTreeMap<String, Digest>,
    /// Further details.
    pub metadata: BTreeMap<String, Detail>,
    /// Leaf hash of the entry before it; for the first, the root of the empty tree.
    pub previous: Hash,
}

/// Why a line is no entry, or not the entry that belongs there.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// Longer than tlog-tiles can carry.
    #[error("it has {bytes} bytes; the limit is {ENTRY_BYTES_MAX}, so log the digest of large things")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// Not canonical JSON.
    #[error("it is {0}")]
    Canonical(#[from] CanonicalError),
    /// JSON of another shape.
    #[error("it has another shape than a log entry: {0}")]
    Shape(#[source] serde_json::Error),
    /// A field with a value that no entry has.
    #[error("its {field} is {found:?}")]
    Field {
        /// The field.
        field: &'static str,
        /// Its value, shortened.
        found: String,
    },
    /// A name or detail that cannot be shown or held.
    #[error(transparent)]
    Text(#[from] TextError),
    /// From another log.
    #[error("it belongs to the log {found:?}")]
    OtherLog {
        /// What it says.
        found: String,
    },
    /// From another place of the log.
    #[error("it says it is entry {found}")]
    OtherPlace {
        /// What it says.
        found: u64,
    },
    /// It does not follow the entry before it.
    #[error("it does not follow the entry before it")]
    BrokenChain,
    /// Other bytes than those whose hash the log signed.
    #[error("its bytes are not those that were logged")]
    OtherBytes,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(Serialize))]
struct Wire<'a> {
    specversion: Cow<'a, str>,
    id: String,
    source: Cow<'a, str>,
    #[serde(rename = "type")]
    kind: Cow<'a, str>,
    time: Timestamp,
    /// CloudEvents' word for what the event is about: the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<Cow<'a, str>>,
    previous: RootHash,
    data: WireData<'a>,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(Serialize))]
struct WireData<'a> {
    severity: Severity,
    principal: KeyId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    operation: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    result: Option<EventResult>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    connection: Option<Cow<'a, str>>,
    subjects: Cow<'a, BTreeMap<String, Digest>>,
    metadata: Cow<'a, BTreeMap<String, Detail>>,
}

/// The text of an event at its place in a log.
///
/// A log writes thousands of these a second, so the fields are written one by one in their canonical order, without a
/// value in between; a test holds the bytes to those of the general encoder.
pub(crate) fn write(event: &Event, origin: &str, index: u64, previous: &Hash) -> Result<Vec<u8>, EntryError> {
    check_names(&event.subjects, &event.metadata)?;
    // A hostile name is shown without what misleads: an event that could not be logged would leave no trace.
    let device = named(event.device.as_deref());
    let mut line = Vec::with_capacity(640);
    let mut whole = Object::begin(&mut line);
    let mut inner = Object::begin(whole.key("data"));
    inner.words("connection", named(event.connection.as_deref()).as_deref());
    inner.words("error", event.error.as_deref().map(|words| harmless(words, LINE_BYTES_MAX)).as_deref());
    let mut metadata = Object::begin(inner.key("metadata"));
    for (name, detail) in in_order(&event.metadata) {
        let out = metadata.key(name);
        match detail {
            Detail::Flag(flag) => out.extend_from_slice(if *flag { b"true" } else { b"false" }),
            Detail::Integer(number) => canonical::write_integer(out, *number),
            Detail::Text(words) => canonical::write_text(out, words),
        }
    }
    metadata.end();
    inner.words("node", named(event.node.as_deref()).as_deref());
    inner.words("operation", named(event.operation.as_deref()).as_deref());
    inner.words("principal", Some(&event.principal.to_string()));
    inner.words("result", event.result.map(EventResult::name));
    inner.words("severity", Some(event.severity.name()));
    let mut subjects = Object::begin(inner.key("subjects"));
    for (role, digest) in in_order(&event.subjects) {
        canonical::write_text(subjects.key(role), &digest.to_string());
    }
    subjects.end();
    inner.end();
    whole.words("id", Some(&index.to_string()));
    whole.words("previous", Some(&RootHash(*previous).to_string()));
    whole.words("source", Some(origin));
    whole.words("specversion", Some(SPEC_VERSION));
    whole.words("subject", device.as_deref());
    whole.words("time", Some(&event.time.to_string()));
    whole.words("type", Some(event.kind.name()));
    whole.end();
    if line.len() > ENTRY_BYTES_MAX {
        return Err(EntryError::TooLarge { bytes: line.len() });
    }
    Ok(line)
}

/// A name as an entry holds it.
fn named(words: Option<&str>) -> Option<Cow<'_, str>> {
    words.map(|words| harmless(words, NAME_BYTES_MAX))
}

/// The entries of a map in the order of RFC 8785, by UTF-16 units: that of bytes, except beyond the basic plane.
fn in_order<T>(map: &BTreeMap<String, T>) -> Vec<(&String, &T)> {
    let mut entries: Vec<_> = map.iter().collect();
    if entries.iter().any(|(name, _)| !name.is_ascii()) {
        entries.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
    }
    entries
}

/// A JSON object that is being written, whose caller gives the keys in their canonical order.
struct Object<'o> {
    out: &'o mut Vec<u8>,
    first: bool,
}

impl<'o> Object<'o> {
    fn begin(out: &'o mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, first: true }
    }

    fn key(&mut self, name: &str) -> &mut Vec<u8> {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        canonical::write_text(self.out, name);
        self.out.push(b':');
        self.out
    }

    fn words(&mut self, name: &str, words: Option<&str>) {
        if let Some(words) = words {
            canonical::write_text(self.key(name), words);
        }
    }

    fn end(self) {
        self.out.push(b'}');
    }
}

impl Entry {
    /// Reads the text of an entry. It is one of a log only if the log's tree has it.
    ///
    /// Errors: too long, not canonical JSON, or not an entry.
    pub fn read(line: &[u8]) -> Result<Self, EntryError> {
        if line.len() > ENTRY_BYTES_MAX {
            return Err(EntryError::TooLarge { bytes: line.len() });
        }
        let field = |field, found: &str| EntryError::Field { field, found: found.chars().take(100).collect() };
        let wire: Wire<'static> = serde_json::from_value(canonical::read(line)?).map_err(EntryError::Shape)?;
        if wire.specversion != SPEC_VERSION {
            return Err(field("specversion", &wire.specversion));
        }
        let index = wire.id.parse::<u64>().ok().filter(|index| index.to_string() == wire.id);
        let index = index.ok_or_else(|| field("id", &wire.id))?;
        text::check("source", &wire.source, NAME_BYTES_MAX)?;
        text::check("type", &wire.kind, NAME_BYTES_MAX)?;
        let data = wire.data;
        check_names(&data.subjects, &data.metadata)?;
        let words = |words: Option<Cow<'_, str>>, limit: usize| -> Result<Option<String>, TextError> {
            words.map_or(Ok(None), |words| {
                text::check("device, operation, error, node or connection", &words, limit)?;
                Ok(Some(words.into_owned()))
            })
        };
        Ok(Self {
            origin: wire.source.into_owned(),
            index,
            kind: wire.kind.into_owned(),
            severity: data.severity,
            time: wire.time,
            principal: data.principal,
            device: words(wire.subject, NAME_BYTES_MAX)?,
            operation: words(data.operation, NAME_BYTES_MAX)?,
            result: data.result,
            error: words(data.error, LINE_BYTES_MAX)?,
            node: words(data.node, NAME_BYTES_MAX)?,
            connection: words(data.connection, NAME_BYTES_MAX)?,
            subjects: data.subjects.into_owned(),
            metadata: data.metadata.into_owned(),
            previous: wire.previous.0,
        })
    }

    /// Checks that it says it belongs to that place of that log, after the entry with the hash `previous`.
    ///
    /// Errors: another log or place, or a broken chain.
    pub fn belongs(&self, origin: &str, index: u64, previous: &Hash) -> Result<(), EntryError> {
        if self.origin != origin {
            return Err(EntryError::OtherLog { found: self.origin.clone() });
        }
        if self.index != index {
            return Err(EntryError::OtherPlace { found: self.index });
        }
        if self.previous != *previous {
            return Err(EntryError::BrokenChain);
        }
        Ok(())
    }

    /// The kind, where this version knows it.
    #[must_use]
    pub fn event_kind(&self) -> Option<EventKind> {
        EventKind::ALL.iter().copied().find(|kind| kind.name() == self.kind)
    }
}

/// Text without what misleads a reader, and not longer than it may be: a log that refused to record a hostile name would be
/// silenced by it.
fn harmless(words: &str, bytes_max: usize) -> Cow<'_, str> {
    if !words.is_empty() && words.len() <= bytes_max && !words.contains(text::misleads) {
        return Cow::Borrowed(words);
    }
    let mut shown: String = words.chars().map(|c| if text::misleads(c) { '\u{fffd}' } else { c }).collect();
    if shown.is_empty() {
        shown.push('-');
    }
    if shown.len() > bytes_max {
        shown.truncate(shown.floor_char_boundary(bytes_max - ELLIPSIS.len()));
        shown.push_str(ELLIPSIS);
    }
    Cow::Owned(shown)
}

fn check_names(subjects: &BTreeMap<String, Digest>, metadata: &BTreeMap<String, Detail>) -> Result<(), EntryError> {
    for name in subjects.keys().chain(metadata.keys()) {
        text::check("name of a subject or detail", name, NAME_BYTES_MAX)?;
    }
    for (name, detail) in metadata {
        match detail {
            // An empty detail says "empty"; only what misleads a reader is refused.
            Detail::Text(words) if !words.is_empty() => text::check("detail", words, LINE_BYTES_MAX)?,
            Detail::Integer(number) if *number <= -INTEGER_LIMIT || *number >= INTEGER_LIMIT => {
                let at = format!("/data/metadata/{name}");
                return Err(CanonicalError::Number { at, number: number.to_string() }.into());
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{Identity, Seed};
    use proptest::prelude::*;

    /// Each character by itself, without a look at the whole.
    fn plainly(words: &str, limit: usize) -> String {
        let shown: String = words.chars().map(|c| if text::misleads(c) { '\u{fffd}' } else { c }).collect();
        if shown.len() <= limit {
            return shown;
        }
        let mut cut = String::new();
        for c in shown.chars() {
            if cut.len() + c.len_utf8() > limit - 3 {
                break;
            }
            cut.push(c);
        }
        cut + "..."
    }

    /// The same by the general encoder.
    fn general(event: &Event, origin: &str, index: u64, previous: &Hash) -> Vec<u8> {
        let words = |words: &Option<String>| words.as_deref().map(|words| Cow::Owned(plainly(words, NAME_BYTES_MAX)));
        let wire = Wire {
            specversion: Cow::Borrowed(SPEC_VERSION),
            id: index.to_string(),
            source: Cow::Borrowed(origin),
            kind: Cow::Borrowed(event.kind.name()),
            time: event.time,
            subject: words(&event.device),
            previous: RootHash(*previous),
            data: WireData {
                severity: event.severity,
                principal: event.principal,
                operation: words(&event.operation),
                result: event.result,
                error: event.error.as_deref().map(|error| Cow::Owned(plainly(error, LINE_BYTES_MAX))),
                node: words(&event.node),
                connection: words(&event.connection),
                subjects: Cow::Borrowed(&event.subjects),
                metadata: Cow::Borrowed(&event.metadata),
            },
        };
        canonical::write(&wire).expect("exact")
    }

    proptest! {
        #[test]
        fn an_entry_has_the_bytes_that_the_general_encoder_gives(
            kind in 0..EventKind::ALL.len(),
            words in proptest::collection::vec(proptest::option::of("[\u{0}-~\u{80}-\u{2fff}\u{e000}-\u{1ffff}]{1,120}"), 5),
            details in proptest::collection::btree_map("[a-z\u{e9}\u{fb33}\u{1f600}]{1,5}", -(1_i64 << 53) + 1..1 << 53, 0..4),
            result in proptest::option::of(0..3_usize),
            index in any::<u64>(),
        ) {
            let key = Identity::from_seed(&Seed::from_bytes([1; 32])).expect("a key").id();
            let now = "2026-11-23T06:55:00Z".parse().expect("an instant");
            let mut event = Event::new(EventKind::ALL[kind], now, key);
            if let Some(result) = result {
                event = event.ended([EventResult::Success, EventResult::Failure, EventResult::Denied][result]);
            }
            [event.device, event.operation, event.error, event.node, event.connection] =
                <[_; 5]>::try_from(words).expect("five");
            for (name, number) in &details {
                event.subjects.insert(name.clone(), Digest::of(name.as_bytes()));
                event.metadata.insert(name.clone(), (*number).into());
            }
            event.metadata.insert("flag".to_owned(), true.into());
            event.metadata.insert("words".to_owned(), "a \"quoted\"\tline\\".into());
            match write(&event, "isotherm.local/log", index, &[7; 32]) {
                Ok(line) => prop_assert_eq!(line, general(&event, "isotherm.local/log", index, &[7; 32])),
                Err(error) => prop_assert!(matches!(error, EntryError::Text(_)), "{}", error),
            }
        }
    }
}
