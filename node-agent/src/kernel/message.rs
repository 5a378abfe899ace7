//! Netlink messages as bytes: headers and attributes, in neli's codec.
//!
//! The same two shapes serve rtnetlink, generic netlink and nfnetlink: a family header of fixed
//! size, then attributes, which may nest. Reading never indexes and never trusts a length.

use std::io::Cursor;
use std::net::IpAddr;

use neli::consts::nl::NlmF;
use neli::genl::{AttrTypeBuilder, Nlattr, NlattrBuilder};
use neli::nl::{NlPayload, NlmsghdrBuilder};
use neli::types::{Buffer, GenlBuffer};
use neli::{FromBytesWithInput, ToBytes};

/// `AF_INET` as the byte in family headers.
pub const FAMILY_IPV4: u8 = 2;
/// `AF_INET6` likewise.
pub const FAMILY_IPV6: u8 = 10;

/// A message that cannot be written or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// An attribute or message exceeds what its length field can say.
    #[error("attribute {attribute} of {bytes} bytes does not fit a netlink attribute")]
    TooLong {
        /// Attribute type.
        attribute: u16,
        /// Bytes of payload.
        bytes: usize,
    },
    /// The encoder refused.
    #[error("encoding a netlink message: {0}")]
    Encode(String),
    /// Bytes that are not attributes.
    #[error("decoding netlink attributes: {0}")]
    Decode(String),
    /// An attribute that the kernel always sends is not there.
    #[error("netlink attribute {attribute} is missing")]
    Missing {
        /// Attribute type.
        attribute: u16,
    },
    /// An attribute with a payload of the wrong size.
    #[error("netlink attribute {attribute} has {bytes} bytes")]
    WrongSize {
        /// Attribute type.
        attribute: u16,
        /// Bytes of payload.
        bytes: usize,
    },
}

/// Attributes being written.
#[derive(Clone, Debug, Default)]
pub struct AttributeWriter {
    bytes: Vec<u8>,
}

impl AttributeWriter {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of an attribute's payload at most: its length field has 16 bits and counts 4 bytes of header.
    const MAXIMUM_PAYLOAD: usize = u16::MAX as usize - 4;

    fn append(&mut self, attribute: u16, payload: &[u8], nested: bool) -> Result<(), MessageError> {
        if payload.len() > Self::MAXIMUM_PAYLOAD {
            return Err(MessageError::TooLong {
                attribute,
                bytes: payload.len(),
            });
        }
        let encode = |error: &dyn std::fmt::Display| MessageError::Encode(error.to_string());
        let attribute_type = AttrTypeBuilder::default()
            .nla_type(attribute)
            .nla_nested(nested)
            .build()
            .map_err(|error| encode(&error))?;
        let attribute: Nlattr<u16, Buffer> = NlattrBuilder::default()
            .nla_type(attribute_type)
            .nla_payload(Buffer::from(payload))
            .build()
            .map_err(|error| encode(&error))?;
        let mut cursor = Cursor::new(std::mem::take(&mut self.bytes));
        cursor.set_position(cursor.get_ref().len() as u64);
        attribute
            .to_bytes(&mut cursor)
            .map_err(|error| encode(&error))?;
        self.bytes = cursor.into_inner();
        Ok(())
    }

    /// Appends bytes as they are.
    pub fn bytes(&mut self, attribute: u16, payload: &[u8]) -> Result<&mut Self, MessageError> {
        self.append(attribute, payload, false)?;
        Ok(self)
    }

    /// Appends one byte.
    pub fn u8(&mut self, attribute: u16, value: u8) -> Result<&mut Self, MessageError> {
        self.bytes(attribute, &[value])
    }

    /// Appends a number in network byte order.
    pub fn u16_network(&mut self, attribute: u16, value: u16) -> Result<&mut Self, MessageError> {
        self.bytes(attribute, &value.to_be_bytes())
    }

    /// Appends a number in host byte order.
    pub fn u32_host(&mut self, attribute: u16, value: u32) -> Result<&mut Self, MessageError> {
        self.bytes(attribute, &value.to_ne_bytes())
    }

    /// Appends a number in network byte order.
    pub fn u32_network(&mut self, attribute: u16, value: u32) -> Result<&mut Self, MessageError> {
        self.bytes(attribute, &value.to_be_bytes())
    }

    /// Appends text with its terminating zero.
    pub fn text(&mut self, attribute: u16, text: &str) -> Result<&mut Self, MessageError> {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(attribute, &bytes)
    }

