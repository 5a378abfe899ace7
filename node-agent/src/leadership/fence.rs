//! The fence thread: the only place that adds, refreshes, deletes and announces director addresses.
//!
//! It has its own sockets and waits for nothing but its own commands and its own next moment: no API, no
//! dump, no log line. What it did it reports by a watch and a bounded queue that drops when nobody reads.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use lvs_core::election::{Hold, Identity, Tick, Timing};
use lvs_core::fence::claim::Claim;
use lvs_core::fence::{
    Action, DirectorAddress, Fence, JournalEntry, Outcome, RouterAddresses, Step,
};
use lvs_core::heartbeat::{Message, Standing};
use lvs_core::host::is_virtual_mac_device;
use lvs_crds::virtual_router::Announcement;
use nix::errno::Errno;
use nix::sys::socket::SockProtocol;
use tokio::sync::{mpsc, oneshot, watch};

use super::address::{self, Put};
use super::announce::Announcer;
use super::clock;
use super::driver::Control;
use super::exchanges::{Exchanges, HeartbeatCounts, HeartbeatPlan};
use super::heartbeat::{HeartbeatConfig, HeartbeatError, Keys, ReceiverCounts, Wire};
use super::journal::{Found, Journal, JournalError};
use crate::kernel::error::KernelError;
use crate::kernel::link;
use crate::kernel::socket::NetlinkSocket;

/// Commands that may wait; the thread takes them in microseconds.
const COMMANDS: usize = 1024;
/// Log lines that may wait for the log.
const NOTES: usize = 256;
/// A request to the kernel that takes longer than this counts as failed; well below V − 0.5 s.
const NETLINK_TIMEOUT: Duration = Duration::from_millis(500);
/// The thread looks around at least this often.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// What the fence thread must know of a router.
#[derive(Clone, Debug)]
pub struct RouterSettings {
    /// Times.
    pub timing: Timing,
    /// How addresses are announced.
    pub announcement: Announcement,
    /// Heartbeats; none = there are none.
    pub heartbeats: Option<HeartbeatPlan>,
}

/// What the fence thread is told.
#[derive(Debug)]
pub enum Command {
    /// The routers of this node, all of them.
    Configure(BTreeMap<String, RouterSettings>),
    /// The addresses of the routers named.
    Want(BTreeMap<String, BTreeSet<DirectorAddress>>),
    /// Add no address of these routers for now.
    HoldBack(BTreeSet<String>),
    /// Carry a router's addresses.
    Hold(String, Hold),
    /// Announce a router's addresses no more.
    Yield(String),
    /// Delete a router's addresses now.
    GiveUp(String),
    /// Tell this election what is heard of its router.
    Attach(String, mpsc::UnboundedSender<Control>),
    /// Say this in a router's heartbeats.
    Say(String, Standing),
    /// An authentic heartbeat came.
    Received(Message),
    /// Seal with these keys, and accept what they sealed.
    Keys(Keys),
    /// Somebody else claims an address.
    Claimed(Claim),
    /// A look at the kernel that began then did not find these addresses.
    Missing(BTreeMap<String, BTreeSet<DirectorAddress>>, Tick),
    /// Answer when everything before has been carried out.
    Flush(oneshot::Sender<()>),
    /// End the thread; what is held stays for its lifetime.
    End,
}

/// State of all director addresses of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FenceReport {
    /// By router.
    pub routers: BTreeMap<String, RouterAddresses>,
    /// Counts since the start.
    pub counts: FenceCounts,
    /// Counts of heartbeats since the start.
    pub heartbeats: HeartbeatCounts,
    /// How late the latest refresh was, against its interval.
    pub refresh_lateness: Duration,
    /// Why the journal cannot be written; no address is added then.
    pub journal_error: Option<String>,
}

/// What the fence thread did since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FenceCounts {
    /// Addresses added.
    pub additions: u64,
    /// Lifetimes set.
    pub refreshes: u64,
    /// Addresses deleted.
    pub deletions: u64,
    /// Announcements sent.
    pub announcements: u64,
    /// Claims of others that were heard.
    pub claims: u64,
    /// Addresses deleted since the time had run out between the check and the end of the write.
    pub late_deletions: u64,
}

