//! Checks of types UDP and DNS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lvs_crds::health_check::{DnsCheck, DnsRecordType, HealthCheck, HealthCheckType, UdpCheck};
use tokio::net::UdpSocket;

use crate::played::{PATIENCE_SECONDS, failure, hasty, verdict};

fn udp(payload: &str, reply_prefix: Option<&str>) -> HealthCheck {
    HealthCheck {
        timeout_seconds: PATIENCE_SECONDS,
        udp: Some(UdpCheck {
            payload: payload.to_owned(),
            reply_prefix: reply_prefix.map(String::from),
        }),
        ..HealthCheck::new("datagram".to_owned(), HealthCheckType::UDP)
    }
}

fn dns(name: &str, record_type: DnsRecordType) -> HealthCheck {
    let name = name.to_owned();
    HealthCheck {
        timeout_seconds: PATIENCE_SECONDS,
        dns: Some(DnsCheck {
            name,
            record_type,
            answers: Vec::new(),
        }),
        ..HealthCheck::new("name".to_owned(), HealthCheckType::DNS)
    }
}

/// A server that sends all that `replies` says to each datagram.
async fn replies<Replies>(address: &str, replies: Replies) -> std::io::Result<SocketAddr>
where
    Replies: Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static,
{
    let socket = UdpSocket::bind(address).await?;
    let address = socket.local_addr()?;
    tokio::spawn(async move {
        let mut datagram = [0; 2048];
        loop {
            let (length, from) = socket.recv_from(&mut datagram).await.unwrap();
            for reply in replies(&datagram[..length]) {
                // The one who asked may be gone already.
                let _ = socket.send_to(&reply, from).await;
            }
        }
    });
    Ok(address)
}

const LOOPBACK: &str = "127.0.0.1:0";

#[tokio::test]
async fn a_reply_passes_if_it_begins_as_expected() {
    for address in [LOOPBACK, "[::1]:0"] {
        let echo = replies(address, |asked| vec![asked.to_vec()]).await;
        // A machine without IPv6 has nothing to show here.
        let Ok(server) = echo else { continue };
        assert_eq!(verdict(server, &udp("00fF7a", None)).await, Ok(()));
        assert_eq!(verdict(server, &udp("00fF7a", Some("00FF"))).await, Ok(()));
        assert_eq!(verdict(server, &udp("", None)).await, Ok(()));
        let why = failure(server, &udp("00ff7a", Some("01ff"))).await;
        assert_eq!(
            why,
            "reply of 3 bytes begins with \"00ff\", expected \"01ff\""
        );
        let why = failure(server, &udp("00", Some("00ff"))).await;
        assert_eq!(
            why,
            "reply of 1 bytes begins with \"00\", expected \"00ff\""
        );
    }
}

#[tokio::test]
async fn silence_and_a_closed_port_fail() {
    let silent = replies(LOOPBACK, |_| Vec::new()).await.unwrap();
    let why = failure(silent, &hasty(udp("00", None))).await;
    assert_eq!(why, "no reply within 1 s");
    let socket = UdpSocket::bind(LOOPBACK).await.unwrap();
    let closed = socket.local_addr().unwrap();
    drop(socket);
    let why = failure(closed, &udp("00", None)).await;
    assert_eq!(why, "port unreachable");
}

#[tokio::test]
async fn what_is_not_hexadecimal_is_told_and_nothing_asked() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let server = replies(LOOPBACK, move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        vec![vec![0]]
    });
    let server = server.await.unwrap();
    for bad in ["0", "0g", "+1", "ää"] {
        let why = failure(server, &udp(bad, None)).await;
        assert_eq!(why, format!("not asked: {bad:?} is not hexadecimal"));
    }
    assert_eq!(verdict(server, &udp("00", None)).await, Ok(()));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

/// An answer to the question with these flags, which says that it holds so many records.
fn answer(asked: &[u8], flags: u16, records: u16) -> Vec<u8> {
    let mut answer = asked.to_vec();
    answer[2..4].copy_from_slice(&flags.to_be_bytes());
    answer[6..8].copy_from_slice(&records.to_be_bytes());
    answer
}

#[tokio::test]
async fn the_question_is_that_of_the_standard() {
    // RFC 1035, 4.1: number, flags, counts; labels, type, class.
    let wanted =
        b"\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x07example\x03org\x00\x00\x1c\x00\x01";
    let server = replies(LOOPBACK, move |asked| {
        let right = asked.get(2..) == Some(&wanted[..]);
        vec![answer(asked, 0x8180, u16::from(right))]
    });
    let server = server.await.unwrap();
    for name in ["www.example.org", "www.example.org."] {
        let asked = verdict(server, &dns(name, DnsRecordType::AAAA)).await;
        assert_eq!(asked, Ok(()), "{name}");
    }
    let why = failure(server, &dns("www.example.org", DnsRecordType::A)).await;
    assert_eq!(why, "no record A of www.example.org");
}

