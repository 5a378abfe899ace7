//! Does a server of MySQL or MariaDB judge a user?
//!
//! To connect and to end the connection after the greeting would be enough to see that it lives, but the server counts such
//! hosts and blocks them after a hundred (`max_connect_errors`). So a user is named, with an empty password.

use std::net::SocketAddr;

use lvs_crds::health_check::MySqlCheck;
use tokio::net::TcpStream;

use super::message::{await_end, hear, say, split_at_zero};
use super::{TimeLimit, quoted, tcp};

const DEFAULT_USER: &str = "lvs";
/// Version of the protocol in the greeting; all servers of this century have it.
const PROTOCOL: u8 = 10;
/// What a packet begins with: an error, a success, the wish for another way to log in.
const ERROR: u8 = 0xff;
const SUCCESS: u8 = 0x00;
const OTHER_WAY: u8 = 0xfe;
/// LONG_PASSWORD, PROTOCOL_41, SECURE_CONNECTION and PLUGIN_AUTH.
const CAPABILITIES: u32 = 0x0000_0001 | 0x0000_0200 | 0x0000_8000 | 0x0008_0000;
const LONGEST_PACKET: u32 = 1 << 24;
/// utf8_general_ci, which every version knows.
const CHARACTERS: u8 = 33;
const RESERVED: [u8; 23] = [0; 23];
const WAY: &[u8] = b"mysql_native_password\0";
const QUIT: u8 = 0x01;
/// Errors by which a server that works refuses a user: access denied, to a database, without the plugin, by another
/// protocol of passwords, to a locked account, without TLS.
const REFUSALS: [u16; 7] = [1044, 1045, 1698, 1251, 3118, 4151, 3159];

/// Asks once. An error is why the server does not pass, in words.
pub async fn ask(target: SocketAddr, check: &MySqlCheck, limit: TimeLimit) -> Result<(), String> {
    let mut connection = Connection {
        stream: tcp::connect(target, limit).await?,
        limit,
    };
    let (number, greeting) = connection.packet("greeting").await?;
    match greeting.first() {
        Some(&PROTOCOL) => {}
        Some(&ERROR) => return Err(Refusal::of(&greeting).words()),
        _ => return Err("greeting is none of MySQL".to_owned()),
    }
    let user = check.user.as_deref().unwrap_or(DEFAULT_USER);
    connection
        .say(number.wrapping_add(1), &log_in(user))
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
    stream: TcpStream,
    limit: TimeLimit,
}

impl Connection {
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

/// Names a user with an empty password (HandshakeResponse41).
fn log_in(user: &str) -> Vec<u8> {
    let mut content = Vec::new();
    content.extend(CAPABILITIES.to_le_bytes());
    content.extend(LONGEST_PACKET.to_le_bytes());
    content.push(CHARACTERS);
    content.extend(RESERVED);
    content.extend(user.as_bytes());
    content.push(0);
    // The password's length.
    content.push(0);
    content.extend(WAY);
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
