//! Text to tokens and back: byte-level BPE with the vocabulary and merges of the file, or SentencePiece with its scores.

mod control;
mod pieces;
mod split;
mod stops;
mod stream;

use std::collections::BTreeSet;
use std::error::Error;

use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::{Model as _, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _};

use self::control::ControlTokens;
use self::pieces::Pieces;
pub use self::stops::Stops;
pub use self::stream::Stream;
use super::gguf::{Array, Gguf, Metadata, MetadataError, Strings, Value};

/// White-space characters in a row beyond which a text is refused: the pattern matcher keeps one entry per character
/// of a run on a stack of a million, and past its end it would split the text wrongly without saying so.
const WHITE_SPACE_RUN_MAX: usize = 500_000;

/// Texts of control tokens that end a turn, whatever the file's `eos_token_id` says. Files name only one, and chat
/// models stop with another.
const END_TEXTS: [&str; 6] = ["<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "<|eom_id|>", "</s>"];

/// A tokenizer, ready to use from many threads.
pub struct Tokenizer {
    method: Method,
    control: ControlTokens,
    /// The bytes of every token, one after another.
    bytes: Vec<u8>,
    /// Where each token's bytes end.
    ends: Vec<usize>,
    bos: Option<u32>,
    eos: Option<u32>,
    add_bos: bool,
    end: BTreeSet<u32>,
}

/// How plain text becomes tokens.
enum Method {
    /// Words cut by a pattern, their bytes merged by rank.
    Bytes(Box<BPE>, Sequence),
    /// Characters merged by score.
    Pieces(Box<Pieces>),
}

/// Why a file's tokenizer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// An entry is missing or of the wrong kind.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// Another kind of tokenizer.
    #[error(
        "tokenizer {found:?} is not supported, only byte-level BPE (\"gpt2\") and SentencePiece (\"llama\"); choose another model"
    )]
    Kind {
        /// What the file names.
        found: String,
    },
    /// A way of splitting text that is not known.
    #[error("pre-tokenizer {found:?} is not supported, only {known}; choose another model", known = split::NAMES.join(", "))]
    PreTokenizer {
        /// What the file names.
        found: String,
    },
    /// A list whose length is not that of the vocabulary.
    #[error("metadata {key:?} has {found} entries for {tokens} tokens; the file is damaged, download it again")]
    Length {
        /// The list.
        key: &'static str,
        /// Its length.
        found: usize,
        /// Tokens in the vocabulary.
        tokens: usize,
    },
    /// A merge that is no pair of tokens making a token.
    #[error(
        "merge {index} is {text:?}, which is not two tokens that make a third; the file is damaged, download it again"
    )]
    Merge {
        /// Its number, from 0.
        index: usize,
        /// The merge as the file has it.
        text: String,
    },
    /// A special token outside the vocabulary.
    #[error("metadata {key:?} is {id}, the vocabulary has {tokens} tokens; the file is damaged, download it again")]
    Special {
        /// The key.
        key: &'static str,
        /// The token it names.
        id: u64,
        /// Tokens in the vocabulary.
        tokens: usize,
    },
    /// The tokenizer library refused.
    #[error("the tokenizer cannot be built")]
    Build {
        /// What it said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

/// Why a text could not be turned into tokens.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// Too much white space in one place.
    #[error("the text has {length} white-space characters in a row, the limit is {limit}; shorten the run")]
    WhiteSpace {
        /// Length of the run, in characters.
        length: usize,
        /// The longest run allowed.
        limit: usize,
    },
    /// The tokenizer library refused.
    #[error("the text cannot be tokenised")]
    Library {
        /// What it said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

/// A token that is not in the vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("token {id} is not in the vocabulary of {tokens}")]
pub struct UnknownToken {
    /// The token.
    pub id: u32,
    /// Tokens in the vocabulary.
    pub tokens: usize,
}

impl Tokenizer {
    /// Builds the tokenizer of a file.
    ///
    /// # Errors
    /// When the file has none, one of another kind, or one that contradicts itself.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, TokenizerError> {
        Self::from_metadata(gguf.metadata())
    }

    /// Builds the tokenizer that metadata describe.
    ///
    /// # Errors
    /// As [`from_gguf`](Self::from_gguf).
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, TokenizerError> {
        let kind = required(metadata.text("tokenizer.ggml.model")?, "tokenizer.ggml.model")?;
        if !matches!(kind, "gpt2" | "llama") {
            return Err(TokenizerError::Kind { found: shortened(kind) });
        }
        let tokens = required(metadata.texts("tokenizer.ggml.tokens")?, "tokenizer.ggml.tokens")?;
        let kinds = kinds(metadata, tokens.len())?;
        let special = |key| special(metadata, key, tokens.len());
        let (bos, eos) = (special("tokenizer.ggml.bos_token_id")?, special("tokenizer.ggml.eos_token_id")?);
        let eot = special("tokenizer.ggml.eot_token_id")?;

        let control = ControlTokens::new(tokens, &kinds);
        let (method, adds_bos) = if kind == "llama" {
            let unknown = special("tokenizer.ggml.unknown_token_id")?;
            (Method::Pieces(Box::new(pieces_of(metadata, tokens, &kinds, unknown)?)), true)
        } else {
            let name = metadata.text("tokenizer.ggml.pre")?.unwrap_or("gpt-2");
            let rule = split::rule(name).ok_or_else(|| TokenizerError::PreTokenizer { found: shortened(name) })?;
            let merges = required(metadata.texts("tokenizer.ggml.merges")?, "tokenizer.ggml.merges")?;
            let split = split::pre_tokenizer(rule).map_err(|source| TokenizerError::Build { source })?;
            (Method::Bytes(Box::new(bpe(tokens, merges, rule.whole_words_first)?), split), rule.adds_bos)
        };
        let named = END_TEXTS.iter().filter_map(|text| control.id_of(text));
        let end = named.chain(eos).chain(eot).collect();
        let (bytes, ends) = token_bytes(tokens, &kinds, matches!(method, Method::Pieces(_)));
        Ok(Self {
            method,
            control,
            bytes,
            ends,
            bos,
            eos,
            add_bos: metadata.flag("tokenizer.ggml.add_bos_token")?.unwrap_or(adds_bos) && bos.is_some(),
            end,
        })
    }

    /// Number of tokens.
    pub fn vocabulary(&self) -> usize {
        self.ends.len()
    }

    /// The token that begins a text.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a text.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Whether the model expects [`bos`](Self::bos) before every text.
    pub fn adds_bos(&self) -> bool {
        self.add_bos
    }

    /// Whether generation stops at this token: the file's end token, and control tokens known to end a turn.
    pub fn is_end(&self, id: u32) -> bool {
        self.end.contains(&id)
    }

    /// Whether this is a control token, which stands for no text a reader should see.
    pub fn is_control(&self, id: u32) -> bool {
        self.control.is_control(id)
    }

    /// The token whose text is exactly this, if it is a control token.
    pub fn control_token(&self, text: &str) -> Option<u32> {
        self.control.id_of(text).filter(|&id| self.is_control(id))
    }

    /// The tokens of a text. With `special`, control tokens written in the text (`<|im_start|>`) become that token;
    /// without, they are text like any other, which is what untrusted text must be. No BOS is added. A byte that
    /// the vocabulary lacks leaves no token, as in llama.cpp and the tokenizer's own library.
    ///
    /// # Errors
    /// When the text has a run of white space past half a million characters.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, EncodeError> {
        check_white_space(text)?;
        let mut tokens = Vec::with_capacity(text.len() / 3 + 1);
        let mut rest = text;
        while !rest.is_empty() {
            let (before, found) = match self.control.first_in(rest, special) {
                Some((start, length, id)) => (&rest[..start], Some((start + length, id))),
                None => (rest, None),
            };
            self.encode_plain(before, &mut tokens)?;
            let Some((after, id)) = found else { break };
            tokens.push(id);
            rest = &rest[after..];
        }
        Ok(tokens)
    }

    /// The tokens a model is given for a prompt: control tokens recognised, BOS put first where the file asks for it
    /// and the text has none.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>, EncodeError> {
        let mut tokens = self.encode(text, true)?;
        if let Some(bos) = self.bos.filter(|&bos| self.add_bos && tokens.first() != Some(&bos)) {
            tokens.insert(0, bos);
        }
        Ok(tokens)
    }

    fn encode_plain(&self, text: &str, tokens: &mut Vec<u32>) -> Result<(), EncodeError> {
        if text.is_empty() {
            return Ok(());
        }
        let library = |source| EncodeError::Library { source };
        match &self.method {
            Method::Bytes(bpe, split) => {
                let mut pieces = PreTokenizedString::from(text);
                split.pre_tokenize(&mut pieces).map_err(library)?;
                for (piece, _, _) in pieces.get_splits(OffsetReferential::Normalized, OffsetType::Byte) {
                    tokens.extend(bpe.tokenize(piece).map_err(library)?.iter().map(|token| token.id));
                }
            }
            Method::Pieces(pieces) => {
                // A space is put before the text and after each control token in it, as in llama.cpp.
                let begins = tokens.last().is_none_or(|&last| self.control.is_control(last));
                pieces.encode(text, pieces.space_prefix && begins, tokens);
            }
        }
        Ok(())
    }

    /// The bytes of one token; of a control token, those of its text.
    ///
    /// # Errors
    /// When the token is not in the vocabulary.
    pub fn bytes_of(&self, id: u32) -> Result<&[u8], UnknownToken> {
        let unknown = UnknownToken { id, tokens: self.vocabulary() };
        let index = usize::try_from(id).map_err(|_| unknown)?;
        let end = *self.ends.get(index).ok_or(unknown)?;
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        Ok(&self.bytes[start..end])
    }

    /// The text of some tokens, control tokens written out. Bytes that are no UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// When a token is not in the vocabulary.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, UnknownToken> {
        let mut bytes = Vec::with_capacity(4 * tokens.len());
        for &id in tokens {
            bytes.extend_from_slice(self.bytes_of(id)?);
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A decoder that takes tokens one at a time.
    pub fn stream(&self) -> Stream<'_> {
        Stream::new(self)
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer").field("vocabulary", &self.vocabulary()).finish_non_exhaustive()
    }
}

