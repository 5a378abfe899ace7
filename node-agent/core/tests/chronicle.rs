//! What is told of an election: who, from whom, in which epoch, why, and how long each part took.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test says what is wrong by failing.

#[path = "chronicle/node.rs"]
mod node;

use std::time::Duration;

use lvs_core::chronicle::{Departure, Happened, Phase, QUIET_PERIOD};
use lvs_core::election::{Event, Intent, Resumption, Role, Source, WritePurpose};
use lvs_core::fence::Progress;
use lvs_core::heartbeat::{Carriage, Standing};
use lvs_crds::transition::TransitionKind;
use node::{INTERVAL, Node, W, config};
use proptest::prelude::*;

fn became_master(epoch: u64, peer: Option<&str>, why: &str) -> Happened {
    Happened {
        kind: TransitionKind::BecameMaster,
        epoch,
        peer: peer.map(str::to_owned),
        why: why.to_owned(),
    }
}

#[test]
fn a_dead_holder_is_followed_and_every_phase_is_known() {
    let mut node = Node::new(config(true), Some("lb-a"), None);
    for _ in 0..10 {
        node.now = node.now + INTERVAL;
        node.hear(Carriage::All, |_| ());
    }
    let heard_at = node.now;
    let challenge = node.await_write(WritePurpose::Challenge);
    let challenged_at = node.now;
    node.acknowledge(&challenge);
    let acquisition = node.await_write(WritePurpose::Acquire);
    let sent_at = node.now;
    assert!(node.happened.is_empty() && !node.chronicle.awaits_announcement());
    node.acknowledge(&acquisition);
    assert_eq!(
        node.only(),
        became_master(
            7,
            Some("lb-a"),
            "no heartbeat for 0.45 s, no answer to a challenge in 0.21 s"
        )
    );
    assert!(node.chronicle.awaits_announcement());
    let acknowledged_at = node.now;
    let applied_at = acknowledged_at + Duration::from_millis(3);
    let announced_at = applied_at + Duration::from_millis(1);
    let mut progress = Progress {
        epoch: 7,
        applied_at: Some(applied_at),
        announced_at: None,
    };
    assert_eq!(node.chronicle.announced(&progress), None);
    progress.announced_at = Some(announced_at);
    assert_eq!(
        node.chronicle.announced(&Progress {
            epoch: 6,
            ..progress
        }),
        None,
        "of an earlier epoch"
    );
    let phases = node.chronicle.announced(&progress).unwrap();
    assert_eq!(phases.cause, "unanswered");
    assert_eq!(
        phases.durations,
        [
            challenged_at.since(heard_at),
            sent_at.since(challenged_at),
            W,
            Duration::from_millis(3),
            Duration::from_millis(1),
        ]
    );
    assert_eq!(phases.whole(), announced_at.since(heard_at));
    assert_eq!(Phase::ALL.len(), phases.durations.len());
    assert_eq!(node.chronicle.announced(&progress), None, "once");
}

#[test]
fn a_holder_that_was_never_heard_is_not_said_to_have_fallen_silent() {
    let mut node = Node::new(config(true), Some("lb-a"), None);
    let challenge = node.await_write(WritePurpose::Challenge);
    node.acknowledge(&challenge);
    let acquisition = node.await_write(WritePurpose::Acquire);
    node.acknowledge(&acquisition);
    let happened = node.only();
    assert!(
        happened
            .why
            .starts_with("no heartbeat was ever heard, no answer to a challenge in 0.21 s"),
        "{happened:?}"
    );
}

