//! One service, set up for keepalived, for ldirectord and for us: the kernel's tables after each failure and recovery.

use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{NAMESPACE, Story};
use crate::guest::quote;
use crate::lab::Lab;

const ADDRESS: &str = "172.16.2.220";
const KEEPALIVED: &str = "ka-a";
const LDIRECTORD: &str = "ka-b";
/// Where their files are, in the guest.
const FOLDER: &str = "/run/differential";

const BOTH: &[&str] = &["192.168.2.21:80 -g -w 2", "192.168.2.22:80 -g -w 1"];
const FIRST: &[&str] = &["192.168.2.21:80 -g -w 2"];
const SECOND: &[&str] = &["192.168.2.22:80 -g -w 1"];
const SORRY: &[&str] = &["127.0.0.1:80 -g -w 1"];

/// What happens to the real servers, and what should be in the kernel then.
const STEPS: [(&str, &str, &[&str]); 10] = [
    ("web-1 answers a wrong page", "page web-1 wrong", SECOND),
    ("web-1 answers its page", "page web-1 web-1", BOTH),
    ("web-2 refuses", "refuse web-2", FIRST),
    ("web-2 accepts", "accept web-2", BOTH),
    (
        "web-1 has no page (404)",
        "rm /run/web/web-1/root/index.html",
        SECOND,
    ),
    ("web-2 is silent, too", "silence web-2", SORRY),
    ("web-2 is heard again", "accept web-2", SECOND),
    ("web-1 has its page again", "page web-1 web-1", BOTH),
    ("both refuse", "refuse web-1; refuse web-2", SORRY),
    ("both accept", "accept web-1; accept web-2", BOTH),
];

/// What steps are made of.
const WORDS: &str = r#"
page() { echo "$2" >"/run/web/$1/root/index.html"; }
accept() { ip netns exec "$1" nft delete table ip differential 2>/dev/null; }
block() { accept "$1"; ip netns exec "$1" nft "table ip differential { chain input { type filter hook input priority -200; tcp dport 80 $2; }; }"; }
refuse() { block "$1" "reject with tcp reset"; }
silence() { block "$1" drop; }
"#;

pub(super) fn stories() -> Vec<Story> {
    vec![Story {
        name: "differential",
        tells: "keepalived, ldirectord and we, the same service: equal tables after each of ten failures and recoveries, and after drain",
        run: differential,
    }]
}

/// Ends the other two, and mends the real servers, when dropped.
struct Others<'a>(&'a Lab);

impl Drop for Others<'_> {
    fn drop(&mut self) {
        let _ = self.0.guest.try_run(&format!(
            "{WORDS}
             for name in keepalived ldirectord; do
                 read -r pid <{FOLDER}/$name.pid && kill -TERM -- -$pid
                 for ((look = 0; look < 100; look++)); do kill -0 -- -$pid 2>/dev/null || break; sleep 0.1; done
             done
             for host in web-1 web-2; do accept $host; page $host $host; done
             for host in {KEEPALIVED} {LDIRECTORD}; do ip netns delete $host; done
             rm -rf {FOLDER}"
        ));
    }
}

fn keepalived_configuration() -> String {
    let mut text = format!(
        "virtual_server {ADDRESS} 80 {{\n\
         delay_loop 1\n lb_algo wrr\n lb_kind DR\n protocol TCP\n alpha\n\
         sorry_server 127.0.0.1 80\n sorry_server_lvs_method DR\n"
    );
    for (real_server, weight) in [("192.168.2.21", 2), ("192.168.2.22", 1)] {
        let _ = write!(
            text,
            "real_server {real_server} 80 {{\n weight {weight}\n HTTP_GET {{\n\
             url {{\n path /index.html\n status_code 200\n regex \"web-[0-9]\"\n }}\n\
             connect_timeout 3\n retry 0\n delay_before_retry 1\n fast_recovery\n }}\n }}\n"
        );
    }
    text + "}\n"
}

fn ldirectord_configuration() -> String {
    format!(
        "checktimeout=3\ncheckinterval=1\nautoreload=yes\nquiescent=no\nsupervised=yes\nlogfile=\"{FOLDER}/ldirectord.log\"\n\
         virtual={ADDRESS}:80\n\
         \treal=192.168.2.21:80 gate 2\n\
         \treal=192.168.2.22:80 gate 1\n\
         \tfallback=127.0.0.1:80 gate\n\
         \tservice=http\n\
         \trequest=\"index.html\"\n\
         \treceive=\"web-[0-9]\"\n\
         \tscheduler=wrr\n\
         \tprotocol=tcp\n\
         \tchecktype=negotiate\n"
    )
}

