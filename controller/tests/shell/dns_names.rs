//! Names that RealServers stand for: when the DNS is asked, and what follows from its answers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use lvs_controller::resolver::{Lookup, NameResolver, PARALLEL_MAXIMUM};
use lvs_controller::world::SharedWorld;
use lvs_plan::dns_name::{Answer, Answers};

use super::endpoint_slices::real_servers_sent;
use super::*;

/// Longest time that anything here takes, by a clock that goes on only while everybody waits.
const LIMIT: Duration = Duration::from_hours(1);

/// The DNS as the scene wants it, and what it was asked for when.
#[derive(Clone, Default)]
struct Script {
    answers: Arc<Mutex<BTreeMap<String, Answers>>>,
    asked: Arc<Mutex<Vec<(String, Instant)>>>,
    under_way: Arc<Mutex<(usize, usize)>>,
    delay: Duration,
}

impl Lookup for Script {
    async fn lookup(&self, name: &str) -> Answers {
        self.asked
            .lock()
            .unwrap()
            .push((name.to_owned(), Instant::now()));
        {
            let mut under_way = self.under_way.lock().unwrap();
            under_way.0 += 1;
            under_way.1 = under_way.1.max(under_way.0);
        }
        tokio::time::sleep(self.delay).await;
        self.under_way.lock().unwrap().0 -= 1;
        let answers = self.answers.lock().unwrap();
        answers.get(name).cloned().unwrap_or_else(failed)
    }
}

impl Script {
    fn says(&self, name: &str, answers: Answers) {
        self.answers
            .lock()
            .unwrap()
            .insert(name.to_owned(), answers);
    }

    fn take_asked(&self) -> Vec<(String, Instant)> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

fn failed() -> Answers {
    let answer = Answer::Failed("no answer".to_owned());
    Answers {
        ipv4: answer.clone(),
        ipv6: answer,
    }
}

fn addresses(all: &[&str], seconds: u64) -> Answers {
    Answers {
        ipv4: Answer::Addresses {
            addresses: all.iter().map(|text| text.parse().unwrap()).collect(),
            time_to_live: Duration::from_secs(seconds),
        },
        ipv6: Answer::NoRecords,
    }
}

/// RealServers of which each stands for the name beside it.
fn name(scene: &Scene, real_servers: &[(&str, &str)]) {
    let mut router = virtual_router();
    router["spec"]["grants"][0]["realServerCIDRs"] = json!(["10.0.0.0/8"]);
    let mut world = scene.world.lock();
    put(
        &mut world.virtual_routers,
        "",
        "default",
        "2",
        decode(&router).unwrap(),
    );
    for (real_server, name) in real_servers {
        let object = json!({"metadata": {"namespace": "shop", "name": real_server, "uid": real_server, "generation": 1},
                            "spec": {"target": {"type": "DNSName", "dnsName": {"name": name}}}});
        put(
            &mut world.real_servers,
            "shop",
            real_server,
            "1",
            decode(&object).unwrap(),
        );
    }
}

/// The controller at work.
struct AtWork {
    stage: Stage,
    leads: watch::Sender<bool>,
    world: SharedWorld,
}

fn work(mut scene: Scene, script: Script) -> AtWork {
    let (leads, is_leader) = watch::channel(true);
    scene.reconciler.is_leader = is_leader;
    let resolver = NameResolver {
        world: scene.world.clone(),
        names: scene.reconciler.names.subscribe(),
        dns: script,
    };
    tokio::spawn(resolver.run());
    tokio::spawn(scene.reconciler.run());
    scene.world.notify();
    AtWork {
        stage: scene.stage,
        leads,
        world: scene.world,
    }
}

impl AtWork {
    /// Waits until both directors were sent these real servers.
    async fn await_sent(&self, expected: &[&str]) {
        let seen = async {
            let mut sent = Vec::new();
            while sent.len() < 2 {
                let more = real_servers_sent(&self.stage);
                sent.extend(more.into_iter().filter(|sent| sent == expected));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let seen = tokio::time::timeout(LIMIT, seen).await;
        assert!(seen.is_ok(), "{expected:?} was not sent");
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_is_asked_for_again_when_its_answer_has_run_out() {
    let scene = Scene::new();
    name(&scene, &[("web", "web.example"), ("more", "web.example")]);
    let script = Script::default();
    script.says("web.example", addresses(&["10.0.0.1", "10.0.0.2"], 60));
    let work = work(scene, script.clone());
    work.await_sent(&["10.0.0.1", "10.0.0.2"]).await;
    let asked = script.take_asked();
    assert_eq!(asked.len(), 1, "one question for two RealServers");

    script.says("web.example", addresses(&["10.0.0.2", "10.0.0.3"], 60));
    work.await_sent(&["10.0.0.2", "10.0.0.3"]).await;
    let again = script.take_asked();
    assert_eq!(again.len(), 1);
    let waited = again[0].1 - asked[0].1;
    let (least, most) = (Duration::from_mins(1), Duration::from_secs(67));
    assert!(waited >= least && waited <= most, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_dns_takes_nothing_away_and_is_asked_again() {
    let scene = Scene::new();
    name(&scene, &[("web", "web.example")]);
    let script = Script::default();
    script.says("web.example", addresses(&["10.0.0.1"], 60));
    let work = work(scene, script.clone());
    work.await_sent(&["10.0.0.1"]).await;

    script.says("web.example", failed());
    script.take_asked();
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert_eq!(real_servers_sent(&work.stage), Vec::<Vec<String>>::new());
    let asked = script.take_asked().len();
    assert!((15..=25).contains(&asked), "every 30 s: {asked}");

    script.says("web.example", addresses(&["10.0.0.9"], 60));
    work.await_sent(&["10.0.0.9"]).await;
}

#[tokio::test(start_paused = true)]
async fn only_the_replica_that_works_asks() {
    let scene = Scene::new();
    name(&scene, &[("web", "web.example")]);
    let script = Script::default();
    script.says("web.example", addresses(&["10.0.0.1"], 5));
    let work = work(scene, script.clone());
    work.await_sent(&["10.0.0.1"]).await;

    work.leads.send_replace(false);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(work.world.lock().dns_names.is_empty(), "it grows old");
    script.take_asked();
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert_eq!(script.take_asked(), []);

    // What another replica would have planned meanwhile is in the plans, and holds until there is an answer.
    script.says("web.example", failed());
    work.stage.take("");
    work.leads.send_replace(true);
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert!(!script.take_asked().is_empty());
    assert_eq!(real_servers_sent(&work.stage), Vec::<Vec<String>>::new());
}

#[tokio::test(start_paused = true)]
async fn slow_names_do_not_crowd_and_each_has_its_turn() {
    let scene = Scene::new();
    let all: Vec<(String, String)> = (0..50)
        .map(|number| (format!("rs-{number}"), format!("name-{number}.example")))
        .collect();
    let named: Vec<_> = all
        .iter()
        .map(|(real_server, name)| (real_server.as_str(), name.as_str()))
        .collect();
    name(&scene, &named);
    let script = Script {
        delay: Duration::from_secs(5),
        ..Script::default()
    };
    let _work = work(scene, script.clone());
    tokio::time::sleep(Duration::from_secs(21)).await;
    let asked: BTreeSet<String> = script.take_asked().into_iter().map(|one| one.0).collect();
    assert_eq!(asked.len(), 50);
    assert_eq!(script.under_way.lock().unwrap().1, PARALLEL_MAXIMUM);
}
