//! S3 and S9: direct routing over IPv4, from apply to delete.

use anyhow::{Result, ensure};
use serde_json::json;

use super::{NAMESPACE, Story};
use crate::await_condition::until_equal;
use crate::lab::{LIMIT, Lab};
use crate::traffic;

pub(super) fn stories() -> Vec<Story> {
    vec![Story {
        name: "S3_S9_direct_routing",
        tells: "DR on cluster nodes: applied, prepared, balanced by weight, edited live, restored",
        run: direct_routing,
    }]
}

fn direct_routing(lab: &Lab) -> Result<()> {
    lab.cluster
        .apply_example(NAMESPACE, "direct-routing.yaml")?;
    let master = lab.await_serving(NAMESPACE, "web")?;
    let rules = lab.ipvs_rules(&master)?;
    ensure!(
        rules
            == [
                "-A -t 172.16.2.200:80 -s wrr",
                "-a -t 172.16.2.200:80 -r 192.168.2.21:80 -g -w 2",
                "-a -t 172.16.2.200:80 -r 192.168.2.22:80 -g -w 1",
            ],
        "rules on {master}: {rules:#?}"
    );
    ensure!(
        lab.await_holder("172.16.2.200")? == master,
        "status says {master}, the kernels say otherwise"
    );
    let spread = traffic::spread(&lab.guest, "client", "http://172.16.2.200/", 30)?;
    ensure!(
        spread == [("web-1".into(), 20), ("web-2".into(), 10)].into(),
        "wrr 2:1 gave {spread:?}"
    );

    // Only the director answers for the address: the real servers hold it in silence.
    let answers = lab.guest.on(
        "router",
        "arping -c 2 -w 3 -I out 172.16.2.200 | grep -ciE '(reply|bytes) from' || true",
    )?;
    ensure!(
        answers.trim() == "2",
        "arping got {answers} answers to 2 requests"
    );
    // On the real servers' segment Linux lets the director answer too, for an address of another of its devices; nobody else does.
    let answers = lab.guest.on(
        "router",
        "arping -c 2 -w 3 -I in 172.16.2.200 | sed -n 's/.*reply from [^[]*\\[\\([^]]*\\)\\].*/\\1/p' | sort -u | tr A-F a-f",
    )?;
    let director = lab.guest.on(&master, "cat /sys/class/net/in/address")?;
    ensure!(
        answers.trim() == director.trim(),
        "on the real servers' segment {answers:?} answered ARP for the virtual address; {master} is {director:?}"
    );

    let real_server = ["-n", NAMESPACE, "lvsrs", "web-1"];
    let drained = json!({"spec": {"weight": 0}});
    lab.cluster.merge_patch(&real_server, &drained)?;
    until_equal(LIMIT, "weight 0 in the kernel", &true, || {
        Ok(lab
            .ipvs_rules(&master)?
            .iter()
            .any(|rule| rule.ends_with("192.168.2.21:80 -g -w 0")))
    })?;
    let spread = traffic::spread(&lab.guest, "client", "http://172.16.2.200/", 10)?;
    ensure!(
        spread == [("web-2".into(), 10)].into(),
        "weight 0 gave {spread:?}"
    );
    Ok(())
}
