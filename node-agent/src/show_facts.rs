//! `lvs-agent show facts`: what a node knows of itself, read beside the agent that runs. It changes nothing and loads nothing.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use lvs_core::facts::{MODULES, NodeFacts, SYSCTLS};

/// Where the kernel tells it.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// /proc/sys.
    pub sysctls: &'a Path,
    /// /sys/module: a folder for each module that is loaded, or built in with parameters.
    pub modules: &'a Path,
    /// /sys/class/net: an entry for each device.
    pub devices: &'a Path,
}

impl Default for Sources<'_> {
    fn default() -> Self {
        Self {
            sysctls: Path::new("/proc/sys"),
            modules: Path::new("/sys/module"),
            devices: Path::new("/sys/class/net"),
        }
    }
}

/// Reads them. What cannot be read is told among them.
pub fn read(sources: Sources<'_>) -> NodeFacts {
    let mut problems = Vec::new();
    let mut text = |path: &str| {
        let path = sources.sysctls.join(path);
        match std::fs::read_to_string(&path) {
            Ok(text) => Some(text.trim().replace('\t', " ")),
            Err(error) => {
                if error.kind() != ErrorKind::NotFound {
                    problems.push(format!("reading {}: {error}", path.display()));
                }
                None
            }
        }
    };
    let kernel_release = text("kernel/osrelease").unwrap_or_default();
    let sysctls: BTreeMap<String, String> = SYSCTLS
        .iter()
        .filter_map(|key| Some(((*key).to_owned(), text(key)?)))
        .collect();
    let modules = MODULES
        .iter()
        .filter(|module| sources.modules.join(module).exists());
    let modules = modules.map(|module| (*module).to_owned()).collect();
    let devices = match std::fs::read_dir(sources.devices) {
        Ok(entries) => entries
            .filter_map(Result::ok)
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect(),
        Err(error) => {
            problems.push(format!("reading {}: {error}", sources.devices.display()));
            std::collections::BTreeSet::new()
        }
    };
    NodeFacts {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel_release,
        modules,
        sysctls,
        devices,
        problems,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_is_there_is_read_and_what_is_not_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for (file, text) in [
            ("sys/kernel/osrelease", "6.1.0-40-amd64\n"),
            ("sys/net/ipv4/ip_forward", "1\n"),
            ("sys/net/ipv4/vs/sync_threshold", "3\t50\n"),
            ("module/ip_vs/refcnt", "1"),
            ("module/e1000/refcnt", "1"),
            ("net/eth0/mtu", "1500"),
        ] {
            std::fs::create_dir_all(path(file).parent().unwrap()).unwrap();
            std::fs::write(path(file), text).unwrap();
        }
        let (sysctls, modules, devices) = (path("sys"), path("module"), path("net"));
        let sources = Sources {
            sysctls: &sysctls,
            modules: &modules,
            devices: &devices,
        };
        let facts = read(sources);
        assert_eq!(facts.kernel_release, "6.1.0-40-amd64");
        let known: Vec<(&str, &str)> = facts
            .sysctls
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        assert_eq!(
            known,
            [
                ("net/ipv4/ip_forward", "1"),
                ("net/ipv4/vs/sync_threshold", "3 50")
            ]
        );
        assert_eq!(facts.modules.into_iter().collect::<Vec<_>>(), ["ip_vs"]);
        assert_eq!(facts.devices.into_iter().collect::<Vec<_>>(), ["eth0"]);
        assert_eq!(facts.problems, [""; 0]);

        let nowhere = path("nowhere");
        let facts = read(Sources {
            devices: &nowhere,
            ..sources
        });
        assert!(facts.problems[0].contains("nowhere"), "{facts:?}");
    }
}
