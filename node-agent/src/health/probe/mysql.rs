//! Does a server of MySQL or MariaDB judge a user?
//!
//! To connect and to end the connection after the greeting would be enough to see that it lives, but the server counts such
//! hosts and blocks them after a hundred (`max_connect_errors`). So a user is named, with an empty password, unless there are
//! credentials.

use lvs_crds::health_check::MySqlCheck;

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

use super::message::{await_end, hear, say, split_at_zero};
use super::target::Target;
use super::tls::{self, Security, Terms};
use super::{NOT_ASKED, TimeLimit, quoted, tcp};
use crate::health::credentials::Login;

const NO_GREETING: &str = "greeting is none of MySQL";
const DEFAULT_USER: &str = "lvs";
/// Version of the protocol in the greeting; all servers of this century have it.
const PROTOCOL: u8 = 10;
/// What a packet begins with: an error, a success, the wish for another way to log in, more of this one.
const ERROR: u8 = 0xff;
const SUCCESS: u8 = 0x00;
const OTHER_WAY: u8 = 0xfe;
const MORE: u8 = 0x01;
/// What comes with the last: the server knows this password, or wants to have it itself.
const KNOWN: u8 = 3;
const WANTED: u8 = 4;
/// LONG_PASSWORD, PROTOCOL_41, SECURE_CONNECTION and PLUGIN_AUTH.
const CAPABILITIES: u32 = 0x0000_0001 | 0x0000_0200 | 0x0000_8000 | 0x0008_0000;
/// TLS begins after the greeting.
const TLS: u32 = 0x0000_0800;
const LONGEST_PACKET: u32 = 1 << 24;
/// utf8_general_ci, which every version knows.
const CHARACTERS: u8 = 33;
const RESERVED: [u8; 23] = [0; 23];
/// Ways to log in that are known here.
const NATIVE: &[u8] = b"mysql_native_password";
const CACHING: &[u8] = b"caching_sha2_password";
/// Bytes of the number that a password is mixed with.
const NUMBER_BYTES: usize = 20;
const QUIT: u8 = 0x01;
/// Errors by which a server that works refuses a user: access denied, to a database, without the plugin, by another
/// protocol of passwords, to a locked account, without TLS.
const REFUSALS: [u16; 7] = [1044, 1045, 1698, 1251, 3118, 4151, 3159];

/// Asks once, over TLS if there are `terms`. With a log-in it must be accepted. An error is why the server does not pass, in
/// words.
pub async fn ask(
    target: Target,
    check: &MySqlCheck,
    login: Option<&Login>,
    terms: Option<&Terms<'_>>,
    limit: TimeLimit,
) -> Result<(), String> {
    let security = Security::of(terms, None, target, None)?;
    let mut connection = Connection {
        stream: Box::new(tcp::connect(target, limit).await?),
        is_encrypted: false,
        limit,
    };
    let (mut number, greeting) = connection.packet("greeting").await?;
    match greeting.first() {
        Some(&PROTOCOL) => {}
        Some(&ERROR) => return Err(Refusal::of(&greeting).words()),
        _ => return Err(NO_GREETING.to_owned()),
    }
    if let Some(security) = security {
        (connection, number) = connection.encrypted(security, number, &greeting).await?;
    }
    if let Some(login) = login {
        return connection.log_in(login, number, &greeting).await;
    }
    let user = check.user.as_deref().unwrap_or(DEFAULT_USER);
    connection
        .say(
            number.wrapping_add(1),
            &log_in(connection.capabilities(), user, NATIVE, &[]),
        )
        .await?;
    let (number, mut reply) = connection.packet("reply to the log-in").await?;
    if reply.first() == Some(&OTHER_WAY) {
        // Whichever it is, an empty password is an empty packet.
        connection.say(number.wrapping_add(1), &[]).await?;
        (_, reply) = connection.packet("reply to the log-in").await?;
    }
    match reply.first() {
        Some(&SUCCESS) => {
            connection.say(0, &[QUIT]).await?;
            await_end(&mut connection.stream, limit).await;
            Ok(())
        }
        Some(&ERROR) => {
            let refusal = Refusal::of(&reply);
            if REFUSALS.contains(&refusal.number) {
                Ok(())
            } else {
                Err(refusal.words())
            }
        }
        // It goes on to talk about passwords.
        Some(_) => Ok(()),
        None => Err("reply to the log-in is empty".to_owned()),
    }
}

