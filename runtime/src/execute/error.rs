//! Why a plan is not executed.

use crate::backend::DeviceError;
use crate::cpu::attention::CACHE_BLOCK;
use crate::engine::StartError;
use isotherm_core::serving::ServingError;
use isotherm_core::units::Bytes;

/// Why a plan was not executed.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    /// A model whose shape the kernels do not take.
    #[error("this model has {0}, which the kernels do not take")]
    Unsupported(String),
    /// The plan is for another model.
    #[error("the plan places {planned} layers, the model has {found}")]
    OtherModel {
        /// Layers of the plan.
        planned: u32,
        /// Layers of the file.
        found: usize,
    },
    /// A stage asks for another format than the file's.
    #[error(
        "stage {stage} holds its layers in {planned}, the model file has them in {found}; this version executes a file as \
         it is: plan without choices.quantisations, or with a file in that format"
    )]
    Format {
        /// Position of the stage.
        stage: usize,
        /// Format of the plan.
        planned: String,
        /// Format of the file.
        found: String,
    },
    /// A stage on several devices.
    #[error(
        "stage {stage} is held by {} together; this version executes one device per stage: plan without \
         choices.tensor_parallel",
        devices.join(" and ")
    )]
    Group {
        /// Position of the stage.
        stage: usize,
        /// Its devices.
        devices: Vec<String>,
    },
    /// The plan has prompts and answers on devices of their own.
    #[error(
        "the plan prefills on some devices and decodes on others; this version moves no cache between devices: plan \
         with --disaggregate never"
    )]
    Divided,
    /// The plan has several routes.
    #[error("the plan has {0} routes; this version executes plans of one route")]
    Routes(usize),
    /// A device of the plan is not here.
    #[error("device {device:?} is absent: {why}; probe this host and plan again")]
    Absent {
        /// The device.
        device: String,
        /// What is missing.
        why: String,
    },
    /// The plan needs more memory than is free.
    #[error("the plan needs {needed} of memory, {available} are free; end other programs, or plan for less")]
    Memory {
        /// What all stages need.
        needed: Bytes,
        /// What is free.
        available: Bytes,
    },
    /// The cache is managed in other blocks than the kernels use.
    #[error("serving.kv_block_tokens is {found}; the kernels keep {CACHE_BLOCK} tokens in a block")]
    Blocks {
        /// What the plan says.
        found: u32,
    },
    /// A prompt holds a token that the model does not know.
    #[error("request {request} holds token {token}, the model has {vocabulary}")]
    UnknownToken {
        /// Position among the prompts.
        request: usize,
        /// The token.
        token: u32,
        /// Tokens that the model knows.
        vocabulary: usize,
    },
    /// A request is longer than the model can tell positions apart.
    #[error("request {request} and its answer may take {tokens} tokens, the model's context is {context}; shorten it")]
    TooLong {
        /// Position among the prompts.
        request: usize,
        /// Tokens of prompt and answer.
        tokens: usize,
        /// Longest sequence of the model.
        context: usize,
    },
    /// As many times as prompts are needed.
    #[error("{prompts} prompts come at {times} times; give each prompt one time, rising")]
    Arrivals {
        /// Prompts.
        prompts: usize,
        /// Times.
        times: usize,
    },
    /// A stage did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A request can never be served.
    #[error(transparent)]
    Serving(#[from] ServingError),
    /// A device failed while it ran.
    #[error("the run ended: {0}")]
    Device(Box<DeviceError>),
    /// The operating system gave no thread.
    #[error("the driving thread could not be started")]
    Thread(#[source] std::io::Error),
}
