//! The content of one heartbeat and its form on the wire.
//!
//! ```text
//!  version (1 byte) = 1, then in this order; numbers are big endian, texts are a byte of length and UTF-8:
//!  router · from node · from incarnation · to node · sequence (8)
//!  echo: 0, or 1 · incarnation · sequence (8)
//!  epoch (8) · holder (text, empty = none) · carriage (1) · priority (1)
//!  flags (1): 1 ready, 2 offers, 4 API lost, 8 asks for promises
//!  promise: 0, or 1 · sequence (8)
//! ```
//! Nothing may follow. What cannot be read exactly so is refused as a whole.

/// First byte of every heartbeat.
const VERSION: u8 = 1;

const READY: u8 = 1;
const OFFERS: u8 = 2;
const API_LOST: u8 = 4;
const ASKS: u8 = 8;
const ALL_FLAGS: u8 = READY | OFFERS | API_LOST | ASKS;

/// Which of a router's addresses are in the sender's kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Carriage {
    /// None that we know of: the sender can answer for none of them.
    #[default]
    Nothing,
    /// Some, or all without permission to refresh them.
    Some,
    /// All that are wanted, each refreshed in time.
    All,
    /// As before, and each has been announced at least once.
    Announced,
}

impl Carriage {
    const fn code(self) -> u8 {
        match self {
            Self::Nothing => 0,
            Self::Some => 1,
            Self::All => 2,
            Self::Announced => 3,
        }
    }

    const fn of_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Nothing),
            1 => Some(Self::Some),
            2 => Some(Self::All),
            3 => Some(Self::Announced),
            _ => None,
        }
    }
}

/// A promise to the holder that asked for it: no challenge and no compare-and-swap for the time P after the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise {
    /// Node it is made to.
    pub to: String,
    /// Sequence number of that node's heartbeat that asked.
    pub sequence: u64,
}

/// What a director has to say, whoever hears it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
// Each flag is a fact of its own; none excludes another.
#[allow(clippy::struct_excessive_bools)]
pub struct Standing {
    /// Newest epoch it knows, its own included.
    pub epoch: u64,
    /// Node that holds that epoch; none = nobody, or not known.
    pub holder: Option<String>,
    /// Effective VRRP priority.
    pub priority: u8,
    /// It may and could take over at once: permitted, its services verified.
    pub ready: bool,
    /// As holder: it consents to a successor.
    pub offers: bool,
    /// It has had no word of the API server for a second.
    pub api_lost: bool,
    /// As holder: it asks for promises.
    pub asks: bool,
    /// The promise it has made.
    pub promise: Option<Promise>,
}

/// The newest of the receiver's heartbeats that the sender has got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Echo {
    /// Incarnation that sent it.
    pub incarnation: String,
    /// Its sequence number.
    pub sequence: u64,
}

/// One heartbeat from one director to one other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Router.
    pub router: String,
    /// Sending node.
    pub from: String,
    /// Incarnation of its agent.
    pub incarnation: String,
    /// Node it is for.
    pub to: String,
    /// Rises with every heartbeat of the incarnation.
    pub sequence: u64,
    /// What the sender last got from the receiver.
    pub echo: Option<Echo>,
    /// What the sender carries.
    pub carriage: Carriage,
    /// What it says. A promise to another node than the receiver is left out on the wire.
    pub standing: Standing,
}

