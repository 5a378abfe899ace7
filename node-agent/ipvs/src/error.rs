//! What can go wrong, in words that say what we were doing, and the reason shown to users.

use lvs_core::ipvs::{DestinationForwarding, DestinationTunnel};
use lvs_core::op::IpvsOp;
use lvs_crds::condition::Reason;
use lvs_crds::value::AddressFamily;
use nix::errno::Errno;

use crate::attribute::AttributeError;
use crate::decode::DecodeError;
use crate::message::MessageError;

/// The socket, or the conversation on it, failed. The connection is given up and opened anew by the next call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The socket could not be made.
    #[error("cannot open a generic netlink socket: {step}: {errno}")]
    Open {
        /// System call or option.
        step: &'static str,
        /// Its error.
        errno: Errno,
    },
    /// The kernel has no family IPVS: `ip_vs` is neither built in nor loadable.
    #[error("the kernel has no generic netlink family IPVS: module ip_vs is missing")]
    FamilyMissing,
    /// Asking for the family failed otherwise.
    #[error("cannot resolve the generic netlink family IPVS: {errno}")]
    Family {
        /// Error of the kernel.
        errno: Errno,
    },
    /// Nothing was sent.
    #[error("cannot send {bytes} bytes: {errno}")]
    Send {
        /// Size of the request.
        bytes: usize,
        /// Error of the system call.
        errno: Errno,
    },
    /// Receiving failed.
    #[error("cannot receive: {errno}")]
    Receive {
        /// Error of the system call.
        errno: Errno,
    },
    /// `ENOBUFS` or `NLMSG_OVERRUN`: answers were dropped.
    #[error("the receive buffer overflowed and answers are lost")]
    Overflow,
    /// A datagram was longer than our buffer.
    #[error("an answer of {length} bytes was cut to {capacity}")]
    Truncated {
        /// Its length.
        length: usize,
        /// Length of our buffer.
        capacity: usize,
    },
    /// Nothing came in time.
    #[error("no answer within {timeout_milliseconds} ms")]
    Deadline {
        /// The limit.
        timeout_milliseconds: u64,
    },
    /// An answer to something we did not ask on this connection.
    #[error("an answer of type {kind} with sequence number {sequence} where {expected} was due")]
    Unexpected {
        /// Type of the message.
        kind: u16,
        /// Its sequence number.
        sequence: u32,
        /// First number that was due.
        expected: u32,
    },
    /// A malformed message.
    #[error("malformed answer: {0}")]
    Message(#[from] MessageError),
    /// A malformed attribute outside the IPVS messages.
    #[error("malformed answer: {0}")]
    Attribute(#[from] AttributeError),
}

/// The kernel's IPVS tables could not be read. Nothing is known; nothing may be concluded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DumpError {
    /// The conversation failed.
    #[error("cannot read {what}: {source}")]
    Transport {
        /// What was being read.
        what: String,
        /// How it failed.
        source: TransportError,
    },
    /// The kernel refused.
    #[error("cannot read {what}: {errno}{}", extended(message.as_deref()))]
    Refused {
        /// What was being read.
        what: String,
        /// Error of the kernel.
        errno: Errno,
        /// Its text, if it gave one.
        message: Option<String>,
    },
    /// The kernel's answer holds what we cannot represent.
    #[error("cannot understand {what}: {source}")]
    Undecodable {
        /// What was being read.
        what: String,
        /// The attribute.
        source: DecodeError,
    },
    /// The tables changed under each attempt.
    #[error("{what} changed while being read, {attempts} times in a row")]
    Unstable {
        /// What was being read.
        what: String,
        /// How often we tried.
        attempts: u32,
    },
}

fn extended(message: Option<&str>) -> String {
    message.map(|text| format!(" ({text})")).unwrap_or_default()
}

impl DumpError {
    /// The word for condition, Event and metric.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Transport {
                source: TransportError::FamilyMissing,
                ..
            } => Reason::KernelModuleMissing,
            Self::Refused {
                errno: Errno::EPERM | Errno::EACCES,
                ..
            } => Reason::PermissionDenied,
            _ => Reason::ObservationFailed,
        }
    }
}

/// One operation that did not succeed, or of which we do not know it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ipvs {operation}: {}", explain(operation, failure))]
pub struct OpError {
    /// The operation.
    pub operation: Box<IpvsOp>,
    /// What became of it.
    pub failure: OpFailure,
}

/// What became of an operation that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpFailure {
    /// The kernel refused it and changed nothing.
    Refused {
        /// Error of the kernel.
        errno: Errno,
        /// Its text, if it gave one.
        message: Option<String>,
    },
    /// It was sent and the answer was lost: only a dump tells whether it happened.
    Unknown(TransportError),
    /// It was not sent.
    NotSent(TransportError),
}

