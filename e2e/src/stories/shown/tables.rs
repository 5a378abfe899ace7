//! Tables of ipvsadm and of the plugin in one form, a line for each service and destination.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

/// A service, or a destination in it.
type Key = (String, Option<String>);
/// What a table says of each.
pub type Rows = BTreeMap<Key, Vec<String>>;

fn put(rows: &mut Rows, key: Key, words: Vec<String>) -> Result<()> {
    let name = format!("{key:?}");
    ensure!(rows.insert(key, words).is_none(), "{name} is there twice");
    Ok(())
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// What `ipvsadm -Ln` prints, with whatever columns.
pub fn of_ipvsadm(text: &str) -> Result<Rows> {
    let mut rows = Rows::new();
    let mut service = None;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["IP" | "Prot", ..] | ["->", "RemoteAddress:Port", ..] => {}
            [protocol @ ("TCP" | "UDP" | "SCTP"), socket, rest @ ..] => {
                let name = format!("{protocol} {socket}");
                put(&mut rows, (name.clone(), None), owned(rest))?;
                service = Some(name);
            }
            ["FWM", mark, rest @ ..] => {
                // Printed as a number with a sign.
                let mark = mark.parse::<i64>()?.rem_euclid(1 << 32);
                let (name, rest) = match rest {
                    ["IPv6", rest @ ..] => (format!("FWM {mark} IPv6"), rest),
                    rest => (format!("FWM {mark}"), rest),
                };
                put(&mut rows, (name.clone(), None), owned(rest))?;
                service = Some(name);
            }
            ["->", socket, rest @ ..] => {
                let service = service.clone().context("a destination without a service")?;
                put(
                    &mut rows,
                    (service, Some((*socket).to_owned())),
                    owned(rest),
                )?;
            }
            _ => bail!("a line of ipvsadm: {line:?}"),
        }
    }
    Ok(rows)
}

/// A block of the plugin: its cells without those that are empty. The last one says whose it is.
pub fn of_plugin(text: &str) -> Result<Rows> {
    let mut rows = Rows::new();
    let mut service = None;
    for line in text.lines().skip(2) {
        // Three blanks and more are between two columns.
        let cells: Vec<&str> = line
            .split("   ")
            .map(str::trim)
            .filter(|cell| !cell.is_empty())
            .collect();
        let (first, rest) = cells.split_first().context("an empty line")?;
        match first.strip_prefix("-> ") {
            None => {
                put(&mut rows, ((*first).to_owned(), None), owned(rest))?;
                service = Some((*first).to_owned());
            }
            Some(socket) => {
                let service = service.clone().context("a destination without a service")?;
                put(&mut rows, (service, Some(socket.to_owned())), owned(rest))?;
            }
        }
    }
    Ok(rows)
}

/// Scheduler, flags and persistence of a service in one form.
fn method(words: &[String]) -> Vec<String> {
    let mut told = Vec::new();
    let mut words = words.iter().flat_map(|word| word.split(' '));
    while let Some(word) = words.next() {
        told.push(match word {
            "persistent" | "pe" => format!("{word} {}", words.next().unwrap_or_default()),
            "mask" => {
                let mask = words.next().unwrap_or_default().trim_start_matches('/');
                let length = mask.parse().map_or_else(
                    |_| mask.to_owned(),
                    |mask: std::net::Ipv4Addr| mask.to_bits().leading_ones().to_string(),
                );
                format!("mask {length}")
            }
            word => word.trim_matches(['(', ')']).to_owned(),
        });
    }
    told.sort();
    told
}

/// What several tables of ipvsadm say together of what is to stand in the plugin's.
pub struct Views {
    pub rules: Rows,
    pub tunnels: Rows,
    pub thresholds: Rows,
    pub persistence: Rows,
}

impl Views {
    /// METHOD, WEIGHT, ACTIVE, INACTIVE and PERSISTENT of each destination; METHOD of each service.
    pub fn together(&self) -> Result<Rows> {
        let mut rows = Rows::new();
        for (key, words) in &self.rules {
            let all = |rows: &Rows| rows.get(key).cloned().context("it is in one table only");
            if key.1.is_none() {
                rows.insert(key.clone(), method(words));
                continue;
            }
            let [forwarding, weight, active, inactive] = words.as_slice() else {
                bail!("{key:?}: {words:?}");
            };
            let mut text = match forwarding.as_str() {
                "Route" => "DR",
                "Masq" => "NAT",
                "Tunnel" => "TUN",
                other => other,
            }
            .to_owned();
            if text == "TUN" {
                text = format!("TUN {}", tunnel(&all(&self.tunnels)?)?);
            }
            let thresholds = all(&self.thresholds)?;
            for (word, limit) in ["upper", "lower"].iter().zip(&thresholds) {
                if limit != "0" {
                    text = format!("{text} {word} {limit}");
                }
            }
            let persistent = all(&self.persistence)?;
            let persistent = persistent.get(1).context("PersistConn")?;
            let cells = [&text, weight, active, inactive, persistent].map(Clone::clone);
            rows.insert(key.clone(), cells.to_vec());
        }
        Ok(rows)
    }
}

