//! One folder per attack. Each shows that the attack is refused, and that the same bytes without it are accepted. Attacks
//! on permissions, quotas and tokens are beside the crate that decides them, in `access/tests/attacks`.

mod altered_byte;
mod altered_log;
mod duplicate_signer;
mod expired;
mod forged_handover;
mod forged_payload;
mod forked_log;
mod not_yet_valid;
mod other_cluster;
mod other_node;
mod oversized_input;
mod path_traversal;
mod replayed_counter;
mod rolled_back_key_set;
mod stolen_lease;
mod swapped_shard;
mod tail_deletion;
mod truncated_log;
mod wrong_key;