#[tokio::test]
async fn the_code_of_the_answer_decides() {
    for (flags, records, told) in [
        (0x8180, 1, Ok(())),
        // Cut: the records did not fit, and are there.
        (0x8380, 0, Ok(())),
        (0x8180, 0, Err("no record SOA of .")),
        (0x8182, 0, Err("SERVFAIL for SOA of .")),
        (0x8183, 0, Err("NXDOMAIN for SOA of .")),
        (0x8185, 0, Err("REFUSED for SOA of .")),
        (0x818f, 0, Err("code 15 for SOA of .")),
    ] {
        let server = replies(LOOPBACK, move |asked| vec![answer(asked, flags, records)]);
        let server = server.await.unwrap();
        let asked = verdict(server, &dns(".", DnsRecordType::SOA)).await;
        assert_eq!(asked, told.map_err(str::to_owned), "{flags:#x}");
    }
}

#[tokio::test]
async fn what_is_no_answer_to_the_question_is_passed_over() {
    let server = replies(LOOPBACK, |asked| {
        let right = answer(asked, 0x8180, 1);
        let mut other_number = answer(asked, 0x8183, 0);
        other_number[0] ^= 1;
        let mut other_name = answer(asked, 0x8183, 0);
        other_name[13] ^= 1;
        let question = answer(asked, 0x0100, 0);
        let cut = right[..7].to_vec();
        let cut_later = right[..15].to_vec();
        vec![
            other_number,
            other_name,
            question,
            cut,
            cut_later,
            Vec::new(),
            right,
        ]
    });
    let check = dns("www.example.org", DnsRecordType::A);
    assert_eq!(verdict(server.await.unwrap(), &check).await, Ok(()));
    let echo = replies(LOOPBACK, |asked| vec![asked.to_vec()]);
    let why = failure(echo.await.unwrap(), &hasty(check.clone())).await;
    assert_eq!(why, "no reply within 1 s");
    // One that cannot read the question answers with a head alone.
    let refuses = replies(LOOPBACK, |asked| {
        let mut head = answer(asked, 0x8181, 0)[..12].to_vec();
        head[5] = 0;
        vec![head]
    });
    let why = failure(refuses.await.unwrap(), &check).await;
    assert_eq!(why, "FORMERR for A of www.example.org");
}

/// An answer with these addresses, each of an alias that the question has.
fn addresses(asked: &[u8], hosts: &[[u8; 4]]) -> Vec<u8> {
    let records = u16::try_from(1 + hosts.len()).unwrap();
    let mut answer = answer(asked, 0x8180, records);
    // An alias first, which is another type.
    answer.extend(b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x07\x04host\xc0\x10");
    for host in hosts {
        answer.extend(b"\x04host\xc0\x10\0\x01\0\x01\0\0\0\x3c\0\x04");
        answer.extend(host);
    }
    answer
}

#[tokio::test]
async fn every_record_that_is_expected_must_be_among_the_answers() {
    let server = replies(LOOPBACK, |asked| {
        vec![addresses(asked, &[[192, 0, 2, 1], [192, 0, 2, 2]])]
    });
    let server = server.await.unwrap();
    let expecting = |wanted: &[&str]| {
        let mut check = dns("www.example.org", DnsRecordType::A);
        let wanted = wanted.iter().map(ToString::to_string);
        check.dns.as_mut().unwrap().answers = wanted.collect();
        check
    };
    for wanted in [&["192.0.2.2"][..], &["192.0.2.2", "192.0.2.1"], &[]] {
        assert_eq!(verdict(server, &expecting(wanted)).await, Ok(()));
    }
    let why = failure(server, &expecting(&["192.0.2.1", "192.0.2.3"])).await;
    assert_eq!(
        why,
        "records A of www.example.org: \"192.0.2.1, 192.0.2.2\", expected \"192.0.2.3\" among them"
    );
    let wanted = expecting(&["192.0.2.1"]);
    // Cut short so that nothing is left of them, or in the midst of one.
    let empty = replies(LOOPBACK, |asked| vec![answer(asked, 0x8380, 0)]);
    let why = failure(empty.await.unwrap(), &wanted).await;
    assert_eq!(
        why,
        "records A of www.example.org: none, expected \"192.0.2.1\" among them"
    );
    let broken = replies(LOOPBACK, |asked| {
        let mut answer = addresses(asked, &[[192, 0, 2, 1]]);
        answer.pop();
        vec![answer]
    });
    let why = failure(broken.await.unwrap(), &wanted).await;
    assert_eq!(why, "records A of www.example.org cannot be read");
}

#[tokio::test]
async fn a_reply_of_any_length_is_judged_by_its_beginning() {
    for length in [0, 1, 2, 4096, 4097, 60_000] {
        let server = replies(LOOPBACK, move |_| vec![vec![7; length]])
            .await
            .unwrap();
        let told = verdict(server, &udp("00", Some("0707"))).await;
        assert_eq!(told.is_ok(), length >= 2, "{length}: {told:?}");
        // It is no answer to a question of a name server.
        let check = hasty(dns("www.example.org", DnsRecordType::A));
        assert_eq!(failure(server, &check).await, "no reply within 1 s");
    }
}
