//! Runs in the machine: answers when the first connection to an address gets through.
//!
//! `probe LISTEN NAMESPACE`: listens in the namespace it is started in, probes from NAMESPACE. Request: one line
//! `address:port`. Answer: one line with the number of attempts, sent at the first connection that succeeds.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lvs_e2e::namespace::enter;

/// An attempt that is not answered within this time is given up; lost SYNs would wait a second.
const ATTEMPT: Duration = Duration::from_millis(20);
const LIMIT: Duration = Duration::from_mins(1);

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(listen), Some(namespace)) = (arguments.next(), arguments.next()) else {
        bail!("usage: probe LISTEN NAMESPACE");
    };
    let listener = TcpListener::bind(&listen).with_context(|| format!("listening on {listen}"))?;
    enter(&namespace)?;
    for stream in listener.incoming() {
        if let Err(error) = answer(&stream?) {
            eprintln!("probe: {error:#}");
        }
    }
    Ok(())
}

fn answer(mut stream: &TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    let target: SocketAddr = line
        .trim()
        .parse()
        .with_context(|| format!("target {line:?}"))?;
    let end = Instant::now() + LIMIT;
    let mut attempts = 0_u32;
    while Instant::now() < end {
        attempts += 1;
        let begun = Instant::now();
        if TcpStream::connect_timeout(&target, ATTEMPT).is_ok() {
            writeln!(stream, "{attempts}")?;
            return Ok(());
        }
        // A refusal comes at once: keep a pace that leaves the machine to those who are measured.
        std::thread::sleep(Duration::from_millis(2).saturating_sub(begun.elapsed()));
    }
    writeln!(stream, "0")?;
    Ok(())
}
