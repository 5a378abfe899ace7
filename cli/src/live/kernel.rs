//! What kernels hold, as ipvsadm lists it, with the names of the objects beside addresses.

use lvs_core::shown::connection::ShownConnections;
use lvs_core::shown::{
    Purpose, ShownDestination, ShownIpvs, ShownService, ShownServices, ShownSettings, ShownZero,
};
use lvs_core::statistics::{Counters, Rates};
use lvs_crds::VirtualRouter;
use lvs_crds::virtual_router::CandidateState;
use serde::Serialize;

use super::agent::{Answers, NotAsked};
use super::arguments::Wanted;
use super::table::{Cell, Paint, Table, Tone};
use lvs_core::ipvs::SocketText;

/// What one node says.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OfNode<T> {
    /// The node.
    pub node: String,
    /// Routers whose addresses it holds; unset where routers could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master_of: Option<Vec<String>>,
    /// Its answer.
    #[serde(flatten)]
    pub answer: T,
}

/// What nodes say.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OfNodes<T> {
    /// By node, sorted.
    pub nodes: Vec<OfNode<T>>,
    /// Those that could not be asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_asked: Vec<NotAsked>,
}

impl<T> OfNodes<T> {
    /// Answers, with the routers whose addresses each node holds. `routers` unset: they could not be read.
    pub fn new(answers: Answers<T>, routers: Option<&[VirtualRouter]>) -> Self {
        let nodes = answers.answers.into_iter().map(|(node, answer)| OfNode {
            master_of: routers.map(|routers| held_by(&node, routers)),
            node,
            answer,
        });
        Self {
            nodes: nodes.collect(),
            not_asked: answers.not_asked,
        }
    }

    /// What is missing, a line each; `problems` are those of an answer.
    pub fn missing(&self, problems: impl Fn(&T) -> &[String]) -> Vec<String> {
        let told = self.nodes.iter().flat_map(|node| {
            let problems = problems(&node.answer).iter();
            problems.map(|problem| format!("node {}: {problem}", node.node))
        });
        let not_asked = self.not_asked.iter().map(NotAsked::text);
        told.chain(not_asked).collect()
    }
}

/// Routers whose addresses a node holds, by the state that it reports.
pub fn held_by(node: &str, routers: &[VirtualRouter]) -> Vec<String> {
    let holds = |router: &&VirtualRouter| {
        let candidates = router.status.iter().flat_map(|status| &status.candidates);
        let mut own = candidates.filter(|candidate| candidate.node_name == node);
        own.any(|candidate| candidate.state == CandidateState::Master)
    };
    routers
        .iter()
        .filter(holds)
        .filter_map(|router| router.metadata.name.clone())
        .collect()
}

/// Which columns there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Columns {
    /// As `ipvsadm --list --numeric`.
    Rules,
    /// As `--stats`.
    Statistics,
    /// As `--rate`.
    Rates,
}

/// Leaves the services that are asked for.
pub fn choose(answer: &mut ShownServices, wanted: &Wanted) {
    if *wanted == Wanted::default() {
        return;
    }
    answer.unnameable.clear();
    answer.services.retain(|service| {
        let owner = service.owner.as_ref();
        owner
            .is_some_and(|owner| wanted.includes(owner.namespace.as_deref(), owner.name.as_deref()))
    });
}

