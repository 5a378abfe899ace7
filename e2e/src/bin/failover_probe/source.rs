//! The address from which a measurement connects.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use anyhow::{Context, Result};

use super::ip;

/// An address for the connections of one measurement, removed with it.
///
/// IPVS remembers a connection for 15 minutes after the director that balanced it last saw it, and would send a new one
/// from its address and port to the same real server, which after a takeover is a measurement of the past. A measurement
/// takes 12 s at least, so that an address comes again after 19 minutes at the earliest.
pub struct Source {
    host: String,
    device: String,
    pub address: IpAddr,
}

impl Source {
    /// What the hosts of the machine leave free of 172.16.2.0/24 and of fd00:2::/64.
    const NUMBERS: Range<u16> = 101..196;
    const COUNT: &str = "/run/failover-probe.measurements";

    pub fn add(host: &str, device: &str, target: IpAddr) -> Result<Self> {
        let count = match std::fs::read_to_string(Self::COUNT) {
            Ok(text) => text.trim().parse::<u64>().with_context(|| Self::COUNT)?,
            Err(error) if error.kind() == ErrorKind::NotFound => 0,
            Err(error) => return Err(error).context(Self::COUNT),
        };
        std::fs::write(Self::COUNT, (count + 1).to_string()).context(Self::COUNT)?;
        let source = Self {
            host: host.to_owned(),
            device: device.to_owned(),
            address: Self::number(count, target),
        };
        source.change("replace")?;
        Ok(source)
    }

    fn number(count: u64, target: IpAddr) -> IpAddr {
        let numbers = Self::NUMBERS;
        let offset = u16::try_from(count % u64::from(numbers.end - numbers.start)).unwrap_or(0);
        let number = numbers.start + offset;
        match target {
            IpAddr::V4(_) => Ipv4Addr::from(0xac10_0200 + u32::from(number)).into(),
            IpAddr::V6(_) => Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 1, number).into(),
        }
    }

    fn change(&self, verb: &str) -> Result<()> {
        let length = if self.address.is_ipv4() { 24 } else { 64 };
        let prefix = format!("{}/{length}", self.address);
        let mut words = vec![
            "-n",
            &self.host,
            "address",
            verb,
            &prefix,
            "dev",
            &self.device,
        ];
        if self.address.is_ipv6() {
            words.push("nodad");
        }
        ip(&words).map(drop)
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        let _ = self.change("del");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{IpAddr, Source};

    #[test]
    fn a_measurement_uses_no_address_that_a_director_may_remember() {
        const SHORTEST_SECONDS: u64 = 12;
        let in_15_minutes = 15 * 60 / SHORTEST_SECONDS;
        for target in ["172.16.2.200", "fd00:2::200"] {
            let target = target.parse().unwrap();
            let addresses: BTreeSet<IpAddr> = (1_000..1_000 + in_15_minutes)
                .map(|count| Source::number(count, target))
                .collect();
            assert_eq!(addresses.len() as u64, in_15_minutes);
        }
        let first = Source::number(0, "172.16.2.200".parse().unwrap());
        assert_eq!(first.to_string(), "172.16.2.101");
    }
}
