//! S10: what directors tell each other is authenticated, and says something only when it is fresh.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{NAMESPACE, Story};
use crate::await_condition::until;
use crate::failover::operator::{self, Echo, Setting};
use crate::guest::quote;
use crate::lab::{LIMIT, Lab, OPERATOR_NAMESPACE};

const ADDRESS: &str = "172.16.2.200";
/// Well below the 10.5 s after which the Lease of a holder that seems to live expires.
const TAKEOVER_LIMIT: Duration = Duration::from_secs(6);
/// Longer than that.
const REPLAY_SECONDS: u32 = 10;

pub(super) fn stories() -> Vec<Story> {
    vec![Story {
        name: "S10_authentication",
        tells: "forged heartbeats move nothing; the true ones of a holder that is dead, sent again from its own address, keep nobody from taking over",
        run: authentication,
    }]
}

/// `record PEER FILE`: forty heartbeats to a peer, one line of hexadecimal digits each. `send PEER FILE SECONDS [forge]`:
/// sends them again and again, with a bit changed if they are to be forged.
const TAPE: &str = r#"
import socket, sys, time
mode, peer, path = sys.argv[1:4]
if mode == "record":
    tape = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
    tape.settimeout(20)
    lines = []
    while len(lines) < 40:
        packet = tape.recv(4096)
        header = (packet[0] & 15) * 4
        port = int.from_bytes(packet[header + 2:header + 4], "big")
        if packet[0] >> 4 == 4 and packet[9] == 17 and port == 8112 and packet[16:20] == socket.inet_aton(peer):
            lines.append(packet[header + 8:].hex())
    open(path, "w").write("\n".join(lines))
else:
    datagrams = [bytearray.fromhex(line) for line in open(path).read().split()]
    if sys.argv[5:] == ["forge"]:
        for datagram in datagrams:
            datagram[len(datagram) // 2] ^= 1
    out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    end = time.monotonic() + float(sys.argv[4])
    while time.monotonic() < end:
        for datagram in datagrams:
            out.sendto(datagram, (peer, 8112))
            time.sleep(0.02)
"#;

fn tape(lab: &Lab, host: &str, words: &str) -> Result<()> {
    let script = format!("python3 -c {} {words}", quote(TAPE));
    lab.guest.on(host, &script).map(drop)
}

fn authentication(lab: &Lab) -> Result<()> {
    let _echo = Echo::start(lab)?;
    let told = (|| {
        let subject = operator::subject(lab, NAMESPACE, Setting::AsInstalled)?;
        let holder = subject.await_calm(lab)?;
        let [holder, standby] =
            [holder, 1 - holder].map(|index| subject.directors[index].host.clone());
        judge(lab, &holder, &standby)?;
        lab.release_agent(&holder)?;
        subject.await_calm(lab).map(drop)
    })();
    for director in ["lb-a", "lb-b"] {
        lab.release_agent(director)?;
    }
    lab.guest.run("rm -f /run/heartbeats")?;
    told
}

fn judge(lab: &Lab, holder: &str, standby: &str) -> Result<()> {
    let epoch = || -> Result<Option<i64>> {
        let words = ["-n", OPERATOR_NAMESPACE, "lease", "lvs-router-default"];
        Ok(lab.cluster.get(&words)?["spec"]["leaseTransitions"].as_i64())
    };
    let count = |director: &str, names: &[&str]| -> Result<f64> {
        names
            .iter()
            .map(|name| lab.agent_metric(director, name))
            .sum()
    };
    let of = |director: &str| {
        if director == "lb-a" {
            "192.168.2.11"
        } else {
            "192.168.2.12"
        }
    };
    tape(
        lab,
        holder,
        &format!("record {} /run/heartbeats", of(standby)),
    )?;

    let before = epoch()?;
    for director in [holder, standby] {
        let forged = ["lvs_agent_heartbeats_forged_total"];
        let known = count(director, &forged)?;
        tape(
            lab,
            "plain-1",
            &format!("send {} /run/heartbeats 2 forge", of(director)),
        )?;
        until(LIMIT, &format!("{director} counts what is forged"), || {
            let now = count(director, &forged)?;
            Ok(if now >= known + 40.0 {
                Ok(())
            } else {
                Err(now)
            })
        })?;
    }
    let carriers = lab.holders(ADDRESS)?;
    ensure!(
        carriers == [holder] && epoch()? == before,
        "forged heartbeats moved the address from {holder} to {carriers:?}"
    );

    let old = [
        "lvs_agent_heartbeats_stale_total",
        "lvs_agent_heartbeats_ignored_total",
    ];
    let known = count(standby, &old)?;
    lab.signal_agent(holder, "KILL", true)?;
    let replay = format!("send {} /run/heartbeats {REPLAY_SECONDS}", of(standby));
    lab.guest.on(
        holder,
        &format!(
            "setsid python3 -c {} {replay} >/dev/null 2>&1 </dev/null &",
            quote(TAPE)
        ),
    )?;
    until(
        TAKEOVER_LIMIT,
        &format!("{standby} takes over from {holder}, which is dead but seems to speak"),
        || {
            let carriers = lab.holders(ADDRESS)?;
            Ok(if carriers.iter().any(|one| one == standby) {
                Ok(())
            } else {
                Err(carriers)
            })
        },
    )?;
    let heard = count(standby, &old)? - known;
    ensure!(
        heard > 10.0,
        "{standby} got {heard} heartbeats again: this proves nothing"
    );
    Ok(())
}
