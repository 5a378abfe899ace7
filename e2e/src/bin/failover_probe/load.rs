//! New and long-lived connections to the address.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lvs_e2e::failover::record::{
    ANSWER_LIMIT_MILLISECONDS, ECHO_LIMIT_SECONDS, ECHO_PAUSE_MILLISECONDS, GAP_FLOOR_MICROSECONDS,
    Line, Microseconds, Order,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::now;
use super::source::Source;

/// Beginning a connection later than this is told.
const LATE_FLOOR: Duration = Duration::from_millis(5);

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
pub async fn load(
    order: Order,
    lines: Sender<Line>,
    mut stopped: watch::Receiver<bool>,
) -> Result<()> {
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
