//! The node's network in a private network namespace of this very kernel. Needs root; the programs `ip` and `nft`
//! are the witnesses, as the kernel should be read by someone else than us.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use lvs_agent::kernel::{Host, HostKernel, KernelError};
use lvs_core::host::{
    AddressKey, DefaultRoute, LinkKind, MarkRule, PacketRules, PolicyRule, RealServerPorts,
    SourceNatRule, SysctlKey,
};
use lvs_core::op::HostOp;
use lvs_crds::condition::Reason;
use lvs_crds::node_plan::MarkMatch;
use lvs_crds::value::Protocol;

fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program)
        .args(arguments.split_whitespace())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a test in a thread with a network namespace of its own.
fn in_namespace(test: impl FnOnce(Host) + Send + 'static) {
    let outcome = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
            .expect("a private network namespace needs root");
        run("ip", "link set lo up");
        run("ip", "link add eth0 type veth peer name far0");
        run("ip", "addr add 192.0.2.2/24 dev eth0");
        run("ip", "addr add 2001:db8::2/64 dev eth0 nodad");
        run("ip", "link set eth0 up");
        run("ip", "link set far0 up");
        test(Host {
            sysctl_directory: PathBuf::from("/proc/sys"),
            timeout: Duration::from_secs(5),
        });
    })
    .join();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

fn marks(marks: &[MarkRule]) -> PacketRules {
    PacketRules {
        marks: marks.to_vec(),
        source_nat: Vec::new(),
    }
}

fn mark(address: &str, protocol: Protocol, port: u16, end_port: u16, mark: u32) -> MarkRule {
    MarkRule {
        packets: MarkMatch {
            address: address.parse().unwrap(),
            protocol,
            port,
            end_port,
        },
        mark,
    }
}

#[test]
fn devices_and_addresses_are_seen_as_ip_sees_them() {
    in_namespace(|mut host| {
        run(
            "ip",
            "addr add 192.0.2.250/32 dev eth0 valid_lft 100 preferred_lft 100 noprefixroute",
        );
        let observed = host.observe().unwrap();
        let eth0 = &observed.links["eth0"];
        assert!(eth0.up && !eth0.loopback && eth0.kind.is_none());
        assert_eq!(eth0.hardware_address.len(), 6);
        assert!(observed.links["lo"].loopback);
        let (_, attributes) = observed
            .addresses
            .iter()
            .find(|(key, _)| key.address.to_string() == "192.0.2.250")
            .unwrap();
        assert!(matches!(attributes.valid_seconds, Some(1..=100)));
        assert!(attributes.global);
        let (key, attributes) = observed
            .addresses
            .iter()
            .find(|(key, _)| key.address.to_string() == "2001:db8::2")
            .unwrap();
        assert_eq!((key.device.as_str(), key.prefix_length), ("eth0", 64));
        assert_eq!(attributes.valid_seconds, None);
        assert_eq!(
            observed.connected_device("192.0.2.77".parse().unwrap()),
            Some("eth0")
        );
        assert!(observed.ipv6);
        assert_eq!(observed.packet_rules, None);
    });
}

#[test]
fn an_address_of_ours_is_permanent_silent_and_never_a_source() {
    in_namespace(|mut host| {
        for (text, prefix_length) in [("198.51.100.7", 32), ("2001:db8:1::7", 128)] {
            let key = AddressKey {
                device: "eth0".into(),
                address: text.parse().unwrap(),
                prefix_length,
            };
            host.apply(&HostOp::AddAddress(key.clone())).unwrap();
            let shown = run("ip", &format!("-d addr show dev eth0 to {text}"));
            assert!(
                shown.contains("noprefixroute") && shown.contains("valid_lft forever"),
                "{shown}"
            );
            if prefix_length == 32 {
                assert!(shown.contains("scope link"), "{shown}");
            } else {
                assert!(
                    shown.contains("deprecated") && shown.contains("nodad"),
                    "{shown}"
                );
            }
            let (_, attributes) = host
                .observe()
                .unwrap()
                .addresses
                .into_iter()
                .find(|(found, _)| *found == key)
                .unwrap();
            assert_eq!(attributes.protocol, 76);
            let again = host.apply(&HostOp::AddAddress(key.clone())).unwrap_err();
            assert_eq!(again.reason(), Reason::ForeignObject, "{again}");
            host.apply(&HostOp::DeleteAddress(key)).unwrap();
            assert_eq!(run("ip", &format!("addr show dev eth0 to {text}")), "");
        }
    });
}

