//! What `ipvsadm -Sn` says of a kernel.

use std::net::{IpAddr, Ipv4Addr};

use lvs_core::ipvs::{
    Destination, DestinationForwarding, DestinationKey, DestinationTunnel, Service, ServiceFlags,
    ServiceKey, ServiceState, Services,
};
use lvs_crds::value::{AddressFamily, Protocol};

use crate::import::{IpvsadmOptions, ipvsadm_mark, ipvsadm_options};

/// Persistence without a number, in seconds (ipvsadm(8)).
const DEFAULT_TIMEOUT_SECONDS: u32 = 300;
/// Scheduler where none is named (ipvsadm(8)).
const DEFAULT_SCHEDULER: &str = "wlc";

/// A saved table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// Its services.
    pub services: Services,
    /// Whether it says limits of connections. `ipvsadm -S` leaves them out; who writes a table himself may say them.
    pub says_thresholds: bool,
}

/// Reads it, line by line.
///
/// # Errors
/// What of which line is not understood: nothing is passed over, as it would be missing from a comparison.
pub fn read(text: &str) -> Result<Saved, String> {
    let mut saved = Saved::default();
    for (index, line) in text.lines().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let words = match words.split_first() {
            Some((first, rest)) if first.rsplit('/').next() == Some("ipvsadm") => rest,
            _ => words.as_slice(),
        };
        let read = match words.split_first() {
            None => Ok(()),
            Some((first, _)) if first.starts_with('#') => Ok(()),
            Some((&("-A" | "--add-service"), rest)) => service(&mut saved, rest),
            Some((&("-a" | "--add-server"), rest)) => destination(&mut saved, rest),
            Some((other, _)) => Err(format!("{other} is nothing that ipvsadm -Sn writes")),
        };
        read.map_err(|error| format!("line {}: {error}", index + 1))?;
    }
    for state in saved.services.values_mut() {
        state.destinations.sort_unstable_by_key(|(key, _)| *key);
    }
    Ok(saved)
}

fn number(word: &str, text: &str) -> Result<u32, String> {
    text.parse()
        .map_err(|_| format!("{word} {text:?} is no number of 0..4294967295"))
}

