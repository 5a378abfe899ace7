//! Is TLS 1.2 or 1.3 spoken, by somebody whose certificate is to be trusted?

use std::io;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::OnceLock;

use lvs_core::health::{UnixSeconds, begin_words, expiry_words};
use lvs_crds::health_check::{TlsCheck, TlsStart};
use rustls::pki_types::{ServerName, UnixTime};
use rustls::{AlertDescription, CertificateError, ClientConfig, Error};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::certificate::not_after;
use super::shown::ShownCertificate;
use super::target::Target;
use super::trust::{self, Settings};
use super::{NOT_ASKED, TimeLimit, quoted, tcp, words};
use crate::health::credentials::Credentials;

/// How TLS is to be spoken in one question.
pub struct Terms<'a> {
    check: &'a TlsCheck,
    /// Whom the check trusts, in PEM, where it names a ConfigMap.
    authorities: Option<&'a str>,
    /// The certificate that is shown, where the check names one.
    shown: Option<ShownCertificate>,
    /// Where it is noted when that expires which the real server shows.
    expiry: &'a ShownExpiry,
}

/// When the certificate expires that a real server has shown; empty until it has.
pub type ShownExpiry = OnceLock<UnixSeconds>;

impl<'a> Terms<'a> {
    /// As `check` says, trusting these authorities if it names some, showing the certificate of these credentials, noting in
    /// `expiry` what the real server shows. An error is why it cannot be shown, in words.
    pub fn new(
        check: &'a TlsCheck,
        authorities: Option<&'a str>,
        shown: Option<Credentials<'_>>,
        expiry: &'a ShownExpiry,
    ) -> Result<Self, String> {
        let shown = shown.map(ShownCertificate::read).transpose()?;
        Ok(Self {
            check,
            authorities,
            shown,
            expiry,
        })
    }

    /// Settings that trust whom the check trusts. An error is why nobody can be trusted, in words.
    fn trusting(&self) -> Result<Settings, String> {
        match &self.check.ca_config_map_name {
            Some(name) => {
                let authorities = self.authorities.ok_or_else(|| {
                    format!("{NOT_ASKED}the authorities of ConfigMap {name} are not known yet")
                })?;
                trust::settings_for_bundle(name, authorities)
            }
            None => trust::settings_for(self.check.verification),
        }
    }

    /// Whether TLS begins with the first byte.
    pub fn begin_at_once(&self) -> bool {
        self.check.start == TlsStart::Immediately
    }
}

/// The name that the certificate must be for and, unless it is an address, that the server is told: `check.server_name`,
/// else the host that is asked for, else the address.
fn server_name_of(
    check: &TlsCheck,
    host: Option<&str>,
    target: SocketAddr,
) -> Result<ServerName<'static>, String> {
    let name = check.server_name.as_deref().or(host.map(without_port));
    let Some(name) = name else {
        return Ok(target.ip().into());
    };
    let server_name = ServerName::try_from(name.to_owned());
    server_name.map_err(|_| {
        let name = quoted(name);
        format!("{NOT_ASKED}{name} is no name for TLS, set tls.serverName")
    })
}

fn without_port(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(address) => address.split(']').next().unwrap_or(address),
        None => host.split(':').next().unwrap_or(host),
    }
}

/// A connection to a real server, in plain text or over TLS.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Connection for S {}

/// A connection over which TLS is spoken from the first byte on, if there are `terms`; `protocol` is as in [`Security::of`].
/// An error is why there is none, in words.
pub async fn connect(
    target: Target,
    terms: Option<&Terms<'_>>,
    protocol: Option<&'static str>,
    limit: TimeLimit,
) -> Result<Box<dyn Connection>, String> {
    let security = Security::of(terms, None, target, protocol)?;
    let stream = tcp::connect(target, limit).await?;
    Ok(match security {
        None => Box::new(stream),
        Some(security) => Box::new(security.over(stream, limit).await?),
    })
}

/// How TLS is spoken with one real server.
pub struct Security<'a> {
    name: ServerName<'static>,
    settings: Settings,
    /// ConfigMap of the authorities that alone are trusted.
    config_map_name: Option<String>,
    expiry: &'a ShownExpiry,
}

