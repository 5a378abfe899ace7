//! What `kubectl lvs check` makes of what it has seen: one deviation from a cluster that is as it should be, one finding.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use kubectl_lvs::preflight::{Finding, KubeProxy, Level, Seen, SeenAgent, judge, text};
use lvs_core::facts::NodeFacts;
use serde_json::{Value, json};

fn node(name: &str, kernel: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {}}, "status": {"nodeInfo": {"kernelVersion": kernel, "operatingSystem": "linux"}}})
}

fn facts() -> NodeFacts {
    NodeFacts {
        agent_version: "0.1.0".to_owned(),
        kernel_release: "6.1.0".to_owned(),
        modules: ["ip_vs", "nf_tables"].map(str::to_owned).into(),
        sysctls: BTreeMap::from([
            ("net/ipv4/ip_forward".to_owned(), "1".to_owned()),
            ("net/ipv4/conf/all/rp_filter".to_owned(), "0".to_owned()),
        ]),
        devices: ["lo", "eth0"].map(str::to_owned).into(),
        problems: Vec::new(),
    }
}

fn agent(node_name: &str) -> SeenAgent {
    SeenAgent {
        node_name: node_name.to_owned(),
        is_ready: true,
        facts: Ok(facts()),
    }
}

fn router(directors: &[&str]) -> Value {
    let directors: Vec<Value> = directors
        .iter()
        .map(|name| json!({"nodeName": name}))
        .collect();
    json!({"metadata": {"name": "edge"},
           "spec": {"directors": directors, "addressPools": [{"name": "public", "addresses": ["192.0.2.96/28", "198.51.100.7"]}]}})
}

/// A cluster of which nothing is to be said.
fn sound() -> Seen {
    let kinds = [
        "virtualservices",
        "realservers",
        "virtualrouters",
        "nodeplans",
    ];
    Seen {
        server_version: Ok("v1.33.1".to_owned()),
        nodes: Ok(vec![node("lb-a", "6.1.0-40-amd64"), node("lb-b", "5.18.0")]),
        operator_namespace: "lvs-system".to_owned(),
        namespace: Ok(Some(
            json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}}),
        )),
        kube_proxy: Ok(Some(KubeProxy {
            mode: "nftables".to_owned(),
            ..KubeProxy::default()
        })),
        cluster_services: Ok(Vec::new()),
        cilium: Ok(None),
        calico_pools: Ok(Vec::new()),
        felix: Ok(Vec::new()),
        definitions: Ok(kinds.map(|kind| format!("{kind}.lvs.dev")).into()),
        routers: Ok(vec![router(&["lb-a", "lb-b"])]),
        services: Ok(Vec::new()),
        agents: Ok(vec![agent("lb-a"), agent("lb-b")]),
    }
}

/// What is not as it should be.
fn remarks(seen: &Seen) -> Vec<Finding> {
    let findings = judge(seen).into_iter();
    findings
        .filter(|finding| finding.level != Level::Ok)
        .collect()
}

#[test]
fn of_a_sound_cluster_nothing_is_said() {
    assert_eq!(remarks(&sound()), []);
    assert!(text(&judge(&sound()), false).starts_with("0 problems, 0 warnings, 0 notes; "));
}

type Deviation = fn(&mut Seen);

fn ipvs(exclude_cidrs: &[&str], strict_arp: bool) -> KubeProxy {
    KubeProxy {
        mode: "ipvs".to_owned(),
        strict_arp,
        is_tcp_liberal: false,
        exclude_cidrs: exclude_cidrs
            .iter()
            .map(|text| (*text).to_owned())
            .collect(),
    }
}

fn cilium(key: &str, value: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(key.to_owned(), value.to_owned())])
}