/// What an operation was refused for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Meaning {
    /// What we dumped is no longer so: dump again.
    Stale(&'static str),
    /// A module is not there.
    Module(String),
    /// A lasting obstacle.
    Because(Reason, &'static str),
    /// Nothing to add to the error number.
    Plain,
}

fn meaning(operation: &IpvsOp, errno: Errno) -> Meaning {
    use IpvsOp as Op;
    match (errno, operation) {
        (Errno::EPERM | Errno::EACCES, _) => Meaning::Because(
            Reason::PermissionDenied,
            "CAP_NET_ADMIN in the initial user namespace is needed",
        ),
        (Errno::EAFNOSUPPORT, _) => Meaning::Because(
            Reason::IPv6Unavailable,
            "this kernel's IPVS does not know the address family",
        ),
        (Errno::EEXIST, Op::AddService(..)) => Meaning::Stale("the service exists already"),
        (Errno::EEXIST, Op::AddDestination(..)) => Meaning::Stale("the destination exists already"),
        (Errno::EEXIST, Op::StartSyncDaemon(..)) => Meaning::Stale("such a daemon runs already"),
        (Errno::ESRCH, Op::StopSyncDaemon(_)) => Meaning::Stale("no such daemon runs"),
        (Errno::ESRCH, _) => Meaning::Stale("there is no such service"),
        (Errno::ENOENT, Op::EditDestination(..) | Op::DeleteDestination(..)) => {
            Meaning::Stale("there is no such destination")
        }
        (Errno::ENOENT, Op::AddService(_, service) | Op::EditService(_, service)) => {
            let scheduler = format!("ip_vs_{}", service.scheduler);
            Meaning::Module(match &service.persistence_engine {
                None => scheduler,
                Some(engine) => format!("{scheduler} or ip_vs_pe_{engine}"),
            })
        }
        (Errno::ENOENT, _) => Meaning::Stale("the family IPVS was unloaded"),
        (Errno::ERANGE, Op::AddService(..) | Op::EditService(..)) => Meaning::Because(
            Reason::KernelError,
            "the scheduler's name is longer than 15 bytes",
        ),
        (Errno::ERANGE, Op::AddDestination(..) | Op::EditDestination(..)) => Meaning::Because(
            Reason::KernelError,
            "the weight is above 2147483647 or the lower threshold above the upper",
        ),
        (Errno::EINVAL, Op::AddService(..) | Op::EditService(..)) => Meaning::Because(
            Reason::KernelError,
            "the scheduler refuses the service, or an IPv6 prefix length is outside 1..128",
        ),
        (
            Errno::EINVAL,
            Op::AddDestination(service, target, state)
            | Op::EditDestination(service, target, state),
        ) => {
            let other_family = service.family() != AddressFamily::of(&target.address);
            Meaning::Because(
                Reason::KernelError,
                match state.forwarding {
                    DestinationForwarding::Tunnel(DestinationTunnel::Gue { port: 0, .. }) => {
                        "GUE needs a port"
                    }
                    DestinationForwarding::Tunnel(_) if other_family => {
                        "a real server of the other family cannot be used while the connection sync daemon runs"
                    }
                    _ if other_family => "a real server of the other family needs a tunnel",
                    _ => "the address is not unicast, or is IPv6 link-local",
                },
            )
        }
        (Errno::EINVAL, Op::StartSyncDaemon(..)) => Meaning::Because(
            Reason::ConnectionSyncExcluded,
            "a service has a real server of another address family, which excludes the daemon",
        ),
        (Errno::ENODEV | Errno::ENETUNREACH | Errno::EADDRNOTAVAIL, Op::StartSyncDaemon(..)) => {
            Meaning::Because(
                Reason::InterfaceNotFound,
                "the device must be there, be up and have an address of the group's family",
            )
        }
        (Errno::EINVAL, Op::SetTimeouts(_)) => {
            Meaning::Because(Reason::KernelError, "a timeout is too long")
        }
        _ => Meaning::Plain,
    }
}

fn explain(operation: &IpvsOp, failure: &OpFailure) -> String {
    match failure {
        OpFailure::Unknown(cause) => format!("not known whether it happened: {cause}"),
        OpFailure::NotSent(cause) => format!("not sent: {cause}"),
        OpFailure::Refused { errno, message } => {
            let text = extended(message.as_deref());
            match meaning(operation, *errno) {
                Meaning::Stale(what) | Meaning::Because(_, what) => {
                    format!("{errno}{text}: {what}")
                }
                Meaning::Module(name) => {
                    format!("{errno}{text}: module {name} is missing and could not be loaded")
                }
                Meaning::Plain => format!("{errno}{text}"),
            }
        }
    }
}

impl OpError {
    /// The word for condition, Event and metric.
    pub fn reason(&self) -> Reason {
        match &self.failure {
            OpFailure::Unknown(_) => Reason::ObservationFailed,
            OpFailure::NotSent(TransportError::FamilyMissing) => Reason::KernelModuleMissing,
            OpFailure::NotSent(_) => Reason::KernelError,
            OpFailure::Refused { errno, .. } => match meaning(&self.operation, *errno) {
                Meaning::Module(_) => Reason::KernelModuleMissing,
                Meaning::Because(reason, _) => reason,
                Meaning::Stale(_) | Meaning::Plain => Reason::KernelError,
            },
        }
    }

    /// Whether dumping again and starting over is the answer: somebody else changed the tables since our dump,
    /// or we do not know what we did.
    pub fn wants_dump(&self) -> bool {
        match &self.failure {
            OpFailure::Unknown(_) | OpFailure::NotSent(_) => true,
            OpFailure::Refused { errno, .. } => {
                matches!(meaning(&self.operation, *errno), Meaning::Stale(_))
            }
        }
    }
}
