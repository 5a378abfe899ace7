//! Does a PostgreSQL server judge a user? As pg_isready asks. With credentials: does it let him in?

use lvs_crds::health_check::PostgreSqlCheck;
use md5::{Digest, Md5};

use super::message::{await_end, hear, say, split_at_zero};
use super::scram::{Exchange, Proven};
use super::target::Target;
use super::tls::{self, Security, Terms};
use super::{NOT_ASKED, TimeLimit, hexadecimal, quoted, tcp};
use crate::health::credentials::Login;

const DEFAULT_USER: &str = "lvs";
const DEFAULT_DATABASE: &str = "postgres";
/// Version 3.0 of the protocol.
const PROTOCOL: u32 = 3 << 16;
/// Types of messages: what the server wants for a log-in or that it is done, an error, that it knows an older version.
const AUTHENTICATION: u8 = b'R';
const ERROR: u8 = b'E';
const OTHER_VERSION: u8 = b'v';
/// Those that follow a log-in: settings, a key, a notice, and that the server is ready.
const READY: u8 = b'Z';
const AFTER_LOG_IN: [u8; 4] = [b'S', b'K', b'N', READY];
/// Good-bye.
const TERMINATE: [u8; 5] = [b'X', 0, 0, 0, 4];
/// Our answer to what the server wants.
const PASSWORD: u8 = b'p';
/// What it may want: nothing more, the password, a digest of it, SASL and its parts.
const DONE: u32 = 0;
const CLEARTEXT: u32 = 3;
const DIGEST: u32 = 5;
const SASL: u32 = 10;
const SASL_CONTINUE: u32 = 11;
const SASL_FINAL: u32 = 12;
const SCRAM: &[u8] = b"SCRAM-SHA-256";
/// Class of errors by which a server that works refuses a user, and the error that there is no such database.
const REFUSED: &str = "28";
const NO_DATABASE: &str = "3D000";
const WHAT: &str = "reply to the log-in";

/// The wish for TLS (SSLRequest), after its length and before any other message; what a server that speaks it says to that.
const TLS: u32 = 80_877_103;
const WILLING: u8 = b'S';

/// Asks once, over TLS if there are `terms`. With a log-in it must be accepted. An error is why the server does not pass, in
/// words.
pub async fn ask(
    target: Target,
    check: &PostgreSqlCheck,
    login: Option<&Login>,
    terms: Option<&Terms<'_>>,
    limit: TimeLimit,
) -> Result<(), String> {
    let user = login.map(|login| &*login.username);
    let user = user.or(check.user.as_deref()).unwrap_or(DEFAULT_USER);
    let database = check.database.as_deref().unwrap_or(DEFAULT_DATABASE);
    let security = Security::of(terms, None, target, None)?;
    let mut stream: Box<dyn tls::Connection> = Box::new(tcp::connect(target, limit).await?);
    if let Some(security) = security {
        say(&mut stream, &with_length(&TLS.to_be_bytes()), limit).await?;
        if hear(&mut stream, 1, "reply to the wish for TLS", limit).await? != [WILLING] {
            return Err(tls::NOT_SPOKEN.to_owned());
        }
        stream = Box::new(security.over(stream, limit).await?);
    }
    let mut connection = Connection { stream, limit };
    let begin = start(user, database);
    say(&mut connection.stream, &begin, limit).await?;
    let mut dialogue = login.map(LogIn::new);
    loop {
        let (type_, content) = connection.next(login.is_some()).await?;
        match (type_, &mut dialogue) {
            (ERROR, _) => {
                let verdict = Refusal::of(&content).judge(login.is_some());
                await_end(&mut connection.stream, limit).await;
                return verdict;
            }
            (AUTHENTICATION, Some(dialogue)) => {
                if let Some(answer) = dialogue.answer(&content).await? {
                    connection.say(PASSWORD, &answer).await?;
                }
            }
            (READY, Some(dialogue)) if dialogue.is_done => break,
            (READY, Some(_)) => return Err(format!("{WHAT} is none of PostgreSQL")),
            (AUTHENTICATION, None) => break,
            _ => {}
        }
    }
    // The verdict is made; what comes of this is not looked at.
    if say(&mut connection.stream, &TERMINATE, limit).await.is_ok() {
        await_end(&mut connection.stream, limit).await;
    }
    Ok(())
}

struct Connection {
    stream: Box<dyn tls::Connection>,
    limit: TimeLimit,
}

impl Connection {
    /// Type and content of the next message, which is one that can come before a log-in, or after one.
    async fn next(&mut self, after_log_in: bool) -> Result<(u8, Vec<u8>), String> {
        let head = hear(&mut self.stream, 5, WHAT, self.limit).await?;
        let [type_, a, b, c, d] = head[..] else {
            return Err(format!("{WHAT} is none of PostgreSQL"));
        };
        let is_known = [AUTHENTICATION, ERROR, OTHER_VERSION].contains(&type_)
            || (after_log_in && AFTER_LOG_IN.contains(&type_));
        if !is_known {
            return Err(format!("{WHAT} is none of PostgreSQL"));
        }
        // The length counts itself.
        let length = u32::from_be_bytes([a, b, c, d]).saturating_sub(4);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let content = hear(&mut self.stream, length, WHAT, self.limit).await?;
        Ok((type_, content))
    }

