//! Deciding: may this principal do this with this device, now?
//!
//! Policies are Cedar's: the shipped ones and those of the installation, held to the schema before any of them counts.
//! Time, memory held and what was revoked are given by whoever asks, never by whoever wants something. An error while a
//! policy is evaluated refuses: Cedar skips a policy that fails, and a forbid that is skipped would let something through.

use crate::directory::Directory;
use crate::permission::{Permission, Role};
use cedar_policy::{
    Authorizer, Context, Decision as Verdict, Entities, Entity, EntityId, EntityTypeName, EntityUid, PolicyId,
    PolicySet, Request, RestrictedExpression, Schema, ValidationMode, Validator,
};
use isotherm_audit::keys::KeyId;
use isotherm_audit::lease::Lease;
use isotherm_audit::time::Timestamp;
use isotherm_core::digest::Digest;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

/// The schema that policies are held to.
pub const SCHEMA: &str = include_str!("schema.cedarschema");
/// The policies every installation begins with.
pub const POLICIES: &str = include_str!("policies.cedar");
/// Largest file of policies read.
pub const POLICY_BYTES_MAX: usize = 1 << 20;
/// Most policies of an installation.
pub const POLICIES_MAX: usize = 1000;
/// Deepest nest of brackets in policies. The engine reads them by recursion, and its own stack is its only limit.
const NEST_MAX: usize = 64;
/// Most operators in policies: a chain of them is as deep as it is long, and beyond a depth that hangs on its stack the
/// engine's validator gives up on an expression without a word, so that its faults show only when it is evaluated.
const OPERATORS_MAX: usize = 1000;
/// The cluster itself, as a thing to have rights over.
pub const SYSTEM: &str = "isotherm";
/// Sums of two of these still fit Cedar's 64-bit numbers.
const BYTES_MAX: u64 = i64::MAX as u64 / 4;
const CACHED_MAX: usize = 10_000;
/// Stack of the validator: at 8 MiB it reads about 2500 nested operators.
const VALIDATOR_STACK_BYTES: usize = 64 << 20;
/// Devices of the rules that new policies are tried on; what fails on one kind of thing fails on the first.
const TRIAL_DEVICES: usize = 16;

/// Why policies do not count.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// Larger than any set of policies.
    #[error("policies of {bytes} bytes; the limit is {POLICY_BYTES_MAX}")]
    TooLarge {
        /// Their length.
        bytes: usize,
    },
    /// More than anybody reviews.
    #[error("{found} policies; the limit is {POLICIES_MAX}")]
    TooMany {
        /// How many there are.
        found: usize,
    },
    /// Deeper or longer than the engine reads without running out of stack.
    #[error(
        "policies nest {nest} brackets and chain {operators} operators; the limits are {NEST_MAX} and {OPERATORS_MAX}"
    )]
    TooDeep {
        /// Deepest nest of brackets.
        nest: usize,
        /// Operators in all.
        operators: usize,
    },
    /// Not the language of policies.
    #[error("policies cannot be read: {0}")]
    Parse(String),
    /// A name that is taken: shipped policies are not replaced.
    #[error("policy {id:?} is there twice; give it an @id of its own")]
    Twice {
        /// The name.
        id: String,
    },
    /// Templates have no principals here.
    #[error("policy {id:?} is a template; write it out")]
    Template {
        /// The name.
        id: String,
    },
    /// Policies that pass the schema and still cannot be evaluated.
    #[error("policies cannot decide {permission}: {why}")]
    Undecided {
        /// What was asked in the trial.
        permission: Permission,
        /// What the engine said.
        why: String,
    },
    /// Policies that speak of what there is not, or compare what cannot be compared.
    #[error("policies do not fit the schema:\n  {}", faults.join("\n  "))]
    Invalid {
        /// All faults.
        faults: Vec<String>,
    },
}

/// What is asked.
#[derive(Debug, Clone)]
pub struct Question<'a> {
    /// Who asks.
    pub principal: KeyId,
    /// For what.
    pub permission: Permission,
    /// On which device; [`SYSTEM`] for [`Permission::AdminFullAccess`].
    pub device: &'a str,
    /// The server's clock.
    pub now: Timestamp,
    /// Memory the principal holds, in bytes.
    pub used_bytes: u64,
    /// Memory it asks for, in bytes.
    pub request_bytes: u64,
    /// The lease it uses, already verified.
    pub lease: Option<&'a Lease>,
}

