//! How connections survive a takeover: what the directors of a router are told, and which services stand against it.

use std::collections::BTreeMap;

use lvs_crds::VirtualServiceSpec;
use lvs_crds::condition::{ConditionType, Reason};
use lvs_crds::connection_sync::{ConnectionSyncType, PlannedConnectionSync, PlannedSyncDaemon};
use lvs_crds::value::{SchedulerName, SchedulerOption};
use lvs_crds::virtual_router::VirtualRouterSpec;

use crate::address_range::parse_address;
use crate::report::Verdict;
use crate::router::Router;

/// What a router asks for; `None` = nothing. The error says what contradicts itself.
pub fn read(spec: &VirtualRouterSpec) -> Result<Option<PlannedConnectionSync>, String> {
    let type_ = spec.connection_sync.type_;
    let settings = match (type_, &spec.connection_sync.daemon) {
        (ConnectionSyncType::None, None) => return Ok(None),
        (ConnectionSyncType::Stateless, None) => {
            return Ok(Some(PlannedConnectionSync {
                type_,
                daemon: None,
            }));
        }
        (ConnectionSyncType::Daemon, Some(settings)) => settings,
        _ => {
            return Err(
                "spec.connectionSync.daemon: set it with type Daemon, and with no other type"
                    .to_owned(),
            );
        }
    };
    let field = "spec.connectionSync.daemon";
    let mut interfaces = spec.interfaces.iter();
    let Some(interface) = interfaces.find(|known| known.name == settings.interface_name) else {
        return Err(format!(
            "{field}.interfaceName {:?} is not among spec.interfaces: add it there",
            settings.interface_name
        ));
    };
    let Some(group) = parse_address(&settings.group).filter(std::net::IpAddr::is_multicast) else {
        return Err(format!(
            "{field}.group {:?} is no multicast address in its plain spelling",
            settings.group
        ));
    };
    Ok(Some(PlannedConnectionSync {
        type_,
        daemon: Some(PlannedSyncDaemon {
            devices: interface.devices.clone(),
            sync_id: settings.sync_id,
            group,
            port: settings.port,
            ttl: settings.ttl,
            maximum_length: settings.maximum_length,
        }),
    }))
}

/// Whether connections through a router must find their real server without state.
pub fn needs_stateless(router: &Router<'_>) -> bool {
    let planned = router.connection_sync.as_ref();
    planned.is_some_and(|planned| planned.type_ == ConnectionSyncType::Stateless)
}

/// Whether a director that knows nothing of a service's connections sends each to where another director sent it, and
/// if not, why.
pub fn is_stateless(spec: &VirtualServiceSpec, router: &str) -> Result<(), Verdict> {
    let scheduler = &spec.scheduler;
    let hashes = matches!(scheduler.name, SchedulerName::Mh | SchedulerName::Sh);
    let by_port = scheduler
        .options
        .iter()
        .any(|option| matches!(option, SchedulerOption::MhPort | SchedulerOption::ShPort));
    // A persistence template is state: it is as good as none only where the hash alone makes the same.
    let remembers = spec.persistence.as_ref().is_some_and(|persistence| {
        by_port
            || persistence.engine.is_some()
            || persistence.ipv4_prefix_length != 32
            || persistence.ipv6_prefix_length != 128
    });
    let what = if !hashes {
        format!(
            "spec.scheduler.name: {} decides by what a director remembers; use mh",
            scheduler.name.as_str()
        )
    } else if remembers {
        "spec.persistence: what a director remembers of a client decides; remove persistence (mh without mh-port \
         keeps a client on its real server), or use whole addresses and neither engine nor a port in the hash"
            .to_owned()
    } else {
        return Ok(());
    };
    Err(Verdict::bad(
        ConditionType::Programmed,
        Reason::SchedulerNotStateless,
        format!(
            "connections break when another director takes over: VirtualRouter {router} has connectionSync type \
             Stateless and {what}"
        ),
    ))
}

/// Directors whose kernels would send the same connection to different real servers. `hashes` are those of the
/// directors' tables, by node.
pub fn table_mismatch(hashes: &BTreeMap<&str, &str>) -> Option<Verdict> {
    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (node, hash) in hashes {
        groups.entry(hash).or_default().push(node);
    }
    if groups.len() < 2 {
        return None;
    }
    let groups: Vec<String> = groups
        .iter()
        .map(|(hash, nodes)| format!("{} ({hash})", nodes.join(", ")))
        .collect();
    Some(Verdict::bad(
        ConditionType::Programmed,
        Reason::TableMismatch,
        format!(
            "directors hold different tables, so that a takeover breaks connections: {}; compare ipvsadm -Ln on them, \
             and see which schedulers their kernels have",
            groups.join(" and ")
        ),
    ))
}
