//! IPv6, UDP with a real DNS server, SCTP, FTP with the kernel's own helper.

use anyhow::{Result, ensure};

use super::{NAMESPACE, Story, real_servers};
use crate::lab::Lab;
use crate::traffic;

pub(super) fn stories() -> Vec<Story> {
    vec![
        Story {
            name: "ipv6_direct_routing",
            tells: "DR over IPv6, allocated from the pool",
            run: ipv6,
        },
        Story {
            name: "udp_dns_one_packet_and_sctp",
            tells: "a DNS service per packet over two real DNS servers; SCTP associations beside it",
            run: udp,
        },
        Story {
            name: "ftp_nat",
            tells: "passive FTP through NAT with ip_vs_ftp",
            run: ftp,
        },
    ]
}

fn ipv6(lab: &Lab) -> Result<()> {
    lab.cluster.apply_text(
        NAMESPACE,
        &[
            r#"
apiVersion: lvs.dev/v1alpha1
kind: VirtualService
metadata: {name: six}
spec:
  addressFamilies: [IPv6, IPv4]
  ports: [{port: 80}]
  forwarding: {type: DR}
  scheduler: {name: rr}
  realServerSelector: {}
"#,
            &real_servers(&["web-1", "web-2"]),
        ]
        .concat(),
    )?;
    lab.await_serving(NAMESPACE, "six")?;
    let object = lab
        .cluster
        .get(&["-n", NAMESPACE, "virtualservices.lvs.dev", "six"])?;
    let addresses: Vec<&str> = object["status"]["addresses"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|row| row["address"].as_str())
        .collect();
    ensure!(
        addresses.len() == 2,
        "one address per family, got {addresses:?}"
    );
    for address in addresses {
        let url = if address.contains(':') {
            format!("http://[{address}]/")
        } else {
            format!("http://{address}/")
        };
        let spread = traffic::spread(&lab.guest, "client", &url, 8)?;
        ensure!(
            spread == [("web-1".into(), 4), ("web-2".into(), 4)].into(),
            "{url}: {spread:?}"
        );
    }
    Ok(())
}

fn udp(lab: &Lab) -> Result<()> {
    lab.guest.run("modprobe sctp")?;
    for name in ["web-1", "web-2"] {
        // Answers one name with its own; listens on every address, also on those that come later.
        lab.guest.on(
            name,
            &format!(
                "dnsmasq --no-resolv --no-hosts --port=53 --pid-file=/run/dns-{name}.pid --conf-file=/dev/null \
                 --txt-record=who.example,{name} --user=root
                 setsid socat SCTP4-LISTEN:2905,reuseaddr,fork SYSTEM:'echo {name}' >/dev/null 2>&1 </dev/null & echo $! >/run/sctp-{name}.pid"
            ),
        )?;
    }
    let told = udp_told(lab);
    for name in ["web-1", "web-2"] {
        lab.guest.run(&format!(
            "kill $(cat /run/dns-{name}.pid) $(cat /run/sctp-{name}.pid)"
        ))?;
    }
    told
}

