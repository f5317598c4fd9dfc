//! One module per attack on permissions, quotas and leases.

mod escalation;
mod lease_replay;
mod paths_and_sizes;
mod quota_race;