impl<'a> Security<'a> {
    /// As `terms` say, if there are any, with who is at `target`, for `host` where the question names one, offering to speak
    /// `protocol` over it (ALPN). An error is what of the check itself cannot be done, in words.
    pub fn of(
        terms: Option<&Terms<'a>>,
        host: Option<&str>,
        target: Target,
        protocol: Option<&'static str>,
    ) -> Result<Option<Self>, String> {
        let security = terms.map(|terms| Self::new(terms, host, target, protocol));
        security.transpose()
    }

    fn new(
        terms: &Terms<'a>,
        host: Option<&str>,
        target: Target,
        protocol: Option<&'static str>,
    ) -> Result<Self, String> {
        let Terms { check, shown, .. } = terms;
        let name = server_name_of(check, host, target.address)?;
        let mut settings = terms.trusting()?;
        if shown.is_some() || protocol.is_some() {
            // What is in them is shared, not copied.
            let mut own = ClientConfig::clone(&settings);
            own.alpn_protocols = protocol.map(Into::into).into_iter().collect();
            if let Some(shown) = shown {
                own.client_auth_cert_resolver = shown.resolver();
            }
            settings = own.into();
        }
        Ok(Self {
            name,
            settings,
            config_map_name: check.ca_config_map_name.clone(),
            expiry: terms.expiry,
        })
    }

    /// A handshake over a connection that stands. An error is why it failed, in words.
    pub async fn over<S: Connection>(
        self,
        stream: S,
        limit: TimeLimit,
    ) -> Result<TlsStream<S>, String> {
        let Self {
            name,
            settings,
            config_map_name,
            expiry,
        } = self;
        let handshake = TlsConnector::from(settings).connect(name, stream);
        let result = limit
            .within("TLS handshake not complete within", handshake)
            .await?;
        let shown = match &result {
            Ok(stream) => {
                let certificates = stream.get_ref().1.peer_certificates();
                certificates.and_then(|all| not_after(all.first()?))
            }
            Err(error) => match error_of(error) {
                Some(Error::InvalidCertificate(CertificateError::ExpiredContext {
                    not_after,
                    ..
                })) => Some(moment(*not_after)),
                _ => None,
            },
        };
        if let Some(shown) = shown {
            // One question is one handshake.
            let _ = expiry.set(shown);
        }
        result.map_err(|error| match (error_of(&error), config_map_name) {
            (Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)), Some(name)) => {
                format!("certificate is of no authority in ConfigMap {name}")
            }
            _ => failed(&error),
        })
    }
}

/// What is told of a server that does not speak what it is offered.
pub const OTHER_PROTOCOLS: &str = "the server does not offer the protocol that is asked for (ALPN)";

/// What is told of a server that is asked to begin TLS and does not.
pub const NOT_SPOKEN: &str = "the server does not speak TLS";

/// Whether the server has chosen this protocol.
pub fn is_agreed<S>(stream: &TlsStream<S>, protocol: &str) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(protocol.as_bytes())
}

/// The error of TLS in one of the socket.
pub fn error_of(error: &io::Error) -> Option<&Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

fn failed(error: &io::Error) -> String {
    match error_of(error) {
        Some(error) => refusal(error),
        None => match error.kind() {
            ErrorKind::UnexpectedEof => "connection closed in the TLS handshake".to_owned(),
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                "connection reset in the TLS handshake".to_owned()
            }
            _ => format!("TLS handshake failed: {}", words(error)),
        },
    }
}

/// An error of TLS in words.
pub fn refusal(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(error) => format!("certificate {}", fault(error)),
        Error::AlertReceived(AlertDescription::NoApplicationProtocol) => OTHER_PROTOCOLS.to_owned(),
        Error::AlertReceived(alert) => format!("TLS ended by the real server: {alert:?}"),
        Error::InvalidMessage(_) => "answer is no TLS".to_owned(),
        error => format!("TLS handshake failed: {error}"),
    }
}

