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
