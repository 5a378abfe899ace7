//! Marks and source addresses, as an nftables table of ours spoken in netlink (`include/uapi/linux/netfilter/nf_tables.h`): no nft
//! binary is needed on the node or in the image.
//!
//! In table `inet lvs-operator` marks are two base chains with the same rules: `prerouting` (type filter, priority mangle)
//! for packets from outside and `output` (type route, priority mangle) for those of the node itself. Source addresses are
//! base chain `postrouting` (type nat, priority srcnat), which says of which connections, and a chain `sources-N` for each
//! list of addresses. The table is always written whole, in one transaction, so packets see the old rules or the new, never
//! a mixture.
//!
//! A rule is ours when it carries our comment *and* its expressions are exactly those that we write for it.

pub mod expression;
mod layout;
pub mod rule;
mod table;

pub use table::{delete, observe, replace};
