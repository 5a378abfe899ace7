//! SCRAM-SHA-256 (RFC 5802, RFC 7677), the client's side, without binding to a channel.

use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use ring::rand::{SecureRandom, SystemRandom};
use ring::{hmac, pbkdf2};
use tokio::task::spawn_blocking;

use super::{NOT_ASKED, hexadecimal};

/// That no channel is bound, and none could be.
const NO_CHANNEL: &str = "n,,";
/// Most rounds that are computed for a server; each 100,000 are 25 ms of a processor.
const MOST_ROUNDS: u32 = 200_000;

/// A log-in before anything was said.
pub struct Exchange {
    username: String,
    nonce: String,
}

impl Exchange {
    /// A new one; of a server that knows the user already, such as PostgreSQL, its name is empty.
    pub fn begin(username: &str) -> Result<Self, String> {
        let mut number = [0; 18];
        SystemRandom::new()
            .fill(&mut number)
            .map_err(|_| format!("{NOT_ASKED}the kernel gives no random number"))?;
        Ok(Self {
            username: username.replace('=', "=3D").replace(',', "=2C"),
            nonce: hexadecimal(&number),
        })
    }

    fn first_bare(&self) -> String {
        format!("n={},r={}", self.username, self.nonce)
    }

    /// What is said first.
    pub fn first(&self) -> String {
        format!("{NO_CHANNEL}{}", self.first_bare())
    }

    /// What the password comes to with what the server said first. An error is what is wrong with that, in words.
    pub async fn answer(self, challenge: &[u8], password: &str) -> Result<Proven, String> {
        let challenge = String::from_utf8_lossy(challenge);
        let field = |name| {
            let mut fields = challenge.split(',');
            fields.find_map(|field| field.strip_prefix(name))
        };
        let fields = || Some((field("r=")?, field("s=")?, field("i=")?));
        let (nonce, salt, rounds) = fields().ok_or("challenge is none of SCRAM")?;
        let salt = STANDARD.decode(salt).ok();
        let rounds = rounds.parse().ok().and_then(NonZeroU32::new);
        let (Some(salt), Some(rounds)) = (salt, rounds) else {
            return Err("challenge is none of SCRAM".to_owned());
        };
        if rounds.get() > MOST_ROUNDS {
            return Err(format!(
                "{NOT_ASKED}the server wants {rounds} rounds of SCRAM, {MOST_ROUNDS} at most are made"
            ));
        }
        if !nonce.starts_with(&self.nonce) {
            return Err("challenge is no answer to this log-in".to_owned());
        }
        let channel = STANDARD.encode(NO_CHANNEL);
        let unproven = format!("c={channel},r={nonce}");
        let said = format!("{},{challenge},{unproven}", self.first_bare());
        let password = password.to_owned();
        // It takes milliseconds of a processor, which other questions need not wait for.
        let salted = spawn_blocking(move || {
            let mut salted = [0; SHA256_OUTPUT_LEN];
            let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
            pbkdf2::derive(algorithm, rounds, &salt, password.as_bytes(), &mut salted);
            salted
        });
        let salted = salted
            .await
            .map_err(|error| format!("{NOT_ASKED}{error}"))?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &salted);
        let client = hmac::sign(&key, b"Client Key");
        let server = hmac::sign(&key, b"Server Key");
        let stored = digest(&SHA256, client.as_ref());
        let stored = hmac::Key::new(hmac::HMAC_SHA256, stored.as_ref());
        let signature = hmac::sign(&stored, said.as_bytes());
        let bytes = client.as_ref().iter().zip(signature.as_ref());
        let proof: Vec<u8> = bytes.map(|(byte, mask)| byte ^ mask).collect();
        let server = hmac::Key::new(hmac::HMAC_SHA256, server.as_ref());
        Ok(Proven {
            last: format!("{unproven},p={}", STANDARD.encode(proof)),
            signature: format!(
                "v={}",
                STANDARD.encode(hmac::sign(&server, said.as_bytes()))
            ),
        })
    }
}

/// What is left to be said and heard.
pub struct Proven {
    /// What is said last.
    pub last: String,
    signature: String,
}

impl Proven {
    /// Whether the server knows the password as well.
    pub fn is_mutual(&self, answer: &[u8]) -> bool {
        let fields = String::from_utf8_lossy(answer);
        fields.split(',').any(|field| field == self.signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(username: &str, nonce: &str) -> Exchange {
        Exchange {
            username: username.to_owned(),
            nonce: nonce.to_owned(),
        }
    }

    const CHALLENGE: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    #[tokio::test]
    async fn the_example_of_the_rfc_is_answered_as_there() {
        let exchange = exchange("user", "rOprNGfwEbeRWgbNEkqO");
        assert_eq!(exchange.first(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let proven = exchange.answer(CHALLENGE.as_bytes(), "pencil").await;
        let Ok(proven) = proven else {
            return assert_eq!(proven.err(), None);
        };
        assert_eq!(
            proven.last,
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        let signature = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
        assert!(proven.is_mutual(signature));
        assert!(!proven.is_mutual(b"v=6rriTRBi23WpRR"));
    }

    #[tokio::test]
    async fn a_challenge_that_is_none_is_told() {
        for (challenge, why) in [
            ("e=other-error", "challenge is none of SCRAM"),
            ("r=abcd,s=!,i=4096", "challenge is none of SCRAM"),
            ("r=abcd,s=W22Z,i=0", "challenge is none of SCRAM"),
            (
                "r=xbcd,s=W22Z,i=4096",
                "challenge is no answer to this log-in",
            ),
            (
                "r=abcd,s=W22Z,i=200001",
                "not asked: the server wants 200001 rounds of SCRAM, 200000 at most are made",
            ),
        ] {
            let answer = exchange("", "abc").answer(challenge.as_bytes(), "pencil");
            assert_eq!(answer.await.err().as_deref(), Some(why), "{challenge}");
        }
    }
}
