//! The kubelet of tier 2: nodes are namespaces of one guest, pods become processes with exactly what
//! the API server holds for them. Pods of the host network run in their node's namespace; others (the
//! controller) on this machine, in a network namespace of their own that reaches nothing but the API server.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::KubeConfigOptions;
use kube::{Client, Config};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::guest::{Guest, quote};
use crate::pod::{self, Place};
use crate::volume::{self, Placed, Sources, Way};

/// Port on which a pod of the pod network reaches the API server, on its own loopback.
const POD_NETWORK_API_PORT: u16 = 6443;
/// Name server of pods of the pod network. Each has the address to itself; stories let somebody listen there.
pub const NAME_SERVER: &str = "10.96.0.10";
/// How often Secrets and ConfigMaps are compared with what pods have; a kubelet takes a minute.
const REFRESH: Duration = Duration::from_secs(2);
/// From one report of the nodes to the next.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);
/// The API server as guests see it (`e2e/cluster/guest.sh`).
const GUEST_API_HOST: &str = "10.0.2.2";

/// A node that the kubelet plays: name and addresses.
#[derive(Clone, Debug)]
pub struct NodeSpec {
    /// Name of the Node and of the namespace.
    pub name: String,
    /// InternalIPs.
    pub addresses: Vec<String>,
}

/// Unpacked images by reference.
#[derive(Clone, Debug, Default)]
pub struct Images(BTreeMap<String, (PathBuf, Value)>);

impl Images {
    /// Unpacks an OCI archive as `reference` below `folder`.
    pub fn add(
        &mut self,
        repository: &Path,
        reference: &str,
        archive: &Path,
        folder: &Path,
    ) -> Result<()> {
        let target = folder.join(reference.replace(['/', ':'], "_"));
        let status = Command::new(repository.join("e2e/machine/unpack-image.sh"))
            .arg(archive)
            .arg(&target)
            .status()?;
        if !status.success() {
            bail!("unpacking {}", archive.display());
        }
        let config = serde_json::from_str(&std::fs::read_to_string(target.join("config.json"))?)?;
        self.0
            .insert(reference.to_owned(), (target.join("root"), config));
        Ok(())
    }

    fn get(&self, reference: &str) -> Result<(&Path, &Value)> {
        let (root, config) = self
            .0
            .get(reference)
            .with_context(|| format!("no image {reference}; there are {:?}", self.0.keys()))?;
        Ok((root, config))
    }
}

/// The running kubelet.
pub struct Kubelet {
    stop: Arc<AtomicBool>,
    quiet: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

struct Shell {
    client: Client,
    guest: Guest,
    api_port: u16,
    state: PathBuf,
    repository: PathBuf,
    images: Images,
    nodes: BTreeMap<String, NodeSpec>,
    started: BTreeMap<String, Placed>,
    refreshed: Instant,
    stopping: BTreeMap<String, Instant>,
    probed: Instant,
    quiet: Arc<AtomicBool>,
}

impl Kubelet {
    /// Registers the nodes and begins to run the product's pods.
    pub fn start(
        cluster: &Cluster,
        guest: &Guest,
        repository: &Path,
        state: &Path,
        images: Images,
        nodes: &[NodeSpec],
    ) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let kubeconfig = kube::config::Kubeconfig::read_from(cluster.kubeconfig())?;
        let client = runtime.block_on(async {
            let config =
                Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
            anyhow::Ok(Client::try_from(config)?)
        })?;
        std::fs::create_dir_all(state.join("pods"))?;
        let mut shell = Shell {
            client,
            guest: guest.clone(),
            api_port: cluster.port,
            state: state.to_owned(),
            repository: repository.to_owned(),
            images,
            nodes: nodes
                .iter()
                .map(|node| (node.name.clone(), node.clone()))
                .collect(),
            started: BTreeMap::new(),
            refreshed: Instant::now(),
            stopping: BTreeMap::new(),
            probed: Instant::now(),
            quiet: Arc::default(),
        };
        let quiet = Arc::clone(&shell.quiet);
        runtime.block_on(register(&shell.client, nodes))?;
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let namespace = crate::lab::OPERATOR_NAMESPACE;
        let log = state.join("kubelet.log");
        // Beside the rounds: a node of which nothing is heard while one of them takes long would have its pods called unready.
        runtime.spawn(beat(shell.client.clone(), nodes.to_vec(), log.clone()));
        let thread = std::thread::Builder::new()
            .name("kubelet".into())
            .spawn(move || {
                while !seen.load(Ordering::SeqCst) {
                    let round = runtime.block_on(shell.round(namespace));
                    if let Err(error) = round {
                        append(&log, &format!("{error:#}"));
                    }
                    std::thread::sleep(Duration::from_millis(200));
                }
            })?;
        Ok(Self {
            stop,
            quiet,
            thread: Some(thread),
        })
    }

