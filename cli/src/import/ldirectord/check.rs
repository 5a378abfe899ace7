//! Checks of ldirectord, as health checks of a VirtualService.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::super::http::{host_header, path, regular_expression};
use super::super::judge::skeleton;
use super::super::keepalived::query_name;
use super::super::own_checks::Check;
use super::super::quantity::bounded;
use super::super::report::{Fate, Ledger, LineIndex};
use super::real::Request;
use super::{Block, Directives, port_of, unquoted};

/// A block and what its checks depend on.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// The block.
    pub block: &'a Block,
    /// Directives of the whole file.
    pub globals: &'a Directives,
    /// Port of the service; 0 with a mark.
    pub number: u16,
    /// TCP or UDP.
    pub protocol: &'a str,
    /// Whether it is a firewall mark.
    pub is_mark: bool,
    /// What the real server alone is asked.
    pub request: Option<&'a Request>,
    /// Port of the real server.
    pub server_port: u16,
    /// Name of the VirtualService.
    pub name: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
}

/// What is asked by `checktype=negotiate` where no service is named.
fn service_of_port(port: u16) -> &'static str {
    match port {
        21 => "ftp",
        25 => "smtp",
        53 => "dns",
        80 => "http",
        110 => "pop",
        119 => "nntp",
        143 => "imap",
        389 => "ldap",
        443 => "https",
        587 => "submission",
        636 => "ldaps",
        993 => "imaps",
        995 => "pops",
        1521 => "oracle",
        1812 => "radius",
        3128 => "http_proxy",
        3306 => "mysql",
        5432 => "pgsql",
        5060 => "sip",
        _ => "none",
    }
}

/// Whether a check of a service can log in.
fn logs_in(service: &str) -> bool {
    let known = [
        "mysql", "pgsql", "ldap", "ldaps", "ftp", "imap", "imaps", "pop", "pops", "radius",
    ];
    known.contains(&service)
}

