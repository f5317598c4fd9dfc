//! How a command ends when it does not end well: one exit code, one message, one remedy.

use std::fmt;
use std::path::Path;
use std::process::ExitCode;

/// Exit codes, as documented in `isotherm help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Input or output failed.
    Io = 1,
    /// The command line is off.
    Usage = 2,
    /// The question has no feasible answer.
    Infeasible = 3,
    /// A limit came before any plan.
    Limit = 4,
    /// Something did not verify.
    Verification = 5,
    /// A device is absent or was lost.
    Device = 6,
    /// The simulation breaks a promise of the plan.
    Promise = 7,
    /// Denied by policy or quota.
    Denied = 8,
}

/// A failed command.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub code: Code,
    /// What failed, naming the thing, the value and the limit; several lines where several things failed.
    pub message: String,
    /// What to do, where that is not in the message.
    pub remedy: Option<String>,
}

impl Failure {
    /// A failure with this code and message.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), remedy: None }
    }

    /// The same with something to do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Input that could not be used, or a file that could not be read or written.
    pub fn io(message: impl Into<String>) -> Self {
        Self::new(Code::Io, message)
    }

    /// A file that could not be used, with the reason.
    pub fn file(path: &Path, reason: impl fmt::Display) -> Self {
        Self::io(format!("{}: {reason}", path.display()))
    }

    /// Several faults of one thing, one line each.
    pub fn all<E: fmt::Display>(code: Code, what: impl fmt::Display, faults: &[E]) -> Self {
        let lines: Vec<String> = faults.iter().map(|fault| format!("  {fault}")).collect();
        let noun = if lines.len() == 1 { "fault" } else { "faults" };
        Self::new(code, format!("{what} has {} {noun}:\n{}", lines.len(), lines.join("\n")))
    }

    /// Prints the failure on standard error and gives its exit code.
    pub fn report(&self) -> ExitCode {
        eprintln!("error: {}", self.message);
        if let Some(remedy) = &self.remedy {
            eprintln!("  what to do: {remedy}");
        }
        ExitCode::from(self.code as u8)
    }
}

/// What a command returns.
pub type Done = Result<(), Failure>;
