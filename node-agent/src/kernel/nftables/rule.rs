//! A mark rule as nftables expressions, and back.

use std::net::IpAddr;

use lvs_core::host::MarkRule;
use lvs_crds::node_plan::MarkMatch;
use lvs_crds::value::Protocol;

use super::super::message::{Attributes, MessageError, address_bytes};
use super::expression::{self, Expression, MetaKey, PayloadBase};

/// `NFTNL_UDATA_RULE_COMMENT`, the entry of a rule's user data that `nft list` prints.
const COMMENT: u8 = 0;
/// First word of our comments.
const PREFIX: &str = "lvs-operator";
/// `NFPROTO_IPV4`, `NFPROTO_IPV6`.
const IPV4: u8 = 2;
const IPV6: u8 = 10;

/// `meta nfproto … ip daddr … meta l4proto … th dport … meta mark set …`
pub fn expressions(rule: &MarkRule) -> Vec<Expression> {
    let MarkMatch {
        address,
        protocol,
        port,
        end_port,
    } = &rule.packets;
    // Destination address: byte 16 of an IPv4 header, byte 24 of an IPv6 header.
    let (family, offset, length) = match address {
        IpAddr::V4(_) => (IPV4, 16, 4),
        IpAddr::V6(_) => (IPV6, 24, 16),
    };
    let mut list = vec![
        Expression::MetaLoad(MetaKey::NetworkProtocol),
        Expression::Equal(vec![family]),
        Expression::Payload {
            base: PayloadBase::Network,
            offset,
            length,
        },
        Expression::Equal(address_bytes(*address)),
        Expression::MetaLoad(MetaKey::TransportProtocol),
        Expression::Equal(vec![protocol.number()]),
    ];
    if *port != 0 {
        // TCP, UDP and SCTP have the destination port at byte 2.
        list.push(Expression::Payload {
            base: PayloadBase::Transport,
            offset: 2,
            length: 2,
        });
        list.push(if port == end_port {
            Expression::Equal(port.to_be_bytes().to_vec())
        } else {
            Expression::Between(port.to_be_bytes().to_vec(), end_port.to_be_bytes().to_vec())
        });
    }
    // A mark is a number of the host, in its byte order.
    list.push(Expression::Constant(rule.mark.to_ne_bytes().to_vec()));
    list.push(Expression::MetaStore(MetaKey::Mark));
    list
}

/// Comment of a rule: what it is, so that it can be read back and so that a person sees whose it is.
pub fn comment(rule: &MarkRule) -> String {
    let MarkMatch {
        address,
        protocol,
        port,
        end_port,
    } = &rule.packets;
    format!(
        "{PREFIX} {address} {protocol} {port} {end_port} mark {}",
        rule.mark
    )
}

fn parse_comment(text: &str) -> Option<MarkRule> {
    let mut words = text.split(' ');
    if words.next() != Some(PREFIX) {
        return None;
    }
    let address = words.next()?.parse().ok()?;
    let protocol = match words.next()? {
        "TCP" => Protocol::TCP,
        "UDP" => Protocol::UDP,
        "SCTP" => Protocol::SCTP,
        _ => return None,
    };
    let port = words.next()?.parse().ok()?;
    let end_port = words.next()?.parse().ok()?;
    if words.next() != Some("mark") {
        return None;
    }
    let mark = words.next()?.parse().ok()?;
    words.next().is_none().then_some(MarkRule {
        packets: MarkMatch {
            address,
            protocol,
            port,
            end_port,
        },
        mark,
    })
}

/// Comment as user data: type, length, text with its terminating zero.
pub fn user_data(rule: &MarkRule) -> Vec<u8> {
    let text = comment(rule);
    let mut bytes = vec![COMMENT, u8::try_from(text.len() + 1).unwrap_or(u8::MAX)];
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(0);
    bytes
}

fn comment_of(mut user_data: &[u8]) -> Option<&str> {
    while let [kind, length, rest @ ..] = user_data {
        let value = rest.get(..usize::from(*length))?;
        if *kind == COMMENT {
            return std::str::from_utf8(value.strip_suffix(&[0])?).ok();
        }
        user_data = rest.get(usize::from(*length)..)?;
    }
    None
}

/// A rule read back; `None` when it is not exactly as we write it.
pub fn read(
    user_data: Option<&[u8]>,
    list: Option<&Attributes>,
) -> Result<Option<MarkRule>, MessageError> {
    let Some(rule) = user_data.and_then(comment_of).and_then(parse_comment) else {
        return Ok(None);
    };
    let found = list.map(expression::read).transpose()?.flatten();
    Ok((found.as_deref() == Some(expressions(&rule).as_slice())).then_some(rule))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn any_rule() -> impl Strategy<Value = MarkRule> {
        let address = prop_oneof![
            any::<[u8; 4]>().prop_map(IpAddr::from),
            any::<[u8; 16]>().prop_map(IpAddr::from),
        ];
        let protocol = prop_oneof![
            Just(Protocol::TCP),
            Just(Protocol::UDP),
            Just(Protocol::SCTP)
        ];
        (address, protocol, any::<u16>(), any::<u16>(), 1..u32::MAX).prop_map(
            |(address, protocol, port, other, mark)| MarkRule {
                packets: MarkMatch {
                    address,
                    protocol,
                    port: port.min(other),
                    end_port: port.max(other),
                },
                mark,
            },
        )
    }

    fn written(rule: &MarkRule) -> Attributes {
        let bytes = expression::write(&expressions(rule)).unwrap();
        Attributes::read(bytes.as_bytes()).unwrap()
    }

    proptest! {
        #[test]
        fn a_rule_is_read_back_as_it_was_written(rule in any_rule()) {
            let found = read(Some(&user_data(&rule)), Some(&written(&rule))).unwrap();
            prop_assert_eq!(found, Some(rule));
        }

        #[test]
        fn a_rule_with_the_comment_of_another_is_not_ours(left in any_rule(), right in any_rule()) {
            prop_assume!(left != right);
            // Two port ranges that start at 0 take every port alike.
            prop_assume!(expressions(&left) != expressions(&right));
            let found = read(Some(&user_data(&left)), Some(&written(&right))).unwrap();
            prop_assert_eq!(found, None);
        }

        #[test]
        fn no_bytes_make_the_reader_panic(
            user_data in proptest::collection::vec(any::<u8>(), 0..80),
            list in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            if let Ok(list) = Attributes::read(&list) {
                let _ = read(Some(&user_data), Some(&list));
            }
        }
    }

    #[test]
    fn a_rule_without_a_comment_is_not_ours() {
        let rule = MarkRule {
            packets: MarkMatch {
                address: "192.0.2.1".parse().unwrap(),
                protocol: Protocol::TCP,
                port: 80,
                end_port: 80,
            },
            mark: 7,
        };
        assert_eq!(read(None, Some(&written(&rule))).unwrap(), None);
        assert_eq!(read(Some(&user_data(&rule)), None).unwrap(), None);
    }
}
