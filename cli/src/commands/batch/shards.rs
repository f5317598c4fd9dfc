//! Which points a shard has, and who says which shard this is.

use crate::args::Shard;
use crate::failure::{Code, Failure};
use isotherm_core::digest::Digest;

/// Variables in which an array job or an indexed job says which of its tasks this is.
const VARIABLES: [&str; 2] = ["SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX"];

/// A shard that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Which {
    /// From 0.
    pub index: u32,
    /// Number of shards.
    pub of: u32,
}

impl std::fmt::Display for Which {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

impl Which {
    /// Whether a point belongs to this shard: the first eight bytes of its digest, modulo the number of shards.
    pub fn holds(self, id: &Digest) -> bool {
        let first: [u8; 8] = std::array::from_fn(|i| id.bytes()[i]);
        u64::from_be_bytes(first) % u64::from(self.of) == u64::from(self.index)
    }
}

/// The shard that an argument and the environment name.
pub fn resolve(shard: Shard) -> Result<Which, Failure> {
    let of = shard.of;
    if let Some(index) = shard.index {
        return Ok(Which { index, of });
    }
    let set = VARIABLES.iter().find_map(|name| std::env::var(name).ok().map(|value| (*name, value)));
    let Some((name, value)) = set else {
        let what = format!("--shard auto/{of} needs {} in the environment", VARIABLES.join(" or "));
        return Err(
            Failure::new(Code::Usage, what).remedy("run it as an array job, or name the shard, for example 0/8")
        );
    };
    match value.parse::<u32>() {
        Ok(index) if index < of => Ok(Which { index, of }),
        _ => Err(Failure::new(Code::Usage, format!("{name} is {value:?}, and there are {of} shards, from 0"))
            .remedy(format!("number the tasks from 0 to {}", of - 1))),
    }
}
