//! Runs kubectl. It knows how to reach a cluster, how to log in there and how to start a program in a pod; a plugin
//! always has it at hand, and people expect the same kubeconfig, context and impersonation of both.

use std::ffi::OsString;
use std::fmt::Write;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use clap::Args;
use serde::Deserialize;
use serde_json::Value;

/// Flags of kubectl that say which cluster is asked, and as whom.
#[derive(Clone, Debug, Default, Args)]
pub struct Access {
    /// Path of the kubeconfig.
    #[arg(long, global = true, help_heading = "Access")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig.
    #[arg(long, global = true, help_heading = "Access")]
    pub context: Option<String>,
    /// Cluster of the kubeconfig.
    #[arg(long, global = true, help_heading = "Access")]
    pub cluster: Option<String>,
    /// User of the kubeconfig.
    #[arg(long, global = true, help_heading = "Access")]
    pub user: Option<String>,
    /// User to impersonate.
    #[arg(long = "as", global = true, help_heading = "Access")]
    pub impersonated_user: Option<String>,
    /// Group to impersonate; again for another.
    #[arg(long = "as-group", global = true, help_heading = "Access")]
    pub impersonated_groups: Vec<String>,
    /// Time for one request, such as 10s.
    #[arg(long, global = true, help_heading = "Access")]
    pub request_timeout: Option<String>,
}

impl Access {
    /// The flags as kubectl takes them.
    fn flags(&self) -> Vec<OsString> {
        let mut flags = Vec::new();
        let mut flag = |name: &str, value: OsString| {
            let mut word = OsString::from(name);
            word.push("=");
            word.push(value);
            flags.push(word);
        };
        if let Some(path) = &self.kubeconfig {
            flag("--kubeconfig", path.into());
        }
        for (name, value) in [
            ("--context", &self.context),
            ("--cluster", &self.cluster),
            ("--user", &self.user),
            ("--as", &self.impersonated_user),
            ("--request-timeout", &self.request_timeout),
        ] {
            if let Some(value) = value {
                flag(name, value.into());
            }
        }
        for group in &self.impersonated_groups {
            flag("--as-group", group.into());
        }
        flags
    }
}

/// Whose objects are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope<'a> {
    /// Those of the cluster; for kinds without a namespace too.
    Cluster,
    /// Those of a namespace.
    Namespace(&'a str),
    /// Those of the namespace that the context names.
    Default,
}

/// What went wrong with a call of kubectl.
#[derive(Debug)]
pub enum KubectlError {
    /// It could not be started.
    Start {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// It ended with an error.
    Refused {
        /// Its arguments, as typed.
        arguments: String,
        /// What it said, without the blanks around it.
        message: String,
    },
    /// Its answer is not what was asked for.
    Answer {
        /// Its arguments, as typed.
        arguments: String,
        /// Why.
        source: serde_json::Error,
    },
}

impl std::fmt::Display for KubectlError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Start { program, source } => write!(
                formatter,
                "start {program}: {source}; put kubectl on PATH, or name it in KUBECTL"
            ),
            Self::Refused { arguments, message } => {
                write!(formatter, "kubectl {arguments}: {message}")
            }
            Self::Answer { arguments, source } => {
                write!(
                    formatter,
                    "kubectl {arguments} answered what cannot be read: {source}"
                )
            }
        }
    }
}

impl std::error::Error for KubectlError {}

/// kubectl, with the flags that name a cluster.
#[derive(Clone, Debug)]
pub struct Kubectl {
    program: OsString,
    flags: Vec<OsString>,
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    items: Vec<Value>,
}

impl Kubectl {
    /// That on PATH, or the program that `program` names.
    pub fn new(program: Option<OsString>, access: &Access) -> Self {
        Self {
            program: program.unwrap_or_else(|| "kubectl".into()),
            flags: access.flags(),
        }
    }

    /// Runs it with `arguments`, and gives what it wrote to standard output. A `--` among the arguments stays
    /// where it is: the flags of the access go first.
    ///
    /// # Errors
    /// When it cannot be started, or ends with an error.
    pub fn run(&self, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>, KubectlError> {
        let start = |source| KubectlError::Start {
            program: self.program.to_string_lossy().into_owned(),
            source,
        };
        let mut child = Command::new(&self.program)
            .args(&self.flags)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(start)?;
        let pipe = child.stdin.take();
        let output = std::thread::scope(|scope| {
            // A child that answers before it has read everything must not wait for us, nor we for it.
            scope.spawn(move || pipe.map(|mut pipe| io::Write::write_all(&mut pipe, input)));
            child.wait_with_output()
        })
        .map_err(start)?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let mut message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        if message.is_empty() {
            // Writing to a String does not fail.
            let _ = write!(message, "ended with {}", output.status);
        }
        Err(KubectlError::Refused {
            arguments: arguments.join(" "),
            message,
        })
    }

    /// All objects of a resource, such as `virtualservices.lvs.dev`.
    ///
    /// # Errors
    /// As [`Kubectl::run`], and when the answer is no list.
    pub fn list(&self, resource: &str, scope: Scope<'_>) -> Result<Vec<Value>, KubectlError> {
        self.list_selected(resource, scope, &[])
    }

    /// As [`Kubectl::list`], with further flags that say which, such as `--selector=a=b`.
    ///
    /// # Errors
    /// As [`Kubectl::list`].
    pub fn list_selected(
        &self,
        resource: &str,
        scope: Scope<'_>,
        selection: &[&str],
    ) -> Result<Vec<Value>, KubectlError> {
        let mut arguments = vec!["get", resource, "--output=json"];
        arguments.extend(selection);
        match scope {
            Scope::Cluster => arguments.push("--all-namespaces"),
            Scope::Namespace(namespace) => arguments.extend(["--namespace", namespace]),
            Scope::Default => {}
        }
        let answer = self.run(&arguments, &[])?;
        let list: List =
            serde_json::from_slice(&answer).map_err(|source| KubectlError::Answer {
                arguments: arguments.join(" "),
                source,
            })?;
        Ok(list.items)
    }

    /// Runs a program in a container of a pod, as `kubectl exec` does, and gives its standard output.
    ///
    /// # Errors
    /// As [`Kubectl::run`]; the program's own error too.
    pub fn execute(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        command: &[&str],
    ) -> Result<Vec<u8>, KubectlError> {
        let mut arguments = vec![
            "exec",
            "--namespace",
            namespace,
            pod,
            "--container",
            container,
            "--",
        ];
        arguments.extend(command);
        self.run(&arguments, &[])
    }
}
