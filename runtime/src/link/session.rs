//! One connection: each side shows that it knows the secret, then one side asks and the other answers, within bounds.

use sha2::{Digest as _, Sha256};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::MESSAGE_BYTES_MAX;

/// First bytes of a connection, with the version of what follows.
const MAGIC: &[u8; 8] = b"isolink1";
const PIECE: usize = 1 << 18;
/// Shortest secret.
const SECRET_BYTES_MIN: usize = 16;
/// Bytes of a SHA-256 block.
const BLOCK: usize = 64;

/// What two hosts share so that they measure only with each other.
pub struct Secret(Vec<u8>);

impl Secret {
    /// A secret of at least 16 bytes, without white space around it; `None` for a shorter one.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.trim_ascii();
        (bytes.len() >= SECRET_BYTES_MIN).then(|| Self(bytes.to_vec()))
    }

    /// HMAC-SHA-256 (RFC 2104) over some words.
    fn mac(&self, words: &[&[u8]]) -> [u8; 32] {
        let mut key = [0; BLOCK];
        if self.0.len() > BLOCK {
            key[..32].copy_from_slice(&Sha256::digest(&self.0));
        } else {
            key[..self.0.len()].copy_from_slice(&self.0);
        }
        let pad = |with: u8| key.map(|byte| byte ^ with);
        let mut inner = Sha256::new().chain_update(pad(0x36));
        words.iter().for_each(|word| inner.update(word));
        Sha256::new().chain_update(pad(0x5c)).chain_update(inner.finalize()).finalize().into()
    }
}

/// Why a link was not measured.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The network or the other side.
    #[error("{doing}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The other side does not know the secret, or is no responder.
    #[error("the other side does not know the shared secret, or speaks something else")]
    Stranger,
    /// More than the responder does for anybody.
    #[error("{asked} bytes were asked for; a message has at most {limit}")]
    TooLarge {
        /// What was asked for.
        asked: u64,
        /// The limit.
        limit: u64,
    },
    /// The link broke.
    #[error("{0}")]
    Broken(String),
}

impl LinkError {
    fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }
}

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// To the responder, which says that it has it by one byte.
    Away = 1,
    /// From the responder.
    Towards = 2,
    /// To the responder and back again.
    Back = 3,
}

impl Way {
    fn of(byte: u8) -> Option<Self> {
        [Self::Away, Self::Towards, Self::Back].into_iter().find(|way| *way as u8 == byte)
    }
}

fn same(one: &[u8; 32], other: &[u8; 32]) -> bool {
    // Without a branch on secret bytes, so that time tells nothing of where they differ.
    one.iter().zip(other).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

fn fresh() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

/// The asking side of a connection.
pub(super) struct Session {
    stream: TcpStream,
    piece: Vec<u8>,
}

impl Session {
    pub(super) fn open(address: SocketAddr, secret: &Secret, patience: Duration) -> Result<Self, LinkError> {
        let mut stream = TcpStream::connect_timeout(&address, patience).map_err(LinkError::io("connecting"))?;
        let set = stream.set_nodelay(true).and_then(|()| stream.set_read_timeout(Some(patience)));
        set.and_then(|()| stream.set_write_timeout(Some(patience))).map_err(LinkError::io("setting up the link"))?;
        let mut greeting = [0; 40];
        stream.read_exact(&mut greeting).map_err(|_| LinkError::Stranger)?;
        let theirs = &greeting[8..];
        if &greeting[..8] != MAGIC {
            return Err(LinkError::Stranger);
        }
        let own = fresh().map_err(LinkError::io("drawing a random number"))?;
        let proof = secret.mac(&[b"asks", theirs, &own]);
        stream.write_all(&[own, proof].concat()).map_err(LinkError::io("greeting"))?;
        let mut answer = [0; 32];
        // A responder that takes this side for a stranger says nothing and goes.
        stream.read_exact(&mut answer).map_err(|_| LinkError::Stranger)?;
        if !same(&answer, &secret.mac(&[b"answers", &own, theirs])) {
            return Err(LinkError::Stranger);
        }
        Ok(Self { stream, piece: vec![0x5a; PIECE] })
    }

    /// One message; gives the time until its end is known here.
    pub(super) fn once(&mut self, way: Way, bytes: u64) -> Result<Duration, LinkError> {
        if bytes > MESSAGE_BYTES_MAX {
            return Err(LinkError::TooLarge { asked: bytes, limit: MESSAGE_BYTES_MAX });
        }
        let mut head = [0; 9];
        head[0] = way as u8;
        head[1..].copy_from_slice(&bytes.to_be_bytes());
        let begun = Instant::now();
        let mut step = || -> io::Result<()> {
            // Head and the beginning of the message leave together, or a small message would be two packets.
            if way == Way::Towards {
                self.stream.write_all(&head)?;
            } else {
                let first = (bytes as usize).min(PIECE);
                self.stream.write_all(&[&head, &self.piece[..first]].concat())?;
                send(&mut self.stream, &self.piece, bytes - first as u64)?;
            }
            let expected = if way == Way::Away { 1 } else { bytes };
            take(&mut self.stream, &mut self.piece, expected)
        };
        step().map_err(LinkError::io("sending a message over the link"))?;
        Ok(begun.elapsed())
    }
}

fn send(stream: &mut impl Write, piece: &[u8], mut bytes: u64) -> io::Result<()> {
    while bytes > 0 {
        let now = bytes.min(piece.len() as u64);
        stream.write_all(&piece[..now as usize])?;
        bytes -= now;
    }
    Ok(())
}

fn take(stream: &mut impl Read, piece: &mut [u8], mut bytes: u64) -> io::Result<()> {
    while bytes > 0 {
        let now = bytes.min(piece.len() as u64) as usize;
        let read = stream.read(&mut piece[..now])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes -= read as u64;
    }
    Ok(())
}

/// What a responder does at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Connections at once.
    pub connections: u32,
    /// Bytes of one connection, both directions together.
    pub bytes: u64,
    /// Time of one connection.
    pub time: Duration,
    /// Silence after which a connection ends.
    pub silence: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        let time = Duration::from_secs(600);
        Self { connections: 4, bytes: 64 << 30, time, silence: Duration::from_secs(10) }
    }
}

