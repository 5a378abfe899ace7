//! S5: tunnels, also to another subnet, also IPv6 in IPv4.

use anyhow::{Context, Result, ensure};

use super::{NAMESPACE, Story};
use crate::await_condition::until;
use crate::lab::{LIMIT, Lab};
use crate::traffic;

pub(super) fn stories() -> Vec<Story> {
    vec![Story {
        name: "S5_tunnel",
        tells: "IPIP, GUE and GRE to nodes in two subnets; an IPv6 address over IPv4 tunnels; large packets both ways",
        run: tunnel,
    }]
}

fn tunnel(lab: &Lab) -> Result<()> {
    lab.cluster.apply_example(NAMESPACE, "tunnel.yaml")?;
    for (patch, words) in [
        (r#"{"type":"IPIP"}"#, "-i -w 1 --tun-type ipip"),
        (
            r#"{"type":"GUE","port":6080}"#,
            "-i -w 1 --tun-type gue --tun-port 6080 --tun-nocsum",
        ),
        (r#"{"type":"GRE"}"#, "-i -w 1 --tun-type gre --tun-nocsum"),
        (
            r#"{"type":"GRE","checksum":"Checksum"}"#,
            "-i -w 1 --tun-type gre --tun-csum",
        ),
    ] {
        lab.cluster.kubectl(&[
            "-n",
            NAMESPACE,
            "patch",
            "lvsvs",
            "far",
            "--type=json",
            "-p",
            &format!(r#"[{{"op":"replace","path":"/spec/forwarding/tunnel","value":{patch}}}]"#),
        ])?;
        let master = lab.await_serving(NAMESPACE, "far")?;
        until(LIMIT, &format!("{words} in the kernel of {master}"), || {
            let rules = lab.ipvs_rules(&master)?;
            let count = rules
                .iter()
                .filter(|rule| rule.starts_with("-a") && rule.ends_with(words))
                .count();
            Ok(if count == 4 { Ok(()) } else { Err(rules) })
        })?;
        through(lab).with_context(|| format!("tunnel {patch}"))?;
    }
    Ok(())
}

fn through(lab: &Lab) -> Result<()> {
    for url in ["http://172.16.2.205/", "http://[fd00:2::205]/"] {
        let spread = traffic::spread(&lab.guest, "client", url, 8)?;
        ensure!(
            spread == [("web-3".into(), 4), ("far-1".into(), 4)].into(),
            "{url}: rr gave {spread:?}"
        );
        // A request of 6 kB is answered only when all of it came: full-sized packets towards the real server
        // must fit into the tunnel as well.
        for _ in 0..2 {
            let code = lab.guest.on(
                "client",
                &format!(
                    "curl --silent --globoff --max-time 20 -o /dev/null -w '%{{http_code}}' \
                     -H \"Padding: $(printf '%06000d' 0)\" '{url}'"
                ),
            )?;
            ensure!(code == "200", "{url}: a request of 6 kB ended as {code}");
        }
    }
    Ok(())
}
