//! Does a PostgreSQL server judge a user? As pg_isready asks.

use std::net::SocketAddr;

use lvs_crds::health_check::PostgreSqlCheck;

use super::message::{await_end, hear, say, split_at_zero};
use super::{TimeLimit, quoted, tcp};

const DEFAULT_USER: &str = "lvs";
const DEFAULT_DATABASE: &str = "postgres";
/// Version 3.0 of the protocol.
const PROTOCOL: u32 = 3 << 16;
/// Types of messages: what the server wants for a log-in or that it is done, an error, that it knows an older version.
const AUTHENTICATION: u8 = b'R';
const ERROR: u8 = b'E';
const OTHER_VERSION: u8 = b'v';
/// Good-bye.
const TERMINATE: [u8; 5] = [b'X', 0, 0, 0, 4];
/// Class of errors by which a server that works refuses a user, and the error that there is no such database.
const REFUSED: &str = "28";
const NO_DATABASE: &str = "3D000";

/// Asks once. An error is why the server does not pass, in words.
pub async fn ask(
    target: SocketAddr,
    check: &PostgreSqlCheck,
    limit: TimeLimit,
) -> Result<(), String> {
    let what = "reply to the log-in";
    let mut stream = tcp::connect(target, limit).await?;
    say(&mut stream, &log_in(check), limit).await?;
    loop {
        let head = hear(&mut stream, 5, what, limit).await?;
        let [type_, a, b, c, d] = head[..] else {
            return Err(format!("{what} is none of PostgreSQL"));
        };
        if ![AUTHENTICATION, ERROR, OTHER_VERSION].contains(&type_) {
            return Err(format!("{what} is none of PostgreSQL"));
        }
        // The length counts itself.
        let length = u32::from_be_bytes([a, b, c, d]).saturating_sub(4);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let content = hear(&mut stream, length, what, limit).await?;
        match type_ {
            OTHER_VERSION => {}
            AUTHENTICATION => {
                // The verdict is made; what comes of this is not looked at.
                if say(&mut stream, &TERMINATE, limit).await.is_ok() {
                    await_end(&mut stream, limit).await;
                }
                return Ok(());
            }
            _ => {
                let verdict = judge(&content);
                await_end(&mut stream, limit).await;
                return verdict;
            }
        }
    }
}

/// Names user and database (StartupMessage).
fn log_in(check: &PostgreSqlCheck) -> Vec<u8> {
    let user = check.user.as_deref().unwrap_or(DEFAULT_USER);
    let database = check.database.as_deref().unwrap_or(DEFAULT_DATABASE);
    let mut content = PROTOCOL.to_be_bytes().to_vec();
    for text in ["user", user, "database", database, ""] {
        content.extend(text.as_bytes());
        content.push(0);
    }
    let length = u32::try_from(content.len() + 4).unwrap_or_default();
    let mut message = length.to_be_bytes().to_vec();
    message.extend(content);
    message
}

/// What an error says: fields of one letter and a text each.
fn judge(content: &[u8]) -> Result<(), String> {
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
    if state.starts_with(REFUSED) || state == NO_DATABASE {
        return Ok(());
    }
    Err(format!("error {}: {}", quoted(&state), quoted(&text)))
}
