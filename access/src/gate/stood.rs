//! A job that the rules let go on, remembered.

use super::Request;
use crate::authority::Authority;
use crate::permission::Permission;
use isotherm_audit::keys::KeyId;
use isotherm_audit::lease::Lease;
use isotherm_audit::time::Timestamp;
use std::sync::Arc;

/// Everything that decisions about a job that goes on depend on, all of which allowed it.
pub(super) struct Stood {
    rules: Arc<Authority>,
    principal: KeyId,
    asked: Vec<(Permission, String)>,
    lease: Option<Lease>,
    now: Timestamp,
}

impl Stood {
    /// A request of which every part was allowed by these rules.
    pub(super) fn new(rules: Arc<Authority>, request: &Request<'_>) -> Self {
        Self {
            rules,
            principal: request.principal,
            asked: request.asked().map(|(permission, device, _)| (permission, device.to_owned())).collect(),
            lease: request.lease.map(|(lease, _)| lease.predicate.clone()),
            now: request.now,
        }
    }

    /// Whether a request would be decided as that one was: the same rules are asked the same at the same second.
    pub(super) fn is_same(&self, rules: &Arc<Authority>, request: &Request<'_>) -> bool {
        let asked = request.asked().map(|(permission, device, _)| (permission, device));
        Arc::ptr_eq(&self.rules, rules)
            && self.now == request.now
            && self.principal == request.principal
            && self.lease.as_ref() == request.lease.map(|(lease, _)| &lease.predicate)
            && self.asked.iter().map(|(permission, device)| (*permission, device.as_str())).eq(asked)
    }
}