/// `gue:6080:+c`, `gre:-c`, `ipip` as the plugin writes them.
fn tunnel(words: &[String]) -> Result<String> {
    let told = words.get(1).context("TunnelInfo")?;
    let mut parts: Vec<&str> = told.split(':').collect();
    let checksum = match parts.last() {
        Some(&"+c") => " checksum",
        Some(&"r+c") => " remote-checksum",
        Some(&"-c" | &"ipip") => "",
        _ => bail!("a tunnel: {words:?}"),
    };
    if parts.len() > 1 {
        parts.pop();
    }
    let kind = parts.remove(0).to_uppercase();
    let port = parts.first();
    let port = port.map_or_else(String::new, |port| format!(":{port}"));
    Ok(format!("{kind}{port}{checksum}"))
}

/// The plugin's services as [`Views::together`] has ipvsadm's, and whose each is.
pub fn services_of_plugin(text: &str) -> Result<(Rows, BTreeMap<Key, String>)> {
    let mut owners = BTreeMap::new();
    let mut rows = of_plugin(text)?;
    for (key, cells) in &mut rows {
        let numbers = if key.1.is_none() { 1 } else { 5 };
        if cells.len() > numbers {
            owners.insert(key.clone(), cells.split_off(numbers).join(" "));
        }
        if key.1.is_none() {
            *cells = method(cells);
        }
    }
    Ok((rows, owners))
}

/// The plugin's numbers: five of each, without whose it is.
pub fn numbers_of_plugin(text: &str) -> Result<Rows> {
    let mut rows = of_plugin(text)?;
    for cells in rows.values_mut() {
        cells.truncate(5);
    }
    Ok(rows)
}

/// A connection without its seconds; those by it, sorted, as there may be several alike.
pub type Connections = BTreeMap<Vec<String>, Vec<u32>>;

fn seconds(text: &str) -> Result<u32> {
    let (minutes, seconds) = text.split_once(':').context("minutes and seconds")?;
    Ok(minutes.parse::<u32>()? * 60 + seconds.parse::<u32>()?)
}

fn add(connections: &mut Connections, words: &[&str], expires: &str) -> Result<()> {
    let of_same = connections.entry(owned(words)).or_default();
    of_same.push(seconds(expires)?);
    of_same.sort_unstable();
    Ok(())
}

/// What `ipvsadm -Lnc --persistent-conn` prints: protocol, state, client, virtual socket, real server, and what an engine knows
/// the client by.
pub fn connections_of_ipvsadm(text: &str) -> Result<Connections> {
    let mut connections = Connections::new();
    for line in text.lines().skip(2) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [protocol, expires, rest @ ..] = words.as_slice() else {
            bail!("a line of ipvsadm: {line:?}");
        };
        ensure!(rest.len() >= 4, "a line of ipvsadm: {line:?}");
        add(&mut connections, &[&[*protocol], rest].concat(), expires)?;
    }
    Ok(connections)
}

/// The same of the plugin's table, and VirtualService and RealServer of each.
pub fn connections_of_plugin(text: &str) -> Result<(Connections, BTreeMap<Vec<String>, String>)> {
    let mut connections = Connections::new();
    let mut owners = BTreeMap::new();
    for line in text.lines().skip(2) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [protocol, expires, rest @ ..] = words.as_slice() else {
            bail!("a line of the plugin: {line:?}");
        };
        let (rest, whose) = rest.split_at_checked(4).context("four words more")?;
        let engine = whose.iter().position(|word| *word == "sip");
        let (whose, engine) = whose.split_at(engine.unwrap_or(whose.len()));
        let words = [&[*protocol], rest, engine].concat();
        add(&mut connections, &words, expires)?;
        owners.insert(owned(&words), whose.join(" "));
    }
    Ok((connections, owners))
}

/// Whether what was told lies between two looks, before and after it: the same connections, none with more seconds than before
/// or fewer than after.
pub fn lies_between(before: &Connections, told: &Connections, after: &Connections) -> bool {
    let same = |one: &Connections, other: &Connections| {
        one.keys().eq(other.keys())
            && one
                .iter()
                .zip(other)
                .all(|((_, one), (_, other))| one.len() == other.len())
    };
    let not_more = |less: &Connections, more: &Connections| {
        let pairs = less.values().flatten().zip(more.values().flatten());
        pairs.into_iter().all(|(less, more)| less <= more)
    };
    same(before, told) && same(told, after) && not_more(told, before) && not_more(after, told)
}