    /// Appends an address: 4 or 16 bytes.
    pub fn address(&mut self, attribute: u16, address: IpAddr) -> Result<&mut Self, MessageError> {
        self.bytes(attribute, &address_bytes(address))
    }

    /// Appends nested attributes.
    pub fn nest(
        &mut self,
        attribute: u16,
        inner: &AttributeWriter,
    ) -> Result<&mut Self, MessageError> {
        self.append(attribute, &inner.bytes, true)?;
        Ok(self)
    }

    /// What was written.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Octets of an address.
pub fn address_bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Address of 4 or 16 octets.
pub fn address_from(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

/// Attributes that were read. Of repeated ones `get` gives the first.
#[derive(Clone, Debug)]
pub struct Attributes {
    list: GenlBuffer<u16, Buffer>,
}

impl Attributes {
    /// Reads attributes to the end of `bytes`.
    pub fn read(bytes: &[u8]) -> Result<Self, MessageError> {
        let list = GenlBuffer::from_bytes_with_input(&mut Cursor::new(bytes), bytes.len())
            .map_err(|error| MessageError::Decode(error.to_string()))?;
        Ok(Self { list })
    }

    /// Types (without the flags for nesting and byte order) and payloads in order.
    pub fn iter(&self) -> impl Iterator<Item = (u16, &[u8])> {
        self.list.as_ref().iter().map(|attribute| {
            (
                *attribute.nla_type().nla_type(),
                attribute.nla_payload().as_ref(),
            )
        })
    }

    /// Payload of an attribute.
    pub fn get(&self, attribute: u16) -> Option<&[u8]> {
        self.iter()
            .find(|(type_, _)| *type_ == attribute)
            .map(|(_, payload)| payload)
    }

    /// Payload of an attribute that must be there.
    pub fn require(&self, attribute: u16) -> Result<&[u8], MessageError> {
        self.get(attribute)
            .ok_or(MessageError::Missing { attribute })
    }

    fn array<const N: usize>(&self, attribute: u16) -> Result<Option<[u8; N]>, MessageError> {
        self.get(attribute)
            .map(|payload| {
                payload.try_into().map_err(|_| MessageError::WrongSize {
                    attribute,
                    bytes: payload.len(),
                })
            })
            .transpose()
    }

    /// One byte.
    pub fn u8(&self, attribute: u16) -> Result<Option<u8>, MessageError> {
        Ok(self.array::<1>(attribute)?.map(|[byte]| byte))
    }

    /// Number in host byte order.
    pub fn u16_host(&self, attribute: u16) -> Result<Option<u16>, MessageError> {
        Ok(self.array(attribute)?.map(u16::from_ne_bytes))
    }

    /// Number in network byte order.
    pub fn u16_network(&self, attribute: u16) -> Result<Option<u16>, MessageError> {
        Ok(self.array(attribute)?.map(u16::from_be_bytes))
    }

    /// Number in host byte order.
    pub fn u32_host(&self, attribute: u16) -> Result<Option<u32>, MessageError> {
        Ok(self.array(attribute)?.map(u32::from_ne_bytes))
    }

    /// Number in network byte order.
    pub fn u32_network(&self, attribute: u16) -> Result<Option<u32>, MessageError> {
        Ok(self.array(attribute)?.map(u32::from_be_bytes))
    }

    /// Text up to its terminating zero; bytes that are not UTF-8 are replaced.
    pub fn text(&self, attribute: u16) -> Option<String> {
        self.get(attribute).map(|payload| {
            let end = payload
                .iter()
                .position(|byte| *byte == 0)
                .unwrap_or(payload.len());
            String::from_utf8_lossy(payload.get(..end).unwrap_or_default()).into_owned()
        })
    }

    /// Address of either family.
    pub fn address(&self, attribute: u16) -> Result<Option<IpAddr>, MessageError> {
        self.get(attribute)
            .map(|payload| {
                address_from(payload).ok_or(MessageError::WrongSize {
                    attribute,
                    bytes: payload.len(),
                })
            })
            .transpose()
    }

    /// Nested attributes.
    pub fn nested(&self, attribute: u16) -> Result<Option<Attributes>, MessageError> {
        self.get(attribute).map(Self::read).transpose()
    }
}

/// A request: `body` is the family header followed by attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `nlmsg_type`.
    pub message_type: u16,
    /// `nlmsg_flags`; `NLM_F_REQUEST` is added.
    pub flags: NlmF,
    /// Family header and attributes.
    pub body: Vec<u8>,
}

impl Request {
    /// A request of a family header and attributes. Family headers are multiples of 4 bytes.
    pub fn new(
        message_type: u16,
        flags: NlmF,
        header: &[u8],
        attributes: &AttributeWriter,
    ) -> Self {
        let mut body = header.to_vec();
        body.extend_from_slice(attributes.as_bytes());
        Self {
            message_type,
            flags,
            body,
        }
    }

