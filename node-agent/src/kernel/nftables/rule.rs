//! Our rules as nftables expressions, and back.

use std::net::IpAddr;

use lvs_core::host::{MarkRule, RealServerPorts};
use lvs_crds::node_plan::MarkMatch;
use lvs_crds::value::Protocol;

use super::super::message::{Attributes, MessageError, address_bytes};
use super::expression::{self, ConntrackKey, Expression, MetaKey, PayloadBase};

/// `NFTNL_UDATA_RULE_COMMENT`, the entry of a rule's user data that `nft list` prints.
const COMMENT: u8 = 0;
/// First word of our comments.
const PREFIX: &str = "lvs-operator";
/// `NFPROTO_IPV4`, `NFPROTO_IPV6`.
const IPV4: u8 = 2;
const IPV6: u8 = 10;
/// `RTN_LOCAL`.
const LOCAL: u32 = 2;

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Sets a mark.
    Mark(MarkRule),
    /// What this node itself sends to a virtual address goes on with its own source address: a director that does not
    /// hold the source addresses would not get the answers. Who holds the virtual address sends from that.
    Own(IpAddr),
    /// Connections that go on with a source address of a list.
    SourceNat {
        /// By their first packets, as clients sent them.
        packets: MarkMatch,
        /// By the real server that IPVS chose, too.
        real_server: Option<RealServerPorts>,
        /// Chain of the list.
        list: String,
    },
    /// One address of a list, taken by one in `rest`.
    Source {
        /// The address.
        address: IpAddr,
        /// Addresses from this one to the last of the list.
        rest: u32,
    },
}

const fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => IPV4,
        IpAddr::V6(_) => IPV6,
    }
}

fn of_family(address: IpAddr) -> [Expression; 2] {
    [
        Expression::MetaLoad(MetaKey::NetworkProtocol),
        Expression::Equal(vec![family(address)]),
    ]
}

fn of_protocol(protocol: Protocol) -> [Expression; 2] {
    [
        Expression::MetaLoad(MetaKey::TransportProtocol),
        Expression::Equal(vec![protocol.number()]),
    ]
}

/// Source address: byte 12 of an IPv4 header, byte 8 of an IPv6 header.
const fn source_address(address: IpAddr) -> Expression {
    let (offset, length) = match address {
        IpAddr::V4(_) => (12, 4),
        IpAddr::V6(_) => (8, 16),
    };
    Expression::Payload {
        base: PayloadBase::Network,
        offset,
        length,
    }
}

/// Destination address: byte 16 of an IPv4 header, byte 24 of an IPv6 header.
const fn destination_address(address: IpAddr) -> Expression {
    let (offset, length) = match address {
        IpAddr::V4(_) => (16, 4),
        IpAddr::V6(_) => (24, 16),
    };
    Expression::Payload {
        base: PayloadBase::Network,
        offset,
        length,
    }
}

/// TCP, UDP and SCTP have the destination port at byte 2.
const DESTINATION_PORT: Expression = Expression::Payload {
    base: PayloadBase::Transport,
    offset: 2,
    length: 2,
};

/// Nothing for all ports.
fn ports(load: Expression, port: u16, end_port: u16) -> Vec<Expression> {
    let first = port.to_be_bytes().to_vec();
    match port {
        0 => Vec::new(),
        port if port == end_port => vec![load, Expression::Equal(first)],
        _ => vec![
            load,
            Expression::Between(first, end_port.to_be_bytes().to_vec()),
        ],
    }
}

