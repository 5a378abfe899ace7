//! Runs in the machine: new and long-lived connections to an address, who carries it, and how long an API write takes.
//!
//! `failover-probe LISTEN`: one conversation at a time, as `lvs_e2e::failover::record` has it: an [`Order`] as one line
//! of JSON, then [`Line`]s from here until a line or the end from there, then the rest and the summary.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use lvs_e2e::failover::record::{
    ANSWER_LIMIT_MILLISECONDS, ECHO_LIMIT_SECONDS, ECHO_PAUSE_MILLISECONDS, GAP_FLOOR_MICROSECONDS,
    Line, Microseconds, Order, Writer,
};
use lvs_e2e::namespace::enter;
use nix::time::{ClockId, clock_gettime};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::LocalSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

/// Beginning a connection later than this is told.
const LATE_FLOOR: Duration = Duration::from_millis(5);
/// A write that has no answer by now has failed.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
const NAMESPACE: &str = "default";
const LEASE: &str = "failover-probe";

fn main() -> Result<()> {
    let listen = std::env::args()
        .nth(1)
        .context("usage: failover-probe LISTEN")?;
    let listener = TcpListener::bind(&listen).with_context(|| format!("listening on {listen}"))?;
    for stream in listener.incoming() {
        let stream = stream?;
        if let Err(error) = converse(&stream) {
            let what = format!("{error:#}");
            let _ = writeln!(&stream, "{}", json!({"kind": "failed", "what": what}));
        }
    }
    Ok(())
}

fn now() -> Microseconds {
    clock_gettime(ClockId::CLOCK_REALTIME)
        .map_or(0, |time| time.tv_sec() * 1_000_000 + time.tv_nsec() / 1_000)
}

fn converse(stream: &std::net::TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(()); // somebody looked whether we are here
    }
    let order: Order = serde_json::from_str(&line).with_context(|| format!("order {line:?}"))?;
    let (lines, told) = channel::<Line>();
    let (stop, stopped) = watch::channel(false);
    let mut monitor = monitor(&order.carriers, order.address, &lines)?;
    let mut threads = Vec::new();
    if let Some(writer) = order.writer.clone() {
        let (lines, stopped) = (lines.clone(), stopped.clone());
        let work = move || in_namespace(&writer.host.clone(), write_leases(writer, lines, stopped));
        threads.push(
            std::thread::Builder::new()
                .name("writer".into())
                .spawn(work)?,
        );
    }
    let work = {
        let order = order.clone();
        move || in_namespace(&order.client.clone(), load(order, lines, stopped))
    };
    threads.push(
        std::thread::Builder::new()
            .name("load".into())
            .spawn(work)?,
    );
    std::thread::scope(|scope| -> Result<()> {
        // The lines end when every thread that writes them has ended.
        let writing = scope.spawn(move || -> Result<()> {
            let mut stream = stream;
            for line in told {
                let mut text = serde_json::to_string(&line)?;
                text.push('\n');
                stream.write_all(text.as_bytes())?;
            }
            Ok(())
        });
        line.clear();
        let _ = reader.read_line(&mut line);
        let _ = stop.send(true);
        let mut failures = Vec::new();
        for thread in threads {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => failures.push(format!("{error:#}")),
                Err(_) => failures.push("a thread panicked".to_owned()),
            }
        }
        monitor.kill()?;
        monitor.wait()?;
        match writing.join() {
            Ok(written) => written?,
            Err(_) => bail!("the thread that writes lines panicked"),
        }
        ensure!(failures.is_empty(), "{}", failures.join("; "));
        Ok(())
    })
}

/// Runs a future on this thread, inside a network namespace.
fn in_namespace(host: &str, work: impl Future<Output = Result<()>>) -> Result<()> {
    enter(host)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, work)
}

