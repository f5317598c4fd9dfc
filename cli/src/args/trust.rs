//! Arguments of the commands around keys, rules and the log.

use clap::{Args, Subcommand};
use isotherm_core::units::{Bytes, Seconds};
use std::path::PathBuf;

/// Subcommands of `isotherm audit`.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Print the log's entries, newest last.
    Log {
        /// Print only the last N entries.
        #[arg(long, value_name = "N")]
        last: Option<usize>,
    },
    /// Ask for entries by time, principal, device and kind; the newest come first.
    Query(EventAbout),
    /// Derive every digest of the log again and compare it with its signed checkpoint.
    Fsck {
        /// A manifest or a checkpoint kept elsewhere that the log has to continue; may be repeated.
        #[arg(long, value_name = "FILE")]
        against: Vec<PathBuf>,
    },
    /// Print the signed checkpoint, to be kept elsewhere.
    Checkpoint,
    /// Write a proof that one entry is in the log, which can be checked without the log.
    Prove {
        /// Position of the entry, from 0.
        index: u64,
        /// File for the proof; the entry itself goes beside it with the ending .entry.json.
        #[arg(short, long, value_name = "FILE", default_value = "entry.tlog-proof")]
        output: PathBuf,
    },
    /// Check a proof written by `isotherm audit prove`, here or anywhere.
    Verify {
        /// The proof.
        proof: PathBuf,
        /// The entry; by default the file beside the proof with the ending .entry.json.
        #[arg(long, value_name = "FILE")]
        entry: Option<PathBuf>,
        /// Public key of the log (PEM or OpenSSH); by default this host's own.
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
    },
    /// Write entries as JSON lines, each a CloudEvents 1.0 event.
    Export {
        /// File to write; standard output without it.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// First entry.
        #[arg(long, value_name = "N", default_value_t = 0)]
        from: u64,
    },
    /// Move old entries out of the log into an archive. Their hashes stay, so every proof holds on.
    Retain {
        /// Entries older than this go, in whole bundles of 256.
        #[arg(long, value_name = "TIME", required_unless_present = "keep")]
        older_than: Option<Seconds>,
        /// All but the last N entries go.
        #[arg(long, value_name = "N", conflicts_with = "older_than")]
        keep: Option<u64>,
        /// File for the entries that go, as JSON lines.
        #[arg(long, value_name = "FILE")]
        archive: PathBuf,
    },
    /// Write what shows a witness the present state of this log.
    Request {
        /// Entries the witness has seen; 0 for the first time.
        #[arg(long, value_name = "N", default_value_t = 0)]
        old: u64,
        /// Show the state at which the log went over to its present key, from the handover that `isotherm keys rotate`
        /// wrote, instead of the present state.
        #[arg(long, value_name = "FILE", requires = "old_key")]
        handover: Option<PathBuf>,
        /// Public key that handed the log over (PEM or OpenSSH).
        #[arg(long, value_name = "FILE")]
        old_key: Option<PathBuf>,
        /// File to write; standard output without it.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// As a witness, follow a log to the key that took it over.
    Follow {
        /// The handover, from `isotherm keys rotate` on the log's host.
        handover: PathBuf,
        /// The log as it was watched so far.
        #[command(flatten)]
        watched: WatchedLog,
    },
    /// Measure how many entries a second a log takes, with and without a disk. This host's own log is left alone.
    Bench(AuditBench),
    /// Be a witness of somebody's log: check that it only grew, remember that, and cosign its checkpoint.
    Witness(WitnessArgs),
    /// Put a witness's cosignature under this log's checkpoint.
    Cosign {
        /// The witness's answer.
        line: PathBuf,
        /// The witness's name.
        #[arg(long, value_name = "NAME")]
        name: String,
        /// The witness's public key (PEM or OpenSSH).
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
}

/// Arguments of `isotherm audit bench`.
#[derive(Debug, Args)]
pub struct AuditBench {
    /// Folder on the disk to measure; by default the one of this host's keys and log.
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// Entries of each run.
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    pub entries: u32,
    /// Entries under one checkpoint.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub batch: u32,
    /// Entries of each run that are appended one by one.
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub singles: u32,
}

/// Arguments of `isotherm audit query`.
#[derive(Debug, Args)]
pub struct EventAbout {
    /// Not before this instant (2026-11-23T06:55:00Z).
    #[arg(long, value_name = "INSTANT")]
    pub since: Option<String>,
    /// Before this instant.
    #[arg(long, value_name = "INSTANT")]
    pub until: Option<String>,
    /// On behalf of this principal: a name or the id of its key.
    #[arg(long, value_name = "NAME|KEY")]
    pub principal: Option<String>,
    /// About this device.
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
    /// Of this kind: memory.allocate, or all below a word with a dot after it: memory.
    #[arg(long, value_name = "KIND")]
    pub kind: Option<String>,
    /// At least this severe: debug, info, warning, error or critical.
    #[arg(long, value_name = "SEVERITY")]
    pub severity: Option<String>,
    /// That ended so: success, failure or denied.
    #[arg(long, value_name = "RESULT")]
    pub result: Option<String>,
    /// Most entries to print.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub limit: usize,
    /// Only entries before this position: where the last answer said to go on.
    #[arg(long, value_name = "N")]
    pub before: Option<u64>,
}

/// Arguments of `isotherm audit witness`.
#[derive(Debug, Args)]
pub struct WitnessArgs {
    /// The request, from `isotherm audit request` on the log's host.
    pub request: PathBuf,
    /// The log that is watched.
    #[command(flatten)]
    pub watched: WatchedLog,
    /// File for the cosignature; standard output without it.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Which log a witness watches, and as whom.
#[derive(Debug, Args)]
pub struct WatchedLog {
    /// Public key of the log (PEM or OpenSSH); any of those it had, where this witness followed it.
    #[arg(long, value_name = "FILE")]
    pub log_key: PathBuf,
    /// Name of the log; by default the one in the request, which the key signed.
    #[arg(long, value_name = "NAME")]
    pub log: Option<String>,
    /// Name of this witness.
    #[arg(long, value_name = "NAME", default_value = "isotherm.local/witness")]
    pub name: String,
    /// Folder for what this witness remembers; by default beside its keys.
    #[arg(long, value_name = "DIR")]
    pub memory: Option<PathBuf>,
}

/// Subcommands of `isotherm keys`.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Print this host's public key and its identifier.
    Show {
        /// Print it as OpenSSH does.
        #[arg(long)]
        ssh: bool,
    },
    /// Make this host's key, or take one that exists; a key that is there is never replaced.
    New {
        /// A private key to take: PKCS#8 PEM or OpenSSH, Ed25519, without a passphrase.
        #[arg(long, value_name = "FILE")]
        import: Option<PathBuf>,
    },
    /// Put a new key in the place of this host's, hand the log over to it, and make it administrator.
    Rotate {
        /// Go on believing manifests that the old key signed.
        #[arg(long)]
        keep_old: bool,
        /// File for the handover of the log, signed by both keys, for its witnesses.
        #[arg(long, value_name = "FILE", default_value = "handover.json")]
        handover: PathBuf,
    },
    /// Believe somebody's key: manifests it signed open here. Compare its id by another way first.
    Trust {
        /// The public key (PEM or OpenSSH).
        key: PathBuf,
    },
    /// Believe a key no more: nothing it signed opens here from now on.
    Distrust {
        /// The public key (PEM or OpenSSH), or its id as `isotherm keys list` prints it.
        key: String,
    },
    /// List the keys that are believed.
    List,
    /// Say how many distinct trusted keys must have signed what this host runs or verifies; without N print it.
    Threshold {
        /// Keys, from 1 to the number of trusted ones.
        #[arg(value_name = "N")]
        keys: Option<u32>,
    },
    /// The set of keys of a cluster: who names the next set, who plans, who approves, and until when.
    #[command(subcommand)]
    Set(KeySetCommand),
    /// Add this host's signature to a manifest that a trusted key signed.
    Approve {
        /// The manifest; it is replaced.
        manifest: PathBuf,
    },
}

/// Subcommands of `isotherm keys set`.
#[derive(Debug, Subcommand)]
pub enum KeySetCommand {
    /// Print the set in force.
    Show,
    /// Write the set that follows the one in force, or the first, signed by this host.
    Draft(DraftKeySet),
    /// Add this host's signature to a set.
    Sign {
        /// The set; it is replaced.
        set: PathBuf,
    },
    /// Put a set in force: the next one, signed by enough of the old root and of its own.
    Accept {
        /// The set.
        set: PathBuf,
    },
}

/// Arguments of `isotherm keys set draft`.
#[derive(Debug, Args)]
pub struct DraftKeySet {
    /// A key that may name the next set (PEM or OpenSSH); may be repeated. By default those of the set in force.
    #[arg(long, value_name = "FILE")]
    pub root: Vec<PathBuf>,
    /// How many of them have to sign it.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub root_threshold: u32,
    /// A key that seals plans; may be repeated. By default those of the set in force.
    #[arg(long, value_name = "FILE")]
    pub planner: Vec<PathBuf>,
    /// How many of them have to sign a manifest.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub planner_threshold: u32,
    /// A key that approves what planners sealed; may be repeated. By default those of the set in force.
    #[arg(long, value_name = "FILE")]
    pub approver: Vec<PathBuf>,
    /// How many of them have to sign a manifest.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub approver_threshold: u32,
    /// How long it counts.
    #[arg(long, value_name = "TIME", default_value = "8760 h")]
    pub valid: Seconds,
    /// File to write.
    #[arg(short, long, value_name = "FILE", default_value = "key-set.json")]
    pub output: PathBuf,
}

/// Subcommands of `isotherm access`.
#[derive(Debug, Subcommand)]
pub enum AccessCommand {
    /// List principals, pools, what is held, and the policies in force.
    List,
    /// Say whether something is allowed; leaves with 8 where it is not.
    Check(Asked),
    /// Say whether something is allowed, by which policy, and why.
    Explain(Asked),
    /// Let somebody in, or change what they may do.
    Grant(Grant),
    /// Let a principal or a lease count for nothing from now on.
    Revoke {
        /// Name or key id of a principal, or the id of a lease.
        who: String,
    },
    /// Take a device out of use, or back into it.
    Cordon {
        /// The device.
        device: String,
        /// Back into use.
        #[arg(long)]
        lift: bool,
    },
    /// Put devices into a pool; without any the pool goes.
    Pool {
        /// The pool.
        pool: String,
        /// Its devices.
        devices: Vec<String>,
    },
    /// Check a file of policies, and put it in force in the place of this host's own. The shipped ones stay.
    Policies {
        /// The policies, in Cedar.
        file: PathBuf,
        /// Only check them.
        #[arg(long)]
        dry_run: bool,
    },
    /// Lend rights for a short time: a signed lease for one key.
    Lease(LendLease),
    /// As the holder of a lease, sign the uses of it that a job takes; each counts once, and for a minute.
    Use(UseLease),
}

/// Arguments of `isotherm access use`.
#[derive(Debug, Args)]
pub struct UseLease {
    /// The lease, signed by a key in this host's `keys/trusted`.
    pub lease: PathBuf,
    /// The manifest that is to run: devices and memory are those of its placements.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["permission", "device", "memory"])]
    pub manifest: Option<PathBuf>,
    /// A permission to use, or `probe` for all that it asks for, in that order; may be repeated.
    #[arg(long, value_name = "PERMISSION", required_unless_present = "manifest")]
    pub permission: Vec<String>,
    /// A device to use it on; may be repeated.
    #[arg(long, value_name = "DEVICE", required_unless_present = "manifest")]
    pub device: Vec<String>,
    /// Memory asked for on each, where memory is taken.
    #[arg(long, value_name = "BYTES", default_value = "0 B")]
    pub memory: Bytes,
    /// File to write.
    #[arg(short, long, value_name = "FILE", default_value = "uses.json")]
    pub output: PathBuf,
}

/// How somebody else than this host's own key comes in.
#[derive(Debug, Clone, Default, Args)]
pub struct Guest {
    /// Act under this lease, for its holder.
    #[arg(long, value_name = "FILE", requires = "uses")]
    pub lease: Option<PathBuf>,
    /// The holder's signed uses of it (`isotherm access use`).
    #[arg(long, value_name = "FILE", requires = "lease")]
    pub uses: Option<PathBuf>,
}

/// Who asks for what.
#[derive(Debug, Args)]
pub struct Asked {
    /// The permission, for example compute:execute.
    pub permission: String,
    /// The device.
    #[arg(default_value = isotherm_access::authority::SYSTEM)]
    pub device: String,
    /// The principal, by name or key id; by default this host's own.
    #[arg(long, value_name = "NAME|KEY")]
    pub principal: Option<String>,
    /// Memory asked for.
    #[arg(long, value_name = "BYTES", default_value = "0 B")]
    pub memory: Bytes,
}

/// Arguments of `isotherm access grant`.
#[derive(Debug, Args)]
pub struct Grant {
    /// Name of the principal.
    pub name: String,
    /// Its public key (PEM or OpenSSH); needed for somebody new.
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Its roles: monitor, user, power_user, admin; may be repeated.
    #[arg(long, value_name = "ROLE")]
    pub role: Vec<String>,
    /// Most requests in a row; 60 unless stated.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub burst: Option<u32>,
    /// Requests that come back in a minute; 600 unless stated.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub per_minute: Option<u32>,
    /// A permission beside those of its roles; may be repeated.
    #[arg(long, value_name = "PERMISSION")]
    pub allow: Vec<String>,
    /// A permission taken away whatever its roles say; may be repeated.
    #[arg(long, value_name = "PERMISSION")]
    pub deny: Vec<String>,
    /// The only devices it may use; may be repeated.
    #[arg(long, value_name = "DEVICE")]
    pub device: Vec<String>,
    /// The only pools it may use; may be repeated.
    #[arg(long, value_name = "POOL")]
    pub pool: Vec<String>,
    /// Memory it may hold over all devices.
    #[arg(long, value_name = "BYTES")]
    pub quota: Option<Bytes>,
    /// How long it is let in.
    #[arg(long, value_name = "TIME")]
    pub valid: Option<Seconds>,
    /// Let somebody count again who was revoked.
    #[arg(long)]
    pub again: bool,
}

/// Arguments of `isotherm access lease`.
#[derive(Debug, Args)]
pub struct LendLease {
    /// The principal it is for, by name or key id.
    #[arg(long, value_name = "NAME|KEY")]
    pub to: String,
    /// A permission it covers, or `run` or `probe` for all that such a command asks for; may be repeated.
    #[arg(long, value_name = "PERMISSION", required = true)]
    pub scope: Vec<String>,
    /// A device it covers; all without any.
    #[arg(long, value_name = "DEVICE")]
    pub device: Vec<String>,
    /// Most memory a request under it may ask for.
    #[arg(long, value_name = "BYTES")]
    pub memory: Option<Bytes>,
    /// How long it counts; a day at most.
    #[arg(long, value_name = "TIME", default_value = "1 h")]
    pub valid: Seconds,
    /// File to write.
    #[arg(short, long, value_name = "FILE", default_value = "lease.json")]
    pub output: PathBuf,
}
