//! Health checks through virtual addresses: their services, and what lets their answers in.

use lvs_crds::condition::Reason;
use lvs_crds::value::AddressFamily;

use super::{Builder, SysctlDemand};
use crate::health::passages_of;
use crate::host::SysctlKey;
use crate::object::Object;

impl Builder<'_> {
    /// Plans with the same real server share a passage.
    pub(super) fn passages(&mut self) {
        let passages = &self.serving.passages;
        let mut without = 0_usize;
        for passage in passages_of(&self.plan.spec) {
            let ipv4 = passage.family == AddressFamily::IPv4 && passage.real_server.is_ipv4();
            if !ipv4 && !self.host.ipv6 {
                continue;
            }
            if passage.family == AddressFamily::IPv4 {
                self.demand_own_sources();
            }
            if passages.is_without_mark(&passage) {
                without += 1;
            }
            if let Some(mark) = passages.mark(&passage) {
                let key = passage.key(mark);
                self.state.services.insert(key, passage.service());
                self.claim(Object::Service(key));
            }
        }
        if without > 0 {
            self.problem(
                Reason::FirewallMarkExhausted,
                format!(
                    "no firewall mark is left for {without} real servers that are checked through virtual addresses: widen the \
                     agent's --health-check-mark-range"
                ),
            );
        }
    }

    /// The answer to a check comes from the virtual address, which on its holder is an address of the node itself, and so it
    /// is on a node that is a real server too. IPv4 takes such a packet for a forged one (`__fib_validate_source`,
    /// net/ipv4/fib_frontend.c) unless it is told to accept it, and the strict source check does always where the address is
    /// on another device. IPv6 has neither. It is set on every director, so that a takeover has nothing to write.
    fn demand_own_sources(&mut self) {
        let family = AddressFamily::IPv4;
        for device in self.neighbour_devices(family, "accept_local") {
            let key = |name| SysctlKey::of_device(family, &device, name);
            self.demand(key("accept_local"), SysctlDemand::Exactly(1));
            self.demand(key("rp_filter"), SysctlDemand::LooseIfStrict);
        }
    }
}
