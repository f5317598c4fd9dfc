//! One module per attack. Each shows that the attack is refused, and that the same bytes without it are accepted.

mod altered;
mod forged_payload;
mod log_tampering;
mod rollback;
mod signatures;
mod substitution;
mod wrong_time;
