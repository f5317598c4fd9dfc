//! Finding control tokens in text.

use std::collections::BTreeMap;

use super::TokenKind;
use crate::model::gguf::Strings;

/// The control and user-defined tokens of a vocabulary.
pub(super) struct ControlTokens {
    /// By first byte; within one, the longest first.
    by_first: BTreeMap<u8, Vec<(Box<str>, u32)>>,
    /// Ids of control tokens, rising.
    control: Vec<u32>,
}

impl ControlTokens {
    pub(super) fn new(tokens: &Strings, kinds: &[TokenKind]) -> Self {
        let mut by_first: BTreeMap<u8, Vec<(Box<str>, u32)>> = BTreeMap::new();
        let mut control = Vec::new();
        for ((id, token), kind) in (0_u32..).zip(tokens.iter()).zip(kinds) {
            if *kind == TokenKind::Control {
                control.push(id);
            }
            if let (TokenKind::Control | TokenKind::UserDefined, Some(&first)) = (kind, token.as_bytes().first()) {
                by_first.entry(first).or_default().push((token.into(), id));
            }
        }
        for tokens in by_first.values_mut() {
            // Equal texts stay in the order of their ids, so the first of them is found.
            tokens.sort_by_key(|(token, _)| std::cmp::Reverse(token.len()));
        }
        Self { by_first, control }
    }

    /// Whether the token is a control token.
    pub(super) fn is_control(&self, id: u32) -> bool {
        self.control.binary_search(&id).is_ok()
    }

    /// The control or user-defined token with exactly this text.
    pub(super) fn id_of(&self, text: &str) -> Option<u32> {
        let tokens = self.by_first.get(text.as_bytes().first()?)?;
        tokens.iter().find(|(token, _)| token.as_ref() == text).map(|&(_, id)| id)
    }

    /// The first of these tokens in `text`, at one place the longest: where it begins, its length, its id. Control
    /// tokens count only when `special` says so.
    pub(super) fn first_in(&self, text: &str, special: bool) -> Option<(usize, usize, u32)> {
        if self.by_first.is_empty() {
            return None;
        }
        text.bytes().enumerate().find_map(|(start, byte)| {
            // A token begins with the first byte of a character, so `start` is a character boundary if one matches.
            let tokens = self.by_first.get(&byte)?;
            let found = tokens.iter().find(|(token, id)| {
                text.as_bytes()[start..].starts_with(token.as_bytes()) && (special || !self.is_control(*id))
            });
            found.map(|(token, id)| (start, token.len(), *id))
        })
    }
}
