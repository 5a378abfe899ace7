//! One connection to the kernel: questions and their answers, batches and what is refused of them.

use lvs_core::ipvs::ServiceKey;
use lvs_core::op::IpvsOp;
use neli::consts::genl::{CtrlAttr, CtrlCmd};
use neli::consts::nl::{GenlId, NlmF};
use nix::errno::Errno;

use crate::attribute::Attributes;
use crate::decode::DecodeError;
use crate::encode;
use crate::error::{OpError, OpFailure, TransportError};
use crate::message::{Content, Envelope, Message, Messages, add_flag, write_message};
use crate::socket::{RECEIVE_BYTES, Transport};
use crate::uapi::FAMILY_NAME;

/// Why one question has no answer.
pub(super) enum Failure {
    Transport(TransportError),
    Refused {
        errno: Errno,
        message: Option<String>,
    },
    Undecodable(DecodeError),
    /// The tables changed while being read.
    Changed,
}

impl From<TransportError> for Failure {
    fn from(error: TransportError) -> Self {
        Self::Transport(error)
    }
}

impl Failure {
    /// Whether beginning the dump again can help.
    pub(super) const fn passes(&self) -> bool {
        match self {
            // A reloaded module has another family number, which a new connection learns.
            Self::Changed
            | Self::Refused {
                errno: Errno::ENOENT,
                ..
            } => true,
            Self::Transport(error) => matches!(
                error,
                TransportError::Overflow
                    | TransportError::Truncated { .. }
                    | TransportError::Unexpected { .. }
            ),
            Self::Refused { .. } | Self::Undecodable(_) => false,
        }
    }
}

/// Why a batch has no results.
pub(super) enum BatchFailure {
    NotSent(TransportError),
    Unknown(TransportError),
}

/// A socket that knows the family's number.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: Box<dyn Transport>,
    family: u16,
    sequence: u32,
    pub(super) request: Vec<u8>,
    reply: Box<[u8]>,
}

impl Connection {
    pub(super) fn open(socket: Box<dyn Transport>) -> Result<Self, TransportError> {
        let mut connection = Self {
            socket,
            family: 0,
            sequence: 0,
            request: Vec::new(),
            reply: vec![0; RECEIVE_BYTES].into_boxed_slice(),
        };
        connection.family = connection.resolve_family()?;
        Ok(connection)
    }

    pub(super) fn envelope(&mut self, flags: NlmF) -> Envelope {
        self.sequence = self.sequence.wrapping_add(1);
        Envelope {
            family: self.family,
            flags: (NlmF::REQUEST | flags).bits(),
            sequence: self.sequence,
        }
    }

    /// Asks the family nlctrl, which makes the kernel load `ip_vs` by its alias if it can.
    fn resolve_family(&mut self) -> Result<u16, TransportError> {
        let mut envelope = self.envelope(NlmF::empty());
        envelope.family = u16::from(GenlId::Ctrl);
        self.request.clear();
        write_message(
            &mut self.request,
            envelope,
            u8::from(CtrlCmd::Getfamily),
            |message| {
                message.string(u16::from(CtrlAttr::FamilyName), FAMILY_NAME);
            },
        );
        self.socket.send(&self.request)?;
        let mut found = None;
        let refused = self.exchange(envelope.sequence, u16::from(GenlId::Ctrl), |attributes| {
            for attribute in Attributes::new(attributes) {
                let attribute = attribute?;
                if attribute.kind == u16::from(CtrlAttr::FamilyId) {
                    found = Some(attribute.u16()?);
                }
            }
            Ok::<_, TransportError>(Step::Finished)
        });
        match refused {
            Ok(()) => found.ok_or(TransportError::Family {
                errno: Errno::EPROTO,
            }),
            Err(Ended::By(error) | Ended::Transport(error)) => Err(error),
            Err(Ended::Refused {
                errno: Errno::ENOENT,
                ..
            }) => Err(TransportError::FamilyMissing),
            Err(Ended::Refused { errno, .. }) => Err(TransportError::Family { errno }),
            Err(Ended::Interrupted) => Err(TransportError::Family {
                errno: Errno::EINTR,
            }),
        }
    }

    /// Reads answers to request `sequence` until one finishes it, and gives the attributes of each to `each`.
    /// An interrupted dump is read to its end, so that the connection can be used again.
    fn exchange<Error>(
        &mut self,
        sequence: u32,
        kind: u16,
        mut each: impl FnMut(&[u8]) -> Result<Step, Error>,
    ) -> Result<(), Ended<Error>> {
        let mut interrupted = false;
        loop {
            let length = self
                .socket
                .receive(&mut self.reply)
                .map_err(Ended::Transport)?;
            for message in Messages::new(self.reply.get(..length).unwrap_or_default()) {
                let message = message.map_err(|error| Ended::Transport(error.into()))?;
                if message.sequence != sequence {
                    return Err(Ended::Transport(unexpected(&message, sequence)));
                }
                interrupted |= message.flags & NlmF::DUMP_INTR.bits() != 0;
                match message
                    .content()
                    .map_err(|error| Ended::Transport(error.into()))?
                {
                    Content::Data { attributes, .. } if message.kind == kind => {
                        match each(attributes).map_err(Ended::By)? {
                            Step::Next => {}
                            Step::Finished => return Ok(()),
                        }
                    }
                    Content::Done { errno: 0 } if interrupted => return Err(Ended::Interrupted),
                    Content::Done { errno: 0 } => return Ok(()),
                    Content::Done { errno } => {
                        return Err(Ended::Refused {
                            errno: Errno::from_raw(errno),
                            message: None,
                        });
                    }
                    Content::Refused { errno, message } => {
                        return Err(Ended::Refused {
                            errno: Errno::from_raw(errno),
                            message,
                        });
                    }
                    Content::Ignored => {}
                    Content::Overrun => return Err(Ended::Transport(TransportError::Overflow)),
                    Content::Data { .. } | Content::Acknowledged => {
                        return Err(Ended::Transport(unexpected(&message, sequence)));
                    }
                }
            }
        }
    }

