//! Directives of ldirectord(8).

use super::{Row, changed, not_offered, replaced, translated};

/// The table, a row on a line.
#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    translated("global", "virtual virtual6", "VirtualService", ""),
    translated("global virtual", "checktimeout", "VirtualService spec.healthChecks[].timeoutSeconds", "of checks that connect or ping"),
    translated("global virtual", "negotiatetimeout", "VirtualService spec.healthChecks[].timeoutSeconds", "of checks that negotiate"),
    translated("global virtual", "checkinterval", "VirtualService spec.healthChecks[].periodSeconds", "from start to start; every real server is asked for itself, not one after the other"),
    translated("global virtual", "checkcount", "VirtualService spec.healthChecks[].failureThreshold", "of pings"),
    translated("global virtual", "failurecount", "VirtualService spec.healthChecks[].failureThreshold", ""),
    translated("global virtual", "fallback fallback6", "VirtualService spec.sorryServer", ""),
    replaced("global virtual", "fallbackcommand", "", "condition Ready and Events of the VirtualService; nothing is run"),
    translated("global virtual", "quiescent", "VirtualService spec.onFailure", "Quiesce, which is ldirectord's default, or Remove"),
    not_offered("global virtual", "readdquiescent", "what somebody takes out of the kernel is put back within seconds: set administrativeState of the RealServer"),
    replaced("global virtual", "cleanstop", "", "an agent that ends leaves the kernel as it is; deleting the object cleans up"),
    replaced("global virtual", "emailalert emailalertfrom emailalertfreq emailalertstatus smtp", "", "alert rules over the metrics of controller and agents; Events"),
    replaced("global", "autoreload callback", "", "objects take effect when they are applied, on every director"),
    replaced("global", "execute supervised fork", "", "the agent is a pod, and asks everybody at the same time"),
    replaced("global virtual", "logfile monitorfile", "", "agents log each change; the status of a RealServer says since when and why"),
    replaced("global", "maintenancedir", "RealServer spec.administrativeState", "Disabled is what a file of the host did; Draining lets connections end first"),
    // Within virtual.
    translated("virtual", "real real6", "RealServer spec.target", "each address of a range is one; a whole name is one for all its addresses in the DNS; a request of its own is RealServer spec.healthChecks"),
    translated("virtual", "checktype", "VirtualService spec.healthChecks", ""),
    translated("virtual", "service", "VirtualService spec.healthChecks[].type", ""),
    not_offered("virtual", "checkcommand", "directors run no scripts: put it behind a web server and ask it by type ExternalHTTP, which the report shows, or choose another type of healthChecks"),
    translated("virtual", "checkport", "VirtualService spec.healthChecks[].port", ""),
    translated("virtual", "request", "VirtualService spec.healthChecks[].http.path, dns.name", ""),
    translated("virtual", "receive", "VirtualService spec.healthChecks[].http.body, dns.answers", ""),
    translated("virtual", "httpmethod", "VirtualService spec.healthChecks[].http.method", ""),
    translated("virtual", "virtualhost", "VirtualService spec.healthChecks[].http.host", ""),
    translated("virtual", "login", "VirtualService spec.healthChecks[].mysql.user, postgresql.user", "with a password both go to the Secret of credentialsName"),
    changed("virtual", "passwd secret", "VirtualService spec.healthChecks[].credentialsName", "passwords are in the Secret that agents are given, not in the object that many may read"),
    translated("virtual", "database", "VirtualService spec.healthChecks[].postgresql.database", ""),
    not_offered("virtual", "load", "ldirectord itself no longer uses it"),
    translated("virtual", "scheduler", "VirtualService spec.scheduler.name", "wrr is ldirectord's default"),
    translated("virtual", "schedflags", "VirtualService spec.scheduler.options", "sh-fallback and mh-fallback are always on"),
    translated("virtual", "persistent", "VirtualService spec.persistence.timeoutSeconds", ""),
    translated("virtual", "netmask", "VirtualService spec.persistence.ipv4PrefixLength, ipv6PrefixLength", ""),
    translated("virtual", "protocol", "VirtualService spec.ports[].protocol", ""),
    translated("virtual", "ops", "VirtualService spec.packetScheduling", ""),
    not_offered("virtual", "servicename comment", "they are for mails: use metadata.annotations as you like"),
];
