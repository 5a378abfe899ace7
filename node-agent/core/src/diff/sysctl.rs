//! Sysctls: set what does not serve, put back what nobody wants any more, and only if it is still as we left it.

use std::collections::BTreeSet;

use lvs_crds::condition::Reason;
use lvs_crds::value::AddressFamily;

use super::Walk;
use crate::desired::{SysctlDemand, forwarding_switch};
use crate::host::{SysctlKey, is_our_device};
use crate::journal::SysctlRecord;
use crate::object::Object;
use crate::op::{HostOp, Op};

/// Operations on sysctls.
#[derive(Default)]
pub(super) struct SysctlOps {
    /// Values to set.
    pub set: Vec<Op>,
    /// Originals to put back.
    pub restore: Vec<Op>,
    /// ARP settings that cannot be had: an IPv4 address must not appear while there are any.
    pub unmet_arp: bool,
}

/// How a demand stands.
enum Standing {
    /// Serves as it is.
    Met,
    /// To be set to this value.
    Unmet(String),
    /// Cannot be met, for this reason.
    Impossible(Reason, String),
}

impl Walk<'_> {
    pub(super) fn sysctls(&mut self) -> SysctlOps {
        let mut ops = SysctlOps::default();
        let ours = self.switches_of_ours();
        let mut set: Vec<(u8, &SysctlKey, String)> = Vec::new();
        for (key, demand) in &self.desired.host.sysctls {
            if let SysctlDemand::Preserve { becomes, family } = demand {
                self.preserve(key, *becomes, *family, &ours);
                continue;
            }
            match self.standing(key, *demand, &ours) {
                Standing::Met => {}
                Standing::Unmet(value) => {
                    if let Some(original) = self.value(key)
                        && !key.device().is_some_and(is_our_device)
                    {
                        let record = SysctlRecord {
                            original: original.to_owned(),
                            written: Some(value.clone()),
                        };
                        self.diff.sysctl_records.insert(key.clone(), record);
                    }
                    set.push((set_order(key), key, value));
                }
                Standing::Impossible(reason, message) => {
                    ops.unmet_arp |= key.is_arp();
                    self.problem(&Object::Sysctl(key.clone()), reason, &message);
                }
            }
        }
        set.sort();
        ops.set = set
            .into_iter()
            .map(|(_, key, value)| write(key, value))
            .collect();
        ops.restore = self.restore();
        ops
    }

    /// Value without surrounding blanks; `None` = no such file, or not read.
    fn value(&self, key: &SysctlKey) -> Option<&str> {
        self.observed
            .host
            .sysctls
            .get(key)
            .and_then(|value| value.as_deref())
            .map(str::trim)
    }

    fn number(&self, key: &SysctlKey) -> Option<u32> {
        self.value(key).and_then(|value| value.parse().ok())
    }

    /// Families whose forwarding is, or is about to be, switched on by us; `true` = about to be.
    fn switches_of_ours(&self) -> Vec<(AddressFamily, bool)> {
        [AddressFamily::IPv4, AddressFamily::IPv6]
            .into_iter()
            .filter_map(|family| {
                let key = forwarding_switch(family);
                let demanded = self.desired.host.sysctls.contains_key(&key);
                let journaled = self.journal.sysctls.contains_key(&key);
                match (demanded, journaled, self.number(&key)) {
                    (true, true, _) => Some((family, false)),
                    (true, false, Some(0)) => Some((family, true)),
                    _ => None,
                }
            })
            .collect()
    }

    /// Note the value of a setting that the kernel is about to change along with forwarding, where switching
    /// forwarding off again would not bring it back.
    fn preserve(
        &mut self,
        key: &SysctlKey,
        becomes: u32,
        family: AddressFamily,
        ours: &[(AddressFamily, bool)],
    ) {
        let about_to_change = ours.contains(&(family, true));
        if let Some(original) = self.value(key)
            && about_to_change
            && self.number(key) != Some(becomes)
            && !self.journal.sysctls.contains_key(key)
        {
            let record = SysctlRecord {
                original: original.to_owned(),
                written: None,
            };
            self.diff.sysctl_records.insert(key.clone(), record);
        }
    }

    /// The greater of a device's value and that of `all`.
    fn in_effect(&self, key: &SysctlKey, own: u32) -> u32 {
        let all = key.for_all_devices().and_then(|all| self.number(&all));
        own.max(all.unwrap_or(0))
    }

    fn standing(
        &self,
        key: &SysctlKey,
        demand: SysctlDemand,
        ours: &[(AddressFamily, bool)],
    ) -> Standing {
        let wanted = match demand {
            SysctlDemand::Exactly(value) | SysctlDemand::InEffectAtLeast(value) => value,
            SysctlDemand::KeepAdvertisements | SysctlDemand::LooseIfStrict => 2,
            SysctlDemand::ExactlyPair(..) => 0,
            SysctlDemand::Preserve { .. } => return Standing::Met,
        };
        let unmet = |value: u32| Standing::Unmet(value.to_string());
        if let Some(device) = key.device()
            && let Some(kind) = self.desired.host.links.get(device)
        {
            match self.observed.host.links.get(device) {
                // Comes with the device that is about to be made.
                None => return unmet(wanted),
                // In the way of ours; that is said of the device.
                Some(link) if !self.is_ours(device, link) => return Standing::Met,
                Some(link) if link.kind != Some(*kind) => return unmet(wanted),
                Some(_) => {}
            }
        }
        match self.observed.host.sysctls.get(key) {
            Some(Some(_)) => {}
            Some(None) => return Standing::Impossible(reason_of_absence(key), absence(key)),
            None => {
                return Standing::Impossible(
                    Reason::ObservationFailed,
                    format!("sysctl {key} was not read"),
                );
            }
        }
        if let SysctlDemand::ExactlyPair(first, second) = demand {
            let wanted = format!("{first} {second}");
            return if self.value(key) == Some(wanted.as_str()) {
                Standing::Met
            } else {
                Standing::Unmet(wanted)
            };
        }
        let Some(own) = self.number(key) else {
            return Standing::Impossible(
                Reason::KernelError,
                format!(
                    "sysctl {key} holds {:?}, which is not a number",
                    self.value(key).unwrap_or_default()
                ),
            );
        };
        match demand {
            SysctlDemand::Exactly(value) if own != value => unmet(value),
            SysctlDemand::LooseIfStrict if self.in_effect(key, own) == 1 => unmet(2),
            SysctlDemand::InEffectAtLeast(value) => {
                let effective = self.in_effect(key, own);
                if effective < value {
                    unmet(value)
                } else if key.name() == "arp_ignore" && (3..=7).contains(&effective) {
                    // arp_ignore(), net/ipv4/arp.c: 3 answers for addresses of global scope, 4 to 7 for all.
                    Standing::Impossible(
                        Reason::ForeignObject,
                        format!(
                            "sysctl {key} is {effective} in effect, which lets this node answer ARP for virtual addresses; 1, 2 and 8 do not"
                        ),
                    )
                } else {
                    Standing::Met
                }
            }
            SysctlDemand::KeepAdvertisements
                if own == 1
                    && ours
                        .iter()
                        .any(|(family, _)| *family == AddressFamily::IPv6) =>
            {
                unmet(2)
            }
            SysctlDemand::Exactly(_)
            | SysctlDemand::ExactlyPair(..)
            | SysctlDemand::KeepAdvertisements
            | SysctlDemand::LooseIfStrict
            | SysctlDemand::Preserve { .. } => Standing::Met,
        }
    }

    /// Forwarding first, as it changes others, then those others, then the rest.
    fn restore(&self) -> Vec<Op> {
        let switches = [AddressFamily::IPv4, AddressFamily::IPv6].map(forwarding_switch);
        let mut switched_off: BTreeSet<&SysctlKey> = BTreeSet::new();
        let mut restored: Vec<(u8, &SysctlKey, &str)> = Vec::new();
        let undemanded = || {
            self.journal
                .sysctls
                .iter()
                .filter(|(key, _)| !self.desired.host.sysctls.contains_key(*key))
        };
        for (key, record) in undemanded() {
            if let Some(written) = &record.written
                && let Some(value) = self.value(key)
                && value == written
                && value != record.original
            {
                let order = if switches.contains(key) {
                    switched_off.insert(key);
                    0
                } else {
                    2
                };
                restored.push((order, key, &record.original));
            }
        }
        for (key, record) in undemanded() {
            if record.written.is_none()
                && let Some(value) = self.value(key)
            {
                let family = if key.0.starts_with("net/ipv6/") {
                    AddressFamily::IPv6
                } else {
                    AddressFamily::IPv4
                };
                if value != record.original || switched_off.contains(&forwarding_switch(family)) {
                    restored.push((1, key, &record.original));
                }
            }
        }
        restored.sort();
        restored
            .into_iter()
            .map(|(_, key, value)| write(key, value.to_owned()))
            .collect()
    }
}

/// `accept_ra` before forwarding, forwarding before what the kernel changes along with it.
fn set_order(key: &SysctlKey) -> u8 {
    u8::from(!key.is_accept_ra())
}

fn reason_of_absence(key: &SysctlKey) -> Reason {
    if key.0.starts_with("net/ipv4/vs/") {
        Reason::KernelModuleMissing
    } else if key.0.starts_with("net/ipv6/") {
        Reason::IPv6Unavailable
    } else {
        Reason::InterfaceNotFound
    }
}

fn absence(key: &SysctlKey) -> String {
    if reason_of_absence(key) == Reason::KernelModuleMissing {
        return format!("sysctl {key} does not exist: kernel module ip_vs is not loaded");
    }
    format!("sysctl {key} does not exist on this node")
}

fn write(key: &SysctlKey, value: String) -> Op {
    Op::Host(HostOp::SetSysctl {
        key: key.clone(),
        value,
    })
}
