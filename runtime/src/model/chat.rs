//! Conversations to prompts, by the template the model's file carries.
//!
//! Templates are programs from a stranger, in the Jinja dialect of Hugging Face's `apply_chat_template`. They see the
//! messages and the texts of special tokens, nothing else: no files, no environment, and the date only if the caller
//! gives one. Steps, recursion, template length and output length are bounded. What is not: one string built in
//! memory by repeated joining, so that a hostile template can still exhaust memory before its output is written.

use std::io::{self, Write};

use jiff::civil::DateTime;
use minijinja::{Environment, Error, ErrorKind, Value, context};
use serde::{Deserialize, Serialize};

use super::gguf::{Gguf, Metadata, MetadataError};

/// Longest template, in bytes; the longest in common use have about ten thousand.
const TEMPLATE_BYTES_MAX: usize = 256 << 10;
/// Longest prompt, in bytes.
const PROMPT_BYTES_MAX: usize = 32 << 20;
/// Steps of the template's program: some for itself, more for every message.
const STEPS: u64 = 200_000;
const STEPS_PER_MESSAGE: u64 = 20_000;
/// Marks an error raised by the template itself, so that it can be told from errors in the template.
const RAISED: &str = "raised by the template: ";

/// The form of ChatML: what a model with `<|im_start|>` and `<|im_end|>` but no template was trained on.
const CHATML: &str = "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}\
    {{ '<|im_start|>system\nYou are a helpful assistant<|im_end|>\n' }}{% endif %}\
    {{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user` or `assistant`.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A message with this role.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

/// How a model wants conversations written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatTemplate {
    source: String,
    from_file: bool,
    /// Texts of special tokens, by the names templates use.
    bos: String,
    eos: String,
    unknown: String,
    padding: String,
}

/// Why a conversation could not be written as a prompt.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// An entry of the wrong kind.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// The file says nothing about conversations.
    #[error("the model has no chat template and no ChatML tokens; give the prompt as plain text")]
    NoTemplate,
    /// A template too long to be one.
    #[error("the chat template has {length} bytes, the limit is {limit}; give the prompt as plain text")]
    TooLong {
        /// Its length.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// The template refuses this conversation, in its own words.
    #[error("the model's chat template refuses the conversation: {message}")]
    Refused {
        /// What it says.
        message: String,
    },
    /// The template asks for the date and the caller gave none.
    #[error("the model's chat template asks for the date, and none was given")]
    NoDate,
    /// The template is wrong, or went past its limits.
    #[error("the model's chat template fails; give the prompt as plain text")]
    Template {
        /// Where and why.
        #[source]
        source: Error,
    },
}

impl ChatTemplate {
    /// The template of a file: its own, or ChatML where its vocabulary has the tokens for it.
    ///
    /// # Errors
    /// When there is neither, or the file's template is too long or no template.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, ChatError> {
        let metadata = gguf.metadata();
        let own = metadata.text("tokenizer.chat_template")?;
        let source = match own {
            Some(source) => source,
            None if has_chatml(metadata)? => CHATML,
            None => return Err(ChatError::NoTemplate),
        };
        let text_of = |key| special_text(metadata, key);
        let template = Self {
            source: source.into(),
            from_file: own.is_some(),
            bos: text_of("tokenizer.ggml.bos_token_id")?,
            eos: text_of("tokenizer.ggml.eos_token_id")?,
            unknown: text_of("tokenizer.ggml.unknown_token_id")?,
            padding: text_of("tokenizer.ggml.padding_token_id")?,
        };
        if source.len() > TEMPLATE_BYTES_MAX {
            return Err(ChatError::TooLong { length: source.len(), limit: TEMPLATE_BYTES_MAX });
        }
        environment(None, 0).template_from_str(source).map_err(|source| ChatError::Template { source })?;
        Ok(template)
    }

    /// Whether the template is the file's own, not the ChatML form put in its place.
    pub fn is_from_file(&self) -> bool {
        self.from_file
    }

    /// Writes a conversation as a prompt. With `answer`, it ends where the assistant's answer begins. `now` is what
    /// templates that write the date get to see.
    ///
    /// # Errors
    /// When the template refuses the conversation, asks for an absent date, fails, or passes its limits.
    pub fn render(&self, messages: &[Message], answer: bool, now: Option<DateTime>) -> Result<String, ChatError> {
        let environment = environment(now, messages.len() as u64);
        let context = context! {
            messages => messages,
            add_generation_prompt => answer,
            bos_token => self.bos,
            eos_token => self.eos,
            unk_token => self.unknown,
            pad_token => self.padding,
            tools => Value::from(()),
            documents => Value::from(()),
        };
        let mut prompt = Bounded { text: Vec::new(), limit: PROMPT_BYTES_MAX };
        let template = environment.template_from_str(&self.source).map_err(|source| ChatError::Template { source })?;
        template.render_captured_to(context, &mut prompt).map_err(why)?;
        Ok(String::from_utf8(prompt.text).expect("templates write whole strings"))
    }
}

/// The world a template sees: Hugging Face's whitespace rules, Python's string methods and three functions.
fn environment(now: Option<DateTime>, messages: u64) -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_keep_trailing_newline(false);
    environment.set_fuel(Some(STEPS + STEPS_PER_MESSAGE.saturating_mul(messages)));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, format!("{RAISED}{message}")))
    });
    environment.add_function("strftime_now", move |format: String| -> Result<String, Error> {
        let now = now.ok_or_else(|| Error::new(ErrorKind::MissingArgument, "no date").with_source(DateWanted))?;
        jiff::fmt::strtime::format(format, now)
            .map_err(|source| Error::new(ErrorKind::InvalidOperation, "bad date format").with_source(source))
    });
    // The built-in filter escapes for HTML, which the reference does not.
    environment.add_filter("tojson", |value: Value| -> Result<String, Error> {
        serde_json::to_string(&value)
            .map_err(|source| Error::new(ErrorKind::BadSerialization, "no JSON").with_source(source))
    });
    environment
}

/// The date was asked for and not given.
#[derive(Debug, thiserror::Error)]
#[error("no date was given")]
struct DateWanted;

fn why(error: Error) -> ChatError {
    use std::error::Error as _;
    if error.source().is_some_and(|source| source.is::<DateWanted>()) {
        return ChatError::NoDate;
    }
    match error.detail().and_then(|detail| detail.strip_prefix(RAISED)) {
        Some(message) => ChatError::Refused { message: message.chars().take(500).collect() },
        None => ChatError::Template { source: error },
    }
}

fn has_chatml(metadata: &Metadata) -> Result<bool, MetadataError> {
    let Some(tokens) = metadata.texts("tokenizer.ggml.tokens")? else { return Ok(false) };
    let has = |text: &str| tokens.iter().any(|token| token == text);
    Ok(has("<|im_start|>") && has("<|im_end|>"))
}

/// The text of a special token; empty when the file names none.
fn special_text(metadata: &Metadata, key: &str) -> Result<String, MetadataError> {
    let id = metadata.count(key)?.and_then(|id| usize::try_from(id).ok());
    let tokens = metadata.texts("tokenizer.ggml.tokens")?;
    Ok(id.zip(tokens).and_then(|(id, tokens)| tokens.get(id)).unwrap_or_default().into())
}

/// A writer that takes so much and no more.
struct Bounded {
    text: Vec<u8>,
    limit: usize,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.limit - self.text.len() {
            return Err(io::Error::other(format!("the prompt passes {} bytes", self.limit)));
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