    /// One question, one answer.
    pub(super) fn ask<T>(
        &mut self,
        command: u8,
        key: Option<&ServiceKey>,
        mut decode: impl FnMut(&[u8]) -> Result<T, DecodeError>,
    ) -> Result<T, Failure> {
        let envelope = self.envelope(NlmF::empty());
        let mut answer = None;
        self.question(envelope, command, key)?;
        self.exchange(envelope.sequence, self.family, |attributes| {
            answer = Some(decode(attributes)?);
            Ok(Step::Finished)
        })?;
        answer.ok_or(Failure::Transport(TransportError::Overflow))
    }

    /// One dump; `each` gets the attributes of each message.
    pub(super) fn walk(
        &mut self,
        command: u8,
        key: Option<&ServiceKey>,
        mut each: impl FnMut(&[u8]) -> Result<(), DecodeError>,
    ) -> Result<(), Failure> {
        let envelope = self.envelope(NlmF::DUMP);
        self.question(envelope, command, key)?;
        let family = self.family;
        Ok(self.exchange(envelope.sequence, family, |attributes| {
            each(attributes).map(|()| Step::Next)
        })?)
    }

    fn question(
        &mut self,
        envelope: Envelope,
        command: u8,
        key: Option<&ServiceKey>,
    ) -> Result<(), Failure> {
        self.request.clear();
        match key {
            None => encode::bare(&mut self.request, envelope, command),
            Some(key) => encode::service_only(&mut self.request, envelope, command, key),
        }
        Ok(self.socket.send(&self.request)?)
    }

    /// Sends one batch and appends one result per operation, or nothing on failure.
    pub(super) fn apply(
        &mut self,
        batch: &[IpvsOp],
        results: &mut Vec<Result<(), OpError>>,
    ) -> Result<(), BatchFailure> {
        self.request.clear();
        let mut first = None;
        let mut last_start = 0;
        for operation in batch {
            let envelope = self.envelope(NlmF::empty());
            first.get_or_insert(envelope.sequence);
            last_start = self.request.len();
            encode::operation(&mut self.request, envelope, operation);
        }
        let Some(first) = first else { return Ok(()) };
        let last = self.sequence;
        add_flag(&mut self.request, last_start, NlmF::ACK.bits());
        self.socket
            .send(&self.request)
            .map_err(BatchFailure::NotSent)?;
        let start = results.len();
        results.extend(batch.iter().map(|_| Ok(())));
        let outcome = self.collect(first, last, |index, errno, message| {
            if let (Some(operation), Some(result)) =
                (batch.get(index), results.get_mut(start + index))
            {
                let failure = OpFailure::Refused { errno, message };
                *result = Err(OpError {
                    operation: Box::new(operation.clone()),
                    failure,
                });
            }
        });
        outcome.map_err(|error| {
            results.truncate(start);
            BatchFailure::Unknown(error)
        })
    }

    /// Reads refusals of requests `first..=last`, given by their index, until the answer to the last.
    pub(super) fn collect(
        &mut self,
        first: u32,
        last: u32,
        mut refused: impl FnMut(usize, Errno, Option<String>),
    ) -> Result<(), TransportError> {
        let span = last.wrapping_sub(first);
        loop {
            let length = self.socket.receive(&mut self.reply)?;
            for message in Messages::new(self.reply.get(..length).unwrap_or_default()) {
                let message = message?;
                let index = message.sequence.wrapping_sub(first);
                if index > span {
                    return Err(unexpected(&message, first));
                }
                match message.content()? {
                    Content::Refused { errno, message } => {
                        refused(
                            usize::try_from(index).unwrap_or(usize::MAX),
                            Errno::from_raw(errno),
                            message,
                        );
                    }
                    Content::Acknowledged if index == span => {}
                    Content::Ignored => continue,
                    Content::Overrun => return Err(TransportError::Overflow),
                    _ => return Err(unexpected(&message, first)),
                }
                if index == span {
                    return Ok(());
                }
            }
        }
    }
}

fn unexpected(message: &Message<'_>, expected: u32) -> TransportError {
    TransportError::Unexpected {
        kind: message.kind,
        sequence: message.sequence,
        expected,
    }
}

/// Whether more answers are to come.
enum Step {
    Next,
    Finished,
}

/// Why an exchange ended without its answer.
enum Ended<Error> {
    By(Error),
    Transport(TransportError),
    Refused {
        errno: Errno,
        message: Option<String>,
    },
    Interrupted,
}

impl From<Ended<DecodeError>> for Failure {
    fn from(ended: Ended<DecodeError>) -> Self {
        match ended {
            Ended::By(error) => Self::Undecodable(error),
            Ended::Transport(error) => Self::Transport(error),
            Ended::Refused { errno, message } => Self::Refused { errno, message },
            Ended::Interrupted => Self::Changed,
        }
    }
}
