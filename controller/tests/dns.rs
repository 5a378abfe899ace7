//! Questions to a name server that is played, over real sockets on loopback.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that unwraps says what it expects"
)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use lvs_controller::dns::Dns;
use lvs_controller::resolver::Lookup;
use lvs_plan::dns_name::{Answer, Answers};
use tokio::net::UdpSocket;

/// Owner, time to live in seconds, and data of a record.
type Line = (&'static str, u32, RData);

/// What the server says to a question, by name and type; `None`: nothing.
fn answer(name: &str, type_: RecordType) -> Option<(ResponseCode, Vec<Line>)> {
    let four = |last: u8| RData::A(A(Ipv4Addr::new(10, 9, 0, last)));
    let six = || RData::AAAA(AAAA("fd00:9::41".parse().unwrap()));
    let alias = || RData::CNAME(CNAME(Name::from_ascii("real.example.").unwrap()));
    let records = match (name, type_) {
        ("db.example.", RecordType::A) => {
            vec![("db.example.", 60, four(41)), ("db.example.", 90, four(42))]
        }
        ("db.example.", RecordType::AAAA) => vec![("db.example.", 30, six())],
        ("four.example.", RecordType::A) => vec![("four.example.", 7, four(41))],
        ("alias.example.", RecordType::A) => vec![
            ("alias.example.", 20, alias()),
            ("real.example.", 300, four(41)),
        ],
        ("four.example.", _) => Vec::new(),
        ("silent.example.", _) => return None,
        ("broken.example.", _) => return Some((ResponseCode::ServFail, Vec::new())),
        ("refused.example.", _) => return Some((ResponseCode::Refused, Vec::new())),
        ("web.team.svc.cluster.local.", RecordType::A) => {
            vec![("web.team.svc.cluster.local.", 5, four(43))]
        }
        _ => return Some((ResponseCode::NXDomain, Vec::new())),
    };
    Some((ResponseCode::NoError, records))
}

/// A server, and a client that asks it alone.
async fn server() -> Dns {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut bytes = [0; 1500];
        loop {
            let (length, client) = socket.recv_from(&mut bytes).await.unwrap();
            let question = Message::from_vec(&bytes[..length]).unwrap();
            let query = question.queries[0].clone();
            let name = query.name().to_ascii();
            let Some((code, records)) = answer(&name, query.query_type()) else {
                continue;
            };
            let mut message = Message::response(question.metadata.id, question.metadata.op_code);
            message.metadata.response_code = code;
            message.metadata.recursion_available = true;
            message.add_query(query);
            message.add_answers(records.into_iter().map(|(owner, ttl, data)| {
                Record::from_rdata(Name::from_ascii(owner).unwrap(), ttl, data)
            }));
            socket
                .send_to(&message.to_vec().unwrap(), client)
                .await
                .unwrap();
        }
    });
    Dns::of_servers(vec![address])
}

fn addresses(all: &[&str], seconds: u64) -> Answer {
    Answer::Addresses {
        addresses: all
            .iter()
            .map(|text| text.parse::<IpAddr>().unwrap())
            .collect(),
        time_to_live: Duration::from_secs(seconds),
    }
}

#[tokio::test]
async fn each_answer_is_what_it_is() {
    let dns = server().await;
    let both = |answer: Answer| Answers {
        ipv4: answer.clone(),
        ipv6: answer,
    };
    let ipv4 = |answer: Answer, ipv6: Answer| Answers { ipv4: answer, ipv6 };
    for (name, expected) in [
        (
            "db.example",
            ipv4(
                addresses(&["10.9.0.41", "10.9.0.42"], 60),
                addresses(&["fd00:9::41"], 30),
            ),
        ),
        (
            "four.example",
            ipv4(addresses(&["10.9.0.41"], 7), Answer::NoRecords),
        ),
        // The alias holds no longer than itself.
        (
            "alias.example",
            ipv4(addresses(&["10.9.0.41"], 20), Answer::NoSuchName),
        ),
        (
            "web.team.svc.cluster.local",
            ipv4(addresses(&["10.9.0.43"], 5), Answer::NoSuchName),
        ),
        ("none.example", both(Answer::NoSuchName)),
        (
            "broken.example",
            both(Answer::Failed("127.0.0.1 answered SERVFAIL".to_owned())),
        ),
        (
            "refused.example",
            both(Answer::Failed("127.0.0.1 answered REFUSED".to_owned())),
        ),
    ] {
        assert_eq!(dns.lookup(name).await, expected, "{name}");
    }
}

#[tokio::test]
async fn a_silent_server_is_given_up_in_time() {
    let dns = server().await;
    let begun = Instant::now();
    let answers = dns.lookup("silent.example").await;
    let why = "no answer from 127.0.0.1 within 5 s";
    assert_eq!(answers.ipv4, Answer::Failed(why.to_owned()));
    assert_eq!(answers.ipv6, answers.ipv4);
    let waited = begun.elapsed().as_secs_f64();
    assert!((4.9..8.0).contains(&waited), "{waited} s");
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_no_answer() {
    let closed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    let answers = Dns::of_servers(vec![address]).lookup("db.example").await;
    let Answer::Failed(why) = &answers.ipv4 else {
        panic!("{answers:?}");
    };
    assert!(why.contains("127.0.0.1"), "{why}");
}
