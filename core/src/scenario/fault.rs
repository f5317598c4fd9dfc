//! What can be wrong with a scenario or a table it refers to: cause, remedy and place.

use crate::cost::TableError;
use crate::text::QuantityError;

/// A kind of table that a scenario refers to by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A model's geometry, `scenarios/models/NAME.toml`.
    Model,
    /// A device's figures, `scenarios/devices/NAME.toml`.
    Device,
}

impl Kind {
    /// The kind in words.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Device => "device",
        }
    }
}

/// The text in which a fault stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The scenario itself.
    Scenario,
    /// A table it refers to.
    Table(Kind, String),
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Scenario => f.write_str("scenario"),
            Self::Table(kind, name) => write!(f, "{} table {name:?}", kind.word()),
        }
    }
}

/// Something wrong with a scenario, and where.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{origin}, line {line}, column {column}: {fault}; {}", fault.remedy())]
pub struct ScenarioError {
    /// The text in which it stands.
    pub origin: Origin,
    /// Byte where the offending text begins.
    pub start: usize,
    /// Byte after it.
    pub end: usize,
    /// Line of `start`, from 1.
    pub line: usize,
    /// Column of `start` in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Fault {
    /// The text is no TOML.
    #[error("this is not TOML: {0}")]
    Syntax(String),
    /// A key that nothing reads.
    #[error("{place} has no key {key:?}")]
    UnknownKey {
        /// Table in which it stands.
        place: String,
        /// The key.
        key: String,
        /// The key that was probably meant.
        nearest: Option<String>,
        /// Keys that may stand there.
        known: Vec<String>,
    },
    /// A key that must be there is not.
    #[error("{place} lacks {key:?}")]
    Missing {
        /// Table that lacks it.
        place: String,
        /// The key.
        key: String,
        /// What to write.
        example: &'static str,
    },
    /// A value of another type.
    #[error("{key} is {found}, not {expected}")]
    WrongType {
        /// The key.
        key: String,
        /// Type of its value.
        found: &'static str,
        /// Type it must have, with an example.
        expected: &'static str,
    },
    /// A text that is not the quantity.
    #[error("{key}: {cause}")]
    Quantity {
        /// The key.
        key: String,
        /// What is wrong with the text.
        cause: QuantityError,
    },
    /// A number outside its range.
    #[error("{key} is {value}")]
    OutOfRange {
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// What it must be.
        must: String,
    },
    /// A word that is not one of the few that may stand there.
    #[error("{key} is {found:?}")]
    Word {
        /// The key.
        key: String,
        /// What stands there.
        found: String,
        /// What may.
        choices: Vec<String>,
        /// The one that was probably meant.
        nearest: Option<String>,
    },
    /// A table that is not there.
    #[error("there is no {} table {name:?}", kind.word())]
    UnknownTable {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: String,
        /// The table that was probably meant.
        nearest: Option<String>,
        /// Tables that are there, as far as anybody knows.
        known: Vec<String>,
    },
    /// A table that is there and cannot be used, for faults listed beside this one.
    #[error("the {} table {name:?} has faults of its own", kind.word())]
    BrokenTable {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: String,
    },
    /// Two things of one name.
    #[error("{what} {name:?} is already there")]
    Duplicate {
        /// What.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A name of nothing.
    #[error("{key} names {name:?}, which is no {what}")]
    UnknownName {
        /// The key.
        key: String,
        /// The name.
        name: String,
        /// What it should be.
        what: &'static str,
        /// The name that was probably meant.
        nearest: Option<String>,
        /// Names that are there.
        known: Vec<String>,
    },
    /// Things that do not go together.
    #[error("{what}")]
    Conflict {
        /// What, in words.
        what: String,
        /// What to do.
        remedy: String,
    },
    /// A cost table that cannot be interpolated.
    #[error("{key}: {cause}")]
    Table {
        /// The key.
        key: String,
        /// What is wrong with it.
        cause: TableError,
    },
}

impl Fault {
    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::Syntax(_) => "correct the text here".to_owned(),
            Self::UnknownKey { nearest, known, .. } => meant(nearest, "keys", known),
            Self::Missing { example, .. } => format!("add it, for example {example}"),
            Self::WrongType { expected, .. } => format!("write {expected}"),
            Self::Quantity { .. } => "correct the quantity".to_owned(),
            Self::OutOfRange { must, .. } => format!("it must be {must}"),
            Self::Word { choices, nearest, .. } => meant(nearest, "choices", choices),
            Self::UnknownTable { kind, nearest, known, .. } => {
                let place = match kind {
                    Kind::Model => "scenarios/models",
                    Kind::Device => "scenarios/devices",
                };
                format!("{}, or add it to {place}", meant(nearest, "tables", known))
            }
            Self::BrokenTable { .. } => "correct that table".to_owned(),
            Self::Duplicate { .. } => "names are unique: rename one of them".to_owned(),
            Self::UnknownName { nearest, known, .. } => meant(nearest, "names", known),
            Self::Conflict { remedy, .. } => remedy.clone(),
            Self::Table { .. } => "correct the table".to_owned(),
        }
    }
}

/// "did you mean ...?", or what there is to choose from.
fn meant(nearest: &Option<String>, what: &str, known: &[String]) -> String {
    match (nearest, known.len()) {
        (Some(nearest), _) => format!("did you mean {nearest:?}?"),
        (None, 0) => format!("no {what} are known here"),
        (None, count) if count <= 40 => format!("known {what}: {}", known.join(", ")),
        (None, count) => format!("known {what}: {} and {} more", known[..40].join(", "), count - 40),
    }
}

/// The known word nearest to `found` by edit distance, where it is near enough to have been meant: at most a third of
/// the longer word is different.
pub(super) fn nearest<'a>(found: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let found: Vec<char> = found.chars().take(64).collect();
    let near = |word: &str| {
        let word: Vec<char> = word.chars().take(64).collect();
        let distance = edits(&found, &word);
        (3 * distance <= found.len().max(word.len())).then_some(distance)
    };
    let ranked = known.into_iter().filter_map(|word| Some((near(word)?, word)));
    ranked.min().map(|(_, word)| word.to_owned())
}

/// Least number of insertions, deletions and replacements of a character that turn one word into the other
/// (Wagner and Fischer, 1974).
fn edits(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = replaced.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_recognised_and_another_word_is_not() {
        let known = ["memory", "memory_bandwidth", "host", "site"];
        assert_eq!(nearest("memmory", known).as_deref(), Some("memory"));
        assert_eq!(nearest("memory_bandwith", known).as_deref(), Some("memory_bandwidth"));
        assert_eq!(nearest("hots", known), None);
        assert_eq!(nearest("temperature", known), None);
        assert_eq!(nearest("", known), None);
    }

    #[test]
    fn distances_are_those_of_the_textbook() {
        let distance = |a: &str, b: &str| edits(&a.chars().collect::<Vec<_>>(), &b.chars().collect::<Vec<_>>());
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", "abc"), 0);
    }
}
