//! Decoding tokens as they come.

use super::{Tokenizer, UnknownToken};

/// Turns tokens into text one at a time, holding back bytes until they are whole characters.
///
/// The pieces joined together are exactly what [`Tokenizer::decode`] makes of all tokens at once.
#[derive(Debug)]
pub struct Stream<'a> {
    tokenizer: &'a Tokenizer,
    /// The start of a character whose end has not come, at most three bytes.
    pending: Vec<u8>,
}

impl<'a> Stream<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer) -> Self {
        Self { tokenizer, pending: Vec::new() }
    }

    /// The text that this token completes; often a word, sometimes nothing yet.
    ///
    /// # Errors
    /// When the token is not in the vocabulary; the stream goes on as if it had not been pushed.
    pub fn push(&mut self, id: u32) -> Result<String, UnknownToken> {
        self.pending.extend_from_slice(self.tokenizer.bytes_of(id)?);
        let mut text = String::new();
        let mut done = 0;
        loop {
            match std::str::from_utf8(&self.pending[done..]) {
                Ok(whole) => {
                    text.push_str(whole);
                    self.pending.clear();
                    return Ok(text);
                }
                Err(error) => {
                    let valid = done + error.valid_up_to();
                    text.push_str(&String::from_utf8_lossy(&self.pending[done..valid]));
                    let Some(broken) = error.error_len() else {
                        self.pending.drain(..valid);
                        return Ok(text);
                    };
                    text.push(char::REPLACEMENT_CHARACTER);
                    done = valid + broken;
                }
            }
        }
    }

    /// What is left at the end: U+FFFD for a character that never became whole, else nothing.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.pending).into_owned()
    }
}
