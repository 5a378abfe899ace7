//! The certificate that a director shows to those who want to know who asks.

use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::NOT_ASKED;
use crate::health::credentials::Credentials;

/// A certificate with those that it leads to, and its key.
pub struct ShownCertificate(Arc<SingleCertAndKey>);

impl ShownCertificate {
    /// Reads it. An error is why it cannot be shown, in words.
    pub fn read(credentials: Credentials<'_>) -> Result<Self, String> {
        let (certificate, key) = ("tls.crt", "tls.key");
        let unreadable = |field, what| {
            let field = credentials.key(field);
            format!("{NOT_ASKED}{field} is no {what} in PEM")
        };
        let chain: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(&credentials.file(certificate)?).collect();
        let chain = chain.ok().filter(|chain| !chain.is_empty());
        let chain = chain.ok_or_else(|| unreadable(certificate, "certificate"))?;
        let secret = PrivateKeyDer::from_pem_slice(&credentials.file(key)?);
        let secret = secret.map_err(|_| unreadable(key, "private key"))?;
        let shown = CertifiedKey::from_der(chain, secret, &default_provider());
        let shown = shown.map_err(|error| {
            let (certificate, key) = (credentials.key(certificate), credentials.key(key));
            format!("{NOT_ASKED}{certificate} with {key}: {error}")
        })?;
        Ok(Self(Arc::new(shown.into())))
    }

    /// It, for a handshake.
    pub fn resolver(&self) -> Arc<dyn ResolvesClientCert> {
        Arc::clone(&self.0) as Arc<dyn ResolvesClientCert>
    }
}
