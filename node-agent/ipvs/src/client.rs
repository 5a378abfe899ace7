//! The real kernel behind [`IpvsKernel`].

mod reading;
mod statistics;

use std::time::Duration;

use lvs_core::ipvs::{
    Destination, DestinationKey, Idle, Service, ServiceKey, ServiceState, Services,
};
use lvs_core::op::IpvsOp;
use lvs_core::sync_daemon::SyncDaemons;
use lvs_core::table::{self, Disorder};
use neli::consts::genl::{CtrlAttr, CtrlCmd};
use neli::consts::nl::{GenlId, NlmF};
use nix::errno::Errno;

use crate::attribute::Attributes;
use crate::decode::{self, DecodeError, DumpedService, Info};
use crate::encode;
use crate::error::{DumpError, OpError, OpFailure, TransportError};
use crate::message::{Content, Envelope, Message, Messages, add_flag, write_message};
use crate::socket::{RECEIVE_BYTES, Socket, Transport};
use crate::uapi::{FAMILY_NAME, command};
use crate::{Dump, IpvsKernel};

pub use statistics::Wanted;

/// How the client talks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// Longest wait for one answer. The kernel answers within the system call that asks, so this bounds a
    /// broken kernel, not a slow one.
    pub timeout: Duration,
    /// Receive buffer in bytes.
    pub receive_buffer_bytes: usize,
    /// Most operations per send. More is not faster, and the refusals of 256 small ones overflow a default buffer.
    pub batch: usize,
    /// How often a dump is begun before it is given up as unstable.
    pub dump_attempts: u32,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            receive_buffer_bytes: 4 << 20,
            batch: 128,
            dump_attempts: 4,
        }
    }
}

/// How a connection is opened.
type Open = Box<dyn Fn(&ClientOptions) -> Result<Box<dyn Transport>, TransportError> + Send>;

/// IPVS of the network namespace in which the client first connects.
pub struct Client {
    options: ClientOptions,
    open: Open,
    connection: Option<Connection>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Client")
            .field("options", &self.options)
            .field("connection", &self.connection)
            .finish_non_exhaustive()
    }
}

impl Default for Client {
    fn default() -> Self {
        Self::new(ClientOptions::default())
    }
}

impl Client {
    /// A client that connects at its first use, and anew after a failed conversation: a kernel without `ip_vs`
    /// is an error of that use, not of the agent.
    pub fn new(options: ClientOptions) -> Self {
        Self::with_transport(options, |options| {
            let socket = Socket::open(options.receive_buffer_bytes, options.timeout)?;
            Ok(Box::new(socket))
        })
    }

    /// A client whose connections are opened by `open`.
    pub fn with_transport(
        options: ClientOptions,
        open: impl Fn(&ClientOptions) -> Result<Box<dyn Transport>, TransportError> + Send + 'static,
    ) -> Self {
        Self {
            options,
            open: Box::new(open),
            connection: None,
        }
    }

    /// Version of IPVS and size of its connection table.
    pub fn info(&mut self) -> Result<Info, DumpError> {
        let what = || "the version of IPVS".to_owned();
        let result = match self.connect() {
            Err(source) => Err(Failure::Transport(source)),
            Ok(connection) => connection.ask(command::GET_INFO, None, decode::info),
        };
        result.map_err(|failure| self.give_up(what(), failure))
    }

    /// Destinations of one service as the kernel lists them now, without the consistency of a whole dump. A
    /// service that does not exist is [`DumpError::Unstable`]: gone is not empty.
    pub fn destinations(
        &mut self,
        key: &ServiceKey,
    ) -> Result<Vec<(DestinationKey, Destination)>, DumpError> {
        let result = match self.connect() {
            Err(source) => Err(Failure::Transport(source)),
            Ok(connection) => connection.destinations(key, 0, None, &mut Idle::new()),
        };
        result.map_err(|failure| self.give_up(Reading::Destinations(*key).to_string(), failure))
    }

    fn connect(&mut self) -> Result<&mut Connection, TransportError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open((self.open)(&self.options)?)?,
        };
        Ok(self.connection.insert(connection))
    }

    fn give_up(&mut self, what: String, failure: Failure) -> DumpError {
        let attempts = self.options.dump_attempts;
        match failure {
            Failure::Transport(source) => {
                self.connection = None;
                DumpError::Transport { what, source }
            }
            Failure::Refused { errno, message } => DumpError::Refused {
                what,
                errno,
                message,
            },
            Failure::Undecodable(source) => {
                self.connection = None;
                DumpError::Undecodable { what, source }
            }
            Failure::Changed => DumpError::Unstable { what, attempts },
        }
    }
}

