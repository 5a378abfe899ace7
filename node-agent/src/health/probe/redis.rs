//! Does a Redis server answer PING?

use super::TimeLimit;
use super::conversation::{Conversation, accepted};
use super::target::Target;
use super::tls::{self, Terms};
use crate::health::credentials::Credentials;

/// Asks once. Without credentials a server that wants a password first passes, as it answers; one that loads its data, or has
/// lost its master, says so and does not. An error is why, in words.
pub async fn ask(
    target: Target,
    credentials: Option<Credentials<'_>>,
    terms: Option<&Terms<'_>>,
    limit: TimeLimit,
) -> Result<(), String> {
    let log_in = credentials.map(log_in).transpose()?;
    let stream = tls::connect(target, terms, None, limit).await?;
    let mut conversation = Conversation::over(stream, limit);
    let mut answers: &[&str] = &["+PONG", "-NOAUTH"];
    if let Some(log_in) = log_in {
        conversation.say_all(&log_in).await?;
        let reply = conversation.next("reply to the log-in").await?;
        accepted(&reply, &["+OK"])?;
        answers = &["+PONG"];
    }
    conversation.say("PING").await?;
    conversation.expect(answers, "reply to PING").await?;
    conversation.take_leave("QUIT").await;
    Ok(())
}

/// AUTH with a password, and with a user where there is one; each word with its length, so that it may hold anything.
fn log_in(credentials: Credentials<'_>) -> Result<String, String> {
    let username = credentials.optional("username")?;
    let password = credentials.required("password")?;
    let words = [Some("AUTH".to_owned()), username, Some(password)];
    let words: Vec<String> = words
        .into_iter()
        .flatten()
        .map(|word| format!("${}\r\n{word}\r\n", word.len()))
        .collect();
    Ok(format!("*{}\r\n{}", words.len(), words.concat()))
}
