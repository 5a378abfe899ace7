//! Runs in the machine: listeners that die, the directors' tables, and clients of each director.
//!
//! `detection-probe refused|silent DEATHS NAME=HOST=ADDRESS…`: that many deaths of `web-1`'s listener, one line of JSON each,
//! with when it was gone from each director's table and which clients failed.

#![allow(clippy::print_stdout)]

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use lvs_e2e::detection::{Clients, Death, Kind, PORT, SURVIVOR, VICTIM};
use lvs_e2e::namespace::enter;
use nix::sys::socket::{Backlog, listen};
use tokio::io::AsyncReadExt;
use tokio::task::LocalSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Tables are read this often.
const LOOK: Duration = Duration::from_millis(2);
/// A table that is not as it should be by now will not be.
const LIMIT: Duration = Duration::from_secs(30);
/// Of each director a client begins this often.
const RHYTHM: Duration = Duration::from_millis(20);
/// A client that has no answer by now has failed: its first segment was lost.
const ANSWER_LIMIT: Duration = Duration::from_millis(950);
/// A connection from the same host is taken within this time, or not at all.
const KNOCK: Duration = Duration::from_millis(100);
/// Clients are watched for this long after the last removal.
const AFTER: Duration = Duration::from_secs(1);

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [kind, deaths, directors @ ..] = &words[..] else {
        bail!("usage: detection-probe refused|silent DEATHS NAME=HOST=ADDRESS…");
    };
    let kind: Kind = serde_json::from_str(&format!("{kind:?}")).context("refused or silent")?;
    let deaths: u32 = deaths.parse().context("DEATHS")?;
    let directors: Vec<Director> = directors
        .iter()
        .map(|text| Director::open(text))
        .collect::<Result<_>>()?;
    let _survivor = Listener::start(SURVIVOR.host)?;
    let failures = Arc::new(Mutex::new(Vec::new()));
    let (sink, targets) = (Arc::clone(&failures), directors.iter());
    let targets: Vec<SocketAddr> = targets
        .map(|director| SocketAddr::from((director.address, PORT)))
        .collect();
    let clients = std::thread::Builder::new()
        .name("clients".into())
        .spawn(move || open_clients(&targets, &sink))?;
    for number in 0..deaths {
        let victim = Listener::start(VICTIM.host)?;
        await_tables(&directors, true)?;
        // Any moment between two checks: parts of a second that fall everywhere (multiples of the golden ratio).
        let part = (f64::from(number) * 0.618_034).fract();
        std::thread::sleep(AFTER.mul_f64(1.0 + part));
        ensure!(!clients.is_finished(), "the clients ended");
        take(&failures);
        let died = Instant::now();
        let remains = victim.die(kind)?;
        let removed = await_tables(&directors, false)?;
        std::thread::sleep(AFTER + ANSWER_LIMIT);
        let failed = take(&failures);
        let death = Death {
            kind,
            clients: directors
                .iter()
                .zip(&removed)
                .enumerate()
                .map(|(index, (director, removed))| {
                    let begun = failed.iter().filter(|failure| failure.director == index);
                    let (before, after): (Vec<_>, Vec<_>) =
                        begun.partition(|failure| failure.begun < *removed);
                    let clients = Clients {
                        removed_seconds: removed.duration_since(died).as_secs_f64(),
                        failed_before: before.len(),
                        failed_after: after
                            .iter()
                            .map(|failure| {
                                let late = failure.begun.duration_since(*removed);
                                format!("{} ms after: {}", late.as_millis(), failure.what)
                            })
                            .collect(),
                    };
                    (director.name.clone(), clients)
                })
                .collect(),
        };
        println!("{}", serde_json::to_string(&death)?);
        std::io::stdout().flush()?;
        drop(remains);
    }
    Ok(())
}

/// Runs something on a thread of its own inside a network namespace; what it opens stays of that namespace.
fn on_host<T: Send>(host: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter(host)?;
            work()
        });
        thread.join().map_err(|_| anyhow!("a thread panicked"))?
    })
}

/// A director's table.
struct Director {
    name: String,
    address: Ipv4Addr,
    table: Mutex<File>,
}

impl Director {
    fn open(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split('=').collect();
        let [name, host, address] = parts[..] else {
            bail!("{text:?} is not NAME=HOST=ADDRESS");
        };
        let path = "/proc/thread-self/net/ip_vs";
        let table = on_host(host, || {
            File::open(path).with_context(|| format!("{path} of {host}"))
        })?;
        Ok(Self {
            name: name.to_owned(),
            address: address.parse().with_context(|| address.to_owned())?,
            table: Mutex::new(table),
        })
    }

