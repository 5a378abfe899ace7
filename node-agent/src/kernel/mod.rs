//! Reading and writing the node's network, IPVS aside: devices, addresses, policy rules and routes
//! (rtnetlink), foo-over-udp ports (generic netlink), marks (nftables) and sysctls.
//!
//! Nothing here decides. [`Host`] has two verbs: observe, which is all or nothing, and apply, one
//! operation at a time. Director addresses are not touched here; they belong to the fence thread.

pub mod message;
