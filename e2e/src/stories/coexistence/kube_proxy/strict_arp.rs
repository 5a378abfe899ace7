//! Who answers ARP in mode ipvs, without strictARP and with it.

use anyhow::{Result, ensure};

use super::{ADDRESS, Foreign, KubeProxy, POOL, Services, URL, service, tail};
use crate::await_condition::until;
use crate::lab::{LIMIT, Lab};
use crate::stories::NAMESPACE;
use crate::traffic;

/// Hardware addresses that answer for an address on the segment `out`.
fn answering(lab: &Lab, address: &str) -> Result<Vec<String>> {
    let output = lab
        .guest
        .try_on("client", &format!("arping -b -c 2 -w 3 -I out {address}"))?;
    let mut found: Vec<String> = output
        .stdout
        .lines()
        .filter_map(|line| Some(line.split_once('[')?.1.split_once(']')?.0.to_lowercase()))
        .collect();
    found.sort();
    found.dedup();
    Ok(found)
}

pub(super) fn strict_arp(lab: &Lab) -> Result<()> {
    const DIRECTORS: [&str; 2] = ["lb-a", "lb-b"];
    const EXTERNAL: &str = "172.16.2.228";
    lab.cluster
        .apply_example(NAMESPACE, "direct-routing.yaml")?;
    lab.await_serving(NAMESPACE, "web")?;
    let master = lab.await_holder(ADDRESS)?;
    let hardware = |host: &str| -> Result<String> {
        let text = lab.guest.on(host, "cat /sys/class/net/out/address")?;
        Ok(text.trim().to_owned())
    };
    let holder = vec![hardware(&master)?];
    let mut every: Vec<String> = DIRECTORS
        .iter()
        .map(|host| hardware(host))
        .collect::<Result<_>>()?;
    every.sort();
    let more = format!(", externalIPs: [{EXTERNAL}]");
    let _services = Services::apply(lab, service("foreign", "10.96.7.7", &more))?;
    let kube_proxy = KubeProxy::new(lab)?;
    let exclude = format!(", excludeCIDRs: [{POOL}]");
    let proxies: Vec<Foreign<'_>> = DIRECTORS
        .iter()
        .map(|host| kube_proxy.start(host, "ipvs", &exclude))
        .collect::<Result<_>>()?;
    let bound = |host: &str, proxy: &Foreign<'_>| {
        until(
            LIMIT,
            &format!("{EXTERNAL} on kube-ipvs0 of {host}"),
            || {
                let addresses = lab
                    .guest
                    .try_on(host, "ip address show dev kube-ipvs0")?
                    .stdout;
                Ok(if addresses.contains(EXTERNAL) {
                    Ok(())
                } else {
                    Err((addresses, tail(&proxy.log()?)))
                })
            },
        )
    };
    for (host, proxy) in DIRECTORS.iter().zip(&proxies) {
        bound(host, proxy)?;
    }
    let found = answering(lab, EXTERNAL)?;
    ensure!(found == every, "without strictARP: {found:?}, of {every:?}");
    let found = answering(lab, ADDRESS)?;
    ensure!(
        found == holder,
        "ours without strictARP: {found:?}, not {holder:?}"
    );

    let strict = format!("{exclude}, strictARP: true");
    let proxies: Vec<Foreign<'_>> = proxies
        .into_iter()
        .map(|proxy| kube_proxy.replace(proxy, "ipvs", &strict))
        .collect::<Result<_>>()?;
    for (host, proxy) in DIRECTORS.iter().zip(&proxies) {
        proxy.await_log("Caches are synced")?;
        bound(host, proxy)?;
        let value = lab.guest.on(
            host,
            "cat /proc/sys/net/ipv4/conf/all/{arp_ignore,arp_announce}",
        )?;
        ensure!(value.split_whitespace().eq(["1", "2"]), "{host}: {value}");
    }
    let found = answering(lab, EXTERNAL)?;
    ensure!(found.is_empty(), "with strictARP: {found:?}");
    let found = answering(lab, ADDRESS)?;
    ensure!(
        found == holder,
        "ours with strictARP: {found:?}, not {holder:?}"
    );
    let spread = traffic::spread(&lab.guest, "client", URL, 6)?;
    ensure!(
        spread == [("web-1".into(), 4), ("web-2".into(), 2)].into(),
        "with strictARP: {spread:?}"
    );
    Ok(())
}
