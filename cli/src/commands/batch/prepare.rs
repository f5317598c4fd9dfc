//! What decides the results of a batch: its points, how they are planned and simulated, and the program's version.

use super::points::Points;
use crate::args::BatchHow;
use crate::failure::{Code, Failure};
use isotherm_core::artefact::{Header, TOOL_VERSION};
use isotherm_core::digest::Digest;
use serde::{Deserialize, Serialize};

/// Schema of the description of a batch.
pub const BATCH_SCHEMA: &str = "isotherm.batch/v1";

/// How each point is planned and simulated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct How {
    /// Simulated runs of each plan.
    pub seeds: u32,
    /// Requests of each run; absent where each scenario says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<u32>,
    /// Gap that suffices.
    pub gap: f64,
    /// Most nodes of one search.
    pub nodes: u64,
    /// Rows of one file of results.
    pub part_rows: u32,
}

/// A batch as it is described beside its results.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// Schema and tool.
    #[serde(flatten)]
    pub header: Header,
    /// How each point is planned and simulated.
    pub how: How,
    /// Number of points.
    pub points: u64,
    /// Digest over the names of all points in their order.
    pub list: Digest,
    /// Digest over all of the above: shards of one batch agree in it.
    pub digest: Digest,
}

/// Reads how; errors: a figure that makes no sense.
pub fn how(args: &BatchHow) -> Result<How, Failure> {
    let refused = |what: String| Err(Failure::new(Code::Usage, what));
    if !(args.gap.is_finite() && args.gap >= 0.0) {
        return refused(format!("--gap is {}; give a share of 0 or more, like 0.01", args.gap));
    }
    if args.seeds == 0 || args.requests == Some(0) || args.nodes == 0 || args.part_rows == 0 {
        return refused("--seeds, --requests, --nodes and --part-rows must be above zero".to_owned());
    }
    let BatchHow { seeds, requests, gap, nodes, part_rows } = args.clone();
    Ok(How { seeds, requests, gap, nodes, part_rows })
}

/// The digest over the names of points, in their order.
pub fn list_digest<'a>(ids: impl Iterator<Item = &'a Digest>) -> Digest {
    let mut bytes = Vec::new();
    ids.for_each(|id| bytes.extend_from_slice(id.bytes()));
    Digest::of(&bytes)
}

/// Describes a batch.
pub fn describe(points: &Points, how: &How) -> Description {
    let ids = points.ids();
    let list = list_digest(ids.iter());
    let count = ids.len() as u64;
    let whole = serde_json::json!({ "how": how, "list": list, "points": count, "tool_version": TOOL_VERSION });
    let digest = Digest::of_json(&whole).expect("a JSON value has a canonical form");
    Description { header: Header::new(BATCH_SCHEMA, Vec::new()), how: how.clone(), points: count, list, digest }
}
