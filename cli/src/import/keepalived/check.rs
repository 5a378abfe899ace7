//! Checkers of real servers, as health checks of a VirtualService.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::super::http::{host_header, path, regular_expression, status_codes};
use super::super::judge::skeleton;
use super::super::own_checks::Check;
use super::super::quantity::{bounded, digits, seconds, unicast};
use super::super::report::{Fate, Ledger, LineIndex};
use super::tree::Directive;
use super::{of, refuse, take};

/// A number as it is taken, and whether that is another than what stands there; `None` = it is none.
type Found = Option<(u32, bool)>;

/// Times of checks; what is unset is inherited from the block around.
#[derive(Clone, Debug, Default)]
pub struct Timing {
    delay_loop: Option<u32>,
    delay_before_retry: Option<u32>,
    connect_timeout: Option<u32>,
    retry: Option<u32>,
}

impl Timing {
    /// Takes one of the four keywords; false if it is another.
    pub fn read(&mut self, ledger: &mut Ledger, directive: &Directive) -> bool {
        let Some((target, value)) = self.found(directive, "connect_timeout") else {
            return false;
        };
        if let Some(value) = ledger.kept(directive.line, directive.argument(0), value) {
            *target = Some(value);
        }
        true
    }

    /// Takes those of a script, of which is said that it is not run.
    fn read_quietly(&mut self, directive: &Directive) {
        if let Some((target, value)) = self.found(directive, "misc_timeout") {
            *target = value.map(|(value, _)| value).or(*target);
        }
    }

    /// Which of the times a keyword sets, and to what; `timeout` is the keyword of the time for an answer.
    fn found(&mut self, directive: &Directive, timeout: &str) -> Option<(&mut Option<u32>, Found)> {
        let text = directive.argument(0);
        Some(match directive.keyword() {
            "delay_loop" => (&mut self.delay_loop, seconds(text, 1, 3600)),
            "delay_before_retry" => (&mut self.delay_before_retry, seconds(text, 1, 3600)),
            "retry" | "nb_get_retry" => (&mut self.retry, bounded(text, 0, 99)),
            keyword if keyword == timeout => (&mut self.connect_timeout, seconds(text, 1, 300)),
            _ => return None,
        })
    }

    /// The times of a check of a type, with keepalived's defaults.
    fn write(&self, check: &mut Value, default_retry_delay: Option<u32>, default_retries: u32) {
        let period = self.delay_loop.unwrap_or(60);
        check["periodSeconds"] = json!(period);
        let retry_period = self
            .delay_before_retry
            .or(default_retry_delay)
            .unwrap_or(period);
        if retry_period != period {
            check["retryPeriodSeconds"] = json!(retry_period);
        }
        check["timeoutSeconds"] = json!(self.connect_timeout.unwrap_or(5));
        check["failureThreshold"] = json!(self.retry.unwrap_or(default_retries) + 1);
    }
}

/// What a checker is about.
pub struct Asked<'a> {
    /// The real server.
    pub address: IpAddr,
    /// Its port; 0 = that of the service.
    pub port: u16,
    /// Times of the blocks around.
    pub timing: &'a Timing,
    /// `virtualhost` of the blocks around.
    pub host: Option<&'a str>,
    /// Whether a connection can be tried where the checker is not offered.
    pub connects: bool,
    /// Whether an address goes from director to director.
    pub moves: &'a dyn Fn(&IpAddr) -> bool,
}

