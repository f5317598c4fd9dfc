//! One sequence at a time through given stages: the simplest door, for tests, measurements and teacher forcing.

use super::cache::blocks_for;
use super::device::{CpuDevice, Kernels};
use super::pass::Pass;
use super::pipeline::{Pipeline, StagePlace, StartError};
use super::sampling::Sampling;
use super::shelf::Offloaded;
use super::stage::{StageSpec, supported};
use crate::backend::{Counters, DeviceError, MemoryInfo};
use crate::model::Geometry;
use crate::model::gguf::Gguf;
use std::ops::Range;
use std::path::Path;

/// One stage: its layers and its device.
#[derive(Clone, Debug)]
pub struct Cut {
    /// Its layers.
    pub layers: Range<usize>,
    /// Its device.
    pub device: CpuDevice,
}

/// Why stages could not be made ready, or a sequence not run.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// A model whose shape the kernels do not take.
    #[error("this model has {0}")]
    Unsupported(String),
    /// The stages do not cover the layers in order.
    #[error("stages {stages:?} do not cover layers 0..{layers} in order, each once")]
    Cuts {
        /// Layers of each stage.
        stages: Vec<Range<usize>>,
        /// Layers of the model.
        layers: usize,
    },
    /// A device without cores.
    #[error("device {0:?} has no cores; give it at least one")]
    NoCores(String),
    /// More positions than the runner has room for.
    #[error("a sequence of {tokens} tokens does not fit the {room} that there is room for")]
    TooLong {
        /// Tokens of the sequence.
        tokens: usize,
        /// Positions there are.
        room: usize,
    },
    /// A token that the model does not know.
    #[error("token {token} is not in the vocabulary of {vocabulary}")]
    UnknownToken {
        /// The token.
        token: u32,
        /// Tokens in the vocabulary.
        vocabulary: usize,
    },
    /// A stage could not be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A stage's device failed.
    #[error(transparent)]
    Device(Box<DeviceError>),
}

/// Stages that are ready for one sequence at a time.
pub struct Runner {
    pipeline: Pipeline,
    pass: Pass,
    room: usize,
    chunk: usize,
    vocabulary: usize,
}

impl Runner {
    /// Loads the stages, with room for sequences of `positions` tokens, prefilled in chunks of at most `chunk`.
    ///
    /// The calling thread becomes the first worker of the first device and is bound to its core.
    ///
    /// # Errors
    /// When the model is not supported, the stages do not cover it, or a device gives no memory or threads.
    pub fn start(
        gguf: &Gguf,
        geometry: &Geometry,
        kernels: Kernels,
        cuts: &[Cut],
        positions: usize,
        chunk: usize,
    ) -> Result<Self, RunnerError> {
        Self::start_within(gguf, geometry, kernels, cuts, (positions, chunk), None)
    }

    /// As [`Self::start`], for sequences of `room.0` tokens in chunks of `room.1`, with at most `budget` bytes of weights in
    /// memory; the others lie in a file in its folder and are brought layer by layer.
    ///
    /// # Errors
    /// As [`Self::start`]; and when a stage cannot be run with so little.
    pub fn start_within(
        gguf: &Gguf,
        geometry: &Geometry,
        kernels: Kernels,
        cuts: &[Cut],
        room: (usize, usize),
        budget: Option<(u64, &Path)>,
    ) -> Result<Self, RunnerError> {
        Self::begin(gguf, geometry, kernels, (cuts, &[]), room, budget)
    }

    /// As [`Self::start`], for sequences of `room.0` tokens in chunks of `room.1`, with so many layers of each stage not
    /// held but brought when their turn comes: to a card from memory, to the processor from a file in the folder for
    /// temporary files.
    ///
    /// # Errors
    /// As [`Self::start`]; and when a card does not take layers in so many formats.
    pub fn start_bringing(
        gguf: &Gguf,
        geometry: &Geometry,
        kernels: Kernels,
        cuts: (&[Cut], &[usize]),
        room: (usize, usize),
    ) -> Result<Self, RunnerError> {
        Self::begin(gguf, geometry, kernels, cuts, room, None)
    }

