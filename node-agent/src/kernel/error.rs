//! What can go wrong between us and the kernel, and the word for it.

use lvs_crds::condition::Reason;
use nix::errno::Errno;

use super::message::MessageError;

/// A read or write of the node's network that did not work.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// A system call or the kernel's answer to a request failed.
    #[error("{doing}: {} ({errno:?}){}", errno.desc(), remark(*errno, sentence))]
    Refused {
        /// What we were doing, with values.
        doing: String,
        /// The kernel's word.
        errno: Errno,
        /// The kernel's own sentence (extended acknowledgement), empty when it gave none.
        sentence: String,
    },
    /// A module that the kernel did not load by itself.
    #[error("{doing}: kernel module {module} is missing; load it on the node (modules-load.d)")]
    ModuleMissing {
        /// What we were doing, with values.
        doing: String,
        /// Name as for modprobe.
        module: &'static str,
    },
    /// Nothing came within the deadline.
    #[error("{doing}: no answer from the kernel within {milliseconds} ms")]
    TimedOut {
        /// What we were doing, with values.
        doing: String,
        /// The deadline.
        milliseconds: u128,
    },
    /// The state changed while it was read, every time it was tried.
    #[error("{doing}: the kernel's state kept changing while it was read ({attempts} attempts)")]
    Interrupted {
        /// What we were doing, with values.
        doing: String,
        /// Attempts made.
        attempts: u32,
    },
    /// Bytes we cannot read or write.
    #[error("{doing}")]
    Message {
        /// What we were doing, with values.
        doing: String,
        /// Why.
        #[source]
        source: MessageError,
    },
    /// An answer that netlink does not allow at this point.
    #[error("{doing}: {what}")]
    Protocol {
        /// What we were doing, with values.
        doing: String,
        /// What was wrong.
        what: &'static str,
    },
    /// A sysctl that cannot be read or written.
    #[error("{doing} {path}: {source}{}", sysctl_cure(source))]
    Sysctl {
        /// Reading or writing.
        doing: &'static str,
        /// File.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A name or value that must not reach the kernel.
    #[error("{doing}: {what}")]
    Invalid {
        /// What we were doing, with values.
        doing: String,
        /// What was wrong.
        what: &'static str,
    },
}

impl KernelError {
    /// Word for conditions, Events and metrics.
    pub fn reason(&self) -> Reason {
        match self {
            Self::ModuleMissing { .. } => Reason::KernelModuleMissing,
            Self::Refused { errno, .. } => reason_of(*errno),
            Self::Sysctl { source, .. } => {
                source.raw_os_error().map_or(Reason::KernelError, |number| {
                    sysctl_reason(Errno::from_raw(number))
                })
            }
            Self::TimedOut { .. }
            | Self::Interrupted { .. }
            | Self::Message { .. }
            | Self::Protocol { .. }
            | Self::Invalid { .. } => Reason::KernelError,
        }
    }

    /// The kernel's word, where there is one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            Self::Sysctl { source, .. } => source.raw_os_error().map(Errno::from_raw),
            _ => None,
        }
    }

    /// The same failure as a missing module, when the kernel's word is one of those it uses for one.
    #[must_use]
    pub fn or_module_missing(self, errnos: &[Errno], module: &'static str) -> Self {
        match self {
            Self::Refused { doing, errno, .. } if errnos.contains(&errno) => {
                Self::ModuleMissing { doing, module }
            }
            other => other,
        }
    }
}

/// What the kernel says itself, and the cure where a person can apply one.
fn remark(errno: Errno, sentence: &str) -> String {
    let said = match sentence {
        "" => String::new(),
        sentence => format!(": {sentence}"),
    };
    match errno {
        Errno::EPERM | Errno::EACCES => format!("{said}; the agent needs CAP_NET_ADMIN"),
        _ => said,
    }
}

fn sysctl_cure(error: &std::io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EROFS) => {
            "; the agent needs the node's /proc/sys/net mounted read-write (a hostPath volume)"
        }
        Some(Errno::EPERM | Errno::EACCES) => "; the agent needs CAP_NET_ADMIN and to run as root",
        _ => "",
    }
}

fn reason_of(errno: Errno) -> Reason {
    match errno {
        Errno::EPERM | Errno::EACCES => Reason::PermissionDenied,
        Errno::EROFS => Reason::SysctlReadOnly,
        Errno::EEXIST => Reason::ForeignObject,
        Errno::ENODEV => Reason::InterfaceNotFound,
        Errno::EAFNOSUPPORT => Reason::IPv6Unavailable,
        _ => Reason::KernelError,
    }
}

fn sysctl_reason(errno: Errno) -> Reason {
    match errno {
        Errno::EROFS => Reason::SysctlReadOnly,
        Errno::EPERM | Errno::EACCES => Reason::PermissionDenied,
        _ => Reason::KernelError,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(errno: Errno) -> KernelError {
        KernelError::Refused {
            doing: "adding device lvs-dr".into(),
            errno,
            sentence: String::new(),
        }
    }

    #[test]
    fn errnos_have_the_words_users_are_told() {
        assert_eq!(refused(Errno::EPERM).reason(), Reason::PermissionDenied);
        let text = refused(Errno::EPERM).to_string();
        assert!(text.contains("CAP_NET_ADMIN"), "{text}");
        assert_eq!(refused(Errno::EEXIST).reason(), Reason::ForeignObject);
        assert_eq!(refused(Errno::ENODEV).reason(), Reason::InterfaceNotFound);
        let missing = refused(Errno::EOPNOTSUPP).or_module_missing(&[Errno::EOPNOTSUPP], "dummy");
        assert_eq!(missing.reason(), Reason::KernelModuleMissing);
        assert!(
            missing
                .to_string()
                .contains("kernel module dummy is missing"),
            "{missing}"
        );
    }

    #[test]
    fn a_read_only_sysctl_has_its_own_word() {
        let error = KernelError::Sysctl {
            doing: "writing",
            path: "/proc/sys/net/ipv4/ip_forward".into(),
            source: std::io::Error::from_raw_os_error(Errno::EROFS as i32),
        };
        assert_eq!(error.reason(), Reason::SysctlReadOnly);
        assert!(error.to_string().contains("mounted read-write"), "{error}");
    }
}
