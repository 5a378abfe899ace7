//! What `kubectl lvs bundle` puts into its archive, and what never.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::io::Read;

use flate2::read::GzDecoder;
use kubectl_lvs::bundle::{Bundle, archive};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Names and texts of all files of an archive.
fn unpacked(bytes: &[u8]) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(GzDecoder::new(bytes));
    let entries = archive.entries().unwrap();
    entries
        .map(|entry| {
            let mut entry = entry.unwrap();
            assert_eq!(entry.header().mode().unwrap(), 0o600);
            let path = entry.path().unwrap().display().to_string();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            (path, text)
        })
        .collect()
}

fn packed(bundle: Bundle) -> BTreeMap<String, String> {
    let files = bundle.files("2026-01-01T00:00:00Z").unwrap();
    let mut bytes = Vec::new();
    archive("lvs-bundle", &files, 1_767_225_600, &mut bytes).unwrap();
    unpacked(&bytes)
}

#[test]
fn the_index_says_what_was_read_and_what_not() {
    let mut bundle = Bundle::default();
    bundle.put_objects(
        "objects/nodeplans.yaml",
        Ok(vec![json!({"kind": "NodePlan"})]),
    );
    bundle.put_objects(
        "objects/nodes.yaml",
        Err("nodes is forbidden\nfor you".to_owned()),
    );
    bundle.put_text("logs/agent.log", Ok("one\ntwo\n".to_owned()));
    let files = packed(bundle);
    let index = &files["lvs-bundle/index.txt"];
    assert!(
        index.contains("read:\n  objects/nodeplans.yaml: 1 objects\n  logs/agent.log: 2 lines\n"),
        "{index}"
    );
    assert!(
        index.contains("not read:\n  objects/nodes.yaml: nodes is forbidden\n    for you\n"),
        "{index}"
    );
    assert_eq!(files["lvs-bundle/logs/agent.log"], "one\ntwo\n");
    assert!(files["lvs-bundle/objects/nodeplans.yaml"].contains("kind: NodePlan"));
    assert_eq!(files.len(), 3);
}

/// Where people put what nobody is to see.
fn places(secret: &str, place: usize) -> Value {
    let applied = json!({"spec": {"healthChecks": [{"http": {"headers": [{"name": "X-Key", "value": secret}]}}]}});
    match place {
        0 => json!({"kind": "Secret", "metadata": {"name": "checks"}, "data": {"key": secret}}),
        1 => json!({"kind": "VirtualService", "metadata": {"annotations": {
            "kubectl.kubernetes.io/last-applied-configuration": applied.to_string()}}}),
        2 => json!({"kind": "VirtualService", "metadata": {}, "spec": applied["spec"]}),
        3 => json!({"kind": "Pod", "metadata": {}, "spec": {"containers": [
            {"env": [{"name": "LVS_API_TOKEN", "value": secret}], "args": ["run"]}]}}),
        4 => {
            json!({"kind": "Pod", "metadata": {}, "spec": {"containers": [{"args": [format!("--password={secret}")]}]}})
        }
        5 => {
            json!({"kind": "VirtualRouter", "metadata": {"annotations": {"example.org/access-key": secret}}})
        }
        6 => json!({"kind": "VirtualRouter", "metadata": {}, "spec": {"tracking": {"endpoints": [
            {"url": format!("https://user:{secret}@example.org/x")}]}}}),
        7 => json!({"kind": "VirtualRouter", "metadata": {}, "spec": {"tracking": {"endpoints": [
            {"url": format!("https://example.org/x?key={secret}")}]}}}),
        8 => {
            json!({"kind": "VirtualService", "metadata": {}, "spec": {"healthChecks": [{"udp": {"payload": secret}}]}})
        }
        _ => {
            json!({"kind": "Event", "metadata": {}, "message": format!("refused: Authorization: Bearer {secret}")})
        }
    }
}

const PLACES: usize = 10;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// No secret text of the inputs appears in the archive, wherever it is, and wherever else it is repeated.
    #[test]
    fn no_secret_is_in_the_archive(
        secrets in prop::collection::btree_set("[A-Za-z0-9+/_.-]{4,12}[0-9][A-Za-z0-9]{3,12}", 1..6),
        chosen in prop::collection::vec(0..PLACES, 6),
        words in prop::collection::vec("[a-z ]{0,8}", 3),
    ) {
        let secrets: Vec<String> = secrets.into_iter().collect();
        let mut bundle = Bundle::default();
        let objects = secrets.iter().zip(&chosen);
        bundle.put_objects("objects/a.yaml", Ok(objects.map(|(secret, place)| places(secret, *place)).collect()));
        let log: Vec<String> = secrets
            .iter()
            .map(|secret| format!("{} sent {secret} to {}", words[0], words[1]))
            .collect();
        bundle.put_text("logs/agent.log", Ok(log.join("\n")));
        bundle.put_text("logs/b.log", Err(format!("no {} for password: {}", words[2], secrets[0])));
        for (path, text) in packed(bundle) {
            for secret in &secrets {
                prop_assert!(!text.contains(secret.as_str()), "{} has {}: {}", path, secret, text);
            }
        }
    }

    /// What is no credential stays as it is.
    #[test]
    fn other_objects_stay(
        names in prop::collection::vec("[a-z]{1,8}", 1..5),
        numbers in prop::collection::vec(any::<u32>(), 5),
    ) {
        let objects: Vec<Value> = names
            .iter()
            .zip(&numbers)
            .map(|(name, number)| json!({"kind": "RealServer", "metadata": {"name": name, "uid": "x-1"},
                "spec": {"weight": number, "target": {"type": "Addresses", "addresses": ["192.0.2.1", "2001:db8::1"]},
                         "credentialsName": name}}))
            .collect();
        let mut bundle = Bundle::default();
        bundle.put_objects("objects/a.yaml", Ok(objects.clone()));
        let files = packed(bundle);
        let list: Value = serde_saphyr::from_str(&files["lvs-bundle/objects/a.yaml"]).unwrap();
        prop_assert_eq!(list["items"].as_array().unwrap(), &objects);
    }
}
