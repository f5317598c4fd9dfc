//! A thousand requests race for the last bytes of a quota.

use crate::support::{GIB, NOW, at, edited, enter, gate, id, request};
use isotherm_access::ledger::Reservation;
use isotherm_access::{Gate, Ledger, LedgerError, Permission, RateLimit};
use isotherm_audit::manifest::Nonce;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::tempdir;

const LATER: &str = "2026-11-23T12:02:00Z";

#[test]
fn a_thousand_threads_never_get_more_than_the_quota() {
    let folder = tempdir().expect("a folder");
    // Half the threads share one ledger as one process would; the others have one of their own, as other processes do.
    let shared = Ledger::open(folder.path()).expect("new");
    let (threads, quota, each) = (1000, 100, 7);
    let granted = AtomicUsize::new(0);
    let start = Barrier::new(threads);
    std::thread::scope(|scope| {
        for number in 0..threads {
            let (shared, granted, start, folder) = (&shared, &granted, &start, folder.path());
            let body = move || {
                let own = (number % 2 == 0).then(|| Ledger::open(folder).expect("same"));
                start.wait();
                let ledger = own.as_ref().unwrap_or(shared);
                match ledger.reserve(id(1), each, Some(quota), at(NOW), at(LATER), "racer") {
                    Ok(booking) => {
                        granted.fetch_add(1, Ordering::SeqCst);
                        ledger.commit(booking, at(NOW)).expect("reserved");
                    }
                    Err(LedgerError::Exceeded { used, .. }) => assert!(used <= quota && used + each > quota),
                    Err(other) => panic!("{other}"),
                }
            };
            std::thread::Builder::new().stack_size(256 << 10).spawn_scoped(scope, body).expect("a thread starts");
        }
    });
    assert_eq!(granted.load(Ordering::SeqCst) as u64, quota / each, "exactly as many as fit");
    assert_eq!(shared.used(id(1)).expect("readable"), quota / each * each);
    assert!(shared.fsck().expect("readable"));
}

#[test]
fn a_thousand_threads_under_one_lease_never_hold_more_than_was_lent() {
    let folder = tempdir().expect("a folder");
    let shared = Ledger::open(folder.path()).expect("new");
    let (threads, each) = (1000, 7);
    let granted = AtomicUsize::new(0);
    let start = Barrier::new(threads);
    std::thread::scope(|scope| {
        for number in 0..threads {
            let (shared, granted, start) = (&shared, &granted, &start);
            let body = move || {
                start.wait();
                let (principal, now, until) = (id(1), at(NOW), at(LATER));
                // Two leases of one principal, each of which lends 50 bytes of the 1000 that the principal may hold.
                let lease = Some((Nonce([number as u8 % 2; 16]), Some(50)));
                let asked =
                    Reservation { principal, bytes: each, limit: Some(1000), lease, now, until, owner: "racer" };
                match shared.book_in(&asked) {
                    Ok(_) => drop(granted.fetch_add(1, Ordering::SeqCst)),
                    Err(LedgerError::LeaseExceeded { used, limit, .. }) => {
                        assert!(used <= limit && used + each > limit);
                    }
                    Err(other) => panic!("{other}"),
                }
            };
            std::thread::Builder::new().stack_size(256 << 10).spawn_scoped(scope, body).expect("a thread starts");
        }
    });
    assert_eq!(granted.load(Ordering::SeqCst), 14, "seven under each");
    assert_eq!(shared.used(id(1)).expect("readable"), 98);
    assert!(shared.fsck().expect("readable"));
    // What ran out is lent again, and the journal written anew says the same.
    let again = Ledger::open(folder.path()).expect("same");
    let (principal, now, until) = (id(1), at(LATER), at("2026-11-23T13:00:00Z"));
    let lease = Some((Nonce([0; 16]), Some(50)));
    let asked = Reservation { principal, bytes: 50, limit: None, lease, now, until, owner: "later" };
    again.book_in(&asked).expect("free again");
    assert!(matches!(again.book_in(&asked), Err(LedgerError::LeaseExceeded { used: 50, .. })));
}

#[test]
fn requests_through_many_gates_at_once_stay_within_the_quota() {
    let folder = tempdir().expect("a folder");
    let directory = edited(3, |p| {
        p.quota_bytes = Some(5 * GIB);
        p.rate = Some(RateLimit { burst: 10_000, per_minute: 0 });
    });
    drop(gate(folder.path(), &directory));
    let granted = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            let (folder, granted) = (folder.path(), &granted);
            scope.spawn(move || {
                let mut gate = Gate::open(folder).expect("opens");
                for _ in 0..3 {
                    let devices = [("gpu0", GIB / 2), ("gpu1", GIB / 2)];
                    match enter(&mut gate, &request(3, &[Permission::MemoryAllocate], &devices)).0 {
                        Ok(admission) => {
                            gate.commit(&admission, at(NOW)).expect("reserved");
                            granted.fetch_add(1, Ordering::SeqCst);
                        }
                        Err(error) => assert!(error.is_refusal(), "{error}"),
                    }
                }
            });
        }
    });
    assert_eq!(granted.load(Ordering::SeqCst), 5);
    let mut gate = Gate::open(folder.path()).expect("opens");
    let refused = enter(&mut gate, &request(3, &[Permission::MemoryAllocate], &[("gpu0", 1)]));
    assert!(refused.0.expect_err("nothing is left").to_string().contains("over-quota"));
}