/// The rule in expressions; nft's words for them in the comments.
pub fn expressions(rule: &Rule) -> Vec<Expression> {
    let mut list = Vec::new();
    match rule {
        // meta nfproto … ip daddr … meta l4proto … th dport … meta mark set …
        Rule::Mark(MarkRule { packets, mark }) => {
            list.extend(of_family(packets.address));
            list.push(destination_address(packets.address));
            list.push(Expression::Equal(address_bytes(packets.address)));
            list.extend(of_protocol(packets.protocol));
            list.extend(ports(DESTINATION_PORT, packets.port, packets.end_port));
            // A mark is a number of the host, in its byte order.
            list.push(Expression::Constant(mark.to_ne_bytes().to_vec()));
            list.push(Expression::MetaStore(MetaKey::Mark));
        }
        // meta nfproto … ct original ip daddr … ip saddr != … fib saddr type local accept
        Rule::Own(address) => {
            list.extend(of_family(*address));
            list.push(original_destination(*address));
            list.push(Expression::Equal(address_bytes(*address)));
            list.push(source_address(*address));
            list.push(Expression::Different(address_bytes(*address)));
            list.push(Expression::SourceAddressType);
            list.push(Expression::Equal(LOCAL.to_ne_bytes().to_vec()));
            list.push(Expression::Accept);
        }
        // meta nfproto … meta l4proto … ct original ip daddr … ct original proto-dst … ip daddr … th dport … goto …
        Rule::SourceNat {
            packets,
            real_server,
            list: chain,
        } => {
            let address = packets.address;
            list.extend(of_family(address));
            list.extend(of_protocol(packets.protocol));
            list.push(original_destination(address));
            list.push(Expression::Equal(address_bytes(address)));
            let port = Expression::Conntrack(ConntrackKey::DestinationPort);
            list.extend(ports(port, packets.port, packets.end_port));
            list.push(destination_address(address));
            match real_server {
                Some(real_server) => {
                    list.push(Expression::Equal(address_bytes(real_server.address)));
                    list.extend(ports(
                        DESTINATION_PORT,
                        real_server.port,
                        real_server.end_port,
                    ));
                }
                // Packets that IPVS has not taken, on a director that does not hold the address, and those that it
                // does not translate (DR).
                None => list.push(Expression::Different(address_bytes(address))),
            }
            list.push(Expression::Goto(chain.clone()));
        }
        // numgen random mod … 0 snat to …
        Rule::Source { address, rest } => {
            if *rest > 1 {
                list.push(Expression::RandomBelow(*rest));
                list.push(Expression::Equal(0_u32.to_ne_bytes().to_vec()));
            }
            list.push(Expression::Constant(address_bytes(*address)));
            list.push(Expression::SourceNat(family(*address)));
        }
    }
    list
}

const fn original_destination(address: IpAddr) -> Expression {
    Expression::Conntrack(match address {
        IpAddr::V4(_) => ConntrackKey::DestinationIpv4,
        IpAddr::V6(_) => ConntrackKey::DestinationIpv6,
    })
}

/// Comment of a rule: what it is, so that it can be read back and so that a person sees whose it is.
pub fn comment(rule: &Rule) -> String {
    let packets_text = |packets: &MarkMatch| {
        let MarkMatch {
            address,
            protocol,
            port,
            end_port,
        } = packets;
        format!("{address} {protocol} {port} {end_port}")
    };
    match rule {
        Rule::Mark(MarkRule { packets, mark }) => {
            format!("{PREFIX} {} mark {mark}", packets_text(packets))
        }
        Rule::Own(address) => format!("{PREFIX} own {address}"),
        Rule::SourceNat {
            packets,
            real_server: None,
            list,
        } => format!("{PREFIX} {} to {list}", packets_text(packets)),
        Rule::SourceNat {
            packets,
            real_server: Some(real_server),
            list,
        } => {
            let RealServerPorts {
                address,
                port,
                end_port,
            } = real_server;
            let packets = packets_text(packets);
            format!("{PREFIX} {packets} by {address} {port} {end_port} to {list}")
        }
        Rule::Source { address, rest } => format!("{PREFIX} source {address} {rest}"),
    }
}

