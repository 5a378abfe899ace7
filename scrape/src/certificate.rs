//! The certificate, as files that somebody renews: a mounted Secret.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::limits::CERTIFICATE_KEPT;

/// File of the certificate and those that lead to its authority, PEM.
const CERTIFICATE: &str = "tls.crt";
/// File of its private key, PEM.
const KEY: &str = "tls.key";

/// The certificate in a directory. One that was good stays in use while what is there is not.
#[derive(Debug)]
pub struct CertificateFiles {
    directory: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    looked: Option<Instant>,
    content: Option<(Vec<u8>, Vec<u8>)>,
    settings: Option<Arc<ServerConfig>>,
    complaint: Option<String>,
}

impl CertificateFiles {
    /// Files `tls.crt` and `tls.key` of a directory, which need not be there yet.
    pub fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            known: Mutex::default(),
        }
    }

    /// Settings of TLS with the certificate of now; `None` while there was no good one. Looks at the files (small ones, in
    /// memory) when the last look is a while ago, and logs what it finds wrong with them, once.
    pub fn settings(&self, now: Instant) -> Option<Arc<ServerConfig>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = known
            .looked
            .is_some_and(|looked| now.saturating_duration_since(looked) < CERTIFICATE_KEPT);
        if !is_fresh {
            known.looked = Some(now);
            let complaint = self.look(&mut known).err();
            if let Some(complaint) = &complaint
                && known.complaint.as_ref() != Some(complaint)
            {
                let meanwhile = if known.settings.is_some() {
                    "the one before stays in use"
                } else {
                    "nobody can read metrics"
                };
                tracing::error!("the certificate of /metrics: {complaint}; {meanwhile}");
            }
            known.complaint = complaint;
        }
        known.settings.clone()
    }

    fn look(&self, known: &mut Known) -> Result<(), String> {
        let content = (
            read(&self.directory, CERTIFICATE)?,
            read(&self.directory, KEY)?,
        );
        if known.content.as_ref() == Some(&content) {
            // What was wrong with it is wrong still.
            return known.complaint.clone().map_or(Ok(()), Err);
        }
        let settings = settings_of(&content.0, &content.1);
        known.content = Some(content);
        known.settings = Some(Arc::new(settings?));
        tracing::info!(
            "the certificate of /metrics is that of {}",
            self.directory.display()
        );
        Ok(())
    }
}

fn read(directory: &Path, name: &str) -> Result<Vec<u8>, String> {
    let path = directory.join(name);
    std::fs::read(&path).map_err(|error| format!("reading {}: {error}", path.display()))
}

/// Settings with a certificate and its key, both PEM. Errors say in words which of the two is wrong, and never what is in it.
fn settings_of(certificate: &[u8], key: &[u8]) -> Result<ServerConfig, String> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("{CERTIFICATE} is no PEM: {error}"))?;
    if chain.is_empty() {
        return Err(format!("{CERTIFICATE} has no certificate"));
    }
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_| format!("{KEY} has no private key in PEM"))?;
    let mut settings = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("settings of TLS: {error}"))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| format!("{CERTIFICATE} with {KEY}: {error}"))?;
    settings.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(settings)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    fn write(directory: &Path, certificate: &str, key: &str) {
        std::fs::write(directory.join(CERTIFICATE), certificate).unwrap();
        std::fs::write(directory.join(KEY), key).unwrap();
    }

    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["metrics.example".to_owned()]).unwrap();
        let pem = |kind: &str, der: &[u8]| {
            let text = STANDARD.encode(der);
            format!("-----BEGIN {kind}-----\n{text}\n-----END {kind}-----\n")
        };
        let key = made.signing_key.serialize_der();
        (
            pem("CERTIFICATE", made.cert.der()),
            pem("PRIVATE KEY", &key),
        )
    }

    #[test]
    fn a_renewed_certificate_is_taken_and_a_wrong_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let files = CertificateFiles::new(directory.path().to_owned());
        let start = Instant::now();
        let later = |looks: u32| start + CERTIFICATE_KEPT * looks;
        assert!(files.settings(start).is_none(), "there are no files");
        let (first, second) = (pair(), pair());
        write(directory.path(), &first.0, &first.1);
        let soon = start + Duration::from_secs(1);
        assert!(files.settings(soon).is_none(), "it is not time to look");
        let one = files.settings(later(1)).unwrap();
        let same = files.settings(later(2)).unwrap();
        assert!(Arc::ptr_eq(&one, &same), "nothing has changed");

        // Half of a renewal, then nonsense, then no file: the one before stays.
        write(directory.path(), &second.0, &first.1);
        assert!(Arc::ptr_eq(&one, &files.settings(later(3)).unwrap()));
        assert!(Arc::ptr_eq(&one, &files.settings(later(4)).unwrap()));
        write(directory.path(), "nonsense", &second.1);
        assert!(Arc::ptr_eq(&one, &files.settings(later(5)).unwrap()));
        std::fs::remove_file(directory.path().join(KEY)).unwrap();
        assert!(Arc::ptr_eq(&one, &files.settings(later(6)).unwrap()));

        write(directory.path(), &second.0, &second.1);
        assert!(!Arc::ptr_eq(&one, &files.settings(later(7)).unwrap()));
    }

    #[test]
    fn what_is_wrong_is_told_in_words_and_without_the_key() {
        let ((certificate, key), (other, _)) = (pair(), pair());
        for (certificate, key, words) in [
            ("", key.as_str(), "tls.crt has no certificate"),
            (
                certificate.as_str(),
                "",
                "tls.key has no private key in PEM",
            ),
            (
                certificate.as_str(),
                certificate.as_str(),
                "tls.key has no private key in PEM",
            ),
            (other.as_str(), key.as_str(), "tls.crt with tls.key: "),
        ] {
            let error = settings_of(certificate.as_bytes(), key.as_bytes()).unwrap_err();
            assert!(error.starts_with(words), "{error}");
        }
    }
}
