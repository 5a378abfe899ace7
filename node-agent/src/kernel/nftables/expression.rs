//! The few expressions that mark rules consist of, and their bytes.

use super::super::message::{AttributeWriter, Attributes, MessageError};

/// `NFT_REG_1`.
const REGISTER: u32 = 1;
/// `NFTA_LIST_ELEM`, `NFTA_EXPR_NAME`, `NFTA_EXPR_DATA`.
const ELEMENT: u16 = 1;
const NAME: u16 = 1;
const DATA: u16 = 2;
/// `NFTA_DATA_VALUE`.
const VALUE: u16 = 1;

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

/// Where a payload expression reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadBase {
    /// `NFT_PAYLOAD_NETWORK_HEADER`.
    Network,
    /// `NFT_PAYLOAD_TRANSPORT_HEADER`.
    Transport,
}

/// One expression, always on register 1.
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
    /// Go on only if the register lies between these, inclusive.
    Between(Vec<u8>, Vec<u8>),
    /// Load a constant.
    Constant(Vec<u8>),
}

impl Expression {
    const fn name(&self) -> &'static str {
        match self {
            Self::MetaLoad(_) | Self::MetaStore(_) => "meta",
            Self::Payload { .. } => "payload",
            Self::Equal(_) => "cmp",
            Self::Between(..) => "range",
            Self::Constant(_) => "immediate",
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
            Self::Equal(bytes) => {
                data.u32_network(1, REGISTER)?
                    .u32_network(2, 0)?
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
            "cmp" if register(1)? && equals(2)? => bytes(3)?.map(Self::Equal),
            "range" if register(1)? && equals(2)? => match (bytes(3)?, bytes(4)?) {
                (Some(first), Some(last)) => Some(Self::Between(first, last)),
                _ => None,
            },
            "immediate" if register(1)? => bytes(2)?.map(Self::Constant),
            _ => None,
        })
    }
}

fn value(bytes: &[u8]) -> Result<AttributeWriter, MessageError> {
    let mut writer = AttributeWriter::new();
    writer.bytes(VALUE, bytes)?;
    Ok(writer)
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
