//! What can happen: the kinds of events, how much each matters, and how it ended.

use serde::{Deserialize, Serialize};

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal,)*) => {
        /// What happened. The list grows; a reader keeps the name of a kind it does not know.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum EventKind {
            $($(#[$doc])* $kind,)*
        }

        impl EventKind {
            /// Every kind this version writes.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// The name in the log.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => concat!("isotherm.", $name),)*
                }
            }
        }
    };
}

kinds! {
    /// A key was made.
    KeysCreated = "keys.created",
    /// A key took the place of another.
    KeyRotated = "keys.rotated",
    /// A signed set of keys was accepted.
    KeySetAccepted = "keys.set_accepted",
    /// Devices and links were measured.
    Probe = "probe",
    /// A scenario was solved.
    Plan = "plan",
    /// A plan passed the independent checker.
    PlanAccepted = "plan.accepted",
    /// A plan did not pass the independent checker.
    PlanRejected = "plan.rejected",
    /// A plan was simulated.
    Simulate = "simulate",
    /// A manifest was signed.
    Seal = "seal",
    /// A manifest was signed by a further key.
    Approve = "approve",
    /// A document verified.
    VerifyAccepted = "verify.accepted",
    /// A document did not verify.
    VerifyRefused = "verify.refused",
    /// A run began.
    RunStarted = "run.started",
    /// A run ended.
    RunFinished = "run.finished",
    /// The governor acted before the hardware had to.
    ThermalAction = "thermal.action",
    /// The log was found unfinished after a crash.
    LogRecovered = "log.recovered",
    /// Entries were moved out of the log; their hashes stay.
    LogRetained = "log.retained",
    /// Devices were listed.
    DeviceList = "device.list",
    /// A device was described.
    DeviceInfo = "device.info",
    /// A device was taken for a job.
    DeviceAllocate = "device.allocate",
    /// Memory of a device was taken.
    MemoryAllocate = "memory.allocate",
    /// Memory of a device was given back.
    MemoryDeallocate = "memory.deallocate",
    /// Bytes went from host to device.
    MemoryCopyToDevice = "memory.copy_to_device",
    /// Bytes went from device to host.
    MemoryCopyFromDevice = "memory.copy_from_device",
    /// Bytes went from device to device.
    MemoryCopyDeviceToDevice = "memory.copy_device_to_device",
    /// A device computed.
    ComputeExecute = "compute.execute",
    /// Somebody waited for a device.
    ComputeSynchronize = "compute.synchronize",
    /// Memory use was read.
    MonitorMemory = "monitor.memory",
    /// A temperature was read.
    MonitorTemperature = "monitor.temperature",
    /// A power draw was read.
    MonitorPower = "monitor.power",
    /// A clock rate was read.
    MonitorClock = "monitor.clock",
    /// A request was denied.
    SecurityAccessDenied = "security.access_denied",
    /// A request went beyond a quota.
    SecurityQuotaExceeded = "security.quota_exceeded",
    /// A principal or policy came in.
    SecurityPolicyAdded = "security.policy_added",
    /// A principal or policy went out.
    SecurityPolicyRemoved = "security.policy_removed",
    /// A principal or policy changed.
    SecurityPolicyUpdated = "security.policy_updated",
    /// A token was issued.
    TokenIssued = "security.token_issued",
    /// A token or a principal was revoked.
    TokenRevoked = "security.token_revoked",
    /// A request came too soon after others.
    RateLimited = "security.rate_limited",
    /// A connection was refused.
    ConnectionRefused = "security.connection_refused",
    /// Memory of a crashed job was given back to its quota.
    QuotaSwept = "security.quota_swept",
    /// A backend started.
    SystemBackendInitialized = "system.backend_initialized",
    /// A backend ended.
    SystemBackendShutdown = "system.backend_shutdown",
    /// A search for devices began.
    SystemDiscoveryStarted = "system.discovery_started",
    /// A search for devices ended.
    SystemDiscoveryCompleted = "system.discovery_completed",
}

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// For whoever looks for a fault.
    Debug,
    /// Normal.
    Info,
    /// Refused or unusual.
    Warning,
    /// Failed.
    Error,
    /// Needs somebody now.
    Critical,
}

impl Severity {
    /// The word in the log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventResult {
    /// It was done.
    Success,
    /// It was tried and broke.
    Failure,
    /// It was not allowed.
    Denied,
}

impl EventResult {
    /// The word in the log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Denied => "denied",
        }
    }

    /// What it matters unless somebody knows better: a failure is an error, a denial a warning.
    #[must_use]
    pub const fn severity(self) -> Severity {
        match self {
            Self::Success => Severity::Info,
            Self::Failure => Severity::Error,
            Self::Denied => Severity::Warning,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_kind_has_a_name_of_its_own() {
        let names: BTreeSet<_> = EventKind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.len(), EventKind::ALL.len());
        assert!(names.iter().all(|name| name.starts_with("isotherm.")));
    }

    #[test]
    fn a_failure_is_an_error_and_a_denial_a_warning() {
        assert_eq!(EventResult::Failure.severity(), Severity::Error);
        assert_eq!(EventResult::Denied.severity(), Severity::Warning);
        assert_eq!(EventResult::Success.severity(), Severity::Info);
    }
}