/// The running thread.
#[derive(Debug)]
pub struct FenceThread {
    commands: SyncSender<Command>,
    thread: Option<JoinHandle<()>>,
}

/// What comes out of the thread, and out of its start.
#[derive(Debug)]
pub struct FenceOutput {
    /// What an earlier process of this boot left, for the elections.
    pub journal: BTreeMap<String, JournalEntry>,
    /// Why the journal found could not be used.
    pub journal_damage: Option<String>,
    /// State.
    pub report: watch::Receiver<FenceReport>,
    /// What was done, one line each, refreshes and announcements aside.
    pub notes: mpsc::Receiver<String>,
    /// Counts of the receiver of heartbeats; none without heartbeats.
    pub received: Option<Arc<ReceiverCounts>>,
    /// Resolves when the thread has ended.
    pub ended: oneshot::Receiver<()>,
}

/// The fence thread cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum FenceError {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The netlink socket.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// Heartbeats.
    #[error(transparent)]
    Heartbeat(#[from] HeartbeatError),
    /// The thread.
    #[error("starting the fence thread: {0}")]
    Thread(#[source] std::io::Error),
}

impl FenceThread {
    /// Takes the journal and starts the thread in the network namespace of the caller's thread, as this process of this
    /// node; with heartbeats when they are configured.
    pub fn start(
        runtime_directory: &Path,
        boot_id: &str,
        me: Identity,
        heartbeat: Option<&HeartbeatConfig>,
    ) -> Result<(Self, FenceOutput), FenceError> {
        let (journal, found) = Journal::open(runtime_directory, boot_id)?;
        let (entries, journal_damage) = match found {
            Found::Nothing => (BTreeMap::new(), None),
            Found::Routers(entries) => (entries, None),
            Found::Unreadable(why) => (BTreeMap::new(), Some(why)),
        };
        let (commands, receiver) = sync_channel(COMMANDS);
        let (report_sender, report) = watch::channel(FenceReport::default());
        let (notes_sender, notes) = mpsc::channel(NOTES);
        let (ended_sender, ended) = oneshot::channel();
        let wire = heartbeat
            .map(|config| Wire::open(config, commands.clone()))
            .transpose()?;
        let datagrams = wire.as_ref().map(|wire| Arc::clone(&wire.counts));
        let worker = Worker {
            fence: Fence::new(&entries, clock::now()),
            socket: open_socket()?,
            announcer: Announcer::default(),
            exchanges: Exchanges::new(me, wire),
            journal,
            journal_error: None,
            counts: FenceCounts::default(),
            report: report_sender,
            notes: notes_sender,
            flushes: Vec::new(),
            ended: Some(ended_sender),
        };
        let thread = std::thread::Builder::new()
            .name("fence".to_owned())
            .spawn(move || worker.run(&receiver))
            .map_err(FenceError::Thread)?;
        let output = FenceOutput {
            journal: entries,
            journal_damage,
            report,
            notes,
            received: datagrams,
            ended,
        };
        Ok((
            Self {
                commands,
                thread: Some(thread),
            },
            output,
        ))
    }

    /// A sender of commands.
    pub fn commands(&self) -> SyncSender<Command> {
        self.commands.clone()
    }

    /// Ends the thread and waits for it; what is held stays for its lifetime.
    pub fn end(&mut self) {
        // A thread that has ended already needs no telling.
        let _ = self.commands.send(Command::End);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn open_socket() -> Result<NetlinkSocket, KernelError> {
    NetlinkSocket::open(SockProtocol::NetlinkRoute, NETLINK_TIMEOUT)
}

struct Worker {
    fence: Fence,
    socket: NetlinkSocket,
    announcer: Announcer,
    exchanges: Exchanges,
    journal: Journal,
    journal_error: Option<String>,
    counts: FenceCounts,
    report: watch::Sender<FenceReport>,
    notes: mpsc::Sender<String>,
    flushes: Vec<oneshot::Sender<()>>,
    ended: Option<oneshot::Sender<()>>,
}

impl Drop for Worker {
    /// Also when the thread panics: its end is the end of the process.
    fn drop(&mut self) {
        if let Some(ended) = self.ended.take() {
            let _ = ended.send(());
        }
    }
}

impl Worker {
    fn run(mut self, commands: &Receiver<Command>) {
        loop {
            let now = clock::now();
            let wakes = [self.fence.next_wake(now), self.exchanges.next_wake()];
            let wait = wakes
                .into_iter()
                .flatten()
                .min()
                .map_or(LONGEST_WAIT, |wake| wake.since(now).min(LONGEST_WAIT));
            let mut command = match commands.recv_timeout(wait) {
                Ok(command) => Some(command),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            while let Some(next) = command {
                if self.obey(next) {
                    return;
                }
                command = commands.try_recv().ok();
            }
            self.work();
            self.exchanges.beat(&self.fence, clock::now());
            self.publish();
            for flush in self.flushes.drain(..) {
                let _ = flush.send(());
            }
        }
    }

    /// Returns whether the thread is to end.
    fn obey(&mut self, command: Command) -> bool {
        match command {
            Command::Configure(routers) => {
                let heartbeats = routers.iter().filter_map(|(name, settings)| {
                    Some((name.clone(), settings.heartbeats.clone()?))
                });
                self.exchanges.configure(heartbeats.collect());
                let settings = routers
                    .into_iter()
                    .map(|(name, settings)| (name, (settings.timing, settings.announcement)));
                self.fence.configure(settings.collect());
            }
            Command::Want(addresses) => {
                for (router, addresses) in addresses {
                    self.fence.want(&router, addresses);
                }
            }
            Command::HoldBack(routers) => self.fence.hold_back(&routers),
            Command::Hold(router, hold) => self.fence.hold(&router, hold),
            Command::Yield(router) => self.fence.yield_to_successor(&router),
            Command::GiveUp(router) => self.fence.give_up(&router),
            Command::Attach(router, election) => self.exchanges.attach(&router, election),
            Command::Say(router, standing) => self.exchanges.say(&router, standing),
            Command::Received(message) => self.exchanges.received(message, clock::now()),
            Command::Keys(keys) => self.exchanges.set_keys(keys),
            Command::Claimed(claim) => {
                self.counts.claims += 1;
                self.fence.claimed(&claim, clock::now());
            }
            Command::Missing(addresses, looked_at) => {
                let now = clock::now();
                for (router, addresses) in addresses {
                    for address in addresses {
                        self.fence.missing(&router, &address, looked_at, now);
                    }
                }
            }
            Command::Flush(done) => self.flushes.push(done),
            Command::End => return true,
        }
        false
    }

    fn work(&mut self) {
        let now = clock::now();
        let actions = self.fence.due(now);
        self.tell_doubts(now);
        // Before any addition: a journal that lacks an address would leave it to nobody.
        self.write_journal();
        for action in actions {
            if self.fence.permits(&action, clock::now()) {
                self.carry_out(&action);
            } else if matches!(action.step, Step::Add(_)) {
                let outcome = Outcome::Failed("the time of the Lease has run out".to_owned());
                self.finish(&action, outcome);
            }
        }
        self.fence.note_progress(clock::now());
        self.write_journal();
    }

    /// After this thread stood still the election asks whether the addresses are still this node's.
    fn tell_doubts(&mut self, since: Tick) {
        for router in self.fence.take_new_doubts() {
            self.exchanges.tell(&router, Control::Doubted(since));
            self.note(
                &format!("addresses of {router} wait for a renewal"),
                &Outcome::Failed("this process stood still".to_owned()),
            );
        }
    }

    fn write_journal(&mut self) {
        self.journal_error = match self.journal.write(self.fence.journal()) {
            Ok(()) => None,
            Err(error) => Some(error.to_string()),
        };
    }

    fn carry_out(&mut self, action: &Action) {
        let outcome = match (&action.step, &self.journal_error) {
            (Step::Add(_), Some(error)) => Outcome::Failed(error.clone()),
            _ => self.perform(action),
        };
        self.finish(action, outcome);
    }

    fn finish(&mut self, action: &Action, outcome: Outcome) {
        if !matches!(action.step, Step::Refresh(_) | Step::Announce) || outcome != Outcome::Done {
            self.note(&action.to_string(), &outcome);
        }
        if outcome == Outcome::Done {
            match action.step {
                Step::Add(_) => self.counts.additions += 1,
                Step::Refresh(_) => self.counts.refreshes += 1,
                Step::Delete => self.counts.deletions += 1,
                Step::Announce => self.counts.announcements += 1,
            }
        }
        // "Check, send, check again, delete if past".
        if let Some(deletion) = self.fence.done(action, outcome, clock::now()) {
            let outcome = self.perform(&deletion);
            self.note(&format!("{deletion} (too late)"), &outcome);
            self.counts.late_deletions += 1;
            // A deletion asks for nothing further.
            let _ = self.fence.done(&deletion, outcome, clock::now());
            self.silence(&deletion);
        }
        self.silence(action);
    }

    /// After the last address of a virtual MAC is gone, so is the MAC: another node has it now.
    fn silence(&mut self, action: &Action) {
        let device = action.address.device.as_str();
        if action.step != Step::Delete
            || !is_virtual_mac_device(device)
            || self.fence.carries(device)
        {
            return;
        }
        if let Err(error) = link::set_down(&mut self.socket, device)
            && error.errno() != Some(Errno::ENODEV)
        {
            self.note(
                &format!("link set {device} down"),
                &Outcome::Failed(error.to_string()),
            );
        }
    }

    fn perform(&mut self, action: &Action) -> Outcome {
        let result = self.try_perform(action);
        match result {
            Ok(()) => Outcome::Done,
            Err(error) => {
                // After a surprise the socket may hold answers to what was given up.
                if !matches!(error, KernelError::Refused { .. })
                    && let Ok(socket) = open_socket()
                {
                    self.socket = socket;
                }
                match (&action.step, error.errno()) {
                    (_, Some(Errno::ENODEV)) => Outcome::NoDevice,
                    (Step::Add(_), Some(Errno::EEXIST)) => Outcome::Foreign,
                    _ => Outcome::Failed(error.to_string()),
                }
            }
        }
    }

    fn try_perform(&mut self, action: &Action) -> Result<(), KernelError> {
        let name = action.address.device.as_str();
        let device = address::device(&mut self.socket, name)?;
        // A virtual MAC hears and answers only where the addresses are.
        if is_virtual_mac_device(name)
            && !device.up
            && matches!(action.step, Step::Add(_) | Step::Refresh(_))
        {
            link::set_up(&mut self.socket, name)?;
        }
        match action.step {
            Step::Add(lifetime) => address::put(
                &mut self.socket,
                &action.address,
                device.index,
                Put::New,
                lifetime,
            ),
            Step::Refresh(lifetime) => address::put(
                &mut self.socket,
                &action.address,
                device.index,
                Put::Replace,
                lifetime,
            ),
            Step::Delete => address::delete(&mut self.socket, &action.address, device.index),
            Step::Announce => {
                let Some(hardware_address) = device.hardware_address else {
                    return Ok(());
                };
                self.announcer
                    .announce(action.address.address, device.index, hardware_address)
                    .map_err(|error| KernelError::Refused {
                        doing: format!("announcing {}", action.address),
                        errno: error
                            .raw_os_error()
                            .map_or(Errno::UnknownErrno, Errno::from_raw),
                        sentence: String::new(),
                    })
            }
        }
    }

    fn note(&self, what: &str, outcome: &Outcome) {
        let line = match outcome {
            Outcome::Done => what.to_owned(),
            Outcome::Foreign => format!("{what}: it is there and was not added by us"),
            Outcome::NoDevice => format!("{what}: no such device"),
            Outcome::Failed(error) => format!("{what}: {error}"),
        };
        // When the log does not keep up, a line is lost; time is not.
        let _ = self.notes.try_send(line);
    }

    fn publish(&self) {
        let report = FenceReport {
            routers: self.fence.report(),
            counts: self.counts,
            heartbeats: self.exchanges.counts,
            refresh_lateness: self.fence.refresh_lateness(),
            journal_error: self.journal_error.clone(),
        };
        self.report.send_if_modified(|published| {
            // Refreshes alone wake nobody.
            let changed = published.routers != report.routers
                || published.journal_error != report.journal_error;
            *published = report;
            changed
        });
    }
}