#[test]
fn a_device_that_is_not_there_has_its_own_reason() {
    in_namespace(|mut host| {
        let key = AddressKey {
            device: "eth9".into(),
            address: "192.0.2.9".parse().unwrap(),
            prefix_length: 32,
        };
        let error = host.apply(&HostOp::AddAddress(key)).unwrap_err();
        assert_eq!(error.reason(), Reason::InterfaceNotFound, "{error}");
    });
}

#[test]
fn every_kind_of_device_is_made_or_its_module_is_named() {
    in_namespace(|mut host| {
        let four = "192.0.2.2".parse().unwrap();
        let six = "2001:db8::2".parse().unwrap();
        for (kind, module) in [
            (LinkKind::Dummy, "dummy"),
            (LinkKind::IpIp(four), "ipip"),
            (LinkKind::Sit(four), "sit"),
            (LinkKind::Ip6Tunnel(six), "ip6_tunnel"),
            (LinkKind::Gre(four), "ip_gre"),
            (LinkKind::Ip6Gre(six), "ip6_gre"),
        ] {
            let name = "lvs-test".to_owned();
            match host.apply(&HostOp::AddLink {
                name: name.clone(),
                kind,
            }) {
                Ok(()) => {
                    let link = host.observe().unwrap().links.remove(&name).unwrap();
                    assert_eq!(link.kind, Some(kind));
                    assert!(link.up);
                    let again = host.apply(&HostOp::AddLink {
                        name: name.clone(),
                        kind,
                    });
                    assert_eq!(again.unwrap_err().reason(), Reason::ForeignObject);
                    host.apply(&HostOp::DeleteLink { name: name.clone() })
                        .unwrap();
                    assert!(!host.observe().unwrap().links.contains_key(&name));
                }
                Err(KernelError::ModuleMissing { module: named, .. }) => assert_eq!(named, module),
                Err(error) => panic!("{kind:?}: {error}"),
            }
        }
    });
}

#[test]
fn a_gue_port_is_opened_or_its_module_is_named() {
    in_namespace(|mut host| {
        let port = lvs_core::host::FouPort {
            port: 6080,
            family: lvs_crds::value::AddressFamily::IPv4,
        };
        match host.apply(&HostOp::AddFouPort(port)) {
            Ok(()) => {
                assert!(host.observe().unwrap().fou_ports.contains(&port));
                host.apply(&HostOp::DeleteFouPort(port)).unwrap();
                assert!(host.observe().unwrap().fou_ports.is_empty());
            }
            Err(error) => {
                assert_eq!(error.reason(), Reason::KernelModuleMissing, "{error}");
                assert!(error.to_string().contains("module fou"), "{error}");
                assert!(host.observe().unwrap().fou_ports.is_empty());
            }
        }
    });
}

#[test]
fn rules_and_routes_carry_our_number_and_foreign_ones_are_not_seen() {
    in_namespace(|mut host| {
        run("ip", "rule add priority 100 from 192.0.2.2 lookup 99");
        run(
            "ip",
            "route add default via 192.0.2.9 dev eth0 table 7600 metric 5",
        );
        for (source, gateway) in [("192.0.2.2", "192.0.2.1"), ("2001:db8::2", "2001:db8::1")] {
            let rule = PolicyRule {
                priority: 22_000,
                source: source.parse().unwrap(),
                protocol: Protocol::TCP,
                port: 80,
                end_port: 89,
                table: 7_600,
            };
            let route = DefaultRoute {
                table: 7_600,
                gateway: gateway.parse().unwrap(),
                device: "eth0".into(),
            };
            host.apply(&HostOp::AddRoute(route.clone())).unwrap();
            host.apply(&HostOp::AddPolicyRule(rule.clone())).unwrap();
            let observed = host.observe().unwrap();
            assert_eq!(observed.policy_rules.iter().collect::<Vec<_>>(), [&rule]);
            assert_eq!(observed.routes.iter().collect::<Vec<_>>(), [&route]);
            let family = if source.contains(':') { "-6" } else { "-4" };
            let shown = run("ip", &format!("{family} rule show"));
            assert!(
                shown.contains(&format!(
                    "22000:\tfrom {source} ipproto tcp sport 80-89 lookup 7600 proto 76"
                )),
                "{shown}"
            );
            host.apply(&HostOp::DeletePolicyRule(rule)).unwrap();
            host.apply(&HostOp::DeleteRoute(route)).unwrap();
            let observed = host.observe().unwrap();
            assert!(observed.policy_rules.is_empty() && observed.routes.is_empty());
        }
        assert!(run("ip", "rule show").contains("from 192.0.2.2 lookup 99"));
        assert!(run("ip", "route show table 7600").contains("via 192.0.2.9"));
    });
}

