//! Numbers of `include/uapi/linux/ip_vs.h` and `include/uapi/linux/netlink.h` that the codec needs,
//! each documented with its name there.

/// `IPVS_GENL_NAME`.
pub const FAMILY_NAME: &str = "IPVS";
/// `IPVS_GENL_VERSION`.
pub const FAMILY_VERSION: u8 = 0x1;

/// Commands, `IPVS_CMD_*`. A dump answers with the command that makes what it shows.
pub mod command {
    /// `IPVS_CMD_NEW_SERVICE`: add a service; also every message of a service dump.
    pub const NEW_SERVICE: u8 = 1;
    /// `IPVS_CMD_SET_SERVICE`: edit a service.
    pub const SET_SERVICE: u8 = 2;
    /// `IPVS_CMD_DEL_SERVICE`: delete a service with its destinations.
    pub const DEL_SERVICE: u8 = 3;
    /// `IPVS_CMD_GET_SERVICE`: one service, or with `NLM_F_DUMP` all.
    pub const GET_SERVICE: u8 = 4;
    /// `IPVS_CMD_NEW_DEST`: add a destination; also every message of a destination dump.
    pub const NEW_DEST: u8 = 5;
    /// `IPVS_CMD_SET_DEST`: edit a destination.
    pub const SET_DEST: u8 = 6;
    /// `IPVS_CMD_DEL_DEST`: delete a destination.
    pub const DEL_DEST: u8 = 7;
    /// `IPVS_CMD_GET_DEST`: dump the destinations of one service.
    pub const GET_DEST: u8 = 8;
    /// `IPVS_CMD_NEW_DAEMON`: start a sync daemon; also every message of a dump of them.
    pub const NEW_DAEMON: u8 = 9;
    /// `IPVS_CMD_DEL_DAEMON`: stop a sync daemon.
    pub const DEL_DAEMON: u8 = 10;
    /// `IPVS_CMD_GET_DAEMON`: dump the sync daemons.
    pub const GET_DAEMON: u8 = 11;
    /// `IPVS_CMD_SET_CONFIG`: set timeouts; also the reply to `GET_CONFIG`.
    pub const SET_CONFIG: u8 = 12;
    /// `IPVS_CMD_GET_CONFIG`: get timeouts.
    pub const GET_CONFIG: u8 = 13;
    /// `IPVS_CMD_SET_INFO`: the reply to `GET_INFO`.
    pub const SET_INFO: u8 = 14;
    /// `IPVS_CMD_GET_INFO`: version and size of the connection table.
    pub const GET_INFO: u8 = 15;
    /// `IPVS_CMD_ZERO`: counters of one service and its destinations, or of everything, to zero.
    pub const ZERO: u8 = 16;
}

/// Attributes of a message, `IPVS_CMD_ATTR_*`.
pub mod top {
    /// `IPVS_CMD_ATTR_SERVICE`, nested.
    pub const SERVICE: u16 = 1;
    /// `IPVS_CMD_ATTR_DEST`, nested.
    pub const DEST: u16 = 2;
    /// `IPVS_CMD_ATTR_DAEMON`, nested.
    pub const DAEMON: u16 = 3;
    /// `IPVS_CMD_ATTR_TIMEOUT_TCP`, u32 seconds.
    pub const TIMEOUT_TCP: u16 = 4;
    /// `IPVS_CMD_ATTR_TIMEOUT_TCP_FIN`, u32 seconds.
    pub const TIMEOUT_TCP_FIN: u16 = 5;
    /// `IPVS_CMD_ATTR_TIMEOUT_UDP`, u32 seconds.
    pub const TIMEOUT_UDP: u16 = 6;
}

