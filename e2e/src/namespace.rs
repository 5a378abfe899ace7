//! For programs that run in the guest, where every host is a network namespace.

use std::fs::File;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};

/// This thread, and those it starts, are on `host` from now on.
pub fn enter(host: &str) -> Result<()> {
    let path = format!("/run/netns/{host}");
    let file = File::open(&path).with_context(|| format!("opening {path}"))?;
    setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("entering {path}"))
}