/// What a token is to the model (`tokenizer.ggml.token_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TokenKind {
    /// Text, byte, unused or unknown.
    Ordinary,
    /// Recognised in text on request only.
    Control,
    /// Recognised in text always.
    UserDefined,
}

/// The kind of every token; all ordinary when the file has no list.
fn kinds(metadata: &Metadata, tokens: usize) -> Result<Vec<TokenKind>, TokenizerError> {
    let key = "tokenizer.ggml.token_type";
    let Some(numbers) = metadata.integers(key)? else { return Ok(vec![TokenKind::Ordinary; tokens]) };
    if numbers.len() != tokens {
        return Err(TokenizerError::Length { key, found: numbers.len(), tokens });
    }
    let kind = |&number: &i64| match number {
        3 => TokenKind::Control,
        4 => TokenKind::UserDefined,
        _ => TokenKind::Ordinary,
    };
    Ok(numbers.iter().map(kind).collect())
}

fn special(metadata: &Metadata, key: &'static str, tokens: usize) -> Result<Option<u32>, TokenizerError> {
    match metadata.count(key)? {
        None => Ok(None),
        Some(id) if id < tokens as u64 => Ok(u32::try_from(id).ok()),
        Some(id) => Err(TokenizerError::Special { key, id, tokens }),
    }
}