/// Attributes of a service, `IPVS_SVC_ATTR_*`.
pub mod service {
    /// `IPVS_SVC_ATTR_AF`, u16: `AF_INET` or `AF_INET6`.
    pub const AF: u16 = 1;
    /// `IPVS_SVC_ATTR_PROTOCOL`, u16.
    pub const PROTOCOL: u16 = 2;
    /// `IPVS_SVC_ATTR_ADDR`, `union nf_inet_addr`: 16 bytes, IPv4 in the first four.
    pub const ADDR: u16 = 3;
    /// `IPVS_SVC_ATTR_PORT`, be16.
    pub const PORT: u16 = 4;
    /// `IPVS_SVC_ATTR_FWMARK`, u32; replaces protocol, address and port.
    pub const FWMARK: u16 = 5;
    /// `IPVS_SVC_ATTR_SCHED_NAME`, string with NUL, 16 bytes at most (`IP_VS_SCHEDNAME_MAXLEN`).
    pub const SCHED_NAME: u16 = 6;
    /// `IPVS_SVC_ATTR_FLAGS`, `struct ip_vs_flags`: u32 flags, u32 mask of those meant.
    pub const FLAGS: u16 = 7;
    /// `IPVS_SVC_ATTR_TIMEOUT`, u32 seconds.
    pub const TIMEOUT: u16 = 8;
    /// `IPVS_SVC_ATTR_NETMASK`: be32 mask for IPv4, u32 prefix length 1..128 for IPv6.
    pub const NETMASK: u16 = 9;
    /// `IPVS_SVC_ATTR_PE_NAME`, string with NUL, 16 bytes at most (`IP_VS_PENAME_MAXLEN`).
    pub const PE_NAME: u16 = 11;
    /// `IPVS_SVC_ATTR_STATS64`, nested (Linux 4.1 and later).
    pub const STATS64: u16 = 12;
}

/// Attributes of a destination, `IPVS_DEST_ATTR_*`.
pub mod destination {
    /// `IPVS_DEST_ATTR_ADDR`, `union nf_inet_addr`.
    pub const ADDR: u16 = 1;
    /// `IPVS_DEST_ATTR_PORT`, be16.
    pub const PORT: u16 = 2;
    /// `IPVS_DEST_ATTR_FWD_METHOD`, u32: `IP_VS_CONN_F_FWD_MASK` of it.
    pub const FWD_METHOD: u16 = 3;
    /// `IPVS_DEST_ATTR_WEIGHT`, u32.
    pub const WEIGHT: u16 = 4;
    /// `IPVS_DEST_ATTR_U_THRESH`, u32.
    pub const U_THRESH: u16 = 5;
    /// `IPVS_DEST_ATTR_L_THRESH`, u32.
    pub const L_THRESH: u16 = 6;
    /// `IPVS_DEST_ATTR_ACTIVE_CONNS`, u32.
    pub const ACTIVE_CONNS: u16 = 7;
    /// `IPVS_DEST_ATTR_INACT_CONNS`, u32.
    pub const INACT_CONNS: u16 = 8;
    /// `IPVS_DEST_ATTR_PERSIST_CONNS`, u32.
    pub const PERSIST_CONNS: u16 = 9;
    /// `IPVS_DEST_ATTR_ADDR_FAMILY`, u16 (Linux 3.18 and later; the service's before).
    pub const ADDR_FAMILY: u16 = 11;
    /// `IPVS_DEST_ATTR_STATS64`, nested (Linux 4.1 and later).
    pub const STATS64: u16 = 12;
    /// `IPVS_DEST_ATTR_TUN_TYPE`, u8 (Linux 5.2 and later).
    pub const TUN_TYPE: u16 = 13;
    /// `IPVS_DEST_ATTR_TUN_PORT`, be16.
    pub const TUN_PORT: u16 = 14;
    /// `IPVS_DEST_ATTR_TUN_FLAGS`, u16 (Linux 5.3 and later).
    pub const TUN_FLAGS: u16 = 15;
}

/// Attributes of statistics, `IPVS_STATS_ATTR_*`; in `STATS64` each is u64.
pub mod statistics {
    /// `IPVS_STATS_ATTR_CONNS`: connections scheduled.
    pub const CONNS: u16 = 1;
    /// `IPVS_STATS_ATTR_INPKTS`: packets from clients.
    pub const INPKTS: u16 = 2;
    /// `IPVS_STATS_ATTR_OUTPKTS`: packets to clients.
    pub const OUTPKTS: u16 = 3;
    /// `IPVS_STATS_ATTR_INBYTES`: bytes from clients.
    pub const INBYTES: u16 = 4;
    /// `IPVS_STATS_ATTR_OUTBYTES`: bytes to clients.
    pub const OUTBYTES: u16 = 5;
    /// `IPVS_STATS_ATTR_CPS`: connections scheduled per second.
    pub const CPS: u16 = 6;
    /// `IPVS_STATS_ATTR_INPPS`: packets from clients per second.
    pub const INPPS: u16 = 7;
    /// `IPVS_STATS_ATTR_OUTPPS`: packets to clients per second.
    pub const OUTPPS: u16 = 8;
    /// `IPVS_STATS_ATTR_INBPS`: bytes from clients per second.
    pub const INBPS: u16 = 9;
    /// `IPVS_STATS_ATTR_OUTBPS`: bytes to clients per second.
    pub const OUTBPS: u16 = 10;
}

