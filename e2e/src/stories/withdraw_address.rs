//! `quorum.onLoss: WithdrawAddress`: an address that nobody serves is on no director, and comes back with the first who does.

use anyhow::{Result, ensure};

use super::{NAMESPACE, Story};
use crate::await_condition::until_equal;
use crate::failover::operator::ROUTER;
use crate::lab::{LIMIT, Lab};
use crate::traffic;

const ADDRESS: &str = "172.16.2.221";

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
    lab.cluster
        .apply_example(NAMESPACE, "withdraw-address.yaml")?;
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
