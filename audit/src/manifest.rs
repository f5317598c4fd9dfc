//! The execution manifest: permission to run one plan on named devices, within a time, with promised figures.

use crate::figures::{self, FigureError, Figures};
use crate::hex;
use crate::keys::KeyError;
use crate::statement::{self, Predicate, Statement, StatementError, Subject, too_many};
use crate::text::{self, NAME_BYTES_MAX, TextError};
use crate::time::Timestamp;
use isotherm_core::digest::Digest;
use isotherm_core::ids::Layers;
use isotherm_core::plan::{BoundKind, Certificate, Status};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Most placements of one manifest.
pub const PLACEMENTS_MAX: usize = 16_384;

/// A statement that allows a run.
pub type Manifest = Statement<ExecutionManifest>;

/// What a manifest claims and allows. Every number is an integer in the unit its name states.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecutionManifest {
    /// Version of isotherm that sealed it.
    pub tool_version: String,
    /// Who made the plan.
    pub planner: Planner,
    /// How good the plan is known to be.
    pub certificate: CertificateFigures,
    /// Which layers lie on which device.
    pub placements: Vec<Placement>,
    /// What the simulation promises.
    pub predicted: Figures,
    /// Arithmetic of the kernels, as the runtime names it, for example `f32`.
    pub arithmetic: String,
    /// When it was sealed.
    pub created_on: Timestamp,
    /// First second at which it may run.
    pub not_before: Timestamp,
    /// First second at which it may not run any more.
    pub expires_on: Timestamp,
    /// The cluster it is for.
    pub cluster_id: String,
    /// The one host it is for; absent where any host of the cluster may run it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_id: Option<String>,
    /// Sixteen random bytes that make two manifests for the same plan differ.
    pub nonce: Nonce,
    /// Rises with every manifest of a cluster, so that an old one cannot come back.
    pub counter: u64,
    /// Digest of the payload of the manifest before this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_manifest: Option<Digest>,
    /// Digest of the access policies in force when this was sealed, under which it was allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_digest: Option<Digest>,
    /// The audit log as it was when this was sealed: a checkpoint in other hands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit_log: Option<LogPosition>,
}

/// Who made a plan, and how to make it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Planner {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Solver and version, or the method where there was none.
    pub solver: String,
    /// Seed of its random choices, as text since it may exceed 2^53.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "seed_text")]
    pub seed: Option<u64>,
}

/// The plan's certificate in integers; the floats stand in the plan itself, which the manifest pins by digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateFigures {
    /// Optimal or feasible.
    pub status: Status,
    /// What was optimised, for example `throughput`.
    pub objective_name: String,
    /// Unit of objective and bound, for example `tokens/s`.
    pub unit: String,
    /// The objective, in billionths of the unit.
    pub objective_nano: i64,
    /// The bound, in billionths of the unit; absent where none is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound_nano: Option<i64>,
    /// `|bound - objective| / |objective|` in millionths; absent without a bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap_ppm: Option<i64>,
    /// Who vouches for the bound.
    pub bound_kind: BoundKind,
}

/// Some layers on one device. A stage over several devices has one of these for each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// Position of the stage in the plan.
    pub stage: u32,
    /// The device's name in the plan.
    pub device: String,
    /// Its hardware identity, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_uuid: Option<String>,
    /// The host it is in, where the plan spans several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_id: Option<String>,
    /// Identity of the node that has the device: the id of its key, or its SPIFFE id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_id: Option<String>,
    /// The layers, half open.
    pub layers: Layers,
    /// Memory the stage may take on the device.
    pub memory_bytes: u64,
    /// Power the device may draw, in milliwatts; absent where the plan caps none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_cap_milliwatts: Option<u64>,
}

/// A state of an append-only log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogPosition {
    /// Which log.
    pub origin: String,
    /// Entries it had.
    pub size: u64,
    /// Root of the Merkle tree over them, 64 hexadecimal digits.
    pub root_hash: RootHash,
}

macro_rules! hex_bytes {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, $error:ident, $message:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(pub [u8; $bytes]);

        /// A text of another form.
        #[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
        #[error($message)]
        pub struct $error;

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::write(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = $error;

            fn from_str(digits: &str) -> Result<Self, $error> {
                hex::read(digits).map(Self).ok_or($error)
            }
        }

        impl TryFrom<String> for $name {
            type Error = $error;

            fn try_from(digits: String) -> Result<Self, $error> {
                digits.parse()
            }
        }

        impl From<$name> for String {
            fn from(bytes: $name) -> Self {
                bytes.to_string()
            }
        }
    };
}

hex_bytes! {
    /// Sixteen bytes used once, 32 hexadecimal digits.
    Nonce, 16, NotANonce, "a nonce has 32 hexadecimal digits in lower case"
}
hex_bytes! {
    /// The root of a Merkle tree, 64 hexadecimal digits.
    RootHash, 32, NotARootHash, "a root hash has 64 hexadecimal digits in lower case"
}

impl Nonce {
    /// Sixteen bytes from the operating system's generator.
    ///
    /// Errors: the system has no entropy source.
    pub fn draw() -> Result<Self, KeyError> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(KeyError::NoRandomness)?;
        Ok(Self(bytes))
    }
}

