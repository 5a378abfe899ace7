//! `real=`: who serves, and what he alone is asked.

use std::net::IpAddr;

use super::super::draft::{Host, Server, forwarding, is_nat};
use super::super::keepalived::addresses_between;
use super::super::quantity::{bounded, endpoint, unicast};
use super::super::report::{Fate, Ledger, LineIndex};

/// What one real server is asked, and what its answer must hold, in the place of what the block says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The line that says it.
    pub line: LineIndex,
    /// What is asked for (`request`).
    pub wanted: String,
    /// What is received (`receive`).
    pub received: String,
}

/// `address|name[->address][:port] gate|masq|ipip [weight] ["request", "receive"] ["<l:number>"] ["<u:number>"]`
pub fn read(
    ledger: &mut Ledger,
    line: LineIndex,
    text: &str,
    service_port: u16,
) -> (Vec<Server>, Option<Request>) {
    let (target, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let (hosts, number) = match hosts(target) {
        Ok(found) => found,
        Err(why) => {
            ledger.note(line, Fate::NotOffered, "", why);
            return (Vec::new(), None);
        }
    };
    let mut server = Server {
        line,
        host: Host::Name(String::new()),
        port: number,
        weight: 1,
        forwarding: forwarding("DR"),
        thresholds: (0, 0),
        disabled: false,
        checks: Vec::new(),
    };
    let mut texts = Vec::new();
    let mut method = false;
    for (word, is_quoted) in words(rest) {
        let mut limit = |target: &mut u32, text: &str| match bounded(text, 0, 2_147_483_647) {
            Some((value, _)) => *target = value,
            None => ledger.note(line, Fate::NotOffered, "", format!("{word} is no limit")),
        };
        let bare = word.trim_matches(['<', '>']);
        match word {
            "gate" | "masq" | "ipip" if !method => {
                method = true;
                server.forwarding = forwarding(match word {
                    "masq" => "NAT",
                    "ipip" => "TUN",
                    _ => "DR",
                });
            }
            _ if bare.starts_with("l:") => {
                limit(&mut server.thresholds.1, bare.trim_start_matches("l:"));
            }
            _ if bare.starts_with("u:") => {
                limit(&mut server.thresholds.0, bare.trim_start_matches("u:"));
            }
            _ if is_quoted => texts.push(word.to_owned()),
            _ => match bounded(word, 0, 65_535) {
                Some((weight, changed)) => {
                    server.weight = u16::try_from(weight).unwrap_or(u16::MAX);
                    if changed {
                        ledger.note(line, Fate::Changed, "", format!("weight {weight}"));
                    }
                }
                None => ledger.note(
                    line,
                    Fate::NotOffered,
                    "",
                    format!("{word} is neither weight, request nor limit"),
                ),
            },
        }
    }
    if server.thresholds.1 > server.thresholds.0 {
        ledger.note(
            line,
            Fate::Changed,
            "",
            "no lower limit of connections, as it is above the upper one",
        );
        server.thresholds.1 = 0;
    }
    if number != service_port && number != 0 && (service_port == 0 || !is_nat(&server.forwarding)) {
        ledger.note(
            line,
            Fate::Changed,
            "",
            "the port stays what the client has asked for, as in IPVS",
        );
    }
    let mut texts = texts.into_iter();
    let request = match (texts.next(), texts.next(), texts.next()) {
        (Some(wanted), Some(received), None) => Some(Request {
            line,
            wanted,
            received,
        }),
        (None, ..) => None,
        _ => {
            let words = "a request and what is to be received are two texts in quotes";
            ledger.note(line, Fate::NotOffered, "", words);
            None
        }
    };
    if hosts.iter().any(|host| host.address().is_none()) {
        ledger.note(
            line,
            Fate::Changed,
            "RealServer spec.target.dnsName",
            "every address that the DNS has of the name, asked for again and again; ldirectord uses one, of when it starts",
        );
    }
    let servers = hosts.into_iter().map(|host| Server {
        host,
        ..server.clone()
    });
    (servers.collect(), request)
}

/// Who serves, and the port.
fn hosts(target: &str) -> Result<(Vec<Host>, u16), &'static str> {
    let wrong = "no address that directors can reach, or a range of more than 256; a name must be whole, with its domain, or written as an address";
    let (first, last) = match target.split_once("->") {
        Some((first, last)) => (first, Some(last)),
        None => (target, None),
    };
    // The port stands behind the last address of a range. A doubled colon is a slip of ldirectord's own sample.
    let with_port = last
        .unwrap_or(first)
        .replace("::", if first.contains('[') { "::" } else { ":" });
    let (end, number) = endpoint(&with_port).ok_or(wrong)?;
    if let (None, Some(name)) = (last, domain_name(end)) {
        return Ok((vec![Host::Name(name)], number));
    }
    let end = unicast(end).ok_or(wrong)?;
    let start: IpAddr = match last {
        Some(_) => unicast(first).ok_or(wrong)?,
        None => end,
    };
    let addresses = addresses_between(start, end).ok_or(wrong)?;
    Ok((addresses.into_iter().map(Host::Address).collect(), number))
}

/// A whole name in the DNS, as RealServers have it: two labels at least, in lower case.
fn domain_name(text: &str) -> Option<String> {
    let name = text.to_ascii_lowercase();
    let labels: Vec<&str> = name.split('.').collect();
    let (last, others) = labels.split_last()?;
    let is_label = |label: &str, may_underline: bool| {
        let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || may_underline && byte == b'_';
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| is_inner(byte) || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_whole = !others.is_empty() && name.len() <= 253;
    let is_valid = others.iter().all(|label| is_label(label, true))
        && is_label(last, false)
        && last.starts_with(|first: char| first.is_ascii_lowercase());
    (is_whole && is_valid).then_some(name)
}

/// Words divided by blanks and commas, and texts in quotes, which may hold both; whether each was in quotes.
fn words(text: &str) -> Vec<(&str, bool)> {
    let mut words = Vec::new();
    let mut rest = text;
    loop {
        rest = rest
            .trim_start_matches(|character: char| character.is_whitespace() || character == ',');
        if rest.is_empty() {
            return words;
        }
        if let Some((inside, after)) = rest.strip_prefix('"').and_then(|rest| rest.split_once('"'))
        {
            words.push((inside, true));
            rest = after;
            continue;
        }
        let end = rest.find(|character: char| character.is_whitespace() || character == ',');
        let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
        words.push((word, false));
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_may_hold_blanks_and_commas() {
        assert_eq!(
            words("gate 2 \"a b,c\", \"d\"  \"<l:3>\" \"x"),
            [
                ("gate", false),
                ("2", false),
                ("a b,c", true),
                ("d", true),
                ("<l:3>", true),
                ("\"x", false)
            ]
        );
    }

    #[test]
    fn names_are_whole_or_none() {
        assert_eq!(domain_name("DB1.example"), Some("db1.example".to_owned()));
        for bad in [
            "db1",
            "192.0.2.1",
            "db1.example.",
            "-a.example",
            "",
            "a..b",
            "a.1b",
        ] {
            assert_eq!(domain_name(bad), None, "{bad}");
        }
    }
}
