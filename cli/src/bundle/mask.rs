//! Takes out of objects and texts what may be a credential. Rather too much than too little: whoever reads an archive needs
//! to know that there was a value, not which.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// What stands in the place of a value.
pub const MASKED: &str = "(masked)";
/// Words that the names of credentials have in them.
const WORDS: [&str; 11] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "privatekey",
    "accesskey",
    "credential",
    "authorization",
    "cookie",
];
/// Ends of names that say where a credential is, not what it is.
const NAMING: [&str; 7] = [
    "name",
    "names",
    "namespace",
    "ref",
    "file",
    "path",
    "directory",
];
/// Fields whose text users choose and programs send: whatever is in them.
const SENT: [&str; 1] = ["payload"];
/// Annotation that repeats the whole object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Shorter values are not looked for elsewhere: they are words of every text.
const LOOKED_FOR_MINIMUM: usize = 8;
/// The same of values with a digit.
const LOOKED_FOR_MINIMUM_WITH_DIGIT: usize = 6;

/// Masks objects, and remembers what it has masked, to find it elsewhere.
#[derive(Debug, Default)]
pub struct Mask {
    known: BTreeSet<String>,
}

/// Whether a name is that of a credential.
fn is_credential(name: &str) -> bool {
    let letters: String = name
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|letter| letter.to_ascii_lowercase())
        .collect();
    WORDS.iter().any(|word| letters.contains(word))
        && !NAMING.iter().any(|end| letters.ends_with(end))
}

impl Mask {
    /// Masks an object, or a list of them. Secrets are taken out as a whole.
    pub fn object(&mut self, object: &mut Value) {
        if object["kind"] == "Secret" || object["kind"] == "SecretList" {
            self.remember(object);
            *object = Value::String(MASKED.to_owned());
            return;
        }
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
        self.value(object);
    }

