//! Does a RADIUS server accept a user (RFC 2865), or answer Status-Server (RFC 5997)?

use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use ring::rand::{SecureRandom, SystemRandom};

use super::target::Target;
use super::udp::Conversation;
use super::{NOT_ASKED, TimeLimit, hexadecimal};
use crate::health::credentials::Credentials;

/// Bytes before the attributes: code, identifier, length, authenticator.
const HEAD_BYTES: usize = 20;
const AUTHENTICATOR: std::ops::Range<usize> = 4..HEAD_BYTES;
const ACCESS_REQUEST: u8 = 1;
const ACCESS_ACCEPT: u8 = 2;
const ACCESS_REJECT: u8 = 3;
const ACCOUNTING_RESPONSE: u8 = 5;
const ACCESS_CHALLENGE: u8 = 11;
const STATUS_SERVER: u8 = 12;
const USER_NAME: u8 = 1;
const USER_PASSWORD: u8 = 2;
const NAS_IDENTIFIER: u8 = 32;
const MESSAGE_AUTHENTICATOR: u8 = 80;
/// Who asks; a request must say so (RFC 2865, 4.1).
const IDENTIFIER: &[u8] = b"lvs-operator-agent";
/// A password is hidden in blocks of so many bytes, of 128 bytes at most.
const BLOCK_BYTES: usize = 16;
const LONGEST_PASSWORD_BYTES: usize = 128;

/// Asks once. An error is why the server does not pass, in words.
pub async fn ask(
    target: Target,
    credentials: Credentials<'_>,
    limit: TimeLimit,
) -> Result<(), String> {
    let request = Request::new(credentials)?;
    let conversation = Conversation::begin(target, &request.bytes).await?;
    let mut strange = false;
    loop {
        let reply = conversation.next(limit).await.map_err(|why| {
            match why.starts_with("no reply") {
                true if strange => {
                    "replies are not sealed with the shared secret: is it the server's?".to_owned()
                }
                // What a server does that does not know the one who asks, or hears another secret (RFC 2865, 3).
                true => format!(
                    "{why}: the server is down, does not know this node or has another secret"
                ),
                false => why,
            }
        })?;
        match request.verify(&reply) {
            Some(code) => return request.judge(code),
            None => strange = true,
        }
    }
}

/// What is sent, and what its answer is recognised by.
struct Request {
    bytes: Vec<u8>,
    secret: String,
    is_login: bool,
}

impl Request {
    /// A log-in where there is a user, else Status-Server.
    fn new(credentials: Credentials<'_>) -> Result<Self, String> {
        let secret = credentials.required("secret")?;
        let username = credentials.optional("username")?;
        let password = match username {
            Some(_) => credentials.required("password")?,
            None => String::new(),
        };
        if password.len() > LONGEST_PASSWORD_BYTES {
            let key = credentials.key("password");
            return Err(format!(
                "{NOT_ASKED}{key} is longer than {LONGEST_PASSWORD_BYTES} bytes, which RADIUS cannot carry"
            ));
        }
        let mut random = [0; 17];
        SystemRandom::new()
            .fill(&mut random)
            .map_err(|_| format!("{NOT_ASKED}the kernel gives no random number"))?;
        let [identifier, authenticator @ ..] = random;
        let login = username.as_deref().map(|username| (username, &*password));
        Ok(Self {
            bytes: message(identifier, &authenticator, &secret, login),
            secret,
            is_login: login.is_some(),
        })
    }

    /// The code of a reply to this request by somebody who knows the secret; `None` of anything else.
    fn verify(&self, reply: &[u8]) -> Option<u8> {
        let code = *reply.first()?;
        let length = usize::from(u16::from_be_bytes([*reply.get(2)?, *reply.get(3)?]));
        // Bytes after the length that it says do not belong to it (RFC 2865, 3).
        let mut reply = reply.get(..length)?.to_vec();
        let known = reply.get(AUTHENTICATOR)?.to_vec();
        let ours = self.bytes.get(AUTHENTICATOR)?;
        reply.get_mut(AUTHENTICATOR)?.copy_from_slice(ours);
        let digest = Md5::new().chain_update(&reply).chain_update(&self.secret);
        let is_sealed = digest.finalize().as_slice() == known;
        let is_ours = reply.get(1) == self.bytes.get(1);
        (is_sealed && is_ours && has_right_seal(&mut reply, &self.secret)?).then_some(code)
    }

    fn judge(&self, code: u8) -> Result<(), String> {
        match (self.is_login, code) {
            (true, ACCESS_ACCEPT) | (false, ACCESS_ACCEPT | ACCOUNTING_RESPONSE) => Ok(()),
            (true, ACCESS_REJECT) => Err("log-in refused: Access-Reject".to_owned()),
            (true, ACCESS_CHALLENGE) => {
                Err("log-in refused: Access-Challenge, more than a password is wanted".to_owned())
            }
            (false, ACCESS_REJECT) => Err("Status-Server is answered by Access-Reject".to_owned()),
            (_, code) => Err(format!("reply has code {}", hexadecimal(&[code]))),
        }
    }
}

