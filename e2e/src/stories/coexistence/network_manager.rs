//! NetworkManager: what it did not configure itself it removes from a device when it activates a profile there.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::systemd_networkd::{ADDRESS, ADDRESS_IPV6, answered, away, monitor, serve_both};
use super::{Foreign, Story, await_told, repaired};
use crate::await_condition::{until, until_equal};
use crate::guest::quote;
use crate::lab::{LIMIT, Lab};
use crate::stories::{NAMESPACE, other};
use crate::traffic;

const ROUTER: &str = "virtualrouters.lvs.dev/default";

pub(super) fn stories() -> Vec<Story> {
    vec![
        Story {
            name: "coexistence_network_manager_director",
            tells: "NetworkManager has the uplink of a director: a restart takes nothing; device reapply removes the virtual addresses: back within a second, counted, told; an activation takes the host's own, too, and the other director takes over",
            run: director,
        },
        Story {
            name: "coexistence_network_manager_real_server",
            tells: "NetworkManager has the device of ours on a real server: device reapply removes the address, which is put back; with unmanaged-devices for lvs-* it refuses",
            run: real_server,
        },
    ]
}

/// A bus for one host: nobody is started by it.
const BUS: &str = r#"<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_type="method_call"/><allow send_type="signal"/>
<allow send_requested_reply="true" send_type="method_return"/><allow send_requested_reply="true" send_type="error"/>
<allow receive_type="method_call"/><allow receive_type="method_return"/><allow receive_type="error"/><allow receive_type="signal"/>
</policy></busconfig>"#;

/// Of udev there is none here, as in containers: a sysfs that cannot be written says so.
fn settings(unmanaged: &str) -> String {
    format!(
        "[main]\nplugins=keyfile\nauth-polkit=false\nno-auto-default=*\ndns=none\nrc-manager=unmanaged\n\
         [keyfile]\nunmanaged-devices={unmanaged}\n[logging]\nlevel=DEBUG\n"
    )
}

/// All but the uplink is the administrator's own.
const UPLINK_ALONE: &str = "*,except:interface-name:out";

/// The director, and its uplink as its administrator describes it.
const DIRECTOR: &str = "lb-b";
const PROFILE: &str = "[connection]\nid=uplink\nuuid=6f2d6f0e-4d0a-4d6e-8d0c-1f0c5d2a9b11\ntype=ethernet\ninterface-name=out\n\
                       [ipv4]\nmethod=manual\naddress1=172.16.2.12/24,172.16.2.254\n\
                       [ipv6]\nmethod=manual\naddr-gen-mode=eui64\naddress1=fd00:2::12/64,fd00:2::254\n";

/// The program as its unit would start it. Its state, below `state`, outlives it as that of a host does.
fn script(unmanaged: &str, profiles: &[&str]) -> String {
    let file =
        |name: &str, text: &str| format!("printf %s {} >{name}\nchmod 600 {name}\n", quote(text));
    format!(
        "mkdir -p {STATE}/lib {STATE}/run/system-connections {STATE}/bus /run/dbus /run/NetworkManager\n\
         mount -o bind {STATE}/lib /var/lib/NetworkManager\nmount -o bind {STATE}/run /run/NetworkManager\n\
         mount -o bind {STATE}/bus /run/dbus\nmount -o remount,bind,ro /sys\n\
         {}{}{}rm -f /run/dbus/system_bus_socket\n\
         dbus-daemon --nofork --config-file={STATE}/bus.conf & echo $! >{STATE}/bus.pid\n\
         until [ -S /run/dbus/system_bus_socket ]; do sleep 0.05; done\n\
         exec NetworkManager --debug --config={STATE}/settings",
        file(&format!("{STATE}/bus.conf"), BUS),
        file(&format!("{STATE}/settings"), &settings(unmanaged)),
        profiles
            .iter()
            .map(|profile| {
                file(
                    "/run/NetworkManager/system-connections/uplink.nmconnection",
                    profile,
                )
            })
            .collect::<String>(),
    )
}

