//! What people are told of real servers that go down and come up: each change once, in measure, and nothing anew.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that unwraps says what it expects"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use lvs_crds::RealServerStatus;
use lvs_crds::condition::Reason;
use lvs_crds::real_server::{RealServerPortState, RealServerState, RealServerUse};
use lvs_plan::input::ObjectKey;
use lvs_plan::status::rationed::{Rationed, Telling};
use lvs_plan::status::{ObjectReport, Report};
use proptest::prelude::*;

use RealServerState::{Disabled, Down, Draining, Unknown, Up};

/// Real servers `web-0`, `web-1`, … of VirtualService `web` in these states.
fn report(states: &[RealServerState]) -> Report {
    let real_servers = states.iter().enumerate().map(|(index, state)| {
        let name = format!("web-{index}");
        let port = RealServerPortState {
            name: None,
            address: format!("192.0.2.{index}"),
            port: 80,
            state: *state,
            effective_weight: 1,
            since: None,
            message: match state {
                Down => "connect refused".to_owned(),
                _ => String::new(),
            },
            certificate_expiry_time: None,
        };
        let written = RealServerStatus {
            virtual_services: vec![RealServerUse {
                name: "web".to_owned(),
                ready: *state == Up,
                ports: vec![port],
            }],
            ..RealServerStatus::default()
        };
        let report = ObjectReport {
            uid: name.clone(),
            generation: 1,
            verdicts: Vec::new(),
            status: written,
        };
        (ObjectKey::new("shop", name), report)
    });
    Report {
        real_servers: real_servers.collect(),
        ..Report::default()
    }
}

/// The same of real servers that are up, with certificates that expire in so many days as are warned of.
fn report_certificates(days: &[Option<i64>]) -> Report {
    let mut report = report(&vec![Up; days.len()]);
    for (index, days) in days.iter().enumerate() {
        let key = ObjectKey::new("shop", format!("web-{index}"));
        let status = &mut report.real_servers.get_mut(&key).unwrap().status;
        status.virtual_services[0].ports[0].certificate_expiry_time = days.map(end);
    }
    report
}

fn end(days: i64) -> Time {
    Time(Timestamp::from_second(1_800_000_000 + days * 86_400).unwrap())
}

/// A controller, and the statuses that it has written.
#[derive(Default)]
struct Controller {
    rationed: Rationed,
    stored: BTreeMap<ObjectKey, RealServerStatus>,
    seconds: u64,
}

impl Controller {
    fn tell(&mut self, states: &[RealServerState]) -> Vec<Telling> {
        self.tell_of(report(states))
    }

    fn tell_certificates(&mut self, days: &[Option<i64>]) -> Vec<String> {
        let told = self.tell_of(report_certificates(days)).into_iter();
        told.map(|telling| telling.note).collect()
    }

    fn tell_of(&mut self, report: Report) -> Vec<Telling> {
        let now = Duration::from_secs(self.seconds);
        let told = self.rationed.tell(&report, |key| self.stored.get(key), now);
        let written = report.real_servers.into_iter();
        self.stored = written.map(|(key, one)| (key, one.status)).collect();
        told
    }

    fn notes(&mut self, states: &[RealServerState]) -> Vec<String> {
        let told = self.tell(states).into_iter();
        told.map(|telling| telling.note).collect()
    }

    /// Another process.
    fn restart(&mut self) {
        self.rationed = Rationed::default();
        self.seconds = 0;
    }
}

fn nothing() -> Vec<String> {
    Vec::new()
}

