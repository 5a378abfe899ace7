//! From a pod as the API server holds it to a script that runs its container the way a kubelet and a
//! runtime would: image root, mounts, environment, capabilities, a token bound to the pod.
//!
//! Whatever a pod asks for that this cannot give is an error: a wrong chart must fail here.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Container, EnvVar, Pod, Volume};
use serde_json::Value;

use crate::guest::quote;

/// Names of Linux capabilities in the order of their numbers (`include/uapi/linux/capability.h`).
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];
/// What containerd gives a container that neither adds nor drops.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// Where a pod runs, as paths on the side that runs it.
pub struct Place<'a> {
    /// Folder of the pod, writable; its volumes are in `volumes`.
    pub work: PathBuf,
    /// Unpacked image root.
    pub image_root: PathBuf,
    /// Configuration of the image (`config` of the OCI image).
    pub image_config: &'a Value,
    /// Folder that stands for the node's own disk.
    pub node_disk: PathBuf,
    /// Host and port of the API server as the pod reaches it.
    pub api: (String, u16),
    /// Name server that the pod asks; a pod of the node's network has none here.
    pub name_server: Option<&'static str>,
    /// Commands before everything else, such as the pod's own network.
    pub prelude: String,
}

/// Files of a pod's volumes: content by path, by name of the volume.
pub type PodFiles = BTreeMap<String, BTreeMap<String, Vec<u8>>>;

/// The one container of a pod.
pub fn sole_container(pod: &Pod) -> Result<&Container> {
    let spec = pod.spec.as_ref().context("pod without spec")?;
    match (
        &spec.containers[..],
        spec.init_containers.as_deref().unwrap_or_default(),
    ) {
        ([container], []) => Ok(container),
        _ => bail!("the lab runs pods of one container and no init containers"),
    }
}

fn field(pod: &Pod, path: &str) -> Result<String> {
    let spec = pod.spec.as_ref().context("pod without spec")?;
    let value = match path {
        "metadata.name" => pod.metadata.name.clone(),
        "metadata.namespace" => pod.metadata.namespace.clone(),
        "metadata.uid" => pod.metadata.uid.clone(),
        "spec.nodeName" => spec.node_name.clone(),
        "spec.serviceAccountName" => spec.service_account_name.clone(),
        "status.hostIP" | "status.podIP" => pod
            .status
            .as_ref()
            .and_then(|status| status.host_ip.clone()),
        other => bail!("the lab knows no field {other} for a pod's environment"),
    };
    value.with_context(|| format!("the pod has no {path} yet"))
}

/// Files of the volumes that the API server fills; `find` has the content of a Secret or ConfigMap by name, and of a Token
/// by audience. What is missing and not optional is an error.
pub fn files(
    pod: &Pod,
    find: impl Fn(&str, &str) -> Option<BTreeMap<String, Vec<u8>>>,
) -> Result<PodFiles> {
    let spec = pod.spec.as_ref().context("pod without spec")?;
    let content = |kind: &str, name: &str, optional: Option<bool>| {
        let found = find(kind, name);
        if found.is_none() && optional == Some(true) {
            return Ok(BTreeMap::new());
        }
        found.with_context(|| format!("no {kind} {name}"))
    };
    let mut all = PodFiles::new();
    for volume in spec.volumes.iter().flatten() {
        let mut files = BTreeMap::new();
        if let Some(source) = &volume.config_map {
            files.extend(content("ConfigMap", &source.name, source.optional)?);
        } else if let Some(source) = &volume.secret {
            let name = source
                .secret_name
                .as_deref()
                .context("secret volume without a name")?;
            files.extend(content("Secret", name, source.optional)?);
        } else if let Some(projected) = &volume.projected {
            for source in projected.sources.iter().flatten() {
                if let Some(token) = &source.service_account_token {
                    let audience = token.audience.as_deref().unwrap_or_default();
                    let mut got = content("Token", audience, None)?;
                    let bytes = got.pop_first().context("no token")?.1;
                    files.insert(token.path.clone(), bytes);
                } else if let Some(map) = &source.config_map {
                    let data = content("ConfigMap", &map.name, map.optional)?;
                    for item in map.items.iter().flatten() {
                        let bytes = data
                            .get(&item.key)
                            .with_context(|| format!("no key {}", item.key))?;
                        files.insert(item.path.clone(), bytes.clone());
                    }
                } else if let Some(downward) = &source.downward_api {
                    for item in downward.items.iter().flatten() {
                        let path = &item
                            .field_ref
                            .as_ref()
                            .context("downward item without fieldRef")?
                            .field_path;
                        files.insert(item.path.clone(), field(pod, path)?.into_bytes());
                    }
                } else {
                    bail!("the lab cannot project {source:?}");
                }
            }
        } else {
            continue;
        }
        all.insert(volume.name.clone(), files);
    }
    Ok(all)
}

