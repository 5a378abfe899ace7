//! Does a Redis server answer PING?

use std::net::SocketAddr;

use lvs_crds::health_check::TlsCheck;

use super::conversation::Conversation;
use super::{TimeLimit, tls};

/// Asks once. A server that wants a password first passes, as it answers; one that loads its data, or has lost its master, says
/// so and does not. An error is why, in words.
pub async fn ask(
    target: SocketAddr,
    check: Option<&TlsCheck>,
    limit: TimeLimit,
) -> Result<(), String> {
    let stream = tls::connect(target, check, None, limit).await?;
    let mut conversation = Conversation::over(stream, limit);
    conversation.say("PING").await?;
    let answers = ["+PONG", "-NOAUTH"];
    conversation.expect(&answers, "reply to PING").await?;
    conversation.take_leave("QUIT").await;
    Ok(())
}