#[test]
fn every_deviation_is_told_with_its_cure() {
    let table: &[(&str, Level, &str, Deviation)] = &[
        (
            "old Kubernetes",
            Level::Problem,
            "version v1.31.9",
            |seen| {
                seen.server_version = Ok("v1.31.9+k3s1".to_owned());
            },
        ),
        (
            "no answer",
            Level::Warning,
            "cannot be looked at: forbidden",
            |seen| {
                seen.server_version = Err("forbidden".to_owned());
            },
        ),
        (
            "level baseline",
            Level::Problem,
            "enforces baseline",
            |seen| {
                seen.namespace = Ok(Some(
                    json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}}),
                ));
            },
        ),
        (
            "no label",
            Level::Note,
            "has no label of Pod Security",
            |seen| {
                seen.namespace = Ok(Some(json!({"metadata": {}})));
            },
        ),
        ("no namespace", Level::Note, "does not exist yet", |seen| {
            seen.namespace = Ok(None);
        }),
        (
            "kube-proxy ipvs",
            Level::Problem,
            "not excluded: 198.51.100.7",
            |seen| {
                seen.kube_proxy = Ok(Some(ipvs(&["192.0.2.0/24"], true)));
            },
        ),
        (
            "kube-proxy ipvs, excluded",
            Level::Warning,
            "the addresses of the pools are excluded",
            |seen| {
                seen.kube_proxy = Ok(Some(ipvs(&["192.0.2.0/24", "198.51.100.0/24"], true)));
            },
        ),
        (
            "kube-proxy ipvs before there are pools",
            Level::Problem,
            "nothing is excluded",
            |seen| {
                seen.kube_proxy = Ok(Some(ipvs(&[], true)));
                seen.routers = Ok(Vec::new());
            },
        ),
        ("no kube-proxy", Level::Note, "has no ConfigMap", |seen| {
            seen.kube_proxy = Ok(None);
        }),
        (
            "Cilium for kube-proxy",
            Level::Warning,
            "takes the place of kube-proxy",
            |seen| {
                seen.cilium = Ok(Some(cilium("kube-proxy-replacement", "true")));
            },
        ),
        ("Cilium L2", Level::Warning, "announces addresses", |seen| {
            seen.cilium = Ok(Some(cilium("enable-l2-announcements", "true")));
        }),
        (
            "Cilium host routing",
            Level::Warning,
            "past the host's stack",
            |seen| {
                seen.cilium = Ok(Some(cilium("enable-host-legacy-routing", "false")));
            },
        ),
        (
            "Calico IPIP",
            Level::Note,
            "IPIP (IPPool default)",
            |seen| {
                seen.calico_pools = Ok(vec![
                    json!({"metadata": {"name": "default"}, "spec": {"ipipMode": "Always"}}),
                ]);
            },
        ),
        ("Calico BPF", Level::Warning, "in BPF", |seen| {
            seen.felix = Ok(vec![json!({"spec": {"bpfEnabled": true}})]);
        }),
        (
            "Istio",
            Level::Note,
            "virtualservices.networking.istio.io has the same",
            |seen| {
                if let Ok(names) = &mut seen.definitions {
                    names.push("virtualservices.networking.istio.io".to_owned());
                }
            },
        ),
        ("not installed", Level::Note, "none of lvs.dev", |seen| {
            seen.definitions = Ok(Vec::new());
        }),
        (
            "half installed",
            Level::Problem,
            "realservers of lvs.dev are missing",
            |seen| {
                if let Ok(names) = &mut seen.definitions {
                    names.retain(|name| !name.starts_with("realservers"));
                }
            },
        ),
        (
            "a director that is no node",
            Level::Problem,
            "lb-z is no node",
            |seen| {
                seen.routers = Ok(vec![router(&["lb-a", "lb-z"])]);
            },
        ),
        (
            "a director without agent",
            Level::Problem,
            "director lb-b has no agent",
            |seen| {
                seen.agents = Ok(vec![agent("lb-a")]);
            },
        ),
        (
            "an agent that is not ready",
            Level::Warning,
            "of director lb-a is not ready",
            |seen| {
                if let Ok(agents) = &mut seen.agents {
                    agents[0].is_ready = false;
                }
            },
        ),
        (
            "an excluded node",
            Level::Note,
            "lb-a have the label",
            |seen| {
                if let Ok(nodes) = &mut seen.nodes {
                    nodes[0]["metadata"]["labels"] =
                        json!({"node.kubernetes.io/exclude-from-external-load-balancers": ""});
                }
            },
        ),
        (
            "an old kernel",
            Level::Problem,
            "kernel 4.15.0-20-generic",
            |seen| {
                seen.nodes = Ok(vec![
                    node("lb-a", "4.15.0-20-generic"),
                    node("lb-b", "6.1.0"),
                ]);
            },
        ),
        (
            "a kernel without GRE in IPVS",
            Level::Warning,
            "kernel 4.18.0",
            |seen| {
                seen.nodes = Ok(vec![node("lb-a", "4.18.0"), node("lb-b", "6.1.0")]);
            },
        ),
        (
            "a kernel without owners of addresses",
            Level::Note,
            "kernel 5.15.0",
            |seen| {
                seen.nodes = Ok(vec![node("lb-a", "5.15.0"), node("lb-b", "6.1.0")]);
            },
        ),
        (
            "kube-ipvs0",
            Level::Problem,
            "has the device kube-ipvs0",
            |seen| {
                of_first_agent(seen, |facts| {
                    facts.devices.insert("kube-ipvs0".to_owned());
                });
            },
        ),
        (
            "strict reverse path filter",
            Level::Warning,
            "rp_filter is 1",
            |seen| {
                of_first_agent(seen, |facts| {
                    facts
                        .sysctls
                        .insert("net/ipv4/conf/all/rp_filter".to_owned(), "1".to_owned());
                });
            },
        ),
        ("IPv6 disabled", Level::Note, "IPv6 is disabled", |seen| {
            of_first_agent(seen, |facts| {
                facts
                    .sysctls
                    .insert("net/ipv6/conf/all/disable_ipv6".to_owned(), "1".to_owned());
            });
        }),
        (
            "a module that is needed",
            Level::Warning,
            "module nf_tables is not loaded",
            |seen| {
                seen.services = Ok(vec![json!({"spec": {"forwarding": {"type": "FullNAT"}}})]);
                of_first_agent(seen, |facts| {
                    facts.modules.remove("nf_tables");
                });
            },
        ),
        (
            "an agent that cannot be asked",
            Level::Note,
            "could not be asked: no exec",
            |seen| {
                if let Ok(agents) = &mut seen.agents {
                    agents[0].facts = Err("no exec".to_owned());
                }
            },
        ),
    ];
    for (name, level, what, deviate) in table {
        let mut seen = sound();
        deviate(&mut seen);
        let remarks = remarks(&seen);
        let [found] = remarks.as_slice() else {
            panic!("{name}: {remarks:#?}");
        };
        assert_eq!(found.level, *level, "{name}: {found:?}");
        assert!(found.what.contains(what), "{name}: {found:?}");
        assert!(
            !found.why.is_empty() && !found.cure.is_empty(),
            "{name}: {found:?}"
        );
    }
}