#[test]
fn each_change_is_told_once_with_its_words() {
    let mut controller = Controller::default();
    assert_eq!(controller.notes(&[Unknown, Unknown]), nothing());
    assert_eq!(controller.notes(&[Up, Up]), nothing(), "the beginning");
    let told = controller.tell(&[Down, Up]);
    assert_eq!(
        told,
        [Telling {
            virtual_service: ObjectKey::new("shop", "web"),
            reason: Reason::RealServerDown,
            note: "web-0 (192.0.2.0:80) is down: connect refused".to_owned(),
            real_server: Some("web-0".to_owned()),
        }]
    );
    assert_eq!(controller.notes(&[Down, Up]), nothing());
    let told = controller.tell(&[Up, Up]);
    assert_eq!(told[0].reason, Reason::RealServerUp);
    assert_eq!(told[0].note, "web-0 (192.0.2.0:80) is up");
    assert_eq!(told.len(), 1);
    // What somebody asked for is no news.
    assert_eq!(controller.notes(&[Draining, Disabled]), nothing());
    assert_eq!(controller.notes(&[Up, Up]), nothing());
    // One that is new has no past.
    assert_eq!(controller.notes(&[Up, Up, Down]), nothing());
}

#[test]
fn a_restart_of_agent_or_controller_tells_nothing_anew() {
    let mut controller = Controller::default();
    controller.tell(&[Up, Up]);
    assert_eq!(controller.notes(&[Down, Up]).len(), 1);
    // The agent does not know yet.
    assert_eq!(controller.notes(&[Unknown, Unknown]), nothing());
    assert_eq!(controller.notes(&[Down, Up]), nothing());
    controller.restart();
    assert_eq!(controller.notes(&[Down, Up]), nothing());
    // Both at the same time.
    controller.tell(&[Unknown, Unknown]);
    controller.restart();
    assert_eq!(controller.notes(&[Unknown, Unknown]), nothing());
    assert_eq!(controller.notes(&[Down, Up]), nothing());
    // What happened while nobody was there is told.
    controller.restart();
    assert_eq!(
        controller.notes(&[Up, Down]),
        [
            "web-0 (192.0.2.0:80) is up",
            "web-1 (192.0.2.1:80) is down: connect refused"
        ]
    );
}

#[test]
fn of_a_mass_outage_a_few_are_told_and_the_rest_in_one() {
    let mut controller = Controller::default();
    controller.tell(&[Up; 200]);
    let told = controller.tell(&[Down; 200]);
    assert_eq!(told.len(), 10);
    assert_eq!(told[9].real_server, None);
    assert_eq!(told[9].reason, Reason::RealServerDown);
    assert!(
        told[9].note.starts_with("191 more real servers are down: "),
        "{}",
        told[9].note
    );
    assert_eq!(controller.rationed.next(), None, "all of it was told");

    controller.seconds = 10;
    let mut states = [Up; 200];
    states[7] = Down;
    assert_eq!(controller.notes(&states), nothing(), "not yet");
    let due = Duration::from_secs(30);
    assert_eq!(controller.rationed.next(), Some(due));
    controller.seconds = 30;
    let told = controller.tell(&states);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].reason, Reason::RealServerUp);
    assert!(
        told[0].note.starts_with("199 more real servers are up: "),
        "{}",
        told[0].note
    );
    assert_eq!(controller.rationed.next(), None);
}

#[test]
fn what_went_by_untold_never_is() {
    let mut controller = Controller::default();
    controller.tell(&[Up; 20]);
    controller.tell(&[Down; 20]);
    controller.seconds = 5;
    assert_eq!(controller.notes(&[Up; 20]), nothing());
    controller.seconds = 10;
    assert_eq!(controller.notes(&[Down; 20]), nothing());
    assert_eq!(controller.rationed.next(), None);
    controller.seconds = 300;
    assert_eq!(controller.notes(&[Down; 20]), nothing());
}

