//! The addresses of a name as real servers of one VirtualService.
//!
//! Every address is a real server of its own, with weight, limits and administrative state of the RealServer. An answer
//! brings and takes addresses; what is no answer, or one without addresses, takes none: those that the DNS named last
//! stay, and before it said anything, those of the stored plans.

use std::collections::BTreeSet;
use std::net::IpAddr;

use lvs_crds::condition::{ConditionType, Reason};
use lvs_crds::real_server::RealServerSpec;
use lvs_crds::value::AddressFamily;

use crate::dns_name::{ADDRESSES_MAXIMUM, DnsName, LastAnswer};
use crate::expansion;
use crate::input::ObjectKey;
use crate::report::Verdict;
use crate::target::{self, Context, Target};

/// Addresses that a message names.
const ADDRESSES_IN_MESSAGE: usize = 3;

/// One RealServer for one VirtualService, while its addresses are judged.
struct Expansion<'a, 'b> {
    context: &'a Context<'b>,
    key: &'a ObjectKey,
    name: &'a str,
    addresses: BTreeSet<IpAddr>,
    problems: &'a mut Vec<Verdict>,
}

/// Real servers behind a RealServer with target type DNSName, at most `room`, by address.
pub(crate) fn expand(
    context: &Context<'_>,
    key: &ObjectKey,
    spec: &RealServerSpec,
    room: usize,
    problems: &mut Vec<Verdict>,
) -> Vec<Target> {
    let Some(target) = &spec.target.dns_name else {
        return Vec::new();
    };
    let mut expansion = Expansion {
        context,
        key,
        name: &target.name,
        addresses: BTreeSet::new(),
        problems,
    };
    expansion.gather();
    if expansion.addresses.is_empty() {
        return Vec::new();
    }
    expansion.keep_permitted();
    expansion.cut(room);
    let addresses = expansion.addresses;
    let forwarding = expansion::forwarding(context, spec);
    let ports = target::ports(context, key, spec, &forwarding, problems);
    let target = |address| Target {
        ports: ports.clone(),
        ..expansion::target(key, spec, address, &forwarding)
    };
    addresses.into_iter().map(target).collect()
}

impl Expansion<'_, '_> {
    fn refuse(&mut self, condition: ConditionType, reason: Reason, message: String) {
        self.problems.push(Verdict::bad(condition, reason, message));
    }

    /// Collects the addresses of every family that the VirtualService has, and says what is not known of them.
    fn gather(&mut self) {
        let nothing = DnsName::default();
        let known = self.context.inputs.dns_names.get(self.name);
        let known = known.map_or(&nothing, AsRef::as_ref);
        let mut families = expansion::families(self.context);
        if families.is_empty() {
            families = [AddressFamily::IPv4, AddressFamily::IPv6].into();
        }
        let planned = expansion::planned(self.context, self.key);
        let (mut kept, mut causes) = (BTreeSet::new(), BTreeSet::new());
        let (mut is_failed, mut is_asked) = (false, false);
        for family in families {
            let records = known.of(family);
            let last = records.addresses.clone().unwrap_or_else(|| {
                let mut planned = planned.clone();
                planned.retain(|address| AddressFamily::of(address) == family);
                planned
            });
            let cause = match &records.last_answer {
                LastAnswer::NotAsked | LastAnswer::Addresses => None,
                LastAnswer::NoRecords => Some(format!("it has no {} record", record(family))),
                LastAnswer::NoSuchName => Some("there is no such name (NXDOMAIN)".to_owned()),
                LastAnswer::Failed(why) => Some(why.clone()),
            };
            is_asked |= records.last_answer != LastAnswer::NotAsked;
            if let Some(cause) = cause {
                is_failed |= matches!(records.last_answer, LastAnswer::Failed(_));
                kept.extend(&last);
                causes.insert(cause);
            }
            if records.left_out > 0 && records.last_answer == LastAnswer::Addresses {
                let message = format!(
                    "spec.target.dnsName: {} of {} addresses of {} are left out, as a name takes {ADDRESSES_MAXIMUM} of a \
                     family: spread them over several names, each with a RealServer",
                    records.left_out,
                    records.left_out + last.len(),
                    self.name
                );
                self.refuse(ConditionType::Accepted, Reason::TooManyEndpoints, message);
            }
            self.addresses.extend(last);
        }
        let causes = causes.into_iter().collect::<Vec<_>>().join("; ");
        let told = if !kept.is_empty() {
            let (noun, verb) = if kept.len() == 1 {
                ("address", "stays")
            } else {
                ("addresses", "stay")
            };
            format!("{causes}; the last {noun} {} {verb}", in_words(&kept))
        } else if self.addresses.is_empty() && !is_asked {
            "it has not been asked for yet".to_owned()
        } else if self.addresses.is_empty() && !is_failed {
            format!("{causes}: correct the name, or add a record in the DNS")
        } else if is_failed {
            causes
        } else {
            // That a name has addresses of one family only is as it may be.
            return;
        };
        let message = format!("spec.target.dnsName: {}: {told}", self.name);
        self.refuse(
            ConditionType::ResolvedRefs,
            Reason::DnsNameNotResolved,
            message,
        );
    }

    /// Leaves out what the namespace may not aim at, whoever writes the records.
    fn keep_permitted(&mut self) {
        let count = self.addresses.len();
        let (permitted, why) = expansion::permitted(self.context, self.addresses.iter().copied());
        if let Some(why) = why {
            let message = format!(
                "spec.target.dnsName: {} of {count} addresses of {} are left out: {why}",
                count - permitted.len(),
                self.name
            );
            self.refuse(ConditionType::Accepted, Reason::TargetNotPermitted, message);
        }
        self.addresses = permitted;
    }

    /// Leaves out what is too much for the plan: first who is not planned yet, so that those who have clients do not give
    /// way to new ones.
    fn cut(&mut self, room: usize) {
        let count = self.addresses.len();
        if count <= room {
            return;
        }
        let planned = expansion::planned(self.context, self.key);
        let mut ranked: Vec<_> = self
            .addresses
            .iter()
            .map(|address| (!planned.contains(address), *address))
            .collect();
        ranked.sort_unstable();
        self.addresses = ranked.iter().take(room).map(|ranked| ranked.1).collect();
        let message = format!(
            "spec.target.dnsName: {} of {count} addresses of {} are left out, as the plan of VirtualService {} has no room \
             for more: give it fewer ports, addresses or RealServers",
            count - room,
            self.name,
            self.context.key.name
        );
        self.refuse(ConditionType::Accepted, Reason::TooManyEndpoints, message);
    }
}

/// Record type of addresses of a family.
fn record(family: AddressFamily) -> &'static str {
    match family {
        AddressFamily::IPv4 => "A",
        AddressFamily::IPv6 => "AAAA",
    }
}

/// The first few, and how many more there are.
fn in_words(addresses: &BTreeSet<IpAddr>) -> String {
    let shown = addresses.iter().take(ADDRESSES_IN_MESSAGE);
    let shown: Vec<_> = shown.map(ToString::to_string).collect();
    match addresses.len().saturating_sub(ADDRESSES_IN_MESSAGE) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
