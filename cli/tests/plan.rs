//! `kubectl lvs plan` of whole clusters, compared with what is in tests/plans: `cluster.yaml` with `applied.yaml` over it, or
//! without what is in `deleted.yaml`, gives `plan.txt` and `plan.yaml`. `LVS_WRITE_GOLDENS=1` writes them anew.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};

use kubectl_lvs::plan::{Cluster, Difference, Fate, Kind, apply, compare, delete, key, text};
use lvs_plan::rehearsal::rehearse;
use proptest::prelude::*;
use serde_json::{Value, json};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plans")
}

fn cases() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder()).unwrap();
    let mut cases: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(!cases.is_empty());
    cases
}

/// Objects of a file, as the API server would give them back: with uid, creation and generation.
fn objects(path: &Path, known: &Cluster) -> Vec<Value> {
    let Ok(text) = std::fs::read_to_string(path) else {
        return Vec::new();
    };
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    let objects = documents.into_iter().enumerate();
    objects
        .map(|(index, mut object)| {
            let name = key(&object);
            let kind = object["kind"].as_str().unwrap().to_owned();
            let stored = Kind::of(&object).and_then(|kind| known.get(kind, &name));
            let metadata = object["metadata"].as_object_mut().unwrap();
            if let Some(stored) = stored {
                for field in ["uid", "creationTimestamp"] {
                    metadata.insert(field.to_owned(), stored["metadata"][field].clone());
                }
                metadata.insert("generation".to_owned(), json!(2));
            } else {
                let minute = if known.of(Kind::Node).next().is_none() {
                    0
                } else {
                    30
                };
                metadata.insert("uid".to_owned(), json!(format!("{kind} {name}")));
                metadata.insert(
                    "creationTimestamp".to_owned(),
                    json!(format!("2026-01-01T00:{minute:02}:{index:02}Z")),
                );
                metadata.insert("generation".to_owned(), json!(1));
            }
            object
        })
        .collect()
}

fn cluster(case: &Path) -> Cluster {
    let mut cluster = Cluster::default();
    for object in objects(&case.join("cluster.yaml"), &cluster.clone()) {
        assert!(Kind::of(&object).is_some(), "{object}");
        cluster.put(object);
    }
    cluster
}

fn planned(case: &Path) -> Difference {
    let now = cluster(case);
    let mut then = now.clone();
    let mut changes = apply(&mut then, objects(&case.join("applied.yaml"), &now));
    let deleted = objects(&case.join("deleted.yaml"), &now);
    changes.extend(delete(&mut then, &deleted));
    let mut difference = compare(&now, &then).unwrap();
    difference.objects = changes;
    difference
}

#[test]
fn every_case() {
    let mut wrong = Vec::new();
    for case in cases() {
        let difference = planned(&case);
        assert!(!difference.is_empty(), "{}", case.display());
        for (file, text) in [
            ("plan.txt", text(&difference, true)),
            ("plan.yaml", serde_saphyr::to_string(&difference).unwrap()),
        ] {
            let path = case.join(file);
            if std::env::var_os("LVS_WRITE_GOLDENS").is_some() {
                std::fs::write(&path, &text).unwrap();
            }
            let stored = std::fs::read_to_string(&path).unwrap_or_default();
            if stored != text {
                wrong.push(format!("{} differs; it would be:\n{text}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_there_already_changes_nothing() {
    for case in cases() {
        let now = cluster(&case);
        let mut then = now.clone();
        let there = objects(&case.join("cluster.yaml"), &now);
        let changes = apply(&mut then, there);
        assert!(
            changes
                .iter()
                .all(|change| change.change == Fate::Unchanged),
            "{changes:?}"
        );
        let difference = compare(&now, &then).unwrap();
        assert!(difference.is_empty(), "{}", text(&difference, true));
        let told = text(&difference, true);
        assert!(told.starts_with("Nothing would change.\n"), "{told}");
        // Nobody has planned for it yet, which is told.
        let on_their_way = told.contains(" NodePlans are not yet what");
        assert!(on_their_way, "{told}");
    }
}

/// The plans that a cluster comes to, as the API server stores them, with what an agent reports of one real server.
fn with_plans(now: &Cluster, down: &str) -> Cluster {
    let mut cluster = now.clone();
    let rested = rehearse(now.inputs().unwrap());
    assert!(rested.is_settled);
    for (name, plan) in &rested.inputs.node_plans {
        let spec = plan.object.spec().unwrap();
        cluster.put(json!({
            "apiVersion": "lvs.dev/v1alpha1", "kind": "NodePlan",
            "metadata": {"name": name, "namespace": "lvs-system", "uid": name, "generation": 1, "resourceVersion": "7",
                         "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": spec.node_name,
                                              "uid": plan.owner_uid}]},
            "spec": spec,
            "status": {"observedGeneration": 1, "conditions": plan.object.status.as_ref().unwrap().conditions,
                       "realServers": [{"name": "x", "address": down, "port": 80, "state": "Down", "effectiveWeight": 0,
                                        "message": "no answer"}]},
        }));
    }
    for (name, lease) in &rested.inputs.leases {
        cluster.put(json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": name, "namespace": "lvs-system", "uid": name,
                         "labels": {"lvs.dev/virtual-router": lease.virtual_router_name},
                         "annotations": {"lvs.dev/directors": lease.directors}},
            "spec": {"holderIdentity": "lb-b/1", "leaseTransitions": 1},
        }));
    }
    cluster
}

