//! systemd-networkd: whatever it did not configure itself it removes from a device when it starts.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Foreign, Story, await_told, repaired, tail};
use crate::await_condition::until;
use crate::lab::{LIMIT, Lab};
use crate::stories::NAMESPACE;
use crate::traffic;

pub(super) fn stories() -> Vec<Story> {
    vec![
        Story {
            name: "coexistence_networkd_director",
            tells: "systemd-networkd starts on a director and removes the virtual addresses: back within a second, counted, told; with KeepConfiguration=yes it does not",
            run: director,
        },
        Story {
            name: "coexistence_networkd_real_server",
            tells: "the same on a real server, where it takes every device for its own: the address of ours is put back; with Unmanaged=yes for lvs-* it does not",
            run: real_server,
        },
    ]
}

/// The program as a unit would start it: files below /etc are the package's, and those of `files` are the administrator's. In the
/// place of udev stands its database, which says that the devices are ready; without it networkd configures them before it has
/// looked at their addresses, as it does in containers.
fn script(files: &[(&str, &str)]) -> String {
    let files: Vec<String> = files
        .iter()
        .map(|(name, content)| format!("cat >/run/systemd/network/{name} <<'T'\n{content}\nT\n"))
        .collect();
    format!(
        "mkdir -p /run/systemd /run/udev\nmount -t tmpfs -o mode=755 run /run/systemd\nmount -t tmpfs -o mode=755 run /run/udev\n\
         mkdir /run/udev/data\nfor path in /sys/class/net/*/ifindex; do echo I:1 >/run/udev/data/n$(<$path); done\n\
         mkdir -p /run/systemd/netif /run/systemd/network\nchown systemd-network:systemd-network /run/systemd/netif\n{}\
         exec env SYSTEMD_LOG_LEVEL=debug /lib/systemd/systemd-networkd",
        files.concat()
    )
}

/// The uplink of a director as its administrator describes it.
fn uplink(last: u8, more: &str) -> String {
    format!(
        "[Match]\nName=out\n[Network]\nAddress=172.16.2.{last}/24\nAddress=fd00:2::{last}/64\nGateway=172.16.2.254\nGateway=fd00:2::254\n\
         IPv6AcceptRA=no\nLinkLocalAddressing=ipv6\n{more}\n"
    )
}

/// Routes of the host as `e2e/machine/machine-init.sh` made them.
const ROUTES: &str = "for family in -4 -6; do ip $family route flush default proto static; done; \
                      ip route add default via 172.16.2.254 dev out; ip -6 route add default via fd00:2::254 dev out";

/// The longest time for which an address was away, in seconds, by the kernel's own word.
pub(super) fn away(monitor: &str, address: &str) -> Result<(usize, f64)> {
    let mut gone: Option<f64> = None;
    let (mut times, mut longest) = (0, 0_f64);
    for line in monitor.lines().filter(|line| line.contains(address)) {
        let clock = line
            .split_once('T')
            .and_then(|(_, rest)| rest.split_once(']'))
            .with_context(|| format!("no time in {line}"))?
            .0;
        let mut seconds = 0.0;
        for part in clock.split(':') {
            seconds = seconds * 60.0 + part.parse::<f64>()?;
        }
        if line.contains("Deleted") {
            times += 1;
            gone.get_or_insert(seconds);
        } else if let Some(since) = gone.take() {
            longest = longest.max(seconds - since);
        }
    }
    ensure!(gone.is_none(), "it did not come back:\n{monitor}");
    Ok((times, longest))
}

/// The kernel's word on addresses of a host, from now on.
pub(super) fn monitor<'a>(lab: &'a Lab, host: &str) -> Result<Foreign<'a>> {
    Foreign::start(lab, host, "exec ip -ts -o monitor address")
}

pub(super) const ADDRESS: &str = "172.16.2.200";
pub(super) const ADDRESS_IPV6: &str = "fd00:2::200";