    fn begin(
        gguf: &Gguf,
        geometry: &Geometry,
        kernels: Kernels,
        (cuts, away): (&[Cut], &[usize]),
        (positions, chunk): (usize, usize),
        budget: Option<(u64, &Path)>,
    ) -> Result<Self, RunnerError> {
        supported(geometry).map_err(RunnerError::Unsupported)?;
        let ends = cuts.iter().map(|cut| cut.layers.end);
        let starts = std::iter::once(0).chain(ends.clone());
        let covers = starts.zip(cuts).all(|(start, cut)| cut.layers.start == start && !cut.layers.is_empty())
            && cuts.last().map(|cut| cut.layers.end) == Some(geometry.layers);
        if !covers {
            let stages = cuts.iter().map(|cut| cut.layers.clone()).collect();
            return Err(RunnerError::Cuts { stages, layers: geometry.layers });
        }
        if let Some(cut) = cuts.iter().find(|cut| cut.device.is_empty()) {
            return Err(RunnerError::NoCores(cut.device.name.clone()));
        }
        let room = positions.min(geometry.context).max(1);
        let chunk = chunk.clamp(1, room);
        let places: Vec<StagePlace> = cuts
            .iter()
            .enumerate()
            .map(|(i, cut)| StagePlace {
                device: cut.device.clone(),
                spec: StageSpec {
                    layers: cut.layers.clone(),
                    isa: kernels.isa,
                    arithmetic: kernels.arithmetic,
                    rows_max: chunk,
                    positions_max: room,
                    cache_blocks: blocks_for(room),
                    away: away.get(i).copied().unwrap_or(0),
                    folder: None,
                },
            })
            .collect();
        let budget = budget.map(|(bytes, folder)| (usize::try_from(bytes).unwrap_or(usize::MAX), folder));
        let pipeline = Pipeline::start_within(gguf, geometry, &places, budget)?;
        Ok(Self { pipeline, pass: Pass::default(), room, chunk, vocabulary: geometry.vocabulary })
    }

    /// Feeds a whole sequence and calls `visit(position, logits)` for positions `first..`, in order: the logits at a
    /// position predict the token after it. This is teacher forcing: the tokens come from the caller.
    ///
    /// # Errors
    /// When the sequence is too long or holds an unknown token.
    pub fn logits(
        &mut self,
        tokens: &[u32],
        first: usize,
        visit: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), RunnerError> {
        self.check(tokens, tokens.len())?;
        for (i, chunk) in tokens.chunks(self.chunk).enumerate() {
            let start = i * self.chunk;
            let wanted = first.saturating_sub(start).min(chunk.len())..chunk.len();
            let mut pass = std::mem::take(&mut self.pass);
            pass.clear();
            pass.push(start, chunk, 0.., wanted.clone());
            self.pipeline.send(pass);
            self.pass = self.received()?;
            for (token, row) in wanted.zip(self.pass.logits.chunks_exact(self.vocabulary)) {
                visit(start + token, row);
            }
        }
        Ok(())
    }

    /// Continues a prompt: calls `each(token)` for every token chosen, until `output` tokens are out, one is among
    /// `stop`, or `each` says no.
    ///
    /// # Errors
    /// When the prompt is empty, prompt and answer are too long, or the prompt holds an unknown token.
    pub fn generate(
        &mut self,
        prompt: &[u32],
        output: usize,
        stop: &[u32],
        sampling: Sampling,
        each: &mut dyn FnMut(u32) -> bool,
    ) -> Result<(), RunnerError> {
        // The last token chosen is never fed.
        self.check(prompt, (prompt.len() + output).saturating_sub(1))?;
        let mut next = 0;
        let mut text = prompt.to_vec();
        for (i, chunk) in prompt.chunks(self.chunk).enumerate() {
            let start = i * self.chunk;
            let last = start + chunk.len() == prompt.len();
            next = self.step(start, chunk, last.then_some((sampling, 1)), &text)?;
        }
        for ordinal in 1..=output {
            if !each(next) || stop.contains(&next) || ordinal == output {
                break;
            }
            text.push(next);
            let ordinal_next = u32::try_from(ordinal).unwrap_or(u32::MAX).saturating_add(1);
            next = self.step(prompt.len() + ordinal - 1, &[next], Some((sampling, ordinal_next)), &text)?;
        }
        Ok(())
    }