/// Address and port; a table with names says nothing without the machine that knows them.
fn socket(word: &str, text: &str) -> Result<(IpAddr, u16), String> {
    let wrong =
        || format!("{word} {text:?} is no address with a port; ipvsadm -Sn writes no names");
    let (address, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let address = address
        .strip_prefix('[')
        .and_then(|address| address.strip_suffix(']'))
        .unwrap_or(address);
    Ok((
        address.parse().map_err(|_| wrong())?,
        port.parse().map_err(|_| wrong())?,
    ))
}

fn key(options: &IpvsadmOptions) -> Result<ServiceKey, String> {
    let is_ipv6 = options
        .iter()
        .any(|(word, _)| matches!(word.as_str(), "-6" | "--ipv6"));
    for (word, argument) in options {
        let text = argument.as_deref().unwrap_or_default();
        let protocol = match word.as_str() {
            "-t" | "--tcp-service" => Protocol::TCP,
            "-u" | "--udp-service" => Protocol::UDP,
            "--sctp-service" => Protocol::SCTP,
            "-f" | "--fwmark-service" => {
                return Ok(ServiceKey::FirewallMark {
                    mark: ipvsadm_mark(text)
                        .ok_or_else(|| format!("{word} {text:?} is no mark"))?,
                    family: if is_ipv6 {
                        AddressFamily::IPv6
                    } else {
                        AddressFamily::IPv4
                    },
                });
            }
            _ => continue,
        };
        let (address, port) = socket(word, text)?;
        return Ok(ServiceKey::Address {
            address,
            protocol,
            port,
        });
    }
    Err("no service is named by -t, -u, --sctp-service or -f".to_owned())
}

fn service(saved: &mut Saved, words: &[&str]) -> Result<(), String> {
    let options = ipvsadm_options(words, &["service"])?;
    let key = key(&options)?;
    let family = key.family();
    let mut service = Service {
        scheduler: DEFAULT_SCHEDULER.to_owned(),
        flags: ServiceFlags(0),
        timeout_seconds: 0,
        prefix_length: match family {
            AddressFamily::IPv4 => 32,
            AddressFamily::IPv6 => 128,
        },
        persistence_engine: None,
    };
    for (word, argument) in &options {
        let text = argument.as_deref().unwrap_or_default();
        match word.as_str() {
            "-s" | "--scheduler" => text.clone_into(&mut service.scheduler),
            "-p" | "--persistent" => {
                service.flags.0 |= ServiceFlags::PERSISTENT;
                service.timeout_seconds = match text {
                    "" => DEFAULT_TIMEOUT_SECONDS,
                    text => number(word, text)?,
                };
            }
            "-M" | "--netmask" => {
                service.prefix_length = prefix_length(family, text)
                    .ok_or_else(|| format!("{word} {text:?} is no mask"))?;
            }
            "--pe" => service.persistence_engine = Some(text.to_owned()),
            "-o" | "--ops" => service.flags.0 |= ServiceFlags::ONE_PACKET,
            "-b" | "--sched-flags" => {
                for flag in text.split(',').filter(|flag| !flag.is_empty()) {
                    service.flags.0 |= match flag {
                        "flag-1" | "sh-fallback" | "mh-fallback" => ServiceFlags::FALLBACK,
                        "flag-2" | "sh-port" | "mh-port" => ServiceFlags::PORT,
                        "flag-3" => ServiceFlags::SCHEDULER_3,
                        other => return Err(format!("no scheduler has a flag {other:?}")),
                    };
                }
            }
            _ => {}
        }
    }
    let state = ServiceState {
        service,
        destinations: Vec::new(),
    };
    match saved.services.insert(key, state) {
        None => Ok(()),
        Some(_) => Err(format!("{key} is there twice")),
    }
}

fn prefix_length(family: AddressFamily, text: &str) -> Option<u8> {
    match family {
        AddressFamily::IPv4 => {
            let mask = u32::from(text.parse::<Ipv4Addr>().ok()?);
            let length = mask.leading_ones();
            let is_mask = mask.count_ones() == length;
            u8::try_from(length).ok().filter(|_| is_mask)
        }
        AddressFamily::IPv6 => text
            .parse()
            .ok()
            .filter(|length| (1..=128).contains(length)),
    }
}

fn destination(saved: &mut Saved, words: &[&str]) -> Result<(), String> {
    let options = ipvsadm_options(words, &["service", "server"])?;
    let key = key(&options)?;
    let mut target = None;
    let mut method = "-g";
    let (mut weight, mut upper_threshold, mut lower_threshold) = (1, 0, 0);
    let (mut type_, mut port, mut tunnel_flags) = ("ipip", 0, 0);
    let mut says_thresholds = false;
    for (word, argument) in &options {
        let text = argument.as_deref().unwrap_or_default();
        match word.as_str() {
            "-r" | "--real-server" => {
                let (address, port) = socket(word, text)?;
                target = Some(DestinationKey { address, port });
            }
            "-g" | "--gatewaying" => method = "-g",
            "-i" | "--ipip" => method = "-i",
            "-m" | "--masquerading" => method = "-m",
            "-w" | "--weight" => weight = number(word, text)?,
            "-x" | "--u-threshold" => {
                upper_threshold = number(word, text)?;
                says_thresholds = true;
            }
            "-y" | "--l-threshold" => {
                lower_threshold = number(word, text)?;
                says_thresholds = true;
            }
            "--tun-type" => type_ = text,
            "--tun-port" => {
                port = text
                    .parse()
                    .map_err(|_| format!("{word} {text:?} is no port"))?;
            }
            "--tun-nocsum" => tunnel_flags = 0,
            "--tun-csum" => tunnel_flags = 1,
            "--tun-remcsum" => tunnel_flags = 2,
            _ => {}
        }
    }
    let target = target.ok_or("no real server is named by -r")?;
    let forwarding = match (method, type_) {
        ("-m", _) => DestinationForwarding::Masquerade,
        ("-g", _) => DestinationForwarding::DirectRoute,
        (_, "ipip") => DestinationForwarding::Tunnel(DestinationTunnel::IpIp),
        (_, "gre") => DestinationForwarding::Tunnel(DestinationTunnel::Gre {
            flags: tunnel_flags,
        }),
        (_, "gue") => DestinationForwarding::Tunnel(DestinationTunnel::Gue {
            port,
            flags: tunnel_flags,
        }),
        (_, other) => return Err(format!("--tun-type {other:?} is no tunnel")),
    };
    let destination = Destination {
        forwarding,
        weight,
        upper_threshold,
        lower_threshold,
    };
    let state = saved
        .services
        .get_mut(&key)
        .ok_or_else(|| format!("{key} was not added before"))?;
    if state.destinations.iter().any(|(known, _)| *known == target) {
        return Err(format!("{key} has {target} twice"));
    }
    state.destinations.push((target, destination));
    saved.says_thresholds |= says_thresholds;
    Ok(())
}
