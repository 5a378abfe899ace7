use super::*;

fn failure(op: Op) -> Failure {
    Failure {
        op,
        reason: Reason::SysctlReadOnly,
        message: "read-only file system".to_owned(),
    }
}

#[test]
fn a_failure_is_that_of_the_plans_that_want_the_thing() {
    let world = World::new(
        node(),
        vec![
            direct_routing_plan("vs-dr", &["192.0.2.101"]),
            web(SchedulerName::Rr),
        ],
    );
    let wanted = world.desired();
    let failures = [failure(Op::Host(HostOp::SetSysctl {
        key: sysctl("net/ipv4/conf/eth0/arp_ignore"),
        value: "1".to_owned(),
    }))];
    let result = verdicts(
        &world.plans,
        &wanted,
        &world.journal,
        &failures,
        &Default::default(),
    );
    assert_eq!(
        result.plans["vs-dr"],
        Verdict::NotProgrammed {
            reason: Reason::SysctlReadOnly,
            message: "sysctl net.ipv4.conf.eth0.arp_ignore=1: read-only file system".to_owned()
        }
    );
    assert_eq!(result.plans["vs-web"], Verdict::Programmed);
    assert_eq!(result.unattributed, Vec::<String>::new());
}

#[test]
fn a_withdrawal_is_not_acknowledged_while_something_is_left() {
    let mut world = World::new(
        node(),
        vec![
            direct_routing_plan("vs-dr", &["192.0.2.101"]),
            direct_routing_plan("vs-other", &["192.0.2.102"]),
        ],
    );
    world.pass();
    world.plans[0].spec.state = PlanState::Withdrawn;
    let wanted = world.desired();
    let address = key(DIRECT_ROUTING_DEVICE, "192.0.2.101", 32);
    let stuck = [failure(Op::Host(HostOp::DeleteAddress(address)))];
    let result = verdicts(&world.plans, &wanted, &world.journal, &stuck, &world.diff());
    assert!(matches!(
        result.plans["vs-dr"],
        Verdict::NotProgrammed { .. }
    ));
    // A failure about what another plan still wants is not the leaving plan's.
    let shared = [failure(Op::Host(HostOp::SetLinkUp {
        name: DIRECT_ROUTING_DEVICE.to_owned(),
    }))];
    world.pass();
    let wanted = world.desired();
    let result = verdicts(
        &world.plans,
        &wanted,
        &world.journal,
        &shared,
        &world.diff(),
    );
    assert_eq!(result.plans["vs-dr"], Verdict::Withdrawn);
    assert!(matches!(
        result.plans["vs-other"],
        Verdict::NotProgrammed { .. }
    ));
}

/// A port that was edited away has no plan that wants it; the plan that had it answers.
#[test]
fn what_a_plan_no_longer_wants_is_still_its_affair() {
    let mut world = World::new(node(), vec![web(SchedulerName::Rr)]);
    world.pass();
    world.plans[0]
        .spec
        .director
        .as_mut()
        .unwrap()
        .services
        .clear();
    let wanted = world.desired();
    let stuck = [failure(Op::Ipvs(IpvsOp::DeleteService(tcp(
        "192.0.2.100",
        80,
    ))))];
    let result = verdicts(
        &world.plans,
        &wanted,
        &world.journal,
        &stuck,
        &Default::default(),
    );
    assert!(matches!(
        result.plans["vs-web"],
        Verdict::NotProgrammed { .. }
    ));
}

#[test]
fn what_differs_again_at_once_is_told() {
    let mut world = World::new(node(), vec![web(SchedulerName::Rr)]);
    let pass = world.pass();
    world
        .model
        .ipvs
        .services
        .get_mut(&tcp("192.0.2.100", 80))
        .unwrap()
        .destinations
        .clear();
    let result = verdicts(
        &world.plans,
        &pass.desired,
        &world.journal,
        &[],
        &world.diff(),
    );
    assert!(matches!(
        result.plans["vs-web"],
        Verdict::NotProgrammed {
            reason: Reason::VerificationFailed,
            ..
        }
    ));
}

/// A changed plan is not drift; the same difference with the same plan is.
#[test]
fn a_changed_plan_is_not_drift() {
    let mut world = World::new(node(), vec![web(SchedulerName::Rr)]);
    let verified = world.pass().desired;
    world.plans[0].spec.director.as_mut().unwrap().services[0].real_servers[0].weight = 5;
    let edited = world.diff().ops;
    assert_eq!(edited.len(), 1);
    assert_eq!(
        repairs(&edited, Some(&verified), &world.desired()).count(),
        0
    );
    assert_eq!(repairs(&edited, None, &world.desired()).count(), 0);
    let verified = world.pass().desired;
    world.model.ipvs.services.clear();
    let ops = world.diff().ops;
    assert_eq!(
        repairs(&ops, Some(&verified), &world.desired()).count(),
        ops.len()
    );
    assert_eq!(ops.len(), 2);
}
