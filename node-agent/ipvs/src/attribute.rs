//! Attributes (`struct nlattr`): written flat into one buffer, read by borrowing.
//!
//! An attribute is u16 length with header, u16 type, payload, padding to four bytes
//! (`include/uapi/linux/netlink.h`). Numbers are in host order unless a name says be.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::uapi::{ATTRIBUTE_NESTED, ATTRIBUTE_TYPE_MASK};

/// Length of `struct nlattr`.
const HEADER_LENGTH: usize = 4;

/// Appends attributes to a buffer. Ten thousand destinations pass through here in one go, so each attribute
/// is one append of a fixed size.
#[derive(Debug)]
pub struct AttributeWriter<'buffer> {
    buffer: &'buffer mut Vec<u8>,
}

impl<'buffer> AttributeWriter<'buffer> {
    /// A writer at the end of `buffer`, which must be aligned to four bytes.
    pub fn new(buffer: &'buffer mut Vec<u8>) -> Self {
        Self { buffer }
    }

    /// u8.
    pub fn u8(&mut self, kind: u16, value: u8) {
        self.small(kind, 5, [value, 0, 0, 0]);
    }

    /// u16 in host order.
    pub fn u16(&mut self, kind: u16, value: u16) {
        let [a, b] = value.to_ne_bytes();
        self.small(kind, 6, [a, b, 0, 0]);
    }

    /// u16 in network order.
    pub fn be16(&mut self, kind: u16, value: u16) {
        let [a, b] = value.to_be_bytes();
        self.small(kind, 6, [a, b, 0, 0]);
    }

    /// u32 in host order.
    pub fn u32(&mut self, kind: u16, value: u32) {
        self.small(kind, 8, value.to_ne_bytes());
    }

    /// u32 in network order.
    pub fn be32(&mut self, kind: u16, value: u32) {
        self.small(kind, 8, value.to_be_bytes());
    }

    /// `union nf_inet_addr`: always 16 bytes, IPv4 in the first four.
    pub fn address(&mut self, kind: u16, address: IpAddr) {
        let octets = match address {
            IpAddr::V4(address) => {
                let [a, b, c, d] = address.octets();
                [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
            }
            IpAddr::V6(address) => address.octets(),
        };
        self.header(kind, 20);
        self.buffer.extend_from_slice(&octets);
    }

    /// Two u32 in host order, such as `struct ip_vs_flags`.
    pub fn u32_pair(&mut self, kind: u16, first: u32, second: u32) {
        self.header(kind, 12);
        self.buffer.extend_from_slice(&first.to_ne_bytes());
        self.buffer.extend_from_slice(&second.to_ne_bytes());
    }

    /// A string with its NUL. What does not fit into an attribute is cut; the kernel's own limit is 16 bytes and
    /// it refuses anything longer.
    pub fn string(&mut self, kind: u16, text: &str) {
        let longest = usize::from(u16::MAX) - HEADER_LENGTH - 1;
        let bytes = text.as_bytes();
        let bytes = bytes.get(..longest).unwrap_or(bytes);
        let length = u16::try_from(HEADER_LENGTH + bytes.len() + 1).unwrap_or(u16::MAX);
        self.header(kind, length);
        self.buffer.extend_from_slice(bytes);
        self.buffer.push(0);
        while !self.buffer.len().is_multiple_of(4) {
            self.buffer.push(0);
        }
    }

    /// A nested attribute with what `fill` writes.
    pub fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut AttributeWriter<'_>)) {
        let start = self.buffer.len();
        self.header(kind | ATTRIBUTE_NESTED, 0);
        fill(&mut AttributeWriter::new(self.buffer));
        let length = u16::try_from(self.buffer.len() - start).unwrap_or(u16::MAX);
        if let Some(field) = self.buffer.get_mut(start..start + 2) {
            field.copy_from_slice(&length.to_ne_bytes());
        }
    }

    fn header(&mut self, kind: u16, length: u16) {
        self.buffer.extend_from_slice(&header(kind, length));
    }

    fn small(&mut self, kind: u16, length: u16, payload: [u8; 4]) {
        let mut bytes = [0; 8];
        let (front, back) = bytes.split_at_mut(HEADER_LENGTH);
        front.copy_from_slice(&header(kind, length));
        back.copy_from_slice(&payload);
        self.buffer.extend_from_slice(&bytes);
    }
}

fn header(kind: u16, length: u16) -> [u8; HEADER_LENGTH] {
    let ([a, b], [c, d]) = (length.to_ne_bytes(), kind.to_ne_bytes());
    [a, b, c, d]
}

