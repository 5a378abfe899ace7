//! Carrying out operations: in order, collecting failures, skipping what depends on a failed one.

use std::collections::{BTreeMap, BTreeSet};

use lvs_core::object::{Object, blocked_by};
use lvs_core::op::{IpvsOp, Op};
use lvs_core::verdict::{Failure, blocked};
use lvs_crds::condition::Reason;
use lvs_ipvs::{IpvsKernel, OpFailure};

use crate::kernel::{HostKernel, KernelError};

/// What became of a list of operations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Execution {
    /// Operations that succeeded.
    pub succeeded: Vec<Op>,
    /// Operations that did not, those included that were not tried as one they depend on had failed.
    pub failures: Vec<Failure>,
    /// Of the failures, those the kernel said no to: they changed nothing.
    pub refused: Vec<Op>,
    /// Whether the tables were not as we had read them, or what became of an operation is not known: look again.
    pub stale: bool,
}

/// Carries out `ops` in order.
pub fn execute(ops: Vec<Op>, ipvs: &mut dyn IpvsKernel, host: &mut dyn HostKernel) -> Execution {
    let mut run = Run {
        ipvs,
        host,
        execution: Execution::default(),
        batch: Batch::default(),
        failed_additions: BTreeMap::new(),
    };
    for op in ops {
        match op {
            Op::Ipvs(op) => {
                // A destination must not land in a service of somebody else that appeared since we looked: whether
                // its service was added is known before it is sent.
                if run.batch.adds(&op) {
                    run.flush();
                }
                if let Some(Op::Ipvs(op)) = run.unblocked(Op::Ipvs(op)) {
                    run.batch.push(op);
                }
            }
            Op::Host(op) => {
                run.flush();
                if let Some(op) = run.unblocked(Op::Host(op)) {
                    run.host_op(op);
                }
            }
        }
    }
    run.flush();
    run.execution
}

/// IPVS operations that go to the kernel together.
#[derive(Default)]
struct Batch {
    ops: Vec<IpvsOp>,
    added: BTreeSet<lvs_core::ipvs::ServiceKey>,
}

impl Batch {
    fn push(&mut self, op: IpvsOp) {
        if let IpvsOp::AddService(key, _) = &op {
            self.added.insert(*key);
        }
        self.ops.push(op);
    }

    /// Whether `op` is about a service that this batch adds.
    fn adds(&self, op: &IpvsOp) -> bool {
        match op {
            IpvsOp::AddDestination(key, ..)
            | IpvsOp::EditDestination(key, ..)
            | IpvsOp::DeleteDestination(key, ..) => self.added.contains(key),
            _ => false,
        }
    }
}

struct Run<'a> {
    ipvs: &'a mut dyn IpvsKernel,
    host: &'a mut dyn HostKernel,
    execution: Execution,
    batch: Batch,
    /// Failed additions of services: positions in `execution.failures`.
    failed_additions: BTreeMap<Object, usize>,
}

impl Run<'_> {
    /// Passes an operation on unless an earlier failure forbids it.
    fn unblocked(&mut self, op: Op) -> Option<Op> {
        let cause = match &op {
            // Ten thousand destinations may follow a hundred refused services: only the failures of the same service
            // can forbid an operation on it.
            Op::Ipvs(ipvs_op) => {
                let same = self.failed_additions.get(&ipvs_op.object()).copied();
                same.and_then(|index| self.execution.failures.get(index))
                    .filter(|failure| blocked_by(&op, &failure.op))
            }
            Op::Host(_) => blocked(&op, &self.execution.failures),
        };
        let Some(cause) = cause else { return Some(op) };
        let message = format!("not tried after \"{}\" failed", cause.op);
        let reason = cause.reason;
        self.fail(Failure {
            op,
            reason,
            message,
        });
        None
    }

    fn fail(&mut self, failure: Failure) {
        if let Op::Ipvs(op @ IpvsOp::AddService(..)) = &failure.op {
            self.failed_additions
                .insert(op.object(), self.execution.failures.len());
        }
        self.execution.failures.push(failure);
    }

    fn host_op(&mut self, op: Op) {
        let Op::Host(host_op) = &op else { return };
        match self.host.apply(host_op) {
            Ok(()) => self.execution.succeeded.push(op),
            Err(error) => {
                if error.errno().is_some() || matches!(error, KernelError::ModuleMissing { .. }) {
                    self.execution.refused.push(op.clone());
                }
                let (reason, message) = (error.reason(), error.to_string());
                self.fail(Failure {
                    op,
                    reason,
                    message,
                });
            }
        }
    }

    fn flush(&mut self) {
        let Batch { ops, .. } = std::mem::take(&mut self.batch);
        if ops.is_empty() {
            return;
        }
        let results = self.ipvs.apply(&ops);
        for (op, result) in ops.into_iter().zip(results) {
            let op = Op::Ipvs(op);
            match result {
                Ok(()) => self.execution.succeeded.push(op),
                Err(error) => {
                    if matches!(error.failure, OpFailure::Refused { .. }) {
                        self.execution.refused.push(op.clone());
                    }
                    let reason = error.reason();
                    self.execution.stale |=
                        error.wants_dump() && reason != Reason::KernelModuleMissing;
                    // The operation stands beside its message already.
                    let text = error.to_string();
                    let message = text
                        .strip_prefix(&format!("{op}: "))
                        .map_or_else(|| text.clone(), str::to_owned);
                    self.fail(Failure {
                        op,
                        reason,
                        message,
                    });
                }
            }
        }
    }
}