/// Answers whoever knows the secret, until `stop` is raised. Others are dropped without a word.
///
/// Errors: the listener cannot be polled.
pub fn respond(listener: &TcpListener, secret: &Secret, bounds: Bounds, stop: &AtomicBool) -> Result<(), LinkError> {
    listener.set_nonblocking(true).map_err(LinkError::io("setting up the responder"))?;
    let busy = AtomicU32::new(0);
    std::thread::scope(|scope| {
        while !stop.load(Ordering::Relaxed) {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::thread::sleep(Duration::from_millis(20));
                    continue;
                }
                // One that went away before it was taken.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(LinkError::io("taking a connection")(error)),
            };
            if busy.fetch_add(1, Ordering::Relaxed) >= bounds.connections {
                busy.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            let busy = &busy;
            scope.spawn(move || {
                // Whatever the other side does wrong ends its connection and nothing else.
                let _ = answer(stream, secret, bounds, stop);
                busy.fetch_sub(1, Ordering::Relaxed);
            });
        }
        Ok(())
    })
}

fn answer(mut stream: TcpStream, secret: &Secret, bounds: Bounds, stop: &AtomicBool) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(bounds.silence))?;
    stream.set_write_timeout(Some(bounds.silence))?;
    let own = fresh()?;
    stream.write_all(&[MAGIC.as_slice(), &own].concat())?;
    let mut greeting = [0; 64];
    stream.read_exact(&mut greeting)?;
    let theirs = &greeting[..32];
    let proof: [u8; 32] = greeting[32..].try_into().expect("32 bytes");
    if !same(&proof, &secret.mac(&[b"asks", &own, theirs])) {
        return Ok(());
    }
    stream.write_all(&secret.mac(&[b"answers", theirs, &own]))?;
    let (until, mut left) = (Instant::now() + bounds.time, bounds.bytes);
    let mut piece = vec![0; PIECE];
    while Instant::now() < until && !stop.load(Ordering::Relaxed) {
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        let bytes = u64::from_be_bytes(head[1..].try_into().expect("eight bytes"));
        let Some(way) = Way::of(head[0]) else { return Ok(()) };
        let both = bytes.saturating_mul(2);
        if bytes > MESSAGE_BYTES_MAX || both > left {
            return Ok(());
        }
        left -= both;
        if way != Way::Towards {
            take(&mut stream, &mut piece, bytes)?;
        }
        send(&mut stream, &piece, if way == Way::Away { 1 } else { bytes })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_code_that_proves_the_secret_is_the_standards() {
        // RFC 4231, test cases 1 and 6: a short key, and one longer than a block.
        let short = Secret(vec![0x0b; 20]);
        let expected = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7";
        assert_eq!(hex(&short.mac(&[b"Hi ", b"There"])), expected);
        let long = Secret(vec![0xaa; 131]);
        let expected = "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54";
        assert_eq!(hex(&long.mac(&[b"Test Using Larger Than Block-Size Key - Hash Key First"])), expected);
    }

    #[test]
    fn a_secret_has_sixteen_bytes() {
        assert!(Secret::new(b"fifteen letters").is_none());
        assert!(Secret::new(b"sixteen letters!\n").is_some());
        assert!(Secret::new(b"                            ").is_none());
    }
}