fn of_first_agent(seen: &mut Seen, change: impl Fn(&mut NodeFacts)) {
    if let Ok(agents) = &mut seen.agents
        && let Ok(facts) = &mut agents[0].facts
    {
        change(facts);
    }
}

#[test]
fn ipip_of_calico_is_a_warning_where_it_is_used() {
    let mut seen = sound();
    seen.calico_pools = Ok(vec![
        json!({"metadata": {"name": "default"}, "spec": {"ipipMode": "CrossSubnet"}}),
    ]);
    seen.services = Ok(vec![json!({"spec": {"forwarding": {"type": "TUN"}}})]);
    let levels: Vec<Level> = remarks(&seen).iter().map(|finding| finding.level).collect();
    // The second: ipip is not among the modules of either node.
    assert_eq!(levels, [Level::Warning; 3]);
}

#[test]
fn an_external_address_of_a_service_out_of_a_pool_is_told() {
    let of = |service: Value| {
        let mut seen = sound();
        seen.services = Ok(vec![
            json!({"spec": {}, "status": {"addresses": [{"address": "192.0.2.97"}]}}),
            json!({"spec": {"addresses": ["192.0.2.98"]}}),
        ]);
        seen.cluster_services = Ok(vec![service]);
        remarks(&seen)
    };
    let service = |external: &str| json!({"metadata": {"namespace": "shop", "name": "front"}, "spec": {"externalIPs": [external]}});
    let balanced = |mode: Option<&str>| {
        let ingress = json!({"ip": "192.0.2.97", "ipMode": mode});
        json!({"metadata": {"namespace": "shop", "name": "front"}, "status": {"loadBalancer": {"ingress": [ingress]}}})
    };
    for taken in [
        service("192.0.2.97"),
        service("192.0.2.98"),
        balanced(None),
        balanced(Some("VIP")),
    ] {
        let told = of(taken);
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(
            (told[0].level, told[0].subject.as_str()),
            (Level::Problem, "Service shop/front")
        );
    }
    let told = of(service("192.0.2.99"));
    assert_eq!(told[0].level, Level::Warning);
    assert!(
        told[0]
            .what
            .ends_with("lie in pools of VirtualRouters: 192.0.2.99"),
        "{told:?}"
    );
    for untaken in [
        service("203.0.113.1"),
        balanced(Some("Proxy")),
        json!({"spec": {"type": "ClusterIP"}}),
    ] {
        assert_eq!(of(untaken), []);
    }
}

#[test]
fn strict_arp_counts_in_mode_ipvs_only() {
    let mut seen = sound();
    seen.kube_proxy = Ok(Some(ipvs(&["0.0.0.0/0"], false)));
    let told = remarks(&seen);
    assert!(
        told.iter()
            .any(|finding| finding.what.contains("strictARP is false")),
        "{told:?}"
    );
    seen.kube_proxy = Ok(Some(KubeProxy {
        mode: "nftables".to_owned(),
        ..KubeProxy::default()
    }));
    assert_eq!(remarks(&seen), []);
}