/// Why one question has no answer.
enum Failure {
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
    const fn passes(&self) -> bool {
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

impl IpvsKernel for Client {
    fn dump(&mut self) -> Result<Dump, DumpError> {
        let mut attempt = 1;
        loop {
            let mut reading = Reading::Services;
            let result = match self.connect() {
                Err(source) => Err(Failure::Transport(source)),
                Ok(connection) => connection.dump(&mut reading),
            };
            match result {
                Ok(dump) => return Ok(dump),
                Err(failure) if failure.passes() && attempt < self.options.dump_attempts => {
                    if !matches!(failure, Failure::Changed) {
                        self.connection = None;
                    }
                    attempt += 1;
                }
                Err(failure) => return Err(self.give_up(reading.to_string(), failure)),
            }
        }
    }

    fn apply(&mut self, operations: &[IpvsOp]) -> Vec<Result<(), OpError>> {
        let mut results = Vec::with_capacity(operations.len());
        let mut broken: Option<TransportError> = None;
        for batch in operations.chunks(self.options.batch.max(1)) {
            let failed = if let Some(cause) = &broken {
                BatchFailure::NotSent(cause.clone())
            } else {
                match self.connect() {
                    Err(cause) => BatchFailure::NotSent(cause),
                    Ok(connection) => match connection.apply(batch, &mut results) {
                        Ok(()) => continue,
                        Err(failure) => failure,
                    },
                }
            };
            self.connection = None;
            let (cause, sent) = match failed {
                BatchFailure::NotSent(cause) => (cause, false),
                BatchFailure::Unknown(cause) => (cause, true),
            };
            results.extend(batch.iter().map(|operation| {
                let cause = cause.clone();
                let failure = if sent {
                    OpFailure::Unknown(cause)
                } else {
                    OpFailure::NotSent(cause)
                };
                Err(OpError {
                    operation: Box::new(operation.clone()),
                    failure,
                })
            }));
            broken = Some(cause);
        }
        results
    }
}

/// Why a batch has no results.
enum BatchFailure {
    NotSent(TransportError),
    Unknown(TransportError),
}

/// What a dump is at, for its errors.
enum Reading {
    Services,
    Destinations(ServiceKey),
    Timeouts,
    SyncDaemons,
}

impl std::fmt::Display for Reading {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Services => formatter.write_str("the IPVS services"),
            Self::Destinations(key) => write!(formatter, "the destinations of IPVS service {key}"),
            Self::Timeouts => formatter.write_str("the IPVS timeouts"),
            Self::SyncDaemons => formatter.write_str("the IPVS sync daemons"),
        }
    }
}

/// A socket that knows the family's number.
#[derive(Debug)]
struct Connection {
    socket: Box<dyn Transport>,
    family: u16,
    sequence: u32,
    request: Vec<u8>,
    reply: Box<[u8]>,
}

impl Connection {
    fn open(socket: Box<dyn Transport>) -> Result<Self, TransportError> {
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

    fn envelope(&mut self, flags: NlmF) -> Envelope {
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
    fn ask<T>(
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
    fn walk(
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

    fn dump(&mut self, reading: &mut Reading) -> Result<Dump, Failure> {
        let mut found: Vec<(ServiceKey, Service)> = Vec::new();
        let mut unnameable = Vec::new();
        self.walk(command::GET_SERVICE, None, |attributes| {
            match decode::service(attributes)? {
                DumpedService::Named(key, service) => found.push((key, service)),
                DumpedService::Unnameable(line) => unnameable.push(line),
            }
            Ok(())
        })?;
        let count = found.len();
        let mut services = Services::new();
        let mut disorder = Disorder::new();
        let mut idle = Idle::new();
        let mut expected = 0;
        for (key, service) in found {
            *reading = Reading::Destinations(key);
            let mut listed = Vec::new();
            let order = table::depends_on_order(&service).then_some(&mut listed);
            let destinations = self.destinations(&key, expected, order, &mut idle)?;
            expected = destinations.len();
            if !table::is_canonical(&listed) {
                disorder.insert(key, listed);
            }
            services.insert(
                key,
                ServiceState {
                    service,
                    destinations,
                },
            );
        }
        if services.len() != count {
            // The same service twice: the table shifted between two parts of the dump.
            *reading = Reading::Services;
            return Err(Failure::Changed);
        }
        *reading = Reading::Timeouts;
        let timeouts = self.ask(command::GET_CONFIG, None, decode::timeouts)?;
        *reading = Reading::SyncDaemons;
        let mut sync_daemons = SyncDaemons::new();
        self.walk(command::GET_DAEMON, None, |attributes| {
            let (role, daemon) = decode::sync_daemon(attributes)?;
            sync_daemons.insert(role, daemon);
            Ok(())
        })?;
        Ok(Dump {
            services,
            disorder,
            idle,
            timeouts,
            sync_daemons,
            unnameable,
        })
    }

    /// Destinations sorted by key; `order` gets their keys as the kernel lists them, `idle` those that are.
    fn destinations(
        &mut self,
        key: &ServiceKey,
        expected: usize,
        order: Option<&mut Vec<DestinationKey>>,
        idle: &mut Idle,
    ) -> Result<Vec<(DestinationKey, Destination)>, Failure> {
        let mut destinations: Vec<(DestinationKey, Destination)> = Vec::with_capacity(expected);
        let family = key.family();
        self.walk(command::GET_DEST, Some(key), |attributes| {
            let found = decode::destination(attributes, family)?;
            if found.is_idle() {
                idle.insert((*key, found.key));
            }
            destinations.push((found.key, found.state));
            Ok(())
        })?;
        if destinations.is_empty() {
            // The kernel dumps nothing for a service that is gone, too. Gone is not empty.
            match self.ask(command::GET_SERVICE, Some(key), decode::service) {
                Ok(_) => {}
                Err(Failure::Refused {
                    errno: Errno::ESRCH,
                    ..
                }) => return Err(Failure::Changed),
                Err(failure) => return Err(failure),
            }
        }
        if let Some(order) = order {
            order.extend(destinations.iter().map(|(key, _)| *key));
        }
        // The kernel lists the newest first; a sorted or reversed run is recognized and costs one pass.
        destinations.sort_unstable_by_key(|(key, _)| *key);
        if destinations
            .windows(2)
            .any(|pair| matches!(pair, [(left, _), (right, _)] if left == right))
        {
            return Err(Failure::Changed);
        }
        destinations.shrink_to_fit();
        Ok(destinations)
    }

    /// Sends one batch and appends one result per operation, or nothing on failure.
    fn apply(
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
    fn collect(
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