    /// The message with its netlink header, appended to `out`.
    pub fn encode(&self, sequence: u32, out: &mut Vec<u8>) -> Result<(), MessageError> {
        let encode = |error: &dyn std::fmt::Display| MessageError::Encode(error.to_string());
        let message = NlmsghdrBuilder::default()
            .nl_type(self.message_type)
            .nl_flags(NlmF::REQUEST | self.flags)
            .nl_seq(sequence)
            .nl_pid(0)
            .nl_payload(NlPayload::<u16, Buffer>::Payload(Buffer::from(
                self.body.as_slice(),
            )))
            .build()
            .map_err(|error| encode(&error))?;
        let mut cursor = Cursor::new(std::mem::take(out));
        cursor.set_position(cursor.get_ref().len() as u64);
        message
            .to_bytes(&mut cursor)
            .map_err(|error| encode(&error))?;
        *out = cursor.into_inner();
        Ok(())
    }
}

/// One message of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// `nlmsg_type`.
    pub message_type: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// `nlmsg_seq`.
    pub sequence: u32,
    /// `nlmsg_pid`: of a notification the netlink port of who caused it, 0 = the kernel.
    pub port: u32,
    /// Everything after the netlink header.
    pub body: &'a [u8],
}

/// Bytes of `struct nlmsghdr`.
const HEADER_BYTES: usize = 16;

/// Splits what one receive gave into messages; `None` when the bytes are not whole messages.
pub fn split_replies(mut bytes: &[u8]) -> Option<Vec<Reply<'_>>> {
    let mut replies = Vec::new();
    while !bytes.is_empty() {
        let length = u32::from_ne_bytes(bytes.get(0..4)?.try_into().ok()?) as usize;
        if length < HEADER_BYTES {
            return None;
        }
        replies.push(Reply {
            message_type: u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?),
            flags: u16::from_ne_bytes(bytes.get(6..8)?.try_into().ok()?),
            sequence: u32::from_ne_bytes(bytes.get(8..12)?.try_into().ok()?),
            port: u32::from_ne_bytes(bytes.get(12..16)?.try_into().ok()?),
            body: bytes.get(HEADER_BYTES..length)?,
        });
        let padded = length.checked_next_multiple_of(4)?;
        bytes = bytes.get(padded..).unwrap_or_default();
    }
    Some(replies)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn attributes_survive_a_round_trip_with_padding_and_nesting() {
        let mut inner = AttributeWriter::new();
        inner.u8(1, 7).unwrap().text(2, "dummy").unwrap();
        let mut writer = AttributeWriter::new();
        writer
            .u32_host(3, 42)
            .unwrap()
            .nest(4, &inner)
            .unwrap()
            .address(5, "2001:db8::1".parse().unwrap())
            .unwrap();
        let attributes = Attributes::read(writer.as_bytes()).unwrap();
        assert_eq!(attributes.u32_host(3).unwrap(), Some(42));
        let nested = attributes.nested(4).unwrap().unwrap();
        assert_eq!(nested.u8(1).unwrap(), Some(7));
        assert_eq!(nested.text(2).as_deref(), Some("dummy"));
        assert_eq!(
            attributes.address(5).unwrap(),
            Some("2001:db8::1".parse().unwrap())
        );
        assert_eq!(
            nested.u32_host(1),
            Err(MessageError::WrongSize {
                attribute: 1,
                bytes: 1
            })
        );
    }

    #[test]
    fn a_request_is_split_again_into_what_it_was() {
        let mut writer = AttributeWriter::new();
        writer.text(1, "a").unwrap();
        let request = Request::new(20, NlmF::ACK, &[2, 0, 0, 0], &writer);
        let mut bytes = Vec::new();
        request.encode(9, &mut bytes).unwrap();
        request.encode(10, &mut bytes).unwrap();
        let replies = split_replies(&bytes).unwrap();
        assert_eq!(replies.len(), 2);
        assert_eq!((replies[1].message_type, replies[1].sequence), (20, 10));
        assert_eq!(replies[0].body, request.body);
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = split_replies(&bytes);
            if let Ok(attributes) = Attributes::read(&bytes) {
                for (type_, _) in attributes.iter() {
                    let _ = attributes.u32_host(type_);
                    let _ = attributes.nested(type_);
                    let _ = attributes.text(type_);
                }
            }
        }
    }
}
