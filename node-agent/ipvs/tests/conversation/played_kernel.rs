//! A kernel in memory that answers in bytes: the model's tables, and what may go wrong with an answer.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use lvs_core::ipvs::ServiceKey;
use lvs_core::model::IpvsModel;
use lvs_core::op::IpvsOp;
use lvs_ipvs::attribute::AttributeWriter;
use lvs_ipvs::message::{Content, Envelope, Messages};
use lvs_ipvs::socket::Transport;
use lvs_ipvs::uapi::{command, destination};
use lvs_ipvs::{Client, ClientOptions, TransportError, decode, encode};

pub const FAMILY: u16 = 0x1d;
const REQUEST: u16 = 0x1;
const MULTI: u16 = 0x2;
pub const ACK: u16 = 0x4;
pub const DUMP: u16 = 0x300;
const DUMP_INTERRUPTED: u16 = 0x10;

/// What goes wrong with one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `ENOBUFS`.
    Overflow,
    /// No answer at all.
    Silence,
    /// An answer to another question.
    WrongSequence,
    /// The dump was interrupted by a change.
    Interrupted,
    /// A destination is listed twice, as the list shifted between two parts of a dump.
    Twice,
    /// The service is deleted between being listed and being asked for its destinations.
    Vanishes,
    /// The bytes end too early.
    Cut,
}

#[derive(Debug, Default)]
pub struct Kernel {
    pub model: IpvsModel,
    pub has_family: bool,
    /// For which command, what; each once.
    pub faults: Vec<(u8, Fault)>,
    /// (command, flags) of every message since the last look.
    pub seen: Vec<(u8, u16)>,
    pub connections: usize,
}

/// One connection to it.
#[derive(Debug)]
struct Line {
    kernel: Arc<Mutex<Kernel>>,
    answers: VecDeque<Result<Vec<u8>, TransportError>>,
}

/// A client of it.
pub fn client(kernel: &Arc<Mutex<Kernel>>) -> Client {
    let kernel = Arc::clone(kernel);
    Client::with_transport(ClientOptions::default(), move |_| {
        kernel.lock().unwrap().connections += 1;
        Ok(Box::new(Line {
            kernel: Arc::clone(&kernel),
            answers: VecDeque::new(),
        }))
    })
}

/// One that has IPVS and nothing in it.
pub fn kernel() -> Arc<Mutex<Kernel>> {
    Arc::new(Mutex::new(Kernel {
        has_family: true,
        ..Kernel::default()
    }))
}

fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + payload.len()).unwrap();
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

/// `NLMSG_ERROR`, capped.
fn error(sequence: u32, errno: i32) -> Vec<u8> {
    let mut payload = (-errno).to_ne_bytes().to_vec();
    payload.extend([0; 16]);
    message(2, 0x100, sequence, &payload)
}

/// The payload of a request is that of an answer: same command, same attributes.
fn answer(write: impl FnOnce(&mut Vec<u8>, Envelope), flags: u16, sequence: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(
        &mut bytes,
        Envelope {
            family: FAMILY,
            flags,
            sequence,
        },
    );
    bytes
}

/// The message about a destination, with how many connections it has, all of them inactive.
fn with_connections(mut bytes: Vec<u8>, connections: u32) -> Vec<u8> {
    let mut counts = Vec::new();
    let mut writer = AttributeWriter::new(&mut counts);
    writer.u32(destination::ACTIVE_CONNS, 0);
    writer.u32(destination::INACT_CONNS, connections);
    // Behind the headers: the service, then the destination, which is last.
    let length_at = |bytes: &[u8], at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
    let nest = 20 + usize::from(length_at(&bytes, 20));
    let length = length_at(&bytes, nest) + u16::try_from(counts.len()).unwrap();
    bytes[nest..nest + 2].copy_from_slice(&length.to_ne_bytes());
    bytes.extend(counts);
    let length = u32::try_from(bytes.len()).unwrap();
    bytes[..4].copy_from_slice(&length.to_ne_bytes());
    bytes
}

