//! When does a certificate expire that a real server shows?

use der::asn1::{AnyRef, GeneralizedTime, UtcTime};
use der::{Reader, SliceReader, Tag, Tagged};
use lvs_core::health::UnixSeconds;

/// The last second in which a certificate is valid; nothing of one that cannot be read. Of whatever version, and with whatever
/// extensions, which come later (RFC 5280, 4.1).
pub fn not_after(certificate: &[u8]) -> Option<UnixSeconds> {
    let mut outside = SliceReader::new(certificate).ok()?;
    let mut certificate = inside(outside.decode().ok()?)?;
    let mut to_be_signed = inside(certificate.decode().ok()?)?;
    let mut next = || to_be_signed.decode::<AnyRef<'_>>().ok();
    // The version stands there unless it is 1; then the serial number, the algorithm, the issuer.
    if next()?.tag().is_context_specific() {
        next()?;
    }
    next()?;
    next()?;
    let mut validity = inside(next()?)?;
    validity.decode::<AnyRef<'_>>().ok()?;
    let end = validity.decode::<AnyRef<'_>>().ok()?;
    let end = match end.tag() {
        Tag::UtcTime => end.decode_as::<UtcTime>().ok()?.to_unix_duration(),
        _ => end.decode_as::<GeneralizedTime>().ok()?.to_unix_duration(),
    };
    i64::try_from(end.as_secs()).ok().map(UnixSeconds)
}

/// What is in a sequence.
fn inside(whole: AnyRef<'_>) -> Option<SliceReader<'_>> {
    let content = (whole.tag() == Tag::Sequence).then(|| whole.value())?;
    SliceReader::new(content).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    /// X.509 version 1, as `openssl x509 -req` makes without extensions.
    const OLD: &str = "\
        MIIBFTCBvQIUfrf4B4gXDOLYivHfOA2EvsJ9U/cwCgYIKoZIzj0EAwIwDjEMMAoGA1UEAwwDb2xkMB4XDTI2MTEzMDA0NDgzOVoXDTI5MDgyNjA0NDgz\
        OVowDjEMMAoGA1UEAwwDb2xkMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEoKqs8fSTF16OeDKPvXTmOSFkA3tBJEmSPrJZUDtn1CGpi+7WNohH2zEu\
        71EDoENcH1DjAgb76wKDwsKnHximgDAKBggqhkjOPQQDAgNHADBEAiBQYYuC8hLSF7N/mM284tSJzcAjIQ+ONblXEarTPWE/qAIgcT/FnfgOZFm5fdw6\
        CqcoBiM/mqKO1y2Wq3rh5YFFFSI=";

    #[test]
    fn the_end_of_a_certificate_is_read_whatever_its_version_and_of_damage_nothing() {
        let old = STANDARD.decode(OLD).unwrap();
        assert_eq!(not_after(&old), Some(UnixSeconds(1_882_414_119)));
        let far = Some(UnixSeconds(67_090_118_400));
        assert_eq!(not_after(&new()), far, "4096-01-01");
        for length in 0..old.len() {
            assert_eq!(not_after(&old[..length]), None, "{length}");
        }
    }

    /// Of the version that is usual.
    fn new() -> Vec<u8> {
        let names = vec!["www.example.org".to_owned()];
        let certificate = CertificateParams::new(names).unwrap();
        let certificate = certificate.self_signed(&KeyPair::generate().unwrap());
        certificate.unwrap().der().to_vec()
    }

    proptest! {
        #[test]
        fn damage_is_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64), place in 0_usize..600) {
            let _ = not_after(&bytes);
            let mut certificate = new();
            for (old, damaged) in certificate.iter_mut().skip(place).zip(bytes) {
                *old = damaged;
            }
            let _ = not_after(&certificate);
        }
    }
}
