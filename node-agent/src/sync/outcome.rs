//! What a pass came to, for status, logs and metrics.

use std::collections::{BTreeMap, BTreeSet};

use lvs_core::diff::Diff;
use lvs_core::op::Op;
use lvs_core::verdict::{Failure, Verdict, Verdicts};
use lvs_ipvs::IpvsKernel;

use super::{Blindness, PassReport, Syncer};
use crate::kernel::HostKernel;
use crate::limits::OPERATIONS_LOGGED;
use crate::port::LeadershipPort;
use crate::report::{Facts, Judgement, reports};

impl<I: IpvsKernel, H: HostKernel, L: LeadershipPort> Syncer<I, H, L> {
    pub(super) fn report(
        &mut self,
        outcome: Result<(Verdicts, bool), Blindness>,
        interference: &BTreeMap<String, String>,
    ) -> PassReport {
        let view = self.leadership.view();
        let (judgement, unattributed, mut retry) = match &outcome {
            Ok((verdicts, stale)) => {
                let failed = verdicts
                    .plans
                    .values()
                    .any(|verdict| matches!(verdict, Verdict::NotProgrammed { .. }));
                (
                    Judgement::Verdicts(&verdicts.plans),
                    verdicts.unattributed.clone(),
                    *stale || failed || !verdicts.unattributed.is_empty(),
                )
            }
            Err(blindness) => (Judgement::Blind(blindness), Vec::new(), true),
        };
        for text in &unattributed {
            tracing::warn!("{text}");
        }
        if let Err(blindness) = &outcome {
            tracing::error!(
                reason = blindness.reason.as_str(),
                "nothing is written in this pass: {}",
                blindness.message
            );
        }
        let plans = reports(
            &self.book,
            &judgement,
            &view,
            &Facts {
                permanent: &self.permanent,
                priorities: &self.priorities,
                deductions: &self.deductions,
                unavailable: &self.unavailable,
                withdrawn: &self.withdrawn,
                heartbeat_interfaces: self.heartbeat_interfaces.as_ref(),
                tables: &self.tables,
                serving: &self.serving,
                interference,
            },
            &self.reports,
        );
        for (name, report) in &plans {
            let before = self
                .reports
                .get(name)
                .map(|report| (report.programmed.reason, &report.programmed.message));
            let now = (report.programmed.reason, &report.programmed.message);
            if before != Some(now) {
                tracing::info!(
                    plan = name,
                    status = report.programmed.status,
                    reason = report.programmed.reason.as_str(),
                    "{}",
                    report.programmed.message
                );
            }
        }
        retry |= plans.values().any(|report| report.waits);
        self.reports.clone_from(&plans);
        PassReport {
            plans,
            blindness: outcome.err(),
            listed: self.book.is_listed(),
            unattributed,
            retry,
            due: self.due,
        }
    }

    pub(super) fn count(&self, report: &PassReport) {
        let entries = self.book.entries();
        let signed = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics.plans.set(signed(entries.len()));
        self.metrics.plans_undecodable.set(signed(
            entries
                .values()
                .filter(|entry| entry.trouble.is_some())
                .count(),
        ));
        self.metrics.plans_orphaned.set(signed(
            entries
                .values()
                .filter(|entry| entry.presence == crate::book::Presence::Orphaned)
                .count(),
        ));
        self.metrics.set_conditions(
            report
                .plans
                .values()
                .map(|report| report.programmed.reason.as_str()),
        );
        self.metrics
            .unattributed_failures
            .set(signed(report.unattributed.len()));
        let held: usize = self
            .leadership
            .view()
            .held
            .values()
            .map(BTreeSet::len)
            .sum();
        self.metrics.held_addresses.set(signed(held));
    }

    pub(super) fn tell(&self, plan: &Diff) {
        // A few are worth a line each at the usual level; ten thousand are not, nor what failed just so before.
        let (again, new): (Vec<&Op>, Vec<&Op>) = plan
            .ops
            .iter()
            .partition(|op| !self.failing.is_empty() && self.failing.contains_key(&op.to_string()));
        if !new.is_empty() {
            tracing::info!(operations = new.len(), "applying");
        }
        let (few, many) = new.split_at(new.len().min(OPERATIONS_LOGGED));
        for op in few {
            tracing::info!("{op}");
        }
        for op in many.iter().chain(&again) {
            tracing::debug!("{op}");
        }
    }

    /// A failure is told when it is new; the plan's condition and a metric keep telling of it.
    pub(super) fn tell_failures(&mut self, failures: &[Failure]) {
        let mut failing = BTreeMap::new();
        let mut silent = 0;
        for failure in failures {
            self.metrics.operation(&failure.op, "failed");
            let op = failure.op.to_string();
            if self.failing.get(&op) != Some(&failure.message) {
                if failing.len() < OPERATIONS_LOGGED {
                    let reason = failure.reason.as_str();
                    tracing::warn!(op, reason, "not applied: {}", failure.message);
                } else {
                    silent += 1;
                }
            }
            failing.insert(op, failure.message.clone());
        }
        if silent > 0 {
            tracing::warn!("and {silent} more operations were not applied");
        }
        self.failing = failing;
    }
}
