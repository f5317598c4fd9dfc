//! The quota ledger: who holds how much memory, exact under races and after a crash.
//!
//! Memory is **reserved** before it is taken, **committed** once it is, and **released** when it is given back. Deciding
//! and booking is one step under one lock, so requests that race for the last bytes cannot all have them. Each step is a
//! line in a journal that is on disk before it is acknowledged; every line carries a hash over all before it, so a torn
//! last line is told from a damaged one. A reservation that nobody commits ends by itself, and what a process held that is
//! gone is given back by [`Ledger::sweep`].
//!
//! Several threads may share one ledger, and several processes one folder.

use isotherm_audit::keys::KeyId;
use isotherm_audit::manifest::Nonce;
use isotherm_audit::storage;
use isotherm_audit::time::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// File of the journal inside a ledger's folder.
pub const JOURNAL_FILE: &str = "quota.journal";
const LOCK_FILE: &str = "quota.lock";
const SCHEMA: &str = "isotherm.quota/v1";
/// A journal longer than this is written anew with what is still held.
const COMPACT_BYTES: u64 = 1 << 20;
/// Hexadecimal digits of the hash before each line.
const MARK_DIGITS: usize = 16;
/// Longest name of an owner.
const OWNER_BYTES_MAX: usize = 256;

/// Why nothing was booked.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file system refused.
    #[error("{doing} {path:?}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The journal is not what this ledger wrote.
    #[error("line {line} of the quota journal {path:?} is not what was written there")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
    },
    /// More than the principal may hold.
    #[error("{asked} bytes more than the {used} held would exceed the quota of {limit} bytes")]
    Exceeded {
        /// Bytes held or reserved.
        used: u64,
        /// Bytes asked for.
        asked: u64,
        /// The quota.
        limit: u64,
    },
    /// More than may be held under a lease at once.
    #[error("{asked} bytes more than the {used} held under the lease would exceed the {limit} bytes it covers")]
    LeaseExceeded {
        /// Bytes held or reserved under it.
        used: u64,
        /// Bytes asked for.
        asked: u64,
        /// What it covers.
        limit: u64,
    },
    /// Not reserved, or given back already.
    #[error("booking {booking} is not held: it was released, or its reservation ran out")]
    NotHeld {
        /// The booking.
        booking: Booking,
    },
    /// Nothing to hold.
    #[error("a reservation of 0 bytes; ask for at least one, or for none at all")]
    Nothing,
    /// An owner that no line can carry.
    #[error("the owner of a reservation has {bytes} bytes; the limit is {OWNER_BYTES_MAX}")]
    Owner {
        /// Its length.
        bytes: usize,
    },
}

impl LedgerError {
    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }
}

/// Number of a booking, never used twice in a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Booking(u64);

impl std::fmt::Display for Booking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Memory that is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// Who holds it.
    pub principal: KeyId,
    /// How much.
    pub bytes: u64,
    /// The process or job it was taken for, so that it can be given back when that is gone.
    pub owner: String,
    /// When an uncommitted reservation ends; absent once it is committed.
    pub until: Option<Timestamp>,
    /// The lease under which it was taken.
    pub lease: Option<Nonce>,
}

/// What is to be reserved, for whom, and within what.
#[derive(Debug, Clone, Copy)]
pub struct Reservation<'a> {
    /// Who is to hold it.
    pub principal: KeyId,
    /// How much.
    pub bytes: u64,
    /// Most it may hold over all.
    pub limit: Option<u64>,
    /// The lease under which it is asked for, and the most that may be held under it at once.
    pub lease: Option<(Nonce, Option<u64>)>,
    /// The present time.
    pub now: Timestamp,
    /// When it ends unless it is committed before.
    pub until: Timestamp,
    /// The process or job it is for.
    pub owner: &'a str,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
