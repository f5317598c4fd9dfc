//! Rules about the checkout itself: which crate may see which, under which licences, and what its text may say.
//!
//! They stand in `benches` because it is the one development-only package that may depend on every room; nothing a
//! user installs carries them. Each rule is a function from text to violations with a test that feeds it a bad
//! sample, so that a rule which stopped looking would be noticed.

#![forbid(unsafe_code)]

mod architecture;
mod checkout;
mod commands;
mod licences;
mod links;
mod sources;
mod status;
mod summary;

/// Fails with every violation, one a line, under a heading that says what to do about them.
fn expect_none(what_to_do: &str, violations: &[String]) {
    assert!(violations.is_empty(), "{what_to_do}\n  {}\n", violations.join("\n  "));
}