/// A sealed request. The seal comes first (RFC 3579, 3.2), as servers want it since Blast-RADIUS (CVE-2024-3596).
fn message(
    identifier: u8,
    authenticator: &[u8; 16],
    secret: &str,
    login: Option<(&str, &str)>,
) -> Vec<u8> {
    let code = if login.is_some() {
        ACCESS_REQUEST
    } else {
        STATUS_SERVER
    };
    let mut bytes = vec![code, identifier, 0, 0];
    bytes.extend(authenticator);
    attribute(&mut bytes, MESSAGE_AUTHENTICATOR, &[0; BLOCK_BYTES]);
    if let Some((username, password)) = login {
        attribute(&mut bytes, USER_NAME, username.as_bytes());
        let hidden = hide(password, secret, authenticator);
        attribute(&mut bytes, USER_PASSWORD, &hidden);
    }
    attribute(&mut bytes, NAS_IDENTIFIER, IDENTIFIER);
    let length = u16::try_from(bytes.len()).unwrap_or_default();
    if let Some(place) = bytes.get_mut(2..4) {
        place.copy_from_slice(&length.to_be_bytes());
    }
    let seal = seal(&bytes, secret);
    if let (Some(place), Some(seal)) = (bytes.get_mut(HEAD_BYTES + 2..HEAD_BYTES + 18), seal) {
        place.copy_from_slice(&seal);
    }
    bytes
}

fn attribute(bytes: &mut Vec<u8>, type_: u8, value: &[u8]) {
    bytes.push(type_);
    bytes.push(u8::try_from(value.len() + 2).unwrap_or_default());
    bytes.extend(value);
}

/// A password as RFC 2865, 5.2 hides it.
fn hide(password: &str, secret: &str, authenticator: &[u8; 16]) -> Vec<u8> {
    let mut padded = password.as_bytes().to_vec();
    let blocks = padded.len().div_ceil(BLOCK_BYTES).max(1);
    padded.resize(blocks * BLOCK_BYTES, 0);
    let mut hidden: Vec<u8> = Vec::new();
    let mut before = authenticator.to_vec();
    for block in padded.chunks(BLOCK_BYTES) {
        let digest = Md5::new().chain_update(secret).chain_update(&before);
        let digest = digest.finalize();
        before = block
            .iter()
            .zip(digest.as_slice())
            .map(|(byte, mask)| byte ^ mask)
            .collect();
        hidden.extend(&before);
    }
    hidden
}

/// HMAC-MD5 of a message in which the place of the seal is zero; a secret of any length will do.
fn seal(bytes: &[u8], secret: &str) -> Option<[u8; BLOCK_BYTES]> {
    let mac = Hmac::<Md5>::new_from_slice(secret.as_bytes()).ok()?;
    let seal = mac.chain_update(bytes).finalize().into_bytes();
    seal.as_slice().try_into().ok()
}

/// Whether the seal of a reply is right, in which the authenticator is that of the request; without one there is nothing wrong
/// with it, as older servers send none. `None` where attributes cannot be read.
fn has_right_seal(reply: &mut [u8], secret: &str) -> Option<bool> {
    let mut at = HEAD_BYTES;
    while at < reply.len() {
        let (type_, length) = (*reply.get(at)?, usize::from(*reply.get(at + 1)?));
        let value = reply.get_mut(at + 2..at + length)?;
        if type_ == MESSAGE_AUTHENTICATOR {
            let known = value.to_vec();
            value.fill(0);
            return Some(seal(reply, secret)?.as_slice() == known);
        }
        at += length;
    }
    Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 2865, 7.1: user nemo with password arctangent, and its Access-Accept.
    #[test]
    fn the_example_of_the_rfc_is_hidden_and_verified_as_there() {
        let authenticator = [
            0x0f, 0x40, 0x3f, 0x94, 0x73, 0x97, 0x80, 0x57, 0xbd, 0x83, 0xd5, 0xcb, 0x98, 0xf4,
            0x22, 0x7a,
        ];
        let secret = "xyzzy5461";
        let hidden = hide("arctangent", secret, &authenticator);
        assert_eq!(hexadecimal(&hidden), "0dbe708d93d413ce3196e43f782a0aee");
        let reply = [
            0x02, 0x00, 0x00, 0x26, 0x86, 0xfe, 0x22, 0x0e, 0x76, 0x24, 0xba, 0x2a, 0x10, 0x05,
            0xf6, 0xbf, 0x9b, 0x55, 0xe0, 0xb2, 0x06, 0x06, 0x00, 0x00, 0x00, 0x01, 0x0f, 0x06,
            0x00, 0x00, 0x00, 0x00, 0x0e, 0x06, 0xc0, 0xa8, 0x01, 0x03,
        ];
        let request = Request {
            bytes: message(0, &authenticator, secret, Some(("nemo", "arctangent"))),
            secret: secret.to_owned(),
            is_login: true,
        };
        assert_eq!(request.verify(&reply), Some(ACCESS_ACCEPT));
        for index in 0..reply.len() {
            let mut changed = reply;
            changed[index] ^= 1;
            assert_eq!(request.verify(&changed), None, "byte {index}");
            assert_eq!(request.verify(&reply[..index]), None, "cut at {index}");
        }
        let other = Request {
            secret: "another".to_owned(),
            ..request
        };
        assert_eq!(other.verify(&reply), None);
    }

    /// RFC 5997, 6.1: Status-Server with its seal; ours says who asks instead.
    #[test]
    fn the_seal_of_the_rfc_is_as_there() {
        let mut bytes = vec![0x0c, 0xda, 0x00, 0x26];
        bytes.extend([
            0x8a, 0x54, 0xf4, 0x68, 0x6f, 0xb3, 0x94, 0xc5, 0x28, 0x66, 0xe3, 0x02, 0x18, 0x5d,
            0x06, 0x23,
        ]);
        attribute(&mut bytes, MESSAGE_AUTHENTICATOR, &[0; BLOCK_BYTES]);
        let seal = seal(&bytes, "xyzzy5461").map(|seal| hexadecimal(&seal));
        assert_eq!(seal.as_deref(), Some("5a665e2e1e8411f3e243822097c84fa3"));
    }
}
