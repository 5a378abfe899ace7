//! What `ipvsadm -Sn` (1.31) prints for given rules.

use lvs_core::ipvs::{Destination, DestinationForwarding, DestinationTunnel, ServiceKey, Services};
use lvs_core::op::IpvsOp;

/// Its lines, sorted: it sorts by other things than our keys do.
pub fn saved(services: &Services) -> Vec<String> {
    let mut lines = Vec::new();
    for (key, state) in services {
        let mut text = line(*key, &IpvsOp::AddService(*key, state.service.clone()));
        // Where it names the flags of a scheduler it leaves out a third one.
        if matches!(state.service.scheduler.as_str(), "sh" | "mh") {
            text = text.replace(",flag-3", "").replace("flag-3", "");
        }
        lines.push(text);
        for (target, destination) in &state.destinations {
            // It saves no thresholds.
            let shown = Destination {
                upper_threshold: 0,
                lower_threshold: 0,
                ..*destination
            };
            let mut text = line(*key, &IpvsOp::AddDestination(*key, *target, shown));
            // And names a tunnel's type also where it is the default.
            if shown.forwarding == DestinationForwarding::Tunnel(DestinationTunnel::IpIp) {
                text.push_str(" --tun-type ipip");
            }
            lines.push(text);
        }
    }
    lines.sort();
    lines
}

/// It prints marks as signed numbers.
fn line(key: ServiceKey, operation: &IpvsOp) -> String {
    let text = operation.to_string();
    match key {
        ServiceKey::FirewallMark { mark, .. } if mark > i32::MAX.unsigned_abs() => text.replacen(
            &format!("-f {mark}"),
            &format!("-f {}", mark.cast_signed()),
            1,
        ),
        _ => text,
    }
}
