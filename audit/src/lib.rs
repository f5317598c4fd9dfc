#![forbid(unsafe_code)]
//! Seals manifests, opens only what verifies, and keeps the append-only log.
