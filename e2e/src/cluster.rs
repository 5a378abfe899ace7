//! The control plane of a lab and what stories ask of it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// A control plane in a folder, see `e2e/README.md`.
#[derive(Clone, Debug)]
pub struct Cluster {
    folder: PathBuf,
    repository: PathBuf,
    kubectl: PathBuf,
    /// Port of the API server on loopback.
    pub port: u16,
    /// Port of etcd on loopback.
    pub etcd_port: u16,
}

fn run(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program with this on its standard input; how it ended is the caller's to judge.
pub fn run_with_input(command: &mut Command, input: &str) -> Result<Output> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {command:?}"))?;
    child
        .stdin
        .take()
        .context("standard input of a program")?
        .write_all(input.as_bytes())?;
    Ok(child.wait_with_output()?)
}

/// Path of one of the lab's tools.
pub fn tool(repository: &Path, name: &str) -> Result<PathBuf> {
    Ok(
        run(Command::new(repository.join("e2e/setup/tool.sh")).arg(name))?
            .trim()
            .into(),
    )
}

impl Cluster {
    /// Starts a control plane in `folder`.
    pub fn up(repository: &Path, folder: &Path) -> Result<Self> {
        run(
            Command::new(repository.join("e2e/cluster/control-plane.sh"))
                .arg("up")
                .arg(folder),
        )?;
        Self::open(repository, folder)
    }

    /// The control plane that runs in `folder`.
    pub fn open(repository: &Path, folder: &Path) -> Result<Self> {
        let environment = std::fs::read_to_string(folder.join("control-plane.env"))?;
        let port = |name: &str| -> Result<u16> {
            Ok(environment
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
                .with_context(|| format!("{name} in control-plane.env"))?
                .parse()?)
        };
        Ok(Self {
            folder: folder.to_owned(),
            repository: repository.to_owned(),
            kubectl: tool(repository, "kubectl")?,
            port: port("API_PORT")?,
            etcd_port: port("ETCD_PORT")?,
        })
    }

    /// Stops one part, such as `apiserver`.
    pub fn stop(&self, part: &str) -> Result<()> {
        self.control("stop", &[part])
    }

    /// Kills one part: it says good-bye to nobody.
    pub fn kill(&self, part: &str) -> Result<()> {
        self.control("kill", &[part])
    }

    /// From now on the API server reaches etcd at this port of loopback; restarts it.
    pub fn etcd_through(&self, port: u16) -> Result<()> {
        self.control("etcd-through", &[&port.to_string()])
    }

    /// Writes a kubeconfig of an administrator that works in guests.
    pub fn guest_kubeconfig(&self, path: &Path) -> Result<()> {
        self.guest_credentials("lab-probe", "system:masters", path)
    }

    /// Writes a kubeconfig of a user and a group that works in guests.
    pub fn guest_credentials(&self, user: &str, group: &str, path: &Path) -> Result<()> {
        let server = format!("https://10.0.2.2:{}", self.port);
        let path = path.display().to_string();
        self.control("credentials", &[user, group, &server, &path])
    }

    /// Starts one part again and waits until the API server answers.
    pub fn start(&self, part: &str) -> Result<()> {
        self.control("start", &[part])
    }

    fn control(&self, verb: &str, words: &[&str]) -> Result<()> {
        run(
            Command::new(self.repository.join("e2e/cluster/control-plane.sh"))
                .arg(verb)
                .arg(&self.folder)
                .args(words),
        )?;
        Ok(())
    }

    /// Path of the administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// kubectl as administrator.
    pub fn kubectl(&self, words: &[&str]) -> Result<String> {
        run(self.command().args(words))
    }

    /// A merge patch of an object, named by kubectl's words for it.
    pub fn merge_patch(&self, object: &[&str], change: &Value) -> Result<()> {
        let change = change.to_string();
        let words = [&["patch"], object, &["--type=merge", "-p", &change]].concat();
        self.kubectl(&words).map(drop)
    }