/// `ip -ts monitor address` of all hosts, each line about `address` told; then who has it at the beginning. One program
/// with one socket, so that what happened on different hosts is told in the order in which it happened.
fn monitor(hosts: &[String], address: IpAddr, lines: &Sender<Line>) -> Result<Child> {
    let ids = namespace_ids(hosts)?;
    let mut child = Command::new("ip")
        .args(["-o", "-ts", "monitor", "address", "all-nsid"])
        .env("TZ", "UTC")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting ip monitor")?;
    let output = child
        .stdout
        .take()
        .context("standard output of ip monitor")?;
    let told = lines.clone();
    std::thread::Builder::new()
        .name("monitor".into())
        .spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some((at, id, present)) = carried(&line, address)
                    && let Some(host) = ids.get(&id).cloned()
                {
                    let _ = told.send(Line::Carried { host, at, present });
                }
            }
        })?;
    for host in hosts {
        let shown = ip(&["-n", host, "-o", "address", "show"])?;
        if shown.lines().any(|line| names(line, address)) {
            let (host, at) = (host.clone(), now());
            let _ = lines.send(Line::Carried {
                host,
                at,
                present: true,
            });
        }
    }
    Ok(child)
}

/// The ids by which the kernel tells the hosts' network namespaces apart here; a host without one gets it.
fn namespace_ids(hosts: &[String]) -> Result<BTreeMap<u32, String>> {
    let known = || -> Result<BTreeMap<u32, String>> {
        let listed = ip(&["netns", "list"])?;
        Ok(listed.lines().filter_map(namespace_id).collect())
    };
    let before = known()?;
    for host in hosts {
        if !before.values().any(|name| name == host) {
            ip(&["netns", "set", host, "auto"])?;
        }
    }
    known()
}

/// A line of `ip netns list`, such as `lb-a (id: 3)`.
fn namespace_id(line: &str) -> Option<(u32, String)> {
    let (name, id) = line.split_once(" (id: ")?;
    Some((id.strip_suffix(')')?.parse().ok()?, name.to_owned()))
}

fn ip(words: &[&str]) -> Result<String> {
    let output = Command::new("ip").args(words).output().context("ip")?;
    ensure!(
        output.status.success(),
        "ip {}: {}",
        words.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a line of `ip address` is about an address.
fn names(line: &str, address: IpAddr) -> bool {
    line.split_whitespace().any(|word| {
        word.split('/')
            .next()
            .and_then(|word| word.parse::<IpAddr>().ok())
            == Some(address)
    })
}

/// `[2026-01-31T12:00:00.123456] [nsid 3]Deleted 7: out    inet 172.16.2.200/32 …`: when, where, and whether it is there now.
fn carried(line: &str, address: IpAddr) -> Option<(Microseconds, u32, bool)> {
    let (stamp, rest) = line.strip_prefix('[')?.split_once(']')?;
    let (id, rest) = rest.trim_start().strip_prefix("[nsid ")?.split_once(']')?;
    let id = id.parse().ok()?;
    let stamp: jiff::civil::DateTime = stamp.parse().ok()?;
    let at = stamp
        .to_zoned(jiff::tz::TimeZone::UTC)
        .ok()?
        .timestamp()
        .as_microsecond();
    names(rest, address).then(|| (at, id, !rest.trim_start().starts_with("Deleted ")))
}

/// Renews a Lease of its own until it is told to end.
async fn write_leases(
    writer: Writer,
    lines: Sender<Line>,
    mut stopped: watch::Receiver<bool>,
) -> Result<()> {
    let kubeconfig = Kubeconfig::read_from(&writer.kubeconfig)
        .with_context(|| format!("reading {}", writer.kubeconfig))?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let api: Api<Lease> = Api::namespaced(Client::try_from(config)?, NAMESPACE);
    let parameters = PostParams::default();
    let mut lease: Option<Lease> = None;
    let mut rhythm = interval(Duration::from_millis(writer.rhythm_milliseconds));
    rhythm.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! { _ = rhythm.tick() => {} _ = stopped.changed() => return Ok(()) }
        let renewal = async {
            let Some(known) = lease.take() else {
                // The first write, or the first after a failure: not a renewal, so not measured.
                let current = if let Some(found) = api.get_opt(LEASE).await? {
                    found
                } else {
                    let object: Lease =
                        serde_json::from_value(json!({"metadata": {"name": LEASE}}))?;
                    api.create(&parameters, &object).await?
                };
                return anyhow::Ok((current, None));
            };
            let mut next = known;
            let spec = next.spec.get_or_insert_default();
            spec.holder_identity = Some(writer.host.clone());
            spec.renew_time = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(
                jiff::Timestamp::now(),
            ));
            let (at, begun) = (now(), Instant::now());
            let renewed = api.replace(LEASE, &parameters, &next).await?;
            Ok((renewed, Some((at, begun.elapsed()))))
        };
        let at = now();
        let ended = tokio::select! { ended = timeout(WRITE_LIMIT, renewal) => ended, _ = stopped.changed() => return Ok(()) };
        let failed = match ended {
            Ok(Ok((current, measured))) => {
                lease = Some(current);
                if let Some((at, elapsed)) = measured {
                    let microseconds = i64::try_from(elapsed.as_micros())?;
                    let _ = lines.send(Line::Write {
                        at,
                        microseconds,
                        error: String::new(),
                    });
                }
                continue;
            }
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => format!("no answer within {} s", WRITE_LIMIT.as_secs()),
        };
        let _ = lines.send(Line::Write {
            at,
            microseconds: now() - at,
            error: failed,
        });
    }
}

