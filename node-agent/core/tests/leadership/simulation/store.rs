//! One Lease with compare-and-swap, and the history of who held it.

use std::time::Duration;

use lvs_core::election::{Identity, LeaseRecord, LeaseWrite, WritePurpose};

/// One accepted write.
#[derive(Clone, Debug)]
pub struct Written {
    pub holder: Option<Identity>,
    pub epoch: u64,
    /// Whether the write before it offered the Lease, or left it without holder.
    pub given: bool,
}

/// What a request does.
#[derive(Clone, Debug)]
pub enum Request {
    Read,
    Write(LeaseWrite),
}

/// What the store answers when the answer arrives.
#[derive(Clone, Debug)]
pub enum Reply {
    Lease(LeaseRecord),
    Accepted(LeaseRecord),
    Conflict,
    Absent,
}

/// The store.
#[derive(Debug, Default)]
pub struct Store {
    pub lease: Option<LeaseRecord>,
    pub history: Vec<Written>,
    versions: u64,
    /// How often the Lease was made anew.
    pub remade: u64,
}

impl Store {
    fn next_version(&mut self) -> String {
        self.versions += 1;
        self.versions.to_string()
    }

    pub fn create(&mut self) {
        let resource_version = self.next_version();
        self.remade += 1;
        self.lease = Some(LeaseRecord {
            resource_version,
            holder: None,
            epoch: 0,
            lease_duration: Duration::ZERO,
            renewed: String::new(),
            offered: false,
            challenger: None,
        });
    }

    /// Somebody else writes an annotation: a new version, and no sign of life.
    pub fn annotate(&mut self) {
        let version = self.next_version();
        if let Some(lease) = &mut self.lease {
            lease.resource_version = version;
        }
    }

    /// `consented`: the holder's heartbeats say that a successor is welcome.
    pub fn serve(&mut self, request: &Request, consented: bool, at: Duration) -> Reply {
        let Some(lease) = self.lease.clone() else {
            return Reply::Absent;
        };
        let write = match request {
            Request::Read => return Reply::Lease(lease),
            Request::Write(write) => write,
        };
        if write.resource_version != lease.resource_version {
            return Reply::Conflict;
        }
        let changed_holder = write.holder.as_ref().map(|holder| &holder.node)
            != lease.holder.as_ref().map(|holder| &holder.node);
        if changed_holder || write.epoch != lease.epoch {
            self.history.push(Written {
                holder: write.holder.clone(),
                epoch: write.epoch,
                given: lease.offered || lease.holder.is_none() || consented,
            });
        }
        let resource_version = self.next_version();
        let record = LeaseRecord {
            renewed: if write.purpose == WritePurpose::Challenge {
                lease.renewed
            } else {
                format!("{at:?} {resource_version}")
            },
            resource_version,
            holder: write.holder.clone(),
            epoch: write.epoch,
            lease_duration: write.lease_duration,
            offered: write.offered,
            challenger: write.challenger.clone(),
        };
        self.lease = Some(record.clone());
        Reply::Accepted(record)
    }
}
