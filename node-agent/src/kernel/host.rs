//! The two verbs: observe and apply.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use lvs_core::host::{ObservedHost, SysctlKey};
use lvs_core::op::HostOp;
use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use super::error::KernelError;
use super::socket::NetlinkSocket;
use super::{address, fou, link, nftables, route, rule, sysctl};

/// What the sync loop needs of the node's network, IPVS aside.
pub trait HostKernel: Send {
    /// Reads everything but sysctls. All or nothing: a part that could not be read makes the whole an error.
    fn observe(&mut self) -> Result<ObservedHost, KernelError>;

    /// Reads sysctls; `None` = there is no such file.
    fn read_sysctls(
        &mut self,
        keys: &BTreeSet<SysctlKey>,
    ) -> Result<BTreeMap<SysctlKey, Option<String>>, KernelError>;

    /// Carries out one operation.
    fn apply(&mut self, op: &HostOp) -> Result<(), KernelError>;

    /// Whether a kernel module is loaded or built in.
    fn has_module(&self, module: &str) -> bool;
}

/// The network namespace of the calling thread.
#[derive(Clone, Debug)]
pub struct Host {
    /// Stands for /proc/sys.
    pub sysctl_directory: PathBuf,
    /// Longest wait for one answer of the kernel.
    pub timeout: Duration,
}

impl Host {
    fn route_socket(&self) -> Result<NetlinkSocket, KernelError> {
        NetlinkSocket::open(SockProtocol::NetlinkRoute, self.timeout)
    }

    fn generic_socket(&self) -> Result<NetlinkSocket, KernelError> {
        NetlinkSocket::open(SockProtocol::NetlinkGeneric, self.timeout)
    }
}

fn device_index(doing: &str, device: &str) -> Result<u32, KernelError> {
    nix::net::if_::if_nametoindex(device).map_err(|errno| KernelError::Refused {
        doing: format!("{doing}: looking up device {device}"),
        // if_nametoindex answers ENODEV; anything else is passed on as it is.
        errno: if errno == Errno::ENXIO {
            Errno::ENODEV
        } else {
            errno
        },
        sentence: String::new(),
    })
}

impl HostKernel for Host {
    fn observe(&mut self) -> Result<ObservedHost, KernelError> {
        let mut socket = self.route_socket()?;
        let links = link::dump(&mut socket)?;
        let names: BTreeMap<u32, &str> = links
            .iter()
            .map(|(name, link)| (link.index, name.as_str()))
            .collect();
        let addresses = address::dump(&mut socket, &names)?;
        let policy_rules = rule::dump(&mut socket)?;
        socket.filter_dumps();
        let routes = route::dump(&mut socket, &names)?;
        Ok(ObservedHost {
            addresses,
            sysctls: BTreeMap::new(),
            fou_ports: fou::dump(&mut self.generic_socket()?)?,
            policy_rules,
            routes,
            packet_rules: nftables::observe(self.timeout)?,
            ipv6: sysctl::ipv6(&self.sysctl_directory)?,
            api_endpoints: BTreeSet::new(),
            links,
        })
    }

    fn read_sysctls(
        &mut self,
        keys: &BTreeSet<SysctlKey>,
    ) -> Result<BTreeMap<SysctlKey, Option<String>>, KernelError> {
        sysctl::read_all(&self.sysctl_directory, keys)
    }

    fn apply(&mut self, op: &HostOp) -> Result<(), KernelError> {
        match op {
            HostOp::AddLink { name, kind } => link::add(&mut self.route_socket()?, name, *kind),
            HostOp::SetLinkUp { name } => link::set_up(&mut self.route_socket()?, name),
            HostOp::DeleteLink { name } => link::delete(&mut self.route_socket()?, name),
            HostOp::AddAddress(key) => {
                let index = device_index("adding an address", &key.device)?;
                address::add(&mut self.route_socket()?, key, index)
            }
            HostOp::DeleteAddress(key) => {
                let index = device_index("removing an address", &key.device)?;
                address::delete(&mut self.route_socket()?, key, index)
            }
            HostOp::SetSysctl { key, value } => sysctl::write(&self.sysctl_directory, key, value),
            HostOp::AddFouPort(port) => fou::add(&mut self.generic_socket()?, *port),
            HostOp::DeleteFouPort(port) => fou::delete(&mut self.generic_socket()?, *port),
            HostOp::AddRoute(default) => {
                let index = device_index("adding a route", &default.device)?;
                route::add(&mut self.route_socket()?, default, index)
            }
            HostOp::DeleteRoute(default) => {
                let index = device_index("removing a route", &default.device)?;
                route::delete(&mut self.route_socket()?, default, index)
            }
            HostOp::AddPolicyRule(policy) => rule::add(&mut self.route_socket()?, policy),
            HostOp::DeletePolicyRule(policy) => rule::delete(&mut self.route_socket()?, policy),
            HostOp::ReplacePacketRules(rules) => nftables::replace(rules, self.timeout),
            HostOp::DeletePacketRules => nftables::delete(self.timeout),
        }
    }

    fn has_module(&self, module: &str) -> bool {
        std::path::Path::new("/sys/module").join(module).exists()
    }
}