    /// A merge patch with a bearer token instead of the administrator's certificate; status and body of the answer.
    /// Not with kubectl, which reads an object before it patches it: an agent may write a status it may not read alone.
    pub fn merge_patch_as(&self, token: &str, path: &str, body: &str) -> Result<(u16, String)> {
        let output = run(Command::new("curl")
            .args(["--silent", "--show-error", "--max-time", "20"])
            .args(["--request", "PATCH", "--write-out", "\n%{http_code}"])
            .arg("--cacert")
            .arg(self.folder.join("pki/ca.crt"))
            .args(["--header", "Content-Type: application/merge-patch+json"])
            .args(["--header", &format!("Authorization: Bearer {token}")])
            .args(["--data-binary", body])
            .arg(format!("https://127.0.0.1:{}{path}", self.port)))?;
        let (body, status) = output.rsplit_once('\n').context("no status")?;
        Ok((status.parse()?, body.to_owned()))
    }

    /// kubectl as administrator, with standard input.
    pub fn kubectl_input(&self, words: &[&str], input: &str) -> Result<String> {
        let output = run_with_input(self.command().args(words), input)?;
        if !output.status.success() {
            bail!(
                "kubectl {words:?}: {}\n{input}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// kubectl with a bearer token and no credentials else, with standard input: what it wrote, or else what it said.
    pub fn kubectl_as(
        &self,
        token: &str,
        words: &[&str],
        input: &str,
    ) -> Result<Result<String, String>> {
        let mut command = Command::new(&self.kubectl);
        command
            .args(["--kubeconfig=/dev/null", "--token", token])
            .arg(format!("--server=https://127.0.0.1:{}", self.port))
            .arg("--certificate-authority")
            .arg(self.folder.join("pki/ca.crt"))
            .args(words)
            .env("HOME", &self.folder);
        let output = run_with_input(&mut command, input)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&output.stderr))
        })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.kubectl);
        command
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .env("HOME", &self.folder);
        command
    }

    /// `kubectl apply` of YAML text.
    pub fn apply(&self, yaml: &str) -> Result<()> {
        self.kubectl_input(&["apply", "-f", "-"], yaml).map(drop)
    }

    /// Makes a namespace unless it is there.
    pub fn namespace(&self, name: &str) -> Result<()> {
        self.apply(&format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n"
        ))
    }

    /// `kubectl apply -f examples/<name>` in a namespace.
    pub fn apply_example(&self, namespace: &str, name: &str) -> Result<()> {
        let path = self.repository.join("examples").join(name);
        self.kubectl(&["-n", namespace, "apply", "-f", &path.display().to_string()])
            .map(drop)
    }

    /// `kubectl apply` of YAML text in a namespace.
    pub fn apply_text(&self, namespace: &str, yaml: &str) -> Result<()> {
        self.kubectl_input(&["-n", namespace, "apply", "-f", "-"], yaml)
            .map(drop)
    }

    /// `kubectl delete` of YAML text, waits until the objects are gone.
    pub fn delete(&self, yaml: &str) -> Result<()> {
        self.kubectl_input(&["delete", "--ignore-not-found", "-f", "-"], yaml)
            .map(drop)
    }

    /// `kubectl get … -o json`.
    pub fn get(&self, words: &[&str]) -> Result<Value> {
        let mut all = vec!["get", "-o", "json"];
        all.extend(words);
        Ok(serde_json::from_str(&self.kubectl(&all)?)?)
    }

    /// helm with this cluster's kubeconfig.
    pub fn helm(&self, words: &[&str]) -> Result<String> {
        run(Command::new(tool(&self.repository, "helm")?)
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .args(words)
            .env("HOME", &self.folder))
    }
}

/// Status, reason and message of a condition of an object; empty words when it has none.
pub fn condition(object: &Value, type_: &str) -> (String, String, String) {
    let empty = Vec::new();
    let list = object["status"]["conditions"].as_array().unwrap_or(&empty);
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    list.iter()
        .find(|row| row["type"] == type_)
        .map_or_else(Default::default, |row| {
            (
                word(&row["status"]),
                word(&row["reason"]),
                word(&row["message"]),
            )
        })
}
