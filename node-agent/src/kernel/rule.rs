//! Policy rules of ours (`include/uapi/linux/fib_rules.h`): those with our protocol number.

use std::collections::BTreeSet;

use lvs_core::host::{OWNER_PROTOCOL, PolicyRule};
use lvs_crds::value::Protocol;
use neli::consts::nl::NlmF;
use nix::errno::Errno;
use nix::libc;

use super::address::{address_or_unspecified, family};
use super::error::KernelError;
use super::message::{
    AttributeWriter, Attributes, FAMILY_IPV4, FAMILY_IPV6, MessageError, Request,
};
use super::socket::NetlinkSocket;

const SOURCE: u16 = 2;
const PRIORITY: u16 = 6;
const TABLE: u16 = 15;
const PROTOCOL: u16 = 21;
const IP_PROTOCOL: u16 = 22;
const SOURCE_PORTS: u16 = 23;
/// `FR_ACT_TO_TBL`.
const TO_TABLE: u8 = 1;
/// Bytes of `struct fib_rule_hdr`.
const HEADER_BYTES: usize = 12;

/// Rules with our protocol number, of both families.
pub fn dump(socket: &mut NetlinkSocket) -> Result<BTreeSet<PolicyRule>, KernelError> {
    let doing = "reading policy rules";
    let mut rules = BTreeSet::new();
    for family in [FAMILY_IPV4, FAMILY_IPV6] {
        let mut header = [0; HEADER_BYTES];
        header[0] = family;
        let request = Request::new(
            libc::RTM_GETRULE,
            NlmF::empty(),
            &header,
            &AttributeWriter::new(),
        );
        let found = socket.dump(
            doing,
            request,
            |found: &mut Vec<PolicyRule>, type_, body| {
                if type_ == libc::RTM_NEWRULE {
                    let rule = read(body).map_err(|source| KernelError::Message {
                        doing: doing.into(),
                        source,
                    })?;
                    found.extend(rule);
                }
                Ok(())
            },
        );
        match found {
            Ok(found) => rules.extend(found),
            // A kernel without IPv6 has no IPv6 rules.
            Err(error)
                if family == FAMILY_IPV6
                    && matches!(error.errno(), Some(Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(rules)
}

/// A rule with our protocol number; `None` for every other. One of ours that is not of the form we write (changed by
/// somebody) is read as far as it goes, so that it differs from what is wanted.
pub fn read(body: &[u8]) -> Result<Option<PolicyRule>, MessageError> {
    let short = || MessageError::Decode("a rule of less than 12 bytes".into());
    let header: &[u8; HEADER_BYTES] = body.first_chunk().ok_or_else(short)?;
    let family = header[0];
    let attributes = Attributes::read(body.get(HEADER_BYTES..).ok_or_else(short)?)?;
    if attributes.u8(PROTOCOL)? != Some(OWNER_PROTOCOL) {
        return Ok(None);
    }
    let protocol = match attributes.u8(IP_PROTOCOL)? {
        Some(17) => Protocol::UDP,
        Some(132) => Protocol::SCTP,
        _ => Protocol::TCP,
    };
    let ports = attributes.get(SOURCE_PORTS).unwrap_or(&[0; 4]);
    let port = |range: std::ops::Range<usize>| {
        ports
            .get(range)
            .and_then(|bytes| bytes.try_into().ok())
            .map(u16::from_ne_bytes)
            .ok_or(MessageError::WrongSize {
                attribute: SOURCE_PORTS,
                bytes: ports.len(),
            })
    };
    Ok(Some(PolicyRule {
        priority: attributes.u32_host(PRIORITY)?.unwrap_or_default(),
        source: address_or_unspecified(attributes.get(SOURCE), family)?,
        protocol,
        port: port(0..2)?,
        end_port: port(2..4)?,
        table: attributes.u32_host(TABLE)?.unwrap_or_default(),
    }))
}

/// Adds a rule. An existing one is refused by the kernel.
pub fn add(socket: &mut NetlinkSocket, rule: &PolicyRule) -> Result<(), KernelError> {
    change(
        socket,
        "adding",
        rule,
        libc::RTM_NEWRULE,
        NlmF::CREATE | NlmF::EXCL,
    )
}

/// Removes a rule.
pub fn delete(socket: &mut NetlinkSocket, rule: &PolicyRule) -> Result<(), KernelError> {
    change(socket, "removing", rule, libc::RTM_DELRULE, NlmF::empty())
}

fn change(
    socket: &mut NetlinkSocket,
    verb: &str,
    rule: &PolicyRule,
    message_type: u16,
    flags: NlmF,
) -> Result<(), KernelError> {
    let doing = format!(
        "{verb} policy rule {} from {} {} port {}-{} to table {}",
        rule.priority, rule.source, rule.protocol, rule.port, rule.end_port, rule.table
    );
    let request = request(rule, message_type, flags).map_err(|source| KernelError::Message {
        doing: doing.clone(),
        source,
    })?;
    socket.execute(&doing, request)
}

fn request(rule: &PolicyRule, message_type: u16, flags: NlmF) -> Result<Request, MessageError> {
    let mut header = [0; HEADER_BYTES];
    header[0] = family(rule.source);
    header[2] = if rule.source.is_ipv4() { 32 } else { 128 };
    // The table goes in its attribute, which has room for its number.
    header[4] = libc::RT_TABLE_UNSPEC;
    header[7] = TO_TABLE;
    let mut ports = [0; 4];
    ports[..2].copy_from_slice(&rule.port.to_ne_bytes());
    ports[2..].copy_from_slice(&rule.end_port.to_ne_bytes());
    let mut attributes = AttributeWriter::new();
    attributes
        .address(SOURCE, rule.source)?
        .u32_host(PRIORITY, rule.priority)?
        .u32_host(TABLE, rule.table)?
        .u8(PROTOCOL, OWNER_PROTOCOL)?
        .u8(IP_PROTOCOL, rule.protocol.number())?
        .bytes(SOURCE_PORTS, &ports)?;
    Ok(Request::new(message_type, flags, &header, &attributes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_rule_is_read_back_as_it_was_asked_for() {
        for source in ["192.0.2.9", "2001:db8::9"] {
            let rule = PolicyRule {
                priority: 22_000,
                source: source.parse().unwrap(),
                protocol: Protocol::UDP,
                port: 53,
                end_port: 54,
                table: 7_600,
            };
            let request = request(&rule, libc::RTM_NEWRULE, NlmF::empty()).unwrap();
            assert_eq!(read(&request.body).unwrap(), Some(rule));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = read(&bytes);
        }
    }
}