/// What is wrong with a certificate.
fn fault(error: &CertificateError) -> String {
    match error {
        CertificateError::ExpiredContext { time, not_after } => {
            expiry_words(moment(*not_after), moment(*time))
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            begin_words(moment(*not_before), moment(*time))
        }
        CertificateError::UnknownIssuer => "is of no authority that the agent knows".to_owned(),
        CertificateError::BadSignature => "is not signed by the authority that it names".to_owned(),
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => {
            let expected = expected.to_str();
            // Each is as DnsName("www.example.org").
            let names = presented
                .iter()
                .map(|name| name.split('"').nth(1).unwrap_or(name));
            let presented = quoted(&names.collect::<Vec<_>>().join(", "));
            format!("is for {presented}, not for {expected}")
        }
        // webpki has no kind of its own for it there.
        CertificateError::Other(error) if error.to_string().contains("CaUsedAsEndEntity") => {
            "is that of an authority itself, not of a server".to_owned()
        }
        error => format!("is not to be trusted: {error}"),
    }
}

fn moment(time: UnixTime) -> UnixSeconds {
    UnixSeconds(i64::try_from(time.as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::sync::Arc;
    use std::time::Duration;

    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use rcgen::{
        BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair,
        date_time_ymd,
    };
    use rustls::crypto::ring::default_provider;
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    use rustls::{RootCertStore, ServerConfig};
    use tokio::net::{TcpListener, TcpStream};
    use tokio_rustls::TlsAcceptor;

    use super::super::trust::settings_of;
    use super::*;
    use crate::health::calendar;

    /// The same in PEM, as a ConfigMap has it.
    fn bundle(name: &str) -> (Issuer<'static, KeyPair>, String) {
        let (issuer, certificate) = issuer(name);
        let encoded = STANDARD.encode(certificate.der());
        let text = format!("-----BEGIN CERTIFICATE-----\n{encoded}\n-----END CERTIFICATE-----\n");
        (issuer, text)
    }

    fn issuer(name: &str) -> (Issuer<'static, KeyPair>, Certificate) {
        let key = KeyPair::generate().unwrap();
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.distinguished_name.push(DnType::CommonName, name);
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = authority.self_signed(&key).unwrap();
        (Issuer::new(authority, key), certificate)
    }

    /// An authority that is trusted.
    fn authority(name: &str) -> (Issuer<'static, KeyPair>, Settings) {
        let (issuer, certificate) = issuer(name);
        let mut authorities = RootCertStore::empty();
        authorities.add(certificate.der().clone()).unwrap();
        (issuer, settings_of(authorities).unwrap())
    }

    /// Seconds from 1970 until so many hours from now.
    fn in_hours(hours: i64) -> Duration {
        let moment = calendar().0 + hours * 3600;
        Duration::from_secs(moment.try_into().unwrap())
    }

    /// What a handshake comes to with a server that shows a certificate for `names`, changed by `change`.
    async fn handshake_with(
        issuer: &Issuer<'_, KeyPair>,
        settings: Settings,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Result<(), String> {
        let name = ServerName::try_from("www.example.org").unwrap();
        let security = Security {
            name,
            settings,
            config_map_name: None,
            expiry: &ShownExpiry::new(),
        };
        handshake(issuer, security, names, change).await
    }

    async fn handshake(
        issuer: &Issuer<'_, KeyPair>,
        security: Security<'_>,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Result<(), String> {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut certificate = CertificateParams::new(names).unwrap();
        change(&mut certificate);
        let certificate = certificate.signed_by(&key, issuer).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let server = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        let answering = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            // It fails where the certificate is refused.
            let _ = TlsAcceptor::from(Arc::new(server)).accept(stream).await;
        });
        let limit = TimeLimit::from_now(10);
        let stream = TcpStream::connect(target).await.unwrap();
        let verdict = security.over(stream, limit).await.map(drop);
        answering.await.unwrap();
        verdict
    }

    #[tokio::test]
    async fn a_certificate_is_trusted_or_the_words_say_why_not() {
        let (issuer, settings) = authority("ours");
        let right = ["www.example.org"];
        let shown = handshake_with(&issuer, settings.clone(), &right, |_| {}).await;
        assert_eq!(shown, Ok(()));
        let wildcard = ["*.example.org", "example.org"];
        let shown = handshake_with(&issuer, settings.clone(), &wildcard, |_| {}).await;
        assert_eq!(shown, Ok(()));
        let old = handshake_with(&issuer, settings.clone(), &right, |certificate| {
            certificate.not_before = date_time_ymd(2001, 2, 3);
            certificate.not_after = date_time_ymd(1970, 1, 1) + in_hours(-50);
        });
        let expired = "certificate expired 2 days ago";
        assert_eq!(old.await, Err(expired.to_owned()));
        let young = handshake_with(&issuer, settings.clone(), &right, |certificate| {
            certificate.not_before = date_time_ymd(1970, 1, 1) + in_hours(3);
            certificate.not_after = date_time_ymd(3002, 2, 3);
        });
        let early = "certificate is valid only in 3 hours";
        assert_eq!(young.await, Err(early.to_owned()));
        let others = ["example.org", "mail.example.org"];
        let shown = handshake_with(&issuer, settings.clone(), &others, |_| {}).await;
        let other = "certificate is for \"example.org, mail.example.org\", not for www.example.org";
        assert_eq!(shown, Err(other.to_owned()));
        let own = handshake_with(&issuer, settings.clone(), &right, |certificate| {
            certificate.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        });
        let authority_itself = "certificate is that of an authority itself, not of a server";
        assert_eq!(own.await, Err(authority_itself.to_owned()));
        let (stranger, _) = authority("another");
        let shown = handshake_with(&stranger, settings.clone(), &right, |_| {}).await;
        let unknown = "certificate is of no authority that the agent knows";
        assert_eq!(shown, Err(unknown.to_owned()));
        let (impostor, _) = authority("ours");
        let shown = handshake_with(&impostor, settings, &right, |_| {}).await;
        let forged = "certificate is not signed by the authority that it names";
        assert_eq!(shown, Err(forged.to_owned()));
    }

    #[tokio::test]
    async fn the_authorities_of_a_config_map_are_all_that_is_trusted() {
        let (issuer, authorities) = bundle("ours");
        let (stranger, others) = bundle("another");
        let check = TlsCheck {
            ca_config_map_name: Some("ca".to_owned()),
            server_name: Some("www.example.org".to_owned()),
            ..TlsCheck::default()
        };
        let target = Target {
            passage: None,
            address: "192.0.2.1:443".parse().unwrap(),
            source: None,
        };
        let shown = ShownExpiry::new();
        let security = |authorities| {
            let terms = Terms::new(&check, authorities, None, &shown).unwrap();
            Security::new(&terms, None, target, None)
        };
        let right = ["www.example.org"];
        let both = format!("{authorities}{others}");
        for (issuer, authorities, expected) in [
            (&issuer, &authorities, Ok(())),
            (
                &stranger,
                &authorities,
                Err("certificate is of no authority in ConfigMap ca".to_owned()),
            ),
            (&stranger, &both, Ok(())),
        ] {
            let security = security(Some(authorities)).unwrap();
            let shown = handshake(issuer, security, &right, |_| {}).await;
            assert_eq!(shown, expected);
        }
        let unknown = security(None).err().unwrap();
        let why = "not asked: the authorities of ConfigMap ca are not known yet";
        assert_eq!(unknown, why);
        let damaged = security(Some(
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
        ));
        let why = "not asked: ConfigMap ca has no certificate that can be read: correct its ca.crt";
        assert_eq!(damaged.err().unwrap(), why);
    }

    #[test]
    fn the_name_is_that_of_the_check_else_of_the_host_else_the_address() {
        let target: SocketAddr = "[2001:db8::1]:443".parse().unwrap();
        let name = |server_name: Option<&str>, host| {
            let server_name = server_name.map(String::from);
            let check = TlsCheck {
                server_name,
                ..TlsCheck::default()
            };
            server_name_of(&check, host, target)
        };
        let told = [
            name(Some("a.example.org"), Some("b.example.org")),
            name(None, Some("b.example.org:8443")),
            name(None, Some("192.0.2.1:8443")),
            name(None, Some("[2001:db8::2]:8443")),
            name(None, None),
        ];
        let names = told.map(|name| name.unwrap().to_str().into_owned());
        assert_eq!(
            names,
            [
                "a.example.org",
                "b.example.org",
                "192.0.2.1",
                "2001:db8::2",
                "2001:db8::1"
            ]
        );
        let why = name(None, Some("a..b")).unwrap_err();
        assert_eq!(
            why,
            "not asked: \"a..b\" is no name for TLS, set tls.serverName"
        );
    }
}
