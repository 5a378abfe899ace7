//! Reading and writing the node's network, IPVS aside: devices, addresses, policy rules and routes
//! (rtnetlink), foo-over-udp ports (generic netlink), marks (nftables) and sysctls.
//!
//! Nothing here decides. [`HostKernel`] has two verbs: observe, which is all or nothing, and apply, one
//! operation at a time. Director addresses are not touched here; they belong to the fence thread.

pub mod address;
pub mod error;
pub mod fou;
mod host;
pub mod link;
pub mod link_watch;
pub mod message;
pub mod nftables;
pub mod removal_watch;
pub mod route;
pub mod rule;
pub mod socket;
pub mod subscription;
pub mod sysctl;

pub use error::KernelError;
pub use host::{Host, HostKernel};
