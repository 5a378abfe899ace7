//! Where the judges are whom checks of type ExternalHTTP ask.
//!
//! Which address directors connect to is decided here and stands in the plan, so that it is the one that was found to be
//! granted, whatever the DNS says a moment later. What is no answer of the DNS changes nothing, and of several addresses the
//! one that is planned stays. A check whose judge is nowhere stays in the plan without an address: it is not asked, which
//! neither takes a real server away nor brings one in.

use std::collections::BTreeSet;
use std::net::IpAddr;

use lvs_crds::condition::{ConditionType, Reason};
use lvs_crds::health_check::{ExternalHttpCheck, HealthCheck, JudgeHost};
use lvs_crds::node_plan::DirectorPlan;

use crate::address_range::parse_address;
use crate::dns_name::LastAnswer;
use crate::report::Verdict;
use crate::target::{self, Context};

/// Puts into each such check of a plan the address of its judge. Why there is none is told in `problems`.
pub fn resolve(context: &Context<'_>, plan: &mut DirectorPlan, problems: &mut Vec<Verdict>) {
    for check in &mut plan.checks {
        let Some(external) = check.external_http.clone() else {
            continue;
        };
        let found = find(context, check, &external);
        check.address = found.as_ref().ok().map(ToString::to_string);
        if let Err((condition, reason, why)) = found {
            let mut own = context.spec.health_checks.iter();
            let whose = if own.any(|own| own.name == check.name) {
                format!("spec.healthChecks[{}]", check.name)
            } else {
                "healthChecks of a RealServer".to_owned()
            };
            let message = format!(
                "{whose}.externalHTTP.url: {why}; until then its judge is not asked, and what is up or down stays so"
            );
            let verdict = Verdict::bad(condition, reason, message);
            if !problems.contains(&verdict) {
                problems.push(verdict);
            }
        }
    }
}

type Fault = (ConditionType, Reason, String);

/// The address of a judge, or why there is none.
fn find(
    context: &Context<'_>,
    check: &HealthCheck,
    external: &ExternalHttpCheck,
) -> Result<IpAddr, Fault> {
    let invalid = |why| (ConditionType::ResolvedRefs, Reason::Invalid, why);
    let not_permitted = |why| (ConditionType::ResolvedRefs, Reason::TargetNotPermitted, why);
    let host = if let Some(text) = &check.address {
        let address = parse_address(text).map(JudgeHost::Address);
        let why = || format!("address {text:?} is no IP address in its plain spelling");
        address.ok_or_else(|| invalid(why()))?
    } else {
        let why = || format!("{:?} is no URL of HTTP: correct it", external.url);
        let judge = external.judge();
        judge.ok_or_else(|| invalid(why()))?.host
    };
    let name = match host {
        JudgeHost::Address(address) => {
            return obstacle(context, &address).map_or(Ok(address), |why| Err(not_permitted(why)));
        }
        JudgeHost::Name(name) => name,
    };
    let planned = planned(context, check);
    let known = resolved(context, &name);
    let known = match known {
        Ok(known) => known,
        Err(why) => match planned {
            Some(planned) => [planned].into(),
            None => {
                return Err((
                    ConditionType::ResolvedRefs,
                    Reason::DnsNameNotResolved,
                    format!("{name}: {why}"),
                ));
            }
        },
    };
    let mut refused = None;
    let permitted: BTreeSet<IpAddr> = known
        .into_iter()
        .filter(|address| {
            let why = obstacle(context, address);
            let is_permitted = why.is_none();
            refused = refused.take().or(why);
            is_permitted
        })
        .collect();
    let staying = planned.filter(|planned| permitted.contains(planned));
    let chosen = staying.or_else(|| permitted.first().copied());
    chosen.ok_or_else(|| not_permitted(format!("{name}: {}", refused.unwrap_or_default())))
}

/// Addresses of a name, at least one, or why none are known.
fn resolved(context: &Context<'_>, name: &str) -> Result<BTreeSet<IpAddr>, String> {
    let not_asked = || "it has not been asked for yet".to_owned();
    let known = context.inputs.dns_names.get(name).ok_or_else(not_asked)?;
    let both = [&known.ipv4, &known.ipv6];
    let addresses = both
        .iter()
        .flat_map(|records| records.addresses.iter().flatten());
    let addresses: BTreeSet<IpAddr> = addresses.copied().collect();
    if !addresses.is_empty() {
        return Ok(addresses);
    }
    let causes: BTreeSet<String> = both
        .iter()
        .map(|records| match &records.last_answer {
            LastAnswer::NotAsked => not_asked(),
            LastAnswer::Addresses | LastAnswer::NoRecords => {
                "it has neither an A nor an AAAA record: correct the name, or add a record in the DNS".to_owned()
            }
            LastAnswer::NoSuchName => {
                "there is no such name (NXDOMAIN): correct it, or add it in the DNS".to_owned()
            }
            LastAnswer::Failed(why) => why.clone(),
        })
        .collect();
    Err(causes.into_iter().collect::<Vec<_>>().join("; "))
}

/// The address that directors ask for the same judge now.
fn planned(context: &Context<'_>, check: &HealthCheck) -> Option<IpAddr> {
    let directors = context
        .stored
        .iter()
        .filter_map(|plan| plan.director.as_ref());
    let mut stored = directors.flat_map(|director| &director.checks);
    let same = stored.find(|stored| {
        stored.name == check.name
            && stored.external_http == check.external_http
            && stored.address.is_some()
    })?;
    same.address.as_ref()?.parse().ok()
}

/// Why the namespace may not have directors ask there.
fn obstacle(context: &Context<'_>, address: &IpAddr) -> Option<String> {
    let forbidden = target::forbidden(context, address);
    let forbidden = forbidden.or_else(|| {
        if context.node_addresses.contains(address) {
            Some("is a cluster node")
        } else if context.inputs.api_endpoints.contains(address) {
            Some("is an API server")
        } else {
            None
        }
    });
    if let Some(why) = forbidden {
        return Some(format!("{address} {why}: name a judge elsewhere"));
    }
    let mut granted = context.grant.judges.iter();
    (!granted.any(|network| network.contains(address))).then(|| {
        format!(
            "{address} lies in no permitted network; VirtualRouter {} must grant it to namespace {} by \
             spec.grants[].externalCheckCIDRs",
            context.router_name, context.key.namespace
        )
    })
}
