//! Does a directory server answer an anonymous bind (RFC 4511)?

use std::net::SocketAddr;

use lvs_crds::health_check::TlsCheck;

use super::message::{hear, say};
use super::{TimeLimit, quoted, tls};

/// Bind of version 3 with neither name nor password, as message 1.
const BIND: [u8; 14] = [
    0x30, 0x0c, 0x02, 0x01, 0x01, 0x60, 0x07, 0x02, 0x01, 0x03, 0x04, 0x00, 0x80, 0x00,
];
/// Good-bye, as message 2.
const UNBIND: [u8; 7] = [0x30, 0x05, 0x02, 0x01, 0x02, 0x42, 0x00];
const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const ENUMERATED: u8 = 0x0a;
const OCTETS: u8 = 0x04;
const BIND_ANSWER: u8 = 0x61;
const WHAT: &str = "reply to the bind";
/// Results of a server that works: success, and that it wants to know who asks.
const SUCCESS: u8 = 0;
const STRONGER_AUTHENTICATION: u8 = 8;
const INAPPROPRIATE_AUTHENTICATION: u8 = 48;

/// Asks once. An error is why the server does not pass, in words.
pub async fn ask(
    target: SocketAddr,
    check: Option<&TlsCheck>,
    limit: TimeLimit,
) -> Result<(), String> {
    let mut stream = tls::connect(target, check, None, limit).await?;
    say(&mut stream, &BIND, limit).await?;
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
    let verdict = judge(&message);
    if verdict.is_ok() {
        // What comes of this is not looked at.
        let _ = say(&mut stream, &UNBIND, limit).await;
    }
    verdict
}

fn judge(message: &[u8]) -> Result<(), String> {
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
        Some((SUCCESS | STRONGER_AUTHENTICATION | INAPPROPRIATE_AUTHENTICATION, _)) => Ok(()),
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
