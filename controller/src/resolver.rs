//! Keeps up to date what the DNS says of names that RealServers have as targets. When which is asked for, and what an
//! answer changes, is decided in `lvs_plan::dns_name`.

use std::collections::BTreeSet;
use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use anyhow::Context;
use lvs_plan::dns_name::{Answers, NameBook};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::world::SharedWorld;

/// Most names that are asked for at the same time.
pub const PARALLEL_MAXIMUM: usize = 16;

/// Asks for the addresses of a name, in bounded time.
pub trait Lookup: Clone + Send + Sync + 'static {
    /// Both families.
    fn lookup(&self, name: &str) -> impl Future<Output = Answers> + Send;
}

/// Asks for names and puts the answers into the world.
pub struct NameResolver<L> {
    /// Where answers go.
    pub world: SharedWorld,
    /// Names that are wanted; none while another replica works.
    pub names: watch::Receiver<BTreeSet<String>>,
    /// Who is asked.
    pub dns: L,
}

impl<L: Lookup> NameResolver<L> {
    /// Asks until the process ends.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        let mut book = NameBook::default();
        let mut questions = JoinSet::new();
        loop {
            let room = PARALLEL_MAXIMUM - questions.len();
            for name in book.ask(begun.elapsed(), room) {
                let dns = self.dns.clone();
                questions.spawn(async move {
                    let answers = dns.lookup(&name).await;
                    (name, answers)
                });
            }
            let has_room = questions.len() < PARALLEL_MAXIMUM;
            let next = book.next().filter(|_| has_room).map(|due| begun + due);
            tokio::select! {
                changed = self.names.changed() => {
                    changed?;
                    let names = self.names.borrow_and_update().clone();
                    book.want(&names, begun.elapsed());
                    self.world.lock().dns_names = book.known();
                }
                Some(answered) = questions.join_next() => {
                    let (name, answers) = answered.context("a question to the DNS")?;
                    if book.answered(&name, answers, begun.elapsed(), draw()) {
                        self.world.lock().dns_names = book.known();
                        self.world.notify();
                    }
                }
                () = sleep_until(next) => {}
            }
        }
    }
}

async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// A number in 0..1 that differs each time: of a hasher only its keys are random.
fn draw() -> f64 {
    let drawn = RandomState::new().build_hasher().finish();
    Duration::from_nanos(drawn % 1_000_000_000).as_secs_f64()
}
