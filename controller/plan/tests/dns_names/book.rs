//! When which name is asked for, and what an answer changes.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use lvs_crds::value::AddressFamily;
use lvs_plan::dns_name::{Answer, Answers, NameBook};

use super::*;

fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

fn names(all: &[&str]) -> BTreeSet<String> {
    all.iter().map(|name| (*name).to_owned()).collect()
}

fn addresses(all: &[&str], time_to_live: u64) -> Answer {
    Answer::Addresses {
        addresses: all.iter().map(|text| text.parse().unwrap()).collect(),
        time_to_live: seconds(time_to_live),
    }
}

fn only_ipv4(ipv4: Answer) -> Answers {
    Answers {
        ipv4,
        ipv6: Answer::NoRecords,
    }
}

fn failed() -> Answers {
    let answer = Answer::Failed("no answer".to_owned());
    Answers {
        ipv4: answer.clone(),
        ipv6: answer,
    }
}

/// A book with one name that was asked for at 0.
fn asked() -> NameBook {
    let mut book = NameBook::default();
    book.want(&names(&[NAME]), seconds(0));
    assert_eq!(book.ask(seconds(0), 9), [NAME]);
    book
}

#[test]
fn an_answer_holds_for_its_time_within_bounds() {
    for (time_to_live, expected) in [(0, 5), (4, 5), (5, 5), (60, 60), (300, 300), (86_400, 300)] {
        let mut book = asked();
        book.answered(
            NAME,
            only_ipv4(addresses(&["10.0.0.1"], time_to_live)),
            seconds(0),
            0.0,
        );
        assert_eq!(book.next(), Some(seconds(expected)), "{time_to_live}");
    }
    // The shorter of both families counts.
    let mut book = asked();
    let both = Answers {
        ipv4: addresses(&["10.0.0.1"], 200),
        ipv6: addresses(&["2001:db8:1::1"], 20),
    };
    book.answered(NAME, both, seconds(0), 0.0);
    assert_eq!(book.next(), Some(seconds(20)));
    // At most a tenth later.
    let mut book = asked();
    book.answered(
        NAME,
        only_ipv4(addresses(&["10.0.0.1"], 100)),
        seconds(0),
        1.0,
    );
    assert_eq!(book.next(), Some(seconds(110)));
}

#[test]
fn a_name_is_asked_for_once_at_a_time() {
    let mut book = asked();
    assert_eq!(
        book.ask(seconds(600), 9),
        Vec::<String>::new(),
        "it is under way"
    );
    assert_eq!(book.next(), None);
    book.want(&names(&[NAME, "db.example"]), seconds(600));
    assert_eq!(book.ask(seconds(600), 9), ["db.example"]);
}

#[test]
fn those_who_wait_longest_come_first_and_no_more_than_fit() {
    let mut book = NameBook::default();
    book.want(&names(&["c.example"]), seconds(0));
    book.want(&names(&["a.example", "b.example", "c.example"]), seconds(1));
    assert_eq!(
        book.ask(seconds(0), 9),
        ["c.example"],
        "the others are not due"
    );
    book.answered(
        "c.example",
        only_ipv4(addresses(&["10.0.0.1"], 5)),
        seconds(0),
        0.0,
    );
    assert_eq!(book.ask(seconds(9), 2), ["a.example", "b.example"]);
    assert_eq!(book.ask(seconds(9), 0), Vec::<String>::new());
    assert_eq!(book.ask(seconds(9), 9), ["c.example"]);
}

#[test]
fn a_failure_is_tried_again_soon_and_then_less_often() {
    // Known once: never later than 30 s, nor than the last answer held.
    for (time_to_live, expected) in [(300, vec![5, 10, 20, 30, 30, 30]), (8, vec![5, 8, 8])] {
        let mut book = asked();
        book.answered(
            NAME,
            only_ipv4(addresses(&["10.0.0.1"], time_to_live)),
            seconds(0),
            0.0,
        );
        let mut now = book.next().unwrap();
        for wait in expected {
            assert_eq!(book.ask(now, 9), [NAME]);
            book.answered(NAME, failed(), now, 0.0);
            assert_eq!(book.next(), Some(now + seconds(wait)), "{time_to_live}");
            now += seconds(wait);
        }
        // An answer begins anew.
        book.answered(NAME, only_ipv4(addresses(&["10.0.0.1"], 60)), now, 0.0);
        book.answered(NAME, failed(), now, 0.0);
        assert_eq!(book.next(), Some(now + seconds(5)));
    }
    // Never known: silence keeps a place busy, a refusal does not.
    for (answers, expected) in [
        (failed(), [5, 10, 20, 40, 80, 160, 300, 300]),
        (
            only_ipv4(Answer::NoSuchName),
            [5, 10, 20, 30, 30, 30, 30, 30],
        ),
    ] {
        let mut book = asked();
        let mut now = seconds(0);
        for wait in expected {
            book.answered(NAME, answers.clone(), now, 0.0);
            assert_eq!(book.next(), Some(now + seconds(wait)), "{answers:?}");
            now += seconds(wait);
        }
    }
}

