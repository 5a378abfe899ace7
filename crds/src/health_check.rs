//! Health checks: what a director asks of a real server before it sends clients there.

mod database;
mod dns;
mod external_http;
mod grpc;
mod sip;
mod smtp;
mod tls;
mod udp;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::text::{
    HeaderName, HeaderValue, HostHeader, HttpPath, PartName, StatusRange, UnicastAddress,
};

pub use database::{MySqlCheck, PostgreSqlCheck};
pub use dns::{DnsCheck, DnsRecordType};
pub use external_http::{ExternalHttpCheck, Judge, JudgeHost};
pub use grpc::GrpcCheck;
pub use sip::{SipCheck, SipTransport};
pub use smtp::SmtpCheck;
pub use tls::{TlsCheck, TlsStart, TlsVerification};
pub use udp::UdpCheck;

/// One check that directors make of every real server of a VirtualService. Every director checks by itself, the ones without the addresses too, so that a new master knows already.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "!has(self.portName) || !has(self.port)",
    "portName and port exclude each other: keep portName to check one port of the VirtualService, port to ask another one for all of them"
))]
#[x_kube(validation = (
    "self.type in ['HTTP', 'HTTPS'] || !has(self.http)",
    "http is only for health checks of type HTTP or HTTPS: remove http or set one of these types"
))]
#[x_kube(validation = (
    "self.type in ['HTTPS', 'GRPC', 'SMTP', 'FTP', 'IMAP', 'POP3', 'LDAP', 'MySQL', 'PostgreSQL', 'Redis', 'ExternalHTTP'] || !has(self.tls)",
    "tls is only for health checks of type HTTPS, GRPC, SMTP, FTP, IMAP, POP3, LDAP, MySQL, PostgreSQL, Redis or ExternalHTTP: remove tls or set one of these types"
))]
#[x_kube(validation = (
    "self.type in ['SMTP', 'FTP', 'IMAP', 'POP3', 'MySQL', 'PostgreSQL'] || !has(self.tls) || self.tls.start == 'Immediately'",
    "tls.start StartTLS is only for health checks of type SMTP, FTP, IMAP, POP3, MySQL or PostgreSQL: remove it, or set one of these types"
))]
#[x_kube(validation = (
    "!(self.type in ['MySQL', 'PostgreSQL']) || !has(self.tls) || self.tls.start == 'StartTLS'",
    "with type MySQL or PostgreSQL TLS begins when the server is asked for it: set tls.start to StartTLS"
))]
#[x_kube(validation = (
    "self.type == 'GRPC' || !has(self.grpc)",
    "grpc is only for health checks of type GRPC: remove grpc or set type GRPC"
))]
#[x_kube(validation = (
    "self.type == 'MySQL' || !has(self.mysql)",
    "mysql is only for health checks of type MySQL: remove mysql or set type MySQL"
))]
#[x_kube(validation = (
    "self.type == 'PostgreSQL' || !has(self.postgresql)",
    "postgresql is only for health checks of type PostgreSQL: remove postgresql or set type PostgreSQL"
))]
#[x_kube(validation = (
    "self.type == 'SIP' || !has(self.sip)",
    "sip is only for health checks of type SIP: remove sip or set type SIP"
))]
#[x_kube(validation = (
    "self.type in ['MySQL', 'PostgreSQL', 'Redis', 'LDAP', 'FTP', 'IMAP', 'POP3', 'RADIUS'] || !has(self.credentialsName)",
    "credentialsName is only for health checks of type MySQL, PostgreSQL, Redis, LDAP, FTP, IMAP, POP3 or RADIUS: remove it or set one of these types; HTTP and HTTPS have http.credentialsName"
))]
#[x_kube(validation = (
    "self.type != 'RADIUS' || has(self.credentialsName)",
    "credentialsName is required with type RADIUS, for the shared secret: set it"
))]
#[x_kube(validation = (
    "!has(self.credentialsName) || ((!has(self.mysql) || !has(self.mysql.user)) && (!has(self.postgresql) || !has(self.postgresql.user)))",
    "credentialsName and the user of mysql or postgresql exclude each other: remove user, as the credentials name one"
))]
#[x_kube(validation = (
    "self.type == 'SMTP' || !has(self.smtp)",
    "smtp is only for health checks of type SMTP: remove smtp or set type SMTP"
))]
#[x_kube(validation = (
    "(self.type == 'DNS') == has(self.dns)",
    "dns is required with type DNS and refused with any other: set dns and type DNS, or remove dns"
))]
#[x_kube(validation = (
    "(self.type == 'UDP') == has(self.udp)",
    "udp is required with type UDP and refused with any other: set udp and type UDP, or remove udp"
))]
#[x_kube(validation = (
    "(self.type == 'ExternalHTTP') == has(self.externalHTTP)",
    "externalHTTP is required with type ExternalHTTP and refused with any other: set externalHTTP and type ExternalHTTP, or remove externalHTTP"
))]
#[x_kube(validation = (
    "!has(self.externalHTTP) || !has(self.tls) || self.externalHTTP.url.startsWith('https://')",
    "tls needs an externalHTTP.url that begins with https://: remove tls or correct the URL"
))]
#[x_kube(validation = (
    "self.type != 'Ping' || !has(self.port)",
    "a health check of type Ping asks an address and no port: remove port or set another type"
))]
#[x_kube(validation = (
    "!has(self.path) || self.path == 'RealServer' || !(self.type in ['None', 'Ping', 'ExternalHTTP'])",
    "path VirtualAddress is only for health checks that ask a real server over TCP or UDP: remove path, or set another type"
))]
#[x_kube(validation = (
    "!has(self.path) || self.path == 'RealServer' || !has(self.address)",
    "path VirtualAddress asks the virtual address: remove address or path"
))]
#[x_kube(validation = (
    "self.type != 'None' || (!has(self.portName) && !has(self.port) && !has(self.retryPeriodSeconds) && !has(self.address) && !has(self.sourceAddress))",
    "a health check of type None asks nothing: remove portName, port, address, sourceAddress and retryPeriodSeconds, or set another type"
))]
#[x_kube(validation = (
    "!has(self.address) || !has(self.sourceAddress) || !isIP(self.address) || !isIP(self.sourceAddress) || ip(self.address).family() == ip(self.sourceAddress).family()",
    "address and sourceAddress are of different families: set both IPv4 or both IPv6, or remove one of them"
))]
pub struct HealthCheck {
    /// Name of the check: a DNS label, unique in the VirtualService or RealServer. Required.
    #[schemars(with = "PartName")]
    pub name: String,
    /// What is asked. None: nothing, every real server counts as healthy; then the only check. TCP: a connection is accepted. HTTP, HTTPS: a request is answered as expected, in plain text or over TLS. SMTP: a mail server greets. DNS: a name server answers a question. UDP: a datagram is answered as expected. Ping: an ICMP echo is answered; of the port it tells nothing. GRPC: the server says that it serves. FTP, IMAP, POP3: the server greets. LDAP: an anonymous bind is answered. MySQL, PostgreSQL: the server gets as far as to judge a user. Redis: PING is answered. SIP: OPTIONS is answered. RADIUS: a user is accepted, or Status-Server answered. ExternalHTTP: a judge says so who looks at real servers himself. Required.
    #[serde(rename = "type")]
    pub type_: HealthCheckType,
    /// How the question reaches the real server. RealServer: straight to its address. VirtualAddress: as a client's packet does, to the virtual address and forwarded to this real server by IPVS (DR, TUN), whose answer comes from the virtual address; it fails where the real server does not have the address, does not unwrap the tunnel or drops what comes out of it. Only with forwarding type DR or TUN and types over TCP or UDP, and without address. Default RealServer.
    #[serde(default, skip_serializing_if = "HealthCheckPath::is_real_server")]
    pub path: HealthCheckPath,
    /// Port of the VirtualService, by its name, whose real server port is asked and for which alone the check counts. Excludes port. Default: each port is asked for itself; of a range the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PartName>")]
    pub port_name: Option<String>,
    /// Port on the real servers that is asked, or of which a judge is told, on behalf of all ports, 1..65535. Excludes portName. Default: the port that serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    /// Address that is asked instead of the real server's own, for all real servers alike (keepalived: connect_ip): IPv4 or IPv6, one that the namespace may aim at as at a real server. With type ExternalHTTP that of the judge, instead of the host in his URL. Default: the real server's, or the judge's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<UnicastAddress>")]
    pub address: Option<String>,
    /// Address of the director from which addresses of the same family are asked (keepalived: bindto): one that each director has for itself, not one that moves. A director that does not have it does not ask. Default: the one that its routes say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<UnicastAddress>")]
    pub source_address: Option<String>,
    /// Seconds from the start of a check to the start of the next, 1..3600; up to 5 % shorter, so that checks do not fall into step. One that takes longer is followed when it has ended. Default 6.
    #[serde(default = "HealthCheck::default_period_seconds")]
    #[schemars(range(min = 1, max = 3600))]
    pub period_seconds: u16,
    /// The same while the last result contradicts the state, 1..3600 (keepalived: delay_before_retry). Default: periodSeconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub retry_period_seconds: Option<u16>,
    /// Seconds for one check from connecting to the last byte of the answer, 1..300; may exceed periodSeconds. Default 3.
    #[serde(default = "HealthCheck::default_timeout_seconds")]
    #[schemars(range(min = 1, max = 300))]
    pub timeout_seconds: u16,
    /// Failures in a row until a real server counts as down, 1..100 (keepalived: retry + 1). Default 3.
    #[serde(default = "HealthCheck::default_failure_threshold")]
    #[schemars(range(min = 1, max = 100))]
    pub failure_threshold: u8,
    /// Successes in a row until it counts as up, 1..100. Default 1.
    #[serde(default = "HealthCheck::default_success_threshold")]
    #[schemars(range(min = 1, max = 100))]
    pub success_threshold: u8,
    /// Request and expected answer, only with type HTTP or HTTPS. Default: GET / is answered with status 200-299.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,
    /// How TLS is spoken. With type HTTPS, and ExternalHTTP at an https URL, it always is; with GRPC, SMTP, FTP, IMAP, POP3, LDAP and Redis only if this is set; refused with others. Default: none but with HTTPS and https, where the certificate is verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsCheck>,
    /// Conversation with a mail server, only with type SMTP. Default: the director gives its address in EHLO.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smtp: Option<SmtpCheck>,
    /// Credentials to log in with: a DNS label NAME, for keys NAMESPACE.NAME.username, .password and .secret of the Secret that agents are given (the chart's agent.healthCheckCredentials), where NAMESPACE is that of the VirtualService. Only with type MySQL, PostgreSQL, Redis, LDAP, FTP, IMAP, POP3 or RADIUS; a refused log-in is a failure then. Required with RADIUS. Default: no log-in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PartName>")]
    pub credentials_name: Option<String>,
    /// Question to a name server, over UDP. Required with type DNS, refused with others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsCheck>,
    /// Datagram and expected reply. Required with type UDP, refused with others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udp: Option<UdpCheck>,
    /// What a gRPC server is asked, only with type GRPC. Default: about itself as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcCheck>,
    /// Log-in to MySQL or MariaDB, only with type MySQL. Default: as user lvs, who needs not exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mysql: Option<MySqlCheck>,
    /// Log-in to PostgreSQL, only with type PostgreSQL. Default: as user lvs, who needs not exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgresql: Option<PostgreSqlCheck>,
    /// How a SIP server is asked, only with type SIP. Default: by UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sip: Option<SipCheck>,
    /// The judge who is asked about real servers. Required with type ExternalHTTP, refused with others.
    #[serde(
        default,
        rename = "externalHTTP",
        skip_serializing_if = "Option::is_none"
    )]
    pub external_http: Option<ExternalHttpCheck>,
}

