//! Who serves the clients of a VirtualService while its real servers are too few.

use std::net::IpAddr;

use lvs_crds::VirtualServiceSpec;
use lvs_crds::condition::{ConditionType, Reason};
use lvs_crds::traffic_policy::{PlannedSorryServer, SorryServer, SorryServerType};
use lvs_crds::value::{AddressFamily, Forwarding, ForwardingType};

use crate::address_range::parse_address;
use crate::report::Verdict;
use crate::source_nat;
use crate::target::{self, Context};

/// The sorry server that a VirtualService may use, if it has one: its address, or `None` for the director itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permitted {
    address: Option<IpAddr>,
}

/// Whether the namespace may send clients there, as for a real server.
pub fn permitted(context: &Context<'_>) -> Result<Option<Permitted>, Verdict> {
    let Some(sorry_server) = &context.spec.sorry_server else {
        return Ok(None);
    };
    let Some(host) = &sorry_server.address else {
        return Ok(Some(Permitted { address: None }));
    };
    let refuse = |reason, why: String| {
        let message = format!("spec.sorryServer.address.address: {why}");
        Verdict::bad(ConditionType::ResolvedRefs, reason, message)
    };
    let Some(address) = parse_address(&host.address) else {
        let why = format!("{:?} is no IP address in its plain spelling", host.address);
        return Err(refuse(Reason::Invalid, why));
    };
    if let Some(why) = target::obstacle(context, &address) {
        return Err(refuse(Reason::TargetNotPermitted, why));
    }
    let forwarding = host.forwarding.as_ref().unwrap_or(&context.spec.forwarding);
    let field = "spec.sorryServer.address.forwarding";
    let families = source_nat::families(context, forwarding, field)?;
    if families.is_some_and(|families| !families.contains(&AddressFamily::of(&address))) {
        return Err(source_nat::no_address(context, forwarding, field, &address));
    }
    Ok(Some(Permitted {
        address: Some(address),
    }))
}

/// The sorry server of a service of one family that begins at `port`; 0 = all ports or a mark. `None` where it is of
/// the other family.
pub fn plan(
    spec: &VirtualServiceSpec,
    permitted: Permitted,
    family: AddressFamily,
    port: u16,
) -> Option<PlannedSorryServer> {
    let sorry_server = spec.sorry_server.as_ref()?;
    if permitted
        .address
        .is_some_and(|address| AddressFamily::of(&address) != family)
    {
        return None;
    }
    let asked = port_asked(sorry_server).unwrap_or(port);
    let given = sorry_server
        .address
        .as_ref()
        .map(|host| host.forwarding.clone());
    let forwarding = match (sorry_server.type_, given) {
        (SorryServerType::Address, Some(given)) => given.unwrap_or_else(|| spec.forwarding.clone()),
        // The director takes the packets as they are, or translates the port.
        _ => Forwarding {
            type_: if asked == port {
                ForwardingType::DR
            } else {
                ForwardingType::NAT
            },
            tunnel: None,
            full_nat: None,
        },
    };
    Some(PlannedSorryServer {
        address: permitted.address,
        port: asked,
        forwarding,
    })
}

fn port_asked(sorry_server: &SorryServer) -> Option<u16> {
    let of_host = sorry_server.address.as_ref().and_then(|host| host.port);
    sorry_server.port.or(of_host)
}
