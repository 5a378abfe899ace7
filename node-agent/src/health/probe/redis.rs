//! Does a Redis server answer PING?

use std::net::SocketAddr;

use lvs_crds::health_check::TlsCheck;
use tokio::io::{AsyncRead, AsyncWrite};

use super::conversation::Conversation;
use super::tls::Security;
use super::{TimeLimit, tcp};

/// Asks once. A server that wants a password first passes, as it answers; one that loads its data, or has lost its master, says
/// so and does not. An error is why, in words.
pub async fn ask(
    target: SocketAddr,
    check: Option<&TlsCheck>,
    limit: TimeLimit,
) -> Result<(), String> {
    let security = check.map(|check| Security::new(check, None, target, None));
    let security = security.transpose()?;
    let stream = tcp::connect(target, limit).await?;
    match security {
        None => talk(Conversation::over(stream, limit)).await,
        Some(security) => {
            let stream = security.over(stream, limit).await?;
            talk(Conversation::over(stream, limit)).await
        }
    }
}

async fn talk<S>(mut conversation: Conversation<S>) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    conversation.say("PING").await?;
    let answers = ["+PONG", "-NOAUTH"];
    conversation.expect(&answers, "reply to PING").await?;
    conversation.take_leave("QUIT").await;
    Ok(())
}