#[test]
fn mode_iptables_without_liberal_conntrack_is_a_problem_of_nat_over_connections() {
    let service = |forwarding: &str, protocol: Value| {
        json!({"metadata": {"namespace": "shop", "name": "web"},
        "spec": {"forwarding": {"type": forwarding}, "ports": [{"port": 80, "protocol": protocol}]}})
    };
    let with = |services: Vec<Value>, change: Deviation| {
        let mut seen = sound();
        seen.kube_proxy = Ok(Some(KubeProxy::default()));
        seen.services = Ok(services);
        change(&mut seen);
        let told = remarks(&seen);
        assert!(told.len() <= 1, "{told:?}");
        told.into_iter().next()
    };
    let nothing: Deviation = |_| {};
    for protocol in [Value::Null, json!("TCP"), json!("SCTP")] {
        let told = with(vec![service("NAT", protocol)], nothing).expect("a problem");
        assert_eq!(told.level, Level::Problem);
        assert!(told.what.ends_with("have NAT: shop/web"), "{told:?}");
        assert!(told.cure.contains("tcpBeLiberal"), "{told:?}");
    }
    // Before anybody chose a way of forwarding it is good to know.
    assert_eq!(
        with(Vec::new(), nothing).expect("a note").level,
        Level::Note
    );
    // Conntrack takes the first packet of UDP for a connection, wherever it goes; DR has no answers here.
    for (forwarding, protocol) in [("NAT", "UDP"), ("DR", "TCP")] {
        assert_eq!(
            with(vec![service(forwarding, json!(protocol))], nothing),
            None
        );
    }
    let many = (0..5).map(|_| service("NAT", Value::Null)).collect();
    let told = with(many, nothing).expect("a problem");
    assert!(told.what.ends_with("shop/web and 2 more"), "{told:?}");
    // Cures. A node that is no director does not count.
    let nat = || vec![service("NAT", Value::Null)];
    assert_eq!(
        with(nat(), |seen| {
            seen.kube_proxy =
                KubeProxy::read("mode: iptables\nconntrack: {tcpBeLiberal: true}").map(Some);
        }),
        None
    );
    let kept: Deviation = |seen| {
        let agents = seen.agents.as_mut().expect("agents");
        for agent in agents.iter_mut() {
            let facts = agent.facts.as_mut().expect("facts");
            facts
                .sysctls
                .insert("net/ipv4/vs/conntrack".into(), "1".into());
        }
        agents.push(agent("web-1"));
    };
    assert_eq!(with(nat(), kept), None);
    let one_without: Deviation = |seen| {
        let agents = seen.agents.as_mut().expect("agents");
        let facts = agents[0].facts.as_mut().expect("facts");
        facts
            .sysctls
            .insert("net/ipv4/vs/conntrack".into(), "1".into());
    };
    assert!(with(nat(), one_without).is_some());
}

#[test]
fn the_configuration_of_kube_proxy_is_read() {
    let text = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: ipvs\nipvs:\n  strictARP: true\n  excludeCIDRs:\n  - 192.0.2.0/24\n";
    assert_eq!(KubeProxy::read(text), Ok(ipvs(&["192.0.2.0/24"], true)));
    assert_eq!(
        KubeProxy::read("mode: \"\"\nipvs:\n  excludeCIDRs: null\n"),
        Ok(KubeProxy::default())
    );
    assert!(KubeProxy::read("\t:").is_err());
}

#[test]
fn what_is_the_same_of_several_nodes_is_said_once() {
    let mut seen = sound();
    let nodes = (1..=12).map(|number| node(&format!("n-{number:02}"), "5.15.0"));
    seen.nodes = Ok(nodes.collect());
    seen.routers = Ok(Vec::new());
    let shown = text(&judge(&seen), false);
    assert!(
        shown.starts_with("NOTE     node n-01, node n-02, "),
        "{shown}"
    );
    assert!(
        shown.contains(", node n-08 and 4 more: kernel 5.15.0\n"),
        "{shown}"
    );
    assert!(
        shown.contains("0 problems, 0 warnings, 12 notes;"),
        "{shown}"
    );
}

#[test]
fn the_worst_comes_first_and_all_are_counted() {
    let mut seen = sound();
    seen.server_version = Ok("v1.20.0".to_owned());
    seen.kube_proxy = Ok(None);
    let findings = judge(&seen);
    let shown = text(&findings, false);
    let heads: Vec<&str> = shown
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert_eq!(heads[0], "PROBLEM");
    assert!(
        shown.contains("\nNOTE     kube-proxy: has no ConfigMap"),
        "{shown}"
    );
    assert!(!shown.contains("\nOK"), "{shown}");
    assert!(text(&findings, true).contains("\nOK "));
    assert!(
        shown
            .trim_end()
            .lines()
            .last()
            .unwrap()
            .starts_with("1 problems, 0 warnings, 1 notes;")
    );
}
