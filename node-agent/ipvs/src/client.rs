//! The real kernel behind [`IpvsKernel`].

mod connection;
mod dump;
mod reading;
mod statistics;

use std::time::Duration;

use connection::{BatchFailure, Connection, Failure};
use lvs_core::ipvs::{Destination, DestinationKey, Idle, ServiceKey};
use lvs_core::op::IpvsOp;

use crate::decode::{self, Info};
use crate::error::{DumpError, OpError, OpFailure, TransportError};
use crate::socket::{Socket, Transport};
use crate::uapi::command;
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