/// Builds the merging model. Of tokens with the same text the first counts, so that its encoding is stable.
fn bpe(tokens: &Strings, merges: &Strings, whole_words_first: bool) -> Result<BPE, TokenizerError> {
    let mut vocabulary = tokenizers::models::bpe::Vocab::default();
    for (id, token) in (0_u32..).zip(tokens.iter()) {
        vocabulary.entry(token.to_owned()).or_insert(id);
    }
    let mut pairs = Vec::with_capacity(merges.len());
    for (index, text) in merges.iter().enumerate() {
        // A part is never empty, so the separating space is not the first character.
        let first = text.chars().next().map_or(0, char::len_utf8);
        let pair = text[first..].split_once(' ').map(|(rest, right)| (&text[..first + rest.len()], right));
        let sound = pair.filter(|(left, right)| {
            let joined = [*left, *right].concat();
            [*left, right, &joined].iter().all(|part| vocabulary.contains_key(*part))
        });
        let Some((left, right)) = sound else {
            return Err(TokenizerError::Merge { index, text: shortened(text) });
        };
        pairs.push((left.to_owned(), right.to_owned()));
    }
    BPE::builder()
        .vocab_and_merges(vocabulary, pairs)
        .ignore_merges(whole_words_first)
        .build()
        .map_err(|source| TokenizerError::Build { source })
}

