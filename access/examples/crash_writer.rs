//! Writes a log, a quota ledger, the uses of leases and a witness's memory, and says what was acknowledged, for tests that
//! kill it: crash_writer FOLDER STEPS

#![forbid(unsafe_code)]

use isotherm_access::Ledger;
use isotherm_access::rates::Rates;
use isotherm_audit::keys::{Identity, Seed};
use isotherm_audit::log::witness::{Watched, Witness};
use isotherm_audit::log::{Event, EventKind, Log, OnLock};
use isotherm_audit::manifest::Nonce;
use isotherm_audit::time::Timestamp;
use std::io::Write;
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("the folder is missing")?;
    let steps: u64 = arguments.next().ok_or("the number of steps is missing")?.parse()?;
    let folder = Path::new(&folder);
    let key = Identity::from_seed(&Seed::from_bytes([1; 32]))?;
    let now: Timestamp = "2026-11-23T12:00:00Z".parse()?;
    let say = |line: String| -> std::io::Result<()> {
        // One system call for each line, so that none is acknowledged by halves.
        let mut out = std::io::stdout().lock();
        out.write_all(line.as_bytes())?;
        out.flush()
    };
    let origin = "isotherm.local/crash";
    let (mut log, _) = Log::open(&folder.join("log"), origin, &key, OnLock::Wait)?;
    let rates = Rates::open(&folder.join("books"))?;
    let other = Identity::from_seed(&Seed::from_bytes([2; 32]))?;
    let witness = Witness::open("witness.example/crash", &other, &folder.join("witness"))?;
    let watched = Watched { origin: origin.to_owned(), key: key.public().clone() };
    let mut seen = witness.known(&watched)?.map_or(0, |known| known.size);
    let ledger = Ledger::open(&folder.join("books"))?;
    let owner = std::process::id().to_string();
    for step in 0..steps {
        let mut event = Event::new(EventKind::MemoryAllocate, now, key.id());
        event.metadata.insert("step".to_owned(), i64::try_from(step)?.into());
        log.append_all(&vec![event; 1 + (step % 3) as usize])?;
        say(format!("log {}\n", log.size()))?;
        let nonce = u128::from(step).to_be_bytes();
        rates.once(key.id(), &[(Nonce(nonce), now)], now)?;
        say(format!("used {step}\n"))?;
        if step.is_multiple_of(3) {
            witness.answer(log.request_witness(seen)?.as_bytes(), &watched, now)?;
            seen = log.size();
            say(format!("seen {seen}\n"))?;
        }
        let booking = ledger.reserve(key.id(), 10, None, now, now.later_by(60), &owner)?;
        ledger.commit(booking, now)?;
        say(format!("hold {booking}\n"))?;
        if step % 2 == 1 {
            say(format!("let go {booking}\n"))?;
            ledger.release(booking)?;
            say(format!("free {booking}\n"))?;
        }
    }
    Ok(())
}