#[test]
fn a_certificate_that_expires_is_told_once() {
    let mut controller = Controller::default();
    assert_eq!(controller.tell_certificates(&[None, None]), nothing());
    let told = controller.tell_of(report_certificates(&[Some(5), None]));
    assert_eq!(
        told,
        [Telling {
            virtual_service: ObjectKey::new("shop", "web"),
            reason: Reason::CertificateExpires,
            note: "web-0 (192.0.2.0:80): certificate is valid until 2027-01-20T08:00:00Z"
                .to_owned(),
            real_server: Some("web-0".to_owned()),
        }]
    );
    assert_eq!(controller.tell_certificates(&[Some(5), None]), nothing());
    // The agent does not know yet, after a start.
    assert_eq!(controller.tell_certificates(&[None, None]), nothing());
    assert_eq!(controller.tell_certificates(&[Some(5), None]), nothing());
    // Renewed, and by the time again.
    assert_eq!(controller.tell_certificates(&[None, None]), nothing());
    assert_eq!(
        controller.tell_certificates(&[Some(90), None]),
        ["web-0 (192.0.2.0:80): certificate is valid until 2027-04-15T08:00:00Z"]
    );
    controller.restart();
    assert_eq!(controller.tell_certificates(&[Some(90), None]), nothing());
    // A real server that comes with an old certificate.
    let told = controller.tell_certificates(&[Some(90), None, Some(-1)]);
    assert_eq!(
        told,
        ["web-2 (192.0.2.2:80): certificate is valid until 2027-01-14T08:00:00Z"]
    );
}

#[test]
fn of_many_certificates_a_few_are_told_and_the_rest_in_one() {
    let mut controller = Controller::default();
    let mut days = vec![Some(5); 200];
    days[150] = Some(3);
    let told = controller.tell_certificates(&days);
    assert_eq!(told.len(), 10);
    assert!(
        told[9].starts_with(
            "certificates of 191 more real servers, the first valid until 2027-01-18T08:00:00Z: web-"
        ),
        "{}",
        told[9]
    );
    // They leave room for what is down.
    assert_eq!(controller.notes(&[Down; 200]).len(), 10);
    assert_eq!(controller.tell_certificates(&days).len(), 0);
}

#[test]
fn a_certificate_that_finds_no_room_waits() {
    let mut controller = Controller::default();
    controller.tell_certificates(&[Some(5); 20]);
    controller.seconds = 10;
    let mut days = vec![Some(5); 20];
    days[7] = Some(9);
    // The status is written all the same.
    assert_eq!(controller.tell_certificates(&days), nothing());
    assert_eq!(controller.tell_certificates(&days), nothing());
    assert_eq!(controller.rationed.next(), Some(Duration::from_secs(30)));
    controller.seconds = 30;
    assert_eq!(controller.tell_certificates(&days).len(), 1);
    assert_eq!(controller.rationed.next(), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_it_stays_within_the_ration_and_ends_with_the_truth(
        moments in proptest::collection::vec((0_u64..40, proptest::array::uniform8(0_usize..5)), 1..40),
    ) {
        let mut controller = Controller::default();
        controller.tell(&[Up; 8]);
        let mut known = [true; 8];
        let mut count = 0;
        let mut last = [Up; 8];
        let mut note = |told: Vec<Telling>, states: &[RealServerState; 8]| {
            count += told.len();
            for telling in &told {
                let is_up = telling.reason == Reason::RealServerUp;
                match &telling.real_server {
                    Some(name) => {
                        let index: usize = name["web-".len()..].parse().unwrap();
                        assert_ne!(known[index], is_up, "told twice: {telling:?}");
                        known[index] = is_up;
                    }
                    // All that is so now.
                    None => {
                        for (known, state) in known.iter_mut().zip(states) {
                            *known = match state { Up => true, Down => false, _ => *known };
                        }
                    }
                }
            }
            (count, known)
        };
        for (seconds, states) in moments {
            controller.seconds += seconds;
            last = states.map(|index| [Up, Down, Unknown, Draining, Disabled][index]);
            let told = controller.tell(&last);
            let (count, _) = note(told, &last);
            let most = 10 + usize::try_from(controller.seconds / 30).unwrap();
            prop_assert!(count <= most, "{count} in {} s", controller.seconds);
        }
        while let Some(next) = controller.rationed.next() {
            prop_assert!(next.as_secs() > controller.seconds);
            controller.seconds = next.as_secs();
            let told = controller.tell(&last);
            note(told, &last);
        }
        let (_, known) = note(Vec::new(), &last);
        for (known, state) in known.iter().zip(&last) {
            let is_so = match state { Up => Some(true), Down => Some(false), _ => None };
            prop_assert!(is_so.is_none_or(|is_up| is_up == *known));
        }
    }
}