/// What all connections know of each other.
struct Shared {
    lines: Sender<Line>,
    answered: u64,
    last_answer: Microseconds,
    last_lost: Microseconds,
    held_since: Vec<Option<Microseconds>>,
    held_alive: usize,
    longest_echo: i64,
}

impl Shared {
    fn tell(&self, line: Line) {
        let _ = self.lines.send(line);
    }

    fn answer(&mut self, rhythm: Microseconds) {
        let (from, to) = (self.last_answer, now());
        if self.answered > 0 && to - from - rhythm > GAP_FLOOR_MICROSECONDS {
            self.tell(Line::Gap { from, to });
        }
        self.answered += 1;
        self.last_answer = to;
    }
}

/// New and long-lived connections until it is told to end.
async fn load(order: Order, lines: Sender<Line>, mut stopped: watch::Receiver<bool>) -> Result<()> {
    let shared = Rc::new(RefCell::new(Shared {
        lines,
        answered: 0,
        last_answer: 0,
        last_lost: 0,
        held_since: vec![None; order.held],
        held_alive: 0,
        longest_echo: 0,
    }));
    let mut held = Vec::new();
    let source = match &order.source_device {
        Some(device) => Some(Source::add(&order.client, device, order.echo.ip())?),
        None => None,
    };
    let address = source.as_ref().map(|source| source.address);
    for index in 0..order.held {
        let (shared, stopped) = (Rc::clone(&shared), stopped.clone());
        let begin = Duration::from_millis(
            ECHO_PAUSE_MILLISECONDS * u64::try_from(index)? / u64::try_from(order.held)?,
        );
        held.push(tokio::task::spawn_local(async move {
            sleep(begin).await;
            hold(index, address, order.echo, shared, stopped).await;
        }));
    }
    let rhythm = Duration::from_millis(order.rhythm_milliseconds);
    let rhythm_microseconds = i64::try_from(rhythm.as_micros())?;
    let before = i64::try_from(Duration::from_millis(order.held_before_milliseconds).as_micros())?;
    let mut steady = false;
    let mut ticks = interval(rhythm);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    loop {
        let due = tokio::select! { due = ticks.tick() => due, _ = stopped.changed() => break };
        let late = due.elapsed();
        if late > LATE_FLOOR {
            let microseconds = i64::try_from(late.as_micros())?;
            let at = now() - microseconds;
            shared.borrow().tell(Line::Late { at, microseconds });
        }
        let (shared_here, web) = (Rc::clone(&shared), order.web);
        tokio::task::spawn_local(async move {
            let at = now();
            let limit = Duration::from_millis(ANSWER_LIMIT_MILLISECONDS);
            let ended = timeout(limit, request(address, web)).await;
            let mut shared = shared_here.borrow_mut();
            let reason = match ended {
                Ok(Ok(())) => return shared.answer(rhythm_microseconds),
                Ok(Err(error)) => format!("{error:#}"),
                Err(_) => format!("no answer within {ANSWER_LIMIT_MILLISECONDS} ms"),
            };
            shared.last_lost = now();
            shared.tell(Line::Lost { at, reason });
        });
        if !steady {
            let at = now();
            let known = shared.borrow();
            steady = known
                .held_since
                .iter()
                .all(|since| since.is_some_and(|since| at - since >= before))
                && known.answered > 0
                && at - known.last_lost > 1_000_000
                && at - known.last_answer < 100_000;
            if steady {
                known.tell(Line::Steady { at });
            }
        }
    }
    let at = now();
    for connection in held {
        connection.await?;
    }
    // What is still under way answers or is lost.
    sleep(Duration::from_millis(ANSWER_LIMIT_MILLISECONDS + 50)).await;
    let known = shared.borrow();
    known.tell(Line::Summary {
        at,
        answered: known.answered,
        last_answer: known.last_answer,
        held_alive: known.held_alive,
        longest_echo_microseconds: known.longest_echo,
    });
    Ok(())
}

