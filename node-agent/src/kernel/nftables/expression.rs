//! The few expressions that our rules consist of, and their bytes.

use super::super::message::{AttributeWriter, Attributes, MessageError};

/// `NFT_REG_1`.
const REGISTER: u32 = 1;
/// `NFTA_LIST_ELEM`, `NFTA_EXPR_NAME`, `NFTA_EXPR_DATA`.
const ELEMENT: u16 = 1;
const NAME: u16 = 1;
const DATA: u16 = 2;
/// `NFTA_DATA_VALUE`, `NFTA_DATA_VERDICT`.
const VALUE: u16 = 1;
const VERDICT: u16 = 2;
/// `NFT_REG_VERDICT`.
const VERDICT_REGISTER: u32 = 0;
/// `NFTA_VERDICT_CODE`, `NFTA_VERDICT_CHAIN`.
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
/// `NF_ACCEPT`.
const ACCEPT: i32 = 1;
/// `NFT_GOTO`.
const GOTO: i32 = -4;
/// `NFT_FIB_RESULT_ADDRTYPE`, `NFTA_FIB_F_SADDR`.
const FIB_ADDRESS_TYPE: u32 = 3;
const FIB_SOURCE: u32 = 1;
/// `NFT_NG_RANDOM`.
const NUMBER_RANDOM: u32 = 1;
/// `NFT_NAT_SNAT`, `NF_NAT_RANGE_MAP_IPS`.
const NAT_SOURCE: u32 = 0;
const NAT_ADDRESSES: u32 = 1;
/// `IP_CT_DIR_ORIGINAL`.
const ORIGINAL: u8 = 0;

/// Keys of the meta expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetaKey {
    /// `NFT_META_MARK`.
    Mark,
    /// `NFT_META_NFPROTO`.
    NetworkProtocol,
    /// `NFT_META_L4PROTO`.
    TransportProtocol,
}

impl MetaKey {
    const fn number(self) -> u32 {
        match self {
            Self::Mark => 3,
            Self::NetworkProtocol => 15,
            Self::TransportProtocol => 16,
        }
    }

    const fn from_number(number: u32) -> Option<Self> {
        match number {
            3 => Some(Self::Mark),
            15 => Some(Self::NetworkProtocol),
            16 => Some(Self::TransportProtocol),
            _ => None,
        }
    }
}

/// What of a connection is loaded, as its first packet had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConntrackKey {
    /// `NFT_CT_PROTO_DST`: destination port.
    DestinationPort,
    /// `NFT_CT_DST_IP`.
    DestinationIpv4,
    /// `NFT_CT_DST_IP6`.
    DestinationIpv6,
}

impl ConntrackKey {
    const fn number(self) -> u32 {
        match self {
            Self::DestinationPort => 12,
            Self::DestinationIpv4 => 20,
            Self::DestinationIpv6 => 22,
        }
    }

    const fn from_number(number: u32) -> Option<Self> {
        match number {
            12 => Some(Self::DestinationPort),
            20 => Some(Self::DestinationIpv4),
            22 => Some(Self::DestinationIpv6),
            _ => None,
        }
    }
}

/// Where a payload expression reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadBase {
    /// `NFT_PAYLOAD_NETWORK_HEADER`.
    Network,
    /// `NFT_PAYLOAD_TRANSPORT_HEADER`.
    Transport,
}

/// One expression; data always in register 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    /// Load a property of the packet.
    MetaLoad(MetaKey),
    /// Store the register as a property of the packet.
    MetaStore(MetaKey),
    /// Load bytes of a header.
    Payload {
        /// Which header.
        base: PayloadBase,
        /// First byte.
        offset: u32,
        /// Bytes.
        length: u32,
    },
    /// Go on only if the register equals these bytes.
    Equal(Vec<u8>),
    /// Go on only if the register differs from these bytes.
    Different(Vec<u8>),
    /// Go on only if the register lies between these, inclusive.
    Between(Vec<u8>, Vec<u8>),
    /// Load a constant.
    Constant(Vec<u8>),
    /// Load what conntrack knows.
    Conntrack(ConntrackKey),
    /// Load the type of the source address (`RTN_…`), as the node's routes have it.
    SourceAddressType,
    /// Load a random number below this.
    RandomBelow(u32),
    /// End the chain without a verdict of ours.
    Accept,
    /// Go on in another chain and do not come back.
    Goto(String),
    /// Translate the source to the address in the register; the family is an `NFPROTO_…`.
    SourceNat(u8),
}

