//! Real traffic from the client, and what came back.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::guest::{Guest, quote};

/// How often each answer came. A connection that failed counts as `failed:<curl's status>`.
pub type Spread = BTreeMap<String, usize>;

/// Opens `count` connections one after another from `host` to `url` and counts the answers (the name of the
/// server that answered).
pub fn spread(guest: &Guest, host: &str, url: &str, count: usize) -> Result<Spread> {
    spread_with(guest, host, url, count, "")
}

/// As [`spread`], with further arguments of curl.
pub fn spread_with(
    guest: &Guest,
    host: &str,
    url: &str,
    count: usize,
    arguments: &str,
) -> Result<Spread> {
    // One curl for all: each URL is a connection of its own because the server is asked to close.
    let output = guest.try_on(
        host,
        &format!(
            "urls=(); for i in $(seq {count}); do urls+=({}); done; \
             curl --silent --show-error --max-time 5 --connect-timeout 5 --globoff -H 'Connection: close' {arguments} \
             -w '%{{stderr}}%{{exitcode}}\\n' \"${{urls[@]}}\"",
            quote(url)
        ),
    )?;
    let mut spread = Spread::new();
    for line in output.stdout.lines() {
        *spread.entry(line.to_owned()).or_default() += 1;
    }
    let failed: Vec<&str> = output
        .stderr
        .lines()
        .filter(|line| {
            *line != "0" && !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_digit())
        })
        .collect();
    for status in failed {
        *spread.entry(format!("failed:{status}")).or_default() += 1;
    }
    Ok(spread)
}

/// The answer to one connection; an error when it fails.
pub fn get(guest: &Guest, host: &str, url: &str) -> Result<String> {
    Ok(guest
        .on(
            host,
            &format!(
                "curl --silent --show-error --max-time 5 --globoff {}",
                quote(url)
            ),
        )?
        .trim()
        .to_owned())
}

/// Connections that stay open until dropped.
pub struct Held<'a> {
    guest: &'a Guest,
    process: String,
}

impl<'a> Held<'a> {
    /// Opens `count` connections from `host` to an address and port, one after another, and keeps them.
    pub fn open(
        guest: &'a Guest,
        host: &str,
        address: &str,
        port: u16,
        count: usize,
    ) -> Result<Self> {
        let process = guest.on(
            host,
            &format!(
                "ready=$(mktemp -u /run/held.XXXXXX)\n\
                 setsid bash -c 'for i in $(seq {count}); do exec {{fd}}<>/dev/tcp/{address}/{port} || exit 1; done; \
                 touch '$ready'; exec sleep 600' >/dev/null 2>&1 </dev/null &\n\
                 for i in $(seq 200); do [ -e $ready ] && break; kill -0 $! || exit 1; sleep 0.05; done\n\
                 [ -e $ready ] && rm $ready && echo $!"
            ),
        )?;
        Ok(Self {
            guest,
            process: process.trim().to_owned(),
        })
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let _ = self
            .guest
            .try_run(&format!("kill -KILL {} 2>/dev/null", self.process));
    }
}

/// Active connections per real server address of all services in a director's kernel.
pub fn active_connections(guest: &Guest, director: &str) -> Result<BTreeMap<String, usize>> {
    Ok(active(&guest.on(director, "ipvsadm -Ln")?))
}

/// The same from what `ipvsadm -Ln` printed.
pub fn active(table: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in table.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let ["->", server, _, _, active, _] = words[..]
            && let Ok(active) = active.parse::<usize>()
        {
            *counts.entry(server.to_owned()).or_default() += active;
        }
    }
    counts
}

/// New connections one after another in the background, and one long download beside them.
pub struct Load<'a> {
    guest: &'a Guest,
    folder: String,
}

/// What a [`Load`] saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadResult {
    /// Connections that were answered.
    pub done: usize,
    /// Those that failed, the long download included: curl's status and message.
    pub failed: Vec<String>,
}

impl<'a> Load<'a> {
    /// Starts it on `host` towards `url` (which ends in `/`; `large` below it is the long download).
    pub fn start(guest: &'a Guest, host: &str, url: &str) -> Result<Self> {
        let folder = guest.run("mktemp -d /run/load.XXXXXX")?.trim().to_owned();
        guest.on(
            host,
            &format!(
                // One process for all of them: to start one for each would starve the hosts.
                "cd {folder}; : >log
                 setsid curl --silent --rate 5/s --max-time 10 -H 'Connection: close' -o /dev/null \
                     -w '%{{stderr}}%{{exitcode}} %{{errormsg}}\\n' '{url}?[1-100000]' 2>log >/dev/null </dev/null & echo $! >pid
                 setsid bash -c 'curl --silent --limit-rate 400k --max-time 300 -o /dev/null {url}large & pid=$!
                    while [ ! -e stop ] && kill -0 $pid 2>/dev/null; do sleep 0.5; done
                    if kill -0 $pid 2>/dev/null; then kill $pid; echo 0 >>long; else wait $pid; echo $? the long download >>long; fi' >/dev/null 2>&1 </dev/null &
                 for i in $(seq 200); do [ -s log ] && exit 0; sleep 0.1; done; exit 1"
            ),
        )?;
        Ok(Self { guest, folder })
    }

    /// Ends it and tells what it saw.
    pub fn stop(self) -> Result<LoadResult> {
        let folder = &self.folder;
        let log = self.guest.run(&format!(
            "cd {folder}; touch stop; kill $(cat pid); for i in $(seq 200); do [ -e long ] && break; sleep 0.1; done; cat log long"
        ))?;
        let failed: Vec<String> = log
            .lines()
            .filter(|line| line.split(' ').next() != Some("0"))
            .map(str::to_owned)
            .collect();
        Ok(LoadResult {
            done: log.lines().count() - failed.len(),
            failed,
        })
    }
}
