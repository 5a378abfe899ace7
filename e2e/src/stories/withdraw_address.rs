//! `quorum.onLoss: WithdrawAddress`: an address that nobody serves is on no director, and comes back with the first who does.

use anyhow::{Result, ensure};

use super::{NAMESPACE, Story};
use crate::await_condition::until_equal;
use crate::failover::operator::ROUTER;
use crate::lab::{LIMIT, Lab};
use crate::traffic;

const ADDRESS: &str = "172.16.2.221";

/// `web` on port 80 by web-1 gives the address up; `mail` on port 8080 by web-2 asks for nothing.
const SERVICES: &str = "
apiVersion: lvs.dev/v1alpha1
kind: VirtualService
metadata: {name: web}
spec:
  addresses: [172.16.2.221]
  ports: [{port: 80}]
  forwarding: {type: DR}
  healthChecks: [{name: tcp, type: TCP, periodSeconds: 1, timeoutSeconds: 1, failureThreshold: 1}]
  quorum: {onLoss: WithdrawAddress}
  realServerSelector: {matchLabels: {app: web}}
---
apiVersion: lvs.dev/v1alpha1
kind: VirtualService
metadata: {name: mail}
spec:
  addresses: [172.16.2.221]
  ports: [{port: 8080}]
  forwarding: {type: DR}
  healthChecks: [{name: tcp, type: TCP, periodSeconds: 1, timeoutSeconds: 1, failureThreshold: 1}]
  realServerSelector: {matchLabels: {app: mail}}
---
apiVersion: lvs.dev/v1alpha1
kind: RealServer
metadata: {name: web-1, labels: {app: web}}
spec: {target: {type: Node, node: {name: web-1}}}
---
apiVersion: lvs.dev/v1alpha1
kind: RealServer
metadata: {name: web-2, labels: {app: mail}}
spec: {target: {type: Node, node: {name: web-2}}}
";

pub(super) fn stories() -> Vec<Story> {
    vec![Story {
        name: "withdraw_address",
        tells: "an address without real servers is on no director and unanswered; another service that works keeps it; back with the first",
        run: withdraw_address,
    }]
}

/// Both machines serve again, when dropped.
struct Mend<'a>(&'a Lab);

impl Drop for Mend<'_> {
    fn drop(&mut self) {
        for host in ["web-1", "web-2"] {
            let _ = accept(self.0, host);
        }
    }
}

fn refuse(lab: &Lab, host: &str) -> Result<()> {
    let script = "nft 'table ip closed { chain input { type filter hook input priority -200; \\
        tcp dport { 80, 8080 } reject with tcp reset; }; }'";
    lab.guest.on(host, script).map(drop)
}

fn accept(lab: &Lab, host: &str) -> Result<()> {
    let script = "nft delete table ip closed 2>/dev/null || true";
    lab.guest.on(host, script).map(drop)
}

fn await_holders(lab: &Lab, expected: &str) -> Result<()> {
    until_equal(
        LIMIT,
        "holders of the address",
        &expected.to_owned(),
        || Ok(lab.holders(ADDRESS)?.join(" ")),
    )
}

fn serves(lab: &Lab, port: u16, host: &str) -> Result<()> {
    let url = format!("http://{ADDRESS}:{port}/");
    let seen = traffic::spread(&lab.guest, "client", &url, 4)?;
    ensure!(seen == [(host.into(), 4)].into(), "{url}: {seen:?}");
    Ok(())
}

/// The director with the Lease.
fn leader(lab: &Lab) -> Result<String> {
    let router = lab.cluster.get(&[ROUTER])?;
    Ok(router["status"]["master"]["nodeName"]
        .as_str()
        .unwrap_or_default()
        .to_owned())
}

fn withdraw_address(lab: &Lab) -> Result<()> {
    let _mend = Mend(lab);
    lab.cluster.apply_text(NAMESPACE, SERVICES)?;
    let master = lab.await_serving(NAMESPACE, "web")?;
    lab.await_serving(NAMESPACE, "mail")?;
    await_holders(lab, &master)?;
    serves(lab, 80, "web-1")?;
    serves(lab, 8080, "web-2")?;

    // The other service on the address works: it stays.
    let web = ["-n", NAMESPACE, "virtualservices.lvs.dev", "web"];
    refuse(lab, "web-1")?;
    lab.await_reason(&web, "Ready", "NoRealServers")?;
    await_holders(lab, &master)?;
    serves(lab, 8080, "web-2")?;

    // Nobody serves anything on it.
    refuse(lab, "web-2")?;
    await_holders(lab, "")?;
    let told = lab.await_reason(&web, "Ready", "AddressWithdrawn")?;
    ensure!(told.contains(ADDRESS), "Ready says: {told}");
    let answers = lab.guest.on(
        "client",
        &format!("arping -c 2 -w 2 -I out {ADDRESS} | grep -ciE '(reply|bytes) from' || true"),
    )?;
    ensure!(answers.trim() == "0", "ARP is answered: {answers}");
    ensure!(
        leader(lab)? == master,
        "the Lease moved to {}",
        leader(lab)?
    );

    // An agent that starts now offers nothing either.
    lab.signal_agent(&master, "KILL", false)?;
    lab.await_product()?;
    lab.await_reason(&web, "Ready", "AddressWithdrawn")?;
    await_holders(lab, "")?;

    // Whichever comes back first brings the address with it.
    accept(lab, "web-2")?;
    await_holders(lab, &leader(lab)?)?;
    serves(lab, 8080, "web-2")?;
    refuse(lab, "web-2")?;
    await_holders(lab, "")?;
    accept(lab, "web-1")?;
    lab.await_true(&web, "Ready")?;
    await_holders(lab, &leader(lab)?)?;
    serves(lab, 80, "web-1")?;

    // Whoever has it after an agent has died serves on.
    lab.signal_agent(&leader(lab)?, "KILL", false)?;
    lab.await_product()?;
    lab.await_true(&web, "Ready")?;
    lab.await_holder(ADDRESS)?;
    serves(lab, 80, "web-1")
}
