//! What trust costs: a decision, opening a manifest, logging in batches, and logging one by one against the same system
//! calls with nothing around them, on the same disk in the same run.
//!
//! Run with `cargo bench --profile dev -p isotherm-benches --bench trust`.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use isotherm_access::{Authority, Directory, Permission, Principal, Question, Role};
use isotherm_audit::inspect;
use isotherm_audit::keys::{Identity, Seed, TrustedKeys};
use isotherm_audit::log::{Event, EventKind, Log, OnLock};
use isotherm_audit::manifest::ExecutionManifest;
use isotherm_audit::time::Timestamp;
use std::fs::{self, File};
use std::hint::black_box;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

const ORIGIN: &str = "isotherm.local/bench";
/// Entries of one batch.
const BATCH: usize = 4096;

fn identity(number: u8) -> Identity {
    Identity::from_seed(&Seed::from_bytes([number; 32])).expect("any seed is a key")
}

fn now() -> Timestamp {
    "2026-11-23T12:00:00Z".parse().expect("an instant")
}

/// A hundred principals and devices, so that nothing is small by chance.
fn authority() -> (Authority, Vec<Identity>) {
    let keys: Vec<Identity> = (1..=100).map(identity).collect();
    let mut directory = Directory::first("admin", keys[0].public(), now()).expect("encodes");
    for (key, number) in keys.iter().zip(0..).skip(1) {
        let name = format!("user {number}");
        let mut principal = Principal::new(&name, key.public(), Role::User, now()).expect("encodes");
        principal.quota_bytes = Some(80 << 30);
        principal.pools = Some(["lab".to_owned()].into());
        directory.principals.insert(key.id(), principal);
    }
    directory.pools.insert("lab".to_owned(), (0..100).map(|number| format!("gpu{number}")).collect());
    (Authority::new(directory, "").expect("sound rules"), keys)
}

fn decision(criterion: &mut Criterion) {
    let (authority, keys) = authority();
    let devices: Vec<String> = (0..100).map(|number| format!("gpu{number}")).collect();
    let mut turn = 0_usize;
    criterion.bench_function("access decision, 100 principals and devices", |bencher| {
        bencher.iter(|| {
            turn += 1;
            let question = Question {
                principal: keys[1 + turn % 7].id(),
                permission: Permission::MemoryAllocate,
                device: &devices[turn % 11],
                now: now(),
                used_bytes: 1 << 30,
                request_bytes: 1 << 20,
                lease: None,
            };
            let decision = authority.decide(black_box(&question));
            assert!(decision.allowed);
        });
    });
}

fn verify(criterion: &mut Criterion) {
    // The sample envelope of the fuzz corpus was signed by the key of seed 1.
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/manifest/seed-envelope");
    let envelope = fs::read(path).expect("seeds are tracked");
    let trusted = TrustedKeys::new([identity(1).public().clone()], 1).expect("one of one");
    criterion.bench_function("verify and read a manifest", |bencher| {
        bencher.iter(|| inspect::<ExecutionManifest>(black_box(&envelope), &trusted).expect("signed by that key"));
    });
}

fn event(number: u64) -> Event {
    let mut event = Event::new(EventKind::MemoryAllocate, now(), identity(1).id());
    event.device = Some("gpu0".to_owned());
    event.operation = Some("memory:allocate".to_owned());
    event.metadata.insert("bytes".to_owned(), i64::try_from(number).expect("small").into());
    event
}

fn batches(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let key = identity(1);
    let (mut log, _) = Log::open(folder.path(), ORIGIN, &key, OnLock::Refuse).expect("new");
    let events: Vec<Event> = (0..BATCH as u64).map(event).collect();
    let mut group = criterion.benchmark_group("log");
    group.throughput(Throughput::Elements(BATCH as u64)).sample_size(20);
    group.bench_function(format!("append {BATCH} entries in one batch, durable"), |bencher| {
        bencher.iter_batched(|| (), |()| log.append_all(&events).expect("logged"), BatchSize::PerIteration);
    });
    group.finish();
}

/// The system calls of one append with bytes of the same lengths: bundle, tile, their folders, checkpoint, its folder.
fn bare(folder: &Path, number: u64, bundle: &[u8], tile: &[u8], note: &[u8]) {
    let write = |path: &Path, bytes: &[u8]| {
        let mut file = File::create(path).expect("writable");
        file.write_all(bytes).and_then(|()| file.sync_data()).expect("writable");
    };
    let sync = |path: &Path| File::open(path).and_then(|folder| folder.sync_all()).expect("writable");
    let (bundles, tiles) = (folder.join("entries"), folder.join("tiles"));
    write(&bundles.join(number.to_string()), bundle);
    write(&tiles.join(number.to_string()), tile);
    sync(&bundles);
    sync(&tiles);
    let unfinished = folder.join(".unfinished");
    let mut file = File::create(&unfinished).expect("writable");
    file.write_all(note).and_then(|()| file.sync_all()).expect("writable");
    fs::rename(&unfinished, folder.join("checkpoint")).expect("writable");
    sync(folder);
    if number >= 2 {
        for folder in [&bundles, &tiles] {
            fs::remove_file(folder.join((number - 2).to_string())).expect("written before");
        }
    }
}

/// One by one, in turns with the bare calls, so that a slow moment of the disk strikes both.
fn singles(_: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let key = identity(1);
    let (mut log, _) = Log::open(&folder.path().join("log"), ORIGIN, &key, OnLock::Refuse).expect("new");
    let plain = folder.path().join("bare");
    for name in ["entries", "tiles"] {
        fs::create_dir_all(plain.join(name)).expect("writable");
    }
    let (mut ours, mut theirs) = (Duration::ZERO, Duration::ZERO);
    let rounds = 200;
    for number in 0..rounds {
        let begun = Instant::now();
        log.append(&event(number)).expect("logged");
        ours += begun.elapsed();
        let bundle: usize = (0..=number % 256).map(|_| log.line(number).expect("there").len() + 2).sum();
        let (bundle, tile) = (vec![b'x'; bundle], vec![b'x'; 32 * (number as usize % 256 + 1)]);
        let note = log.note().as_bytes().to_vec();
        let begun = Instant::now();
        bare(&plain, number, &bundle, &tile, &note);
        theirs += begun.elapsed();
    }
    let each = |total: Duration| total.as_secs_f64() * 1e6 / rounds as f64;
    println!(
        "log/append one entry, durable: {:.0} us; the same system calls alone: {:.0} us; ratio {:.2}",
        each(ours),
        each(theirs),
        ours.as_secs_f64() / theirs.as_secs_f64()
    );
}

criterion_group!(benches, decision, verify, batches, singles);
criterion_main!(benches);