/// One new connection, to the end of its answer.
async fn request(source: Option<IpAddr>, web: SocketAddr) -> Result<()> {
    let mut stream = connect(source, web).await?;
    stream
        .write_all(b"GET / HTTP/1.0\r\n\r\n")
        .await
        .context("asking")?;
    let mut answer = Vec::with_capacity(512);
    stream
        .read_to_end(&mut answer)
        .await
        .context("reading the answer")?;
    ensure!(
        answer.starts_with(b"HTTP/1.0 200 ") || answer.starts_with(b"HTTP/1.1 200 "),
        "answered {:?}",
        String::from_utf8_lossy(&answer)
    );
    Ok(())
}

/// An address for the connections of one measurement, removed with it.
///
/// IPVS remembers a connection for 15 minutes after the director that balanced it last saw it, and would send a new one
/// from its address and port to the same real server, which after a takeover is a measurement of the past. A measurement
/// takes 12 s at least, so that an address comes again after 19 minutes at the earliest.
struct Source {
    host: String,
    device: String,
    address: IpAddr,
}

impl Source {
    /// What the hosts of the machine leave free of 172.16.2.0/24 and of fd00:2::/64.
    const NUMBERS: Range<u16> = 101..196;
    const COUNT: &str = "/run/failover-probe.measurements";

    fn add(host: &str, device: &str, target: IpAddr) -> Result<Self> {
        let count = match std::fs::read_to_string(Self::COUNT) {
            Ok(text) => text.trim().parse::<u64>().with_context(|| Self::COUNT)?,
            Err(error) if error.kind() == ErrorKind::NotFound => 0,
            Err(error) => return Err(error).context(Self::COUNT),
        };
        std::fs::write(Self::COUNT, (count + 1).to_string()).context(Self::COUNT)?;
        let source = Self {
            host: host.to_owned(),
            device: device.to_owned(),
            address: Self::number(count, target),
        };
        source.change("replace")?;
        Ok(source)
    }

    fn number(count: u64, target: IpAddr) -> IpAddr {
        let numbers = Self::NUMBERS;
        let offset = u16::try_from(count % u64::from(numbers.end - numbers.start)).unwrap_or(0);
        let number = numbers.start + offset;
        match target {
            IpAddr::V4(_) => Ipv4Addr::from(0xac10_0200 + u32::from(number)).into(),
            IpAddr::V6(_) => Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 1, number).into(),
        }
    }

    fn change(&self, verb: &str) -> Result<()> {
        let length = if self.address.is_ipv4() { 24 } else { 64 };
        let prefix = format!("{}/{length}", self.address);
        let mut words = vec![
            "-n",
            &self.host,
            "address",
            verb,
            &prefix,
            "dev",
            &self.device,
        ];
        if self.address.is_ipv6() {
            words.push("nodad");
        }
        ip(&words).map(drop)
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        let _ = self.change("del");
    }
}

