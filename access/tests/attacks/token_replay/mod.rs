//! Somebody uses a lease twice, after it was revoked, or for something else.

use crate::support::{GIB, NOW, at, directory, edited, enter, gate, id, identity, request};
use isotherm_access::{GateError, LedgerError, Permission, RateLimit, Request};
use isotherm_audit::keys::TrustedKeys;
use isotherm_audit::lease::{Lease, LeaseUse, SignedLease, lease, lease_use, open_lease};
use isotherm_audit::manifest::Nonce;
use isotherm_audit::{Verified, seal};
use tempfile::tempdir;

fn lent(holder: u8, edit: impl FnOnce(&mut Lease)) -> Verified<SignedLease> {
    let mut claim = Lease {
        lease_id: Nonce([3; 16]),
        cluster_id: "home".to_owned(),
        principal: id(holder),
        scopes: ["compute:execute".to_owned(), "memory:allocate".to_owned()].into(),
        devices: Some(["gpu0".to_owned()].into()),
        memory_bytes_max: Some(GIB),
        created_on: at(NOW),
        not_before: at(NOW),
        expires_on: at("2026-11-23T13:00:00Z"),
    };
    edit(&mut claim);
    let sealed = seal(&lease(claim), &[&identity(1)]).expect("it holds together");
    let issuers = TrustedKeys::new([identity(1).public().clone()], 1).expect("one of one");
    open_lease(&sealed.envelope, &issuers, at(NOW), "home").expect("rightful")
}

fn used(lent: &Verified<SignedLease>, by: u8, operation: Permission, device: &str, bytes: u64, nonce: u8) -> Vec<u8> {
    let using = LeaseUse {
        operation: operation.name().to_owned(),
        device: device.to_owned(),
        memory_bytes: (bytes > 0).then_some(bytes),
        nonce: Nonce([nonce; 16]),
        made_on: at(NOW),
    };
    seal(&lease_use(lent.payload_digest(), using), &[&identity(by)]).expect("it holds together").envelope
}

#[test]
fn one_use_opens_the_door_once_in_every_process() {
    let folder = tempdir().expect("a folder");
    let mut one = gate(folder.path(), &directory());
    let mut other = isotherm_access::Gate::open(folder.path()).expect("opens");
    let lent = lent(3, |_| {});
    let using = used(&lent, 3, Permission::ComputeExecute, "gpu0", 0, 1);
    let asking = Request {
        lease: Some((&lent, std::slice::from_ref(&using))),
        ..request(3, &[Permission::ComputeExecute], &[("gpu0", 0)])
    };
    assert!(enter(&mut one, &asking).0.is_ok());
    for gate in [&mut one, &mut other] {
        let refused = enter(gate, &asking).0.expect_err("used before");
        assert!(refused.is_refusal() && refused.to_string().contains("made before"), "{refused}");
    }
    let again = used(&lent, 3, Permission::ComputeExecute, "gpu0", 0, 2);
    let asking = Request { lease: Some((&lent, std::slice::from_ref(&again))), ..asking };
    assert!(enter(&mut other, &asking).0.is_ok(), "another use counts");
}

#[test]
fn a_use_is_for_its_operation_device_amount_and_holder_alone() {
    let folder = tempdir().expect("a folder");
    let mut gate = gate(folder.path(), &directory());
    let lent = lent(3, |_| {});
    let execute = used(&lent, 3, Permission::ComputeExecute, "gpu0", 0, 1);
    let allocate = used(&lent, 3, Permission::MemoryAllocate, "gpu0", 10, 2);
    let by_thief = used(&lent, 2, Permission::ComputeExecute, "gpu0", 0, 3);
    let mut refused = |number, permission, device: (&str, u64), using: &[Vec<u8>]| {
        let (permissions, devices) = ([permission], [device]);
        let asking = Request { lease: Some((&lent, using)), ..request(number, &permissions, &devices) };
        assert!(enter(&mut gate, &asking).0.expect_err("not what was signed").is_refusal());
    };
    refused(3, Permission::MemoryAllocate, ("gpu0", 0), std::slice::from_ref(&execute));
    refused(3, Permission::ComputeExecute, ("gpu1", 0), std::slice::from_ref(&execute));
    refused(3, Permission::MemoryAllocate, ("gpu0", 11), std::slice::from_ref(&allocate));
    refused(2, Permission::ComputeExecute, ("gpu0", 0), std::slice::from_ref(&execute));
    refused(2, Permission::ComputeExecute, ("gpu0", 0), std::slice::from_ref(&by_thief));
    refused(3, Permission::ComputeExecute, ("gpu0", 0), std::slice::from_ref(&by_thief));
    refused(3, Permission::ComputeExecute, ("gpu0", 0), &[Vec::new()]);
    refused(3, Permission::ComputeExecute, ("gpu0", 0), &[]);
    refused(3, Permission::ComputeExecute, ("gpu0", 0), &[execute.clone(), execute]);
}

