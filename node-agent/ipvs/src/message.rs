//! Messages (`struct nlmsghdr`, `struct genlmsghdr`): framing and the kernel's errors.

use neli::consts::nl::{NlmF, Nlmsg};

use crate::attribute::{AttributeWriter, Attributes};
use crate::uapi::{ERROR_ATTRIBUTE_MESSAGE, FAMILY_VERSION, TYPE_FIRST_FAMILY};

/// Length of `struct nlmsghdr`.
pub const HEADER_LENGTH: usize = 16;
/// Length of `struct genlmsghdr`.
pub const GENERIC_HEADER_LENGTH: usize = 4;

/// What a request needs besides its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// `nlmsg_type`: number the kernel gave to the family IPVS.
    pub family: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// `nlmsg_seq`: by it answers find their request.
    pub sequence: u32,
}

/// Appends one message with the attributes that `fill` writes.
pub fn write_message(
    buffer: &mut Vec<u8>,
    envelope: Envelope,
    command: u8,
    fill: impl FnOnce(&mut AttributeWriter<'_>),
) {
    let start = buffer.len();
    let [k0, k1] = envelope.family.to_ne_bytes();
    let [f0, f1] = envelope.flags.to_ne_bytes();
    let [s0, s1, s2, s3] = envelope.sequence.to_ne_bytes();
    // Length is filled in below; the port is 0: the kernel knows ours.
    let header: [u8; HEADER_LENGTH + GENERIC_HEADER_LENGTH] = [
        0,
        0,
        0,
        0,
        k0,
        k1,
        f0,
        f1,
        s0,
        s1,
        s2,
        s3,
        0,
        0,
        0,
        0,
        command,
        FAMILY_VERSION,
        0,
        0,
    ];
    buffer.extend_from_slice(&header);
    fill(&mut AttributeWriter::new(buffer));
    let length = u32::try_from(buffer.len() - start).unwrap_or(u32::MAX);
    if let Some(field) = buffer.get_mut(start..start + 4) {
        field.copy_from_slice(&length.to_ne_bytes());
    }
}

/// Sets a flag of the message that starts at `start`.
pub fn add_flag(buffer: &mut [u8], start: usize, flag: u16) {
    if let Some(field) = buffer.get_mut(start + 6..start + 8) {
        let mut bytes = [0; 2];
        bytes.copy_from_slice(field);
        field.copy_from_slice(&(u16::from_ne_bytes(bytes) | flag).to_ne_bytes());
    }
}

/// One received message, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'bytes> {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// `nlmsg_seq`.
    pub sequence: u32,
    /// What follows the header.
    pub payload: &'bytes [u8],
}

/// A message whose length is impossible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The length field is below sixteen or beyond the end.
    #[error("a message claims {claimed} bytes where {remaining} remain")]
    Length {
        /// What the message says.
        claimed: usize,
        /// What is there.
        remaining: usize,
    },
    /// Too short for what its type says.
    #[error("a message of type {kind} has only {length} bytes of payload")]
    Payload {
        /// Type.
        kind: u16,
        /// Length of the payload.
        length: usize,
    },
}

/// Iterator over the messages of one datagram. After an error it ends.
#[derive(Clone, Debug)]
pub struct Messages<'bytes> {
    remaining: &'bytes [u8],
}

impl<'bytes> Messages<'bytes> {
    /// Messages in `bytes`.
    pub const fn new(bytes: &'bytes [u8]) -> Self {
        Self { remaining: bytes }
    }
}

impl<'bytes> Iterator for Messages<'bytes> {
    type Item = Result<Message<'bytes>, MessageError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.remaining.is_empty() {
            return None;
        }
        let remaining = self.remaining.len();
        let Some((header, _)) = self.remaining.split_first_chunk::<HEADER_LENGTH>() else {
            self.remaining = &[];
            return Some(Err(MessageError::Length {
                claimed: HEADER_LENGTH,
                remaining,
            }));
        };
        let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, _, _, _, _] = *header;
        let length = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
        let Some(payload) = self.remaining.get(HEADER_LENGTH..length) else {
            self.remaining = &[];
            return Some(Err(MessageError::Length {
                claimed: length,
                remaining,
            }));
        };
        self.remaining = self
            .remaining
            .get(length.next_multiple_of(4)..)
            .unwrap_or(&[]);
        Some(Ok(Message {
            kind: u16::from_ne_bytes([k0, k1]),
            flags: u16::from_ne_bytes([f0, f1]),
            sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
            payload,
        }))
    }
}

/// What a message is, by its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content<'bytes> {
    /// Of the family: command and attributes.
    Data {
        /// `genlmsghdr.cmd`.
        command: u8,
        /// Attributes.
        attributes: &'bytes [u8],
    },
    /// End of a dump. Not 0 when the dump ended by an error.
    Done {
        /// Error number, 0 or positive.
        errno: i32,
    },
    /// `NLMSG_ERROR` with number 0.
    Acknowledged,
    /// `NLMSG_ERROR`.
    Refused {
        /// Error number, positive.
        errno: i32,
        /// Text of the extended acknowledgement, when the kernel gave one.
        message: Option<String>,
    },
    /// `NLMSG_NOOP`, or a control type that does not exist today: nothing to do.
    Ignored,
    /// `NLMSG_OVERRUN`: data was lost.
    Overrun,
}

impl<'bytes> Message<'bytes> {
    /// Interprets the payload.
    pub fn content(&self) -> Result<Content<'bytes>, MessageError> {
        match Nlmsg::from(self.kind) {
            Nlmsg::Noop => Ok(Content::Ignored),
            Nlmsg::Done => Ok(Content::Done {
                errno: self.error_number().unwrap_or(0),
            }),
            Nlmsg::Error => match self.error_number() {
                None => Err(self.too_short()),
                Some(0) => Ok(Content::Acknowledged),
                Some(errno) => Ok(Content::Refused {
                    errno,
                    message: self.extended_message(),
                }),
            },
            Nlmsg::Overrun => Ok(Content::Overrun),
            Nlmsg::UnrecognizedConst(kind) if kind < TYPE_FIRST_FAMILY => Ok(Content::Ignored),
            Nlmsg::UnrecognizedConst(_) => {
                let Some(([command, _, _, _], attributes)) = self.payload.split_first_chunk::<4>()
                else {
                    return Err(self.too_short());
                };
                Ok(Content::Data {
                    command: *command,
                    attributes,
                })
            }
        }
    }

    fn too_short(&self) -> MessageError {
        MessageError::Payload {
            kind: self.kind,
            length: self.payload.len(),
        }
    }

    fn error_number(&self) -> Option<i32> {
        self.payload
            .first_chunk::<4>()
            .map(|bytes| i32::from_ne_bytes(*bytes).saturating_neg())
    }

    /// `struct nlmsgerr` is the number, then the request's header, then its payload unless capped, then
    /// attributes when the flag says so.
    fn extended_message(&self) -> Option<String> {
        if self.flags & NlmF::ACK_TLVS.bits() == 0 {
            return None;
        }
        let request = self.payload.get(4..)?;
        let skipped = if self.flags & NlmF::CAPPED.bits() == 0 {
            let length = request
                .first_chunk::<4>()
                .map(|bytes| u32::from_ne_bytes(*bytes))?;
            usize::try_from(length).ok()?.checked_next_multiple_of(4)?
        } else {
            HEADER_LENGTH
        };
        Attributes::new(request.get(skipped..)?)
            .map_while(Result::ok)
            .find(|attribute| attribute.kind == ERROR_ATTRIBUTE_MESSAGE)
            .and_then(|attribute| attribute.string().ok().map(str::to_owned))
    }
}
