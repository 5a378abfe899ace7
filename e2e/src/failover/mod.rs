//! What clients see of a failover, and who carries the address meanwhile: the measurements behind
//! `make bench-failover`, for this product and for keepalived in the same machine, and stories of leadership.
//!
//! | file | what |
//! |---|---|
//! | `record.rs` | what the program in the guest (`src/bin/failover_probe`) reports, line by line |
//! | `probe.rs` | that program seen from here |
//! | `measurement.rs` | from lines to figures |
//! | `subject.rs` | two directors that are measured, and what is done to them |
//! | `operator.rs`, `keepalived.rs` | the two subjects |
//! | `leases.rs` | the history of a Lease, for the invariants |
//! | `events.rs` | what happens to them, one function each |
//! | `etcd.rs` | an etcd whose writes take long |
//! | `table.rs` | worst of all rounds, against the aim |

pub mod etcd;
pub mod events;
pub mod keepalived;
pub mod leases;
pub mod measurement;
pub mod operator;
pub mod probe;
pub mod record;
pub mod subject;
pub mod table;