/// A block for each node.
pub fn services(view: &OfNodes<ShownServices>, columns: Columns, paint: Paint) -> String {
    blocks(view, paint, |answer| {
        let mut table = match columns {
            Columns::Rules => Table::new([
                "SERVICE",
                "METHOD",
                "WEIGHT",
                "ACTIVE",
                "INACTIVE",
                "PERSISTENT",
                "OBJECT",
            ]),
            Columns::Statistics => Table::new([
                "SERVICE", "CONNS", "INPKTS", "OUTPKTS", "INBYTES", "OUTBYTES", "OBJECT",
            ]),
            Columns::Rates => Table::new([
                "SERVICE", "CPS", "INPPS", "OUTPPS", "INBPS", "OUTBPS", "OBJECT",
            ]),
        };
        for service in &answer.services {
            let object = object(service, answer.ownership_known);
            let name = Cell::from(service.text());
            match columns {
                Columns::Rules => table.row([
                    name,
                    method(service).into(),
                    "".into(),
                    "".into(),
                    "".into(),
                    "".into(),
                    object,
                ]),
                Columns::Statistics => {
                    table.row(numbers(name, counters(&service.counters), object));
                }
                Columns::Rates => table.row(numbers(name, rates(&service.rates), object)),
            }
            for destination in &service.destinations {
                let name = Cell::from(format!("  -> {}", socket(destination)));
                let object = real_server(destination);
                match columns {
                    Columns::Rules => table.row([
                        name,
                        forwarding(destination).into(),
                        weight(destination),
                        destination.active_connections.to_string().into(),
                        destination.inactive_connections.to_string().into(),
                        destination.persistent_connections.to_string().into(),
                        object,
                    ]),
                    Columns::Statistics => {
                        table.row(numbers(name, counters(&destination.counters), object));
                    }
                    Columns::Rates => table.row(numbers(name, rates(&destination.rates), object)),
                }
            }
        }
        for line in &answer.unnameable {
            let object = Cell::new(Tone::Faint, "(foreign)");
            let none = || Cell::default();
            table.row([
                line.as_str().into(),
                none(),
                none(),
                none(),
                none(),
                none(),
                object,
            ]);
        }
        let heading = heading(answer.ipvs.as_ref());
        (heading, table, "no services")
    })
}