fn parse_comment(text: &str) -> Option<Rule> {
    let words: Vec<&str> = text.split(' ').collect();
    Some(match words.as_slice() {
        [PREFIX, "own", address] => Rule::Own(address.parse().ok()?),
        [PREFIX, "source", address, rest] => Rule::Source {
            address: address.parse().ok()?,
            rest: rest.parse().ok()?,
        },
        [PREFIX, address, protocol, port, end_port, "mark", mark] => Rule::Mark(MarkRule {
            packets: parse_packets([*address, *protocol, *port, *end_port])?,
            mark: mark.parse().ok()?,
        }),
        [PREFIX, address, protocol, port, end_port, "to", list] => Rule::SourceNat {
            packets: parse_packets([*address, *protocol, *port, *end_port])?,
            real_server: None,
            list: (*list).to_owned(),
        },
        [
            PREFIX,
            address,
            protocol,
            port,
            end_port,
            "by",
            real_server,
            lowest,
            highest,
            "to",
            list,
        ] => Rule::SourceNat {
            packets: parse_packets([*address, *protocol, *port, *end_port])?,
            real_server: Some(RealServerPorts {
                address: real_server.parse().ok()?,
                port: lowest.parse().ok()?,
                end_port: highest.parse().ok()?,
            }),
            list: (*list).to_owned(),
        },
        _ => return None,
    })
}

fn parse_packets([address, protocol, port, end_port]: [&str; 4]) -> Option<MarkMatch> {
    Some(MarkMatch {
        address: address.parse().ok()?,
        protocol: match protocol {
            "TCP" => Protocol::TCP,
            "UDP" => Protocol::UDP,
            "SCTP" => Protocol::SCTP,
            _ => return None,
        },
        port: port.parse().ok()?,
        end_port: end_port.parse().ok()?,
    })
}

/// Comment as user data: type, length, text with its terminating zero.
pub fn user_data(rule: &Rule) -> Vec<u8> {
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
) -> Result<Option<Rule>, MessageError> {
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

    fn any_address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            any::<[u8; 4]>().prop_map(IpAddr::from),
            any::<[u8; 16]>().prop_map(IpAddr::from),
        ]
    }

    fn any_packets() -> impl Strategy<Value = MarkMatch> {
        let protocol = prop_oneof![
            Just(Protocol::TCP),
            Just(Protocol::UDP),
            Just(Protocol::SCTP)
        ];
        (any_address(), protocol, any::<u16>(), any::<u16>()).prop_map(
            |(address, protocol, port, other)| MarkMatch {
                address,
                protocol,
                port: port.min(other),
                end_port: port.max(other),
            },
        )
    }

    fn any_rule() -> impl Strategy<Value = Rule> {
        let mark = (any_packets(), 1..u32::MAX)
            .prop_map(|(packets, mark)| Rule::Mark(MarkRule { packets, mark }));
        let real_server = proptest::option::of(any_packets().prop_map(|packets| RealServerPorts {
            address: packets.address,
            port: packets.port,
            end_port: packets.end_port,
        }));
        let source_nat =
            (any_packets(), real_server, 0..9_u8).prop_map(|(packets, real_server, list)| {
                Rule::SourceNat {
                    // One of the family of what it translates.
                    real_server: real_server.filter(|real_server| {
                        real_server.address.is_ipv4() == packets.address.is_ipv4()
                    }),
                    packets,
                    list: format!("sources-{list}"),
                }
            });
        let source =
            (any_address(), 1..65_u32).prop_map(|(address, rest)| Rule::Source { address, rest });
        prop_oneof![mark, source_nat, source, any_address().prop_map(Rule::Own)]
    }

    fn written(rule: &Rule) -> Attributes {
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
        let rule = Rule::Mark(MarkRule {
            packets: MarkMatch {
                address: "192.0.2.1".parse().unwrap(),
                protocol: Protocol::TCP,
                port: 80,
                end_port: 80,
            },
            mark: 7,
        });
        assert_eq!(read(None, Some(&written(&rule))).unwrap(), None);
        assert_eq!(read(Some(&user_data(&rule)), None).unwrap(), None);
    }
}
