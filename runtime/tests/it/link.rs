//! Links over the host's own loop: who is answered, and what is bounded. Shaped links are measured through the command.

use isotherm_runtime::link::{Bounds, Link, LinkError, Secret, contention, respond};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(10);

fn secret(word: &str) -> Secret {
    Secret::new(format!("a shared secret: {word}").as_bytes()).expect("long enough")
}

/// Runs something against a responder, and ends it.
fn answered<T>(bounds: Bounds, run: impl FnOnce(SocketAddr) -> T) -> T {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let responder = scope.spawn(|| respond(&listener, &secret("ours"), bounds, &stop));
        let answer = run(address);
        stop.store(true, Ordering::Relaxed);
        responder.join().expect("no panic").expect("it could listen");
        answer
    })
}

#[test]
fn a_link_is_measured_in_every_direction() {
    let measured = answered(Bounds::default(), |address| {
        let mut link = Link::open(address, &secret("ours"), PATIENCE).expect("it knows the secret");
        link.measure(1 << 20, Duration::from_secs(2)).expect("the loop holds")
    });
    assert!(measured.round_trip_seconds > 0.0 && measured.round_trip_seconds < 1.0);
    for sweep in [&measured.away, &measured.towards, &measured.there_and_back] {
        let sizes: Vec<u64> = sweep.points.iter().map(|point| point.bytes).collect();
        assert!(sizes.iter().enumerate().all(|(power, bytes)| *bytes == 1 << power) && sizes.len() > 10, "{sizes:?}");
        assert!(sweep.points.iter().all(|point| point.samples >= 2 && point.seconds > 0.0));
        let fit = sweep.fit.expect("many sizes");
        assert!(fit.bytes_per_second > 1e6 && fit.latency_seconds >= 0.0, "{fit:?}");
    }
    assert!(measured.both.is_some_and(|(away, towards)| away > 0.0 && towards > 0.0));
}

#[test]
fn who_does_not_know_the_secret_gets_nothing_and_neither_does_a_false_responder() {
    answered(Bounds::default(), |address| {
        let refused = Link::open(address, &secret("theirs"), PATIENCE).err().expect("another secret");
        assert!(matches!(refused, LinkError::Stranger), "{refused}");
        // A greeting of the right length and without proof gets no byte beyond the responder's own greeting.
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        stream.write_all(&[0; 64]).expect("sent");
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).ok();
        assert_eq!(heard.len(), 40, "magic and nonce");
        // What was sent once proves nothing the next time.
        let recorded = {
            let mut stream = TcpStream::connect(address).expect("it listens");
            let mut greeting = [0; 40];
            stream.read_exact(&mut greeting).expect("greeted");
            greeting
        };
        let mut stream = TcpStream::connect(address).expect("it listens");
        let mut greeting = [0; 40];
        stream.read_exact(&mut greeting).expect("greeted");
        assert_ne!(greeting, recorded);
    });
    // A responder that only repeats what it hears knows nothing.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().expect("asked");
            stream.write_all(b"isolink1").and_then(|()| stream.write_all(&[7; 32])).expect("sent");
            let mut heard = [0; 64];
            stream.read_exact(&mut heard).expect("proof");
            stream.write_all(&heard[32..]).expect("sent");
        });
        let refused = Link::open(address, &secret("ours"), PATIENCE).err().expect("no responder");
        assert!(matches!(refused, LinkError::Stranger), "{refused}");
    });
}

#[test]
fn a_responder_gives_no_more_than_its_bounds() {
    let few = Bounds { bytes: 1 << 16, ..Bounds::default() };
    answered(few, |address| {
        let mut link = Link::open(address, &secret("ours"), PATIENCE).expect("it knows the secret");
        assert!(link.measure(1 << 20, Duration::from_secs(5)).is_err(), "beyond the bytes of a connection");
    });
    let silent = Bounds { silence: Duration::from_millis(200), connections: 1, ..Bounds::default() };
    answered(silent, |address| {
        let begun = Instant::now();
        let mut stream = TcpStream::connect(address).expect("it listens");
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).ok();
        assert!(begun.elapsed() < PATIENCE, "whoever says nothing is cut off");
        // One connection at a time, and a link takes two.
        let one = TcpStream::connect(address).expect("it listens");
        let refused = Link::open(address, &secret("ours"), PATIENCE);
        assert!(refused.is_err());
        drop(one);
    });
}

#[test]
fn two_flows_over_one_loop_are_compared() {
    answered(Bounds { connections: 8, ..Bounds::default() }, |address| {
        let mut links = [0, 1].map(|_| Link::open(address, &secret("ours"), PATIENCE).expect("it knows the secret"));
        let [one, other] = &mut links;
        let found = contention(one, other, 1 << 20).expect("the loop holds");
        assert!(found.alone.0 > 0.0 && found.alone.1 > 0.0 && found.together.0 > 0.0 && found.together.1 > 0.0);
    });
}