#[test]
fn of_too_many_addresses_the_lowest_serve_and_it_is_told() {
    let texts: Vec<String> = (1..=40)
        .rev()
        .map(|last| format!("10.0.0.{last}"))
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let mut book = asked();
    book.answered(NAME, only_ipv4(addresses(&texts, 60)), seconds(0), 0.0);
    let known = book.known();
    let found = known[NAME]
        .of(AddressFamily::IPv4)
        .addresses
        .clone()
        .unwrap();
    let expected: BTreeSet<IpAddr> = (1..=32)
        .map(|last| format!("10.0.0.{last}").parse().unwrap())
        .collect();
    assert_eq!(found, expected);

    let mut cluster = web(json!({}), json!({}));
    cluster.inputs.dns_names = known;
    let resolution = cluster.pass();
    assert_eq!(destinations(&cluster)[0].len(), 32);
    expect_bad(
        &of_real_server(&resolution, "web", ConditionType::Accepted),
        Reason::TooManyEndpoints,
        &[
            "8 of 40 addresses of web.example are left out",
            "a name takes 32",
        ],
    );
}

#[test]
fn what_nobody_names_is_forgotten() {
    let mut book = asked();
    book.want(&names(&[]), seconds(1));
    assert!(book.known().is_empty());
    let late = only_ipv4(addresses(&["10.0.0.1"], 60));
    assert!(
        !book.answered(NAME, late.clone(), seconds(2), 0.0),
        "too late"
    );
    assert!(book.known().is_empty());
    book.want(&names(&[NAME]), seconds(3));
    assert_eq!(book.known()[NAME].ipv4, Records::default());
    assert!(book.answered(NAME, late.clone(), seconds(3), 0.0));
    assert!(
        !book.answered(NAME, late, seconds(63), 0.0),
        "the same again wakes nobody"
    );
}

fn answer_strategy() -> impl Strategy<Value = Answer> {
    prop_oneof![
        3 => (proptest::collection::vec(1..9_u8, 1..5), 0..1000_u64).prop_map(|(numbers, time_to_live)| {
            let texts: Vec<String> = numbers.iter().map(|number| format!("10.0.0.{number}")).collect();
            addresses(&texts.iter().map(String::as_str).collect::<Vec<_>>(), time_to_live)
        }),
        1 => Just(Answer::NoRecords),
        1 => Just(Answer::NoSuchName),
        2 => Just(Answer::Failed("no answer".to_owned())),
    ]
}

proptest! {
    /// Only addresses replace addresses, and whatever is answered, the next question comes within bounds.
    #[test]
    fn only_addresses_replace_addresses(answers in proptest::collection::vec((answer_strategy(), answer_strategy(), 0.0..1.0_f64), 1..20)) {
        let mut book = asked();
        let mut now = seconds(0);
        let mut last = None;
        for (ipv4, ipv6, jitter) in answers {
            if let Answer::Addresses { addresses, .. } = &ipv4 {
                last = Some(addresses.iter().copied().collect::<BTreeSet<_>>());
            }
            book.answered(NAME, Answers { ipv4, ipv6 }, now, jitter);
            prop_assert_eq!(&book.known()[NAME].ipv4.addresses, &last);
            let wait = book.next().unwrap().checked_sub(now).unwrap();
            prop_assert!(wait >= seconds(5) && wait <= seconds(330), "{:?}", wait);
            now += wait;
            prop_assert_eq!(book.ask(now, 9), vec![NAME.to_owned()]);
        }
    }
}
