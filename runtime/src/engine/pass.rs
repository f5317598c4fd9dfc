//! What travels through the stages: one batch with its activations.

use super::sampling::{Likelihood, Sampling, likelihood};
use super::shelf::Offloaded;
use crate::backend::DeviceError;
use crate::cpu::attention::CACHE_BLOCK;
use crate::cpu::neighbours::Reading;
use std::ops::Range;
use std::time::Instant;

/// One sequence's part in a pass.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    /// Position of its first token.
    pub(crate) start: usize,
    /// Number of its tokens.
    pub(crate) tokens: usize,
    /// Where its rows begin.
    pub(crate) row: usize,
    /// Where its cache blocks begin in [`Pass::blocks`].
    pub(crate) blocks: usize,
}

impl Part {
    /// Positions that its last token sees.
    pub(crate) fn positions(&self) -> usize {
        self.start + self.tokens
    }
}

/// How the token of one wanted row is chosen.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    /// By what rules.
    sampling: Sampling,
    /// Which token of its answer it will be, from 1.
    ordinal: u32,
    /// The tokens before it that the rules look at, in [`Pass::recent`].
    recent: Range<usize>,
}

/// One batch on its way: its parts, its tokens, its residual stream, and at the end its logits. Passes are used again and
/// again, so that a steady run allocates nothing.
#[derive(Default)]
pub(crate) struct Pass {
    /// The sequences; those with a single token first.
    pub(crate) parts: Vec<Part>,
    /// Cache blocks of all parts, in order of position.
    pub(crate) blocks: Vec<u32>,
    /// All tokens, one per row.
    pub(crate) tokens: Vec<u32>,
    /// Rows whose logits are wanted, rising.
    pub(crate) wanted: Vec<usize>,
    /// The residual stream, `[row][number]`.
    pub(crate) hidden: Vec<f32>,
    /// `[wanted row][token]`, written by the last stage.
    pub(crate) logits: Vec<f32>,
    /// How to choose a token from each wanted row's logits. Empty where only the logits are wanted.
    choices: Vec<Choice>,
    /// Tokens that choices look back at.
    recent: Vec<u32>,
    /// The tokens chosen, one per choice.
    pub(crate) chosen: Vec<u32>,
    /// How likely each was, where that was asked for.
    pub(crate) likelihoods: Vec<Option<Likelihood>>,
    /// Nanoseconds that each stage was busy with it, in order.
    pub(crate) busy_ns: Vec<u64>,
    /// Nanoseconds from the end of each stage to the begin of the next.
    pub(crate) between_ns: Vec<u64>,
    /// When the last stage that it went through had done with it.
    pub(crate) left: Option<Instant>,
    /// Nanoseconds of the last stage's that went into norm, head and choice. A card does them in one go with its layers,
    /// and tells them only where they are asked for apart.
    pub(crate) head_ns: u64,
    /// Whether a card shall do the head apart from the layers, to tell how long it takes.
    pub(crate) apart: bool,
    /// Whether each stage shall look, after its work, for neighbours on its cores.
    pub(crate) looks_beside: bool,
    /// What each saw, in order, where that was asked for.
    pub(crate) beside: Vec<Reading>,
    /// Nanoseconds that all of them looked.
    pub(crate) looking_ns: u64,
    /// What bringing layers has done so far, in the stages that it has passed.
    pub(crate) offloaded: Option<Offloaded>,
    /// Why a stage could not take it, where that is so: whatever else it holds then means nothing.
    pub(crate) failed: Option<Box<DeviceError>>,
}

impl Pass {
    /// Empties it.
    pub(crate) fn clear(&mut self) {
        self.parts.clear();
        self.blocks.clear();
        self.tokens.clear();
        self.wanted.clear();
        self.choices.clear();
        self.recent.clear();
        self.chosen.clear();
        self.likelihoods.clear();
        self.busy_ns.clear();
        self.between_ns.clear();
        self.left = None;
        self.head_ns = 0;
        self.apart = false;
        self.looks_beside = false;
        self.beside.clear();
        self.looking_ns = 0;
        self.offloaded = None;
        self.failed = None;
    }

    /// Adds a sequence: `tokens` from position `start` on, cached in `blocks` (those of its positions from 0 to the last
    /// of these). `wanted` tells which of the tokens want logits, as positions in `tokens`.
    ///
    /// # Panics
    /// When there are no tokens or too few blocks.
    pub(crate) fn push(
        &mut self,
        start: usize,
        tokens: &[u32],
        blocks: impl IntoIterator<Item = u32>,
        wanted: impl IntoIterator<Item = usize>,
    ) {
        let row = self.tokens.len();
        let part = Part { start, tokens: tokens.len(), row, blocks: self.blocks.len() };
        let needed = part.positions().div_ceil(CACHE_BLOCK);
        self.blocks.extend(blocks.into_iter().take(needed));
        assert!(
            !tokens.is_empty() && self.blocks.len() - part.blocks == needed,
            "{} tokens from position {start} with {} blocks",
            tokens.len(),
            self.blocks.len() - part.blocks
        );
        self.tokens.extend_from_slice(tokens);
        self.wanted.extend(wanted.into_iter().map(|token| row + token));
        self.parts.push(part);
    }

    /// Asks for a token from the next wanted row that has no choice yet. `before` are the tokens before it, last one
    /// first.
    pub(crate) fn ask(&mut self, sampling: Sampling, ordinal: u32, before: impl Iterator<Item = u32>) {
        let from = self.recent.len();
        self.recent.extend(before.take(sampling.looks_back()));
        self.recent[from..].reverse();
        self.choices.push(Choice { sampling, ordinal, recent: from..self.recent.len() });
    }

    /// The worst that a stage saw on its cores.
    pub(crate) fn worst_beside(&self) -> Reading {
        self.beside.iter().fold(Reading::UNKNOWN, |worst, reading| worst.or_worse(*reading))
    }

    /// Whether the largest logit of each wanted row is all that anybody asks for.
    pub(crate) fn wants_only_largest(&self) -> bool {
        !self.choices.is_empty() && self.choices.iter().all(|choice| choice.sampling.takes_largest())
    }

    /// Takes tokens that a device has chosen, one for each choice.
    pub(crate) fn take_chosen(&mut self, tokens: &[u32]) {
        self.chosen.extend(tokens);
        self.likelihoods.extend(tokens.iter().map(|_| None));
    }

    /// Chooses a token from each row of logits.
    pub(crate) fn choose(&mut self, vocabulary: usize) {
        let Self { logits, choices, recent, chosen, likelihoods, .. } = self;
        for (row, choice) in logits.chunks_exact_mut(vocabulary).zip(choices) {
            let wanted = choice.sampling.log_probabilities;
            // A penalty changes logits, so the model's own are kept where they are asked for.
            let own = wanted.filter(|_| choice.sampling.looks_back() > 0).map(|_| row.to_vec());
            let token = choice.sampling.choose(row, choice.ordinal, &recent[choice.recent.clone()]);
            likelihoods.push(wanted.map(|count| likelihood(own.as_deref().unwrap_or(row), token, count)));
            chosen.push(token);
        }
    }

    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.tokens.len()
    }

    /// Leading parts of a single token.
    pub(crate) fn singles(&self) -> usize {
        self.parts.iter().take_while(|part| part.tokens == 1).count()
    }
}