impl Line {
    fn handle(&mut self, command: u8, flags: u16, sequence: u32, attributes: &[u8]) {
        let mut kernel = self.kernel.lock().unwrap();
        kernel.seen.push((command, flags));
        let found = kernel
            .faults
            .iter()
            .position(|(meant, _)| *meant == command);
        let fault = found.map(|index| kernel.faults.remove(index).1);
        let key = key_of(attributes);
        if fault == Some(Fault::Vanishes) {
            kernel.model.services.remove(&key.expect("a service"));
        }
        let mut answers: Vec<Vec<u8>> = Vec::new();
        let interrupted = if fault == Some(Fault::Interrupted) {
            DUMP_INTERRUPTED
        } else {
            0
        };
        let done = || message(3, MULTI | interrupted, sequence, &[0; 4]);
        match command {
            command::GET_SERVICE if flags & DUMP == DUMP => {
                for (key, state) in &kernel.model.services {
                    let operation = IpvsOp::AddService(*key, state.service.clone());
                    answers.push(answer(
                        |b, e| encode::operation(b, e, &operation),
                        MULTI,
                        sequence,
                    ));
                }
                answers.push(done());
            }
            command::GET_SERVICE => match kernel.model.services.get(&key.expect("a service")) {
                None => answers.push(error(sequence, 3)),
                Some(state) => {
                    let operation = IpvsOp::AddService(key.unwrap(), state.service.clone());
                    answers.push(answer(
                        |b, e| encode::operation(b, e, &operation),
                        0,
                        sequence,
                    ));
                }
            },
            command::GET_DEST => {
                let key = key.expect("a service");
                let state = kernel.model.services.get(&key);
                let listed = kernel.model.listed.get(&key).cloned().unwrap_or_default();
                for (target, destination) in listed.iter().filter_map(|target| {
                    let mut destinations = state?.destinations.iter();
                    destinations.find(|(key, _)| key == target)
                }) {
                    let operation = IpvsOp::AddDestination(key, *target, *destination);
                    let bytes = answer(|b, e| encode::operation(b, e, &operation), MULTI, sequence);
                    let is_connected = kernel.model.connected.contains(&(key, *target));
                    let bytes = with_connections(bytes, u32::from(is_connected));
                    if fault == Some(Fault::Twice) {
                        answers.push(bytes.clone());
                    }
                    answers.push(bytes);
                }
                answers.push(done());
            }
            command::GET_CONFIG => {
                let operation = IpvsOp::SetTimeouts(kernel.model.timeouts);
                answers.push(answer(
                    |b, e| encode::operation(b, e, &operation),
                    0,
                    sequence,
                ));
            }
            command::GET_DAEMON => {
                for (role, daemon) in &kernel.model.sync_daemons {
                    let operation = IpvsOp::StartSyncDaemon(*role, daemon.clone());
                    answers.push(answer(
                        |b, e| encode::operation(b, e, &operation),
                        MULTI,
                        sequence,
                    ));
                }
                answers.push(done());
            }
            _ => {
                let operation = decode::operation(command, attributes).expect("decodes");
                match kernel.model.apply(&operation) {
                    Err(errno) => answers.push(error(sequence, errno.code())),
                    Ok(()) if flags & ACK != 0 => answers.push(error(sequence, 0)),
                    Ok(()) => {}
                }
            }
        }
        let bytes = answers.concat();
        match fault {
            Some(Fault::Overflow) => self.answers.push_back(Err(TransportError::Overflow)),
            Some(Fault::Silence) => {}
            Some(Fault::WrongSequence) => self
                .answers
                .push_back(Ok(error(sequence.wrapping_sub(1000), 0))),
            Some(Fault::Cut) => self
                .answers
                .push_back(Ok(bytes[..bytes.len() - 1].to_vec())),
            _ if bytes.is_empty() => {}
            _ => self.answers.push_back(Ok(bytes)),
        }
    }
}

fn key_of(attributes: &[u8]) -> Option<ServiceKey> {
    match decode::operation(command::DEL_SERVICE, attributes) {
        Ok(IpvsOp::DeleteService(key)) => Some(key),
        _ => None,
    }
}

impl Transport for Line {
    fn send(&mut self, bytes: &[u8]) -> Result<(), TransportError> {
        assert!(
            self.answers.is_empty(),
            "a question before the answer to the last one was read"
        );
        for message in Messages::new(bytes) {
            let message = message.expect("well formed");
            assert_ne!(message.flags & REQUEST, 0);
            if message.kind == 0x10 {
                let answer = if self.kernel.lock().unwrap().has_family {
                    family(message.sequence)
                } else {
                    error(message.sequence, 2)
                };
                self.answers.push_back(Ok(answer));
                continue;
            }
            assert_eq!(message.kind, FAMILY);
            let Ok(Content::Data {
                command,
                attributes,
            }) = message.content()
            else {
                panic!("{message:?}")
            };
            self.handle(command, message.flags, message.sequence, attributes);
        }
        Ok(())
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, TransportError> {
        let bytes = self
            .answers
            .pop_front()
            .unwrap_or(Err(TransportError::Deadline {
                timeout_milliseconds: 0,
            }))?;
        buffer[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }
}

/// The answer of nlctrl: `CTRL_ATTR_FAMILY_ID` is 1.
fn family(sequence: u32) -> Vec<u8> {
    let mut payload = vec![1, 2, 0, 0];
    AttributeWriter::new(&mut payload).u16(1, FAMILY);
    message(0x10, 0, sequence, &payload)
}