    async fn say(&mut self, type_: u8, content: &[u8]) -> Result<(), String> {
        let mut message = vec![type_];
        message.extend(with_length(content));
        say(&mut self.stream, &message, self.limit).await
    }
}

/// Names user and database (StartupMessage).
fn start(user: &str, database: &str) -> Vec<u8> {
    let mut content = PROTOCOL.to_be_bytes().to_vec();
    for text in ["user", user, "database", database, ""] {
        content.extend(text.as_bytes());
        content.push(0);
    }
    with_length(&content)
}

/// A message after its length, which counts itself.
fn with_length(content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len() + 4).unwrap_or_default();
    let mut message = length.to_be_bytes().to_vec();
    message.extend(content);
    message
}

/// A log-in under way.
struct LogIn<'a> {
    login: &'a Login,
    exchange: Option<Exchange>,
    proven: Option<Proven>,
    is_done: bool,
}

impl<'a> LogIn<'a> {
    const fn new(login: &'a Login) -> Self {
        Self {
            login,
            exchange: None,
            proven: None,
            is_done: false,
        }
    }

    /// What is answered to what the server wants, if anything. An error is why there is no answer, in words.
    async fn answer(&mut self, wanted: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let Login { username, password } = self.login;
        let (kind, rest) = wanted
            .split_first_chunk()
            .ok_or_else(|| format!("{WHAT} is none of PostgreSQL"))?;
        let texts = |text: &str| [text.as_bytes(), b"\0"].concat();
        Ok(match u32::from_be_bytes(*kind) {
            DONE => {
                self.is_done = true;
                None
            }
            CLEARTEXT => Some(texts(password)),
            DIGEST => {
                let digest = |first: &[u8], second: &[u8]| {
                    let digest = Md5::new().chain_update(first).chain_update(second);
                    hexadecimal(&digest.finalize())
                };
                let inner = digest(password.as_bytes(), username.as_bytes());
                let salt = rest.get(..4).unwrap_or(rest);
                let outer = digest(inner.as_bytes(), salt);
                Some(texts(&format!("md5{outer}")))
            }
            SASL => {
                let mut ways = rest.split(|byte| *byte == 0);
                if !ways.any(|way| way == SCRAM) {
                    return Err(unknown_way("another way than SCRAM-SHA-256"));
                }
                // The server knows the user from the beginning.
                let exchange = Exchange::begin("")?;
                let first = with_size(exchange.first().as_bytes());
                self.exchange = Some(exchange);
                Some([SCRAM, b"\0", &first].concat())
            }
            SASL_CONTINUE => {
                let exchange = self.exchange.take();
                let exchange = exchange.ok_or_else(|| format!("{WHAT} is none of PostgreSQL"))?;
                let proven = exchange.answer(rest, password).await?;
                let last = proven.last.clone().into_bytes();
                self.proven = Some(proven);
                Some(last)
            }
            SASL_FINAL => {
                let proven = self.proven.take();
                if !proven.is_some_and(|proven| proven.is_mutual(rest)) {
                    return Err("server does not know the password itself".to_owned());
                }
                None
            }
            kind => return Err(unknown_way(&format!("way {kind}"))),
        })
    }
}

fn unknown_way(way: &str) -> String {
    format!(
        "{NOT_ASKED}the server wants {way} of this user: let pg_hba.conf say scram-sha-256 for him"
    )
}

/// Bytes after their number, which does not count itself.
fn with_size(bytes: &[u8]) -> Vec<u8> {
    let size = u32::try_from(bytes.len()).unwrap_or_default();
    [&size.to_be_bytes(), bytes].concat()
}

/// An error.
struct Refusal {
    state: String,
    text: String,
}

impl Refusal {
    /// From its fields, of one letter and a text each.
    fn of(content: &[u8]) -> Self {
        let (mut state, mut text) = (String::new(), String::new());
        let mut rest = content;
        while let Some((field, after)) = split_at_zero(rest) {
            let Some((letter, said)) = field.split_first() else {
                break;
            };
            let said = String::from_utf8_lossy(said).into_owned();
            match letter {
                b'C' => state = said,
                b'M' => text = said,
                _ => {}
            }
            rest = after;
        }
        Self { state, text }
    }

    fn judge(&self, is_login: bool) -> Result<(), String> {
        let Self { state, text } = self;
        let is_refusal = state.starts_with(REFUSED);
        match is_login {
            // Their text has the user.
            true if is_refusal => Err(format!("log-in refused: error {}", quoted(state))),
            false if is_refusal || state == NO_DATABASE => Ok(()),
            _ => Err(format!("error {}: {}", quoted(state), quoted(text))),
        }
    }
}