fn blocks<T>(
    view: &OfNodes<T>,
    paint: Paint,
    block: impl Fn(&T) -> (String, Table, &'static str),
) -> String {
    let mut text = String::new();
    for node in &view.nodes {
        if !text.is_empty() {
            text.push('\n');
        }
        let (heading, table, none) = block(&node.answer);
        text.push_str(&node.node);
        let routers = node.master_of.iter().flatten().map(String::as_str);
        let routers: Vec<&str> = routers.collect();
        if !routers.is_empty() {
            let role = format!(" (master of {})", routers.join(", "));
            text.push_str(&paint.text(Tone::Good, &role));
        }
        text.push_str(&heading);
        text.push('\n');
        if table.is_empty() {
            text.push_str(none);
            text.push('\n');
        } else {
            text.push_str(&table.text(paint));
        }
    }
    text
}

fn heading(ipvs: Option<&ShownIpvs>) -> String {
    match ipvs {
        Some(ipvs) => format!(
            ", IPVS {} (size={})",
            ipvs.version, ipvs.connection_table_size
        ),
        None => ", IPVS not loaded".to_owned(),
    }
}

/// Scheduler and flags, as ipvsadm writes them.
pub fn method(service: &ShownService) -> String {
    let mut text = service.scheduler.clone();
    if !service.scheduler_flags.is_empty() {
        text = format!("{text} ({})", service.scheduler_flags.join(","));
    }
    if let Some(persistence) = &service.persistence {
        text = format!("{text} persistent {}", persistence.timeout_seconds);
        let whole = match service.address_family {
            lvs_crds::value::AddressFamily::IPv4 => 32,
            lvs_crds::value::AddressFamily::IPv6 => 128,
        };
        if persistence.prefix_length != whole {
            text = format!("{text} mask /{}", persistence.prefix_length);
        }
        if let Some(engine) = &persistence.engine {
            text = format!("{text} pe {engine}");
        }
    }
    if service.one_packet {
        text.push_str(" ops");
    }
    text
}

fn socket(destination: &ShownDestination) -> String {
    SocketText(destination.address, destination.port).to_string()
}

/// How packets reach it, and how many connections it may have: ipvsadm's `--tun-info` and `--thresholds`.
pub fn forwarding(destination: &ShownDestination) -> String {
    let mut text = destination.forwarding.as_str().to_owned();
    if let Some(tunnel) = &destination.tunnel {
        text = format!("{text} {:?}", tunnel.type_);
        if let Some(port) = tunnel.port {
            text = format!("{text}:{port}");
        }
        for (flag, word) in [(1, "checksum"), (2, "remote-checksum")] {
            if tunnel.flags & flag != 0 {
                text = format!("{text} {word}");
            }
        }
    }
    for (word, threshold) in [
        ("upper", destination.upper_threshold),
        ("lower", destination.lower_threshold),
    ] {
        if threshold != 0 {
            text = format!("{text} {word} {threshold}");
        }
    }
    text
}

fn weight(destination: &ShownDestination) -> Cell {
    let tone = if destination.weight == 0 {
        Tone::Warning
    } else {
        Tone::Plain
    };
    Cell::new(tone, destination.weight.to_string())
}

fn object(service: &ShownService, is_known: bool) -> Cell {
    match &service.owner {
        None if is_known => Cell::new(Tone::Faint, "(foreign)"),
        None => Cell::new(Tone::Faint, "(unknown)"),
        Some(owner) => match owner.purpose {
            Purpose::Clients => owner.text().into(),
            Purpose::HealthChecks => {
                Cell::new(Tone::Faint, format!("{} (health checks)", owner.text()))
            }
            Purpose::Leaving => Cell::new(Tone::Warning, format!("{} (leaving)", owner.text())),
        },
    }
}

fn real_server(destination: &ShownDestination) -> Cell {
    match destination.real_server.as_deref() {
        None | Some("") => Cell::default(),
        Some(name) if name == lvs_core::statistics::SORRY_SERVER => {
            Cell::new(Tone::Warning, "sorry server")
        }
        Some(name) => name.into(),
    }
}

fn numbers(name: Cell, numbers: [u64; 5], object: Cell) -> [Cell; 7] {
    let [connections, packets_in, packets_out, bytes_in, bytes_out] =
        numbers.map(|number| Cell::from(number.to_string()));
    [
        name,
        connections,
        packets_in,
        packets_out,
        bytes_in,
        bytes_out,
        object,
    ]
}

const fn counters(counters: &Counters) -> [u64; 5] {
    [
        counters.connections,
        counters.incoming_packets,
        counters.outgoing_packets,
        counters.incoming_bytes,
        counters.outgoing_bytes,
    ]
}

const fn rates(rates: &Rates) -> [u64; 5] {
    [
        rates.connections_per_second,
        rates.incoming_packets_per_second,
        rates.outgoing_packets_per_second,
        rates.incoming_bytes_per_second,
        rates.outgoing_bytes_per_second,
    ]
}

/// A block for each node, as `ipvsadm --list --connection --numeric --persistent-conn`.
pub fn connections(view: &OfNodes<ShownConnections>, paint: Paint) -> String {
    blocks(view, paint, |answer| {
        let mut table = Table::new([
            "PROTOCOL",
            "EXPIRES",
            "STATE",
            "CLIENT",
            "VIRTUAL",
            "DESTINATION",
            "VIRTUALSERVICE",
            "REALSERVER",
            "ENGINE",
        ]);
        for connection in &answer.connections {
            let [client, virtual_socket, destination] = connection.sockets();
            let seconds = connection.expires_seconds;
            table.row([
                connection.protocol.as_str().into(),
                format!("{:02}:{:02}", seconds / 60, seconds % 60).into(),
                connection.state.as_str().into(),
                client.into(),
                virtual_socket.into(),
                destination.into(),
                match &connection.virtual_service {
                    Some(name) => name.as_str().into(),
                    None if answer.ownership_known => Cell::new(Tone::Faint, "(foreign)"),
                    None => Cell::new(Tone::Faint, "(unknown)"),
                },
                connection.real_server.as_deref().unwrap_or_default().into(),
                connection.engine_data.as_deref().unwrap_or_default().into(),
            ]);
        }
        let shown = answer.connections.len();
        let heading = match (answer.is_cut, shown) {
            (true, _) => format!(", the first {shown} connections, there are more: --limit"),
            (false, 1) => ", 1 connection".to_owned(),
            (false, _) => format!(", {shown} connections"),
        };
        (heading, table.without_empty_last(), "no connections")
    })
}

/// Timeouts of each node, as `ipvsadm --list --timeout`.
pub fn timeouts(view: &OfNodes<ShownSettings>, paint: Paint) -> String {
    let mut table = Table::new(["NODE", "TCP", "TCPFIN", "UDP", "SET-BY"]);
    for node in &view.nodes {
        let name = Cell::from(node.node.as_str());
        match &node.answer.timeouts {
            None => table.row([
                name,
                Cell::new(Tone::Faint, "IPVS not loaded"),
                "".into(),
                "".into(),
                "".into(),
            ]),
            Some(timeouts) => table.row([
                name,
                timeouts.tcp_seconds.to_string().into(),
                timeouts.tcp_fin_seconds.to_string().into(),
                timeouts.udp_seconds.to_string().into(),
                if timeouts.is_ours {
                    "VirtualRouter".into()
                } else {
                    // The kernel's own, or an administrator's.
                    Cell::new(Tone::Faint, "<none>")
                },
            ]),
        }
    }
    table.text(paint)
}

/// Sync daemons of each node, as `ipvsadm --list --daemon`.
pub fn daemons(view: &OfNodes<ShownSettings>, paint: Paint) -> String {
    let mut table = Table::new([
        "NODE",
        "DAEMON",
        "INTERFACE",
        "SYNCID",
        "GROUP",
        "TTL",
        "MAXLEN",
        "SET-BY",
    ]);
    for node in &view.nodes {
        for daemon in &node.answer.sync_daemons {
            let length = daemon.maximum_length;
            table.row([
                node.node.as_str().into(),
                daemon.role.as_str().into(),
                daemon.device.as_str().into(),
                daemon.sync_id.to_string().into(),
                SocketText(daemon.group, daemon.port).to_string().into(),
                daemon.ttl.to_string().into(),
                length
                    .map_or_else(String::new, |length| length.to_string())
                    .into(),
                set_by(daemon.is_ours, node.answer.ownership_known),
            ]);
        }
    }
    if table.is_empty() {
        return "no sync daemons\n".to_owned();
    }
    table.text(paint)
}

fn set_by(is_ours: bool, is_known: bool) -> Cell {
    match (is_ours, is_known) {
        (true, _) => "VirtualRouter".into(),
        (false, true) => Cell::new(Tone::Faint, "(foreign)"),
        (false, false) => Cell::new(Tone::Faint, "(unknown)"),
    }
}

/// A line for each node.
pub fn zeroed(view: &OfNodes<ShownZero>) -> String {
    let lines = view.nodes.iter().map(|node| {
        let what = match (node.answer.all, node.answer.zeroed.len()) {
            (true, _) => "all counters".to_owned(),
            (false, 0) => "no counters, as no service is there,".to_owned(),
            (false, 1) => "the counters of 1 service".to_owned(),
            (false, count) => format!("the counters of {count} services"),
        };
        format!("{}: {what} set to zero\n", node.node)
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn told(change: &Value) -> Option<String> {
        let mut destination = json!({
            "address": "192.0.2.11", "port": 80, "forwarding": "TUN", "weight": 1,
            "activeConnections": 0, "inactiveConnections": 0, "persistentConnections": 0,
            "counters": Counters::default(), "rates": Rates::default(),
        });
        for (name, value) in change.as_object().into_iter().flatten() {
            destination[name] = value.clone();
        }
        let destination: ShownDestination = serde_json::from_value(destination).ok()?;
        Some(forwarding(&destination))
    }

    #[test]
    fn limits_and_all_of_a_tunnel_stand_beside_the_forwarding() {
        for (change, text) in [
            (json!({"forwarding": "NAT"}), "NAT"),
            (
                json!({"forwarding": "DR", "upperThreshold": 5, "lowerThreshold": 3}),
                "DR upper 5 lower 3",
            ),
            // The kernel's own lower threshold.
            (
                json!({"forwarding": "DR", "upperThreshold": 5}),
                "DR upper 5",
            ),
            (json!({"tunnel": {"type": "IPIP"}}), "TUN IPIP"),
            (
                json!({"tunnel": {"type": "GUE", "port": 6080, "flags": 2}, "upperThreshold": 5}),
                "TUN GUE:6080 remote-checksum upper 5",
            ),
            (
                json!({"tunnel": {"type": "GRE", "flags": 1}}),
                "TUN GRE checksum",
            ),
        ] {
            assert_eq!(told(&change).as_deref(), Some(text), "{change}");
        }
    }
}