/// Integers that may exceed 2^53 travel as decimal text.
mod seed_text {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    #[expect(clippy::ref_option, reason = "serde gives a reference to the field")]
    pub(super) fn serialize<S: Serializer>(seed: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
        seed.map(|seed| seed.to_string()).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
        let seed = text.parse::<u64>().map_err(D::Error::custom)?;
        if seed.to_string() == text {
            Ok(Some(seed))
        } else {
            Err(D::Error::custom("a seed is decimal without sign or leading zeros"))
        }
    }
}

impl CertificateFigures {
    /// A certificate in integers: objective and bound rounded to the nearest billionth, the gap rounded up, so that a
    /// plan never looks closer to the bound than it is.
    ///
    /// Errors: a figure that is not finite, or 2^53 or more in its integer unit.
    pub fn new(
        status: Status,
        objective_name: &str,
        unit: &str,
        certificate: &Certificate,
    ) -> Result<Self, FigureError> {
        let exact = |name: &str, value: f64, per_unit: f64| {
            let refused = || FigureError::Value { name: name.to_owned(), value: (value * per_unit).to_string() };
            figures::whole(value, per_unit).ok_or_else(refused)
        };
        let ceiling = |gap: f64| (gap * 1e6).ceil();
        Ok(Self {
            status,
            objective_name: objective_name.to_owned(),
            unit: unit.to_owned(),
            objective_nano: exact("objectiveNano", certificate.objective, 1e9)?,
            bound_nano: certificate.bound.map(|bound| exact("boundNano", bound, 1e9)).transpose()?,
            gap_ppm: certificate.gap.map(|gap| exact("gapPpm", ceiling(gap), 1.0)).transpose()?,
            bound_kind: certificate.bound_kind,
        })
    }
}

impl LogPosition {
    pub(crate) fn check(&self) -> Result<(), TextError> {
        text::check("log origin", &self.origin, NAME_BYTES_MAX)
    }
}

impl Predicate for ExecutionManifest {
    const NAME: &'static str = "urn:isotherm:execution-manifest";
    const MAJOR: u32 = 1;

    fn check(&self, subjects: &[Subject]) -> Result<(), StatementError> {
        use statement::{DEVICES, MODEL, PLAN, SCENARIO, SIMULATION};
        statement::require(subjects, &[PLAN, MODEL, SCENARIO, DEVICES, SIMULATION])?;
        self.check_names()?;
        self.predicted.check()?;
        if !matches!(self.certificate.status, Status::Optimal | Status::Feasible) {
            return Err(StatementError::Status { status: format!("{:?}", self.certificate.status).to_lowercase() });
        }
        if self.placements.is_empty() {
            return Err(StatementError::NoPlacement);
        }
        too_many("placements", self.placements.len(), PLACEMENTS_MAX)?;
        for placement in &self.placements {
            if placement.layers.is_empty() {
                return Err(StatementError::Layers { stage: placement.stage, layers: placement.layers });
            }
        }
        statement::in_order(("createdOn", self.created_on), ("expiresOn", self.expires_on))?;
        statement::in_order(("notBefore", self.not_before), ("expiresOn", self.expires_on))
    }
}

impl ExecutionManifest {
    fn check_names(&self) -> Result<(), TextError> {
        let name = |what, text: &str| text::check(what, text, NAME_BYTES_MAX);
        name("toolVersion", &self.tool_version)?;
        name("planner name", &self.planner.name)?;
        name("planner version", &self.planner.version)?;
        name("solver", &self.planner.solver)?;
        name("objectiveName", &self.certificate.objective_name)?;
        name("objective unit", &self.certificate.unit)?;
        name("arithmetic", &self.arithmetic)?;
        name("clusterId", &self.cluster_id)?;
        if let Some(host) = &self.host_id {
            name("hostId", host)?;
        }
        for placement in &self.placements {
            name("device name", &placement.device)?;
            let optional = [
                ("deviceUuid", &placement.device_uuid),
                ("hostId of a placement", &placement.host_id),
                ("nodeId", &placement.node_id),
            ];
            for (what, text) in optional {
                text.as_ref().map_or(Ok(()), |text| name(what, text))?;
            }
        }
        self.audit_log.as_ref().map_or(Ok(()), LogPosition::check)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_in_integers_never_looks_better_than_it_is() {
        let mut certificate = Certificate {
            objective: 23.961_7,
            bound: Some(23.961_700_1),
            gap: Some(4.2e-9),
            bound_kind: BoundKind::Solver,
            method: "MILP".to_owned(),
            solver: None,
            nodes: None,
            evidence: None,
        };
        let figures =
            CertificateFigures::new(Status::Feasible, "throughput", "tokens/s", &certificate).expect("finite");
        assert_eq!(figures.objective_nano, 23_961_700_000);
        assert_eq!((figures.bound_nano, figures.gap_ppm), (Some(23_961_700_100), Some(1)));
        certificate.bound = Some(f64::INFINITY);
        assert!(CertificateFigures::new(Status::Feasible, "throughput", "tokens/s", &certificate).is_err());
        (certificate.bound, certificate.gap) = (None, None);
        let figures =
            CertificateFigures::new(Status::Feasible, "throughput", "tokens/s", &certificate).expect("finite");
        assert_eq!((figures.bound_nano, figures.gap_ppm), (None, None));
    }

    #[test]
    fn two_drawn_nonces_differ() {
        assert_ne!(
            Nonce::draw().expect("the system has randomness"),
            Nonce::draw().expect("the system has randomness")
        );
    }
}
