//! Sysctls: files below a directory that stands for /proc/sys.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use lvs_core::host::SysctlKey;

use super::error::KernelError;

/// Path of a sysctl. Only those of the network namespace may be named: `net/…`, without a way up.
fn path(directory: &Path, key: &SysctlKey) -> Result<PathBuf, KernelError> {
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    if !key.0.starts_with("net/") || !key.0.split('/').all(plain) {
        return Err(KernelError::Invalid {
            doing: format!("sysctl {key}"),
            what: "only sysctls below net/ are ours to touch",
        });
    }
    Ok(directory.join(&key.0))
}

/// Value of a sysctl without its line end, several numbers (`sync_threshold`) with one blank between them; `None` = there
/// is no such file.
pub fn read(directory: &Path, key: &SysctlKey) -> Result<Option<String>, KernelError> {
    let path = path(directory, key)?;
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.split_whitespace().collect::<Vec<_>>().join(" "))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(KernelError::Sysctl {
            doing: "reading",
            path: path.display().to_string(),
            source,
        }),
    }
}

/// Values of several sysctls.
pub fn read_all(
    directory: &Path,
    keys: &BTreeSet<SysctlKey>,
) -> Result<BTreeMap<SysctlKey, Option<String>>, KernelError> {
    keys.iter()
        .map(|key| Ok((key.clone(), read(directory, key)?)))
        .collect()
}

/// Writes a sysctl. Never creates a file.
pub fn write(directory: &Path, key: &SysctlKey, value: &str) -> Result<(), KernelError> {
    use std::io::Write;
    let path = path(directory, key)?;
    std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .map_err(|source| KernelError::Sysctl {
            doing: "writing",
            path: path.display().to_string(),
            source,
        })
}

/// Whether the kernel has IPv6 and it is not switched off for new devices.
pub fn ipv6(directory: &Path) -> Result<bool, KernelError> {
    let off = |scope: &str| {
        let key = SysctlKey(format!("net/ipv6/conf/{scope}/disable_ipv6"));
        Ok::<_, KernelError>(read(directory, &key)?.as_deref() != Some("0"))
    };
    Ok(!off("all")? && !off("default")?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use lvs_crds::condition::Reason;

    use super::*;

    fn directory() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("net/ipv4")).unwrap();
        std::fs::write(directory.path().join("net/ipv4/ip_forward"), "0\n").unwrap();
        directory
    }

    #[test]
    fn a_missing_file_is_no_error_and_no_value() {
        let directory = directory();
        let key = SysctlKey("net/ipv4/conf/eth9/arp_ignore".into());
        assert_eq!(read(directory.path(), &key).unwrap(), None);
        let error = write(directory.path(), &key, "1").unwrap_err();
        assert_eq!(error.reason(), Reason::KernelError);
        assert!(!directory.path().join(&key.0).exists());
    }

    #[test]
    fn a_value_is_written_and_read_without_its_line_end() {
        let directory = directory();
        let key = SysctlKey("net/ipv4/ip_forward".into());
        assert_eq!(read(directory.path(), &key).unwrap().as_deref(), Some("0"));
        write(directory.path(), &key, "1").unwrap();
        assert_eq!(
            read(directory.path(), &key)
                .unwrap()
                .as_deref()
                .map(|text| text.get(..1)),
            Some(Some("1"))
        );
    }

    #[test]
    fn nothing_outside_the_network_is_touched() {
        for name in [
            "kernel/hostname",
            "net/../kernel/hostname",
            "/net/x",
            "net//x",
        ] {
            let error = write(Path::new("/nowhere"), &SysctlKey(name.into()), "x").unwrap_err();
            assert!(
                matches!(error, KernelError::Invalid { .. }),
                "{name}: {error}"
            );
        }
    }

    #[test]
    fn a_kernel_without_ipv6_is_seen() {
        let directory = directory();
        assert!(!ipv6(directory.path()).unwrap());
        for scope in ["all", "default"] {
            let path = directory.path().join(format!("net/ipv6/conf/{scope}"));
            std::fs::create_dir_all(&path).unwrap();
            std::fs::write(path.join("disable_ipv6"), "0\n").unwrap();
        }
        assert!(ipv6(directory.path()).unwrap());
    }
}