impl HealthCheck {
    /// A check with the defaults of every field.
    pub const fn new(name: String, type_: HealthCheckType) -> Self {
        Self {
            name,
            type_,
            path: HealthCheckPath::RealServer,
            port_name: None,
            port: None,
            address: None,
            source_address: None,
            period_seconds: Self::default_period_seconds(),
            retry_period_seconds: None,
            timeout_seconds: Self::default_timeout_seconds(),
            failure_threshold: Self::default_failure_threshold(),
            success_threshold: Self::default_success_threshold(),
            http: None,
            tls: None,
            smtp: None,
            credentials_name: None,
            dns: None,
            udp: None,
            grpc: None,
            mysql: None,
            postgresql: None,
            sip: None,
            external_http: None,
        }
    }

    /// Whether some part of it names credentials.
    pub fn names_credentials(&self) -> bool {
        let http = self.http.as_ref().map(|http| &http.credentials_name);
        let tls = self.tls.as_ref().map(|tls| &tls.credentials_name);
        let external_http = self.external_http.as_ref();
        let external_http = external_http.map(|judge| &judge.credentials_name);
        let mut names = [Some(&self.credentials_name), http, tls, external_http]
            .into_iter()
            .flatten();
        names.any(Option::is_some)
    }

    const fn default_period_seconds() -> u16 {
        6
    }
    const fn default_timeout_seconds() -> u16 {
        3
    }
    const fn default_failure_threshold() -> u8 {
        3
    }
    const fn default_success_threshold() -> u8 {
        1
    }
}