struct Connection {
    stream: Box<dyn tls::Connection>,
    is_encrypted: bool,
    limit: TimeLimit,
}

impl Connection {
    /// TLS begins after the greeting; with the number of the last packet.
    async fn encrypted(
        mut self,
        security: Security<'_>,
        number: u8,
        greeting: &[u8],
    ) -> Result<(Self, u8), String> {
        if abilities(greeting).ok_or(NO_GREETING)? & TLS == 0 {
            return Err(tls::NOT_SPOKEN.to_owned());
        }
        self.is_encrypted = true;
        let number = number.wrapping_add(1);
        let wish = head(self.capabilities());
        self.say(number, &wish).await?;
        let stream = security.over(self.stream, self.limit).await?;
        self.stream = Box::new(stream);
        Ok((self, number))
    }

    const fn capabilities(&self) -> u32 {
        if self.is_encrypted {
            CAPABILITIES | TLS
        } else {
            CAPABILITIES
        }
    }

    /// Logs in after the greeting, and says good-bye.
    async fn log_in(mut self, login: &Login, number: u8, greeting: &[u8]) -> Result<(), String> {
        let Login { username, password } = login;
        let (way, random) = way_of(greeting).ok_or(NO_GREETING)?;
        let answer = mixed(way, &random, password).unwrap_or_default();
        let first = log_in(self.capabilities(), username, way, &answer);
        self.say(number.wrapping_add(1), &first).await?;
        loop {
            let (number, reply) = self.packet("reply to the log-in").await?;
            match *reply {
                [SUCCESS, ..] => {
                    self.say(0, &[QUIT]).await?;
                    await_end(&mut self.stream, self.limit).await;
                    return Ok(());
                }
                [MORE, KNOWN] => {}
                // The password itself, until the server has heard it once since it started.
                [MORE, WANTED] if self.is_encrypted => {
                    let said = [password.as_bytes(), b"\0"].concat();
                    self.say(number.wrapping_add(1), &said).await?;
                }
                [MORE, ..] => {
                    return Err(format!(
                        "{NOT_ASKED}the server knows no short form of this password yet, and it is not sent in plain text: set tls, \
                         or make the user one of mysql_native_password"
                    ));
                }
                [OTHER_WAY, ref rest @ ..] => {
                    let (way, random) = split_at_zero(rest).unwrap_or((b"an old one", rest));
                    let random = random.get(..NUMBER_BYTES).unwrap_or(random);
                    let answer = mixed(way, random, password).ok_or_else(|| {
                        let way = quoted(&String::from_utf8_lossy(way));
                        format!(
                            "{NOT_ASKED}the server wants the password in way {way}: make the user one of mysql_native_password"
                        )
                    })?;
                    self.say(number.wrapping_add(1), &answer).await?;
                }
                [ERROR, ..] => {
                    let refusal = Refusal::of(&reply);
                    return Err(if REFUSALS.contains(&refusal.number) {
                        // Its text has the user.
                        format!("log-in refused: error {}", refusal.number)
                    } else {
                        refusal.words()
                    });
                }
                _ => return Err("reply to the log-in is none of MySQL".to_owned()),
            }
        }
    }

    /// The number and the content of the next packet.
    async fn packet(&mut self, what: &str) -> Result<(u8, Vec<u8>), String> {
        let head = hear(&mut self.stream, 4, what, self.limit).await?;
        let [low, middle, high, number] = head[..] else {
            return Err(format!("{what} is none of MySQL"));
        };
        let length = u32::from_le_bytes([low, middle, high, 0]);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let content = hear(&mut self.stream, length, what, self.limit).await?;
        Ok((number, content))
    }

    async fn say(&mut self, number: u8, content: &[u8]) -> Result<(), String> {
        let [low, middle, high, _] = u32::try_from(content.len())
            .unwrap_or_default()
            .to_le_bytes();
        let mut packet = vec![low, middle, high, number];
        packet.extend(content);
        say(&mut self.stream, &packet, self.limit).await
    }
}

