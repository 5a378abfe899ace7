//! What is no answer, or one without addresses, takes nothing away.

use super::*;

/// The DNS says something else than addresses of both families.
fn spoil(cluster: &mut Cluster, last_answer: &LastAnswer) {
    let known = cluster.inputs.dns_names.entry(NAME.to_owned()).or_default();
    let known = Arc::make_mut(known);
    known.ipv4.last_answer = last_answer.clone();
    known.ipv6.last_answer = last_answer.clone();
}

fn failed() -> LastAnswer {
    LastAnswer::Failed("no answer from 10.96.0.10 within 5 s".to_owned())
}

#[test]
fn unknown_is_not_none() {
    for (last_answer, words) in [
        (failed(), "no answer from 10.96.0.10 within 5 s"),
        (LastAnswer::NoSuchName, "there is no such name (NXDOMAIN)"),
        (LastAnswer::NoRecords, "it has no A record"),
    ] {
        let mut cluster = web(json!({}), json!({}));
        answer(&mut cluster, &["10.0.0.1", "10.0.0.2"], &[]);
        cluster.settle();
        let before = cluster.stored();

        spoil(&mut cluster, &last_answer);
        let resolution = cluster.settle();
        assert_eq!(cluster.stored(), before, "{last_answer:?}");
        let stay = "the last addresses 10.0.0.1, 10.0.0.2 stay";
        expect_bad(
            &resolved(&resolution),
            Reason::DnsNameNotResolved,
            &["spec.target.dnsName: web.example: ", words, stay],
        );

        // The controller starts anew: what it knew is in the plans.
        cluster.inputs.dns_names.clear();
        let resolution = cluster.settle();
        assert_eq!(cluster.stored(), before, "not asked yet");
        assert_eq!(
            resolved(&resolution).truth,
            Truth::True,
            "nothing is wrong yet"
        );
        spoil(&mut cluster, &last_answer);
        let resolution = cluster.settle();
        assert_eq!(cluster.stored(), before, "{last_answer:?} after a restart");
        expect_bad(
            &resolved(&resolution),
            Reason::DnsNameNotResolved,
            &[words, stay],
        );
        assert!(is_quiet(&cluster.settle()));

        // What the user changes holds meanwhile.
        cluster.apply(stands_for_name(json!({"weight": 7})));
        cluster.settle();
        let real_servers = services(&cluster).remove(0).real_servers;
        assert!(real_servers.iter().all(|one| one.weight == 7) && real_servers.len() == 2);

        answer(&mut cluster, &["10.0.0.2"], &[]);
        let resolution = cluster.settle();
        assert_eq!(destinations(&cluster), [["10.0.0.2:80"]]);
        assert_eq!(resolved(&resolution).truth, Truth::True);
    }
}

#[test]
fn each_family_is_known_by_itself() {
    let spec = json!({"addresses": ["172.25.0.100", "2001:db8::100"]});
    let mut cluster = web(spec.clone(), json!({}));
    answer(&mut cluster, &["10.0.0.1"], &["2001:db8:1::1"]);
    cluster.settle();

    // One family goes on, the other stays.
    let known = Arc::make_mut(cluster.inputs.dns_names.get_mut(NAME).unwrap());
    known.ipv4 = records(&["10.0.0.2"]);
    known.ipv6.last_answer = LastAnswer::NoRecords;
    let resolution = cluster.settle();
    assert_eq!(
        destinations(&cluster),
        [["10.0.0.2:80"], ["[2001:db8:1::1]:80"]]
    );
    expect_bad(
        &resolved(&resolution),
        Reason::DnsNameNotResolved,
        &["it has no AAAA record; the last address 2001:db8:1::1 stays"],
    );

    // A family of which nothing was ever known, and cannot be.
    let mut cluster = web(spec, json!({}));
    answer(&mut cluster, &["10.0.0.2"], &[]);
    let known = Arc::make_mut(cluster.inputs.dns_names.get_mut(NAME).unwrap());
    known.ipv6 = Records {
        last_answer: failed(),
        ..Records::default()
    };
    let resolution = cluster.settle();
    assert_eq!(destinations(&cluster), [vec!["10.0.0.2:80"], vec![]]);
    expect_bad(
        &resolved(&resolution),
        Reason::DnsNameNotResolved,
        &["no answer from"],
    );
}

#[test]
fn a_name_without_any_address_says_why() {
    for (last_answer, words) in [
        (None, "it has not been asked for yet"),
        (Some(failed()), "no answer from 10.96.0.10 within 5 s"),
        (
            Some(LastAnswer::NoSuchName),
            "there is no such name (NXDOMAIN): correct the name, or add a record",
        ),
        (
            Some(LastAnswer::NoRecords),
            "it has no A record: correct the name, or add a record",
        ),
    ] {
        let mut cluster = web(json!({}), json!({}));
        if let Some(last_answer) = &last_answer {
            spoil(&mut cluster, last_answer);
        }
        let resolution = cluster.settle();
        assert_eq!(destinations(&cluster), [Vec::<String>::new()]);
        expect_bad(&resolved(&resolution), Reason::DnsNameNotResolved, &[words]);
    }
}

/// Who lets a name fail keeps by it nothing that a grant no longer gives.
#[test]
fn a_failing_name_keeps_nothing_that_may_not_be_used() {
    let mut cluster = web(json!({}), json!({}));
    answer(&mut cluster, &["10.0.0.1", "10.7.0.1"], &[]);
    cluster.settle();
    cluster.inputs.dns_names.clear();
    spoil(&mut cluster, &failed());
    let router = cluster.inputs.virtual_routers.get_mut("default").unwrap();
    if let Body::Decoded(spec) = &mut Arc::make_mut(router).body {
        spec.grants[0].real_server_cidrs = vec!["10.0.0.0/16".to_owned()];
    }
    let resolution = cluster.pass();
    assert_eq!(destinations(&cluster), [["10.0.0.1:80"]]);
    expect_bad(
        &of_real_server(&resolution, "web", ConditionType::Accepted),
        Reason::TargetNotPermitted,
        &[
            "1 of 2 addresses of web.example",
            "10.7.0.1 lies in no permitted network",
        ],
    );
}
