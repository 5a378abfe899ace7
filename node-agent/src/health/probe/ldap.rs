//! Does a directory server answer a bind (RFC 4511), anonymous or not?

use super::message::{hear, say};
use super::target::Target;
use super::tls::{self, Terms};
use super::{NOT_ASKED, TimeLimit, quoted};
use crate::health::credentials::Login;

/// Good-bye, as message 2.
const UNBIND: [u8; 7] = [0x30, 0x05, 0x02, 0x01, 0x02, 0x42, 0x00];
const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const ENUMERATED: u8 = 0x0a;
const OCTETS: u8 = 0x04;
const BIND: u8 = 0x60;
const PASSWORD: u8 = 0x80;
const BIND_ANSWER: u8 = 0x61;
/// Of the protocol.
const VERSION: u8 = 3;
const WHAT: &str = "reply to the bind";
/// Results of a server that works: success, and that it wants to know who asks.
const SUCCESS: u8 = 0;
const STRONGER_AUTHENTICATION: u8 = 8;
const INAPPROPRIATE_AUTHENTICATION: u8 = 48;
/// Result by which such a server refuses name or password.
const INVALID_CREDENTIALS: u8 = 49;

/// Asks once, as the user whose distinguished name a log-in has, else as nobody. An error is why the server does not pass, in
/// words.
pub async fn ask(
    target: Target,
    login: Option<&Login>,
    terms: Option<&Terms<'_>>,
    limit: TimeLimit,
) -> Result<(), String> {
    let bind = bind(login)?;
    let mut stream = tls::connect(target, terms, None, limit).await?;
    say(&mut stream, &bind, limit).await?;
    let head = hear(&mut stream, 2, WHAT, limit).await?;
    let [SEQUENCE, first] = head[..] else {
        return Err(format!("{WHAT} is none of LDAP"));
    };
    // The length is that byte, or in the bytes after it, whose number it says.
    let length = if first < 0x80 {
        usize::from(first)
    } else {
        let count = usize::from(first & 0x7f);
        if !(1..=4).contains(&count) {
            return Err(format!("{WHAT} is none of LDAP"));
        }
        let digits = hear(&mut stream, count, WHAT, limit).await?;
        number(&digits).unwrap_or(usize::MAX)
    };
    let message = hear(&mut stream, length, WHAT, limit).await?;
    let verdict = judge(&message, login.is_some());
    if verdict.is_ok() {
        // What comes of this is not looked at.
        let _ = say(&mut stream, &UNBIND, limit).await;
    }
    verdict
}

/// A bind, as message 1.
fn bind(login: Option<&Login>) -> Result<Vec<u8>, String> {
    let (name, password) = match login {
        // RFC 4513, 5.1.2: a directory takes that for nobody, and lets him in.
        Some(login) if login.password.is_empty() || login.username.is_empty() => {
            return Err(format!(
                "{NOT_ASKED}user name and password of a log-in by LDAP must not be empty"
            ));
        }
        Some(login) => (&*login.username, &*login.password),
        None => ("", ""),
    };
    let content = [
        written(INTEGER, &[VERSION]),
        written(OCTETS, name.as_bytes()),
        written(PASSWORD, password.as_bytes()),
    ];
    let message = [written(INTEGER, &[1]), written(BIND, &content.concat())];
    Ok(written(SEQUENCE, &message.concat()))
}

/// An element of this type.
fn written(type_: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![type_];
    match u8::try_from(content.len()) {
        Ok(length) if length < 0x80 => bytes.push(length),
        // Two bytes say the length: nothing here is longer.
        _ => {
            let length = u16::try_from(content.len()).unwrap_or(u16::MAX);
            bytes.push(0x82);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes.extend(content);
    bytes
}

fn judge(message: &[u8], is_login: bool) -> Result<(), String> {
    let answer = || {
        let (number, rest) = element(message, INTEGER)?;
        let (answer, _) = element(rest, BIND_ANSWER)?;
        let (result, rest) = element(answer, ENUMERATED)?;
        let (_, rest) = element(rest, OCTETS)?;
        let (words, _) = element(rest, OCTETS)?;
        (number == [1]).then_some(())?;
        Some((*result.first()?, words))
    };
    match answer() {
        None => Err(format!("{WHAT} is none of LDAP")),
        Some((SUCCESS, _)) => Ok(()),
        Some((STRONGER_AUTHENTICATION | INAPPROPRIATE_AUTHENTICATION, _)) if !is_login => Ok(()),
        // What the server says of it may have the name.
        Some((INVALID_CREDENTIALS, _)) if is_login => {
            Err(format!("log-in refused: result {INVALID_CREDENTIALS}"))
        }
        Some((result, _)) if is_login => Err(format!("{WHAT} is result {result}")),
        Some((result, words)) => {
            let words = String::from_utf8_lossy(words);
            Err(format!("{WHAT} is result {result} {}", quoted(&words)))
        }
    }
}

/// The content of an element of this type, and what comes after it; `None` where it is another one, or cut.
fn element(bytes: &[u8], type_: u8) -> Option<(&[u8], &[u8])> {
    let (found, rest) = bytes.split_first()?;
    let (first, mut rest) = rest.split_first()?;
    let mut length = usize::from(*first);
    if *first >= 0x80 {
        let digits = rest.get(..usize::from(first & 0x7f))?;
        rest = rest.get(digits.len()..)?;
        length = number(digits)?;
    }
    (*found == type_).then_some(())?;
    rest.split_at_checked(length)
}

/// The number that bytes are, the first of which weighs most; `None` where it is too large.
fn number(digits: &[u8]) -> Option<usize> {
    digits.iter().try_fold(0_usize, |number, byte| {
        number.checked_mul(256)?.checked_add(usize::from(*byte))
    })
}
