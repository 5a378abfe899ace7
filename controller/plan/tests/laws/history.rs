//! What may happen to a cluster, one thing after another.

use std::sync::Arc;

use lvs_plan::input::ObjectKey;
use proptest::prelude::*;

use super::shape::{
    NAMESPACES, NODES, ROUTERS, RealServerShape, RouterShape, ServiceShape, dns_answer, host,
    real_server, real_server_shape, router, router_shape, service, service_shape, slice,
};
use super::support::Cluster;

/// Something that happens to a cluster.
#[derive(Clone, Debug)]
pub enum Step {
    Service {
        namespace: u8,
        name: u8,
        shape: ServiceShape,
    },
    DeleteService {
        namespace: u8,
        name: u8,
    },
    RealServer {
        namespace: u8,
        name: u8,
        shape: RealServerShape,
    },
    DeleteRealServer {
        namespace: u8,
        name: u8,
    },
    Slice {
        namespace: u8,
        name: u8,
        endpoints: Vec<(u8, u8)>,
    },
    DeleteSlice {
        namespace: u8,
        name: u8,
    },
    /// The DNS answers with addresses; without any it fails.
    DnsAnswer {
        name: u8,
        addresses: Vec<u8>,
    },
    /// The controller starts anew and knows no name.
    ForgetDns,
    Router {
        name: u8,
        shape: RouterShape,
    },
    DeleteRouter {
        name: u8,
    },
    Node {
        name: u8,
        has_agent: bool,
    },
    RemoveNode {
        name: u8,
    },
    Elect {
        router: u8,
        node: u8,
    },
    Acknowledge {
        node: u8,
    },
    AcknowledgeAll,
}

impl Step {
    pub fn take(&self, cluster: &mut Cluster) {
        let key = |namespace: &u8, name: &u8, kind: &str| {
            (
                NAMESPACES[usize::from(*namespace) % 2].to_owned(),
                format!("{kind}-{}", name % 4),
            )
        };
        match self {
            Self::Service {
                namespace,
                name,
                shape,
            } => {
                let (namespace, name) = key(namespace, name, "vs");
                cluster.apply(service(&namespace, &name, shape));
            }
            Self::DeleteService { namespace, name } => {
                let (namespace, name) = key(namespace, name, "vs");
                cluster
                    .inputs
                    .virtual_services
                    .remove(&ObjectKey::new(namespace, name));
            }
            Self::RealServer {
                namespace,
                name,
                shape,
            } => {
                let (namespace, name) = key(namespace, name, "rs");
                cluster.apply(real_server(&namespace, &name, shape));
            }
            Self::DeleteRealServer { namespace, name } => {
                let (namespace, name) = key(namespace, name, "rs");
                cluster
                    .inputs
                    .real_servers
                    .remove(&ObjectKey::new(namespace, name));
            }
            Self::Slice {
                namespace,
                name,
                endpoints,
            } => {
                let (namespace, name) = key(namespace, name, "slice");
                cluster.apply(slice(&namespace, &name, endpoints));
            }
            Self::DeleteSlice { namespace, name } => {
                let (namespace, name) = key(namespace, name, "slice");
                cluster
                    .inputs
                    .endpoint_slices
                    .remove(&ObjectKey::new(namespace, name));
            }
            Self::DnsAnswer { name, addresses } => {
                let names = &mut cluster.inputs.dns_names;
                let known = names.entry(format!("name-{}.example", name % 2));
                dns_answer(Arc::make_mut(known.or_default()), addresses);
            }
            Self::ForgetDns => cluster.inputs.dns_names.clear(),
            Self::Router { name, shape } => {
                cluster.apply(router(ROUTERS[usize::from(*name) % 2], shape));
            }
            Self::DeleteRouter { name } => {
                cluster
                    .inputs
                    .virtual_routers
                    .remove(ROUTERS[usize::from(*name) % 2]);
            }
            Self::Node { name, has_agent } => cluster.apply(host(name % NODES, *has_agent)),
            Self::RemoveNode { name } => cluster.remove_node(&format!("node-{}", name % NODES)),
            Self::Elect { router, node } => {
                cluster.elect(
                    ROUTERS[usize::from(*router) % 2],
                    &format!("node-{}", node % NODES),
                );
            }
            Self::Acknowledge { node } => cluster.acknowledge(&format!("node-{}", node % NODES)),
            Self::AcknowledgeAll => cluster.acknowledge_all(),
        }
    }
}

pub fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (any::<u8>(), any::<u8>(), service_shape())
            .prop_map(|(namespace, name, shape)| Step::Service { namespace, name, shape }),
        2 => any::<(u8, u8)>().prop_map(|(namespace, name)| Step::DeleteService { namespace, name }),
        6 => (any::<u8>(), any::<u8>(), real_server_shape())
            .prop_map(|(namespace, name, shape)| Step::RealServer { namespace, name, shape }),
        2 => any::<(u8, u8)>().prop_map(|(namespace, name)| Step::DeleteRealServer { namespace, name }),
        3 => (any::<u8>(), any::<u8>(), proptest::collection::vec(any::<(u8, u8)>(), 0..4))
            .prop_map(|(namespace, name, endpoints)| Step::Slice { namespace, name, endpoints }),
        1 => any::<(u8, u8)>().prop_map(|(namespace, name)| Step::DeleteSlice { namespace, name }),
        3 => (any::<u8>(), proptest::collection::vec(any::<u8>(), 0..4))
            .prop_map(|(name, addresses)| Step::DnsAnswer { name, addresses }),
        1 => Just(Step::ForgetDns),
        4 => (any::<u8>(), router_shape()).prop_map(|(name, shape)| Step::Router { name, shape }),
        1 => any::<u8>().prop_map(|name| Step::DeleteRouter { name }),
        2 => (any::<u8>(), proptest::bool::weighted(0.8)).prop_map(|(name, has_agent)| Step::Node { name, has_agent }),
        1 => any::<u8>().prop_map(|name| Step::RemoveNode { name }),
        3 => any::<(u8, u8)>().prop_map(|(router, node)| Step::Elect { router, node }),
        4 => any::<u8>().prop_map(|node| Step::Acknowledge { node }),
        3 => Just(Step::AcknowledgeAll),
    ]
}

/// What happened to a cluster.
#[derive(Clone, Debug)]
pub struct History {
    pub router: RouterShape,
    pub steps: Vec<Step>,
}

impl History {
    pub fn cluster(&self) -> Cluster {
        let mut cluster = Cluster::default();
        for number in 0..NODES {
            cluster.apply(host(number, true));
        }
        let shape = RouterShape {
            is_default: true,
            granted: 0,
            ..self.router.clone()
        };
        cluster.apply(router("default", &shape));
        for step in &self.steps {
            step.take(&mut cluster);
            cluster.pass();
        }
        cluster
    }
}

pub fn history() -> impl Strategy<Value = History> {
    let steps = proptest::collection::vec(step(), 4..28);
    (router_shape(), steps).prop_map(|(router, steps)| History { router, steps })
}
