//! Options of ipvsadm(8), as `ipvsadm --save` writes them.

use super::{Row, not_offered, replaced, translated};

/// The table, a row on a line.
#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    translated("command", "-A --add-service", "VirtualService", ""),
    translated("command", "-a --add-server", "RealServer", ""),
    translated("command", "-E --edit-service -e --edit-server", "VirtualService, RealServer", "edit the object: the kernel is edited in place"),
    not_offered("command", "-D --delete-service -d --delete-server -C --clear", "delete the object; what others made in the kernel stays"),
    replaced("command", "-R --restore -S --save", "", "objects in the API server; each agent keeps its last plan on disk"),
    replaced("command", "-L -l --list -Z --zero", "", "kubectl lvs get, services, zero; counters as metrics"),
    replaced("command", "--set", "VirtualRouter spec.timeouts", ""),
    replaced("command", "--start-daemon --stop-daemon", "VirtualRouter spec.connectionSync", "daemons follow the role of each director"),
    translated("service", "-t --tcp-service -u --udp-service --sctp-service", "VirtualService spec.addresses, spec.ports", ""),
    translated("service", "-f --fwmark-service", "VirtualService spec.grouping, spec.firewallMark", ""),
    translated("service", "-6 --ipv6", "", "an IPVS service for each family of spec.addresses"),
    translated("service", "-s --scheduler", "VirtualService spec.scheduler.name", ""),
    translated("service", "-b --sched-flags", "VirtualService spec.scheduler.options", "sh-fallback and mh-fallback are always on"),
    translated("service", "-p --persistent", "VirtualService spec.persistence.timeoutSeconds", ""),
    translated("service", "-M --netmask", "VirtualService spec.persistence.ipv4PrefixLength, ipv6PrefixLength", ""),
    translated("service", "--pe", "VirtualService spec.persistence.engine", ""),
    translated("service", "-o --ops", "VirtualService spec.packetScheduling", ""),
    translated("server", "-r --real-server", "RealServer spec.target, spec.port", ""),
    translated("server", "-g --gatewaying -i --ipip -m --masquerading", "VirtualService spec.forwarding, RealServer spec.forwarding", ""),
    translated("server", "--tun-type --tun-port --tun-nocsum --tun-csum --tun-remcsum", "VirtualService spec.forwarding.tunnel", ""),
    translated("server", "-w --weight", "RealServer spec.weight", ""),
    translated("server", "-x --u-threshold", "RealServer spec.connectionThresholds.upper", ""),
    translated("server", "-y --l-threshold", "RealServer spec.connectionThresholds.lower", ""),
    replaced("list", "-c --connection --timeout --daemon --stats --rate --thresholds --persistent-conn --tun-info --sort --nosort -n --numeric --exact", "", "kubectl lvs connections, timeouts, daemon, stats, rates, services"),
    translated("daemon", "--syncid", "VirtualRouter spec.connectionSync.daemon.syncID", ""),
    translated("daemon", "--sync-maxlen", "VirtualRouter spec.connectionSync.daemon.maximumLength", ""),
    translated("daemon", "--mcast-interface", "VirtualRouter spec.connectionSync.daemon.interfaceName", ""),
    translated("daemon", "--mcast-group", "VirtualRouter spec.connectionSync.daemon.group", ""),
    translated("daemon", "--mcast-port", "VirtualRouter spec.connectionSync.daemon.port", ""),
    translated("daemon", "--mcast-ttl", "VirtualRouter spec.connectionSync.daemon.ttl", ""),
];
