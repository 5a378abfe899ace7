//! The program in the guest, seen from here. It reports over a connection of its own: to ask the guest by commands would
//! cost it processes, and what is measured would wait for them.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::record::{Line, Order};
use crate::await_condition::until;
use crate::guest::quote;
use crate::lab::{LIMIT, Lab};

/// The program, started in the guest.
pub struct Probe<'a> {
    lab: &'a Lab,
    port: u16,
    process: String,
}

impl<'a> Probe<'a> {
    /// Starts it, and waits until it listens.
    pub fn start(lab: &'a Lab) -> Result<Self> {
        let port = free_port()?;
        // Stories are told by another program of the same folder.
        let program = std::env::current_exe()?.with_file_name("failover-probe");
        let process = lab
            .guest
            .run(&format!(
                // In front of everything else there: what measures must not wait for what is measured.
                "setsid chrt --fifo 10 {} 0.0.0.0:{port} >>/run/failover-probe.log 2>&1 </dev/null & echo $!",
                quote(&program.display().to_string())
            ))?
            .trim()
            .to_owned();
        lab.carry_out(&format!("127.0.0.1:{port}"), port)?;
        let probe = Self { lab, port, process };
        until(LIMIT, "failover-probe listens", || {
            let output = lab.guest.run(&format!(
                "ss -Hltn 'sport = :{port}'; cat /run/failover-probe.log"
            ))?;
            Ok(if output.contains("LISTEN") {
                Ok(())
            } else {
                Err(output)
            })
        })?;
        Ok(probe)
    }

    /// Begins one measurement.
    pub fn begin(&self, order: &Order) -> Result<Watch> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_nodelay(true)?;
        let mut text = serde_json::to_string(order)?;
        text.push('\n');
        stream.write_all(text.as_bytes())?;
        let seen = Arc::new(Seen::default());
        let reader = BufReader::new(stream.try_clone()?);
        let filling = Arc::clone(&seen);
        let thread = std::thread::Builder::new()
            .name("probe".into())
            .spawn(move || filling.fill(reader))?;
        Ok(Watch {
            stream,
            seen,
            thread: Some(thread),
        })
    }
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        let _ = self
            .lab
            .guest
            .try_run(&format!("kill -KILL {} 2>/dev/null", self.process));
    }
}

/// A free port of this machine's loopback.
pub fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port())
}

#[derive(Default)]
struct Seen {
    lines: Mutex<Lines>,
    more: Condvar,
}

#[derive(Default)]
struct Lines {
    all: Vec<Line>,
    ended: Option<Result<(), String>>,
}

impl Seen {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fill(&self, reader: impl BufRead) {
        let mut ended = Ok(());
        for line in reader.lines() {
            let line = line
                .context("reading")
                .and_then(|line| serde_json::from_str(&line).with_context(|| line));
            match line {
                Ok(line) => self.lock().all.push(line),
                Err(error) => {
                    ended = Err(format!("{error:#}"));
                    break;
                }
            }
            self.more.notify_all();
        }
        self.lock().ended = Some(ended);
        self.more.notify_all();
    }
}

/// One measurement that goes on.
pub struct Watch {
    stream: TcpStream,
    seen: Arc<Seen>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Waits until the lines so far are enough for `look`; `None` at the limit.
    pub fn await_lines<T>(
        &self,
        limit: Duration,
        mut look: impl FnMut(&[Line]) -> Option<T>,
    ) -> Result<Option<T>> {
        let end = Instant::now() + limit;
        let mut lines = self.seen.lock();
        loop {
            if let Some(Line::Failed { what }) = lines
                .all
                .iter()
                .find(|line| matches!(line, Line::Failed { .. }))
            {
                bail!("failover-probe: {what}");
            }
            if let Some(found) = look(&lines.all) {
                return Ok(Some(found));
            }
            if let Some(ended) = &lines.ended {
                bail!("failover-probe ended: {ended:?}");
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            lines = self
                .seen
                .more
                .wait_timeout(lines, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Waits until everything answers and the long-lived connections are old enough.
    pub fn await_steady(&self) -> Result<()> {
        let steady = self.await_lines(LIMIT, |lines| {
            lines
                .iter()
                .find(|line| matches!(line, Line::Steady { .. }))
                .cloned()
        })?;
        if steady.is_some() {
            return Ok(());
        }
        let lines = self.seen.lock();
        let last = &lines.all[lines.all.len().saturating_sub(5)..];
        bail!(
            "waited {} s for undisturbed traffic; {} lines, the last: {last:?}",
            LIMIT.as_secs(),
            lines.all.len()
        );
    }

    /// Ends the measurement; every line, the summary among them.
    pub fn end(mut self) -> Result<Vec<Line>> {
        self.stream.write_all(b"end\n")?;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let mut lines = self.seen.lock();
        match lines.ended.take() {
            Some(Ok(())) => {}
            other => bail!("failover-probe ended: {other:?}"),
        }
        let all = std::mem::take(&mut lines.all);
        for line in &all {
            if let Line::Failed { what } = line {
                bail!("failover-probe: {what}");
            }
        }
        ensure!(
            all.iter().any(|line| matches!(line, Line::Summary { .. })),
            "failover-probe gave no summary"
        );
        Ok(all)
    }
}

impl Drop for Watch {
    /// The reader has the connection too, so that it must be told.
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