enum Step {
    Reserve {
        id: Booking,
        principal: KeyId,
        bytes: u64,
        until: Timestamp,
        owner: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lease: Option<Nonce>,
    },
    /// What was held when the journal was written anew.
    Keep {
        id: Booking,
        principal: KeyId,
        bytes: u64,
        until: Option<Timestamp>,
        owner: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lease: Option<Nonce>,
    },
    Commit {
        id: Booking,
    },
    Release {
        id: Booking,
    },
}

/// The journal as far as it was read.
#[derive(Debug, Default)]
struct State {
    /// First line, which differs after each compaction.
    head: String,
    offset: u64,
    lines: u64,
    chain: [u8; 32],
    next: u64,
    held: BTreeMap<Booking, Holding>,
    used: BTreeMap<KeyId, u64>,
}

/// A ledger in a folder.
#[derive(Debug)]
pub struct Ledger {
    folder: PathBuf,
    state: Mutex<State>,
}

impl State {
    /// Applies a step; `false` where it does not fit, which only a damaged journal has.
    fn apply(&mut self, step: &Step) -> bool {
        match step {
            Step::Reserve { id, principal, bytes, until, owner, lease } => {
                let Some(next) = id.0.checked_add(1).filter(|_| id.0 >= self.next) else { return false };
                self.next = next;
                let (principal, bytes, owner, lease) = (*principal, *bytes, owner.clone(), *lease);
                self.hold(*id, Holding { principal, bytes, owner, until: Some(*until), lease })
            }
            Step::Keep { id, principal, bytes, until, owner, lease } => {
                let (principal, bytes, owner, until, lease) = (*principal, *bytes, owner.clone(), *until, *lease);
                let holding = Holding { principal, bytes, owner, until, lease };
                id.0 < self.next && !self.held.contains_key(id) && self.hold(*id, holding)
            }
            Step::Commit { id } => match self.held.get_mut(id) {
                Some(holding) if holding.until.is_some() => {
                    holding.until = None;
                    true
                }
                _ => false,
            },
            Step::Release { id } => {
                let Some(holding) = self.held.remove(id) else { return false };
                let used = self.used.get(&holding.principal).and_then(|used| used.checked_sub(holding.bytes));
                match used {
                    Some(0) => self.used.remove(&holding.principal),
                    Some(left) => self.used.insert(holding.principal, left),
                    None => return false,
                };
                true
            }
        }
    }

    /// A holding of nothing is never written: a principal is counted exactly while it holds a byte.
    fn hold(&mut self, id: Booking, holding: Holding) -> bool {
        if holding.bytes == 0 {
            return false;
        }
        let used = self.used.get(&holding.principal).copied().unwrap_or(0);
        let Some(used) = used.checked_add(holding.bytes) else { return false };
        self.used.insert(holding.principal, used);
        self.held.insert(id, holding);
        true
    }

    fn mark(&self, json: &[u8]) -> [u8; 32] {
        Sha256::new().chain_update(self.chain).chain_update(json).finalize().into()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(MARK_DIGITS / 2).map(|byte| format!("{byte:02x}")).collect()
}

impl Ledger {
    /// The ledger in a folder, which is made if absent; its journal is read and a torn last line cut.
    ///
    /// Errors: a folder that cannot be made, or a damaged journal.
    pub fn open(folder: &Path) -> Result<Self, LedgerError> {
        storage::private_folder(folder).map_err(LedgerError::io("making", folder))?;
        let ledger = Self { folder: folder.to_owned(), state: Mutex::default() };
        ledger.locked(|_, _| Ok(()))?;
        Ok(ledger)
    }

    fn path(&self) -> PathBuf {
        self.folder.join(JOURNAL_FILE)
    }

    /// Runs one step alone among all threads and processes, on the newest state.
    fn locked<T>(&self, step: impl FnOnce(&mut State, &mut File) -> Result<T, LedgerError>) -> Result<T, LedgerError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let lock_path = self.folder.join(LOCK_FILE);
        let lock = storage::private_file().open(&lock_path);
        let lock = lock.map_err(LedgerError::io("opening", &lock_path))?;
        lock.lock().map_err(LedgerError::io("locking", &lock_path))?;
        let mut file = self.journal()?;
        let answer = self.catch_up(&mut state, &mut file).and_then(|()| step(&mut state, &mut file));
        if matches!(answer, Err(LedgerError::Io { .. } | LedgerError::Damaged { .. })) {
            // Whatever was half done is read again from the journal next time.
            *state = State::default();
        }
        answer
    }

