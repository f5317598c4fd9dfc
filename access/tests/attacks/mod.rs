//! One folder per attack on permissions, quotas and tokens.

mod oversized_input;
mod path_traversal;
mod permission_escalation;
mod quota_race;
mod token_replay;
