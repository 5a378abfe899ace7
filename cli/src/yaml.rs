//! Objects as YAML, with keys in the order in which people write them.

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::Value;

/// Keys that come first, in this order; others follow by name.
const FIRST: &[&str] = &[
    "apiVersion",
    "kind",
    "metadata",
    "spec",
    "name",
    "namespace",
    "labels",
    "type",
    "virtualRouterName",
    "target",
    "directors",
    "nodeName",
    "interfaces",
    "interfaceName",
    "addresses",
    "address",
    "protocol",
    "port",
    "ports",
    "grouping",
    "firewallMark",
    "forwarding",
    "scheduler",
    "persistence",
    "realServerSelector",
    "periodSeconds",
    "retryPeriodSeconds",
    "timeoutSeconds",
    "failureThreshold",
    "path",
    "additionalAddresses",
    "addressPools",
    "grants",
    "namespaces",
    "from",
    "healthChecks",
];

struct Ordered<'a>(&'a Value);

impl Serialize for Ordered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Object(object) => {
                let rank = |key: &str| {
                    FIRST
                        .iter()
                        .position(|first| *first == key)
                        .unwrap_or(FIRST.len())
                };
                let mut keys: Vec<(&String, &Value)> = object.iter().collect();
                keys.sort_by_key(|(key, _)| (rank(key), *key));
                let mut map = serializer.serialize_map(Some(keys.len()))?;
                for (key, value) in keys {
                    map.serialize_entry(key, &Ordered(value))?;
                }
                map.end()
            }
            Value::Array(items) => {
                let mut sequence = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    sequence.serialize_element(&Ordered(item))?;
                }
                sequence.end()
            }
            other => other.serialize(serializer),
        }
    }
}

/// Documents of a YAML stream.
pub fn stream(objects: &[Value]) -> Result<String, serde_saphyr::ser::Error> {
    let mut text = String::new();
    for (index, object) in objects.iter().enumerate() {
        if index > 0 {
            text.push_str("---\n");
        }
        text.push_str(&serde_saphyr::to_string(&Ordered(object))?);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_stay_texts_for_every_reader_of_yaml() {
        let texts = [
            "12e3", "00e1", "1e3", "yes", "on", "n", "0x10", "1_000", "null", "~", "1:30", "0o7",
            ".5", "+1", "01", "2001", "::1", "a: b", "#a", "- a", "", " a", "a ", "\"a\"", "é",
            "%41", "=", "<<", "!a", "&a", "*a", "@a", "`a",
        ];
        let text = stream(&[serde_json::json!(texts.as_slice())]).unwrap();
        let read: Vec<String> = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(read, texts);
    }
}