/// Health checks of one checker block; of a `url` each.
pub fn checks(
    ledger: &mut Ledger,
    checker: &Directive,
    asked: &Asked<'_>,
    object: &str,
) -> Vec<Check> {
    let word = checker.keyword();
    if matches!(word, "MISC_CHECK" | "BFD_CHECK" | "FILE_CHECK") {
        refuse(ledger, "real_server", checker);
        let mut timing = asked.timing.clone();
        if word == "MISC_CHECK" {
            for directive in &checker.children {
                timing.read_quietly(directive);
            }
        }
        let mut value = json!({"type": if asked.connects { "TCP" } else { "Ping" }});
        timing.write(&mut value, Some(1), 1);
        let what = if asked.connects {
            "that it accepts a connection is asked instead"
        } else {
            "an ICMP echo is asked for instead"
        };
        ledger.note(checker.line, Fate::NotOffered, "", what);
        if let Some(path) = of(&checker.children, "misc_path").next() {
            let shown = skeleton(&value, path.argument(0));
            ledger.note(path.line, Fate::NotOffered, "", shown);
        }
        return vec![Check {
            line: checker.line,
            value,
        }];
    }
    if !take(ledger, "real_server", checker, object) {
        return Vec::new();
    }
    checker.note_braces(ledger);
    let mut reading = Reading {
        timing: asked.timing.clone(),
        ..Reading::default()
    };
    for directive in &checker.children {
        reading.directive(ledger, word, directive, asked, object);
    }
    let source = reading.source_address(ledger, asked);
    let mut values = match word {
        "TCP_CHECK" => vec![(checker.line, json!({"type": "TCP"}), Some(1), 1)],
        "PING_CHECK" => vec![(checker.line, json!({"type": "Ping"}), Some(1), 1)],
        "SMTP_CHECK" => {
            let mut value = json!({"type": "SMTP"});
            if let Some(name) = &reading.hello_name {
                value["smtp"] = json!({"helloName": name});
            }
            vec![(checker.line, value, Some(1), 1)]
        }
        "DNS_CHECK" => {
            let record_type = reading.record_type.as_deref().unwrap_or("SOA");
            let name = reading.query.as_deref().unwrap_or(".");
            vec![(
                checker.line,
                json!({"type": "DNS", "dns": {"name": name, "recordType": record_type}}),
                None,
                3,
            )]
        }
        "UDP_CHECK" => vec![(checker.line, reading.udp(ledger, checker.line), Some(1), 1)],
        _ => reading.http(word == "SSL_GET", checker.line, asked),
    };
    values
        .drain(..)
        .map(|(line, mut value, retry_delay, retries)| {
            reading.timing.write(&mut value, retry_delay, retries);
            if let Some(port) = reading
                .port
                .filter(|port| *port != asked.port && value["type"] != "Ping")
            {
                value["port"] = json!(port);
            }
            if let Some(address) = reading.address {
                value["address"] = json!(address.to_string());
            }
            if let Some((_, source)) = source {
                value["sourceAddress"] = json!(source.to_string());
            }
            Check { line, value }
        })
        .collect()
}

/// What was read of a checker so far.
#[derive(Default)]
struct Reading {
    timing: Timing,
    port: Option<u16>,
    /// Who is asked instead of the real server.
    address: Option<IpAddr>,
    /// From where, and the line that says so.
    source: Option<(LineIndex, IpAddr)>,
    urls: Vec<Url>,
    server_name: Option<String>,
    tells_host: bool,
    hello_name: Option<String>,
    record_type: Option<String>,
    query: Option<String>,
    payload: Option<String>,
    requires_reply: bool,
    /// What a reply must begin with.
    reply_prefix: Option<String>,
}

#[derive(Default)]
struct Url {
    line: LineIndex,
    http: Value,
    host: Option<String>,
}