/// The answer, and the policies it rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may be done.
    pub allowed: bool,
    /// Names of the policies that decided; none where no policy permits it.
    pub policies: Vec<String>,
    /// What they say, in words.
    pub reasons: Vec<String>,
}

impl Decision {
    fn refused(reason: &str) -> Self {
        Self { allowed: false, policies: Vec::new(), reasons: vec![reason.to_owned()] }
    }

    /// The decision in one line.
    #[must_use]
    pub fn because(&self) -> String {
        let named = if self.policies.is_empty() { String::new() } else { format!(" ({})", self.policies.join(", ")) };
        format!("{}{named}", self.reasons.join("; "))
    }
}

/// Policies and principals, ready to decide.
pub struct Authority {
    directory: Directory,
    schema: Schema,
    policies: PolicySet,
    reasons: BTreeMap<PolicyId, (String, String)>,
    digest: Digest,
    actions: BTreeMap<Permission, EntityUid>,
    entities: Mutex<BTreeMap<(KeyId, String), Arc<Entities>>>,
}

fn uid(kind: &str, name: &str) -> EntityUid {
    let kind = EntityTypeName::from_str(kind).expect("the schema's names are names");
    EntityUid::from_type_name_and_id(kind, EntityId::new(name))
}

fn text(words: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(words.to_owned())
}

fn texts<'a>(words: impl IntoIterator<Item = &'a str>) -> RestrictedExpression {
    RestrictedExpression::new_set(words.into_iter().map(text))
}

fn bytes(bytes: u64) -> RestrictedExpression {
    RestrictedExpression::new_long(bytes.min(BYTES_MAX) as i64)
}

fn seconds(time: Timestamp) -> RestrictedExpression {
    RestrictedExpression::new_long(i64::try_from(time.unix_seconds()).expect("the year has four digits"))
}

/// Errors: text that could exhaust the engine's stack. Brackets and operators in strings and comments count as well, which
/// refuses too much rather than too little.
fn refuse_depth(text: &str) -> Result<(), PolicyError> {
    let (mut depth, mut nest) = (0_usize, 0);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            // Closing brackets in strings can hide open ones; opening ones are operators too, whose number has a limit.
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        nest = nest.max(depth);
    }
    let operators = text.bytes().filter(|byte| b"&|+-*.!<>=([{".contains(byte)).count() + text.matches("if").count();
    if nest > NEST_MAX || operators > OPERATORS_MAX {
        return Err(PolicyError::TooDeep { nest, operators });
    }
    Ok(())
}

/// Names policies by their `@id`, and those of an installation without one by their place.
fn named(text: &str, place: &str, into: &mut PolicySet) -> Result<(), PolicyError> {
    if text.len() > POLICY_BYTES_MAX {
        return Err(PolicyError::TooLarge { bytes: text.len() });
    }
    refuse_depth(text)?;
    let read = PolicySet::from_str(text).map_err(|error| PolicyError::Parse(described(&error)))?;
    if let Some(template) = read.templates().next() {
        return Err(PolicyError::Template { id: template.id().to_string() });
    }
    let found = read.policies().count();
    if found > POLICIES_MAX {
        return Err(PolicyError::TooMany { found });
    }
    for policy in read.policies() {
        let id = match policy.annotation("id") {
            Some(id) if !id.is_empty() => id.to_owned(),
            _ => format!("{place}-{}", policy.id()),
        };
        let renamed = policy.new_id(PolicyId::new(&id));
        into.add(renamed).map_err(|_| PolicyError::Twice { id })?;
    }
    Ok(())
}

/// What is wrong with policies by the schema.
///
/// The validator gives up without a word where its stack runs low, and calls what it did not look at sound. So it gets
/// a stack of its own, far larger than the operators that are let through can fill, whatever thread asks.
///
/// Errors: no thread could be started, or it died.
fn faults(schema: &Schema, policies: &PolicySet) -> Result<Vec<String>, String> {
    let validate = || {
        let checked = Validator::new(schema.clone()).validate(policies, ValidationMode::Strict);
        checked.validation_errors().map(ToString::to_string).collect()
    };
    std::thread::scope(|scope| {
        let spawned = std::thread::Builder::new().stack_size(VALIDATOR_STACK_BYTES).spawn_scoped(scope, validate);
        let thread = spawned.map_err(|error| format!("no thread to check them: {error}"))?;
        thread.join().map_err(|_| "the check of them broke off".to_owned())
    })
}

