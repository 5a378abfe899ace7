//! Checks by a judge: somebody else looks at real servers, and is asked over HTTP what he found.

use std::net::IpAddr;

use http::Uri;
use http::uri::Scheme;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::text::{JudgeUrl, PartName};

/// A judge who knows what no check of a protocol can tell, such as a script behind a web server (keepalived: MISC_CHECK, ldirectord: external). He is asked by GET about each real server, with its address and port in the query: status 200-299 says that it is healthy, 503 that it is not. Any other answer, or none, says nothing, and everything stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalHttpCheck {
    /// Where he is: http:// or https://, host, port, path and query, at most 1024 characters, such as http://judge.shop.svc.cluster.local:8080/ask. address=… and port=… of the real server are added to the query. The host is an address, or a name in lower case that the controller resolves; of several addresses one is asked. It must lie in externalCheckCIDRs of a grant, and is neither a node nor an API server. Required.
    #[schemars(with = "JudgeUrl")]
    pub url: String,
    /// Credentials that the request carries (Authorization: Basic, RFC 7617): a DNS label NAME, for keys NAMESPACE.NAME.username and .password, as with credentialsName of the check. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PartName>")]
    pub credentials_name: Option<String>,
}

/// Where a judge is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judge {
    /// Whether he is asked over TLS.
    pub is_encrypted: bool,
    /// Who he is.
    pub host: JudgeHost,
    /// Port, 1..65535.
    pub port: u16,
    /// Host and port as the URL has them.
    pub authority: String,
    /// Path and query; never empty.
    pub path: String,
}

/// Host of a judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JudgeHost {
    /// By address.
    Address(IpAddr),
    /// By a name in the DNS.
    Name(String),
}

impl ExternalHttpCheck {
    /// What the URL says; `None` where it is none of HTTP, which the API server admits no more than this.
    pub fn judge(&self) -> Option<Judge> {
        let uri: Uri = self.url.parse().ok()?;
        let scheme = uri.scheme()?;
        let is_encrypted = *scheme == Scheme::HTTPS;
        if !is_encrypted && *scheme != Scheme::HTTP {
            return None;
        }
        let authority = uri.authority()?;
        let bare = authority.host();
        let bracketed = bare
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let address: Option<IpAddr> = bracketed.unwrap_or(bare).parse().ok();
        let host = match (address, bracketed) {
            (Some(address), _) => JudgeHost::Address(address),
            (None, None) if !bare.is_empty() => JudgeHost::Name(bare.to_owned()),
            _ => return None,
        };
        let by_default = if is_encrypted { 443 } else { 80 };
        let port = match authority.port() {
            Some(port) => Some(port.as_u16()).filter(|port| *port != 0)?,
            None => by_default,
        };
        let path = uri.path_and_query().map(ToString::to_string);
        Some(Judge {
            is_encrypted,
            host,
            port,
            authority: authority.to_string(),
            path: path.unwrap_or_else(|| "/".to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(url: &str) -> Option<Judge> {
        let check = ExternalHttpCheck {
            url: url.to_owned(),
            credentials_name: None,
        };
        check.judge()
    }

    #[test]
    fn a_url_says_where_a_judge_is() {
        let name = |name: &str| JudgeHost::Name(name.to_owned());
        let address = |text: &str| JudgeHost::Address(text.parse().unwrap());
        for (url, is_encrypted, host, port, authority, path) in [
            ("http://judge", false, name("judge"), 80, "judge", "/"),
            (
                "https://judge.example/ask?depth=2",
                true,
                name("judge.example"),
                443,
                "judge.example",
                "/ask?depth=2",
            ),
            (
                "http://192.0.2.7:8080/",
                false,
                address("192.0.2.7"),
                8080,
                "192.0.2.7:8080",
                "/",
            ),
            (
                "http://[2001:db8::7]:8080?a",
                false,
                address("2001:db8::7"),
                8080,
                "[2001:db8::7]:8080",
                "/?a",
            ),
        ] {
            let expected = Judge {
                is_encrypted,
                host,
                port,
                authority: authority.to_owned(),
                path: path.to_owned(),
            };
            assert_eq!(judge(url), Some(expected), "{url}");
        }
    }

    #[test]
    fn what_is_no_url_of_http_is_nobody() {
        for url in [
            "",
            "judge",
            "/ask",
            "ftp://judge/",
            "http://",
            "http://judge:0/",
            "http://[judge]/",
        ] {
            assert_eq!(judge(url), None, "{url:?}");
        }
    }
}