impl Reading {
    fn directive(
        &mut self,
        ledger: &mut Ledger,
        place: &str,
        directive: &Directive,
        asked: &Asked<'_>,
        object: &str,
    ) {
        let place = if directive.keyword() == "host" {
            "SMTP_CHECK"
        } else {
            place
        };
        if !take(ledger, place, directive, object) || self.timing.read(ledger, directive) {
            return;
        }
        let text = directive.argument(0);
        match directive.keyword() {
            "connect_ip" => self.connect_ip(ledger, directive, asked),
            "bindto" | "bind_to" => self.bind_to(ledger, directive, asked),
            "http_protocol" if text.starts_with("1.0") => {
                ledger.note(directive.line, Fate::Changed, "", "1.1 instead of 1.0");
            }
            "connect_port" => match bounded(text, 1, 65_535) {
                Some((port, false)) => self.port = u16::try_from(port).ok(),
                Some((_, true)) | None => ledger.note(
                    directive.line,
                    Fate::NotOffered,
                    "",
                    format!("{text:?} is no port"),
                ),
            },
            "host" => {
                directive.note_braces(ledger);
                for inner in &directive.children {
                    if !take(ledger, "host", inner, object) {
                        continue;
                    }
                    match inner.keyword() {
                        "connect_ip" => self.connect_ip(ledger, inner, asked),
                        "bindto" | "bind_to" => self.bind_to(ledger, inner, asked),
                        "connect_port" => match bounded(inner.argument(0), 1, 65_535) {
                            Some((port, false)) if self.port.is_none() => {
                                self.port = u16::try_from(port).ok();
                            }
                            Some((port, false)) if self.port.map(u32::from) == Some(port) => {}
                            Some(_) | None => {
                                ledger.note(inner.line, Fate::NotOffered, "", "one port is asked");
                            }
                        },
                        _ => {}
                    }
                }
            }
            "url" => self.url(ledger, directive, object),
            "enable_sni" => self.tells_host = true,
            "sni_name" => self.server_name = Some(text.to_owned()).filter(|name| host_header(name)),
            "helo_name" => {
                let valid = text.len() <= 253
                    && text
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
                let ends = text
                    .bytes()
                    .next()
                    .is_some_and(|byte| byte.is_ascii_alphanumeric())
                    && text
                        .bytes()
                        .last()
                        .is_some_and(|byte| byte.is_ascii_alphanumeric());
                if valid && ends {
                    self.hello_name = Some(text.to_owned());
                } else {
                    ledger.note(
                        directive.line,
                        Fate::NotOffered,
                        "",
                        "not the name of a host",
                    );
                }
            }
            "type" => {
                let type_ = text.to_ascii_uppercase();
                if ["A", "AAAA", "CNAME", "MX", "NS", "SOA", "TXT"].contains(&type_.as_str()) {
                    self.record_type = Some(type_);
                } else {
                    ledger.note(directive.line, Fate::NotOffered, "", "SOA is asked for");
                }
            }
            "name" if place == "DNS_CHECK" => {
                if query_name(text) {
                    self.query = Some(text.to_owned());
                } else {
                    ledger.note(
                        directive.line,
                        Fate::NotOffered,
                        "",
                        "not a name in the DNS: . is asked for",
                    );
                }
            }
            "payload" => match hexadecimal(&directive.arguments().concat()) {
                Some(bytes) => self.payload = Some(bytes),
                None => ledger.note(
                    directive.line,
                    Fate::NotOffered,
                    "",
                    "not pairs of hexadecimal digits, or more than 512 bytes",
                ),
            },
            "require_reply" => {
                let wanted = directive.arguments().concat();
                let prefix = Some(wanted.clone())
                    .filter(|wanted| !wanted.is_empty())
                    .and_then(|wanted| hexadecimal(&wanted));
                if prefix.is_none() && !wanted.is_empty() {
                    ledger.note(
                        directive.line,
                        Fate::Changed,
                        "",
                        "any reply is a success, as there are no wildcards",
                    );
                }
                self.requires_reply = true;
                self.reply_prefix = prefix;
            }
            _ => {}
        }
    }

    fn connect_ip(&mut self, ledger: &mut Ledger, directive: &Directive, asked: &Asked<'_>) {
        let text = directive.argument(0);
        let found = unicast(text);
        let words = match (found, self.address) {
            (None, _) => "no address that directors can reach: the real server itself is asked",
            (Some(address), None) if address == asked.address => {
                ledger.note(
                    directive.line,
                    Fate::Translated,
                    "",
                    "it is the real server's",
                );
                return;
            }
            (Some(address), before) if before.is_none_or(|before| before == address) => {
                self.address = Some(address);
                return;
            }
            (Some(_), _) => "one address is asked",
        };
        ledger.note(directive.line, Fate::NotOffered, "", words);
    }

    fn bind_to(&mut self, ledger: &mut Ledger, directive: &Directive, asked: &Asked<'_>) {
        let words = match unicast(directive.argument(0)) {
            None => "no address that a director has for itself: its routes say from where it asks",
            Some(address) if (asked.moves)(&address) => {
                "it goes from director to director, and a director asks from an address of its own"
            }
            Some(address) => {
                self.source = Some((directive.line, address));
                return;
            }
        };
        ledger.note(directive.line, Fate::NotOffered, "", words);
    }

    /// From where is asked; an address of another family than the one that is asked is of no use.
    fn source_address(
        &self,
        ledger: &mut Ledger,
        asked: &Asked<'_>,
    ) -> Option<(LineIndex, IpAddr)> {
        let (line, source) = self.source?;
        let target = self.address.unwrap_or(asked.address);
        if source.is_ipv4() == target.is_ipv4() {
            return self.source;
        }
        let words = format!("{target}, which is asked, is of the other family");
        ledger.note(line, Fate::NotOffered, "", words);
        None
    }

