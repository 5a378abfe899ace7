//! Plans of VirtualServices, for directors and for real servers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use lvs_crds::node_plan::{NodePlanSpec, PlanSource, PlanState, SourceKind};

use crate::certificate_authorities;
use crate::connection_sync;
use crate::drain;
use crate::external_check;
use crate::input::{Inputs, ObjectKey, RealServerObject, VirtualServiceObject};
use crate::lifecycle::Holdings;
use crate::mark::Marks;
use crate::name::plan_name;
use crate::node::{self, DirectorSide};
use crate::preparation;
use crate::real_server_check;
use crate::resolution::{Decisions, Disposition, ServiceDecision, Stored};
use crate::router_plan::{additional_addresses, source_addresses, waits_for_release};
use crate::service;
use crate::sorry_server;
use crate::source_nat::{self, Sources};
use crate::target::{self, Targets};
use crate::tenancy::AcceptedAddress;

/// Adds a plan for every node concerned with every VirtualService, and notes what was decided.
pub(crate) fn add(
    decisions: &mut Decisions<'_>,
    dispositions: &BTreeMap<ObjectKey, Disposition>,
    stored: &Stored<'_>,
    marks: &Marks,
    holdings: &Holdings,
    wanted: &mut BTreeMap<String, NodePlanSpec>,
) {
    let inputs = decisions.inputs;
    let candidates = Candidates::index(inputs);
    let nodes = inputs.nodes.values();
    let node_addresses: BTreeSet<IpAddr> = nodes
        .flat_map(|node| node.addresses.iter().copied())
        .collect();
    for (key, disposition) in dispositions {
        let Some(object) = inputs.virtual_services.get(key) else {
            continue;
        };
        let mut decision = ServiceDecision {
            disposition: disposition.clone(),
            problems: Vec::new(),
            waiting: Vec::new(),
            targets: Targets::default(),
            mark: None,
        };
        if let (Disposition::Planned(router_name), Some(spec)) = (disposition, object.spec()) {
            let candidates = candidates.of(&key.namespace, &spec.real_server_selector);
            plan_service(
                decisions,
                &Service {
                    object,
                    spec,
                    router_name,
                    candidates,
                    node_addresses: &node_addresses,
                    stored: stored.of(object),
                },
                marks,
                holdings,
                &mut decision,
                wanted,
            );
        }
        decisions.services.insert(key.clone(), decision);
    }
}

/// RealServers by namespace and label, so that a selector looks only at those that may match.
struct Candidates<'a> {
    by_namespace: BTreeMap<&'a str, Vec<&'a RealServerObject>>,
    by_label: BTreeMap<(&'a str, &'a str, &'a str), Vec<&'a RealServerObject>>,
}

impl<'a> Candidates<'a> {
    fn index(inputs: &'a Inputs) -> Self {
        let mut candidates = Self {
            by_namespace: BTreeMap::new(),
            by_label: BTreeMap::new(),
        };
        for (key, object) in &inputs.real_servers {
            let namespace = key.namespace.as_str();
            candidates
                .by_namespace
                .entry(namespace)
                .or_default()
                .push(object);
            for (label, value) in &object.meta.labels {
                let slot = (namespace, label.as_str(), value.as_str());
                candidates.by_label.entry(slot).or_default().push(object);
            }
        }
        candidates
    }

    /// Every RealServer of the namespace that the selector may match, and perhaps more.
    fn of<'b>(
        &'b self,
        namespace: &'b str,
        selector: &'b LabelSelector,
    ) -> &'b [&'a RealServerObject] {
        let label = selector.match_labels.iter().flatten().next();
        let found = match label {
            Some((label, value)) => self
                .by_label
                .get(&(namespace, label.as_str(), value.as_str())),
            None => self.by_namespace.get(namespace),
        };
        found.map(Vec::as_slice).unwrap_or_default()
    }
}

/// One VirtualService to plan.
struct Service<'a> {
    object: &'a VirtualServiceObject,
    spec: &'a lvs_crds::VirtualServiceSpec,
    router_name: &'a str,
    candidates: &'a [&'a RealServerObject],
    node_addresses: &'a BTreeSet<IpAddr>,
    stored: &'a [&'a NodePlanSpec],
}

