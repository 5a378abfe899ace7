//! Volumes of pods that the API server fills: Secrets, ConfigMaps and tokens, put where a pod sees them, and again when they
//! have changed, all files of a volume at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use kube::Client;
use kube::api::{Api, ListParams, PostParams};

use crate::guest::quote;
use crate::pod::{self, PodFiles};

/// Content of a Secret or ConfigMap by key.
type Content = BTreeMap<String, Vec<u8>>;

/// What the API server has of a namespace, by name.
pub struct Sources {
    secrets: BTreeMap<String, Content>,
    config_maps: BTreeMap<String, Content>,
}

impl Sources {
    /// Asks the API server.
    pub async fn of(client: &Client, namespace: &str) -> Result<Self> {
        // Helm keeps whole charts in Secrets of its own; no pod mounts those.
        let selected = ListParams::default().fields("type!=helm.sh/release.v1");
        let secrets = Api::<Secret>::namespaced(client.clone(), namespace)
            .list(&selected)
            .await?;
        let config_maps = Api::<ConfigMap>::namespaced(client.clone(), namespace)
            .list(&ListParams::default())
            .await?;
        Ok(Self {
            secrets: secrets
                .into_iter()
                .map(|secret| {
                    let data = secret.data.unwrap_or_default().into_iter();
                    let content = data.map(|(key, bytes)| (key, bytes.0)).collect();
                    (secret.metadata.name.unwrap_or_default(), content)
                })
                .collect(),
            config_maps: config_maps
                .into_iter()
                .map(|map| {
                    let data = map.data.unwrap_or_default().into_iter();
                    let content = data.map(|(key, text)| (key, text.into_bytes())).collect();
                    (map.metadata.name.unwrap_or_default(), content)
                })
                .collect(),
        })
    }

    /// Files of a pod's volumes; tokens are those that it has already, by audience.
    pub fn files(&self, pod: &Pod, tokens: &BTreeMap<String, Vec<u8>>) -> Result<PodFiles> {
        pod::files(pod, |kind, name| match kind {
            "Secret" => self.secrets.get(name).cloned(),
            "ConfigMap" => self.config_maps.get(name).cloned(),
            _ => tokens
                .get(name)
                .map(|token| [(String::new(), token.clone())].into()),
        })
    }
}

/// Tokens that a pod's volumes ask for, bound to it, by audience.
pub async fn tokens(client: &Client, pod: &Pod) -> Result<BTreeMap<String, Vec<u8>>> {
    let spec = pod.spec.as_ref().context("pod without spec")?;
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let account = spec
        .service_account_name
        .clone()
        .unwrap_or_else(|| "default".into());
    let volumes = spec.volumes.iter().flatten();
    let sources = volumes
        .filter_map(|volume| volume.projected.as_ref()?.sources.as_ref())
        .flatten();
    let mut tokens = BTreeMap::new();
    for wanted in sources.filter_map(|source| source.service_account_token.as_ref()) {
        let audience = wanted.audience.clone().unwrap_or_default();
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: Some(audience.clone())
                    .filter(|audience| !audience.is_empty())
                    .into_iter()
                    .collect(),
                // Nobody renews it here.
                expiration_seconds: Some(wanted.expiration_seconds.unwrap_or(3600).max(7200)),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".into()),
                    kind: Some("Pod".into()),
                    name: pod.metadata.name.clone(),
                    uid: pod.metadata.uid.clone(),
                }),
            },
            ..Default::default()
        };
        let answer = Api::<ServiceAccount>::namespaced(client.clone(), &namespace)
            .create_token_request(&account, &PostParams::default(), &request)
            .await?;
        let token = answer.status.context("token request without status")?.token;
        tokens.insert(audience, token.into_bytes());
    }
    Ok(tokens)
}

/// Where the volumes of a pod are, and how they come there.
pub struct Way {
    /// Where this program writes their files first.
    pub staged: PathBuf,
    /// The same folder as the side sees it that runs the pod.
    pub seen: PathBuf,
    /// Where the pod sees its volumes, on that side.
    pub volumes: PathBuf,
    /// `e2e/machine/place-volume.sh`, which puts them there.
    pub program: PathBuf,
}

/// Volumes of one pod as they are.
pub struct Placed {
    tokens: BTreeMap<String, Vec<u8>>,
    files: PodFiles,
    times: u32,
}

impl Placed {
    /// Of a pod that has these tokens and nothing in its volumes yet.
    pub const fn new(tokens: BTreeMap<String, Vec<u8>>) -> Self {
        Self {
            tokens,
            files: PodFiles::new(),
            times: 0,
        }
    }

    /// Writes what has changed, and answers with a script that puts it in place, for the side that runs the pod; `None`:
    /// nothing has changed. Call [`Placed::done`] when the script has run.
    pub fn stage(
        &self,
        sources: &Sources,
        pod: &Pod,
        way: &Way,
    ) -> Result<Option<(PodFiles, String)>> {
        let files = sources.files(pod, &self.tokens)?;
        let changed: BTreeSet<&String> = files
            .keys()
            .filter(|name| files.get(*name) != self.files.get(*name))
            .collect();
        if changed.is_empty() {
            return Ok(None);
        }
        // A folder of its own each time: what one side has read of a file the other must not change.
        let turn = PathBuf::from(self.times.to_string());
        let mut script = String::from("set -e\n");
        for name in changed {
            let folder = way.staged.join(&turn).join(name);
            std::fs::create_dir_all(&folder)?;
            for (path, bytes) in files.get(name).into_iter().flatten() {
                let path = folder.join(path);
                std::fs::create_dir_all(path.parent().context("path without parent")?)?;
                std::fs::write(&path, bytes)
                    .with_context(|| format!("writing {}", path.display()))?;
            }
            let words = [
                way.program.clone(),
                way.seen.join(&turn).join(name),
                way.volumes.join(name),
            ];
            let words = words.map(|path| quote(&path.display().to_string()));
            writeln!(script, "bash {}", words.join(" "))?;
        }
        Ok(Some((files, script)))
    }

    /// The files are where the pod sees them.
    pub fn done(&mut self, files: PodFiles) {
        self.files = files;
        self.times += 1;
    }
}
