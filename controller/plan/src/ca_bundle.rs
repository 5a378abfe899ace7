//! Certificate authorities that users put into ConfigMaps, for health checks to trust.

use std::fmt::Write as _;

use lvs_crds::node_plan::PLANNED_AUTHORITIES_BYTES;

/// Label of the ConfigMaps that are looked at. Without it the controllers would have to read every ConfigMap of the cluster.
pub const CA_BUNDLE_LABEL: &str = "lvs.dev/ca-bundle";
/// Value of that label.
pub const CA_BUNDLE_LABEL_VALUE: &str = "true";
/// Key of such a ConfigMap.
pub const CA_BUNDLE_KEY: &str = "ca.crt";

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// What a labelled ConfigMap has for checks: certificates in PEM and nothing else of it, or why not, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaBundle(Result<String, String>);

impl CaBundle {
    /// From the text of key [`CA_BUNDLE_KEY`]. What is no certificate in it, such as a private key, is left out.
    pub fn read(text: Option<&str>) -> Self {
        let text = text.ok_or_else(|| format!("has no key {CA_BUNDLE_KEY}: add it"));
        Self(text.and_then(certificates))
    }

    /// Certificates in PEM, or what is wrong with the ConfigMap, as "has no key ca.crt: add it".
    pub fn certificates(&self) -> Result<&str, &str> {
        self.0.as_deref().map_err(String::as_str)
    }
}

/// The certificates of a text, at most [`PLANNED_AUTHORITIES_BYTES`].
fn certificates(text: &str) -> Result<String, String> {
    let mut found = String::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once(BEGIN) {
        let (content, after) = after.split_once(END).unwrap_or((after, ""));
        let lines: Vec<&str> = content.split_whitespace().collect();
        // Every certificate is a sequence in DER, and begins in base64 with this letter.
        let is_base64 = |line: &&str| {
            let mut letters = line.bytes();
            letters.all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte))
        };
        let begins = lines.first().is_some_and(|line| line.starts_with('M'));
        if !begins || !lines.iter().all(is_base64) {
            return Err(format!(
                "has a certificate in {CA_BUNDLE_KEY} that is none in PEM: correct it"
            ));
        }
        // A text takes whatever is written to it.
        let _ = writeln!(found, "{BEGIN}\n{}\n{END}", lines.join("\n"));
        rest = after;
    }
    let length = found.len();
    if found.is_empty() {
        return Err(format!(
            "has no certificate in {CA_BUNDLE_KEY}: put the authorities there in PEM"
        ));
    }
    if length > PLANNED_AUTHORITIES_BYTES {
        return Err(format!(
            "has certificates of {length} bytes in {CA_BUNDLE_KEY}, {PLANNED_AUTHORITIES_BYTES} at most are taken: leave out what no \
             real server needs"
        ));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, String> {
        let bundle = CaBundle::read(Some(text));
        let certificates = bundle.certificates().map(String::from);
        certificates.map_err(String::from)
    }

    #[test]
    fn certificates_are_taken_and_nothing_else() {
        let text = format!(
            "# ours\r\n{BEGIN}\r\nMIIB\r\nAA==\r\n{END}\r\n-----BEGIN PRIVATE KEY-----\nMIIsecret\n-----END PRIVATE KEY-----\n{BEGIN}\nMIIC\n{END}"
        );
        let wanted = format!("{BEGIN}\nMIIB\nAA==\n{END}\n{BEGIN}\nMIIC\n{END}\n");
        assert_eq!(read(&text), Ok(wanted));
    }

    #[test]
    fn what_is_none_is_told_with_the_cure() {
        let nothing = CaBundle::read(None);
        assert_eq!(nothing.certificates(), Err("has no key ca.crt: add it"));
        let none = "has no certificate in ca.crt: put the authorities there in PEM";
        assert_eq!(read(""), Err(none.to_owned()));
        let damaged = "has a certificate in ca.crt that is none in PEM: correct it";
        for content in ["", "MII!", "hello", "MIIB\n-----BEGIN X-----"] {
            let text = format!("{BEGIN}\n{content}\n{END}");
            assert_eq!(read(&text), Err(damaged.to_owned()), "{content}");
        }
        let long = format!("{BEGIN}\n{}\n{END}", "M".repeat(PLANNED_AUTHORITIES_BYTES));
        let why = read(&long).err().unwrap_or_default();
        assert!(
            why.contains("of 65591 bytes in ca.crt, 65536 at most"),
            "{why}"
        );
    }
}