const STATE: &str = "/run/network-manager";

/// The host as `e2e/machine/machine-init.sh` made it.
fn undo(host: &str) -> String {
    format!(
        "kill $(<{STATE}/bus.pid); rm -rf {STATE}\n\
         ip link set out down; ip address flush dev out; echo 0 >/proc/sys/net/ipv6/conf/out/addr_gen_mode; ip link set out up\n\
         grep '^address add .* dev out' /run/{host}.batch | ip -batch -\n\
         ip route add default via 172.16.2.254 dev out; ip -6 route add default via fd00:2::254 dev out"
    )
}

/// A command of an administrator of the host.
fn nmcli(manager: &Foreign<'_>, words: &str) -> Result<String> {
    let script = format!(
        "exec nsenter --target {} --mount -- timeout 60 nmcli {words}",
        manager.process
    );
    manager.lab.guest.on(&manager.host, &script)
}

/// Has the router handed over, and waits until this director holds both addresses.
fn hand_over(lab: &Lab, to: &str) -> Result<()> {
    let annotation = format!("lvs.dev/hand-over-to={to}");
    lab.cluster.kubectl(&["annotate", ROUTER, &annotation])?;
    let held = held_by(lab, to);
    lab.cluster
        .kubectl(&["annotate", ROUTER, "lvs.dev/hand-over-to-"])?;
    held
}

fn held_by(lab: &Lab, director: &str) -> Result<()> {
    for address in [ADDRESS, ADDRESS_IPV6] {
        until_equal(
            LIMIT,
            &format!("{director} alone holds {address}"),
            &vec![director.to_owned()],
            || lab.holders(address),
        )?;
    }
    Ok(())
}

/// Nothing is removed for as long as a refresh of the address takes, and a look at the kernel.
fn undisturbed(lab: &Lab, host: &str, before: f64) -> Result<()> {
    std::thread::sleep(Duration::from_secs(3));
    let after = repaired(lab, host, "Address")?;
    ensure!(
        after.to_bits() == before.to_bits(),
        "{} were removed",
        after - before
    );
    held_by(lab, host)
}

fn director(lab: &Lab) -> Result<()> {
    let (host, successor) = (DIRECTOR, other(DIRECTOR));
    // It has the device before we have anything there, as at the start of a host.
    let monitor = monitor(lab, host)?;
    let mut manager = Foreign::start(lab, host, &script(UPLINK_ALONE, &[PROFILE]))?;
    manager.undo = undo(host);
    manager.await_log("startup complete")?;
    nmcli(&manager, "connection up uplink")?;
    if serve_both(lab)? != host {
        hand_over(lab, host)?;
    }
    answered(lab)?;

    // What it is asked every day: its profiles read once more, and what it has given the device made equal to the profile.
    monitor.clear_log()?;
    let before = repaired(lab, host, "Address")?;
    nmcli(&manager, "connection reload")?;
    undisturbed(lab, host, before)?;
    nmcli(&manager, "device reapply out")?;
    until(LIMIT, "both addresses are counted", || {
        let count = repaired(lab, host, "Address")? - before;
        Ok(if count >= 2.0 { Ok(()) } else { Err(count) })
    })?;
    held_by(lab, host)?;
    for address in [ADDRESS, ADDRESS_IPV6] {
        let (times, longest) = away(&monitor.log()?, &format!("{address}/"))?;
        println!("    {address} was removed {times} times, away for {longest:.3} s at most");
        ensure!(
            times >= 1 && longest < 1.0,
            "{address} was removed {times} times, away for {longest} s"
        );
    }
    let words = [host, "NetworkManager", "leave out alone"];
    await_told(lab, "web", &[&words[..], &[ADDRESS]].concat())?;
    await_told(lab, "six", &[&words[..], &[ADDRESS_IPV6]].concat())?;

    // An upgrade: it finds what it left, and lets be what it finds beside it.
    let before = repaired(lab, host, "Address")?;
    let undo = std::mem::take(&mut manager.undo);
    let sysctls = manager.end()?;
    lab.guest.run(&format!("kill $(<{STATE}/bus.pid)"))?;
    let mut manager = Foreign::run(sysctls, &script(UPLINK_ALONE, &[PROFILE]))?;
    manager.undo = undo;
    manager.await_log("startup complete")?;
    let devices = nmcli(&manager, "--terse --fields DEVICE,STATE,CONNECTION device")?;
    ensure!(
        devices.lines().any(|line| line == "out:connected:uplink"),
        "{devices}"
    );
    undisturbed(lab, host, before)?;
    answered(lab)?;

    // A profile that is activated begins with an empty device: the host's own addresses go, too, and the other director takes over.
    monitor.clear_log()?;
    let begun = Instant::now();
    nmcli(&manager, "connection up uplink")?;
    held_by(lab, successor)?;
    println!(
        "    {successor} holds the addresses {:.1} s later",
        begun.elapsed().as_secs_f64()
    );
    let monitored = monitor.log()?;
    ensure!(
        monitored
            .lines()
            .any(|line| line.contains("Deleted") && line.contains("172.16.2.12/24")),
        "its own address stayed:\n{monitored}"
    );
    answered(lab)?;
    // The host is to be as it was without us.
    let all = [
        "delete",
        "-n",
        NAMESPACE,
        "virtualservices.lvs.dev",
        "--all",
        "--wait",
    ];
    lab.cluster.kubectl(&all).map(drop)
}

