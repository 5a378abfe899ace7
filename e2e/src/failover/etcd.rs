//! An etcd whose writes take long: a relay between API server and etcd that holds every write back.
//!
//! Clients speak gRPC, so HTTP/2 in the clear (RFC 9113): every call is a stream, its request one message in DATA frames.
//! A message whose first field is a comparison or an operation is a transaction, as which the API server makes all its
//! writes; its frames wait, everything else (reads, watches, pings, answers) passes at once. To stop the process of etcd
//! now and then would delay reads and watches too, and let writes between the pauses pass.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// What a client of HTTP/2 says first (RFC 9113, 3.4).
const PREFACE_BYTES: usize = 24;
/// Length, type, flags and stream of a frame (RFC 9113, 4.1).
const HEAD_BYTES: usize = 9;
const TYPE_DATA: u8 = 0x0;
const TYPE_RST_STREAM: u8 = 0x3;
const FLAG_END_STREAM: u8 = 0x1;
const FLAG_PADDED: u8 = 0x8;
/// Compressed flag and length before a gRPC message.
const MESSAGE_HEAD_BYTES: usize = 5;

/// The relay; it ends with the process.
#[derive(Clone, Debug)]
pub struct SlowEtcd {
    /// Port of loopback where it listens.
    pub port: u16,
    delay_milliseconds: Arc<AtomicU64>,
}

impl SlowEtcd {
    /// Relays to `etcd_port` of loopback, without delay at first.
    pub fn start(etcd_port: u16) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("listening for the API server")?;
        let relay = Self {
            port: listener.local_addr()?.port(),
            delay_milliseconds: Arc::default(),
        };
        let delay = Arc::clone(&relay.delay_milliseconds);
        std::thread::Builder::new()
            .name("slow etcd".into())
            .spawn(move || {
                for client in listener.incoming().flatten() {
                    // The API server connects again when this cannot be.
                    if let Ok(server) = TcpStream::connect(("127.0.0.1", etcd_port)) {
                        let _ = relay_both(client, &server, Arc::clone(&delay));
                    }
                }
            })?;
        Ok(relay)
    }

    /// From now on every write arrives this much later.
    pub fn delay_writes(&self, delay: Duration) {
        let milliseconds = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.delay_milliseconds
            .store(milliseconds, Ordering::SeqCst);
    }
}

fn relay_both(client: TcpStream, server: &TcpStream, delay: Arc<AtomicU64>) -> Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut answers, mut back) = (server.try_clone()?, client.try_clone()?);
    let thread = |name: &str| std::thread::Builder::new().name(name.into());
    thread("etcd answers").spawn(move || {
        let _ = std::io::copy(&mut answers, &mut back);
        let _ = back.shutdown(Shutdown::Both);
    })?;
    let (send, frames) = channel();
    let mut sink = server.try_clone()?;
    thread("etcd requests").spawn(move || {
        let _ = send_when_due(&frames, &mut sink);
        let _ = sink.shutdown(Shutdown::Both);
    })?;
    thread("etcd client").spawn(move || {
        let _ = read_frames(client, &delay, |due, frame| send.send((due, frame)).is_ok());
    })?;
    Ok(())
}

type Frame = (Instant, Vec<u8>);