/// The vocabulary of a SentencePiece file.
fn pieces_of(
    metadata: &Metadata,
    tokens: &Strings,
    kinds: &[TokenKind],
    unknown: Option<u32>,
) -> Result<Pieces, TokenizerError> {
    let key = "tokenizer.ggml.scores";
    let scores = match metadata.get(key) {
        Some(Value::Array(Array::F32(scores))) => scores.clone(),
        _ => required(None, key)?,
    };
    if scores.len() != tokens.len() {
        return Err(TokenizerError::Length { key, found: scores.len(), tokens: tokens.len() });
    }
    let ordinary = |id: u32| kinds[id as usize] != TokenKind::Control;
    let space_prefix = metadata.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    Ok(Pieces::new(tokens.iter(), scores, ordinary, unknown, space_prefix))
}

/// The bytes that every token stands for, one after another, and where each token's end. Of SentencePiece's, `<0x0A>` is a
/// byte and U+2581 a space.
fn token_bytes(tokens: &Strings, kinds: &[TokenKind], pieces: bool) -> (Vec<u8>, Vec<usize>) {
    let byte_of: std::collections::BTreeMap<char, u8> = (0..=255).map(|byte| (byte_as_char(byte), byte)).collect();
    let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(tokens.len()));
    for (token, kind) in tokens.iter().zip(kinds) {
        if pieces {
            match pieces::byte_of(token).filter(|_| *kind == TokenKind::Ordinary) {
                Some(byte) => bytes.push(byte),
                None => bytes.extend_from_slice(token.replace(pieces::SPACE, " ").as_bytes()),
            }
            ends.push(bytes.len());
            continue;
        }
        let plain: Option<Vec<u8>> = token.chars().map(|c| byte_of.get(&c).copied()).collect();
        match plain {
            Some(plain) if *kind == TokenKind::Ordinary => bytes.extend_from_slice(&plain),
            // Control tokens are written as they are, and so is text that is not in the byte alphabet.
            _ => bytes.extend_from_slice(token.as_bytes()),
        }
        ends.push(bytes.len());
    }
    (bytes, ends)
}

/// The character that stands for a byte in a byte-level vocabulary: itself where it is printable Latin-1, else the
/// next free one from U+0100 up (`bytes_to_unicode` of GPT-2's published encoder).
pub fn byte_as_char(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&other| !printable(other)).count() as u32;
    char::from_u32(0x100 + before).expect("at most 256 characters from U+0100 are all assigned scalar values")
}

fn check_white_space(text: &str) -> Result<(), EncodeError> {
    let mut length = 0;
    for c in text.chars() {
        length = if c.is_whitespace() { length + 1 } else { 0 };
        if length > WHITE_SPACE_RUN_MAX {
            return Err(EncodeError::WhiteSpace { length, limit: WHITE_SPACE_RUN_MAX });
        }
    }
    Ok(())
}

fn required<T>(value: Option<T>, key: &str) -> Result<T, MetadataError> {
    value.ok_or_else(|| MetadataError::Missing { key: key.into() })
}

/// The start of a text from the file, for messages.
fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}