#[test]
fn real_servers_that_are_down_now_serve_nobody_before_and_after() {
    let case = folder().join("a-real-server-leaves");
    let bare = cluster(&case);
    let now = with_plans(&bare, "192.0.2.22");
    let same = compare(&now, &now).unwrap();
    assert_eq!(text(&same, true), "Nothing would change.\n");
    let mut then = now.clone();
    delete(&mut then, &objects(&case.join("deleted.yaml"), &now));
    let difference = compare(&now, &then).unwrap();
    let [change] = difference.clients.as_slice() else {
        panic!("{:?}", difference.clients);
    };
    // Of weights 1 and 2 the second goes; were web-2 up it would be half.
    let moved = change.moved_percent.unwrap();
    assert!((moved - 200.0 / 3.0).abs() < 0.1, "{moved}");

    // It is taken away: nobody notices, as it served nobody.
    let mut then = now.clone();
    let web_2 = user_objects(&now);
    let web_2 = web_2
        .iter()
        .find(|object| object["metadata"]["name"] == "web-2" && object["kind"] == "RealServer");
    delete(&mut then, &[web_2.unwrap().clone()]);
    let difference = compare(&now, &then).unwrap();
    assert_eq!(difference.clients, []);
    assert_eq!(difference.masters, []);
}

#[test]
fn who_holds_the_addresses_now_is_who_has_the_lease() {
    let case = folder().join("a-director-goes");
    let now = with_plans(&cluster(&case), "192.0.2.22");
    let mut then = now.clone();
    apply(&mut then, objects(&case.join("applied.yaml"), &now));
    let difference = compare(&now, &then).unwrap();
    // lb-b has it, and lb-a, which goes, only stands by.
    assert_eq!(difference.masters, []);
    let of_a = difference
        .nodes
        .iter()
        .find(|node| node.node_name == "lb-a");
    let operations = &of_a.unwrap().operations;
    assert!(
        operations.iter().all(|line| !line.starts_with("addr")),
        "{operations:?}"
    );
}

/// Kinds that users apply, of all cases.
fn user_objects(cluster: &Cluster) -> Vec<Value> {
    let kinds = [
        Kind::VirtualService,
        Kind::RealServer,
        Kind::VirtualRouter,
        Kind::Node,
    ];
    let objects = kinds.into_iter().flat_map(|kind| cluster.of(kind));
    objects.map(|(_, object)| object.clone()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever part of a cluster is there: what is there changes nothing, and taking something away and what is left
    /// once more is the same as taking it away.
    #[test]
    fn only_what_differs_counts(
        case in 0_usize..6,
        dropped in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        weight in 0_u16..5,
    ) {
        let cases = cases();
        let full = cluster(&cases[case % cases.len()]);
        let all = user_objects(&full);
        let mut now = full.clone();
        for index in &dropped {
            now.remove(index.get(&all));
        }
        let mut then = now.clone();
        let changes = apply(&mut then, user_objects(&now));
        prop_assert!(changes.iter().all(|change| change.change == Fate::Unchanged));
        prop_assert!(compare(&now, &then).unwrap().is_empty());

        // Another weight of one real server is told of that one alone, and only where it serves.
        let Some(server) = user_objects(&now).into_iter().find(|object| object["kind"] == "RealServer") else {
            return Ok(());
        };
        let mut changed = server.clone();
        changed["spec"]["weight"] = json!(weight);
        let name = server["metadata"]["name"].as_str().unwrap();
        apply(&mut then, vec![changed]);
        let difference = compare(&now, &then).unwrap();
        for change in &difference.clients {
            for effect in &change.effects {
                prop_assert!(effect.starts_with(name), "{}", effect);
            }
        }
        // And back again.
        let mut back = then.clone();
        back.put(server);
        prop_assert!(compare(&now, &back).unwrap().is_empty());
    }
}