/// An error of Cedar with the causes under it, in one line.
fn described(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(under) = cause {
        let more = under.to_string();
        if !words.contains(&more) {
            words.push_str(&format!(": {more}"));
        }
        cause = under.source();
    }
    words
}

impl Authority {
    /// Policies of an installation (they may be empty) beside the shipped ones, and the principals they speak of.
    ///
    /// Errors: policies that cannot be read, or do not fit the schema. Then none of them counts.
    pub fn new(directory: Directory, site_policies: &str) -> Result<Self, PolicyError> {
        let (schema, _) = Schema::from_cedarschema_str(SCHEMA)
            .map_err(|error| PolicyError::Parse(format!("the schema: {}", described(&error))))?;
        let mut policies = PolicySet::new();
        named(POLICIES, "shipped", &mut policies)?;
        named(site_policies, "site", &mut policies)?;
        let faults = faults(&schema, &policies).map_err(PolicyError::Parse)?;
        if !faults.is_empty() {
            return Err(PolicyError::Invalid { faults });
        }
        let words = |policy: &cedar_policy::Policy| {
            let id = policy.id().to_string();
            let reason = policy.annotation("reason").map_or_else(|| format!("policy {id}"), str::to_owned);
            (policy.id().clone(), (id, reason))
        };
        let reasons = policies.policies().map(words).collect();
        let mut covered = format!("{SCHEMA}\0{POLICIES}\0{site_policies}\0").into_bytes();
        covered.extend(serde_json::to_vec(&directory).map_err(|error| PolicyError::Parse(error.to_string()))?);
        let actions = Permission::ALL.map(|permission| (permission, uid("Action", permission.name()))).into();
        Ok(Self {
            directory,
            schema,
            policies,
            reasons,
            digest: Digest::of(&covered),
            actions,
            entities: Mutex::default(),
        })
    }

    /// Who there is.
    #[must_use]
    pub const fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Digest over schema, policies and principals: what a decision rests on.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// Names of the policies that count.
    pub fn policies(&self) -> impl Iterator<Item = (&str, &str)> {
        self.reasons.values().map(|(id, reason)| (id.as_str(), reason.as_str()))
    }

    /// Decides. Whatever cannot be decided is refused.
    #[must_use]
    pub fn decide(&self, question: &Question<'_>) -> Decision {
        match self.judged(question) {
            Ok(decision) => decision,
            Err(why) => Decision::refused(&why),
        }
    }

    /// Asks every permission once for a principal, on its devices or the cluster, and looks only at whether there is an
    /// answer: policies that cannot be evaluated would refuse everything to everybody.
    ///
    /// Errors: a policy fails while it is evaluated.
    pub fn trial(&self, principal: KeyId, now: Timestamp) -> Result<(), PolicyError> {
        let known = self.directory.pools.values().flatten().chain(&self.directory.cordoned).map(String::as_str);
        // A device that no rule names is decided as well as one that some rule does.
        let devices: Vec<&str> = known.take(TRIAL_DEVICES).chain(["device"]).collect();
        for permission in Permission::ALL {
            let on: &[&str] = if permission == Permission::AdminFullAccess { &[SYSTEM] } else { devices.as_slice() };
            for device in on {
                let (used_bytes, request_bytes) = (0, u64::from(permission == Permission::MemoryAllocate));
                let question = Question { principal, permission, device, now, used_bytes, request_bytes, lease: None };
                self.judged(&question).map_err(|why| PolicyError::Undecided { permission, why })?;
            }
        }
        Ok(())
    }

    fn judged(&self, question: &Question<'_>) -> Result<Decision, String> {
        let Some(principal) = self.directory.principals.get(&question.principal) else {
            return Ok(Decision::refused(&format!("the key {} is no principal here", question.principal)));
        };
        let entities = self.entities_of(question.principal, principal, question)?;
        let resource = if question.permission == Permission::AdminFullAccess { "System" } else { "Device" };
        let request = Request::new(
            uid("Principal", &question.principal.to_string()),
            self.actions[&question.permission].clone(),
            uid(resource, question.device),
            self.context(question)?,
            Some(&self.schema),
        )
        .map_err(|error| format!("the request does not fit the schema: {error}"))?;
        let response = Authorizer::new().is_authorized(&request, &self.policies, &entities);
        if let Some(error) = response.diagnostics().errors().next() {
            return Err(format!("a policy could not be evaluated, so nothing is allowed: {error}"));
        }
        let mut decided: Vec<_> = response.diagnostics().reason().filter_map(|id| self.reasons.get(id)).collect();
        decided.sort();
        let (policies, mut reasons): (Vec<_>, Vec<_>) = decided.into_iter().cloned().unzip();
        let allowed = response.decision() == Verdict::Allow;
        if reasons.is_empty() {
            reasons.push("no policy permits it".to_owned());
        }
        Ok(Decision { allowed, policies, reasons })
    }