fn environment(
    pod: &Pod,
    container: &Container,
    place: &Place<'_>,
) -> Result<Vec<(String, String)>> {
    let mut list: Vec<(String, String)> = vec![
        (
            "PATH".into(),
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
        ),
        ("KUBERNETES_SERVICE_HOST".into(), place.api.0.clone()),
        ("KUBERNETES_SERVICE_PORT".into(), place.api.1.to_string()),
    ];
    for entry in place.image_config["Env"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        if let Some((name, value)) = entry.split_once('=') {
            list.push((name.into(), value.into()));
        }
    }
    for EnvVar {
        name,
        value,
        value_from,
    } in container.env.iter().flatten()
    {
        let value = match value_from {
            None => value.clone().unwrap_or_default(),
            Some(source) => {
                let path = source
                    .field_ref
                    .as_ref()
                    .with_context(|| format!("source of {name}"))?;
                field(pod, &path.field_path)?
            }
        };
        list.push((name.clone(), value));
    }
    Ok(list)
}

fn expand(text: &str, environment: &[(String, String)]) -> String {
    environment
        .iter()
        .rev()
        .fold(text.to_owned(), |text, (name, value)| {
            text.replace(&format!("$({name})"), value)
        })
}

fn mount(
    script: &mut String,
    volume: &Volume,
    target: &str,
    read_only: bool,
    place: &Place<'_>,
) -> Result<()> {
    let source = if let Some(host) = &volume.host_path {
        let kernel = ["/proc/", "/sys/", "/dev/"]
            .iter()
            .any(|prefix| host.path.starts_with(prefix));
        let path = if kernel {
            PathBuf::from(&host.path)
        } else {
            place.node_disk.join(host.path.trim_start_matches('/'))
        };
        match host.type_.as_deref().unwrap_or_default() {
            "DirectoryOrCreate" => {
                writeln!(script, "mkdir -p {}", quote(&path.display().to_string()))?;
            }
            "" | "Directory" => {
                writeln!(script, "test -d {}", quote(&path.display().to_string()))?;
            }
            other => bail!("the lab has no hostPath of type {other}"),
        }
        path
    } else if volume.empty_dir.is_some() {
        let path = place.work.join("volumes").join(&volume.name);
        writeln!(script, "mkdir -p {}", path.display())?;
        path
    } else if volume.projected.is_some() || volume.config_map.is_some() || volume.secret.is_some() {
        place.work.join("volumes").join(&volume.name)
    } else {
        bail!("the lab cannot mount volume {}", volume.name);
    };
    let target = format!("\"$root\"{}", quote(target));
    writeln!(
        script,
        "mkdir -p {target} && mount -o bind {} {target}",
        quote(&source.display().to_string()),
    )?;
    if read_only {
        writeln!(script, "mount -o remount,bind,ro {target}")?;
    }
    Ok(())
}