/// What a check asks.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum HealthCheckType {
    /// Nothing.
    None,
    /// That a TCP connection is accepted.
    TCP,
    /// That an HTTP request is answered as expected.
    HTTP,
    /// The same over TLS.
    HTTPS,
    /// That a mail server greets.
    SMTP,
    /// That a name server answers.
    DNS,
    /// That a datagram is answered as expected.
    UDP,
    /// That an ICMP echo is answered.
    Ping,
    /// That a gRPC server says it serves.
    GRPC,
    /// That a file server greets.
    FTP,
    /// That a mailbox server greets, and answers a command.
    IMAP,
    /// That a mailbox server greets.
    POP3,
    /// That a directory server answers an anonymous bind.
    LDAP,
    /// That MySQL or MariaDB judges a user.
    MySQL,
    /// That PostgreSQL judges a user.
    PostgreSQL,
    /// That PING is answered.
    Redis,
    /// That OPTIONS is answered.
    SIP,
    /// That a user is accepted, or Status-Server answered.
    RADIUS,
    /// What a judge says.
    ExternalHTTP,
}

/// How a question reaches a real server.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum HealthCheckPath {
    /// Straight to its address.
    #[default]
    RealServer,
    /// To the virtual address, forwarded by IPVS.
    VirtualAddress,
}

