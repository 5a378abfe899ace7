use super::*;

#[test]
fn an_unknown_version_is_an_error_not_an_empty_journal() {
    let mut world = World::new(node(), vec![web(SchedulerName::Rr)]);
    world.pass();
    let text = world.journal.to_text().unwrap();
    assert_eq!(Journal::from_text(&text, BOOT).unwrap(), world.journal);
    let newer = text.replace("\"version\":1", "\"version\":2");
    assert!(matches!(
        Journal::from_text(&newer, BOOT),
        Err(JournalError::UnknownVersion { found: 2 })
    ));
    for damaged in ["", "{}", "null", "{\"version\":1}", &text[..text.len() - 9]] {
        assert!(matches!(
            Journal::from_text(damaged, BOOT),
            Err(JournalError::Malformed(_))
        ));
    }
}

/// What the kernel would not let go of is still ours, or nobody would ever remove it.
#[test]
fn a_removal_that_failed_is_tried_again() {
    let mut world = World::new(
        node(),
        vec![
            web(SchedulerName::Rr),
            direct_routing_plan("vs-dr", &["192.0.2.101"]),
        ],
    );
    world.pass();
    world.withdraw_all();
    let wanted = world.desired();
    let observed = world.model.observe_for(&wanted, &world.journal);
    let removals = diff(&wanted, &observed, &world.journal).ops;
    world.journal = world.journal.after(&wanted, &observed, &removals);
    assert_eq!(world.diff().ops, removals);
}

#[test]
fn another_boot_voids_it() {
    let mut world = World::new(node(), vec![web(SchedulerName::Rr)]);
    world.pass();
    let text = world.journal.to_text().unwrap();
    let next = Journal::from_text(&text, "another-boot").unwrap();
    assert_eq!(next, Journal::new("another-boot"));
}

/// The fence thread may add an address at any time after it was handed over.
#[test]
fn director_addresses_are_kept_while_wanted_or_present() {
    let mut world = World::new(node(), vec![web(SchedulerName::Rr)]);
    world.pass();
    let address = key("eth0", "192.0.2.100", 32);
    assert!(world.journal.director_addresses.contains(&address));
    world.model.host.add_director_address(address.clone());
    world.withdraw_all();
    world.pass();
    assert!(
        world.journal.director_addresses.contains(&address),
        "still there"
    );
    world.model.host.remove_address(&address);
    world.pass();
    assert!(world.journal.is_empty());
}
