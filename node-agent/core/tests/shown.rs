//! What people are shown of a kernel: lines of connections, and whose things are.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what it expects"
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lvs_core::desired::PlanInput;
use lvs_core::ipvs::{DestinationKey, ServiceKey};
use lvs_core::journal::Journal;
use lvs_core::shown::Purpose;
use lvs_core::shown::connection::ShownConnection;
use lvs_core::shown::owner::Owners;
use lvs_crds::value::{AddressFamily, Protocol};
use proptest::prelude::*;
use serde_json::{Value, json};

/// As `ip_vs_conn_seq_show` prints it.
fn address_text(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("{:08X}", address.to_bits()),
        IpAddr::V6(address) => {
            let groups = address.segments().map(|group| format!("{group:04x}"));
            groups.join(":")
        }
    }
}

fn line(connection: &ShownConnection) -> String {
    let sockets = [
        (connection.client_address, connection.client_port),
        (connection.virtual_address, connection.virtual_port),
        (connection.real_server_address, connection.real_server_port),
    ];
    let sockets = sockets.map(|(address, port)| format!("{} {port:04X}", address_text(address)));
    let engine = match &connection.engine_data {
        Some(data) => format!(" {data}"),
        None => String::new(),
    };
    format!(
        "{:<3} {} {:<11} {:>7}{engine}",
        connection.protocol,
        sockets.join(" "),
        connection.state,
        connection.expires_seconds
    )
}

fn any_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
        any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))),
    ]
}

fn any_connection() -> impl Strategy<Value = ShownConnection> {
    let socket = || (any_address(), any::<u16>());
    let protocol = prop_oneof![Just("TCP"), Just("UDP"), Just("SCTP"), Just("IP")];
    let state = prop_oneof![Just("ESTABLISHED"), Just("NONE"), Just("FIN_WAIT")];
    let engine = proptest::option::of("sip [a-z0-9@.]{1,20}");
    (
        protocol,
        socket(),
        socket(),
        socket(),
        state,
        any::<u32>(),
        engine,
    )
        .prop_map(
            |(protocol, client, virtual_, real_server, state, expires_seconds, engine_data)| {
                ShownConnection {
                    protocol: protocol.to_owned(),
                    client_address: client.0,
                    client_port: client.1,
                    virtual_address: virtual_.0,
                    virtual_port: virtual_.1,
                    real_server_address: real_server.0,
                    real_server_port: real_server.1,
                    state: state.to_owned(),
                    expires_seconds,
                    engine_data,
                    virtual_service: None,
                    real_server: None,
                }
            },
        )
}

proptest! {
    #[test]
    fn what_the_kernel_prints_is_read_back(connection in any_connection()) {
        prop_assert_eq!(ShownConnection::parse(&line(&connection)), Ok(connection));
    }

    #[test]
    fn no_line_makes_the_reader_panic_and_errors_are_short(text in ".{0,400}") {
        if let Err(error) = ShownConnection::parse(&text) {
            prop_assert!(error.to_string().chars().count() < 1000);
        }
    }

    #[test]
    fn a_line_that_is_cut_within_its_numbers_is_an_error(connection in any_connection(), at in 0usize..1000) {
        let whole = line(&ShownConnection { engine_data: None, ..connection });
        let cut = &whole[..at % whole.len()];
        let words = cut.split_ascii_whitespace().count();
        prop_assert_eq!(ShownConnection::parse(cut).is_ok(), words == 9);
    }
}

fn plan(
    name: &str,
    virtual_service: &str,
    services: &Value,
    marks: &Value,
    checks: &Value,
) -> PlanInput {
    let spec = json!({
        "nodeName": "node-1", "state": "Active", "virtualRouterName": "default",
        "source": {"kind": "VirtualService", "namespace": "shop", "name": virtual_service,
                   "uid": "u", "generation": 1},
        "director": {"services": services, "firewallMarks": marks, "checks": checks},
    });
    PlanInput {
        name: name.to_owned(),
        spec: serde_json::from_value(spec).unwrap(),
    }
}

fn service(take: &Value, real_servers: &Value, sorry_server: &Value) -> Value {
    let mut service = json!({"scheduler": {"name": "rr"}, "packetScheduling": "PerConnection",
                             "realServers": real_servers});
    for (key, value) in take.as_object().unwrap() {
        service[key] = value.clone();
    }
    if !sorry_server.is_null() {
        service["sorryServer"] = sorry_server.clone();
    }
    service
}

fn real_server(name: &str, address: &str, port: u16) -> Value {
    json!({"name": name, "address": address, "port": port, "weight": 1, "forwarding": {"type": "NAT"}})
}

fn at(address: &str, port: u16) -> DestinationKey {
    DestinationKey {
        address: address.parse().unwrap(),
        port,
    }
}

fn tcp(address: &str, port: u16) -> ServiceKey {
    ServiceKey::Address {
        address: address.parse().unwrap(),
        protocol: Protocol::TCP,
        port,
    }
}