/// What the server can do, the lower half of it.
fn abilities(greeting: &[u8]) -> Option<u32> {
    let (_version, rest) = split_at_zero(greeting.get(1..)?)?;
    // After the number of the connection, the first part of the random number, and a zero.
    let low = rest.get(13..15)?.try_into().ok()?;
    Some(u32::from(u16::from_le_bytes(low)))
}

/// The way to log in that the server would have, if it is known here, and the number that it gives.
fn way_of(greeting: &[u8]) -> Option<(&'static [u8], Vec<u8>)> {
    let (_version, rest) = split_at_zero(greeting.get(1..)?)?;
    // Number of the connection, the first part of the random number, a zero, what the server can do, characters, and status.
    let (first, rest) = (rest.get(4..12)?, rest.get(13..)?);
    // What it can do besides, a length, and ten bytes that say nothing.
    let rest = rest.get(2 + 1 + 2 + 2 + 1 + 10..)?;
    let second = rest.get(..NUMBER_BYTES - first.len())?;
    let name = split_at_zero(rest.get(second.len() + 1..).unwrap_or_default());
    let way = name.map(|(name, _)| name).filter(|name| *name == CACHING);
    Some((way.map_or(NATIVE, |_| CACHING), [first, second].concat()))
}

/// A password mixed with the number that the server gave, so that it is not said itself; `None` where the way is not known. An
/// empty one is nothing, in every way.
fn mixed(way: &[u8], random: &[u8], password: &str) -> Option<Vec<u8>> {
    let is_caching = way == CACHING;
    if !is_caching && way != NATIVE {
        return None;
    }
    if password.is_empty() {
        return Some(Vec::new());
    }
    let digest = |parts: [&[u8]; 2]| {
        let algorithm = if is_caching {
            &SHA256
        } else {
            &SHA1_FOR_LEGACY_USE_ONLY
        };
        let mut context = Context::new(algorithm);
        for part in parts {
            context.update(part);
        }
        context.finish()
    };
    let once = digest([password.as_bytes(), b""]);
    let twice = digest([once.as_ref(), b""]);
    let mask = if is_caching {
        digest([twice.as_ref(), random])
    } else {
        digest([random, twice.as_ref()])
    };
    let bytes = once.as_ref().iter().zip(mask.as_ref());
    Some(bytes.map(|(byte, mask)| byte ^ mask).collect())
}

/// What we can do: all of the wish for TLS (SSLRequest), and what a log-in begins with.
fn head(capabilities: u32) -> Vec<u8> {
    let mut content = Vec::new();
    content.extend(capabilities.to_le_bytes());
    content.extend(LONGEST_PACKET.to_le_bytes());
    content.push(CHARACTERS);
    content.extend(RESERVED);
    content
}

/// Names a user, with a password that is mixed already (HandshakeResponse41).
fn log_in(capabilities: u32, user: &str, way: &[u8], answer: &[u8]) -> Vec<u8> {
    let mut content = head(capabilities);
    content.extend(user.as_bytes());
    content.push(0);
    content.push(u8::try_from(answer.len()).unwrap_or_default());
    content.extend(answer);
    content.extend(way);
    content.push(0);
    content
}

/// An error packet.
struct Refusal {
    number: u16,
    text: String,
}

impl Refusal {
    fn of(packet: &[u8]) -> Self {
        let number = packet.get(1..3).and_then(|bytes| bytes.try_into().ok());
        let rest = packet.get(3..).unwrap_or_default();
        // Before a log-in there is no state; after it six characters that begin with '#'.
        let text = match rest.first() {
            Some(b'#') => rest.get(6..).unwrap_or_default(),
            _ => rest,
        };
        let text = split_at_zero(text).map_or(text, |(text, _)| text);
        Self {
            number: number.map_or(0, u16::from_le_bytes),
            text: String::from_utf8_lossy(text).into_owned(),
        }
    }

    fn words(&self) -> String {
        format!("error {}: {}", self.number, quoted(&self.text))
    }
}