#[test]
fn a_lease_that_is_offered_free_or_run_out_is_told_as_such() {
    // Offered in the Lease, without heartbeats.
    let mut node = Node::new(config(false), Some("lb-a"), None);
    node.written(|lease| lease.offered = true);
    let write = node.await_write(WritePurpose::Acquire);
    node.acknowledge(&write);
    assert_eq!(
        node.only(),
        became_master(7, Some("lb-a"), "they were offered")
    );
    // Offered by heartbeats alone.
    let mut node = Node::new(config(true), Some("lb-a"), None);
    node.hear(Carriage::All, |standing| standing.offers = true);
    let offered_at = node.now;
    let write = node.await_write(WritePurpose::Acquire);
    let sent_at = node.now;
    node.acknowledge(&write);
    assert_eq!(
        node.only(),
        became_master(7, Some("lb-a"), "they were offered")
    );
    let progress = Progress {
        epoch: 7,
        applied_at: Some(node.now),
        announced_at: Some(node.now),
    };
    let phases = node.chronicle.announced(&progress).unwrap();
    let zero = Duration::ZERO;
    assert_eq!(
        (phases.cause, phases.durations),
        ("offered", [sent_at.since(offered_at), zero, W, zero, zero])
    );
    // Nobody held it.
    let mut node = Node::new(config(false), None, None);
    let write = node.await_write(WritePurpose::Acquire);
    node.acknowledge(&write);
    assert_eq!(node.only(), became_master(7, None, "nobody held the Lease"));
    // It ran out while it was watched.
    let mut node = Node::new(config(false), Some("lb-a"), None);
    node.renewed();
    let write = node.await_write(WritePurpose::Acquire);
    assert_eq!(write.epoch, 7);
    node.acknowledge(&write);
    let happened = node.only();
    assert!(
        happened
            .why
            .starts_with("the Lease was not renewed for 11."),
        "{happened:?}"
    );
}

#[test]
fn a_takeover_whose_acknowledgement_got_lost_keeps_its_reason() {
    let mut node = Node::new(config(false), Some("lb-a"), None);
    node.written(|lease| lease.offered = true);
    let write = node.await_write(WritePurpose::Acquire);
    node.store(&write);
    node.tell(Event::WriteFailed);
    let write = node.await_write(WritePurpose::Acquire);
    assert_eq!(write.epoch, 8);
    node.acknowledge(&write);
    assert_eq!(
        node.only(),
        became_master(8, Some("lb-a"), "they were offered")
    );
}

#[test]
fn a_restarted_agent_that_goes_on_in_its_epoch_has_not_become_master() {
    let resumption = Resumption {
        epoch: 6,
        held: true,
    };
    let mut node = Node::new(config(true), Some("lb-b"), Some(resumption));
    let write = node.await_write(WritePurpose::Adopt);
    node.acknowledge(&write);
    assert_eq!(node.machine.status().role, Role::Master);
    assert!(node.happened.is_empty(), "{:?}", node.happened);
    assert!(!node.chronicle.awaits_announcement());
    // One that came back too late gives up what is left.
    let mut node = Node::new(
        config(true),
        Some("lb-a"),
        Some(Resumption {
            epoch: 5,
            ..resumption
        }),
    );
    assert_eq!(
        node.only(),
        Happened {
            kind: TransitionKind::Fenced,
            epoch: 5,
            peer: Some("lb-a".to_owned()),
            why: "lb-a holds epoch 6".to_owned(),
        }
    );
}

#[test]
fn a_lease_that_was_made_anew_is_taken_again() {
    let mut node = Node::master(true);
    node.written(|lease| {
        lease.holder = None;
        lease.epoch = 0;
    });
    let mut lease = node.lease.clone();
    lease.resource_version += "0";
    node.lease = lease.clone();
    node.tell(Event::Seen(lease, Source::Read));
    let write = node.await_write(WritePurpose::Acquire);
    node.acknowledge(&write);
    assert_eq!(
        node.only(),
        became_master(8, None, "the Lease was made anew")
    );
    assert!(!node.chronicle.awaits_announcement(), "no holder was lost");
}

