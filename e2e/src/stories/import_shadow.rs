//! keepalived and ldirectord at work, an import of their own files, and three comparisons: the plugin's of their table with
//! what ours would be, the same after somebody changed theirs, and the kernel's own of their table with that of our agents.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{NAMESPACE, Story, Undo, plugin};
use crate::await_condition::{until, until_equal};
use crate::cluster::{run_with_input, tool};
use crate::guest::quote;
use crate::lab::{LIMIT, Lab};

/// Where their files are, in the guest.
const FOLDER: &str = "/run/import_shadow";
/// Their host, and the last byte of its address.
const HOST: [&str; 2] = ["theirs", "15"];
/// Host of a real server that goes down, 192.168.2.32.
const DOWN: &str = "plain-2";
/// Whose table is compared with theirs.
const DIRECTOR: &str = "lb-a";

const KEEPALIVED: &str = "
vrrp_instance outside {
    interface out
    virtual_router_id 77
    priority 100
    virtual_ipaddress {
        172.16.2.251
        172.16.2.252
    }
}
virtual_server 172.16.2.251 80 {
    protocol TCP
    delay_loop 1
    lb_algo wrr
    lb_kind DR
    persistence_timeout 50
    persistence_granularity 255.255.255.0
    alpha
    sorry_server 127.0.0.1 80
    sorry_server_lvs_method DR
    real_server 192.168.2.31 80 {
        weight 2
        HTTP_GET {
            url {
                path /index.html
                status_code 200
            }
            connect_timeout 3
            retry 0
            delay_before_retry 1
        }
    }
    real_server 192.168.2.32 80 {
        weight 1
        TCP_CHECK {
            connect_timeout 3
            retry 0
            delay_before_retry 1
        }
    }
}
virtual_server 172.16.2.251 8080 {
    protocol TCP
    delay_loop 1
    lb_algo mh
    mh-fallback
    mh-port
    lb_kind NAT
    alpha
    real_server 192.168.2.31 80 {
        TCP_CHECK {
            connect_ip 192.168.2.32
            connect_port 80
            connect_timeout 3
            retry 0
            delay_before_retry 1
        }
    }
    real_server 192.168.2.32 80 {
        weight 3
    }
}
virtual_server 172.16.2.251 514 {
    delay_loop 1
    lb_algo rr
    lb_kind NAT
    ops
    alpha
    real_server 192.168.2.32 514 {
        TCP_CHECK {
            connect_port 80
            connect_timeout 3
            retry 0
            delay_before_retry 1
        }
    }
}
virtual_server fwmark 7 {
    delay_loop 1
    lb_algo sed
    lb_kind DR
    alpha
    real_server 192.168.2.31 0 {
        TCP_CHECK {
            connect_port 80
            connect_timeout 3
            retry 0
            delay_before_retry 1
        }
    }
}
";

const LDIRECTORD: &str = "checktimeout=3
checkinterval=1
quiescent=no
supervised=yes
logfile=\"/run/import_shadow/ldirectord.log\"
virtual=172.16.2.221:80
\treal=192.168.2.31:80 gate 2 \"index.html\", \"plain-1\"
\treal=192.168.2.32:80 gate 1
\tfallback=127.0.0.1:80 gate
\tservice=http
\trequest=\"index.html\"
\treceive=\"plain-[0-9]\"
\tscheduler=wrr
\tpersistent=300
\tnetmask=255.255.255.0
\tprotocol=tcp
\tchecktype=negotiate
virtual=172.16.2.221:2222
\treal=192.168.2.31->192.168.2.32:80 masq 3
\tscheduler=sh
\tschedflags=sh-fallback
\tprotocol=tcp
\tchecktype=connect
";

/// One of the two.
struct Theirs {
    /// Name of its file, by which the import knows whose it is.
    file: &'static str,
    text: &'static str,
    /// How it is started.
    command: &'static str,
    /// A service of DR with a real server of weight 1, at port 80.
    address: &'static str,
}

pub(super) fn stories() -> Vec<Story> {
    vec![
        Story {
            name: "import_shadow_keepalived",
            tells: "keepalived at work: import --shadow says equal, tells what somebody changes there, and our agents' kernel holds the same table, with a real server down, too",
            run: |lab| {
                compared(
                    lab,
                    &Theirs {
                        file: "keepalived.conf",
                        text: KEEPALIVED,
                        command: "keepalived --check --dont-fork --log-console --use-file /run/import_shadow/keepalived.conf --pid /run/import_shadow/main.pid --checkers_pid /run/import_shadow/checkers.pid",
                        address: "172.16.2.251",
                    },
                )
            },
        },
        Story {
            name: "import_shadow_ldirectord",
            tells: "ldirectord at work: import --shadow says equal, tells what somebody changes there, and our agents' kernel holds the same table, with a real server down, too",
            run: |lab| {
                compared(
                    lab,
                    &Theirs {
                        file: "ldirectord.cf",
                        text: LDIRECTORD,
                        command: "ldirectord /run/import_shadow/ldirectord.cf start",
                        address: "172.16.2.221",
                    },
                )
            },
        },
    ]
}