impl Expression {
    const fn name(&self) -> &'static str {
        match self {
            Self::MetaLoad(_) | Self::MetaStore(_) => "meta",
            Self::Payload { .. } => "payload",
            Self::Equal(_) | Self::Different(_) => "cmp",
            Self::Between(..) => "range",
            Self::Constant(_) | Self::Accept | Self::Goto(_) => "immediate",
            Self::Conntrack(_) => "ct",
            Self::SourceAddressType => "fib",
            Self::RandomBelow(_) => "numgen",
            Self::SourceNat(_) => "nat",
        }
    }

    fn data(&self) -> Result<AttributeWriter, MessageError> {
        let mut data = AttributeWriter::new();
        match self {
            Self::MetaLoad(key) => {
                data.u32_network(1, REGISTER)?
                    .u32_network(2, key.number())?;
            }
            Self::MetaStore(key) => {
                data.u32_network(2, key.number())?
                    .u32_network(3, REGISTER)?;
            }
            Self::Payload {
                base,
                offset,
                length,
            } => {
                let base = match base {
                    PayloadBase::Network => 1,
                    PayloadBase::Transport => 2,
                };
                data.u32_network(1, REGISTER)?
                    .u32_network(2, base)?
                    .u32_network(3, *offset)?
                    .u32_network(4, *length)?;
            }
            Self::Equal(bytes) | Self::Different(bytes) => {
                let operator = u32::from(matches!(self, Self::Different(_)));
                data.u32_network(1, REGISTER)?
                    .u32_network(2, operator)?
                    .nest(3, &value(bytes)?)?;
            }
            Self::Between(first, last) => {
                data.u32_network(1, REGISTER)?
                    .u32_network(2, 0)?
                    .nest(3, &value(first)?)?
                    .nest(4, &value(last)?)?;
            }
            Self::Constant(bytes) => {
                data.u32_network(1, REGISTER)?.nest(2, &value(bytes)?)?;
            }
            Self::Conntrack(key) => {
                data.u32_network(1, REGISTER)?
                    .u32_network(2, key.number())?
                    .u8(3, ORIGINAL)?;
            }
            Self::SourceAddressType => {
                data.u32_network(1, REGISTER)?
                    .u32_network(2, FIB_ADDRESS_TYPE)?
                    .u32_network(3, FIB_SOURCE)?;
            }
            Self::RandomBelow(modulus) => {
                data.u32_network(1, REGISTER)?
                    .u32_network(2, *modulus)?
                    .u32_network(3, NUMBER_RANDOM)?
                    .u32_network(4, 0)?;
            }
            Self::Accept => {
                data.u32_network(1, VERDICT_REGISTER)?
                    .nest(2, &verdict(ACCEPT, None)?)?;
            }
            Self::Goto(chain) => {
                data.u32_network(1, VERDICT_REGISTER)?
                    .nest(2, &verdict(GOTO, Some(chain))?)?;
            }
            Self::SourceNat(family) => {
                data.u32_network(1, NAT_SOURCE)?
                    .u32_network(2, u32::from(*family))?
                    .u32_network(3, REGISTER)?;
            }
        }
        Ok(data)
    }

    /// An expression read back; `None` for every expression that we never write.
    fn read(name: &str, data: &Attributes) -> Result<Option<Self>, MessageError> {
        let register = |attribute| Ok(data.u32_network(attribute)? == Some(REGISTER));
        let equals = |attribute| Ok(data.u32_network(attribute)? == Some(0));
        let bytes = |attribute| -> Result<Option<Vec<u8>>, MessageError> {
            Ok(data
                .nested(attribute)?
                .and_then(|inner| inner.get(VALUE).map(<[u8]>::to_vec)))
        };
        let number = |attribute| data.u32_network(attribute);
        Ok(match name {
            "meta" => match number(2)?.and_then(MetaKey::from_number) {
                Some(key) if register(1)? && data.get(3).is_none() => Some(Self::MetaLoad(key)),
                Some(key) if register(3)? && data.get(1).is_none() => Some(Self::MetaStore(key)),
                _ => None,
            },
            "payload" if register(1)? => {
                let base = match number(2)? {
                    Some(1) => Some(PayloadBase::Network),
                    Some(2) => Some(PayloadBase::Transport),
                    _ => None,
                };
                match (base, number(3)?, number(4)?) {
                    (Some(base), Some(offset), Some(length)) => Some(Self::Payload {
                        base,
                        offset,
                        length,
                    }),
                    _ => None,
                }
            }
            "cmp" if register(1)? => match number(2)? {
                Some(0) => bytes(3)?.map(Self::Equal),
                Some(1) => bytes(3)?.map(Self::Different),
                _ => None,
            },
            "range" if register(1)? && equals(2)? => match (bytes(3)?, bytes(4)?) {
                (Some(first), Some(last)) => Some(Self::Between(first, last)),
                _ => None,
            },
            "immediate" if register(1)? => bytes(2)?.map(Self::Constant),
            "immediate" if number(1)? == Some(VERDICT_REGISTER) => read_verdict(data)?,
            "ct" if register(1)? && data.u8(3)? == Some(ORIGINAL) => number(2)?
                .and_then(ConntrackKey::from_number)
                .map(Self::Conntrack),
            "fib"
                if register(1)?
                    && number(2)? == Some(FIB_ADDRESS_TYPE)
                    && number(3)? == Some(FIB_SOURCE) =>
            {
                Some(Self::SourceAddressType)
            }
            "numgen"
                if register(1)?
                    && number(3)? == Some(NUMBER_RANDOM)
                    && number(4)?.unwrap_or(0) == 0 =>
            {
                number(2)?.map(Self::RandomBelow)
            }
            "nat" if is_source_nat(data)? => number(2)?
                .and_then(|family| u8::try_from(family).ok())
                .map(Self::SourceNat),
            _ => None,
        })
    }
}

