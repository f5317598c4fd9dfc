//! One module per attack. Each shows that the attack is refused, and that the same bytes without it are accepted. Attacks
//! on permissions and quotas are beside the crate that decides them, in `access/tests/attacks`.

mod altered;
mod forged_payload;
mod key_sets;
mod leases;
mod log_against_witness;
mod log_tampering;
mod rollback;
mod signatures;
mod substitution;
mod wrong_time;