const MARK: ServiceKey = ServiceKey::FirewallMark {
    mark: 7,
    family: AddressFamily::IPv4,
};
const MARK_OF_CHECK: ServiceKey = ServiceKey::FirewallMark {
    mark: 0x1000,
    family: AddressFamily::IPv4,
};

/// A range of ports with a sorry server, a service by mark, the way of a check, and what others have.
fn world() -> (Journal, Vec<PlanInput>) {
    let range = service(
        &json!({"address": {"address": "192.0.2.1", "protocol": "TCP", "port": 8000, "endPort": 8002}}),
        &json!([real_server("web-1", "192.0.2.11", 9000)]),
        &json!({"address": "192.0.2.66", "port": 80, "forwarding": {"type": "NAT"}}),
    );
    let marked = service(
        &json!({"firewallMark": {"mark": 7, "addressFamily": "IPv4"}}),
        &json!([real_server("ftp-1", "192.0.2.12", 0)]),
        &Value::Null,
    );
    let marks = json!([{"mark": 7, "matches": [
        {"address": "192.0.2.2", "protocol": "TCP", "port": 20, "endPort": 21}]}]);
    let checks = json!([{"name": "tcp", "type": "TCP", "path": "VirtualAddress"}]);
    let plans = vec![
        plan("vs-1", "web", &json!([range]), &json!([]), &json!([])),
        plan("vs-2", "ftp", &json!([marked]), &marks, &checks),
    ];
    let mut journal = Journal::new("boot");
    for (key, owner) in [
        (tcp("192.0.2.1", 8000), "vs-1"),
        (tcp("192.0.2.1", 8001), "vs-1"),
        (tcp("192.0.2.1", 8002), "vs-1"),
        (tcp("192.0.2.1", 9999), "vs-1"),
        (MARK, "vs-2"),
        (MARK_OF_CHECK, "vs-2"),
        (tcp("192.0.2.9", 1), "vs-gone"),
    ] {
        journal.services.insert(key, owner.to_owned());
    }
    (journal, plans)
}

#[test]
fn whose_a_service_is_and_what_it_is_there_for() {
    let (journal, plans) = world();
    let owners = Owners::new(&journal, &plans);
    let told = |key: &ServiceKey| owners.of(key).map(|owner| (owner.text(), owner.purpose));
    let web = |purpose| Some(("shop/web".to_owned(), purpose));
    assert_eq!(told(&tcp("192.0.2.1", 8001)), web(Purpose::Clients));
    assert_eq!(told(&tcp("192.0.2.1", 9999)), web(Purpose::Leaving));
    let ftp = |purpose| Some(("shop/ftp".to_owned(), purpose));
    assert_eq!(told(&MARK), ftp(Purpose::Clients));
    assert_eq!(told(&MARK_OF_CHECK), ftp(Purpose::HealthChecks));
    let gone = Some(("plan vs-gone".to_owned(), Purpose::Leaving));
    assert_eq!(told(&tcp("192.0.2.9", 1)), gone);
    assert_eq!(told(&tcp("192.0.2.1", 80)), None);
}

#[test]
fn real_servers_have_their_names_in_ranges_marks_and_checks() {
    let (journal, plans) = world();
    let owners = Owners::new(&journal, &plans);
    let named = |key: &ServiceKey, destination| owners.real_server(key, destination);
    let name = |text: &str| Some(text.to_owned());
    let second = tcp("192.0.2.1", 8001);
    assert_eq!(named(&second, at("192.0.2.11", 9001)), name("web-1"));
    assert_eq!(named(&second, at("192.0.2.11", 9000)), None);
    assert_eq!(named(&second, at("192.0.2.66", 81)), name("sorryServer"));
    assert_eq!(named(&second, at("192.0.2.67", 81)), None);
    assert_eq!(named(&MARK, at("192.0.2.12", 0)), name("ftp-1"));
    assert_eq!(named(&MARK_OF_CHECK, at("192.0.2.12", 0)), name("ftp-1"));
    assert_eq!(named(&tcp("192.0.2.3", 80), at("192.0.2.11", 9000)), None);
}

#[test]
fn connections_have_names_by_address_by_mark_and_of_nobody() {
    let (journal, plans) = world();
    let owners = Owners::new(&journal, &plans);
    for (line, virtual_service, real_server) in [
        // 192.0.2.1:8001 -> 192.0.2.11:9001
        (
            "TCP C6336407 D431 C0000201 1F41 C000020B 2329 ESTABLISHED     899",
            Some("shop/web"),
            Some("web-1"),
        ),
        // 192.0.2.2:21 -> 192.0.2.12:21, by mark: destinations have no port there.
        (
            "TCP C6336407 D431 C0000202 0015 C000020C 0015 ESTABLISHED     899",
            Some("shop/ftp"),
            Some("ftp-1"),
        ),
        // 192.0.2.1:80
        (
            "TCP C6336407 D431 C0000201 0050 C000020B 2329 ESTABLISHED     899",
            None,
            None,
        ),
        // A template of somebody else's mark.
        (
            "IP  C6336407 0000 00000008 0000 C000020C 0000 NONE             50",
            None,
            None,
        ),
    ] {
        let connection = ShownConnection::parse(line).unwrap();
        let (connection, owner) = connection.named(&owners);
        assert_eq!(
            connection.virtual_service.as_deref(),
            virtual_service,
            "{line}"
        );
        assert_eq!(connection.real_server.as_deref(), real_server, "{line}");
        assert_eq!(owner.map(|owner| owner.text()).as_deref(), virtual_service);
    }
}