#[test]
fn marks_are_what_nft_lists_and_nothing_foreign_is_touched() {
    in_namespace(|mut host| {
        run("nft", "add table inet foreign");
        run("nft", "add chain inet foreign input");
        let rules = vec![
            mark("192.0.2.250", Protocol::TCP, 80, 80, 1),
            mark("192.0.2.250", Protocol::UDP, 5000, 5010, 0x10002),
            mark("192.0.2.251", Protocol::SCTP, 0, 0, 3),
            mark("2001:db8::250", Protocol::TCP, 443, 443, 4),
        ];
        host.apply(&HostOp::ReplacePacketRules(marks(&rules)))
            .unwrap();
        let listed = run("nft", "list table inet lvs-operator");
        for line in [
            "type filter hook prerouting priority mangle; policy accept;",
            "type route hook output priority mangle; policy accept;",
            "ip daddr 192.0.2.250 tcp dport 80 meta mark set 0x00000001",
            "ip daddr 192.0.2.250 udp dport 5000-5010 meta mark set 0x00010002",
            "ip daddr 192.0.2.251 meta l4proto sctp meta mark set 0x00000003",
            "ip6 daddr 2001:db8::250 tcp dport 443 meta mark set 0x00000004",
            "comment \"lvs-operator 192.0.2.250 TCP 80 80 mark 1\"",
        ] {
            assert!(listed.contains(line), "{line} is not in:\n{listed}");
        }
        let seen = host.observe().unwrap().packet_rules.unwrap();
        assert_eq!(seen.rules, marks(&rules));
        assert!(!seen.damaged);

        host.apply(&HostOp::ReplacePacketRules(marks(&rules[..1])))
            .unwrap();
        let seen = host.observe().unwrap().packet_rules.unwrap();
        assert_eq!((seen.rules, seen.damaged), (marks(&rules[..1]), false));

        host.apply(&HostOp::DeletePacketRules).unwrap();
        assert_eq!(host.observe().unwrap().packet_rules, None);
        assert!(run("nft", "list ruleset").contains("table inet foreign"));
    });
}

#[test]
fn damage_to_our_table_is_seen() {
    in_namespace(|mut host| {
        let rules = vec![mark("192.0.2.250", Protocol::TCP, 80, 80, 1)];
        for damage in [
            "add rule inet lvs-operator prerouting counter",
            "insert rule inet lvs-operator output meta mark set 5",
            "add chain inet lvs-operator extra",
            "flush chain inet lvs-operator output",
        ] {
            host.apply(&HostOp::ReplacePacketRules(marks(&rules)))
                .unwrap();
            assert!(!host.observe().unwrap().packet_rules.unwrap().damaged);
            run("nft", damage);
            assert!(
                host.observe().unwrap().packet_rules.unwrap().damaged,
                "{damage}"
            );
        }
        run("nft", "flush table inet lvs-operator");
        let seen = host.observe().unwrap().packet_rules.unwrap();
        assert!(seen.rules.is_empty() && seen.damaged);
    });
}

fn source_nat(address: &str, port: u16, end_port: u16, sources: &[&str]) -> SourceNatRule {
    SourceNatRule {
        packets: mark(address, Protocol::TCP, port, end_port, 0).packets,
        real_server: None,
        source_addresses: sources
            .iter()
            .map(|source| source.parse().unwrap())
            .collect(),
    }
}