fn plan_service(
    decisions: &Decisions<'_>,
    service: &Service<'_>,
    marks: &Marks,
    holdings: &Holdings,
    decision: &mut ServiceDecision,
    wanted: &mut BTreeMap<String, NodePlanSpec>,
) {
    let (inputs, key) = (decisions.inputs, &service.object.meta.key);
    let Some(router) = decisions.routers.decoded.get(service.router_name) else {
        return;
    };
    let Some(membership) = decisions.memberships.get(service.router_name) else {
        return;
    };
    let tenure = decisions
        .tenancy
        .services
        .get(key)
        .cloned()
        .unwrap_or_default();
    decision.problems.extend(tenure.problems);
    match marks.get(key) {
        Some(Ok(mark)) => decision.mark = Some(*mark),
        Some(Err(verdict)) => decision.problems.push(verdict.clone()),
        None => {}
    }
    if connection_sync::needs_stateless(router)
        && let Err(verdict) = connection_sync::is_stateless(service.spec, service.router_name)
    {
        decision.waiting.push(verdict);
    }
    let namespace_labels = inputs.namespaces.get(&key.namespace);
    let tenancy = &decisions.tenancy;
    let held = source_addresses(router, tenancy, holdings, &mut Vec::new());
    let sources = namespace_labels
        .map(|labels| Sources::granted(router, labels, &held))
        .unwrap_or_default();
    let context = target::Context {
        inputs,
        key,
        spec: service.spec,
        grant: namespace_labels
            .map(|labels| router.granted_targets(labels))
            .unwrap_or_default(),
        router_name: service.router_name,
        addresses: &tenure.addresses,
        stored: service.stored,
        node_addresses: service.node_addresses,
        virtual_addresses: &decisions.tenancy.virtual_addresses,
        sources: &sources,
        candidates: service.candidates,
    };
    decision.targets = target::resolve(&context);
    decision
        .problems
        .extend(source_nat::obstacles(&context, &tenure.addresses));
    let sorry_server = sorry_server::permitted(&context).unwrap_or_else(|verdict| {
        decision.problems.push(verdict);
        None
    });
    decision.targets.note_unreachable(key, &tenure.addresses);
    real_server_check::plan(&context, &mut decision.targets, &mut decision.problems);

    let released: Vec<AcceptedAddress> = tenure
        .addresses
        .iter()
        .filter(
            |accepted| match holdings.blocked_by(service.router_name, accepted.address) {
                None => true,
                Some((other, nodes)) => {
                    decision.waiting.push(waits_for_release(
                        &accepted.address.to_string(),
                        other,
                        &nodes,
                    ));
                    false
                }
            },
        )
        .cloned()
        .collect();
    let mut director = service::build(
        service.spec,
        &released,
        decision.mark,
        &decision.targets,
        sorry_server,
        service.stored,
    );
    if let Some(director) = &mut director {
        source_nat::add(director, &sources);
    }
    let side = DirectorSide {
        additional_addresses: additional_addresses(
            router,
            &decisions.tenancy,
            holdings,
            &mut Vec::new(),
        )
        .iter()
        .map(|planned| planned.address)
        .collect(),
        directors: membership.directors.keys().cloned().collect(),
    };
    let mut real_servers = BTreeMap::new();
    if let Some(director) = &mut director {
        external_check::resolve(&context, director, &mut decision.problems);
        certificate_authorities::resolve(
            director,
            inputs,
            &key.namespace,
            service.stored,
            &mut decision.problems,
        );
        real_servers = node::real_servers(
            &node::Work {
                inputs,
                spec: service.spec,
                addresses: &released,
                targets: &decision.targets,
                side: &side,
                stored: service.stored,
                is_draining: drain::is_under_way(
                    inputs,
                    service.object,
                    service.spec,
                    service.router_name,
                    director,
                ),
            },
            &mut decision.problems,
        );
        preparation::withhold(
            director,
            &preparation::Work {
                inputs,
                object: service.object,
                targets: &decision.targets,
                real_servers: &real_servers,
                stored: service.stored,
            },
        );
    }
    let director_nodes: BTreeSet<&String> =
        director.iter().flat_map(|_| membership.nodes()).collect();
    let nodes: BTreeSet<&String> = director_nodes
        .iter()
        .copied()
        .chain(real_servers.keys())
        .collect();
    for node_name in nodes
        .into_iter()
        .filter(|name| inputs.nodes.contains_key(*name))
    {
        let is_director = director_nodes.contains(node_name);
        let spec = NodePlanSpec {
            node_name: node_name.clone(),
            state: if is_director {
                membership.state_of(node_name)
            } else {
                PlanState::Active
            },
            source: PlanSource {
                kind: SourceKind::VirtualService,
                namespace: key.namespace.clone(),
                name: key.name.clone(),
                uid: service.object.meta.uid.clone(),
                generation: service.object.meta.generation,
            },
            virtual_router_name: service.router_name.to_owned(),
            director: director.clone().filter(|_| is_director),
            real_server: real_servers.get(node_name).cloned(),
        };
        wanted.insert(
            plan_name(
                SourceKind::VirtualService,
                node_name,
                &service.object.meta.uid,
            ),
            spec,
        );
    }
}
