//! Certificate authorities of ConfigMaps, for checks to trust.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that unwraps says what it expects"
)]

mod support;

use lvs_crds::condition::{ConditionType, Reason};
use lvs_crds::node_plan::DirectorPlan;
use lvs_plan::Resolution;
use lvs_plan::input::ObjectKey;
use lvs_plan::report::Truth;
use serde_json::{Value, json};
use support::Cluster;
use support::four_nodes::{cluster, expect_bad, of_service, on_node, service};

fn bundle(name: &str, content: &str) -> Value {
    let text = format!("-----BEGIN CERTIFICATE-----\n{content}\n-----END CERTIFICATE-----\n");
    json!({"kind": "ConfigMap", "metadata": {"name": name}, "data": {"ca.crt": text}})
}

/// A check by HTTPS of this path that trusts this ConfigMap.
fn check(path: &str, config_map_name: &str) -> Value {
    json!({"name": "page", "type": "HTTPS", "http": {"path": path}, "tls": {"caConfigMapName": config_map_name}})
}

fn apply(cluster: &mut Cluster, checks: &[Value]) -> Resolution {
    cluster.apply(service("web", json!({"healthChecks": checks})));
    cluster.apply(on_node("c", "c", json!({})));
    cluster.settle()
}

fn director(cluster: &Cluster) -> DirectorPlan {
    cluster.plan("a", "web").unwrap().director.unwrap()
}

/// Name and first line of each bundle, and path and ConfigMap of the first check.
fn planned(cluster: &Cluster) -> (Vec<String>, String) {
    let director = director(cluster);
    let authorities = director.certificate_authorities.iter().map(|known| {
        let line = known.certificates.lines().nth(1).unwrap();
        format!("{}: {line}", known.config_map_name)
    });
    let check = &director.checks[0];
    let tls = check.tls.clone().unwrap();
    let path = &check.http.as_ref().unwrap().path;
    let check = format!("{path} {}", tls.ca_config_map_name.unwrap_or_default());
    (authorities.collect(), check)
}

fn is_resolved(resolution: &Resolution) -> bool {
    of_service(resolution, "web", ConditionType::ResolvedRefs).truth == Truth::True
}

fn is_missing(resolution: &Resolution, words: &[&str]) {
    expect_bad(
        &of_service(resolution, "web", ConditionType::ResolvedRefs),
        Reason::CertificateAuthoritiesNotFound,
        words,
    );
}

#[test]
fn authorities_are_copied_into_the_plan_and_follow_edits() {
    let mut cluster = cluster();
    cluster.apply(bundle("ca", "MIIA"));
    cluster.apply(bundle("not-named", "MIIX"));
    let resolution = apply(&mut cluster, &[check("/", "ca")]);
    assert!(is_resolved(&resolution));
    assert_eq!(planned(&cluster), (vec!["ca: MIIA".into()], "/ ca".into()));
    cluster.apply(bundle("ca", "MIIB"));
    assert!(is_resolved(&cluster.settle()));
    assert_eq!(planned(&cluster), (vec!["ca: MIIB".into()], "/ ca".into()));
    // Once, however many checks name it.
    let mut other = check("/other", "ca");
    other["name"] = json!("other");
    apply(&mut cluster, &[check("/", "ca"), other]);
    assert_eq!(director(&cluster).certificate_authorities.len(), 1);
    apply(&mut cluster, &[json!({"name": "page", "type": "HTTPS"})]);
    assert_eq!(director(&cluster).certificate_authorities, []);
}

#[test]
fn while_a_config_map_is_missing_or_wrong_the_check_stays_as_it_was() {
    let mut cluster = cluster();
    cluster.apply(bundle("ca", "MIIA"));
    apply(&mut cluster, &[check("/", "ca")]);
    let before = planned(&cluster);
    cluster.apply(bundle("ca", "damaged"));
    let words = [
        "spec.healthChecks[page].tls.caConfigMapName: ConfigMap default/ca has a certificate in ca.crt that is none in PEM",
        "until then the check stays as it was",
    ];
    is_missing(&cluster.settle(), &words);
    assert_eq!(planned(&cluster), before, "the content was replaced");
    let key = ObjectKey::new("default", "ca");
    cluster.inputs.ca_bundles.remove(&key);
    let words =
        ["ConfigMap default/ca does not exist or has no label lvs.dev/ca-bundle: create it"];
    is_missing(&cluster.settle(), &words);
    assert_eq!(planned(&cluster), before, "it was deleted");
    // What else of the check is edited counts, as its authorities are known.
    is_missing(&apply(&mut cluster, &[check("/other", "ca")]), &words);
    assert_eq!(
        planned(&cluster),
        (vec!["ca: MIIA".into()], "/other ca".into())
    );
    // One that was never there changes nothing of the check.
    is_missing(&apply(&mut cluster, &[check("/third", "absent")]), &[]);
    assert_eq!(
        planned(&cluster),
        (vec!["ca: MIIA".into()], "/other ca".into())
    );
    cluster.apply(bundle("absent", "MIIC"));
    assert!(is_resolved(&cluster.settle()));
    assert_eq!(
        planned(&cluster),
        (vec!["absent: MIIC".into()], "/third absent".into())
    );
}

#[test]
fn a_new_check_without_its_authorities_is_planned_without_them() {
    let mut cluster = cluster();
    let mut elsewhere = bundle("ca", "MIIA");
    elsewhere["metadata"]["namespace"] = json!("bank");
    cluster.apply(elsewhere);
    let resolution = apply(&mut cluster, &[check("/", "ca")]);
    is_missing(&resolution, &["ConfigMap default/ca"]);
    assert_eq!(planned(&cluster), (vec![], "/ ca".into()));
}
