//! The arguments that controller and agent share.

use std::num::NonZeroU16;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use http::Uri;

/// The path of traces below an endpoint (OTLP specification, "OTLP/HTTP Request").
const PATH: &str = "v1/traces";

/// Where spans go, if anywhere.
#[derive(Clone, Debug, Default, Args)]
pub struct TraceArguments {
    /// Collector that gets traces of changes by OTLP (http/protobuf): http://HOST:4318 or https://HOST:4318; v1/traces is added.
    /// Without it nothing is traced.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<Collector>,
    /// File with the certificate authorities of the collector, PEM. Without it those that SSL_CERT_FILE names, or the system's.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_CERTIFICATE")]
    pub otlp_certificate: Option<PathBuf>,
}

/// A collector of OpenTelemetry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    traces: Uri,
}

impl Collector {
    /// Where traces are sent to.
    pub const fn traces(&self) -> &Uri {
        &self.traces
    }

    /// Whether it is spoken to over TLS.
    pub fn is_over_tls(&self) -> bool {
        self.traces.scheme_str() == Some("https")
    }
}

impl FromStr for Collector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = |what: &str| format!("{what}; an endpoint is like http://collector:4318");
        let uri = Uri::from_str(text).map_err(|error| wanted(&error.to_string()))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(wanted("it begins with neither http:// nor https://"));
        }
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let host = uri.host().unwrap_or_default();
        if host.is_empty() || authority.contains('@') {
            return Err(wanted("it has no host, or a user"));
        }
        let port = authority.strip_prefix(host).unwrap_or_default();
        let port = port.strip_prefix(':').map(str::parse::<NonZeroU16>);
        if port.is_some_and(|port| port.is_err()) {
            return Err(wanted("its port is none"));
        }
        if uri.query().is_some() {
            return Err(wanted("it has a query"));
        }
        let traces = format!("{}/{PATH}", text.trim_end_matches('/'));
        let traces = Uri::from_str(&traces).map_err(|error| wanted(&error.to_string()))?;
        Ok(Self { traces })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_are_below_the_endpoint() {
        for (endpoint, traces) in [
            ("http://collector:4318", "http://collector:4318/v1/traces"),
            ("http://collector:4318/", "http://collector:4318/v1/traces"),
            (
                "https://[2001:db8::1]:4318/otlp",
                "https://[2001:db8::1]:4318/otlp/v1/traces",
            ),
        ] {
            let collector: Collector = endpoint.parse().unwrap();
            assert_eq!(collector.traces().to_string(), traces);
            assert_eq!(collector.is_over_tls(), endpoint.starts_with("https"));
        }
    }

    #[test]
    fn an_endpoint_that_is_none_is_refused_with_the_cure() {
        for endpoint in [
            "",
            "collector:4318",
            "grpc://collector:4317",
            "http://user@collector:4318",
            "http://:4318",
            "http://collector:4318/?a=b",
            "http://collector:99999999/",
            "/v1/traces",
        ] {
            let error = endpoint.parse::<Collector>().unwrap_err();
            assert!(
                error.contains("http://collector:4318"),
                "{endpoint}: {error}"
            );
        }
    }
}
