//! Does a name server answer a question, over UDP, and as it should?

mod records;

use lvs_crds::health_check::DnsCheck;
use ring::rand::{SecureRandom, SystemRandom};

use super::target::Target;
use super::udp::Conversation;
use super::{NOT_ASKED, TimeLimit, quoted};

/// Bytes of the head of a message (RFC 1035, 4.1.1).
const HEAD_BYTES: usize = 12;
/// That recursion is wanted; a server that does not do it ignores it.
const RECURSION_DESIRED: u16 = 0x0100;
/// That a message is an answer.
const IS_ANSWER: u16 = 0x8000;
/// That a message was cut to fit a datagram.
const IS_CUT: u16 = 0x0200;
/// Where the code of the answer is.
const CODE: u16 = 0x000f;
/// The Internet.
const CLASS: u16 = 1;
/// Words for the codes of answers (RFC 1035, RFC 2136).
const CODES: [&str; 11] = [
    "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET",
    "NXRRSET", "NOTAUTH", "NOTZONE",
];

/// Asks once. An error is why the answer is not as expected, in words.
pub async fn ask(target: Target, check: &DnsCheck, limit: TimeLimit) -> Result<(), String> {
    let mut number = [0; 2];
    // By chance, so that an answer that comes is one to this question.
    SystemRandom::new()
        .fill(&mut number)
        .map_err(|_| "not asked: the kernel gives no random number".to_owned())?;
    let question = question(u16::from_be_bytes(number), check)?;
    let conversation = Conversation::begin(target, &question).await?;
    loop {
        let answer = conversation.next(limit).await?;
        if let Some(head) = Head::of_answer(&answer, &question) {
            head.verdict(check)?;
            return expect(&answer, check);
        }
        // What is no answer to this question says nothing of the server.
    }
}

/// Whether every record is there that the check wants.
fn expect(answer: &[u8], check: &DnsCheck) -> Result<(), String> {
    if check.answers.is_empty() {
        return Ok(());
    }
    let (type_, name) = (check.record_type, &check.name);
    let word = type_.as_str();
    let records = records::of_answer(answer, type_);
    let records = records.ok_or_else(|| format!("records {word} of {name} cannot be read"))?;
    let missing = check.answers.iter().find(|wanted| {
        let wanted = records::plain(wanted, type_);
        !records.contains(&wanted)
    });
    let Some(missing) = missing else {
        return Ok(());
    };
    let found = if records.is_empty() {
        "none".to_owned()
    } else {
        quoted(&records.join(", "))
    };
    let missing = quoted(missing);
    Err(format!(
        "records {word} of {name}: {found}, expected {missing} among them"
    ))
}

/// A message with one question.
fn question(number: u16, check: &DnsCheck) -> Result<Vec<u8>, String> {
    let mut message = Vec::new();
    for field in [number, RECURSION_DESIRED, 1, 0, 0, 0] {
        message.extend(field.to_be_bytes());
    }
    for label in check.name.split('.').filter(|label| !label.is_empty()) {
        let length = u8::try_from(label.len()).ok().filter(|length| *length < 64);
        let length =
            length.ok_or_else(|| format!("{NOT_ASKED}{} is no name", quoted(&check.name)))?;
        message.push(length);
        message.extend(label.as_bytes());
    }
    message.push(0);
    for field in [check.record_type.number(), CLASS] {
        message.extend(field.to_be_bytes());
    }
    Ok(message)
}

/// What the head of an answer says.
struct Head {
    flags: u16,
    answers: u16,
}

impl Head {
    /// The head, if the message is an answer to the question.
    fn of_answer(answer: &[u8], question: &[u8]) -> Option<Self> {
        let field = |number: usize| {
            let bytes = answer.get(2 * number..2 * number + 2)?;
            Some(u16::from_be_bytes(bytes.try_into().ok()?))
        };
        let flags = field(1)?;
        let same_number = answer.get(..2) == question.get(..2);
        // Servers that cannot read the question need not repeat it.
        let asked = question.get(HEAD_BYTES..)?;
        let repeated = answer.get(HEAD_BYTES..HEAD_BYTES + asked.len());
        let same_question =
            field(2)? == 0 || repeated.is_some_and(|text| text.eq_ignore_ascii_case(asked));
        (flags & IS_ANSWER != 0 && same_number && same_question).then_some(Self {
            flags,
            answers: field(3)?,
        })
    }

    fn verdict(&self, check: &DnsCheck) -> Result<(), String> {
        let code = usize::from(self.flags & CODE);
        let type_ = check.record_type.as_str();
        let name = &check.name;
        match CODES.get(code) {
            Some(&"NOERROR") if self.answers > 0 || self.flags & IS_CUT != 0 => Ok(()),
            Some(&"NOERROR") => Err(format!("no record {type_} of {name}")),
            Some(word) => Err(format!("{word} for {type_} of {name}")),
            None => Err(format!("code {code} for {type_} of {name}")),
        }
    }
}
