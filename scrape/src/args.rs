//! The arguments that controller and agent share.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

/// Where and for whom /metrics is, when it is not on the port of the health endpoints.
#[derive(Clone, Debug, Default, Args)]
pub struct ScrapeArguments {
    /// Where /metrics is served over TLS, and nowhere else then. Without it /metrics is where the health endpoints are, by
    /// plain HTTP.
    #[arg(long, env = "LVS_METRICS_ADDRESS", requires = "metrics_tls_directory")]
    pub metrics_address: Option<SocketAddr>,
    /// Directory with the certificate, file `tls.crt`, and its key, `tls.key`, both PEM. Read again when they change.
    #[arg(long, env = "LVS_METRICS_TLS_DIRECTORY", requires = "metrics_address")]
    pub metrics_tls_directory: Option<PathBuf>,
    /// Answer only who shows a bearer token that the API server knows (TokenReview) and that may get /metrics
    /// (SubjectAccessReview).
    #[arg(long, env = "LVS_METRICS_AUTHENTICATION", requires = "metrics_address")]
    pub metrics_authentication: bool,
}

impl ScrapeArguments {
    /// The address and the certificate's directory; `None`: /metrics is where the health endpoints are.
    pub fn apart(&self) -> Option<(SocketAddr, PathBuf)> {
        Some((self.metrics_address?, self.metrics_tls_directory.clone()?))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        scrape: ScrapeArguments,
    }

    #[test]
    fn tls_wants_an_address_and_a_certificate_and_tokens_want_tls() {
        let line = |words: &[&str]| Line::try_parse_from([&["x"], words].concat());
        let address = "--metrics-address=0.0.0.0:9651";
        let directory = "--metrics-tls-directory=/etc/lvs-operator/metrics-tls";
        let tokens = "--metrics-authentication";
        assert_eq!(line(&[]).unwrap().scrape.apart(), None);
        let all = line(&[address, directory, tokens]).unwrap().scrape;
        assert!(all.metrics_authentication && all.apart().is_some());
        for (words, missing) in [
            (vec![address], "--metrics-tls-directory"),
            (vec![directory], "--metrics-address"),
            // A token by plain HTTP is anybody's.
            (vec![tokens], "--metrics-address"),
        ] {
            let error = line(&words).unwrap_err().to_string();
            assert!(error.contains(missing), "{words:?}: {error}");
        }
    }
}