/// Script for busybox's shell (whose own mount and mkdir are not processes) that becomes the container's process,
/// to be run in a mount namespace of its own.
pub fn script(pod: &Pod, place: &Place<'_>) -> Result<String> {
    let container = sole_container(pod)?;
    let spec = pod.spec.as_ref().context("pod without spec")?;
    let environment = environment(pod, container, place)?;
    let words = |value: &Value| -> Vec<String> {
        value
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|w| w.as_str().map(str::to_owned))
            .collect()
    };
    let command = container
        .command
        .clone()
        .unwrap_or_else(|| words(&place.image_config["Entrypoint"]));
    let arguments = container
        .args
        .clone()
        .unwrap_or_else(|| match container.command {
            Some(_) => Vec::new(),
            None => words(&place.image_config["Cmd"]),
        });
    let line: Vec<String> = command
        .iter()
        .chain(&arguments)
        .map(|word| expand(word, &environment))
        .collect();
    let (program, arguments) = line
        .split_first()
        .context("neither command nor entrypoint")?;

    let mut script = format!(
        "set -euo pipefail\nwork={work}\nroot=$work/root\nmount --make-rprivate /\n{prelude}\n\
         mkdir -p \"$root\" && mount -t tmpfs -o mode=755 pod \"$root\"\n\
         mkdir -p \"$root\"/.upper \"$root\"/.work \"$root\"/.root\n\
         mount -t overlay -o lowerdir={image},upperdir=\"$root\"/.upper,workdir=\"$root\"/.work pod \"$root\"/.root\n\
         root=$root/.root\n\
         mkdir -p \"$root\"/proc \"$root\"/dev \"$root\"/sys\n\
         mount -t proc proc \"$root\"/proc && mount -o bind \"$root\"/proc/sys \"$root\"/proc/sys && mount -o remount,bind,ro \"$root\"/proc/sys\n\
         mount -t sysfs -o ro sys \"$root\"/sys\n\
         mount -t tmpfs -o mode=755 dev \"$root\"/dev\n\
         for device in null zero urandom random; do : >\"$root\"/dev/$device; mount -o bind /dev/$device \"$root\"/dev/$device; done\n",
        work = quote(&place.work.display().to_string()),
        prelude = place.prelude,
        image = quote(&place.image_root.display().to_string()),
    );
    let volumes = spec.volumes.as_deref().unwrap_or_default();
    for wanted in container.volume_mounts.iter().flatten() {
        let volume = volumes
            .iter()
            .find(|volume| volume.name == wanted.name)
            .with_context(|| format!("no volume {}", wanted.name))?;
        mount(
            &mut script,
            volume,
            &wanted.mount_path,
            wanted.read_only == Some(true),
            place,
        )?;
    }
    if let Some(server) = place.name_server {
        // As with dnsPolicy ClusterFirst.
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        writeln!(
            script,
            "mkdir -p \"$root\"/etc && printf '%s\\n' 'search {namespace}.svc.cluster.local svc.cluster.local cluster.local' \
             'nameserver {server}' 'options ndots:5' >\"$root\"/etc/resolv.conf"
        )?;
    }
    let security = container.security_context.clone().unwrap_or_default();
    if security.privileged == Some(true) {
        bail!("pod {:?} asks to be privileged", pod.metadata.name);
    }
    if security.read_only_root_filesystem == Some(true) {
        script.push_str("mount -o remount,bind,ro \"$root\"\n");
    }
    let capabilities = security.capabilities.unwrap_or_default();
    let dropped = capabilities.drop.unwrap_or_default();
    let added = capabilities.add.unwrap_or_default();
    let kept: Vec<&str> = CAPABILITIES
        .into_iter()
        .filter(|name| {
            let by_default = DEFAULT_CAPABILITIES.contains(name)
                && !dropped.iter().any(|drop| drop == "ALL" || drop == name);
            by_default || added.iter().any(|add| add == name)
        })
        .collect();
    let drop: Vec<String> = CAPABILITIES
        .iter()
        .filter(|name| !kept.contains(name))
        .map(|name| format!("cap_{}", name.to_lowercase()))
        .collect();
    script.push_str("for name in $(env | cut -d= -f1 | grep -E '^[A-Za-z_][A-Za-z0-9_]*$'); do unset $name || true; done\n");
    for (name, value) in &environment {
        writeln!(script, "export {name}={}", quote(value))?;
    }
    let user = security
        .run_as_user
        .or(spec.security_context.as_ref().and_then(|c| c.run_as_user))
        .unwrap_or(0);
    let group = security
        .run_as_group
        .or(spec.security_context.as_ref().and_then(|c| c.run_as_group))
        .unwrap_or(0);
    let non_root = security.run_as_non_root.or(spec
        .security_context
        .as_ref()
        .and_then(|c| c.run_as_non_root));
    if non_root == Some(true) && user == 0 {
        bail!(
            "pod {:?} must not run as root but names no other user",
            pod.metadata.name
        );
    }
    write!(
        script,
        "exec /usr/sbin/capsh --chroot=\"$root\" --drop={}",
        drop.join(",")
    )?;
    if user != 0 {
        write!(script, " --gid={group} --groups={group} --uid={user}")?;
    }
    if security.allow_privilege_escalation == Some(false) {
        script.push_str(" --no-new-privs");
    }
    write!(script, " --shell={} --", quote(program))?;
    for argument in arguments {
        write!(script, " {}", quote(argument))?;
    }
    script.push('\n');
    Ok(script)
}
