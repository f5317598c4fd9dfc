//! What the log says of the gate's decisions.

use crate::authority::Decision;
use crate::gate::Request;
use crate::permission::Permission;
use isotherm_audit::log::{Detail, Event, EventKind, EventResult};

/// Bytes as a detail of an event.
pub(crate) fn whole(bytes: u64) -> Detail {
    // Beyond 2^53 a log holds no integer; nothing has so much memory.
    i64::try_from(bytes.min((1 << 53) - 1)).expect("below 2^53").into()
}

/// What the log says of one decision.
pub(crate) fn event(
    request: &Request<'_>,
    permission: Permission,
    device: &str,
    bytes: u64,
    decision: &Decision,
) -> Event {
    let (kind, result) = if decision.allowed {
        (kind_of(permission), EventResult::Success)
    } else if decision.policies.iter().any(|policy| policy == "over-quota" || policy == "lease-memory") {
        (EventKind::SecurityQuotaExceeded, EventResult::Denied)
    } else {
        (EventKind::SecurityAccessDenied, EventResult::Denied)
    };
    let mut event = Event::new(kind, request.now, request.principal).ended(result);
    event.device = Some(device.to_owned());
    event.operation = Some(permission.name().to_owned());
    if !decision.allowed {
        event.error = Some(decision.because());
    }
    event.metadata.insert("policies".to_owned(), decision.policies.join(",").as_str().into());
    if permission == Permission::MemoryAllocate {
        event.metadata.insert("bytes".to_owned(), whole(bytes));
    }
    event.subjects.extend(request.subjects.iter().map(|(role, digest)| ((*role).to_owned(), *digest)));
    if let Some((lease, _)) = request.lease {
        event.subjects.insert("lease".to_owned(), lease.payload_digest());
    }
    event
}

const fn kind_of(permission: Permission) -> EventKind {
    match permission {
        Permission::DeviceList => EventKind::DeviceList,
        Permission::DeviceInfo => EventKind::DeviceInfo,
        Permission::DeviceAllocate => EventKind::DeviceAllocate,
        Permission::MemoryAllocate => EventKind::MemoryAllocate,
        Permission::MemoryDeallocate => EventKind::MemoryDeallocate,
        Permission::MemoryCopyToDevice => EventKind::MemoryCopyToDevice,
        Permission::MemoryCopyFromDevice => EventKind::MemoryCopyFromDevice,
        Permission::MemoryCopyDeviceToDevice => EventKind::MemoryCopyDeviceToDevice,
        Permission::ComputeExecute => EventKind::ComputeExecute,
        Permission::ComputeSynchronize => EventKind::ComputeSynchronize,
        Permission::MonitorMemory => EventKind::MonitorMemory,
        Permission::MonitorTemperature => EventKind::MonitorTemperature,
        Permission::MonitorPower => EventKind::MonitorPower,
        Permission::MonitorClock => EventKind::MonitorClock,
        Permission::AdminFullAccess => EventKind::SecurityPolicyUpdated,
    }
}