/// Both addresses by DR; who holds them.
pub(super) fn serve_both(lab: &Lab) -> Result<String> {
    lab.cluster
        .apply_example(NAMESPACE, "direct-routing.yaml")?;
    lab.cluster.apply_text(
        NAMESPACE,
        &format!(
            "
apiVersion: lvs.dev/v1alpha1
kind: VirtualService
metadata: {{name: six}}
spec:
  addresses: [\"{ADDRESS_IPV6}\"]
  ports: [{{port: 80}}]
  forwarding: {{type: DR}}
  realServerSelector: {{matchLabels: {{app: web}}}}
"
        ),
    )?;
    lab.await_serving(NAMESPACE, "web")?;
    lab.await_serving(NAMESPACE, "six")?;
    lab.await_holder(ADDRESS)
}

fn director(lab: &Lab) -> Result<()> {
    let master = serve_both(lab)?;
    let last = if master == "lb-a" { 11 } else { 12 };
    let before = repaired(lab, &master, "Address")?;
    let monitor = monitor(lab, &master)?;
    let mut networkd = Foreign::start(
        lab,
        &master,
        &script(&[("10-out.network", &uplink(last, ""))]),
    )?;
    ROUTES.clone_into(&mut networkd.undo);
    until(LIMIT, "both addresses are counted", || {
        let count = repaired(lab, &master, "Address")? - before;
        Ok(if count >= 2.0 {
            Ok(())
        } else {
            Err((count, tail(&networkd.log()?)))
        })
    })?;
    let process = format!("netlink port {}", networkd.process);
    await_told(lab, "web", &[ADDRESS, "systemd-networkd", &process])?;
    await_told(lab, "six", &[ADDRESS_IPV6, "leave out alone"])?;
    ensure!(
        lab.holders(ADDRESS)? == [master.clone()],
        "it moved: {:?}",
        lab.holders(ADDRESS)?
    );
    for address in [ADDRESS, ADDRESS_IPV6] {
        let (times, longest) = away(&monitor.log()?, &format!("{address}/"))?;
        println!("    {address} was removed {times} times, away for {longest:.3} s at most");
        ensure!(
            times >= 1 && longest < 1.0,
            "{address} was removed {times} times, away for {longest} s"
        );
    }
    answered(lab)?;
    // With the cure it starts as after an upgrade, and configures the device; nothing of ours goes.
    let sysctls = networkd.end()?;
    let before = repaired(lab, &master, "Address")?;
    let mut networkd = Foreign::run(
        sysctls,
        &script(&[("10-out.network", &uplink(last, "KeepConfiguration=yes"))]),
    )?;
    ROUTES.clone_into(&mut networkd.undo);
    networkd.await_log("out: State changed: configuring -> configured")?;
    // As long as a refresh of the address takes, and a look at the kernel.
    std::thread::sleep(Duration::from_secs(3));
    let after = repaired(lab, &master, "Address")?;
    ensure!(
        after.to_bits() == before.to_bits(),
        "with KeepConfiguration=yes {} were removed:\n{}",
        after - before,
        networkd.log()?
    );
    answered(lab)
}

pub(super) fn answered(lab: &Lab) -> Result<()> {
    for url in [
        format!("http://{ADDRESS}/"),
        format!("http://[{ADDRESS_IPV6}]/"),
    ] {
        let spread = traffic::spread(&lab.guest, "client", &url, 3)?;
        ensure!(
            !spread.keys().any(|answer| answer.starts_with("failed")),
            "{url}: {spread:?}"
        );
    }
    Ok(())
}

fn real_server(lab: &Lab) -> Result<()> {
    const HOST: &str = "web-1";
    lab.cluster
        .apply_example(NAMESPACE, "direct-routing.yaml")?;
    lab.await_serving(NAMESPACE, "web")?;
    let before = repaired(lab, HOST, "Address")?;
    let monitor = monitor(lab, HOST)?;
    // What is often found in clouds and installers: every device, by DHCP or as it is.
    let every = (
        "99-every.network",
        "[Match]\nName=*\n[Network]\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n",
    );
    // The host's own devices stay what they are.
    let own = (
        "50-own.network",
        "[Match]\nName=!lvs-*\n[Link]\nUnmanaged=yes\n",
    );
    let networkd = Foreign::start(lab, HOST, &script(&[own, every]))?;
    until(LIMIT, "the address is counted", || {
        let count = repaired(lab, HOST, "Address")? - before;
        Ok(if count >= 1.0 {
            Ok(())
        } else {
            Err((count, tail(&networkd.log()?)))
        })
    })?;
    await_told(
        lab,
        "web",
        &[HOST, ADDRESS, "leave lvs-dr alone", "systemd-networkd"],
    )?;
    let (times, longest) = away(&monitor.log()?, &format!("{ADDRESS}/"))?;
    println!("    {ADDRESS} was removed {times} times, away for {longest:.3} s at most");
    ensure!(
        times >= 1 && longest < 1.0,
        "removed {times} times, away for {longest} s"
    );
    let url = format!("http://{ADDRESS}/");
    let spread = traffic::spread(&lab.guest, "client", &url, 6)?;
    ensure!(
        spread == [("web-1".into(), 4), ("web-2".into(), 2)].into(),
        "after the repair: {spread:?}"
    );
    let sysctls = networkd.end()?;
    let before = repaired(lab, HOST, "Address")?;
    let ours = (
        "00-lvs-operator.network",
        "[Match]\nName=lvs-*\n[Link]\nUnmanaged=yes\n",
    );
    let networkd = Foreign::run(sysctls, &script(&[ours, own, every]))?;
    networkd.await_log("lvs-dr: State changed: initialized -> unmanaged")?;
    std::thread::sleep(Duration::from_secs(3));
    let after = repaired(lab, HOST, "Address")?;
    ensure!(
        after.to_bits() == before.to_bits(),
        "with Unmanaged=yes {} were removed:\n{}",
        after - before,
        networkd.log()?
    );
    Ok(())
}
