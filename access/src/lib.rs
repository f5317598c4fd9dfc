#![forbid(unsafe_code)]
//! Decides who may do what with which device, for how long and with how much memory.
//!
//! * [`permission`]: what may be done, and the roles that group it.
//! * [`directory`]: who there is, each bound to a key, with limits.
//! * [`authority`]: the decision, by Cedar policies that are checked before they count.
//! * [`ledger`]: who holds how much memory, exact under races and after a crash.
//! * [`rates`]: who asked how often, and what was used once.
//! * [`gate`]: all of it in order, each decision logged before it counts.
//!
//! Like `isotherm-audit`, on whose keys, leases and events it stands, it has no clock and no environment of its own.

pub mod authority;
pub mod directory;
pub mod gate;
pub mod ledger;
pub mod permission;
pub mod rates;
mod record;

pub use authority::{Authority, Decision, Question};
pub use directory::{Directory, Principal, RateLimit};
pub use gate::{Admission, Gate, GateError, Request};
pub use ledger::{Booking, Ledger, LedgerError};
pub use permission::{Permission, Role};