/// Something that makes the holder offer, and what is said of it.
type Offering = (&'static str, fn(&mut Node));

#[test]
fn a_handover_says_what_led_to_it() {
    let offerings: [Offering; 7] = [
        ("its agent ends", |node| node.tell(Event::ShutdownRequested)),
        ("it is no longer a director", |node| {
            node.chronicle.depart(Some(Departure::NotSelected));
            node.configure(|config| config.intent = Intent::Leave);
        }),
        ("device out has no carrier", |node| {
            let fault = "device out has no carrier".to_owned();
            node.chronicle.depart(Some(Departure::Fault(fault)));
            node.configure(|config| config.intent = Intent::Leave);
        }),
        ("annotation lvs.dev/hand-over-to asks for it", |node| {
            node.configure(|config| config.hand_over_to = Some("lb-a".to_owned()));
        }),
        ("its node is cordoned", |node| {
            node.configure(|config| config.priority = 0);
        }),
        ("it cannot reach the API server", |node| {
            node.tell(Event::ApiLost);
        }),
        ("preempted by priority 100, above 90", |node| {
            node.configure(|config| {
                config.priority = 90;
                config.preemption_delay = Some(Duration::ZERO);
            });
        }),
    ];
    for (why, offer) in offerings {
        let mut node = Node::master(true);
        node.hear(Carriage::Nothing, |_| ());
        offer(&mut node);
        node.hear(Carriage::Nothing, |_| ());
        let successor = |standing: &mut Standing| {
            standing.epoch += 1;
            standing.holder = Some("lb-a".to_owned());
        };
        node.hear(Carriage::All, successor);
        assert!(
            node.happened.is_empty(),
            "it keeps them for a moment: {why}"
        );
        // What led to it may be over now, as an annotation is that was obeyed.
        node.chronicle.depart(None);
        node.configure(|config| *config = self::config(true));
        node.hear(Carriage::Announced, successor);
        assert_eq!(
            node.only(),
            Happened {
                kind: TransitionKind::HandedOver,
                epoch: 8,
                peer: Some("lb-a".to_owned()),
                why: why.to_owned(),
            }
        );
    }
}

#[test]
fn a_handover_by_the_lease_alone_is_one_too() {
    let mut node = Node::master(false);
    node.tell(Event::ShutdownRequested);
    let offer = node.await_write(WritePurpose::Renew);
    assert!(offer.offered);
    node.acknowledge(&offer);
    node.taken();
    assert!(node.happened.is_empty(), "it keeps them for a moment");
    node.pass(Duration::from_secs(1));
    let happened = node.only();
    assert_eq!(
        (happened.kind, happened.epoch, happened.why.as_str()),
        (TransitionKind::HandedOver, 8, "its agent ends")
    );
}

#[test]
fn whose_authority_ends_is_fenced() {
    // A higher epoch.
    let mut node = Node::master(true);
    node.taken();
    assert_eq!(
        node.only(),
        Happened {
            kind: TransitionKind::Fenced,
            epoch: 7,
            peer: Some("lb-a".to_owned()),
            why: "lb-a holds epoch 8".to_owned(),
        }
    );
    // No acknowledgement.
    let mut node = Node::master(false);
    for _ in 0..200 {
        if let Some(deadline) = node.machine.next_deadline() {
            node.now = node.now.max(deadline);
        }
        node.tell(Event::Deadline);
        if !std::mem::take(&mut node.writes).is_empty() {
            node.tell(Event::WriteFailed);
        }
    }
    let happened = node.happened.remove(0);
    assert_eq!((happened.kind, happened.epoch), (TransitionKind::Fenced, 7));
    assert!(
        happened
            .why
            .starts_with("no renewal was acknowledged for 6."),
        "{happened:?}"
    );
    // Neither API server nor peers.
    let mut node = Node::master(true);
    node.tell(Event::ApiLost);
    node.pass(Duration::from_secs(2));
    let happened = node.happened.remove(0);
    assert_eq!((happened.kind, happened.epoch), (TransitionKind::Fenced, 7));
    assert!(
        happened.why.starts_with("the API server cannot be reached"),
        "{happened:?}"
    );
}

#[test]
fn a_holder_that_answers_but_is_not_heard_is_named_until_it_is_heard_again() {
    let mut node = Node::new(config(true), Some("lb-a"), None);
    node.hear(Carriage::All, |_| ());
    let silent_since = node.now;
    let challenge = node.await_write(WritePurpose::Challenge);
    node.acknowledge(&challenge);
    assert_eq!(node.chronicle.heartbeat_lost_from(), None);
    node.renewed();
    assert_eq!(node.chronicle.heartbeat_lost_from(), Some("lb-a"));
    assert!(node.now.since(silent_since) < Duration::from_secs(1));
    assert_eq!(node.chronicle.next_look(), None);
    // Heard again for the quiet period.
    node.hear(Carriage::All, |_| ());
    let heard_at = node.now;
    assert_eq!(node.chronicle.heartbeat_lost_from(), Some("lb-a"));
    assert_eq!(node.chronicle.next_look(), Some(heard_at + QUIET_PERIOD));
    while node.now < heard_at + QUIET_PERIOD {
        assert_eq!(node.chronicle.heartbeat_lost_from(), Some("lb-a"));
        node.now = node.now + INTERVAL;
        node.hear(Carriage::All, |_| ());
    }
    assert_eq!(node.chronicle.heartbeat_lost_from(), None);
    assert!(node.happened.is_empty());
}

/// What may come next.
#[derive(Clone, Copy, Debug)]
enum Step {
    Pass(u64),
    /// The oldest write is answered: accepted, lost, or stored without an answer.
    Answer(u8),
    Hear {
        higher: bool,
        offers: bool,
        carriage: Carriage,
    },
    Renewed,
    Taken,
    Offered,
    Freed,
    Api(bool),
    Priority(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let carriage = prop_oneof![
        Just(Carriage::Nothing),
        Just(Carriage::All),
        Just(Carriage::Announced)
    ];
    let step = prop_oneof![
        6 => (1_u64..3_000).prop_map(Step::Pass),
        6 => (0_u8..4).prop_map(Step::Answer),
        3 => (any::<bool>(), any::<bool>(), carriage).prop_map(|(higher, offers, carriage)| Step::Hear { higher, offers, carriage }),
        1 => Just(Step::Renewed),
        1 => Just(Step::Taken),
        1 => Just(Step::Offered),
        1 => Just(Step::Freed),
        1 => any::<bool>().prop_map(Step::Api),
        1 => prop_oneof![Just(0), Just(90), Just(100)].prop_map(Step::Priority),
    ];
    proptest::collection::vec(step, 1..120)
}

impl Node {
    fn step(&mut self, step: Step) {
        match step {
            Step::Pass(milliseconds) => {
                let end = self.now + Duration::from_millis(milliseconds);
                while let Some(at) = self.machine.next_deadline().filter(|at| *at <= end) {
                    self.now = self.now.max(at) + Duration::from_millis(1);
                    self.tell(Event::Deadline);
                }
                self.now = self.now.max(end);
                self.tell(Event::Deadline);
            }
            Step::Answer(outcome) if !self.writes.is_empty() => {
                let write = self.writes.remove(0);
                let is_current = write.resource_version == self.lease.resource_version;
                match outcome {
                    0 | 1 if is_current => self.acknowledge(&write),
                    2 if is_current => {
                        self.store(&write);
                        self.tell(Event::WriteFailed);
                    }
                    3 => self.tell(Event::WriteFailed),
                    _ => self.tell(Event::Conflict),
                }
            }
            Step::Answer(_) => {}
            Step::Hear {
                higher,
                offers,
                carriage,
            } => self.hear(carriage, |standing| {
                standing.offers = offers;
                if higher {
                    standing.epoch += 1;
                    standing.holder = Some("lb-a".to_owned());
                }
            }),
            Step::Renewed => self.renewed(),
            Step::Taken => self.taken(),
            Step::Offered => self.written(|lease| lease.offered = true),
            Step::Freed => self.written(|lease| lease.holder = None),
            Step::Api(lost) => self.tell(if lost { Event::ApiLost } else { Event::ApiBack }),
            Step::Priority(priority) => self.configure(|config| {
                config.priority = priority;
                config.preemption_delay = Some(Duration::ZERO);
            }),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// Whatever happens in whatever order: what is told agrees with the machine. A node that holds has told that it became
    /// master, one that does not has told how that ended, each once, and epochs rise.
    #[test]
    fn what_is_told_is_what_the_machine_does(has_heartbeats: bool, steps in steps()) {
        let mut node = Node::new(config(has_heartbeats), Some("lb-a"), None);
        let mut told = 0;
        let mut epoch = 0;
        let mut holds = false;
        for step in steps {
            node.step(step);
            for happened in &node.happened[told..] {
                let begins = happened.kind == TransitionKind::BecameMaster;
                // One whose Lease was made anew begins again without an end.
                prop_assert!(begins || holds, "{happened:?} after {step:?}");
                if begins {
                    prop_assert!(happened.epoch > epoch, "{happened:?} after {epoch}");
                    epoch = happened.epoch;
                } else {
                    prop_assert!(happened.epoch >= epoch, "{happened:?} of {epoch}");
                }
                prop_assert!(!happened.why.is_empty());
                prop_assert!(happened.peer.as_deref() != Some("lb-b"));
                holds = begins;
            }
            told = node.happened.len();
            let is_master = node.machine.status().role == Role::Master;
            prop_assert_eq!(is_master, holds, "after {:?}: {:?}", step, node.happened);
        }
    }
}