    fn value(&mut self, value: &mut Value) {
        match value {
            Value::Object(fields) => self.fields(fields),
            Value::Array(items) => {
                for item in items {
                    if item["kind"] == "Secret" {
                        self.object(item);
                    } else {
                        self.value(item);
                    }
                }
            }
            Value::String(text) => *text = self.text(text),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn fields(&mut self, fields: &mut Map<String, Value>) {
        // {name: PASSWORD, value: …} of an environment, {name: Authorization, value: …} of a header.
        let named = fields.get("name").and_then(Value::as_str);
        let is_named = named.is_some_and(is_credential);
        for (key, value) in fields.iter_mut() {
            if key == "headers" {
                self.headers(value);
            } else if key == LAST_APPLIED
                || SENT.contains(&key.as_str())
                || (is_named && key == "value")
                || (is_credential(key) && (value.is_string() || is_texts(value)))
            {
                self.mask(value);
            } else {
                self.value(value);
            }
        }
    }

    fn headers(&mut self, headers: &mut Value) {
        for header in headers.as_array_mut().into_iter().flatten() {
            if let Some(value) = header.get_mut("value") {
                self.mask(value);
            }
        }
    }

    fn mask(&mut self, value: &mut Value) {
        if !value.is_null() {
            self.remember(value);
            *value = Value::String(MASKED.to_owned());
        }
    }

    fn remember(&mut self, value: &Value) {
        match value {
            Value::String(text) => {
                // A text that repeats an object: its parts are what counts.
                if let Ok(parsed @ (Value::Object(_) | Value::Array(_))) =
                    serde_json::from_str(text)
                {
                    let mut parsed = parsed;
                    self.value(&mut parsed);
                } else if is_looked_for(text) {
                    self.known.insert(text.clone());
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.remember(item)),
            Value::Object(fields) if fields.get("kind").is_some_and(|kind| kind == "Secret") => {
                for part in ["data", "stringData"] {
                    let values = fields.get(part).and_then(Value::as_object);
                    for (_, value) in values.into_iter().flatten() {
                        self.remember(value);
                    }
                }
            }
            Value::Object(fields) => fields.values().for_each(|field| self.remember(field)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// A text of an object or of a log, of several lines, without what may be a credential in it.
    pub fn text(&mut self, text: &str) -> String {
        let mut lines = Vec::new();
        let mut in_key = false;
        for line in text.split('\n') {
            if in_key {
                self.remember(&Value::from(line.trim()));
                in_key = !line.contains("-----END");
            } else if line.contains("PRIVATE KEY-----") {
                in_key = !line.contains("-----END");
                lines.push(MASKED.to_owned());
            } else {
                lines.push(self.line(line));
            }
        }
        lines.join("\n")
    }

    fn line(&mut self, line: &str) -> String {
        let line = self.assignments(line);
        self.addresses(&line)
    }

    /// `password=x`, `--token x`, `Authorization: Bearer x`, `"token":"x"`.
    fn assignments(&mut self, line: &str) -> String {
        let mut out = String::with_capacity(line.len());
        let mut rest = line;
        while let Some(at) = rest.find(['=', ':']) {
            let (head, tail) = rest.split_at(at);
            let name = head.trim_end_matches(['"', '\'', ' ', '\\']);
            let begin = name
                .rfind(|letter: char| !letter.is_ascii_alphanumeric() && !"-_.".contains(letter));
            let name = name.get(begin.map_or(0, |begin| begin + 1)..);
            let (sign, after) = tail.split_at(1);
            out.push_str(head);
            out.push_str(sign);
            rest = after;
            if !name.is_some_and(is_credential) {
                continue;
            }
            let blank = after.len() - after.trim_start_matches([' ', '"', '\'', '\\']).len();
            let (blank, value) = after.split_at(blank);
            let mut schemes = ["Bearer ", "Basic "].into_iter();
            let value = schemes
                .find_map(|scheme| value.strip_prefix(scheme))
                .unwrap_or(value);
            let (value, after) = value.split_at(value_end(value));
            if !value.is_empty() {
                self.remember(&Value::from(value));
                out.push_str(blank);
                out.push_str(MASKED);
                rest = after;
            }
        }
        out.push_str(rest);
        out
    }

    /// `https://user:password@host/path?query`: without who logs in, and without the query.
    fn addresses(&mut self, line: &str) -> String {
        let mut out = String::with_capacity(line.len());
        let mut rest = line;
        while let Some(at) = rest.find("://") {
            let (head, tail) = rest.split_at(at + 3);
            out.push_str(head);
            let end = tail
                .find(|letter: char| letter.is_whitespace() || "\"'<>,;)".contains(letter))
                .unwrap_or(tail.len());
            let (address, after) = tail.split_at(end);
            let (place, query) = address.split_once('?').unwrap_or((address, ""));
            if let Some((user, place)) = place.rsplit_once('@') {
                let (_, password) = user.split_once(':').unwrap_or(("", user));
                self.remember(&Value::from(password));
                out.push_str(MASKED);
                out.push('@');
                out.push_str(place);
            } else {
                out.push_str(place);
            }
            if !query.is_empty() {
                for pair in query.split('&') {
                    let (_, value) = pair.split_once('=').unwrap_or(("", pair));
                    self.remember(&Value::from(value));
                }
                out.push('?');
                out.push_str(MASKED);
            }
            rest = after;
        }
        out.push_str(rest);
        out
    }

    /// A text without what was masked anywhere.
    pub fn scrub(&self, text: &str) -> String {
        let mut text = text.to_owned();
        // The longest first: one may be part of another.
        let mut known: Vec<&String> = self.known.iter().collect();
        known.sort_by_key(|one| std::cmp::Reverse(one.len()));
        for one in known {
            let escaped = Value::from(one.as_str()).to_string();
            let escaped = escaped.trim_matches('"');
            for form in [one.as_str(), escaped] {
                if text.contains(form) {
                    text = text.replace(form, MASKED);
                }
            }
        }
        text
    }
}

fn is_looked_for(text: &str) -> bool {
    let has_digit = text.bytes().any(|byte| byte.is_ascii_digit());
    text.len() >= LOOKED_FOR_MINIMUM || (has_digit && text.len() >= LOOKED_FOR_MINIMUM_WITH_DIGIT)
}

fn value_end(value: &str) -> usize {
    value
        .find(|letter: char| letter.is_whitespace() || "\"'\\,;&}])".contains(letter))
        .unwrap_or(value.len())
}

fn is_texts(value: &Value) -> bool {
    value
        .as_array()
        .is_some_and(|items| items.iter().all(Value::is_string))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_looks_like_a_credential_is_masked_and_its_place_is_not() {
        let mut mask = Mask::default();
        let mut object = json!({
            "kind": "Pod",
            "metadata": {"managedFields": [1], "annotations": {LAST_APPLIED: "{\"a\":1}", "example.org/api-token": "abcdefgh", "note": "x"}},
            "spec": {"containers": [{"env": [{"name": "DB_PASSWORD", "value": "hunter22"}, {"name": "LEVEL", "value": "info"},
                                             {"name": "TOKEN_FILE", "value": "/run/token"}],
                                     "args": ["--health-check-credentials-secret=checks", "--token=abc123", "--credentials-directory=/etc/x"]}],
                     "credentialsName": "db",
                     "healthChecks": [{"http": {"path": "/", "headers": [{"name": "X-Key", "value": "k-1234567"}]}, "udp": {"payload": "PING"}}],
                     "url": "https://me:pw@example.org/a?k=v"},
        });
        mask.object(&mut object);
        assert_eq!(
            object,
            json!({
                "kind": "Pod",
                "metadata": {"annotations": {LAST_APPLIED: MASKED, "example.org/api-token": MASKED, "note": "x"}},
                "spec": {"containers": [{"env": [{"name": "DB_PASSWORD", "value": MASKED}, {"name": "LEVEL", "value": "info"},
                                                 {"name": "TOKEN_FILE", "value": "/run/token"}],
                                         "args": ["--health-check-credentials-secret=(masked)", "--token=(masked)", "--credentials-directory=/etc/x"]}],
                         "credentialsName": "db",
                         "healthChecks": [{"http": {"path": "/", "headers": [{"name": "X-Key", "value": MASKED}]}, "udp": {"payload": MASKED}}],
                         "url": "https://(masked)@example.org/a?(masked)"},
            })
        );
        assert_eq!(
            mask.scrub("sent k-1234567 with hunter22"),
            "sent (masked) with (masked)"
        );
    }

    #[test]
    fn texts_lose_what_is_assigned_to_a_credential() {
        let mut mask = Mask::default();
        for (text, masked) in [
            ("password=hunter22 user=me", "password=(masked) user=me"),
            ("Authorization: Bearer abc.def", "Authorization: (masked)"),
            (
                r#"{"token":"abcdef","a":1}"#,
                r#"{"token":"(masked)","a":1}"#,
            ),
            ("at 12:30:01 a: b", "at 12:30:01 a: b"),
            (
                "GET http://u:p@h/x?y ok",
                "GET http://(masked)@h/x?(masked) ok",
            ),
            (
                "x\n-----BEGIN RSA PRIVATE KEY-----\nMIIabc\n-----END RSA PRIVATE KEY-----\ny",
                "x\n(masked)\ny",
            ),
        ] {
            assert_eq!(mask.text(text), masked);
        }
    }

    #[test]
    fn a_secret_leaves_nothing() {
        let mut mask = Mask::default();
        let mut list = json!({"kind": "List", "items": [{"kind": "Secret", "metadata": {"name": "checks"},
                              "data": {"key": "c2VjcmV0LXZhbHVl"}}]});
        mask.object(&mut list);
        assert_eq!(list, json!({"kind": "List", "items": [MASKED]}));
        assert_eq!(mask.scrub("c2VjcmV0LXZhbHVl"), MASKED);
    }
}