    fn context(&self, question: &Question<'_>) -> Result<Context, String> {
        let revoked = self.directory.revoked_keys.contains(&question.principal)
            || question.lease.is_some_and(|lease| self.directory.revoked_leases.contains(&lease.lease_id));
        let mut pairs = vec![
            ("permission".to_owned(), text(question.permission.name())),
            ("now".to_owned(), seconds(question.now)),
            ("used_bytes".to_owned(), bytes(question.used_bytes)),
            ("request_bytes".to_owned(), bytes(question.request_bytes)),
            ("revoked".to_owned(), RestrictedExpression::new_bool(revoked)),
        ];
        if let Some(lease) = question.lease {
            if lease.principal != question.principal {
                return Err(format!("the lease is for {}", lease.principal));
            }
            pairs.push(("scopes".to_owned(), texts(lease.scopes.iter().map(String::as_str))));
            pairs.push(("lease_expires".to_owned(), seconds(lease.expires_on)));
            pairs.extend(lease.memory_bytes_max.map(|most| ("lease_bytes".to_owned(), bytes(most))));
            pairs.extend(
                lease
                    .devices
                    .as_ref()
                    .map(|devices| ("lease_devices".to_owned(), texts(devices.iter().map(String::as_str)))),
            );
        }
        Context::from_pairs(pairs).map_err(|error| error.to_string())
    }

    /// Principal and device as the policies see them. They change only with the directory, which makes a new authority.
    fn entities_of(
        &self,
        id: KeyId,
        principal: &crate::directory::Principal,
        question: &Question<'_>,
    ) -> Result<Arc<Entities>, String> {
        let key = (id, question.device.to_owned());
        let mut cached = self.entities.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entities) = cached.get(&key) {
            return Ok(Arc::clone(entities));
        }
        let pool = |name: &str| uid("Pool", name);
        let pools = principal.pools.iter().flatten();
        let restricted = principal.devices.is_some() || principal.pools.is_some();
        let mut attributes = HashMap::from([
            ("name".to_owned(), text(&principal.name)),
            ("granted".to_owned(), texts(principal.granted.iter().map(|permission| permission.name()))),
            ("denied".to_owned(), texts(principal.denied.iter().map(|permission| permission.name()))),
            ("restricted".to_owned(), RestrictedExpression::new_bool(restricted)),
            ("devices".to_owned(), texts(principal.devices.iter().flatten().map(String::as_str))),
            (
                "pools".to_owned(),
                RestrictedExpression::new_set(
                    pools.clone().map(|name| RestrictedExpression::new_entity_uid(pool(name))),
                ),
            ),
        ]);
        attributes.extend(principal.quota_bytes.map(|quota| ("quota_bytes".to_owned(), bytes(quota))));
        attributes.extend(principal.expires_on.map(|time| ("expires".to_owned(), seconds(time))));
        let roles: HashSet<_> = principal.roles.iter().map(|role: &Role| uid("Role", role.name())).collect();
        let cordoned = self.directory.cordoned.contains(question.device);
        let named = || {
            HashMap::from([
                ("name".to_owned(), text(question.device)),
                ("cordoned".to_owned(), RestrictedExpression::new_bool(cordoned)),
            ])
        };
        let device_pools: HashSet<_> = self.directory.pools_of(question.device).map(pool).collect();
        let wrong = |error: &dyn std::error::Error| described(error);
        let made = [
            Entity::new(uid("Principal", &id.to_string()), attributes, roles),
            Entity::new(uid("Device", question.device), named(), device_pools),
            Entity::new(uid("System", question.device), named(), HashSet::new()),
        ];
        let made = made.into_iter().collect::<Result<Vec<_>, _>>().map_err(|error| wrong(&error))?;
        let entities = Entities::from_entities(made, Some(&self.schema)).map_err(|error| wrong(&error))?;
        let entities = Arc::new(entities);
        if cached.len() >= CACHED_MAX {
            cached.clear();
        }
        cached.insert(key, Arc::clone(&entities));
        Ok(entities)
    }
}
