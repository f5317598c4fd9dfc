#![forbid(unsafe_code)]
//! Seals manifests, opens only what verifies, and keeps the append-only log.
//!
//! A few rooms in one small crate, which has no clock and no environment of its own: time, folders and randomness are
//! passed in.
//!
//! * [`keys`]: who signs ([`keys::Identity`]) and who is believed ([`keys::TrustedKeys`], k of n); [`keyset`]: who is
//!   believed for what, itself signed, with a version that only rises.
//! * [`seal()`] turns a [`statement::Statement`] into signed bytes, [`open()`] and [`open_run`] turn foreign bytes into a
//!   [`Verified`] one, and nothing else does. [`inspect`] shows what was signed without allowing anything.
//! * [`handover`]: one log, two keys, and the statement that leads from one to the other.
//! * [`lease`]: a right lent for a short time, and the proof that its holder uses it.
//! * [`log`]: what happened, in an order that nobody can change unseen.
//!
//! The formats are described in `docs/manifest.md`. A whole round:
//!
//! ```
//! use isotherm_audit::keys::{Identity, Seed, TrustedKeys};
//! use isotherm_audit::log::{Event, EventKind, Log, LogView, OnLock};
//! use isotherm_audit::time::Timestamp;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let home = tempfile::tempdir()?;
//! // First use makes a key; `created` is for whoever talks to the user.
//! let loaded = Identity::load_or_create(&home.path().join("keys"), Seed::draw)?;
//! assert!(loaded.created);
//! let trusted = TrustedKeys::load(&home.path().join("keys"), 1)?;
//! assert!(trusted.get(loaded.identity.id()).is_some());
//!
//! // The log says what was done. When `append` returns, entry and signed checkpoint are on disk.
//! let now: Timestamp = "2026-11-23T06:55:00Z".parse()?;
//! let (mut log, _) = Log::open(&home.path().join("log"), "isotherm.local/tower", &loaded.identity, OnLock::Wait)?;
//! log.append(&Event::new(EventKind::KeysCreated, now, loaded.identity.id()))?;
//!
//! // A manifest carries `position`, which makes it a witness of the log.
//! let position = log.position();
//! let view = LogView::read(&home.path().join("log"), "isotherm.local/tower", loaded.identity.public())?;
//! view.continues(&position)?;
//! # Ok(())
//! # }
//! ```

pub mod bundle;
pub mod canonical;
pub mod envelope;
pub mod figures;
pub mod handover;
mod hex;
pub mod keyring;
pub mod keys;
pub mod keyset;
pub mod lease;
pub mod log;
pub mod manifest;
pub mod open;
pub mod run;
pub mod seal;
pub mod ssh;
pub mod statement;
pub mod storage;
pub mod text;
pub mod time;

pub use open::{
    Expectations, Inspected, OpenError, RunExpectations, Verified, inspect, inspect_by_roles, open, open_by_roles,
    open_run,
};
pub use seal::{SealError, Sealed, approve, seal};
