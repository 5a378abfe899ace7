//! S7: every scheduler is programmed as asked, and does what defines it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{NAMESPACE, Story};
use crate::await_condition::until;
use crate::lab::{LIMIT, Lab};
use crate::traffic::{self, Held};

const ADDRESS: &str = "172.16.2.207";

pub(super) fn stories() -> Vec<Story> {
    vec![Story {
        name: "S7_schedulers",
        tells: "each scheduler with its flags; the distribution that defines it, over real servers of weight 2:1:1",
        run: schedulers,
    }]
}

/// Sets the scheduler and waits until the master's kernel has it with these flags.
fn choose(lab: &Lab, name: &str, options: &str, flags: &str) -> Result<String> {
    let options: Value = serde_json::from_str(options)?;
    let change = json!({"spec": {"scheduler": {"name": name, "options": options}}});
    lab.cluster
        .merge_patch(&["-n", NAMESPACE, "lvsvs", "web"], &change)?;
    let wanted = format!("-A -t {ADDRESS}:80 -s {name}{flags}");
    let master = lab.await_serving(NAMESPACE, "web")?;
    let what = format!("{wanted}, and no active connections");
    until(LIMIT, &what, || {
        let seen = lab.guest.on(&master, "ipvsadm -Sn; ipvsadm -Ln")?;
        let active = traffic::active(&seen).values().sum::<usize>();
        let programmed = seen.lines().any(|line| line.trim() == wanted);
        Ok(if programmed && active == 0 {
            Ok(())
        } else {
            Err(seen)
        })
    })?;
    Ok(master)
}

fn weights(lab: &Lab, weights: [u32; 3]) -> Result<()> {
    for (index, weight) in weights.into_iter().enumerate() {
        let change = json!({"spec": {"weight": weight}});
        let name = format!("web-{}", index + 1);
        lab.cluster
            .merge_patch(&["-n", NAMESPACE, "lvsrs", &name], &change)?;
    }
    let master = lab.await_serving(NAMESPACE, "web")?;
    until(LIMIT, &format!("weights {weights:?} in the kernel"), || {
        let rules = lab.ipvs_rules(&master)?;
        let all = weights.into_iter().enumerate().all(|(index, weight)| {
            rules.contains(&format!(
                "-a -t {ADDRESS}:80 -r 192.168.2.2{}:80 -g -w {weight}",
                index + 1
            ))
        });
        Ok(if all { Ok(()) } else { Err(rules) })
    })
}

fn spread(lab: &Lab, count: usize) -> Result<[usize; 3]> {
    let got = traffic::spread(&lab.guest, "client", &format!("http://{ADDRESS}/"), count)?;
    let of = |name: &str| got.get(name).copied().unwrap_or(0);
    let spread = [of("web-1"), of("web-2"), of("web-3")];
    ensure!(
        spread.iter().sum::<usize>() == count,
        "of {count} connections came back {got:?}"
    );
    Ok(spread)
}

/// Opens `count` connections that stay and tells how the master's kernel spread them.
fn held(lab: &Lab, master: &str, count: usize) -> Result<[usize; 3]> {
    let connections = Held::open(&lab.guest, "client", ADDRESS, 80, count)?;
    let seen = until(LIMIT, &format!("{count} active connections"), || {
        let active: BTreeMap<String, usize> = traffic::active_connections(&lab.guest, master)?;
        Ok(if active.values().sum::<usize>() == count {
            Ok(active)
        } else {
            Err(active)
        })
    })?;
    drop(connections);
    let of = |last: u8| {
        seen.get(&format!("192.168.2.{last}:80"))
            .copied()
            .unwrap_or(0)
    };
    Ok([of(21), of(22), of(23)])
}

/// What directors do with a connection from a port that they remember: 1 by default, and IPVS remembers for two
/// minutes after the client's FIN, being blind to the answers of direct routing. With 2 as well a new connection is
/// scheduled anew (`is_new_conn_expected` in net/netfilter/ipvs/ip_vs_core.c). Every distribution here comes from
/// few client ports within that time, so without it now and then one connection follows an older scheduler.
fn reuse_ports(lab: &Lab, mode: u8) -> Result<()> {
    for director in ["lb-a", "lb-b"] {
        let set = format!("sysctl -qw net.ipv4.vs.conn_reuse_mode={mode}");
        lab.guest.on(director, &set)?;
    }
    Ok(())
}

