//! Commands in the guest, over the command server of `e2e/cluster/guest-command.sh`.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// What a command left.
#[derive(Clone, Debug)]
pub struct Output {
    /// Exit status.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// The guest.
#[derive(Clone, Debug)]
pub struct Guest {
    folder: PathBuf,
    /// The folder both sides see; `/share` in the guest.
    pub share: PathBuf,
}

impl Guest {
    /// The guest `machine` booted in a state folder.
    pub fn open(state: &Path) -> Self {
        let folder = state.join("guests/machine");
        Self {
            share: folder.join("share"),
            folder,
        }
    }

    /// Its command server. Paths of unix sockets are short, so the folder is named by a descriptor.
    fn connect(&self) -> Result<UnixStream> {
        let folder = File::open(&self.folder)
            .with_context(|| format!("opening {}", self.folder.display()))?;
        let socket = format!("/proc/self/fd/{}/command", folder.as_raw_fd());
        UnixStream::connect(socket)
            .with_context(|| format!("command server of {}", self.folder.display()))
    }

    /// Runs a bash script in the guest's first namespace; any exit status is a result.
    pub fn try_run(&self, script: &str) -> Result<Output> {
        let mut stream = self.connect()?;
        stream.set_read_timeout(Some(Duration::from_mins(5)))?;
        stream.write_all(format!("{}\n{script}", script.len()).as_bytes())?;
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        reader
            .read_line(&mut head)
            .with_context(|| format!("answer of the guest to: {script}"))?;
        let numbers: Vec<usize> = head
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        let [status, output, errors] = numbers[..] else {
            bail!("the guest answered {head:?} to: {script}");
        };
        let mut bytes = vec![0; output + errors];
        reader.read_exact(&mut bytes)?;
        let stderr = String::from_utf8_lossy(&bytes[output..]).into_owned();
        bytes.truncate(output);
        Ok(Output {
            status: i32::try_from(status)?,
            stdout: String::from_utf8_lossy(&bytes).into_owned(),
            stderr,
        })
    }

    /// Runs a bash script in the guest's first namespace; a status other than 0 is an error.
    pub fn run(&self, script: &str) -> Result<String> {
        let output = self.try_run(script)?;
        if output.status != 0 {
            bail!(
                "status {} of: {script}\n{}{}",
                output.status,
                output.stdout,
                output.stderr
            );
        }
        Ok(output.stdout)
    }

    /// Runs a bash script on one host (network namespace); a status other than 0 is an error.
    pub fn on(&self, host: &str, script: &str) -> Result<String> {
        self.run(&on_host(host, script))
            .with_context(|| format!("on {host}"))
    }

    /// Runs a bash script on one host; any exit status is a result.
    pub fn try_on(&self, host: &str, script: &str) -> Result<Output> {
        self.try_run(&on_host(host, script))
    }
}

fn on_host(host: &str, script: &str) -> String {
    format!("exec ip netns exec {host} bash -c {}", quote(script))
}

/// Quotes one word for a shell.
pub fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
