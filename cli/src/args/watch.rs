//! Arguments of the commands that look at the machine itself.

use clap::Args;
use isotherm_core::units::{Bytes, Celsius, Seconds};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Arguments of `isotherm monitor`.
#[derive(Debug, Args)]
pub struct Monitor {
    /// Time between two samples.
    #[arg(long, value_name = "TIME", default_value = "1 s")]
    pub interval: Seconds,
    /// End after so many samples; without it at Ctrl-C or the key q.
    #[arg(long, value_name = "N")]
    pub samples: Option<u64>,
    /// Print a line for each device and sample instead of a view.
    #[arg(long)]
    pub plain: bool,
    /// Time between two looks at what was plugged in or out.
    #[arg(long, value_name = "TIME", default_value = "5 s")]
    pub look: Seconds,
    /// Measured devices, for forecasts of temperature; by default those last measured on this host.
    #[arg(long, value_name = "FILE")]
    pub devices: Option<PathBuf>,
    /// A plan that runs here: its stages are shown.
    #[arg(long, value_name = "FILE")]
    pub plan: Option<PathBuf>,
    /// Temperature of the air around the devices; without it there are no forecasts.
    #[arg(long, value_name = "TEMPERATURE", allow_hyphen_values = true)]
    pub air: Option<Celsius>,
    /// Answer Prometheus at this address with what is kept; an address other than this host's own shows it to a network.
    #[arg(long, value_name = "ADDRESS")]
    pub serve: Option<SocketAddr>,
    /// Write the samples that are kept at the end as a table: .parquet or .csv.
    #[arg(long, value_name = "FILE")]
    pub table: Option<PathBuf>,
    /// Samples of each device that are kept.
    #[arg(long, value_name = "N", default_value_t = 3600)]
    pub keep: usize,
}

/// Arguments of `isotherm probe` about links between hosts.
#[derive(Debug, Args)]
pub struct ProbeLinks {
    /// Measure nothing; answer at this address whoever measures its link to this host, until Ctrl-C.
    #[arg(long, value_name = "ADDRESS", requires = "secret", conflicts_with = "peer")]
    pub respond: Option<SocketAddr>,
    /// Measure the link to the host that answers at this address, and nothing else. With two, also whether the links to
    /// them share something.
    #[arg(long, value_name = "ADDRESS", requires = "secret")]
    pub peer: Vec<SocketAddr>,
    /// Write the measured links into this file of devices, from where requests come in to a junction of each host.
    #[arg(long, value_name = "FILE", requires = "peer")]
    pub into: Option<PathBuf>,
    /// Look at the links in that file, and measure again only those that are old or that a look contradicts.
    #[arg(long, requires = "into")]
    pub refresh: bool,
    /// Look again so often, until Ctrl-C.
    #[arg(long, value_name = "TIME", requires = "refresh")]
    pub every: Option<Seconds>,
    /// Age from which a measured link is old.
    #[arg(long, value_name = "TIME", default_value = "604800 s")]
    pub age_max: Seconds,
    /// File with the secret that both hosts know, of at least 16 bytes.
    #[arg(long, value_name = "FILE")]
    pub secret: Option<PathBuf>,
    /// Largest message of a link's measurement; 256 MiB at most.
    #[arg(long, value_name = "BYTES", default_value = "256 MiB")]
    pub message: Bytes,
}

/// Arguments of `isotherm probe` about heat.
#[derive(Debug, Args)]
pub struct ProbeThermal {
    /// Identify how a measured device warms: idle, full load, cooling, with its sensors beside it. What is found goes into
    /// the file of `--output`.
    #[arg(long)]
    pub thermal: bool,
    /// The same from a log that was recorded before: CSV with time, power and temperature, clock where it has one.
    #[arg(long, value_name = "FILE", conflicts_with = "thermal")]
    pub from_log: Option<PathBuf>,
    /// The device; the first of the file where it is not named.
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,
    /// Time of full load; as long for cooling, and a sixth of it idle before.
    #[arg(long, value_name = "TIME", default_value = "90 s")]
    pub load: Seconds,
}