    fn url(&mut self, ledger: &mut Ledger, url: &Directive, object: &str) {
        url.note_braces(ledger);
        let mut read = Url {
            line: url.line,
            http: json!({}),
            host: None,
        };
        let mut expression: Option<(LineIndex, String)> = None;
        let mut flags = String::new();
        for directive in &url.children {
            if !take(ledger, "url", directive, object) {
                continue;
            }
            let text = directive.argument(0);
            match directive.keyword() {
                "path" => match path(text) {
                    Some((path, changed)) => {
                        if changed {
                            ledger.note(
                                directive.line,
                                Fate::Changed,
                                "",
                                format!("written as {path}"),
                            );
                        }
                        read.http["path"] = json!(path);
                    }
                    None => ledger.note(
                        directive.line,
                        Fate::NotOffered,
                        "",
                        "longer than 1024 characters: / is asked for",
                    ),
                },
                "virtualhost" => {
                    if host_header(text) {
                        read.host = Some(text.to_owned());
                    } else {
                        ledger.note(
                            directive.line,
                            Fate::NotOffered,
                            "",
                            "not what a Host header holds",
                        );
                    }
                }
                "status_code" => {
                    let (codes, refused) = status_codes(directive.arguments());
                    if !refused.is_empty() {
                        ledger.note(
                            directive.line,
                            Fate::NotOffered,
                            "",
                            format!("not within 200-599, or more than 16: {}", refused.join(" ")),
                        );
                    }
                    if !codes.is_empty() {
                        read.http["statusCodes"] = json!(codes);
                    }
                }
                "regex" => expression = Some((directive.line, text.to_owned())),
                "regex_options" => {
                    for option in directive.arguments() {
                        match option.as_str() {
                            "caseless" => flags.push('i'),
                            "dotall" => flags.push('s'),
                            "multiline" => flags.push('m'),
                            other => ledger.note(
                                directive.line,
                                Fate::NotOffered,
                                "",
                                format!("option {other}"),
                            ),
                        }
                    }
                }
                "regex_max_offset" => match digits(text)
                    .and_then(|number| u32::try_from(number).ok())
                    .filter(|number| (1..=1_048_576).contains(number))
                {
                    Some(number) => read.http["maximumBodyBytes"] = json!(number),
                    None => ledger.note(
                        directive.line,
                        Fate::NotOffered,
                        "",
                        "not within 1..1048576",
                    ),
                },
                _ => {}
            }
        }
        if let Some((line, expression)) = expression {
            let expression = if flags.is_empty() {
                expression
            } else {
                format!("(?{flags}){expression}")
            };
            if regular_expression(&expression) {
                read.http["body"] = json!({"type": "Regex", "value": expression});
            } else {
                ledger.note(line, Fate::NotOffered, "", "empty, longer than 1024 characters, or no regular expression of RE2: the body is not looked at");
            }
        }
        self.urls.push(read);
    }

    fn http(
        &mut self,
        tls: bool,
        line: LineIndex,
        asked: &Asked<'_>,
    ) -> Vec<(LineIndex, Value, Option<u32>, u32)> {
        let mut urls = std::mem::take(&mut self.urls);
        if urls.is_empty() {
            urls.push(Url {
                line,
                http: json!({}),
                host: None,
            });
        }
        urls.into_iter()
            .map(|mut url| {
                let host = url.host.or_else(|| asked.host.map(str::to_owned));
                if let Some(host) = &host {
                    url.http["host"] = json!(host);
                }
                let mut value = json!({"type": if tls { "HTTPS" } else { "HTTP" }});
                if url.http.as_object().is_some_and(|http| !http.is_empty()) {
                    value["http"] = url.http;
                }
                if tls {
                    value["tls"] = json!({"verification": "None"});
                    // The host of the request is told anyway; one that is not to be told cannot be kept back.
                    if let Some(name) = self
                        .server_name
                        .as_deref()
                        .filter(|name| !name.contains(':'))
                    {
                        value["tls"]["serverName"] = json!(name);
                    }
                }
                (url.line, value, Some(3), 1)
            })
            .collect()
    }

    fn udp(&self, ledger: &mut Ledger, line: LineIndex) -> Value {
        if !self.requires_reply {
            ledger.note(
                line,
                Fate::Changed,
                "",
                "without require_reply an ICMP echo is asked for, as silence says nothing",
            );
            return json!({"type": "Ping"});
        }
        let payload = self.payload.as_deref().unwrap_or("");
        let mut value = json!({"type": "UDP", "udp": {"payload": payload}});
        if let Some(prefix) = &self.reply_prefix {
            value["udp"]["replyPrefix"] = json!(prefix);
        }
        value
    }
}

/// Bytes as pairs of hexadecimal digits, at most 512.
fn hexadecimal(text: &str) -> Option<String> {
    let text = text.strip_prefix("0x").unwrap_or(text);
    let valid = text.len().is_multiple_of(2)
        && text.len() <= 1024
        && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    valid.then(|| text.to_owned())
}

/// A name in the DNS, or the root.
pub fn query_name(text: &str) -> bool {
    let labels = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| inner(byte) || byte == b'-')
            && label.bytes().next().is_some_and(inner)
            && label.bytes().last().is_some_and(inner)
    };
    text == "." || text.len() <= 253 && labels.split('.').all(label)
}