/// Two more directors, with neither addresses nor VRRP: what they do with IPVS is what is looked at.
fn start_others(lab: &Lab) -> Result<Others<'_>> {
    let others = Others(lab);
    lab.guest.run(&format!(
        ". {}/e2e/machine/hosts.sh
         host {KEEPALIVED} 13 in && host {LDIRECTORD} 14 in
         mkdir -p {FOLDER}
         printf %s {} >{FOLDER}/keepalived.conf
         printf %s {} >{FOLDER}/ldirectord.cf
         setsid ip netns exec {KEEPALIVED} keepalived --check --dont-fork --log-console --use-file {FOLDER}/keepalived.conf \
             --pid {FOLDER}/main.pid --checkers_pid {FOLDER}/checkers.pid >{FOLDER}/keepalived.log 2>&1 </dev/null &
         echo $! >{FOLDER}/keepalived.pid
         setsid ip netns exec {LDIRECTORD} ldirectord {FOLDER}/ldirectord.cf start >{FOLDER}/ldirectord.out 2>&1 </dev/null &
         echo $! >{FOLDER}/ldirectord.pid",
        lab.repository.display(),
        quote(&keepalived_configuration()),
        quote(&ldirectord_configuration()),
    ))?;
    Ok(others)
}

/// After how many milliseconds each director's table was as it should be; none when it was not within 30 s.
type Took = Vec<(String, Option<u32>)>;

/// Does something, and looks at the tables of all directors until each was as it should be.
fn strike(lab: &Lab, ours: &str, action: &str, rules: &[&str]) -> Result<Took> {
    let mut expected = vec![format!("-A -t {ADDRESS}:80 -s wrr")];
    expected.extend(
        rules
            .iter()
            .map(|rule| format!("-a -t {ADDRESS}:80 -r {rule}")),
    );
    let output = lab.guest.run(&format!(
        "{WORDS}
         expected={}
         hosts='{ours} {KEEPALIVED} {LDIRECTORD}'
         begun=${{EPOCHREALTIME/./}}
         {action}
         declare -A took
         while [ ${{#took[@]}} -lt 3 ] && [ $((${{EPOCHREALTIME/./}} - begun)) -lt 30000000 ]; do
             for host in $hosts; do
                 [ -z \"${{took[$host]:-}}\" ] || continue
                 seen=\"$(ip netns exec $host ipvsadm -Sn | grep -F ' {ADDRESS}:80 ' | sed 's/ *$//' | LC_ALL=C sort)\"
                 [ \"$seen\" != \"$expected\" ] || took[$host]=$(((${{EPOCHREALTIME/./}} - begun) / 1000))
             done
         done
         for host in $hosts; do echo \"$host ${{took[$host]:-never}}\"; done",
        quote(&expected.join("\n"))
    ))?;
    output
        .lines()
        .map(|line| {
            let (host, took) = line.split_once(' ').context("host and time")?;
            Ok((host.to_owned(), took.parse().ok()))
        })
        .collect()
}

/// The tables, for those who ask why one is another.
fn tables(lab: &Lab, ours: &str) -> Result<String> {
    lab.guest.run(&format!(
        "for host in {ours} {KEEPALIVED} {LDIRECTORD}; do echo \"$host:\"; ip netns exec $host ipvsadm -Sn; done
         tail -n 5 {FOLDER}/*.log {FOLDER}/*.out"
    ))
}

fn shown(took: Option<u32>) -> String {
    took.map_or_else(
        || "never".to_owned(),
        |milliseconds| format!("{milliseconds} ms"),
    )
}

fn differential(lab: &Lab) -> Result<()> {
    lab.cluster.apply_example(NAMESPACE, "health-checks.yaml")?;
    let ours = lab.await_serving(NAMESPACE, "web")?;
    let _others = start_others(lab)?;
    println!(
        "  {:<28} {:>10} {:>12} {:>12}",
        "until the table is right", "ours", "keepalived", "ldirectord"
    );
    let mut wrong = Vec::new();
    let mut step = |what: &str, action: &str, rules: &[&str]| -> Result<()> {
        let took = strike(lab, &ours, action, rules).with_context(|| what.to_owned())?;
        let mut line = format!("  {what:<28}");
        for ((_, took), width) in took.iter().zip([11, 13, 13]) {
            let _ = write!(line, "{:>width$}", shown(*took));
        }
        println!("{line}");
        if took.iter().any(|(_, took)| took.is_none()) {
            wrong.push(format!("{what}: {}", tables(lab, &ours)?));
        }
        Ok(())
    };
    step("all start", "true", BOTH)?;
    for (what, action, rules) in STEPS {
        step(what, action, rules)?;
    }
    // Drain, as each of the three is told to: what remains is the table.
    let words = ["-n", NAMESPACE, "lvsrs", "web-1"];
    let draining = json!({"spec": {"administrativeState": "Draining"}});
    lab.cluster.merge_patch(&words, &draining)?;
    step(
        "web-1 drains",
        &format!(
            "sed -i 's/^ *weight 2$/weight 0/' {FOLDER}/keepalived.conf; kill -HUP $(<{FOLDER}/main.pid)
             sed -i 's/gate 2$/gate 0/' {FOLDER}/ldirectord.cf"
        ),
        &["192.168.2.21:80 -g -w 0", "192.168.2.22:80 -g -w 1"],
    )?;
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
