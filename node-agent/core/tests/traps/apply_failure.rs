//! A director whose kernel refuses a service gives way, but not for a moment's failure, nor for what no director can do.

use std::collections::BTreeMap;
use std::time::Duration;

use lvs_core::apply_failure::{ApplyFailures, Judgement};
use lvs_core::election::Tick;

use super::fitness::edge;
use super::*;
use crate::world::ROUTER;

fn at(milliseconds: u64) -> Tick {
    Tick::default() + Duration::from_millis(milliseconds)
}

fn refused(plan: &str, reason: Reason) -> BTreeMap<String, Verdict> {
    let verdict = Verdict::NotProgrammed {
        reason,
        message: "it says why".to_owned(),
    };
    BTreeMap::from([(plan.to_owned(), verdict)])
}

fn plans() -> Vec<PlanInput> {
    vec![edge(&[], &[]), web(SchedulerName::Rr)]
}

/// What is said of a failure that has lasted for ten seconds.
fn lasting(plans: &[PlanInput], verdicts: &BTreeMap<String, Verdict>) -> Judgement {
    let mut failures = ApplyFailures::default();
    failures.note(plans, verdicts, at(5_000));
    failures.note(plans, verdicts, at(15_000))
}

#[test]
fn a_failure_counts_once_it_has_outlasted_a_second_try() {
    let verdicts = refused("vs-web", Reason::KernelError);
    let mut failures = ApplyFailures::default();
    let judgement = failures.note(&plans(), &verdicts, at(5_000));
    assert!(judgement.deductions.is_empty());
    assert_eq!(judgement.due, Some(Duration::from_secs(1)));
    let judgement = failures.note(&plans(), &verdicts, at(5_600));
    assert_eq!(judgement.due, Some(Duration::from_millis(400)));
    let judgement = failures.note(&plans(), &verdicts, at(6_000));
    assert_eq!(judgement.due, None);
    let deduction = &judgement.deductions[ROUTER];
    assert_eq!(deduction.priority_delta, 0, "it gives way");
    assert_eq!(deduction.reason, "KernelError");
    assert!(
        deduction
            .message
            .ends_with("cannot be served here: it says why")
    );

    // What went by begins anew.
    assert_eq!(
        failures.note(&plans(), &BTreeMap::new(), at(7_000)),
        Judgement::default()
    );
    let judgement = failures.note(&plans(), &verdicts, at(8_000));
    assert!(judgement.deductions.is_empty());
}

#[test]
fn only_what_this_kernel_refuses_to_a_director_counts() {
    assert!(
        !lasting(&plans(), &refused("vs-web", Reason::ForeignObject))
            .deductions
            .is_empty()
    );
    // A link is judged by itself; what no node can decide is alike on all.
    for reason in [
        Reason::LinkDown,
        Reason::EndpointFailed,
        Reason::ReturnPathUnresolved,
    ] {
        let judgement = lasting(&plans(), &refused("vs-web", reason));
        assert_eq!(judgement, Judgement::default(), "{reason}");
    }
    let verdicts = refused("vs-web", Reason::KernelError);
    let mut withdrawn = plans();
    withdrawn[1].spec.state = PlanState::Withdrawn;
    assert_eq!(lasting(&withdrawn, &verdicts), Judgement::default());
    let mut real_server = plans();
    real_server[1].spec.director = None;
    assert_eq!(lasting(&real_server, &verdicts), Judgement::default());
    // Its address was set aside: every director fails.
    let aside = vec![edge(&[], &["192.0.2.100"]), web(SchedulerName::Rr)];
    let verdicts = refused("vs-web", Reason::ForeignObject);
    assert_eq!(lasting(&aside, &verdicts), Judgement::default());
}