    /// Whether the victim is in it.
    fn has_victim(&self) -> Result<bool> {
        let mut text = String::new();
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.seek(SeekFrom::Start(0))?;
        table.read_to_string(&mut text)?;
        let victim = format!("-> {:08X}:{PORT:04X}", u32::from(VICTIM.address));
        Ok(text.contains(&victim))
    }
}

/// Waits until the victim is in every table, or in none; when that was so of each.
fn await_tables(directors: &[Director], present: bool) -> Result<Vec<Instant>> {
    let begun = Instant::now();
    let mut found: Vec<Option<Instant>> = vec![None; directors.len()];
    loop {
        for (director, found) in directors.iter().zip(&mut found) {
            if found.is_none() && director.has_victim()? == present {
                *found = Some(Instant::now());
            }
        }
        if let Some(all) = found.iter().copied().collect::<Option<Vec<Instant>>>() {
            return Ok(all);
        }
        if begun.elapsed() > LIMIT {
            let late = directors.iter().zip(&found);
            let late: Vec<&str> = late
                .filter(|(_, found)| found.is_none())
                .map(|(director, _)| &*director.name)
                .collect();
            let what = if present { "not back" } else { "still there" };
            bail!(
                "the listener is {what} after {} s with {}",
                LIMIT.as_secs(),
                late.join(", ")
            );
        }
        std::thread::sleep(LOOK);
    }
}

/// Takes connections, sends a byte and closes.
struct Listener {
    host: &'static str,
    socket: TcpListener,
    accepting: JoinHandle<()>,
    ends: Arc<AtomicBool>,
}

impl Listener {
    fn start(host: &'static str) -> Result<Self> {
        let socket = on_host(host, || Ok(TcpListener::bind(("0.0.0.0", PORT))?))?;
        let taking = socket.try_clone()?;
        let ends = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&ends);
        let accepting = std::thread::Builder::new()
            .name("listener".into())
            .spawn(move || {
                for stream in taking.incoming() {
                    if ended.load(Ordering::Relaxed) {
                        return;
                    }
                    let _ = stream.and_then(|mut stream| stream.write_all(b"."));
                }
            })?;
        Ok(Self {
            host,
            socket,
            accepting,
            ends,
        })
    }

    /// What has to be kept for it to stay dead.
    fn die(self, kind: Kind) -> Result<Option<(TcpListener, Option<TcpStream>)>> {
        let own = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
        let knock = || Ok(TcpStream::connect_timeout(&own, KNOCK));
        self.ends.store(true, Ordering::Relaxed);
        on_host(self.host, knock)??;
        self.accepting
            .join()
            .map_err(|_| anyhow!("the listener panicked"))?;
        if kind == Kind::Refused {
            return Ok(None);
        }
        // Room for one connection that nobody takes: the kernel drops the first segment of any other.
        listen(&self.socket, Backlog::new(0)?)?;
        // A client may have been faster: then there is no answer.
        let first = on_host(self.host, knock)?;
        Ok(Some((self.socket, first.ok())))
    }
}

struct Failure {
    director: usize,
    begun: Instant,
    what: String,
}

fn take(failures: &Mutex<Vec<Failure>>) -> Vec<Failure> {
    std::mem::take(&mut *failures.lock().unwrap_or_else(PoisonError::into_inner))
}

/// New connections to each of `targets`, for ever.
fn open_clients(targets: &[SocketAddr], failures: &Arc<Mutex<Vec<Failure>>>) -> Result<()> {
    enter("client")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        let mut ticks = interval(RHYTHM);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        loop {
            ticks.tick().await;
            for (director, target) in targets.iter().copied().enumerate() {
                let failures = Arc::clone(failures);
                tokio::task::spawn_local(async move {
                    let begun = Instant::now();
                    let what = match timeout(ANSWER_LIMIT, request(target)).await {
                        Ok(Ok(())) => return,
                        Ok(Err(error)) => format!("{error:#}"),
                        Err(_) => format!("no answer within {} ms", ANSWER_LIMIT.as_millis()),
                    };
                    let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
                    failures.push(Failure {
                        director,
                        begun,
                        what,
                    });
                });
            }
        }
    })
}

/// One new connection and its byte.
async fn request(target: SocketAddr) -> Result<()> {
    let mut stream = tokio::net::TcpStream::connect(target).await?;
    let mut answer = [0; 1];
    stream.read_exact(&mut answer).await?;
    Ok(())
}