    /// Probes no container while `quiet`: a process per pod at once is what figures of milliseconds notice.
    pub fn set_quiet(&self, quiet: bool) {
        self.quiet.store(quiet, Ordering::SeqCst);
    }

    /// Ends the kubelet; pods go on until `e2e/machine/down.sh`.
    pub fn stop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.stop();
    }
}

fn append(log: &Path, line: &str) {
    use std::io::Write as _;
    if let Ok(mut file) = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
    {
        let _ = writeln!(file, "{} {line}", jiff::Timestamp::now());
    }
}

/// Folder of a pod in the guest.
pub fn guest_work(pod_uid: &str) -> String {
    format!("/run/pods/{pod_uid}")
}

async fn register(client: &Client, nodes: &[NodeSpec]) -> Result<()> {
    let api: Api<Node> = Api::all(client.clone());
    for node in nodes {
        let object: Node = serde_json::from_value(json!({
            "metadata": {"name": node.name, "labels": {
                "kubernetes.io/hostname": node.name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}},
        }))?;
        api.create(&PostParams::default(), &object)
            .await
            .with_context(|| format!("registering node {}", node.name))?;
    }
    heartbeat(client, nodes).await
}

async fn beat(client: Client, nodes: Vec<NodeSpec>, log: PathBuf) {
    loop {
        tokio::time::sleep(HEARTBEAT_INTERVAL).await;
        if let Err(error) = heartbeat(&client, &nodes).await {
            append(&log, &format!("heartbeat: {error:#}"));
        }
    }
}

async fn heartbeat(client: &Client, nodes: &[NodeSpec]) -> Result<()> {
    let api: Api<Node> = Api::all(client.clone());
    let now = jiff::Timestamp::now()
        .strftime("%Y-%m-%dT%H:%M:%SZ")
        .to_string();
    for node in nodes {
        if api.get_opt(&node.name).await?.is_none() {
            continue;
        }
        let addresses: Vec<Value> = node
            .addresses
            .iter()
            .map(|address| json!({"type": "InternalIP", "address": address}))
            .chain([json!({"type": "Hostname", "address": node.name})])
            .collect();
        let capacity =
            json!({"cpu": "4", "memory": "8Gi", "pods": "110", "ephemeral-storage": "10Gi"});
        let parameters = PatchParams::default();
        let status = json!({"status": {"addresses": addresses, "capacity": capacity, "allocatable": capacity}});
        api.patch_status(&node.name, &parameters, &Patch::Merge(&status))
            .await?;
        // Conditions of others stay.
        let ready = json!({"status": {
            "conditions": [{"type": "Ready", "status": "True", "reason": "LabKubelet", "message": "ready",
                "lastHeartbeatTime": now, "lastTransitionTime": now}],
        }});
        api.patch_status(&node.name, &parameters, &Patch::Strategic(&ready))
            .await?;
    }
    Ok(())
}

/// What a pod's status says of readiness; none until the kubelet said anything. Others write there, too: the node lifecycle
/// controller calls pods unready of whose node it hears nothing.
fn told_ready(pod: &Pod) -> Option<bool> {
    let status = pod.status.as_ref()?;
    status.container_statuses.as_ref()?;
    let conditions = status.conditions.as_ref()?;
    let ready = conditions.iter().find(|one| one.type_ == "Ready")?;
    Some(ready.status == "True")
}