impl HealthCheckPath {
    /// Whether this is the default.
    pub const fn is_real_server(&self) -> bool {
        matches!(self, Self::RealServer)
    }
}

/// An HTTP request and what is expected of its answer. A redirect is an answer as any other; it is not followed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "!has(self.body) || self.method == 'GET'",
    "body needs method GET, as the answer to HEAD has none: remove body or set method GET"
))]
#[x_kube(validation = (
    "!has(self.credentialsName) || !has(self.headers) || self.headers.all(header, header.name.size() != 13 || header.name.lowerAscii() != 'authorization')",
    "http.credentialsName and the header Authorization exclude each other: remove one of them"
))]
pub struct HttpCheck {
    /// HTTP1: HTTP/1.1. HTTP2: HTTP/2, with type HTTPS as agreed in the handshake (ALPN h2), with type HTTP from the first byte. Default HTTP1.
    #[serde(default, skip_serializing_if = "HttpVersion::is_first")]
    pub version: HttpVersion,
    /// GET or HEAD. Default GET.
    #[serde(default)]
    pub method: HttpMethod,
    /// Path, with query, such as /index.html, at most 1024 characters. Default /.
    #[serde(default = "HttpCheck::default_path")]
    #[schemars(with = "HttpPath")]
    pub path: String,
    /// Host header, such as www.example.org. Default: address and port that are asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<HostHeader>")]
    pub host: Option<String>,
    /// Credentials that the request carries (Authorization: Basic, RFC 7617): a DNS label NAME, for keys NAMESPACE.NAME.username and .password, as with credentialsName of the check. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PartName>")]
    pub credentials_name: Option<String>,
    /// Further headers, at most 16; without credentials, as anybody who may read the VirtualService reads them. Default: Accept: */* and a User-Agent, each unless it is among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub headers: Vec<HttpHeader>,
    /// Statuses of a success, each a number or a range within 200-599, such as "204" or "200-299", 1 to 16 of them. Default 200-299.
    #[serde(default = "HttpCheck::default_status_codes")]
    #[schemars(with = "Vec<StatusRange>", length(min = 1, max = 16))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub status_codes: Vec<String>,
    /// What the body must hold. Default: it is not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<HttpBody>,
    /// Bytes of the body that are looked at, 1..1048576; what comes after them is not read. Of use only with body. Default 65536.
    #[serde(default = "HttpCheck::default_maximum_body_bytes")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub maximum_body_bytes: u32,
}

