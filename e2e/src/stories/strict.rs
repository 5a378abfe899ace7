//! `takeover: Strict`: no two directors ever carry the address.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::Story;
use super::failover::tell_as;
use crate::failover::operator::{self, Setting};
use crate::lab::Lab;

/// V, g, the longest takeover, and what a busy machine takes.
const LONGEST_GAP: Duration = Duration::from_secs(5);

pub(super) fn stories() -> Vec<Story> {
    vec![Story {
        name: "takeover_strict",
        tells: "takeover Strict: neither SIGTERM nor kill -9 of the holder's agent ever has the address on two directors",
        run: never_two,
    }]
}

fn never_two(lab: &Lab) -> Result<()> {
    take_over(lab, &json!("Strict"))?;
    let told = ["sigterm", "kill-9"].iter().try_for_each(|event| {
        let figures = tell_as(lab, Setting::AsInstalled, event, Duration::ZERO)?;
        let gap = figures.gap.microseconds;
        ensure!(
            figures.moves == 1
                && !figures.gap.open
                && gap <= i64::try_from(LONGEST_GAP.as_micros())?,
            "{event}: one move, and the address is back within {LONGEST_GAP:?}: {figures:#?}"
        );
        Ok(())
    });
    take_over(lab, &Value::Null)?;
    told
}

fn take_over(lab: &Lab, how: &Value) -> Result<()> {
    operator::change(lab, &json!({"takeover": how}))
}