/// Starts it on a host of its own, with neither addresses nor VRRP: what it does with IPVS is what is looked at.
fn start<'a>(lab: &'a Lab, theirs: &Theirs) -> Result<Undo<'a>> {
    let [host, last] = HOST;
    let undo = Undo {
        lab,
        script: format!(
            "read -r pid <{FOLDER}/pid && kill -TERM -- -$pid
             for ((look = 0; look < 100; look++)); do kill -0 -- -$pid 2>/dev/null || break; sleep 0.1; done
             ip netns delete {host}
             rm -rf {FOLDER}"
        ),
    };
    let Theirs {
        file,
        text,
        command,
        ..
    } = theirs;
    lab.guest.run(&format!(
        ". {}/e2e/machine/hosts.sh
         host {host} {last} in
         mkdir -p {FOLDER} && cd {FOLDER}
         printf %s {} >{file}
         setsid ip netns exec {host} {command} >log 2>&1 </dev/null &
         echo $! >pid",
        lab.repository.display(),
        quote(text),
    ))?;
    Ok(undo)
}

/// Objects of a file, as YAML.
fn import(file: &Path) -> Result<String> {
    let output = Command::new(plugin()?)
        .args(["import", "--node-name", DIRECTOR, "--namespace", NAMESPACE])
        .arg(file)
        .output()?;
    let report = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "import: {report}");
    Ok(String::from_utf8(output.stdout)?)
}

/// Compares a table with what a file would give, or without one the objects of the cluster: exit status and what is said.
fn shadow(lab: &Lab, file: Option<&Path>, table: &[String]) -> Result<(i32, Value)> {
    let mut command = Command::new(plugin()?);
    command
        .env("KUBECTL", tool(&lab.repository, "kubectl")?)
        .arg("--kubeconfig")
        .arg(lab.cluster.kubeconfig())
        .args(["import", "--shadow", "-", "-o", "json"]);
    if let Some(file) = file {
        command
            .args(["--node-name", DIRECTOR, "--namespace", NAMESPACE])
            .arg(file);
    }
    let output = run_with_input(&mut command, &table.join("\n"))?;
    match output.status.code() {
        Some(code @ (0 | 2)) => Ok((code, serde_json::from_slice(&output.stdout)?)),
        _ => bail!("--shadow: {}", String::from_utf8_lossy(&output.stderr)),
    }
}

/// The web server of a host refuses connections until it is dropped.
fn refuse<'a>(lab: &'a Lab, host: &str) -> Result<Undo<'a>> {
    lab.guest.on(
        host,
        "nft -f - <<'N'
         table inet refuse { chain input { type filter hook input priority 0; tcp dport 80 reject with tcp reset; }; }
N",
    )?;
    Ok(Undo {
        lab,
        script: format!("ip netns exec {host} nft delete table inet refuse"),
    })
}

fn compared(lab: &Lab, theirs: &Theirs) -> Result<()> {
    let [host, _] = HOST;
    let file = lab.state.join(theirs.file);
    fs::write(&file, theirs.text)?;
    let _at_work = start(lab, theirs)?;

    let table = until(LIMIT, "their table, equal to ours to be", || {
        let table = lab.ipvs_rules(host)?;
        let (code, told) = shadow(lab, Some(&file), &table)?;
        ensure!(told["problems"] == serde_json::json!([]), "{told}");
        Ok(if code == 0 && told["isEqual"] == true {
            Ok(table)
        } else {
            Err((code, told.to_string(), table))
        })
    })?;
    println!("  {} rules of theirs are ours to be", table.len());

    // Somebody changes a weight there, and adds a service of his own.
    let address = theirs.address;
    lab.guest.on(
        host,
        &format!(
            "ipvsadm -e -t {address}:80 -r 192.168.2.32:80 -g -w 7
             ipvsadm -A -t 172.16.2.99:80 -s rr"
        ),
    )?;
    let (code, told) = shadow(lab, Some(&file), &lab.ipvs_rules(host)?)?;
    let services = told["services"].as_array().context("services")?;
    let others: Vec<&Value> = services
        .iter()
        .filter(|one| one["state"] != "Equal")
        .collect();
    let [changed, added] = others.as_slice() else {
        bail!("two services are others, and what is told is {told}");
    };
    // Sorted by address: 172.16.2.99 comes before the others.
    let (added, changed) = if added["state"] == "OnlyTheirs" {
        (added, changed)
    } else {
        (changed, added)
    };
    ensure!(
        code == 2 && added["service"] == "-t 172.16.2.99:80" && added["state"] == "OnlyTheirs",
        "{told}"
    );
    let wanted = serde_json::json!([
        {"destination": "192.168.2.32:80", "what": "weight", "theirs": "7", "ours": "1"}
    ]);
    ensure!(
        changed["service"] == format!("-t {address}:80") && changed["differences"] == wanted,
        "{told}"
    );

    // What was said to be ours is what our agents make.
    lab.cluster.apply_text(NAMESPACE, &import(&file)?)?;
    until_equal(LIMIT, "our table, equal to theirs", &table, || {
        lab.ipvs_rules(DIRECTOR)
    })?;
    let (code, told) = shadow(lab, None, &table)?;
    ensure!(code == 0, "their table and the cluster's objects: {told}");

    // What our directors report as down is down in what ours would be.
    let _refused = refuse(lab, DOWN)?;
    until(LIMIT, "our table without who is down", || {
        let table = lab.ipvs_rules(DIRECTOR)?;
        let is_there = table
            .iter()
            .any(|rule| rule.contains(&format!("-t {address}:80 -r 192.168.2.32:80 ")));
        let (code, told) = shadow(lab, None, &table)?;
        Ok(if code == 0 && !is_there {
            Ok(())
        } else {
            Err((code, told.to_string(), table))
        })
    })
}