fn value(bytes: &[u8]) -> Result<AttributeWriter, MessageError> {
    let mut writer = AttributeWriter::new();
    writer.bytes(VALUE, bytes)?;
    Ok(writer)
}

fn verdict(code: i32, chain: Option<&str>) -> Result<AttributeWriter, MessageError> {
    let mut verdict = AttributeWriter::new();
    verdict.bytes(VERDICT_CODE, &code.to_be_bytes())?;
    if let Some(chain) = chain {
        verdict.text(VERDICT_CHAIN, chain)?;
    }
    let mut writer = AttributeWriter::new();
    writer.nest(VERDICT, &verdict)?;
    Ok(writer)
}

fn read_verdict(data: &Attributes) -> Result<Option<Expression>, MessageError> {
    let Some(verdict) = data
        .nested(2)?
        .and_then(|inner| inner.nested(VERDICT).transpose())
        .transpose()?
    else {
        return Ok(None);
    };
    let code = verdict.get(VERDICT_CODE);
    let is = |wanted: i32| code == Some(wanted.to_be_bytes().as_slice());
    Ok(match verdict.text(VERDICT_CHAIN) {
        None if is(ACCEPT) => Some(Expression::Accept),
        Some(chain) if is(GOTO) => Some(Expression::Goto(chain)),
        _ => None,
    })
}

/// To one address in register 1, ports as the kernel finds them. It adds the upper end and the flag by itself.
fn is_source_nat(data: &Attributes) -> Result<bool, MessageError> {
    let is_ours = |attribute, wanted| -> Result<bool, MessageError> {
        Ok(data
            .u32_network(attribute)?
            .is_none_or(|found| found == wanted))
    };
    Ok(data.u32_network(1)? == Some(NAT_SOURCE)
        && data.u32_network(3)? == Some(REGISTER)
        && is_ours(4, REGISTER)?
        && data.get(5).is_none()
        && data.get(6).is_none()
        && is_ours(7, NAT_ADDRESSES)?)
}

/// Expressions as the payload of `NFTA_RULE_EXPRESSIONS`.
pub fn write(expressions: &[Expression]) -> Result<AttributeWriter, MessageError> {
    let mut list = AttributeWriter::new();
    for expression in expressions {
        let mut element = AttributeWriter::new();
        element
            .text(NAME, expression.name())?
            .nest(DATA, &expression.data()?)?;
        list.nest(ELEMENT, &element)?;
    }
    Ok(list)
}

/// Reads the payload of `NFTA_RULE_EXPRESSIONS`; `None` when it holds an expression that we never write.
pub fn read(list: &Attributes) -> Result<Option<Vec<Expression>>, MessageError> {
    let mut expressions = Vec::new();
    for (_, element) in list.iter() {
        let element = Attributes::read(element)?;
        let expression = match (element.text(NAME), element.nested(DATA)?) {
            (Some(name), Some(data)) => Expression::read(&name, &data)?,
            _ => None,
        };
        match expression {
            Some(expression) => expressions.push(expression),
            None => return Ok(None),
        }
    }
    Ok(Some(expressions))
}