/// One attribute, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'bytes> {
    /// Type without the nested and byte order bits.
    pub kind: u16,
    /// Payload without padding.
    pub payload: &'bytes [u8],
}

/// An attribute whose length is impossible, or a payload that is not what its type says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttributeError {
    /// The length field is below four or beyond the end.
    #[error("an attribute claims {claimed} bytes where {remaining} remain")]
    Length {
        /// What the attribute says.
        claimed: usize,
        /// What is there.
        remaining: usize,
    },
    /// The payload is too short or not a string.
    #[error("attribute {kind} holds {length} bytes, which is not {expected}")]
    Payload {
        /// Type.
        kind: u16,
        /// Length of the payload.
        length: usize,
        /// What it should be.
        expected: &'static str,
    },
}

/// Iterator over attributes. After an error it ends.
#[derive(Clone, Debug)]
pub struct Attributes<'bytes> {
    remaining: &'bytes [u8],
}

impl<'bytes> Attributes<'bytes> {
    /// Attributes in `bytes`.
    pub const fn new(bytes: &'bytes [u8]) -> Self {
        Self { remaining: bytes }
    }
}

impl<'bytes> Iterator for Attributes<'bytes> {
    type Item = Result<Attribute<'bytes>, AttributeError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let ([a, b, c, d], _) = self.remaining.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([*a, *b]));
        let Some(payload) = self.remaining.get(HEADER_LENGTH..length) else {
            let remaining = self.remaining.len();
            self.remaining = &[];
            return Some(Err(AttributeError::Length {
                claimed: length,
                remaining,
            }));
        };
        // The padding of the last attribute may be missing.
        self.remaining = self
            .remaining
            .get(length.next_multiple_of(4)..)
            .unwrap_or(&[]);
        let kind = u16::from_ne_bytes([*c, *d]) & ATTRIBUTE_TYPE_MASK;
        Some(Ok(Attribute { kind, payload }))
    }
}

impl<'bytes> Attribute<'bytes> {
    /// The attributes inside.
    pub const fn nested(&self) -> Attributes<'bytes> {
        Attributes::new(self.payload)
    }

    /// u8.
    pub fn u8(&self) -> Result<u8, AttributeError> {
        self.payload
            .first()
            .copied()
            .ok_or_else(|| self.unfit("an u8"))
    }

    /// u16 in host order.
    #[inline]
    pub fn u16(&self) -> Result<u16, AttributeError> {
        self.chunk("an u16").map(u16::from_ne_bytes)
    }

    /// u16 in network order.
    #[inline]
    pub fn be16(&self) -> Result<u16, AttributeError> {
        self.chunk("a be16").map(u16::from_be_bytes)
    }

    /// u32 in host order.
    #[inline]
    pub fn u32(&self) -> Result<u32, AttributeError> {
        self.chunk("an u32").map(u32::from_ne_bytes)
    }

    /// u64 in host order.
    pub fn u64(&self) -> Result<u64, AttributeError> {
        self.chunk("an u64").map(u64::from_ne_bytes)
    }

    /// u32 in network order.
    pub fn be32(&self) -> Result<u32, AttributeError> {
        self.chunk("a be32").map(u32::from_be_bytes)
    }

    /// IPv4 address: the first four bytes of `union nf_inet_addr`.
    #[inline]
    pub fn ipv4(&self) -> Result<Ipv4Addr, AttributeError> {
        self.chunk("an IPv4 address").map(Ipv4Addr::from_octets)
    }

    /// IPv6 address.
    pub fn ipv6(&self) -> Result<Ipv6Addr, AttributeError> {
        self.chunk("an IPv6 address").map(Ipv6Addr::from_octets)
    }

    /// A string; ends at the first NUL or at the end.
    pub fn string(&self) -> Result<&'bytes str, AttributeError> {
        let bytes = self.payload.split(|byte| *byte == 0).next().unwrap_or(&[]);
        std::str::from_utf8(bytes).map_err(|_| self.unfit("a string"))
    }

    #[inline]
    fn chunk<const LENGTH: usize>(
        &self,
        expected: &'static str,
    ) -> Result<[u8; LENGTH], AttributeError> {
        self.payload
            .first_chunk::<LENGTH>()
            .copied()
            .ok_or_else(|| self.unfit(expected))
    }

    #[cold]
    fn unfit(&self, expected: &'static str) -> AttributeError {
        AttributeError::Payload {
            kind: self.kind,
            length: self.payload.len(),
            expected,
        }
    }
}