/// A connection from `source`, or from an address that the kernel chooses, as it does the port.
async fn connect(source: Option<IpAddr>, target: SocketAddr) -> Result<TcpStream> {
    let socket = match target {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if let Some(source) = source {
        socket
            .bind((source, 0).into())
            .with_context(|| format!("binding {source}"))?;
    }
    socket.connect(target).await.context("connecting")
}

/// One long-lived connection: a byte there and back, a pause, and again; after the end once more.
async fn hold(
    index: usize,
    source: Option<IpAddr>,
    echo: SocketAddr,
    shared: Rc<RefCell<Shared>>,
    mut stopped: watch::Receiver<bool>,
) {
    let limit = Duration::from_secs(ECHO_LIMIT_SECONDS);
    let talk = async {
        let mut stream = connect(source, echo).await?;
        stream.set_nodelay(true)?;
        loop {
            let last = *stopped.borrow();
            let begun = Instant::now();
            stream.write_all(b".").await.context("sending a byte")?;
            let mut byte = [0];
            let answer = async {
                let count = stream.read(&mut byte).await.context("reading a byte")?;
                ensure!(count == 1, "closed by the server");
                Ok(())
            };
            if last {
                timeout(limit, answer)
                    .await
                    .with_context(|| format!("no byte within {} s", limit.as_secs()))??;
            } else {
                // Told to end while it waits, it has as long.
                let mut stopped = stopped.clone();
                let patience = async {
                    let _ = stopped.wait_for(|stop| *stop).await;
                    sleep(limit).await;
                };
                tokio::select! {
                    answered = answer => answered?,
                    () = patience => bail!("no byte within {} s", limit.as_secs()),
                }
            }
            {
                let mut shared = shared.borrow_mut();
                let took = i64::try_from(begun.elapsed().as_micros())?;
                shared.longest_echo = shared.longest_echo.max(took);
                shared.held_since[index].get_or_insert_with(now);
            }
            if last {
                return anyhow::Ok(());
            }
            let _ = timeout(
                Duration::from_millis(ECHO_PAUSE_MILLISECONDS),
                stopped.changed(),
            )
            .await;
        }
    };
    let ended = talk.await;
    let mut shared = shared.borrow_mut();
    match ended {
        Ok(()) => shared.held_alive += 1,
        Err(error) => shared.tell(Line::HeldLost {
            at: now(),
            reason: format!("{error:#}"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{IpAddr, Source, carried, namespace_id};

    #[test]
    fn a_measurement_uses_no_address_that_a_director_may_remember() {
        const SHORTEST_SECONDS: u64 = 12;
        let in_15_minutes = 15 * 60 / SHORTEST_SECONDS;
        for target in ["172.16.2.200", "fd00:2::200"] {
            let target = target.parse().unwrap();
            let addresses: BTreeSet<IpAddr> = (1_000..1_000 + in_15_minutes)
                .map(|count| Source::number(count, target))
                .collect();
            assert_eq!(addresses.len() as u64, in_15_minutes);
        }
        let first = Source::number(0, "172.16.2.200".parse().unwrap());
        assert_eq!(first.to_string(), "172.16.2.101");
    }

    #[test]
    fn a_line_of_ip_monitor_is_read() {
        let address = "172.16.2.200".parse().unwrap();
        let added = "[2026-01-31T12:00:00.123456] [nsid 3]7: out    inet 172.16.2.200/32 scope global out\\       valid_lft 2sec preferred_lft 0sec";
        assert_eq!(
            carried(added, address),
            Some((1_769_860_800_123_456, 3, true))
        );
        let deleted = "[2026-01-31T12:00:00.123456] [nsid 12]Deleted 7: out    inet 172.16.2.200/32 scope global out\\       valid_lft forever";
        assert_eq!(
            carried(deleted, address),
            Some((1_769_860_800_123_456, 12, false))
        );
        let here = added.replace("nsid 3", "nsid current");
        assert_eq!(carried(&here, address), None);
        let other =
            "[2026-01-31T12:00:00.123456] [nsid 3]7: out    inet 172.16.2.20/32 scope global out";
        assert_eq!(carried(other, address), None);
        assert_eq!(carried("172.16.2.200", address), None);
    }

    #[test]
    fn a_namespace_without_an_id_has_none() {
        assert_eq!(namespace_id("lb-a (id: 3)"), Some((3, "lb-a".to_owned())));
        assert_eq!(namespace_id("lb-a"), None);
    }
}