/// Attributes of a sync daemon, `IPVS_DAEMON_ATTR_*`.
pub mod daemon {
    /// `IPVS_DAEMON_ATTR_STATE`, u32: `IP_VS_STATE_MASTER` or `IP_VS_STATE_BACKUP`.
    pub const STATE: u16 = 1;
    /// `IPVS_DAEMON_ATTR_MCAST_IFN`, string with NUL, 16 bytes at most (`IP_VS_IFNAME_MAXLEN`).
    pub const MCAST_IFN: u16 = 2;
    /// `IPVS_DAEMON_ATTR_SYNC_ID`, u32, 0..255.
    pub const SYNC_ID: u16 = 3;
    /// `IPVS_DAEMON_ATTR_SYNC_MAXLEN`, u16 (Linux 4.3 and later, as all that follow).
    pub const SYNC_MAXLEN: u16 = 4;
    /// `IPVS_DAEMON_ATTR_MCAST_GROUP`, be32.
    pub const MCAST_GROUP: u16 = 5;
    /// `IPVS_DAEMON_ATTR_MCAST_GROUP6`, 16 bytes.
    pub const MCAST_GROUP6: u16 = 6;
    /// `IPVS_DAEMON_ATTR_MCAST_PORT`, u16 in the order of the host.
    pub const MCAST_PORT: u16 = 7;
    /// `IPVS_DAEMON_ATTR_MCAST_TTL`, u8.
    pub const MCAST_TTL: u16 = 8;

    /// `IP_VS_STATE_MASTER`.
    pub const STATE_MASTER: u32 = 1;
    /// `IP_VS_STATE_BACKUP`.
    pub const STATE_BACKUP: u32 = 2;
}

/// Attributes of `IPVS_CMD_SET_INFO`, `IPVS_INFO_ATTR_*`.
pub mod info {
    /// `IPVS_INFO_ATTR_VERSION`, u32: `NVERSION(major, minor, patch)`.
    pub const VERSION: u16 = 1;
    /// `IPVS_INFO_ATTR_CONN_TAB_SIZE`, u32 buckets.
    pub const CONN_TAB_SIZE: u16 = 2;
}

/// Forwarding methods, `IP_VS_CONN_F_*`.
pub mod forwarding {
    /// `IP_VS_CONN_F_FWD_MASK`.
    pub const MASK: u32 = 0x7;
    /// `IP_VS_CONN_F_MASQ`.
    pub const MASQUERADE: u32 = 0;
    /// `IP_VS_CONN_F_LOCALNODE`.
    pub const LOCAL_NODE: u32 = 1;
    /// `IP_VS_CONN_F_TUNNEL`.
    pub const TUNNEL: u32 = 2;
    /// `IP_VS_CONN_F_DROUTE`.
    pub const DIRECT_ROUTE: u32 = 3;
    /// `IP_VS_CONN_F_BYPASS`.
    pub const BYPASS: u32 = 4;
}

/// Tunnel types, `IP_VS_CONN_F_TUNNEL_TYPE_*`.
pub mod tunnel {
    /// `IP_VS_CONN_F_TUNNEL_TYPE_IPIP`.
    pub const IPIP: u8 = 0;
    /// `IP_VS_CONN_F_TUNNEL_TYPE_GUE`.
    pub const GUE: u8 = 1;
    /// `IP_VS_CONN_F_TUNNEL_TYPE_GRE`.
    pub const GRE: u8 = 2;
}

/// `AF_INET`.
pub const AF_INET: u16 = 2;
/// `AF_INET6`.
pub const AF_INET6: u16 = 10;

/// `NLA_TYPE_MASK`: the type without `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`.
pub const ATTRIBUTE_TYPE_MASK: u16 = 0x3fff;
/// `NLA_F_NESTED`.
pub const ATTRIBUTE_NESTED: u16 = 0x8000;
/// `NLMSGERR_ATTR_MSG`: text of an extended acknowledgement.
pub const ERROR_ATTRIBUTE_MESSAGE: u16 = 1;
/// `NLMSG_MIN_TYPE`: types below are control messages.
pub const TYPE_FIRST_FAMILY: u16 = 0x10;
