//! What the records of an answer say, as master files say it (RFC 1035, 5.1).

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lvs_crds::health_check::DnsRecordType;

use super::{CLASS, HEAD_BYTES};

/// Longest name, in bytes (RFC 1035, 2.3.4).
const NAME_BYTES: usize = 255;

/// The records of this type among the answers, also of other names, to which aliases lead. `None` where the message is cut
/// short or contradicts itself.
pub fn of_answer(message: &[u8], type_: DnsRecordType) -> Option<Vec<String>> {
    let mut reader = Reader { message, at: 4 };
    let (questions, answers) = (reader.u16()?, reader.u16()?);
    reader.at = HEAD_BYTES;
    for _ in 0..questions {
        reader.name()?;
        reader.take(4)?;
    }
    let mut found = Vec::new();
    for _ in 0..answers {
        reader.name()?;
        let (number, class) = (reader.u16()?, reader.u16()?);
        reader.take(4)?;
        let length = usize::from(reader.u16()?);
        let end = reader.at + length;
        if number == type_.number() && class == CLASS {
            let mut record = Reader {
                message: message.get(..end)?,
                at: reader.at,
            };
            found.push(record.text(type_)?);
        }
        reader.take(length)?;
    }
    Some(found)
}

/// A text of a user as [`of_answer`] has it: addresses in their plain spelling, names in lower case and without the dot at
/// their end.
pub fn plain(text: &str, type_: DnsRecordType) -> String {
    match type_ {
        DnsRecordType::A | DnsRecordType::AAAA => {
            let address: Result<IpAddr, _> = text.parse();
            address.map_or_else(|_| text.to_owned(), |address| address.to_string())
        }
        DnsRecordType::TXT => text.to_owned(),
        _ => {
            let words = text.split_ascii_whitespace();
            let words = words.map(|word| match word.strip_suffix('.') {
                Some(name) if !name.is_empty() => name.to_ascii_lowercase(),
                _ => word.to_ascii_lowercase(),
            });
            words.collect::<Vec<_>>().join(" ")
        }
    }
}

/// A place in a message.
struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let bytes = self.message.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(bytes)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    /// A name, in lower case and without the dot at its end; what follows it is read next.
    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        let mut bytes = 0;
        // Once a part of it stands elsewhere, which must be before (RFC 1035, 4.1.4): so it comes to an end.
        let mut elsewhere: Option<Reader<'_>> = None;
        loop {
            let reader = elsewhere.as_mut().unwrap_or(self);
            let begin = reader.at;
            let length = reader.u8()?;
            match length {
                0 => break,
                1..=63 => {
                    bytes += 1 + usize::from(length);
                    if bytes > NAME_BYTES {
                        return None;
                    }
                    if !name.is_empty() {
                        name.push('.');
                    }
                    push_label(&mut name, reader.take(length.into())?);
                }
                0xc0.. => {
                    let low = reader.u8()?;
                    let at = usize::from(u16::from_be_bytes([length & 0x3f, low]));
                    let message = reader.message;
                    elsewhere = (at < begin).then_some(Reader { message, at });
                    elsewhere.as_ref()?;
                }
                64..0xc0 => return None,
            }
        }
        if name.is_empty() {
            name.push('.');
        }
        Some(name)
    }

    /// What the data of a record say.
    fn text(&mut self, type_: DnsRecordType) -> Option<String> {
        Some(match type_ {
            DnsRecordType::A => {
                let bytes: [u8; 4] = self.take(4)?.try_into().ok()?;
                Ipv4Addr::from(bytes).to_string()
            }
            DnsRecordType::AAAA => {
                let bytes: [u8; 16] = self.take(16)?.try_into().ok()?;
                Ipv6Addr::from(bytes).to_string()
            }
            DnsRecordType::CNAME | DnsRecordType::NS | DnsRecordType::PTR => self.name()?,
            DnsRecordType::MX => format!("{} {}", self.u16()?, self.name()?),
            DnsRecordType::SRV => {
                let (priority, weight, port) = (self.u16()?, self.u16()?, self.u16()?);
                format!("{priority} {weight} {port} {}", self.name()?)
            }
            DnsRecordType::SOA => {
                let mut text = format!("{} {}", self.name()?, self.name()?);
                for _ in 0..5 {
                    // Writing to a text cannot fail.
                    write!(text, " {}", self.u32()?).ok()?;
                }
                text
            }
            DnsRecordType::TXT => {
                let mut text = Vec::new();
                while self.at < self.message.len() {
                    let length = self.u8()?;
                    text.extend(self.take(length.into())?);
                }
                String::from_utf8_lossy(&text).into_owned()
            }
        })
    }
}