/// Bytes that are no heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// It ends too early.
    #[error("the heartbeat ends within {0}")]
    Truncated(&'static str),
    /// Another version of the protocol.
    #[error("heartbeat of version {0}, this agent speaks {VERSION}")]
    Version(u8),
    /// A text that is none.
    #[error("the heartbeat's {0} is no UTF-8 text")]
    Text(&'static str),
    /// A value without meaning.
    #[error("the heartbeat's {field} is {value}, which has no meaning")]
    Value {
        /// Field.
        field: &'static str,
        /// Value.
        value: u8,
    },
    /// Bytes after the end.
    #[error("{0} bytes follow the end of the heartbeat")]
    Trailing(usize),
}

impl Message {
    /// The bytes of it. Texts longer than 255 bytes are cut at a character's end; no name in Kubernetes is that long.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        put_text(&mut bytes, &self.router);
        put_text(&mut bytes, &self.from);
        put_text(&mut bytes, &self.incarnation);
        put_text(&mut bytes, &self.to);
        bytes.extend(self.sequence.to_be_bytes());
        match &self.echo {
            None => bytes.push(0),
            Some(echo) => {
                bytes.push(1);
                put_text(&mut bytes, &echo.incarnation);
                bytes.extend(echo.sequence.to_be_bytes());
            }
        }
        let standing = &self.standing;
        bytes.extend(standing.epoch.to_be_bytes());
        put_text(&mut bytes, standing.holder.as_deref().unwrap_or_default());
        bytes.push(self.carriage.code());
        bytes.push(standing.priority);
        let flags = [
            (standing.ready, READY),
            (standing.offers, OFFERS),
            (standing.api_lost, API_LOST),
            (standing.asks, ASKS),
        ];
        bytes.push(
            flags
                .iter()
                .filter(|(set, _)| *set)
                .fold(0, |all, (_, flag)| all | flag),
        );
        match standing
            .promise
            .as_ref()
            .filter(|promise| promise.to == self.to)
        {
            None => bytes.push(0),
            Some(promise) => {
                bytes.push(1);
                bytes.extend(promise.sequence.to_be_bytes());
            }
        }
        bytes
    }

    /// Reads what [`Message::encode`] wrote.
    ///
    /// # Errors
    /// [`MessageError`] names the field at which the bytes stop being a heartbeat.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let mut reader = Reader { rest: bytes };
        let version = reader.byte("version")?;
        if version != VERSION {
            return Err(MessageError::Version(version));
        }
        let router = reader.text("router")?;
        let from = reader.text("sending node")?;
        let incarnation = reader.text("incarnation")?;
        let to = reader.text("receiving node")?;
        let sequence = reader.number("sequence")?;
        let echo = if reader.choice("echo")? {
            Some(Echo {
                incarnation: reader.text("echoed incarnation")?,
                sequence: reader.number("echoed sequence")?,
            })
        } else {
            None
        };
        let epoch = reader.number("epoch")?;
        let holder = Some(reader.text("holder")?).filter(|holder| !holder.is_empty());
        let code = reader.byte("carriage")?;
        let carriage = Carriage::of_code(code).ok_or(MessageError::Value {
            field: "carriage",
            value: code,
        })?;
        let priority = reader.byte("priority")?;
        let flags = reader.byte("flags")?;
        if flags & !ALL_FLAGS != 0 {
            return Err(MessageError::Value {
                field: "flags",
                value: flags,
            });
        }
        let promise = if reader.choice("promise")? {
            Some(Promise {
                to: to.clone(),
                sequence: reader.number("promised sequence")?,
            })
        } else {
            None
        };
        if !reader.rest.is_empty() {
            return Err(MessageError::Trailing(reader.rest.len()));
        }
        Ok(Self {
            router,
            from,
            incarnation,
            to,
            sequence,
            echo,
            carriage,
            standing: Standing {
                epoch,
                holder,
                priority,
                ready: flags & READY != 0,
                offers: flags & OFFERS != 0,
                api_lost: flags & API_LOST != 0,
                asks: flags & ASKS != 0,
                promise,
            },
        })
    }
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    let mut end = text.len().min(usize::from(u8::MAX));
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    bytes.push(u8::try_from(end).unwrap_or(u8::MAX));
    bytes.extend_from_slice(&text.as_bytes()[..end]);
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn take(&mut self, count: usize, field: &'static str) -> Result<&[u8], MessageError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or(MessageError::Truncated(field))?;
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self, field: &'static str) -> Result<u8, MessageError> {
        Ok(self.take(1, field)?[0])
    }

    fn number(&mut self, field: &'static str) -> Result<u64, MessageError> {
        let bytes = self.take(8, field)?;
        Ok(bytes
            .iter()
            .fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn text(&mut self, field: &'static str) -> Result<String, MessageError> {
        let length = usize::from(self.byte(field)?);
        let bytes = self.take(length, field)?;
        std::str::from_utf8(bytes)
            .map(str::to_owned)
            .map_err(|_| MessageError::Text(field))
    }

    fn choice(&mut self, field: &'static str) -> Result<bool, MessageError> {
        match self.byte(field)? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(MessageError::Value { field, value }),
        }
    }
}