fn real_server(lab: &Lab) -> Result<()> {
    const HOST: &str = "web-1";
    const OWN: &str = "interface-name:in,interface-name:mgmt";
    let end_bus = format!("kill $(<{STATE}/bus.pid); rm -rf {STATE}");
    let is_listed = |manager: &Foreign<'_>, line: &str| -> Result<()> {
        let devices = nmcli(manager, "--terse --fields DEVICE,STATE device")?;
        ensure!(devices.lines().any(|found| found == line), "{devices}");
        Ok(())
    };
    lab.cluster
        .apply_example(NAMESPACE, "direct-routing.yaml")?;
    lab.await_serving(NAMESPACE, "web")?;
    let monitor = monitor(lab, HOST)?;
    // The host's own devices stay what they are.
    let mut manager = Foreign::start(lab, HOST, &script(OWN, &[]))?;
    manager.undo.clone_from(&end_bus);
    manager.await_log("startup complete")?;
    is_listed(&manager, "lvs-dr:connected (externally)")?;
    let before = repaired(lab, HOST, "Address")?;
    nmcli(&manager, "device reapply lvs-dr")?;
    until(LIMIT, "the address is counted", || {
        let count = repaired(lab, HOST, "Address")? - before;
        Ok(if count >= 1.0 { Ok(()) } else { Err(count) })
    })?;
    let words = [HOST, ADDRESS, "leave lvs-dr alone", "NetworkManager"];
    await_told(lab, "web", &words)?;
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
    let sysctls = manager.end()?;
    lab.guest.run(&end_bus)?;

    // With the cure it is asked for the same, and refuses.
    let before = repaired(lab, HOST, "Address")?;
    let cured = format!("{OWN},interface-name:lvs-*");
    let mut manager = Foreign::run(sysctls, &script(&cured, &[]))?;
    manager.undo = end_bus;
    manager.await_log("startup complete")?;
    is_listed(&manager, "lvs-dr:unmanaged")?;
    let refused = nmcli(&manager, "device reapply lvs-dr");
    ensure!(refused.is_err(), "lvs-dr was reapplied: {refused:?}");
    std::thread::sleep(Duration::from_secs(3));
    let after = repaired(lab, HOST, "Address")?;
    ensure!(
        after.to_bits() == before.to_bits(),
        "with unmanaged-devices {} were removed",
        after - before
    );
    Ok(())
}