#[test]
fn a_lease_gives_no_more_than_its_scopes_and_no_more_than_its_holder_has() {
    let folder = tempdir().expect("a folder");
    let mut gate = gate(folder.path(), &edited(3, |p| p.quota_bytes = Some(GIB / 2)));
    let mut nonce = 10;
    let mut decided = |holder: u8, permission: Permission, device: &str, bytes: u64, edit: fn(&mut Lease)| {
        nonce += 1;
        let lent = lent(holder, edit);
        let using = used(&lent, holder, permission, device, bytes, nonce);
        let (permissions, devices) = ([permission], [(device, bytes)]);
        let asking =
            Request { lease: Some((&lent, std::slice::from_ref(&using))), ..request(holder, &permissions, &devices) };
        match enter(&mut gate, &asking).0 {
            Ok(_) => "allowed".to_owned(),
            Err(GateError::Denied { decision, .. }) => decision.policies.join(","),
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(decided(3, Permission::ComputeExecute, "gpu0", 0, |_| {}), "allowed");
    assert_eq!(decided(3, Permission::DeviceInfo, "gpu0", 0, |_| {}), "lease-scope");
    assert_eq!(decided(3, Permission::ComputeExecute, "gpu1", 0, |_| {}), "lease-device");
    assert_eq!(decided(1, Permission::MemoryAllocate, "gpu0", GIB + 1, |_| {}), "lease-memory");
    assert_eq!(decided(3, Permission::MemoryAllocate, "gpu0", GIB, |_| {}), "over-quota");
    // A monitor to whom somebody lends computing still may not compute.
    assert_eq!(decided(4, Permission::ComputeExecute, "gpu0", 0, |_| {}), "");
}

#[test]
fn a_revoked_or_expired_lease_counts_for_nothing_at_once() {
    let folder = tempdir().expect("a folder");
    let mut gate = gate(folder.path(), &directory());
    let (lent, narrow) = (lent(3, |_| {}), lent(3, |lease| lease.scopes.clear()));
    let using = used(&lent, 3, Permission::ComputeExecute, "gpu0", 0, 1);
    let permissions = [Permission::ComputeExecute];
    let asking =
        Request { lease: Some((&lent, std::slice::from_ref(&using))), ..request(3, &permissions, &[("gpu0", 0)]) };
    assert!(enter(&mut gate, &asking).0.is_ok());
    let own = Request { lease: None, ..asking.clone() };
    let beyond = Request { lease: Some((&narrow, &[])), ..asking.clone() };
    assert!(gate.still_allowed(&own).expect("readable").is_none());
    assert!(
        gate.still_allowed(&beyond).expect("readable").is_some(),
        "what it may without a lease says nothing of one"
    );
    let late = Request { now: at("2026-11-23T13:00:00Z"), ..asking.clone() };
    assert_eq!(
        gate.still_allowed(&late).expect("readable").map(|d| d.policies),
        Some(vec!["lease-expired".to_owned()])
    );
    assert!(gate.still_allowed(&asking).expect("readable").is_none(), "remembered for a second");
    gate.administer(id(1), at(NOW), Vec::new(), &mut |_| Ok(()), |directory, _| {
        directory.revoked_leases.insert(Nonce([3; 16]));
    })
    .expect("an administrator may");
    assert_eq!(gate.still_allowed(&asking).expect("readable").map(|d| d.policies), Some(vec!["revoked".to_owned()]));
    let fresh = used(&lent, 3, Permission::ComputeExecute, "gpu0", 0, 2);
    let asking = Request { lease: Some((&lent, std::slice::from_ref(&fresh))), ..asking };
    let refused = enter(&mut gate, &asking).0.expect_err("revoked");
    assert!(refused.to_string().contains("revoked"), "{refused}");
    let without = Request { lease: None, ..asking };
    assert!(enter(&mut gate, &without).0.is_ok(), "its holder's own rights are as they were");
}

#[test]
fn a_job_on_two_devices_takes_one_use_for_each_thing_it_does() {
    let folder = tempdir().expect("a folder");
    let mut gate = gate(folder.path(), &directory());
    let lent = lent(3, |lease| lease.devices = None);
    let permissions = [Permission::MemoryAllocate, Permission::ComputeExecute];
    let devices = [("gpu0", 10), ("gpu1", 20)];
    let signed = |first: u8| -> Vec<Vec<u8>> {
        let asked = request(3, &permissions, &devices);
        let number = |(at, (permission, device, bytes))| used(&lent, 3, permission, device, bytes, first + at as u8);
        asked.asked().enumerate().map(number).collect()
    };
    let mut ask = |uses: &[Vec<u8>]| {
        enter(&mut gate, &Request { lease: Some((&lent, uses)), ..request(3, &permissions, &devices) }).0
    };
    let mut swapped = signed(1);
    swapped.swap(0, 1);
    assert!(ask(&swapped).expect_err("for another device").is_refusal());
    assert!(ask(&signed(1)[..3]).expect_err("one is missing").is_refusal());
    let admission = ask(&signed(1)).expect("what was refused spent nothing");
    assert!(admission.booking.is_some());
    assert!(ask(&signed(1)).expect_err("used before").is_refusal());
}

#[test]
fn a_lease_is_not_stretched_by_cutting_a_request_into_devices_or_by_asking_again() {
    let folder = tempdir().expect("a folder");
    let mut gate = gate(folder.path(), &directory());
    let lent = lent(3, |lease| lease.devices = None);
    let permissions = [Permission::MemoryAllocate];
    let mut nonce = 0;
    let mut ask = |devices: &[(&str, u64)]| {
        let uses: Vec<_> = devices
            .iter()
            .map(|(device, bytes)| {
                nonce += 1;
                used(&lent, 3, Permission::MemoryAllocate, device, *bytes, nonce)
            })
            .collect();
        let asking = Request { lease: Some((&lent, uses.as_slice())), ..request(3, &permissions, devices) };
        let (answer, written) = enter(&mut gate, &asking);
        (answer, written.last().map(|event| event.kind.name().to_owned()))
    };
    // Each part is within the gibibyte that was lent, and the whole is not: on two devices, and twice on one.
    for devices in [[("gpu0", GIB), ("gpu1", 1)], [("gpu0", GIB / 2 + 1), ("gpu0", GIB / 2)]] {
        let (answer, kind) = ask(&devices);
        let refused = answer.expect_err("more than was lent");
        assert!(refused.is_refusal() && refused.to_string().contains("lease-memory"), "{refused}");
        assert_eq!(kind.as_deref(), Some("isotherm.security.quota_exceeded"));
    }
    let first = ask(&[("gpu0", GIB / 2), ("gpu1", GIB / 4)]).0.expect("within it");
    let (answer, kind) = ask(&[("gpu0", GIB / 4 + 1)]);
    let refused = answer.expect_err("a second request beside the first");
    assert!(
        matches!(refused, GateError::Ledger(LedgerError::LeaseExceeded { used, limit: GIB, .. }) if used == GIB / 4 * 3),
        "{refused}"
    );
    assert_eq!(kind.as_deref(), Some("isotherm.security.quota_exceeded"));
    let second = ask(&[("gpu0", GIB / 4)]).0.expect("exactly the rest");
    drop(first);
    drop(second);
}

#[test]
fn whoever_copied_a_lease_does_not_use_up_its_holders_requests() {
    let folder = tempdir().expect("a folder");
    let rate = RateLimit { burst: 2, per_minute: 0 };
    let mut gate = gate(folder.path(), &edited(3, |p| p.rate = Some(rate)));
    let lent = lent(3, |_| {});
    let permissions = [Permission::ComputeExecute];
    let mut ask = |using: &[Vec<u8>]| {
        let asking = Request { lease: Some((&lent, using)), ..request(3, &permissions, &[("gpu0", 0)]) };
        enter(&mut gate, &asking).0
    };
    let own = |nonce| [used(&lent, 3, Permission::ComputeExecute, "gpu0", 0, nonce)];
    let by_thief = [used(&lent, 2, Permission::ComputeExecute, "gpu0", 0, 9)];
    assert!(ask(&own(1)).is_ok());
    // Forged uses, uses of another shape, and the one that was seen on its way.
    let mut slowed = false;
    for _ in 0..40 {
        for using in [by_thief.as_slice(), &[Vec::new()], &[], &own(1)] {
            let refused = ask(using).expect_err("none of the holder's making");
            assert!(refused.is_refusal(), "{refused}");
            slowed |= refused.to_string().contains("too many requests");
        }
    }
    assert!(slowed, "the flood itself is slowed");
    assert!(ask(&own(2)).is_ok(), "the holder still has its second request");
    assert!(ask(&own(3)).expect_err("and no third").to_string().contains("too many requests"));
}

#[test]
fn nobody_spends_a_nonce_of_somebody_else_and_one_request_not_the_same_twice() {
    let folder = tempdir().expect("a folder");
    let mut gate = gate(folder.path(), &directory());
    let (of_three, of_two) = (lent(3, |lease| lease.devices = None), lent(2, |lease| lease.lease_id = Nonce([4; 16])));
    let permissions = [Permission::ComputeExecute];
    let mut ask = |holder: u8, lease: &Verified<SignedLease>, devices: &[(&str, u64)], uses: &[Vec<u8>]| {
        enter(&mut gate, &Request { lease: Some((lease, uses)), ..request(holder, &permissions, devices) }).0
    };
    let using = |lease: &Verified<SignedLease>, holder: u8, device: &str| {
        used(lease, holder, Permission::ComputeExecute, device, 0, 1)
    };
    assert!(ask(2, &of_two, &[("gpu0", 0)], &[using(&of_two, 2, "gpu0")]).is_ok());
    assert!(ask(3, &of_three, &[("gpu0", 0)], &[using(&of_three, 3, "gpu0")]).is_ok(), "another holder's nonce");
    let twice = [using(&of_three, 3, "gpu0"), using(&of_three, 3, "gpu1")];
    assert!(ask(3, &of_three, &[("gpu0", 0), ("gpu1", 0)], &twice).expect_err("spent").is_refusal());
    let both = |first: u8| {
        [("gpu0", first), ("gpu1", 30)].map(|(d, n)| used(&of_three, 3, Permission::ComputeExecute, d, 0, n))
    };
    let same = both(30);
    let refused = ask(3, &of_three, &[("gpu0", 0), ("gpu1", 0)], &same).expect_err("one nonce for two things");
    assert!(refused.to_string().contains("made before"), "{refused}");
    assert!(ask(3, &of_three, &[("gpu0", 0), ("gpu1", 0)], &both(31)).is_ok(), "what was refused spent nothing");
}

#[test]
fn a_clock_that_is_put_back_does_not_bring_a_use_back() {
    let folder = tempdir().expect("a folder");
    let mut gate = gate(folder.path(), &directory());
    let lent = lent(3, |_| {});
    let permissions = [Permission::ComputeExecute];
    let using = used(&lent, 3, Permission::ComputeExecute, "gpu0", 0, 1);
    let made = |now: &str, nonce: u8| {
        let claim = LeaseUse {
            operation: Permission::ComputeExecute.name().to_owned(),
            device: "gpu0".to_owned(),
            memory_bytes: None,
            nonce: Nonce([nonce; 16]),
            made_on: at(now),
        };
        seal(&lease_use(lent.payload_digest(), claim), &[&identity(3)]).expect("it holds together").envelope
    };
    let mut ask = |now: &str, using: &[u8]| {
        let uses = [using.to_vec()];
        let asking =
            Request { lease: Some((&lent, uses.as_slice())), now: at(now), ..request(3, &permissions, &[("gpu0", 0)]) };
        enter(&mut gate, &asking).0
    };
    assert!(ask(NOW, &using).is_ok());
    // Ten minutes later the use is forgotten, since it would be too old.
    let late = made("2026-11-23T12:10:00Z", 2);
    assert!(ask("2026-11-23T12:10:00Z", &late).is_ok());
    let refused = ask(NOW, &using).expect_err("the clock was put back and the use came back");
    assert!(refused.is_refusal() && refused.to_string().contains("clock of this host went back"), "{refused}");
    // A clock that is corrected by a minute stops nobody.
    assert!(ask("2026-11-23T12:09:10Z", &made("2026-11-23T12:09:10Z", 3)).is_ok());
}