impl Question<'_> {
    /// How it is looked at whether somebody serves, and the line that says so.
    fn checktype(&self) -> (LineIndex, &str) {
        match self.block.directives.get("checktype") {
            Some((line, text)) => (*line, text),
            None => (self.block.line, "negotiate"),
        }
    }

    /// Whether nobody is to serve.
    pub fn nobody_serves(&self, ledger: &mut Ledger) -> bool {
        let (line, checktype) = self.checktype();
        let is_off = checktype == "off";
        if is_off {
            ledger.note(
                line,
                Fate::Translated,
                "RealServer spec.administrativeState",
                "Disabled",
            );
        }
        is_off
    }

    /// The line of a directive that says what is asked, and its text: that of the real server, else of the block.
    fn text(&self, word: &str) -> Option<(LineIndex, &str)> {
        match (self.request, word) {
            (Some(own), "request") => Some((own.line, own.wanted.as_str())),
            (Some(own), "receive") => Some((own.line, own.received.as_str())),
            _ => {
                let (line, text) = self.block.directives.get(word)?;
                Some((*line, unquoted(text)))
            }
        }
    }

    /// The checks of a real server, without names.
    pub fn checks(&self, ledger: &mut Ledger) -> Vec<Check> {
        let (line, checktype) = self.checktype();
        let connect = if self.protocol == "UDP" {
            "Ping"
        } else {
            "TCP"
        };
        if let (Some(own), Some((fate, why))) = (self.request, self.unused("request")) {
            ledger.note(own.line, fate, "", format!("of its own request {why}"));
        }
        let mut checks = match checktype {
            "on" | "off" => return Vec::new(),
            "connect" => vec![self.simple(ledger, connect, 1)],
            "ping" => vec![self.simple(ledger, "Ping", 1)],
            "external" | "external-perl" => {
                ledger.note(
                    line,
                    Fate::NotOffered,
                    "",
                    format!(
                        "directors run no scripts: {} is asked instead",
                        if connect == "TCP" {
                            "that a connection is accepted"
                        } else {
                            "an ICMP echo"
                        }
                    ),
                );
                let check = self.simple(ledger, connect, 1);
                if let Some((line, command)) = self.text("checkcommand") {
                    ledger.note(line, Fate::NotOffered, "", skeleton(&check, command));
                }
                vec![check]
            }
            "negotiate" => self.negotiate(ledger, 1).into_iter().collect(),
            number => {
                if let Some((number, _)) = bounded(number, 0, 3599) {
                    ledger.note(
                        line,
                        Fate::Changed,
                        "",
                        format!(
                            "two checks: a connection each time, and each {}th time a request",
                            number + 1
                        ),
                    );
                    let mut checks = vec![self.simple(ledger, connect, 1)];
                    checks.extend(self.negotiate(ledger, number + 1));
                    checks
                } else {
                    ledger.note(
                        line,
                        Fate::NotOffered,
                        "",
                        format!("no checktype is called {number:?}: negotiate"),
                    );
                    self.negotiate(ledger, 1).into_iter().collect()
                }
            }
        };
        // What is asked instead of a request may be what is asked each time anyway.
        checks.dedup_by(|second, first| second["type"] == first["type"]);
        for check in &mut checks {
            if check["type"] != "Ping" && self.number == 0 && check["port"].is_null() {
                match self.server_port {
                    0 => {
                        ledger.note(
                            line,
                            Fate::NotOffered,
                            "",
                            "no port is named that could be asked: set checkport",
                        );
                        return Vec::new();
                    }
                    port => check["port"] = json!(port),
                }
            }
        }
        let line = self.request.map_or(line, |own| own.line);
        let checks = checks.into_iter();
        checks.map(|value| Check { line, value }).collect()
    }

    /// What is made of a directive that the checks of this block do not use; nothing if they do.
    pub fn unused(&self, word: &str) -> Option<(Fate, String)> {
        let asks = [
            "service",
            "request",
            "receive",
            "httpmethod",
            "virtualhost",
            "login",
            "passwd",
            "database",
            "secret",
        ];
        if !asks.contains(&word) {
            return None;
        }
        let checktype = self
            .block
            .directives
            .get("checktype")
            .map_or("negotiate", |(_, text)| text.as_str());
        if ["connect", "ping", "on", "off", "external", "external-perl"].contains(&checktype) {
            return Some((
                Fate::Translated,
                format!("nothing, as in ldirectord with checktype={checktype}"),
            ));
        }
        let service = self.service();
        let used = match word {
            "service" => true,
            "passwd" => logs_in(service),
            "secret" => service == "radius",
            "httpmethod" | "virtualhost" => matches!(service, "http" | "https"),
            "request" => matches!(service, "http" | "https" | "dns"),
            "receive" => matches!(service, "http" | "https" | "dns"),
            "login" => {
                matches!(service, "mysql" | "pgsql") || logs_in(service) && self.has_password()
            }
            _ => service == "pgsql",
        };
        if used {
            return None;
        }
        Some(match word {
            "httpmethod" | "virtualhost" => (
                Fate::Translated,
                format!("nothing, as in ldirectord with service={service}"),
            ),
            "login" | "passwd" | "secret" => (
                Fate::NotOffered,
                format!(
                    "a check of service {service} makes no log-in without both login and passwd"
                ),
            ),
            _ => (
                Fate::NotOffered,
                format!(
                    "a check of service {service} asks its own question, and looks at no more of the answer"
                ),
            ),
        })
    }

    fn has_password(&self) -> bool {
        let passwd = self.block.directives.get("passwd");
        passwd.is_some_and(|(_, text)| !unquoted(text).is_empty())
    }

    /// What `checktype=negotiate` speaks.
    fn service(&self) -> &str {
        let default = if self.is_mark {
            "none"
        } else {
            service_of_port(self.number)
        };
        self.block
            .directives
            .get("service")
            .map_or(default, |(_, service)| service.as_str())
    }

    /// A number of seconds or times that a directive says.
    fn number(&self, ledger: &mut Ledger, word: &str, least: u32, most: u32) -> Option<u32> {
        let (line, text) = self.block.get(self.globals, word)?;
        ledger.kept(*line, text, bounded(text, least, most))
    }

    fn simple(&self, ledger: &mut Ledger, type_: &str, times: u32) -> Value {
        let mut check = json!({"type": type_});
        let period = self.number(ledger, "checkinterval", 1, 3600).unwrap_or(10);
        check["periodSeconds"] = json!(period.saturating_mul(times).min(3600));
        let connects = matches!(type_, "TCP" | "Ping");
        let check_timeout = self.number(ledger, "checktimeout", 1, 300);
        let negotiate_timeout = self.number(ledger, "negotiatetimeout", 1, 300);
        let timeout = if connects {
            check_timeout.or(negotiate_timeout).unwrap_or(5)
        } else {
            negotiate_timeout.or(check_timeout).unwrap_or(30)
        };
        check["timeoutSeconds"] = json!(timeout);
        let mut failures = self.number(ledger, "failurecount", 1, 100);
        if type_ == "Ping" {
            failures = failures.or_else(|| self.number(ledger, "checkcount", 1, 100));
        }
        check["failureThreshold"] = json!(failures.unwrap_or(1));
        if type_ != "Ping"
            && let Some((line, text)) = self.block.directives.get("checkport")
        {
            match port_of(text) {
                Some(port) if port != self.number || self.is_mark => check["port"] = json!(port),
                Some(_) => {}
                None => ledger.note(*line, Fate::NotOffered, "", format!("{text:?} is no port")),
            }
        }
        check
    }

    fn negotiate(&self, ledger: &mut Ledger, times: u32) -> Option<Value> {
        let service = self.service();
        let line = self
            .block
            .directives
            .get("service")
            .map_or(self.block.line, |(line, _)| *line);
        let (type_, tls) = match service {
            "none" => return None,
            "http" => ("HTTP", false),
            "https" => ("HTTPS", true),
            "dns" => ("DNS", false),
            "ftp" => ("FTP", false),
            "imap" => ("IMAP", false),
            "imaps" => ("IMAP", true),
            "pop" => ("POP3", false),
            "pops" => ("POP3", true),
            "ldap" => ("LDAP", false),
            "ldaps" => ("LDAP", true),
            "mysql" => ("MySQL", false),
            "pgsql" => ("PostgreSQL", false),
            "sip" => ("SIP", false),
            "radius" => ("RADIUS", false),
            "smtp" | "submission" => ("SMTP", false),
            other => {
                let instead = if self.protocol == "UDP" {
                    "Ping"
                } else {
                    "TCP"
                };
                ledger.note(
                    line,
                    Fate::NotOffered,
                    "",
                    format!("there is no check for {other}: {instead}"),
                );
                return Some(self.simple(ledger, instead, times));
            }
        };
        let mut check = self.simple(ledger, type_, times);
        if tls {
            check["tls"] = json!({"verification": "None"});
        }
        let text = |word: &str| self.text(word);
        let credentials = type_ == "RADIUS" || logs_in(service) && self.has_password();
        if credentials {
            check["credentialsName"] = json!(self.name);
            ledger.credentials(self.namespace, self.name, type_ == "RADIUS");
        }
        match type_ {
            "HTTP" | "HTTPS" => {
                let http = self.http(ledger);
                if http != json!({}) {
                    check["http"] = http;
                }
            }
            "DNS" => check["dns"] = self.dns(ledger, line),
            "MySQL" => {
                if let Some((_, user)) =
                    text("login").filter(|(_, user)| !credentials && database_name(user))
                {
                    check["mysql"] = json!({"user": user});
                }
            }
            "PostgreSQL" => {
                let mut postgresql = json!({});
                if let Some((_, user)) =
                    text("login").filter(|(_, user)| !credentials && database_name(user))
                {
                    postgresql["user"] = json!(user);
                }
                if let Some((_, database)) =
                    text("database").filter(|(_, database)| database_name(database))
                {
                    postgresql["database"] = json!(database);
                }
                if postgresql != json!({}) {
                    check["postgresql"] = postgresql;
                }
            }
            "SIP" if self.protocol == "TCP" => check["sip"] = json!({"transport": "TCP"}),
            _ => {}
        }
        Some(check)
    }

    /// A question to a name server: for the address of a name, or for the name of an address.
    fn dns(&self, ledger: &mut Ledger, line: LineIndex) -> Value {
        let request = self.text("request");
        let text = request.map(|(_, text)| text.trim_start_matches('/'));
        let address: Option<IpAddr> = text.and_then(|text| text.parse().ok());
        let mut dns = match (address, text) {
            (Some(address), _) => json!({"name": reverse_name(address), "recordType": "PTR"}),
            (None, Some(name)) if query_name(name) => json!({"name": name}),
            (None, _) => {
                let line = request.map_or(line, |(line, _)| line);
                let words = "the root is asked for: name it in healthChecks[].dns.name";
                ledger.note(line, Fate::Changed, "", words);
                return json!({"name": ".", "recordType": "NS"});
            }
        };
        // A regular expression, which is to match one of the answers: a plain one is that answer.
        let received = self.text("receive").filter(|(_, text)| !text.is_empty());
        if let Some((line, expression)) = received {
            let plain = expression.replace("\\.", ".");
            let plain = plain.trim_start_matches('^').trim_end_matches('$');
            let is_answer = match address {
                Some(_) => query_name(plain),
                None => plain.parse::<std::net::Ipv4Addr>().is_ok(),
            };
            if is_answer {
                dns["answers"] = json!([plain]);
            } else {
                let words = "any answer will do, as none is this text; dns.answers has records, not regular expressions";
                ledger.note(line, Fate::Changed, "", words);
            }
        }
        dns
    }

    fn http(&self, ledger: &mut Ledger) -> Value {
        let mut http = json!({});
        let text = |word: &str| self.text(word);
        if let Some((line, request)) = text("request") {
            // An address in the request would be asked instead of the real server.
            if request.starts_with("http://") || request.starts_with("https://") {
                ledger.note(
                    line,
                    Fate::NotOffered,
                    "",
                    "a path is asked for: / of the real server itself",
                );
            } else if let Some((path, _)) = path(request) {
                http["path"] = json!(path);
            } else {
                ledger.note(
                    line,
                    Fate::NotOffered,
                    "",
                    "longer than 1024 characters: / is asked for",
                );
            }
        }
        let head =
            text("httpmethod").is_some_and(|(_, method)| method.eq_ignore_ascii_case("HEAD"));
        if head {
            http["method"] = json!("HEAD");
        }
        if let Some((line, expression)) =
            text("receive").filter(|(_, expression)| !expression.is_empty())
        {
            if head {
                ledger.note(line, Fate::NotOffered, "", "an answer to HEAD has no body");
            } else if regular_expression(expression) {
                http["body"] = json!({"type": "Regex", "value": expression});
            } else {
                ledger.note(line, Fate::NotOffered, "", "longer than 1024 characters, or no regular expression of RE2: the body is not looked at");
            }
        }
        if let Some((line, host)) = text("virtualhost") {
            if host_header(host) {
                http["host"] = json!(host);
            } else {
                ledger.note(line, Fate::NotOffered, "", "not what a Host header holds");
            }
        }
        http
    }
}

/// The name in the DNS of an address (RFC 1035, section 3.5; RFC 3596, section 2.5).
fn reverse_name(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(address) => {
            let digits = format!("{:032x}", address.to_bits());
            let labels: Vec<String> = digits.chars().rev().map(String::from).collect();
            format!("{}.ip6.arpa", labels.join("."))
        }
    }
}

/// Whether a text is the name of a user or of a database.
fn database_name(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'@'))
}