#[test]
fn source_addresses_are_what_nft_lists_and_damage_is_seen() {
    in_namespace(|mut host| {
        let sources = ["198.51.100.1", "198.51.100.2", "198.51.100.3"];
        let mut by_real_server = source_nat("192.0.2.251", 5000, 5010, &sources[..1]);
        by_real_server.packets.protocol = Protocol::UDP;
        by_real_server.real_server = Some(RealServerPorts {
            address: "198.51.100.21".parse().unwrap(),
            port: 6000,
            end_port: 6010,
        });
        let mut rules = PacketRules {
            marks: vec![mark("192.0.2.252", Protocol::TCP, 80, 80, 1)],
            source_nat: vec![
                source_nat("192.0.2.250", 80, 80, &sources),
                source_nat("192.0.2.250", 443, 443, &sources),
                by_real_server,
                source_nat("2001:db8::250", 0, 0, &["2001:db8:1::1"]),
            ],
        };
        rules.normalise();
        host.apply(&HostOp::ReplacePacketRules(rules.clone()))
            .unwrap();
        let listed = run("nft", "list table inet lvs-operator");
        for line in [
            "type nat hook postrouting priority srcnat; policy accept;",
            "ct original ip daddr 192.0.2.250 ip saddr != 192.0.2.250 fib saddr type local accept",
            "ct original ip daddr 192.0.2.250 ct original proto-dst 80 ip daddr != 192.0.2.250 goto sources-1",
            "ct original ip daddr 192.0.2.251 ct original proto-dst 5000-5010 ip daddr 198.51.100.21 udp dport 6000-6010 goto sources-0",
            "ct original ip6 daddr 2001:db8::250 ip6 daddr != 2001:db8::250 goto sources-2",
            "numgen random mod 3 0 snat ip to 198.51.100.1",
            "numgen random mod 2 0 snat ip to 198.51.100.2",
            "\tsnat ip to 198.51.100.3",
            "\tsnat ip6 to 2001:db8:1::1",
            "comment \"lvs-operator 192.0.2.250 TCP 80 80 to sources-1\"",
        ] {
            assert!(listed.contains(line), "{line} is not in:\n{listed}");
        }
        let seen = host.observe().unwrap().packet_rules.unwrap();
        assert_eq!((seen.rules, seen.damaged), (rules.clone(), false));

        for damage in [
            "add rule inet lvs-operator postrouting masquerade",
            "insert rule inet lvs-operator sources-1 counter",
            "flush chain inet lvs-operator sources-2",
            "flush chain inet lvs-operator postrouting",
        ] {
            host.apply(&HostOp::ReplacePacketRules(rules.clone()))
                .unwrap();
            run("nft", damage);
            let seen = host.observe().unwrap().packet_rules.unwrap();
            assert!(seen.damaged, "{damage}");
        }

        rules.source_nat.clear();
        host.apply(&HostOp::ReplacePacketRules(rules)).unwrap();
        let listed = run("nft", "list table inet lvs-operator");
        assert!(!listed.contains("type nat"), "{listed}");
    });
}

#[test]
fn thousands_of_services_with_the_same_source_addresses_fit_one_transaction() {
    in_namespace(|mut host| {
        let sources: Vec<String> = (1..=64).map(|last| format!("198.51.100.{last}")).collect();
        let sources: Vec<&str> = sources.iter().map(String::as_str).collect();
        let mut rules = PacketRules {
            marks: Vec::new(),
            source_nat: (1..=4000)
                .map(|port| source_nat("192.0.2.250", port, port, &sources))
                .collect(),
        };
        rules.normalise();
        host.apply(&HostOp::ReplacePacketRules(rules.clone()))
            .unwrap();
        let seen = host.observe().unwrap().packet_rules.unwrap();
        assert!(!seen.damaged);
        assert!(seen.rules == rules);
    });
}

#[test]
fn thousands_of_marks_fit_one_transaction() {
    in_namespace(|mut host| {
        let rules: Vec<MarkRule> = (1..=2000)
            .map(|port| mark("192.0.2.250", Protocol::TCP, port, port, 7))
            .collect();
        host.apply(&HostOp::ReplacePacketRules(marks(&rules)))
            .unwrap();
        let seen = host.observe().unwrap().packet_rules.unwrap();
        assert!(!seen.damaged);
        assert_eq!(seen.rules, marks(&rules));
    });
}

#[test]
fn deleting_a_table_that_is_not_there_is_an_error() {
    in_namespace(|mut host| {
        let error = host.apply(&HostOp::DeletePacketRules).unwrap_err();
        assert_eq!(error.errno(), Some(nix::errno::Errno::ENOENT), "{error}");
    });
}

#[test]
fn sysctls_are_those_of_the_namespace() {
    in_namespace(|mut host| {
        let key = SysctlKey("net/ipv4/conf/eth0/arp_ignore".into());
        host.apply(&HostOp::SetSysctl {
            key: key.clone(),
            value: "1".into(),
        })
        .unwrap();
        let values = host
            .read_sysctls(&std::iter::once(key.clone()).collect())
            .unwrap();
        assert_eq!(values[&key].as_deref(), Some("1"));
    });
}
