//! Do servers greet that talk by lines of text: mail, mailboxes, files?

use std::net::IpAddr;

use super::conversation::{Conversation, accepted};
use super::target::Target;
use super::tls::{Connection, Security, Terms};
use super::{NOT_ASKED, TimeLimit, quoted, tcp, words};
use crate::health::credentials::Login;

/// How one kind of server is talked to.
#[derive(Clone, Debug)]
pub enum Dialect {
    /// RFC 5321, with the name that the director gives itself; its address where there is none.
    Smtp(Option<String>),
    /// RFC 959.
    Ftp,
    /// RFC 9051.
    Imap,
    /// RFC 1939.
    Pop3,
}

/// Who speaks it, from which address.
struct Speaker<'a> {
    dialect: Dialect,
    own: IpAddr,
    login: Option<&'a Login>,
}

impl Speaker<'_> {
    /// The first command of mail.
    fn hello(&self, name: Option<&str>) -> String {
        // An address where a name is wanted: RFC 5321, 4.1.3.
        match (name, self.own) {
            (Some(name), _) => format!("EHLO {name}"),
            (None, IpAddr::V4(own)) => format!("EHLO [{own}]"),
            (None, IpAddr::V6(own)) => format!("EHLO [IPv6:{own}]"),
        }
    }

    /// A greeting comes; over TLS that begins afterwards it does not come again.
    async fn greeting<S: Connection>(
        &self,
        conversation: &mut Conversation<S>,
    ) -> Result<(), String> {
        let what = "greeting";
        let greeting = match self.dialect {
            Dialect::Smtp(_) | Dialect::Ftp => conversation.expect_code("220", what).await,
            Dialect::Imap => conversation.expect(&["* OK", "* PREAUTH"], what).await,
            Dialect::Pop3 => conversation.expect(&["+OK"], what).await,
        };
        greeting.map(drop)
    }

    /// TLS is wanted from here on.
    async fn start_tls<S: Connection>(
        &self,
        conversation: &mut Conversation<S>,
    ) -> Result<(), String> {
        let agreed = match &self.dialect {
            Dialect::Smtp(name) => {
                conversation.say(&self.hello(name.as_deref())).await?;
                conversation.expect_code("250", "reply to EHLO").await?;
                conversation.say("STARTTLS").await?;
                conversation.expect_code("220", "reply to STARTTLS").await
            }
            Dialect::Ftp => {
                conversation.say("AUTH TLS").await?;
                conversation.expect_code("234", "reply to AUTH TLS").await
            }
            Dialect::Imap => {
                conversation.say("a STARTTLS").await?;
                let reply = conversation.find("a ", "reply to STARTTLS").await?;
                ok_of(reply, "STARTTLS")
            }
            Dialect::Pop3 => {
                conversation.say("STLS").await?;
                conversation.expect(&["+OK"], "reply to STLS").await
            }
        };
        agreed.map(drop)
    }

    /// User and password are accepted.
    async fn log_in<S: Connection>(
        &self,
        conversation: &mut Conversation<S>,
        login: &Login,
    ) -> Result<(), String> {
        let what = "reply to the log-in";
        let Login { username, password } = login;
        match &self.dialect {
            // Mail is taken without one.
            Dialect::Smtp(_) => Ok(()),
            Dialect::Ftp => {
                conversation.say(&format!("USER {username}")).await?;
                let reply = conversation.next_code(what).await?;
                accepted(&reply, &["331", "230"])?;
                if reply.starts_with("230") {
                    return Ok(());
                }
                conversation.say(&format!("PASS {password}")).await?;
                // 202: a password is superfluous.
                accepted(&conversation.next_code(what).await?, &["230", "202"])
            }
            Dialect::Imap => {
                let (username, password) = (string(username), string(password));
                let line = format!("l LOGIN {username} {password}");
                conversation.say(&line).await?;
                let reply = conversation.find("l ", what).await?;
                let reply = reply.get(2..).unwrap_or_default().to_ascii_uppercase();
                accepted(&reply, &["OK"])
            }
            Dialect::Pop3 => {
                conversation.say(&format!("USER {username}")).await?;
                accepted(&conversation.next(what).await?, &["+OK"])?;
                conversation.say(&format!("PASS {password}")).await?;
                accepted(&conversation.next(what).await?, &["+OK"])
            }
        }
    }

    /// A log-in if there is one, something that the server has to answer, and good-bye.
    async fn talk<S: Connection>(&self, mut conversation: Conversation<S>) -> Result<(), String> {
        if let Some(login) = self.login {
            self.log_in(&mut conversation, login).await?;
        }
        match &self.dialect {
            Dialect::Smtp(name) => {
                conversation.say(&self.hello(name.as_deref())).await?;
                conversation.expect_code("250", "reply to EHLO").await?;
                conversation.take_leave("QUIT").await;
            }
            // Before a log-in files and mailboxes answer little else.
            Dialect::Ftp | Dialect::Pop3 => conversation.take_leave("QUIT").await,
            Dialect::Imap => {
                conversation.say("b NOOP").await?;
                let reply = conversation.find("b ", "reply to NOOP").await?;
                ok_of(reply, "NOOP")?;
                conversation.take_leave("c LOGOUT").await;
            }
        }
        Ok(())
    }
}

/// A text in quotation marks (RFC 9051, 4.3).
fn string(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The tagged answer of an IMAP server (RFC 9051, 7.1), which must be OK.
fn ok_of(reply: String, command: &str) -> Result<String, String> {
    let said = reply.split(' ').nth(1).unwrap_or_default();
    if said.eq_ignore_ascii_case("OK") {
        return Ok(reply);
    }
    let reply = quoted(&reply);
    Err(format!("reply to {command} is {reply}, expected OK"))
}

/// Asks once, in plain text or over TLS on these terms, and logs in if there is a `login`. An error is why that went
/// otherwise, in words.
pub async fn ask(
    target: Target,
    dialect: Dialect,
    login: Option<&Login>,
    terms: Option<&Terms<'_>>,
    limit: TimeLimit,
) -> Result<(), String> {
    let security = Security::of(terms, None, target, None)?;
    let at_once = terms.is_some_and(Terms::begin_at_once);
    let stream = tcp::connect(target, limit).await?;
    let own = stream.local_addr();
    let own = own.map_err(|error| format!("{NOT_ASKED}{}", words(&error)))?;
    let speaker = Speaker {
        dialect,
        own: own.ip(),
        login,
    };
    let (stream, later): (Box<dyn Connection>, _) = match security {
        Some(security) if at_once => (Box::new(security.over(stream, limit).await?), None),
        security => (Box::new(stream), security),
    };
    let mut conversation = Conversation::over(stream, limit);
    speaker.greeting(&mut conversation).await?;
    let Some(security) = later else {
        return speaker.talk(conversation).await;
    };
    speaker.start_tls(&mut conversation).await?;
    let stream = security.over(conversation.into_stream()?, limit).await?;
    speaker.talk(Conversation::over(stream, limit)).await
}
