//! Does a SIP server answer OPTIONS (RFC 3261, 11)?

use std::net::SocketAddr;

use lvs_crds::health_check::{SipCheck, SipTransport};
use ring::rand::{SecureRandom, SystemRandom};

use super::conversation::Conversation;
use super::target::Target;
use super::{NOT_ASKED, TimeLimit, hexadecimal, quoted, tcp, udp, words};

const WHAT: &str = "reply to OPTIONS";

/// Asks once. An error is why the server does not pass, in words.
pub async fn ask(target: Target, check: &SipCheck, limit: TimeLimit) -> Result<(), String> {
    match check.transport {
        SipTransport::UDP => {
            let conversation = udp::Conversation::open(target).await?;
            let own = conversation.own_address()?;
            let call = Call::new()?;
            let request = call.request(own, target, check.transport);
            conversation.send(request.as_bytes()).await?;
            loop {
                let reply = conversation.next(limit).await?;
                let reply = String::from_utf8_lossy(&reply);
                // What is no answer to this call says nothing of the server.
                if !reply.contains(&call.id) {
                    continue;
                }
                if let Some(verdict) = judge(reply.lines().next().unwrap_or_default()) {
                    return verdict;
                }
            }
        }
        SipTransport::TCP => {
            let stream = tcp::connect(target, limit).await?;
            let own = stream.local_addr();
            let own = own.map_err(|error| format!("{NOT_ASKED}{}", words(&error)))?;
            let request = Call::new()?.request(own, target, check.transport);
            let mut conversation = Conversation::over(stream, limit);
            conversation.say_all(&request).await?;
            loop {
                let line = conversation.find("SIP/", WHAT).await?;
                if let Some(verdict) = judge(&line) {
                    return verdict;
                }
            }
        }
    }
}

/// What one status line comes to; `None` while the server is still at it (1xx).
fn judge(line: &str) -> Option<Result<(), String>> {
    let status = line.strip_prefix("SIP/2.0 ").and_then(|rest| rest.get(..3));
    match status.and_then(|status| status.parse::<u16>().ok()) {
        Some(100..=199) => None,
        Some(200..=299) => Some(Ok(())),
        _ => Some(Err(format!("{WHAT} is {}, expected 2xx", quoted(line)))),
    }
}

/// By chance, so that an answer that comes is one to this question.
struct Call {
    id: String,
}

impl Call {
    fn new() -> Result<Self, String> {
        let mut number = [0; 8];
        SystemRandom::new()
            .fill(&mut number)
            .map_err(|_| format!("{NOT_ASKED}the kernel gives no random number"))?;
        Ok(Self {
            id: hexadecimal(&number),
        })
    }

    fn request(&self, own: SocketAddr, target: Target, transport: SipTransport) -> String {
        let id = &self.id;
        let transport = transport.as_str();
        format!(
            "OPTIONS sip:{target} SIP/2.0\r\n\
             Via: SIP/2.0/{transport} {own};branch=z9hG4bK{id};rport\r\n\
             Max-Forwards: 70\r\n\
             From: <sip:lvs@{own}>;tag={id}\r\n\
             To: <sip:{target}>\r\n\
             Call-ID: {id}\r\n\
             CSeq: 1 OPTIONS\r\n\
             Contact: <sip:lvs@{own}>\r\n\
             Accept: application/sdp\r\n\
             Content-Length: 0\r\n\
             \r\n"
        )
    }
}