/// The mark stands where the virtual address stands otherwise; of FTP no port stands anywhere.
#[test]
fn templates_have_names_by_mark_and_of_ftp() {
    let services = |take: &Value, address: &str, port| {
        json!([service(
            take,
            &json!([real_server("one", address, port)]),
            &Value::Null
        )])
    };
    let six = services(
        &json!({"firewallMark": {"mark": 0x0102_0304, "addressFamily": "IPv6"}}),
        "2001:db8::c",
        0,
    );
    let ftp = services(
        &json!({"address": {"address": "192.0.2.4", "protocol": "TCP", "port": 21, "endPort": 21}}),
        "192.0.2.14",
        2121,
    );
    let (mut journal, mut plans) = world();
    plans.push(plan("vs-3", "six", &six, &json!([]), &json!([])));
    plans.push(plan("vs-4", "files", &ftp, &json!([]), &json!([])));
    let mark_of_six = ServiceKey::FirewallMark {
        mark: 0x0102_0304,
        family: AddressFamily::IPv6,
    };
    for (key, owner) in [(mark_of_six, "vs-3"), (tcp("192.0.2.4", 21), "vs-4")] {
        journal.services.insert(key, owner.to_owned());
    }
    let owners = Owners::new(&journal, &plans);
    for (line, names) in [
        (
            "IP  C6336407 0000 00000007 0000 C000020C 0000 NONE             50",
            Some(("shop/ftp", "ftp-1")),
        ),
        (
            "IP  2001:0db8:0000:0000:0000:0000:0000:0000 0000 0102:0304:0000:0000:0000:0000:0000:0000 0000 \
             2001:0db8:0000:0000:0000:0000:0000:000c 0000 ASSURED          50",
            Some(("shop/six", "one")),
        ),
        // The same mark, the other family.
        (
            "IP  C6336407 0000 01020304 0000 C000020C 0000 NONE             50",
            None,
        ),
        (
            "TCP C6336407 0000 C0000204 0000 C000020E 0000 ASSURED          50",
            Some(("shop/files", "one")),
        ),
        // A connection to port 0 is none of FTP.
        (
            "TCP C6336407 D431 C0000204 0000 C000020E 0000 ESTABLISHED      50",
            None,
        ),
    ] {
        let connection = ShownConnection::parse(line).unwrap();
        let (connection, owner) = connection.named(&owners);
        let told = connection.virtual_service.as_deref();
        let told = told.zip(connection.real_server.as_deref());
        assert_eq!(told, names, "{line}");
        assert_eq!(owner.is_some(), names.is_some(), "{line}");
    }
}

/// Of a mark that the administrator's own rules set no plan says which packets have it.
#[test]
fn connections_by_marks_of_others_have_names_by_address_and_real_server() {
    let marked = service(
        &json!({"firewallMark": {"mark": 4242, "addressFamily": "IPv4"}}),
        &json!([real_server("one", "192.0.2.15", 0)]),
        &Value::Null,
    );
    let (mut journal, mut plans) = world();
    let mut outside = plan("vs-5", "outside", &json!([marked]), &json!([]), &json!([]));
    let director = outside.spec.director.as_mut().unwrap();
    director.addresses = serde_json::from_value(json!([{"address": "192.0.2.5"}])).unwrap();
    plans.push(outside);
    let key = ServiceKey::FirewallMark {
        mark: 4242,
        family: AddressFamily::IPv4,
    };
    journal.services.insert(key, "vs-5".to_owned());
    let owners = Owners::new(&journal, &plans);
    for (line, names) in [
        (
            "TCP C6336407 D431 C0000205 0050 C000020F 0050 ESTABLISHED     899",
            Some(("shop/outside", "one")),
        ),
        // Somebody else's service at the same address.
        (
            "TCP C6336407 D431 C0000205 0051 C0000210 0051 ESTABLISHED     899",
            None,
        ),
        (
            "TCP C6336407 D431 C0000206 0050 C000020F 0050 ESTABLISHED     899",
            None,
        ),
    ] {
        let connection = ShownConnection::parse(line).unwrap();
        let (connection, _) = connection.named(&owners);
        let told = connection.virtual_service.as_deref();
        assert_eq!(told.zip(connection.real_server.as_deref()), names, "{line}");
    }
}