impl HttpCheck {
    /// Whether an answer with this status is a success. An entry that is neither status nor range admits none.
    pub fn admits(&self, status: u16) -> bool {
        self.status_codes.iter().any(|entry| {
            let (first, last) = entry.split_once('-').unwrap_or((entry, entry));
            matches!((first.parse::<u16>(), last.parse::<u16>()), (Ok(first), Ok(last)) if (first..=last).contains(&status))
        })
    }

    fn default_path() -> String {
        "/".to_owned()
    }
    fn default_status_codes() -> Vec<String> {
        vec!["200-299".to_owned()]
    }
    const fn default_maximum_body_bytes() -> u32 {
        65_536
    }
}

impl Default for HttpCheck {
    fn default() -> Self {
        Self {
            version: HttpVersion::default(),
            method: HttpMethod::default(),
            path: Self::default_path(),
            host: None,
            credentials_name: None,
            headers: Vec::new(),
            status_codes: Self::default_status_codes(),
            body: None,
            maximum_body_bytes: Self::default_maximum_body_bytes(),
        }
    }
}

/// Version of HTTP.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum HttpVersion {
    /// HTTP/1.1.
    #[default]
    HTTP1,
    /// HTTP/2.
    HTTP2,
}

impl HttpVersion {
    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde hands out references"
    )]
    const fn is_first(&self) -> bool {
        matches!(self, Self::HTTP1)
    }
}

/// Method of a request.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum HttpMethod {
    /// Head and body.
    #[default]
    GET,
    /// The head alone.
    HEAD,
}

impl HttpMethod {
    /// The word in the request.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::GET => "GET",
            Self::HEAD => "HEAD",
        }
    }
}

/// A header of a request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpHeader {
    /// Name, such as Accept-Language, at most 256 characters. Required.
    #[schemars(with = "HeaderName")]
    pub name: String,
    /// Value, at most 1024 characters. Required.
    #[schemars(with = "HeaderValue")]
    pub value: String,
}

/// What the body of an answer must hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
// What CEL's matches() cannot read ends in an error that holds this message; whether it matches is not the question.
#[x_kube(validation = (
    "self.type != 'Regex' || ''.matches(self.value) in [true, false]",
    "body.value must be a regular expression (RE2, without look-around and back-references) with type Regex: correct it, or set type Text"
))]
#[x_kube(validation = (
    "self.type != 'SHA256' || self.value.matches('^[0-9A-Fa-f]{64}$')",
    "body.value must be 64 hexadecimal digits with type SHA256, as sha256sum prints them: correct it"
))]
pub struct HttpBody {
    /// Text: the value stands somewhere in the body, of which no more is read than up to there. Regex: the value, a regular expression (RE2) without look-around and back-references, matches somewhere in it (ldirectord: receive). SHA256: the whole body, not longer than maximumBodyBytes, has this digest, 64 hexadecimal digits. Required.
    #[serde(rename = "type")]
    pub type_: HttpBodyType,
    /// The text, regular expression or digest, 1..1024 characters. Required.
    #[schemars(length(min = 1, max = 1024))]
    pub value: String,
}

/// How a body is looked at.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum HttpBodyType {
    /// A text in it.
    Text,
    /// A regular expression.
    Regex,
    /// Its digest.
    SHA256,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_admitted_one_by_one_and_in_ranges_with_both_ends() {
        let check = HttpCheck {
            status_codes: ["204", "301-302", "9", "4xx", "599-500"]
                .map(String::from)
                .into(),
            ..HttpCheck::default()
        };
        let admitted: Vec<u16> = (0..1000).filter(|status| check.admits(*status)).collect();
        assert_eq!(admitted, [9, 204, 301, 302]);
        let by_default = HttpCheck::default();
        let admitted: Vec<u16> = (0..1000)
            .filter(|status| by_default.admits(*status))
            .collect();
        assert_eq!(admitted, (200..300).collect::<Vec<u16>>());
    }

    #[test]
    fn a_check_that_says_only_what_it_must_has_the_defaults() {
        let read: HealthCheck =
            serde_json::from_str(r#"{"name": "page", "type": "HTTP", "http": {}}"#).unwrap();
        let written = HealthCheck {
            http: Some(HttpCheck::default()),
            ..HealthCheck::new("page".to_owned(), HealthCheckType::HTTP)
        };
        assert_eq!(read, written);
    }
}