/// Sends each frame at its time; frames of the same time in the order in which they came.
fn send_when_due(frames: &Receiver<Frame>, sink: &mut impl Write) -> Result<()> {
    let mut waiting: BTreeMap<(Instant, u64), Vec<u8>> = BTreeMap::new();
    let mut number = 0;
    loop {
        let next = match waiting.first_key_value() {
            Some(((due, _), _)) => {
                frames.recv_timeout(due.saturating_duration_since(Instant::now()))
            }
            None => frames.recv().map_err(RecvTimeoutError::from),
        };
        match next {
            Ok((due, frame)) => {
                number += 1;
                waiting.insert((due, number), frame);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        while let Some(entry) = waiting.first_entry() {
            if entry.key().0 > Instant::now() {
                break;
            }
            sink.write_all(&entry.remove())?;
        }
    }
}

/// Reads frames and gives each with its time to `pass`, until that says no.
fn read_frames(
    mut client: impl Read,
    delay_milliseconds: &AtomicU64,
    mut pass: impl FnMut(Instant, Vec<u8>) -> bool,
) -> Result<()> {
    let mut preface = vec![0; PREFACE_BYTES];
    client.read_exact(&mut preface)?;
    pass(Instant::now(), preface);
    // Streams whose first message was seen, and until when a stream's frames wait.
    let mut known: BTreeSet<u32> = BTreeSet::new();
    let mut waiting: BTreeMap<u32, Instant> = BTreeMap::new();
    loop {
        let mut head = [0; HEAD_BYTES];
        client.read_exact(&mut head)?;
        let [a, b, c, kind, flags, s0, s1, s2, s3] = head;
        let length = usize::try_from(u32::from_be_bytes([0, a, b, c]))?;
        let stream = u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]);
        let mut frame = head.to_vec();
        frame.resize(HEAD_BYTES + length, 0);
        client.read_exact(&mut frame[HEAD_BYTES..])?;
        let now = Instant::now();
        if kind == TYPE_DATA && length > 0 && known.insert(stream) {
            let payload = &frame[HEAD_BYTES + usize::from(flags & FLAG_PADDED != 0)..];
            let delay = Duration::from_millis(delay_milliseconds.load(Ordering::SeqCst));
            if !delay.is_zero() && payload.get(MESSAGE_HEAD_BYTES..).is_some_and(is_write) {
                waiting.insert(stream, now + delay);
            }
        }
        let due = waiting
            .get(&stream)
            .copied()
            .map_or(now, |due| due.max(now));
        if kind == TYPE_RST_STREAM || (kind == TYPE_DATA && flags & FLAG_END_STREAM != 0) {
            known.remove(&stream);
            waiting.remove(&stream);
        }
        if !pass(due, frame) {
            return Ok(());
        }
    }
}

/// Whether a message changes etcd (etcd's rpc.proto): a transaction begins with a comparison (field 1, itself a message,
/// whose first field is a number) or with an operation (field 2), a grant of a lease with its time to live (field 1, a
/// number). A range and a watch begin with a key or with a message that begins with one.
fn is_write(message: &[u8]) -> bool {
    match message {
        [0x0a, rest @ ..] => {
            // The length, seven bits a byte.
            let digits = rest.iter().take_while(|byte| **byte & 0x80 != 0).count() + 1;
            matches!(rest.get(digits), Some(0x08 | 0x10))
        }
        [first, ..] => matches!(first, 0x12 | 0x08),
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::time::{Duration, Instant};

    use super::{is_write, read_frames};

    /// if mod_revision("/a") = 1 then …
    const TRANSACTION: &[u8] = b"\x0a\x08\x10\x02\x1a\x02/a\x30\x01\x12\x06";
    const RANGE: &[u8] = b"\x0a\x02/a";
    const WATCH: &[u8] = b"\x0a\x04\x0a\x02/a";

    fn data(stream: u8, message: &[u8]) -> Vec<u8> {
        let length = u8::try_from(message.len()).unwrap();
        let mut frame = vec![0, 0, length + 5, 0, 1, 0, 0, 0, stream];
        frame.extend([0, 0, 0, 0, length]);
        frame.extend(message);
        frame
    }

    #[test]
    fn writes_are_told_from_reads() {
        assert!(is_write(TRANSACTION));
        assert!(
            is_write(b"\x12\x02\x0a\x00"),
            "a transaction without conditions"
        );
        assert!(is_write(b"\x08\x3c"), "a lease");
        assert!(!is_write(RANGE));
        assert!(!is_write(WATCH));
        assert!(!is_write(b""));
    }

    #[test]
    fn only_writes_wait() {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(data(1, TRANSACTION));
        bytes.extend(data(3, RANGE));
        bytes.extend(data(5, WATCH));
        let mut passed = Vec::new();
        let ended = read_frames(&bytes[..], &AtomicU64::new(2000), |due, frame| {
            passed.push((due > Instant::now() + Duration::from_secs(1), frame));
            true
        });
        assert!(ended.is_err(), "the bytes end");
        let waits: Vec<bool> = passed.iter().map(|(waits, _)| *waits).collect();
        assert_eq!(waits, [false, true, false, false]);
        let whole: Vec<u8> = passed.into_iter().flat_map(|(_, frame)| frame).collect();
        assert_eq!(whole, bytes);
    }
}