    /// Continues several prompts side by side, each by its likeliest tokens, `output` of them: `each()` is called when all
    /// have one more. For measurements: the answers are not kept.
    ///
    /// # Errors
    /// As [`Self::generate`]; all sequences share the room.
    pub fn together(&mut self, prompts: &[Vec<u32>], output: usize, each: &mut dyn FnMut()) -> Result<(), RunnerError> {
        let longest = prompts.iter().map(|prompt| prompt.len() + output).max().unwrap_or(0);
        let blocks = blocks_for(longest);
        let room = blocks_for(self.room);
        if blocks * prompts.len() > room || prompts.len() > self.chunk {
            return Err(RunnerError::TooLong { tokens: longest * prompts.len(), room: self.room });
        }
        let first = |sequence: usize| (sequence * blocks) as u32..;
        let mut next = Vec::new();
        for (sequence, prompt) in prompts.iter().enumerate() {
            self.check(prompt, prompt.len() + output)?;
            for (i, chunk) in prompt.chunks(self.chunk).enumerate() {
                let mut pass = std::mem::take(&mut self.pass);
                pass.clear();
                pass.push(i * self.chunk, chunk, first(sequence), [chunk.len() - 1]);
                pass.ask(Sampling::GREEDY, 1, std::iter::empty());
                self.pipeline.send(pass);
                self.pass = self.received()?;
            }
            next.extend(self.pass.chosen.first());
        }
        for step in 0..output {
            let mut pass = std::mem::take(&mut self.pass);
            pass.clear();
            for (sequence, (prompt, &token)) in prompts.iter().zip(&next).enumerate() {
                pass.push(prompt.len() + step, &[token], first(sequence), [0]);
                pass.ask(Sampling::GREEDY, 1, std::iter::empty());
            }
            self.pipeline.send(pass);
            self.pass = self.received()?;
            next.clone_from(&self.pass.chosen);
            each();
        }
        Ok(())
    }

    /// What bringing layers has done so far; none where all weights are held.
    #[must_use]
    pub fn offloaded(&self) -> Option<Offloaded> {
        self.pass.offloaded
    }

    /// Feeds tokens from position `start` on; returns the token chosen, if one is wanted, else 0.
    fn step(
        &mut self,
        start: usize,
        tokens: &[u32],
        choice: Option<(Sampling, u32)>,
        text: &[u32],
    ) -> Result<u32, RunnerError> {
        let mut pass = std::mem::take(&mut self.pass);
        pass.clear();
        pass.push(start, tokens, 0.., choice.map(|_| tokens.len() - 1));
        if let Some((sampling, ordinal)) = choice {
            pass.ask(sampling, ordinal, text.iter().rev().copied());
        }
        self.pipeline.send(pass);
        self.pass = self.received()?;
        Ok(self.pass.chosen.first().copied().unwrap_or(0))
    }

    /// The pass that comes back, if every stage took it.
    fn received(&mut self) -> Result<Pass, RunnerError> {
        let mut pass = self.pipeline.receive();
        pass.failed.take().map_or(Ok(pass), |error| Err(RunnerError::Device(error)))
    }

    /// What the first stage's device has done since it was opened; none where that is the processor.
    #[must_use]
    pub fn counters(&self) -> Option<Counters> {
        self.pipeline.counters()
    }

    /// Bytes that the first stage has allocated on its card, and the card's memory as its driver tells it; none where
    /// the stage is on the processor.
    ///
    /// # Errors
    /// What the driver says.
    pub fn card_memory(&mut self) -> Result<Option<(u64, MemoryInfo)>, RunnerError> {
        self.pipeline.card_memory().map_err(|error| RunnerError::Device(Box::new(error)))
    }

    fn check(&self, tokens: &[u32], positions: usize) -> Result<(), RunnerError> {
        if positions > self.room || tokens.is_empty() {
            return Err(RunnerError::TooLong { tokens: positions, room: self.room });
        }
        match tokens.iter().find(|&&token| token as usize >= self.vocabulary) {
            Some(&token) => Err(RunnerError::UnknownToken { token, vocabulary: self.vocabulary }),
            None => Ok(()),
        }
    }
}
