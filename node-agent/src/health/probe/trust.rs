//! Whose certificates are trusted: anybody's, or those of the authorities that this process was given.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use lvs_crds::health_check::TlsVerification;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ConfigBuilder, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    WantsVerifier,
};
use tokio::time::Instant;

use super::NOT_ASKED;
use crate::limits::{AUTHORITIES_KEPT, BUNDLES_KEPT};

/// Settings of TLS that are shared by all questions.
pub type Settings = Arc<ClientConfig>;

/// The authorities of this process, and when they were read.
static AUTHORITIES: Mutex<Option<(Instant, Result<Settings, String>)>> = Mutex::new(None);

/// Settings that trust authorities of ConfigMaps, by these; at most [`BUNDLES_KEPT`].
static BUNDLES: Mutex<BTreeMap<String, Settings>> = Mutex::new(BTreeMap::new());

static ANYBODY: LazyLock<Result<Settings, String>> = LazyLock::new(|| {
    let settings = settings()?.dangerous();
    let settings = settings.with_custom_certificate_verifier(Arc::new(Anybody));
    Ok(for_checks(settings.with_no_client_auth()))
});

/// Settings that trust so much. An error is why nobody can be trusted, in words.
pub fn settings_for(verification: TlsVerification) -> Result<Settings, String> {
    match verification {
        TlsVerification::Full => authorities_of_this_process(),
        TlsVerification::None => ANYBODY.clone(),
    }
}

/// Settings that trust the authorities of a ConfigMap, in PEM. An error is that none of them can be read, in words.
pub fn settings_for_bundle(config_map_name: &str, authorities: &str) -> Result<Settings, String> {
    let mut known = BUNDLES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(settings) = known.get(authorities) {
        return Ok(Arc::clone(settings));
    }
    let certificates = CertificateDer::pem_slice_iter(authorities.as_bytes());
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates.filter_map(Result::ok));
    if roots.is_empty() {
        return Err(format!(
            "{NOT_ASKED}ConfigMap {config_map_name} has no certificate that can be read: correct its ca.crt"
        ));
    }
    let settings = settings_of(roots)?;
    if known.len() >= BUNDLES_KEPT {
        // Those in use are back after one question each.
        known.clear();
    }
    known.insert(authorities.to_owned(), Arc::clone(&settings));
    Ok(settings)
}

/// Settings that trust these authorities.
pub fn settings_of(authorities: RootCertStore) -> Result<Settings, String> {
    let settings = settings()?.with_root_certificates(authorities);
    Ok(for_checks(settings.with_no_client_auth()))
}

/// What `SSL_CERT_FILE` and `SSL_CERT_DIR` name, else what this machine has; read again now and then, as authorities change.
fn authorities_of_this_process() -> Result<Settings, String> {
    let mut known = AUTHORITIES.lock().unwrap_or_else(PoisonError::into_inner);
    match &*known {
        Some((read, settings)) if read.elapsed() < AUTHORITIES_KEPT => settings.clone(),
        _ => {
            let settings = read_authorities().and_then(settings_of);
            *known = Some((Instant::now(), settings.clone()));
            settings
        }
    }
}

fn read_authorities() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut authorities = RootCertStore::empty();
    authorities.add_parsable_certificates(found.certs);
    if authorities.is_empty() {
        let why = found.errors.first().map(|error| format!(" ({error})"));
        let why = why.unwrap_or_default();
        return Err(format!(
            "not asked: the agent knows no certificate authority{why}: name a file of them in its SSL_CERT_FILE, or set tls.verification None"
        ));
    }
    Ok(authorities)
}

fn settings() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, String> {
    ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("{NOT_ASKED}{error}"))
}

fn for_checks(mut settings: ClientConfig) -> Settings {
    // Each question is to show that the whole handshake works.
    settings.resumption = Resumption::disabled();
    Arc::new(settings)
}

/// Trusts whatever certificate is shown, also one that cannot be read, and whoever has its key or not.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = default_provider().signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
