//! What is asked of a sysctl, in the kernel's own terms of how values combine.

use lvs_crds::value::AddressFamily;

use super::Builder;
use crate::host::SysctlKey;
use crate::object::Object;

/// What is asked of one sysctl. A value that serves already is never changed, and none is ever lowered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SysctlDemand {
    /// This value.
    Exactly(u32),
    /// These two values, for a setting that has two.
    ExactlyPair(u32, u32),
    /// At least this value **in effect**, where the kernel takes the greater of the device's and `all`'s
    /// (`IN_DEV_MAXCONF`, include/linux/inetdevice.h: arp_ignore, arp_announce, rp_filter).
    InEffectAtLeast(u32),
    /// `rp_filter`: strict (1) in effect becomes loose (2). Off stays off.
    LooseIfStrict,
    /// `accept_ra`: 1 becomes 2 on devices, and only while IPv6 forwarding is on because of us. A forwarding node
    /// ignores router advertisements unless it is 2, and turning forwarding on drops the routes learned from them
    /// (`rt6_purge_dflt_routers`, net/ipv6/route.c).
    KeepAdvertisements,
    /// Not written, but put back as it was when the setting named here is restored, because the kernel changes it
    /// along with that one to the value given (`inet_forward_change`, net/ipv4/devinet.c; `addrconf_forward_change`,
    /// net/ipv6/addrconf.c).
    Preserve {
        /// What it becomes when forwarding is switched off.
        becomes: u32,
        /// Family whose forwarding switch changes it.
        family: AddressFamily,
    },
}

impl SysctlDemand {
    /// The other setting that must be read to judge this one.
    pub fn weighed_against(self, key: &SysctlKey) -> Option<SysctlKey> {
        match self {
            Self::InEffectAtLeast(_) | Self::LooseIfStrict => key.for_all_devices(),
            Self::KeepAdvertisements => Some(forwarding_switch(AddressFamily::IPv6)),
            Self::Preserve { family, .. } => Some(forwarding_switch(family)),
            Self::Exactly(_) | Self::ExactlyPair(..) => None,
        }
    }
}

/// The sysctl that turns forwarding on for the whole node.
pub(crate) fn forwarding_switch(family: AddressFamily) -> SysctlKey {
    match family {
        AddressFamily::IPv4 => SysctlKey("net/ipv4/ip_forward".to_owned()),
        AddressFamily::IPv6 => SysctlKey::of_device(AddressFamily::IPv6, "all", "forwarding"),
    }
}

impl Builder<'_> {
    pub(super) fn demand(&mut self, key: SysctlKey, demand: SysctlDemand) {
        self.claim(Object::Sysctl(key.clone()));
        self.state.host.sysctls.insert(key, demand);
    }

    /// Devices that may answer or ask by ARP for an address that nobody is to be told of: answer only for addresses
    /// of the receiving device (arp_ignore=1), ask only as the best own address (arp_announce=2). Set per device, as
    /// `all` would also change devices of the container network.
    pub(super) fn demand_quiet_arp(&mut self) {
        for (name, value) in [("arp_ignore", 1), ("arp_announce", 2)] {
            for device in self.neighbour_devices(AddressFamily::IPv4, name) {
                self.demand(
                    SysctlKey::of_device(AddressFamily::IPv4, &device, name),
                    SysctlDemand::InEffectAtLeast(value),
                );
            }
        }
    }

    /// Forwarding between devices, which the replies of NAT real servers need. DR and TUN do not: IPVS takes their
    /// packets from LOCAL_IN and sends them as locally made.
    pub(super) fn demand_forwarding(&mut self, family: AddressFamily) {
        self.demand(forwarding_switch(family), SysctlDemand::Exactly(1));
        // The switch moves every device's setting, addresses or not.
        let forwarding_off = SysctlDemand::Preserve { becomes: 0, family };
        let devices: Vec<&str> = self
            .host
            .links
            .keys()
            .map(String::as_str)
            .filter(|device| !crate::host::is_our_device(device))
            .chain(["default"])
            .collect();
        for device in devices {
            self.state.host.sysctls.insert(
                SysctlKey::of_device(family, device, "forwarding"),
                forwarding_off,
            );
        }
        match family {
            AddressFamily::IPv4 => self.demand(
                SysctlKey::of_device(family, "all", "accept_redirects"),
                SysctlDemand::Preserve { becomes: 1, family },
            ),
            AddressFamily::IPv6 => {
                for device in self.neighbour_devices(family, "accept_ra") {
                    self.demand(
                        SysctlKey::of_device(family, &device, "accept_ra"),
                        SysctlDemand::KeepAdvertisements,
                    );
                }
            }
        }
    }

    /// No ICMP redirects from a director: they would tell a host to pass it by. The kernel ORs `all` and the
    /// device's (`IN_DEV_TX_REDIRECTS`), so both must be 0.
    pub(super) fn demand_no_redirects(&mut self) {
        let family = AddressFamily::IPv4;
        let devices = self.neighbour_devices(family, "send_redirects");
        for device in devices.into_iter().chain(["all".to_owned()]) {
            self.demand(
                SysctlKey::of_device(family, &device, "send_redirects"),
                SysctlDemand::Exactly(0),
            );
        }
    }
}