fn schedulers(lab: &Lab) -> Result<()> {
    reuse_ports(lab, 3)?;
    let told = every_scheduler(lab);
    reuse_ports(lab, 1)?;
    told
}

fn every_scheduler(lab: &Lab) -> Result<()> {
    lab.cluster.apply_example(NAMESPACE, "schedulers.yaml")?;
    distributions(lab)?;
    hashes(lab)?;
    for (name, options, flags) in [("lblc", "[]", ""), ("lblcr", "[]", ""), ("dh", "[]", "")] {
        choose(lab, name, options, flags)?;
        // By destination address: one address, one real server.
        let spread = spread(lab, 6).with_context(|| name.to_owned())?;
        ensure!(
            spread.iter().filter(|count| **count > 0).count() == 1,
            "{name} spread one address over {spread:?}"
        );
    }
    Ok(())
}

fn distributions(lab: &Lab) -> Result<()> {
    weights(lab, [2, 1, 1])?;
    choose(lab, "rr", "[]", "")?;
    ensure!(spread(lab, 12)? == [4, 4, 4], "rr");
    choose(lab, "wrr", "[]", "")?;
    ensure!(spread(lab, 12)? == [6, 3, 3], "wrr");

    let master = choose(lab, "lc", "[]", "")?;
    let seen = held(lab, &master, 9)?;
    ensure!(seen == [3, 3, 3], "lc held {seen:?}");
    let master = choose(lab, "wlc", "[]", "")?;
    let seen = held(lab, &master, 8)?;
    ensure!(seen == [4, 2, 2], "wlc held {seen:?}");

    weights(lab, [10, 1, 1])?;
    // The expected delay of the heavy one stays the shortest: (n+1)/10 against 1/1.
    let master = choose(lab, "sed", "[]", "")?;
    let seen = held(lab, &master, 3)?;
    ensure!(seen == [3, 0, 0], "sed held {seen:?}");
    // An idle real server comes first, whatever the weights.
    let master = choose(lab, "nq", "[]", "")?;
    let seen = held(lab, &master, 3)?;
    ensure!(seen == [1, 1, 1], "nq held {seen:?}");

    weights(lab, [3, 2, 1])?;
    let master = choose(lab, "fo", "[]", "")?;
    let seen = held(lab, &master, 6)?;
    ensure!(seen == [6, 0, 0], "fo held {seen:?}");
    // Overflows when more connections than the weight are active, so weight + 1 fit.
    let master = choose(lab, "ovf", "[]", "")?;
    let seen = held(lab, &master, 6)?;
    ensure!(seen == [4, 2, 0], "ovf held {seen:?}");
    // The less loaded of two that are chosen at random: nobody is left out for long.
    choose(lab, "twos", "[]", "")?;
    let seen = spread(lab, 30)?;
    ensure!(seen.iter().all(|count| *count > 0), "twos gave {seen:?}");
    weights(lab, [2, 1, 1])
}

fn hashes(lab: &Lab) -> Result<()> {
    for name in ["sh", "mh"] {
        choose(lab, name, "[]", &format!(" -b {name}-fallback"))?;
        let one = spread(lab, 8)?;
        ensure!(
            one.iter().filter(|count| **count > 0).count() == 1,
            "{name} spread one client over {one:?}"
        );
        choose(
            lab,
            name,
            &format!(r#"["{name}-port"]"#),
            &format!(" -b {name}-fallback,{name}-port"),
        )?;
        let many = spread(lab, 20)?;
        ensure!(
            many.iter().filter(|count| **count > 0).count() > 1,
            "{name}-port sent all of 20 ports to {many:?}"
        );
        // A real server of weight 0 still owns hash slots; the fallback serves its clients.
        weights(lab, [2, 0, 1])?;
        let drained = spread(lab, 20)?;
        ensure!(
            drained[1] == 0,
            "{name} sent new connections to weight 0: {drained:?}"
        );
        weights(lab, [2, 1, 1])?;
    }
    Ok(())
}