impl Shell {
    async fn round(&mut self, namespace: &str) -> Result<()> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let pods = api.list(&ListParams::default()).await?;
        let mut alive = Vec::new();
        for pod in pods {
            let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) else {
                continue;
            };
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            let name = pod.metadata.name.clone().unwrap_or_default();
            let phase = pod
                .status
                .as_ref()
                .and_then(|status| status.phase.as_deref())
                .unwrap_or_default();
            if pod.metadata.deletion_timestamp.is_some() {
                if self.finish(&pod, &uid)? {
                    let now = DeleteParams::default().grace_period(0);
                    let _ = api.delete(&name, &now).await;
                    self.started.remove(&uid);
                    self.stopping.remove(&uid);
                }
            } else if !self.nodes.contains_key(&node) || matches!(phase, "Succeeded" | "Failed") {
            } else if self.started.contains_key(&uid) {
                alive.push(pod);
            } else {
                match self.launch(&pod, &node, &uid).await {
                    Ok(placed) => {
                        self.started.insert(uid, placed);
                    }
                    Err(error) => append(
                        &self.state.join("kubelet.log"),
                        &format!("pod {name}: {error:#}"),
                    ),
                }
            }
        }
        self.refresh(namespace, &alive).await?;
        self.report(&api, &alive).await
    }

    /// Puts what has changed of Secrets and ConfigMaps into the volumes of pods that run.
    async fn refresh(&mut self, namespace: &str, pods: &[Pod]) -> Result<()> {
        if self.refreshed.elapsed() < REFRESH || self.quiet.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.refreshed = Instant::now();
        let sources = Sources::of(&self.client, namespace).await?;
        for pod in pods {
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            let Some(mut placed) = self.started.remove(&uid) else {
                continue;
            };
            if let Err(error) = self.place(pod, &uid, &mut placed, &sources) {
                // It goes on with what it has.
                let line = format!("volumes of pod {uid}: {error:#}");
                append(&self.state.join("kubelet.log"), &line);
            }
            self.started.insert(uid, placed);
        }
        Ok(())
    }

    /// Puts a pod's volumes where it sees them.
    fn place(&self, pod: &Pod, uid: &str, placed: &mut Placed, sources: &Sources) -> Result<()> {
        let relative = format!("pods/{uid}");
        let (ours, theirs, work) = if Self::in_guest(pod) {
            let ours = self.guest.share.join(&relative);
            let theirs = Path::new("/share").join(&relative);
            (ours, theirs, PathBuf::from(guest_work(uid)))
        } else {
            let work = self.state.join(&relative);
            (work.clone(), work.clone(), work)
        };
        let way = Way {
            staged: ours.join("staged"),
            seen: theirs.join("staged"),
            volumes: work.join("volumes"),
            program: self.repository.join("e2e/machine/place-volume.sh"),
        };
        let Some((files, script)) = placed.stage(sources, pod, &way)? else {
            return Ok(());
        };
        if Self::in_guest(pod) {
            self.guest.run(&script)?;
        } else {
            let status = Command::new("bash").arg("-c").arg(&script).status()?;
            if !status.success() {
                bail!("placing volumes below {}: {status}", way.volumes.display());
            }
        }
        placed.done(files);
        Ok(())
    }

    fn in_guest(pod: &Pod) -> bool {
        pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true)
    }

    async fn launch(&self, pod: &Pod, node: &str, uid: &str) -> Result<Placed> {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let container = pod::sole_container(pod)?;
        let (image_root, image_config) = self
            .images
            .get(container.image.as_deref().unwrap_or_default())?;
        let sources = Sources::of(&self.client, &namespace).await?;
        let mut placed = Placed::new(volume::tokens(&self.client, pod).await?);
        self.place(pod, uid, &mut placed, &sources)?;
        if Self::in_guest(pod) {
            let relative = format!("pods/{uid}");
            let folder = self.guest.share.join(&relative);
            std::fs::create_dir_all(&folder)?;
            let image = format!(
                "/run/images/{}",
                image_root
                    .parent()
                    .and_then(Path::file_name)
                    .unwrap_or_default()
                    .display()
            );
            let work = guest_work(uid);
            let place = Place {
                work: work.clone().into(),
                image_root: image.clone().into(),
                image_config,
                node_disk: format!("/run/nodes/{node}").into(),
                api: (GUEST_API_HOST.into(), self.api_port),
                name_server: None,
                prelude: String::new(),
            };
            std::fs::write(folder.join("run.sh"), pod::script(pod, &place)?)?;
            self.guest.run(&format!(
                "set -e; mkdir -p {work} /run/nodes/{node}; cp /share/{relative}/run.sh {work}/run.sh\n\
                 [ -d {image} ] || {{ mkdir -p /run/images; cp -a {source} {image}.$$; mv -T {image}.$$ {image} || [ -d {image} ]; }}\n\
                 echo 'exec ip netns exec {node} unshare --mount busybox sh {work}/run.sh' >{work}/start.sh\n\
                 setsid bash {repository}/e2e/machine/supervise.sh {work} >/dev/null 2>&1 </dev/null &",
                source = quote(&image_root.display().to_string()),
                repository = self.repository.display(),
            ))?;
        } else {
            let work = self.state.join("pods").join(uid);
            std::fs::create_dir_all(&work)?;
            let socket = work.join("api.sock");
            let place = Place {
                work: work.clone(),
                image_root: image_root.to_owned(),
                image_config,
                node_disk: self.state.join("disks").join(node),
                api: ("127.0.0.1".into(), POD_NETWORK_API_PORT),
                name_server: Some(NAME_SERVER),
                prelude: format!(
                    "ip link set lo up\nip address add {NAME_SERVER}/32 dev lo\nsocat TCP-LISTEN:{POD_NETWORK_API_PORT},bind=127.0.0.1,fork,reuseaddr \
                     UNIX-CONNECT:{} >/dev/null 2>&1 &",
                    quote(&socket.display().to_string())
                ),
            };
            std::fs::write(work.join("run.sh"), pod::script(pod, &place)?)?;
            std::fs::write(
                work.join("start.sh"),
                format!(
                    "rm -f {socket}\nsocat UNIX-LISTEN:{socket},fork,mode=666 TCP:127.0.0.1:{} >/dev/null 2>&1 &\n\
                     until [ -S {socket} ]; do sleep 0.02; done\nexec unshare --net --mount busybox sh {}/run.sh",
                    self.api_port,
                    work.display(),
                    socket = quote(&socket.display().to_string()),
                ),
            )?;
            Command::new("setsid")
                .arg("bash")
                .arg(self.repository.join("e2e/machine/supervise.sh"))
                .arg(&work)
                .stdin(std::process::Stdio::null())
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .spawn()?;
        }
        Ok(placed)
    }

    /// Asks a container to end, then makes it end; true when it has.
    fn finish(&mut self, pod: &Pod, uid: &str) -> Result<bool> {
        if !self.started.contains_key(uid) {
            return Ok(true);
        }
        let grace = u64::try_from(pod.metadata.deletion_grace_period_seconds.unwrap_or(30))?;
        let first = !self.stopping.contains_key(uid);
        let since = *self
            .stopping
            .entry(uid.to_owned())
            .or_insert_with(Instant::now);
        let signal = if first {
            "TERM"
        } else if since.elapsed() > Duration::from_secs(grace) {
            "KILL"
        } else {
            "0"
        };
        let work = if Self::in_guest(pod) {
            guest_work(uid)
        } else {
            self.state.join("pods").join(uid).display().to_string()
        };
        // The supervisor removes the pid file when the container has ended.
        let script = format!(
            "touch {work}/stop; [ -e {work}/pid ] || {{ echo gone; exit 0; }}; kill -{signal} $(cat {work}/pid) 2>/dev/null; echo there"
        );
        let answer = if Self::in_guest(pod) {
            self.guest.run(&script)?
        } else {
            String::from_utf8(Command::new("bash").arg("-c").arg(&script).output()?.stdout)?
        };
        Ok(answer.trim() == "gone")
    }

    async fn report(&mut self, api: &Api<Pod>, pods: &[Pod]) -> Result<()> {
        // Probes cost the guest more than anything else here.
        let waiting = pods.iter().any(|pod| told_ready(pod) != Some(true));
        let period = Duration::from_secs(if waiting { 2 } else { 10 });
        if self.probed.elapsed() < period || self.quiet.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.probed = Instant::now();
        let probe = |pod: &Pod| -> Result<String> {
            let container = pod::sole_container(pod)?;
            let probe = container
                .readiness_probe
                .as_ref()
                .and_then(|probe| probe.http_get.as_ref());
            Ok(probe.map_or_else(
                || "true".to_owned(),
                |get| {
                    let port = match &get.port {
                        k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::Int(port) => *port,
                        k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::String(name) => container
                            .ports
                            .iter()
                            .flatten()
                            .find(|port| port.name.as_deref() == Some(name))
                            .map_or(0, |port| port.container_port),
                    };
                    let path = get.path.clone().unwrap_or_default();
                    format!("exec 3<>/dev/tcp/127.0.0.1/{port} && printf 'GET {path} HTTP/1.0\\r\\n\\r\\n' >&3 && read -r line <&3 && [[ $line == *' 200'* ]]")
                },
            ))
        };
        let mut script = String::new();
        let mut answers: BTreeMap<String, bool> = BTreeMap::new();
        for pod in pods {
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            if Self::in_guest(pod) {
                let node = pod
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.node_name.clone())
                    .unwrap_or_default();
                writeln!(
                    script,
                    "(timeout 5 ip netns exec {node} bash -c {} 2>/dev/null && echo {uid}) &",
                    quote(&probe(pod)?)
                )?;
            } else {
                let pid = std::fs::read_to_string(self.state.join("pods").join(&uid).join("pid"))
                    .unwrap_or_default();
                let ok = !pid.is_empty()
                    && Command::new("timeout")
                        .args([
                            "5",
                            "nsenter",
                            "-t",
                            pid.trim(),
                            "-n",
                            "bash",
                            "-c",
                            &probe(pod)?,
                        ])
                        .stderr(std::process::Stdio::null())
                        .status()?
                        .success();
                answers.insert(uid, ok);
            }
        }
        if !script.is_empty() {
            let seen = self.guest.run(&format!("{script}wait"))?;
            for pod in pods.iter().filter(|pod| Self::in_guest(pod)) {
                let uid = pod.metadata.uid.clone().unwrap_or_default();
                let ok = seen.lines().any(|line| line == uid);
                answers.insert(uid, ok);
            }
        }
        for pod in pods {
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            let ready = answers.get(&uid).copied().unwrap_or(false);
            if told_ready(pod) == Some(ready) {
                continue;
            }
            let container = pod::sole_container(pod)?;
            let node = pod
                .spec
                .as_ref()
                .and_then(|spec| spec.node_name.clone())
                .unwrap_or_default();
            let address = self
                .nodes
                .get(&node)
                .and_then(|node| node.addresses.first().cloned())
                .unwrap_or_default();
            let now = jiff::Timestamp::now()
                .strftime("%Y-%m-%dT%H:%M:%SZ")
                .to_string();
            let word = if ready { "True" } else { "False" };
            let conditions =
                ["Initialized", "Ready", "ContainersReady", "PodScheduled"].map(|type_| {
                    json!({"type": type_, "lastTransitionTime": now,
                    "status": if type_.contains("Ready") { word } else { "True" }})
                });
            let status = json!({"status": {
                "phase": "Running", "hostIP": address, "podIP": address, "podIPs": [{"ip": address}], "startTime": now,
                "conditions": conditions,
                "containerStatuses": [{"name": container.name, "ready": ready, "started": true, "restartCount": 0,
                    "image": container.image, "imageID": container.image, "containerID": format!("lab://{uid}"),
                    "state": {"running": {"startedAt": now}}}],
            }});
            let name = pod.metadata.name.clone().unwrap_or_default();
            api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(&status))
                .await?;
        }
        Ok(())
    }
}
