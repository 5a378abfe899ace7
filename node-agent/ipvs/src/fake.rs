//! A kernel in memory for tests of what stands above: it refuses what the real one refuses, remembers what it
//! was told, and fails where a test says so.

use std::collections::VecDeque;

use lvs_core::model::IpvsModel;
use lvs_core::op::IpvsOp;
use nix::errno::Errno;

use crate::error::{DumpError, OpError, OpFailure, TransportError};
use crate::{Dump, IpvsKernel};

/// What is to happen to one operation instead of what the model says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The kernel refuses it with this error and changes nothing.
    Refused(Errno),
    /// It happens, and the answer is lost: this operation and the rest of its batch are unknown, later ones not sent.
    AnswerLost(TransportError),
    /// The send fails: this operation's batch and later ones do not happen.
    SendFailed(TransportError),
}

/// A stateful fake of [`IpvsKernel`].
#[derive(Clone, Debug, Default)]
pub struct FakeKernel {
    /// What it holds. Change it behind the agent's back to make drift.
    pub model: IpvsModel,
    /// Errors of the next dumps, first first.
    pub dump_failures: VecDeque<DumpError>,
    /// Faults of operations to come, each used once by the first operation it is meant for.
    pub faults: Vec<(IpvsOp, Fault)>,
    /// Every operation that was carried out, in order.
    pub carried_out: Vec<IpvsOp>,
    /// How often it was dumped.
    pub dumps: usize,
}

impl FakeKernel {
    /// Operations per send, as in the real client.
    const BATCH: usize = 128;

    fn carry_out(&mut self, operation: &IpvsOp) -> Result<(), OpFailure> {
        match self.model.apply(operation) {
            Ok(()) => {
                self.carried_out.push(operation.clone());
                Ok(())
            }
            Err(errno) => Err(OpFailure::Refused {
                errno: Errno::from_raw(errno.code()),
                message: None,
            }),
        }
    }

    fn fault(&mut self, operation: &IpvsOp) -> Option<Fault> {
        let index = self
            .faults
            .iter()
            .position(|(meant, _)| meant == operation)?;
        Some(self.faults.remove(index).1)
    }

    /// One send: the result of each operation, and why nothing more can be sent.
    fn batch(
        &mut self,
        operations: &[IpvsOp],
    ) -> (Vec<Result<(), OpFailure>>, Option<TransportError>) {
        let faults: Vec<Option<Fault>> = operations
            .iter()
            .map(|operation| self.fault(operation))
            .collect();
        let failed_send = faults.iter().flatten().find_map(|fault| match fault {
            Fault::SendFailed(cause) => Some(cause.clone()),
            _ => None,
        });
        if let Some(cause) = failed_send {
            let results = operations
                .iter()
                .map(|_| Err(OpFailure::NotSent(cause.clone())))
                .collect();
            return (results, Some(cause));
        }
        let mut lost = None;
        let mut results = Vec::with_capacity(operations.len());
        for (operation, fault) in operations.iter().zip(faults) {
            results.push(match fault {
                Some(Fault::Refused(errno)) => Err(OpFailure::Refused {
                    errno,
                    message: None,
                }),
                Some(Fault::AnswerLost(cause)) => {
                    lost = Some(cause);
                    self.carry_out(operation)
                }
                _ => self.carry_out(operation),
            });
        }
        if let Some(cause) = &lost {
            for result in &mut results {
                *result = Err(OpFailure::Unknown(cause.clone()));
            }
        }
        (results, lost)
    }
}

impl IpvsKernel for FakeKernel {
    fn dump(&mut self) -> Result<Dump, DumpError> {
        self.dumps += 1;
        if let Some(failure) = self.dump_failures.pop_front() {
            return Err(failure);
        }
        Ok(Dump {
            services: self.model.services.clone(),
            disorder: self.model.disorder(),
            idle: self.model.idle(),
            timeouts: self.model.timeouts,
            sync_daemons: self.model.sync_daemons.clone(),
            unnameable: Vec::new(),
        })
    }

    fn apply(&mut self, operations: &[IpvsOp]) -> Vec<Result<(), OpError>> {
        let mut broken = None;
        let mut results = Vec::with_capacity(operations.len());
        for batch in operations.chunks(Self::BATCH) {
            let failures = match &broken {
                None => {
                    let (failures, cause) = self.batch(batch);
                    broken = cause;
                    failures
                }
                Some(cause) => batch
                    .iter()
                    .map(|_| Err(OpFailure::NotSent(TransportError::clone(cause))))
                    .collect(),
            };
            results.extend(batch.iter().zip(failures).map(|(operation, result)| {
                result.map_err(|failure| OpError {
                    operation: Box::new(operation.clone()),
                    failure,
                })
            }));
        }
        results
    }
}