fn udp_told(lab: &Lab) -> Result<()> {
    lab.cluster.apply_text(
        NAMESPACE,
        &[
            r#"
apiVersion: lvs.dev/v1alpha1
kind: VirtualService
metadata: {name: dns}
spec:
  addresses: [172.16.2.213]
  ports: [{port: 53, protocol: UDP}]
  packetScheduling: OnePacket
  forwarding: {type: DR}
  scheduler: {name: rr}
  realServerSelector: {}
---
apiVersion: lvs.dev/v1alpha1
kind: VirtualService
metadata: {name: signalling}
spec:
  addresses: [172.16.2.213]
  ports: [{port: 2905, protocol: SCTP}]
  forwarding: {type: DR}
  scheduler: {name: rr}
  realServerSelector: {}
"#,
            &real_servers(&["web-1", "web-2"]),
        ]
        .concat(),
    )?;
    lab.await_serving(NAMESPACE, "dns")?;
    lab.await_serving(NAMESPACE, "signalling")?;
    let master = lab.await_holder("172.16.2.213")?;
    let rules = lab.ipvs_rules(&master)?;
    for wanted in [
        "-A -u 172.16.2.213:53 -s rr -o",
        "-A --sctp-service 172.16.2.213:2905 -s rr",
        "-a --sctp-service 172.16.2.213:2905 -r 192.168.2.21:2905 -g -w 1",
    ] {
        ensure!(
            rules.iter().any(|rule| rule == wanted),
            "no {wanted} among {rules:#?}"
        );
    }
    // One source port: without one-packet scheduling all would go to one server.
    let answers = lab.guest.on(
        "client",
        "for i in 1 2 3 4 5 6; do dig +short +tries=1 +time=5 -b 172.16.2.100#40053 TXT who.example @172.16.2.213; done | sort | uniq -c",
    )?;
    let counts: Vec<&str> = answers.split_whitespace().collect();
    ensure!(
        counts == ["3", "\"web-1\"", "3", "\"web-2\""],
        "6 queries from one port gave {answers}"
    );
    let answers = lab.guest.on(
        "client",
        "for i in 1 2 3 4; do timeout 20 socat -u SCTP4:172.16.2.213:2905 -; done | sort | uniq -c",
    )?;
    let counts: Vec<&str> = answers.split_whitespace().collect();
    ensure!(
        counts == ["2", "web-1", "2", "web-2"],
        "4 SCTP associations gave {answers}"
    );
    Ok(())
}

fn ftp(lab: &Lab) -> Result<()> {
    lab.guest.run("modprobe ip_vs_ftp")?;
    lab.guest.on(
        "plain-1",
        "ip route replace default via 192.168.2.250
         mkdir -p /run/ftp/root /run/ftp/empty && head -c 100000 /dev/urandom >/run/ftp/root/file && chmod -R a+rX /run/ftp && chmod a-w /run/ftp/root
         printf '%s\\n' listen=YES anonymous_enable=YES anon_root=/run/ftp/root secure_chroot_dir=/run/ftp/empty \
             background=NO seccomp_sandbox=NO no_anon_password=YES >/run/ftp/vsftpd.conf
         setsid vsftpd /run/ftp/vsftpd.conf >/run/ftp/log 2>&1 </dev/null & echo $! >/run/ftp/pid",
    )?;
    let told = ftp_told(lab);
    lab.guest.run("kill $(cat /run/ftp/pid)")?;
    lab.guest.on(
        "plain-1",
        "ip route replace default via 192.168.2.254 dev in",
    )?;
    told
}

fn ftp_told(lab: &Lab) -> Result<()> {
    lab.cluster.apply_text(
        NAMESPACE,
        r#"
apiVersion: lvs.dev/v1alpha1
kind: VirtualRouter
metadata: {name: edge}
spec:
  directors: [{nodeName: lb-a}]
  addressPools: [{name: outside, addresses: [172.16.2.251]}]
  additionalAddresses: [{address: 192.168.2.250}]
  grants: [{namespaces: {from: All}, addressPoolNames: [outside], realServerCIDRs: [192.168.2.0/24]}]
---
apiVersion: lvs.dev/v1alpha1
kind: VirtualService
metadata: {name: files}
spec:
  virtualRouterName: edge
  addresses: [172.16.2.251]
  ports: [{port: 21}]
  forwarding: {type: NAT}
  realServerSelector: {}
---
apiVersion: lvs.dev/v1alpha1
kind: RealServer
metadata: {name: plain-1}
spec: {target: {type: Addresses, addresses: [192.168.2.31]}}
"#,
    )?;
    lab.await_serving(NAMESPACE, "files")?;
    let here = lab.guest.run("sha256sum </run/ftp/root/file")?;
    // --ftp-skip-pasv-ip would hide a server's own address in its answer; the helper must rewrite it.
    let there = lab.guest.on(
        "client",
        "set -o pipefail; curl --silent --show-error --max-time 20 --disable-epsv --no-ftp-skip-pasv-ip ftp://172.16.2.251/file | sha256sum",
    )?;
    ensure!(here == there, "the file arrived as {there}, sent as {here}");
    Ok(())
}
