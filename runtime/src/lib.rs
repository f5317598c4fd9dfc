//! Probes devices and executes plans on them.