    fn journal(&self) -> Result<File, LedgerError> {
        let path = self.path();
        let open = || {
            let mut options = OpenOptions::new();
            options.read(true).append(true);
            options.open(&path)
        };
        match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.write_journal(0, 0, &[])?;
                open().map_err(LedgerError::io("opening", &path))
            }
            opened => opened.map_err(LedgerError::io("opening", &path)),
        }
    }

    /// Puts a journal with these steps in the place of the present one.
    fn write_journal(&self, generation: u64, next: u64, steps: &[Step]) -> Result<(), LedgerError> {
        let mut bytes = head(generation, next).into_bytes();
        let mut state = State { chain: Sha256::digest(&bytes).into(), ..State::default() };
        for step in steps {
            let (line, chain) = line(&state, step);
            bytes.extend_from_slice(&line);
            state.chain = chain;
        }
        storage::replace(&self.folder, JOURNAL_FILE, &bytes).map_err(LedgerError::io("writing", &self.path()))
    }

    /// Reads what other processes added, or all of it where the journal was written anew.
    fn catch_up(&self, state: &mut State, file: &mut File) -> Result<(), LedgerError> {
        let path = self.path();
        let io = |doing| LedgerError::io(doing, &path);
        let mut first = vec![0; head(0, 0).len()];
        file.seek(SeekFrom::Start(0)).map_err(io("reading"))?;
        file.read_exact(&mut first).map_err(|_| LedgerError::Damaged { path: path.clone(), line: 1 })?;
        let first = String::from_utf8(first).map_err(|_| LedgerError::Damaged { path: path.clone(), line: 1 })?;
        let length = file.metadata().map_err(io("inspecting"))?.len();
        if state.head != first || state.offset > length {
            let Some((_, next)) = read_head(&first) else { return Err(LedgerError::Damaged { path, line: 1 }) };
            let (chain, offset) = (Sha256::digest(first.as_bytes()).into(), first.len() as u64);
            *state = State { head: first, offset, lines: 1, chain, next, ..State::default() };
        }
        if state.offset == length {
            return Ok(());
        }
        file.seek(SeekFrom::Start(state.offset)).map_err(io("reading"))?;
        let mut added = Vec::new();
        file.read_to_end(&mut added).map_err(io("reading"))?;
        let mut rest = added.as_slice();
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = (&rest[..end], &rest[end + 1..]);
            let number = state.lines + 1;
            let damaged = || LedgerError::Damaged { path: path.clone(), line: number };
            let (mark, json) = line.split_at_checked(MARK_DIGITS).ok_or_else(damaged)?;
            let json = json.strip_prefix(b" ").ok_or_else(damaged)?;
            let chain = state.mark(json);
            if mark != hex(&chain).as_bytes() {
                return Err(damaged());
            }
            let step: Step = serde_json::from_slice(json).map_err(|_| damaged())?;
            if !state.apply(&step) {
                return Err(damaged());
            }
            (state.chain, state.lines) = (chain, state.lines + 1);
            state.offset += end as u64 + 1;
            rest = after;
        }
        if !rest.is_empty() {
            // Never acknowledged: the newline comes with the line, and both before the answer.
            file.set_len(state.offset).and_then(|()| file.sync_all()).map_err(io("cutting a torn line off"))?;
        }
        Ok(())
    }

    /// Writes steps, and applies them once they are on disk.
    fn book(&self, state: &mut State, file: &mut File, steps: &[Step]) -> Result<(), LedgerError> {
        let path = self.path();
        let mut bytes = Vec::new();
        let mut after = State { chain: state.chain, ..State::default() };
        for step in steps {
            let (line, chain) = line(&after, step);
            bytes.extend_from_slice(&line);
            after.chain = chain;
        }
        let written = file.write_all(&bytes).and_then(|()| file.sync_data());
        if let Err(error) = written {
            // Best effort: what stays behind ends by itself, as any reservation that nobody commits.
            let _ = file.set_len(state.offset);
            return Err(LedgerError::io("writing", &path)(error));
        }
        for step in steps {
            let fits = state.apply(step);
            assert!(fits, "a step is made from the state it is applied to: {step:?}");
        }
        state.chain = after.chain;
        state.offset += bytes.len() as u64;
        state.lines += steps.len() as u64;
        if state.offset > COMPACT_BYTES {
            self.compact(state)?;
        }
        Ok(())
    }

    /// Writes the journal anew with what is still held, under the same numbers.
    fn compact(&self, state: &mut State) -> Result<(), LedgerError> {
        let generation = read_head(&state.head).map_or(0, |(generation, _)| generation) + 1;
        let keep = |(id, holding): (&Booking, &Holding)| {
            let Holding { principal, bytes, owner, until, lease } = holding.clone();
            Step::Keep { id: *id, principal, bytes, until, owner, lease }
        };
        let steps: Vec<Step> = state.held.iter().map(keep).collect();
        self.write_journal(generation, state.next, &steps)?;
        // The next step reads the new one.
        *state = State::default();
        Ok(())
    }

    /// Memory that a principal holds or has reserved, in bytes.
    ///
    /// Errors: a journal that cannot be read.
    pub fn used(&self, principal: KeyId) -> Result<u64, LedgerError> {
        self.locked(|state, _| Ok(state.used.get(&principal).copied().unwrap_or(0)))
    }

    /// All that is held.
    ///
    /// Errors: a journal that cannot be read.
    pub fn holdings(&self) -> Result<BTreeMap<Booking, Holding>, LedgerError> {
        self.locked(|state, _| Ok(state.held.clone()))
    }

    /// Reserves memory for a principal until a time, if its quota allows. Reservations that ran out are given back first.
    ///
    /// Errors: no bytes, more than the quota, an owner that is too long, or a file system that refuses.
    pub fn reserve(
        &self,
        principal: KeyId,
        bytes: u64,
        limit: Option<u64>,
        now: Timestamp,
        until: Timestamp,
        owner: &str,
    ) -> Result<Booking, LedgerError> {
        self.book_in(&Reservation { principal, bytes, limit, lease: None, now, until, owner })
    }

    /// The same, within what a lease covers as well: a lease that lends a gibibyte lends it once, not once a request.
    ///
    /// Errors: as [`Ledger::reserve`], and more than may be held under the lease.
    pub fn book_in(&self, asked: &Reservation<'_>) -> Result<Booking, LedgerError> {
        let Reservation { principal, bytes, limit, lease, now, until, owner } = *asked;
        if bytes == 0 {
            return Err(LedgerError::Nothing);
        }
        if owner.len() > OWNER_BYTES_MAX {
            return Err(LedgerError::Owner { bytes: owner.len() });
        }
        self.locked(|state, file| {
            let over = |holding: &Holding| holding.until.is_some_and(|until| now >= until);
            let mut steps: Vec<Step> = state
                .held
                .iter()
                .filter(|(_, holding)| over(holding))
                .map(|(id, _)| Step::Release { id: *id })
                .collect();
            let held = |of: &dyn Fn(&Holding) -> bool| -> u64 {
                let held = state.held.values().filter(|holding| !over(holding) && of(holding));
                held.fold(0, |sum, holding| sum.saturating_add(holding.bytes))
            };
            let exceeds = |used: u64, limit: Option<u64>| {
                used.checked_add(bytes).is_none_or(|after| limit.is_some_and(|limit| after > limit))
            };
            let used = held(&|holding| holding.principal == principal);
            if exceeds(used, limit) {
                return Err(LedgerError::Exceeded { used, asked: bytes, limit: limit.unwrap_or(u64::MAX) });
            }
            if let Some((lease, covers)) = lease {
                let used = held(&|holding| holding.lease == Some(lease));
                if exceeds(used, covers) {
                    let limit = covers.unwrap_or(u64::MAX);
                    return Err(LedgerError::LeaseExceeded { used, asked: bytes, limit });
                }
            }
            let id = Booking(state.next);
            let (owner, lease) = (owner.to_owned(), lease.map(|(lease, _)| lease));
            steps.push(Step::Reserve { id, principal, bytes, until, owner, lease });
            self.book(state, file, &steps)?;
            Ok(id)
        })
    }

    /// Says that reserved memory was taken. From now on it is held until it is released.
    ///
    /// Errors: not reserved any more, or a file system that refuses.
    pub fn commit(&self, booking: Booking, now: Timestamp) -> Result<(), LedgerError> {
        self.locked(|state, file| {
            let alive = |holding: &Holding| holding.until.is_some_and(|until| now < until);
            if !state.held.get(&booking).is_some_and(alive) {
                return Err(LedgerError::NotHeld { booking });
            }
            self.book(state, file, &[Step::Commit { id: booking }])
        })
    }

    /// Gives memory back.
    ///
    /// Errors: not held, or a file system that refuses.
    pub fn release(&self, booking: Booking) -> Result<(), LedgerError> {
        self.locked(|state, file| {
            if !state.held.contains_key(&booking) {
                return Err(LedgerError::NotHeld { booking });
            }
            self.book(state, file, &[Step::Release { id: booking }])
        })
    }

    /// Gives back what ran out, and what is held for owners that are gone. Gives the bookings that ended.
    ///
    /// Errors: a journal that cannot be read or written.
    pub fn sweep(&self, now: Timestamp, alive: impl Fn(&str) -> bool) -> Result<Vec<Booking>, LedgerError> {
        self.locked(|state, file| {
            let over = |holding: &Holding| holding.until.is_some_and(|until| now >= until) || !alive(&holding.owner);
            let ended: Vec<Booking> =
                state.held.iter().filter(|(_, holding)| over(holding)).map(|(id, _)| *id).collect();
            if !ended.is_empty() {
                let steps: Vec<Step> = ended.iter().map(|id| Step::Release { id: *id }).collect();
                self.book(state, file, &steps)?;
            }
            Ok(ended)
        })
    }

    /// Reads the whole journal again and compares what it says with what this ledger believes.
    ///
    /// Errors: a damaged journal.
    pub fn fsck(&self) -> Result<bool, LedgerError> {
        let fresh = Self { folder: self.folder.clone(), state: Mutex::default() };
        let (held, used) = fresh.locked(|state, _| Ok((state.held.clone(), state.used.clone())))?;
        let mut sums: BTreeMap<KeyId, u64> = BTreeMap::new();
        for holding in held.values() {
            *sums.entry(holding.principal).or_default() += holding.bytes;
        }
        self.locked(|state, _| Ok(state.held == held && state.used == used && sums == used))
    }
}

/// First line: how often the journal was written anew, and the number of the next booking then.
fn head(generation: u64, next: u64) -> String {
    format!("{SCHEMA} {generation:020} {next:020}\n")
}

fn read_head(head: &str) -> Option<(u64, u64)> {
    let (generation, next) = head.strip_prefix(SCHEMA)?.strip_prefix(' ')?.strip_suffix('\n')?.split_once(' ')?;
    Some((generation.parse().ok()?, next.parse().ok()?))
}

/// The line of a step after a state, and the hash over all up to it.
fn line(state: &State, step: &Step) -> (Vec<u8>, [u8; 32]) {
    let json = serde_json::to_vec(step).expect("text and integers are JSON");
    let chain = state.mark(&json);
    let mut line = hex(&chain).into_bytes();
    line.push(b' ');
    line.extend_from_slice(&json);
    line.push(b'\n');
    (line, chain)
}
