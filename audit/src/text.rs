//! What a name in a signed document may look like.

/// Bytes a name, version or identifier may have.
pub(crate) const NAME_BYTES_MAX: usize = 256;
/// Bytes a path hint or a reason may have.
pub(crate) const LINE_BYTES_MAX: usize = 4096;

/// Why a text is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// Nothing was written.
    #[error("{what} is empty")]
    Empty {
        /// The field.
        what: &'static str,
    },
    /// Longer than a reader should have to hold.
    #[error("{what} has {bytes} bytes; the limit is {limit}")]
    TooLong {
        /// The field.
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// The longest allowed.
        limit: usize,
    },
    /// A character that would let signed text lie on a terminal.
    #[error("{what} has the control or direction character U+{character:04X}")]
    Unprintable {
        /// The field.
        what: &'static str,
        /// The code point.
        character: u32,
    },
}

/// Accepts one to `limit` bytes without control characters and without the direction overrides that make a shown name
/// differ from the signed one.
pub(crate) fn check(what: &'static str, text: &str, limit: usize) -> Result<(), TextError> {
    if text.is_empty() {
        return Err(TextError::Empty { what });
    }
    if text.len() > limit {
        return Err(TextError::TooLong { what, bytes: text.len(), limit });
    }
    match text.chars().find(|c| misleads(*c)) {
        Some(character) => Err(TextError::Unprintable { what, character: character.into() }),
        None => Ok(()),
    }
}

/// Control characters, line separators, and the marks that turn the direction of text around.
pub(crate) fn misleads(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