/// Bytes of a label as master files have them, those that would be taken for something else as `\046`.
fn push_label(name: &mut String, label: &[u8]) {
    for byte in label {
        if byte.is_ascii_graphic() && !matches!(byte, b'.' | b'\\') {
            name.push(char::from(byte.to_ascii_lowercase()));
        } else {
            // Writing to a text cannot fail.
            let _ = write!(name, "\\{byte:03}");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TYPES: [DnsRecordType; 9] = [
        DnsRecordType::A,
        DnsRecordType::AAAA,
        DnsRecordType::CNAME,
        DnsRecordType::MX,
        DnsRecordType::NS,
        DnsRecordType::PTR,
        DnsRecordType::SOA,
        DnsRecordType::SRV,
        DnsRecordType::TXT,
    ];

    /// An answer to a question about example.org with one record of it.
    fn answer(type_: DnsRecordType, data: &[u8]) -> Vec<u8> {
        let mut message = vec![0, 1, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
        message.extend(b"\x07example\x03org\0");
        message.extend([type_.number().to_be_bytes(), [0, 1]].concat());
        // The name of the record is that of the question, at 12.
        message.extend([0xc0, 12]);
        message.extend([type_.number().to_be_bytes(), [0, 1]].concat());
        message.extend([0, 0, 0, 60]);
        message.extend(u16::try_from(data.len()).unwrap_or_default().to_be_bytes());
        message.extend(data);
        message
    }

    #[test]
    fn each_type_is_told_as_master_files_do() {
        for (type_, data, text) in [
            (DnsRecordType::A, &[192, 0, 2, 1][..], "192.0.2.1"),
            (
                DnsRecordType::AAAA,
                b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01",
                "2001:db8::1",
            ),
            (DnsRecordType::NS, b"\x02NS\xc0\x0c", "ns.example.org"),
            (DnsRecordType::CNAME, b"\0", "."),
            (
                DnsRecordType::PTR,
                b"\x05a.b\\ \x01c\0",
                "a\\046b\\092\\032.c",
            ),
            (DnsRecordType::MX, b"\0\x0a\x04mail\xc0\x0c", "10 mail.example.org"),
            (
                DnsRecordType::SRV,
                b"\0\x01\0\x02\x13\xc4\x03sip\xc0\x0c",
                "1 2 5060 sip.example.org",
            ),
            (
                DnsRecordType::SOA,
                b"\x02ns\xc0\x0c\x05admin\xc0\x0c\0\0\0\x01\0\0\0\x02\0\0\0\x03\0\0\0\x04\0\0\0\x05",
                "ns.example.org admin.example.org 1 2 3 4 5",
            ),
            (DnsRecordType::TXT, b"\x03v=s\x05pf1 -", "v=spf1 -"),
        ] {
            let message = answer(type_, data);
            assert_eq!(of_answer(&message, type_), Some(vec![text.to_owned()]));
            for length in 0..message.len() {
                assert_eq!(of_answer(&message[..length], type_), None, "{length}");
            }
        }
    }

    #[test]
    fn other_types_are_passed_over() {
        let message = answer(DnsRecordType::CNAME, b"\x03www\xc0\x0c");
        assert_eq!(of_answer(&message, DnsRecordType::A), Some(Vec::new()));
    }

    #[test]
    fn a_name_that_leads_to_itself_or_is_too_long_is_none() {
        // The data begin at 41.
        for data in [&b"\xc0\x29"[..], b"\x01a\xc0\x29", b"\xc0\xff"] {
            let message = answer(DnsRecordType::NS, data);
            assert_eq!(of_answer(&message, DnsRecordType::NS), None, "{data:?}");
        }
        let long = [&b"\x3f"[..], &[b'x'; 63]].concat().repeat(4);
        let message = answer(DnsRecordType::NS, &[&long[..], b"\0"].concat());
        assert_eq!(of_answer(&message, DnsRecordType::NS), None);
    }

    #[test]
    fn what_a_user_writes_is_compared_by_what_it_means() {
        for (type_, text, same) in [
            (DnsRecordType::AAAA, "2001:DB8:0::1", "2001:db8::1"),
            (
                DnsRecordType::MX,
                "10  Mail.Example.org.",
                "10 mail.example.org",
            ),
            (DnsRecordType::NS, ".", "."),
            (DnsRecordType::TXT, "V=spf1  -all.", "V=spf1  -all."),
        ] {
            assert_eq!(plain(text, type_), same);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_much(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            for type_ in TYPES {
                let _ = of_answer(&bytes, type_);
                let _ = of_answer(&answer(type_, &bytes), type_);
            }
        }
    }
}
