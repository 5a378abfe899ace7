//! The difference for people.

use std::fmt::Write as _;

use super::difference::{ConditionChange, Difference, Fate, NodeReport};

/// Lines of operations of one node; of more there are so many.
const OPERATIONS_MAXIMUM: usize = 60;

/// A text of several parts, each with a heading.
struct Text(String);

impl Text {
    fn heading(&mut self, words: &str) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        self.line(0, words);
    }

    fn line(&mut self, depth: usize, words: &str) {
        // Writing to a String does not fail.
        let _ = writeln!(self.0, "{:indent$}{words}", "", indent = depth * 2);
    }
}

/// What would change, in words. `is_whole`: operations are not cut short.
pub fn text(difference: &Difference, is_whole: bool) -> String {
    let mut text = Text(String::new());
    if !difference.objects.is_empty() {
        text.heading("OBJECTS");
        for object in &difference.objects {
            let name = qualified(&object.namespace, &object.name);
            let fate = match object.change {
                Fate::Created => "would be created",
                Fate::Changed => "would be changed",
                Fate::Unchanged => "is so already",
                Fate::Deleted => "would be deleted",
                Fate::Absent => "is not there",
                Fate::NotLookedAt => "changes nothing here: planning does not look at it",
            };
            text.line(1, &format!("{} {name} {fate}", object.kind));
        }
    }
    if !difference.held.is_empty() {
        text.heading("HELD BACK");
        for message in &difference.held {
            text.line(1, message);
        }
    }
    if !difference.conditions.is_empty() {
        text.heading("CONDITIONS");
        let of_one = |left: &ConditionChange, right: &ConditionChange| {
            (left.kind, &left.namespace, &left.name) == (right.kind, &right.namespace, &right.name)
        };
        for changes in difference.conditions.chunk_by(of_one) {
            conditions(&mut text, changes);
        }
    }
    if !difference.addresses.is_empty() || !difference.masters.is_empty() {
        text.heading("ADDRESSES");
        for change in &difference.addresses {
            let [before, after] = [&change.before, &change.after].map(|addresses| {
                if addresses.is_empty() {
                    "none".to_owned()
                } else {
                    addresses.join(", ")
                }
            });
            let service = &change.virtual_service;
            text.line(1, &format!("VirtualService {service}: {before} -> {after}"));
        }
        for change in &difference.masters {
            let [before, after] = [&change.before, &change.after];
            let of = |node: &Option<String>| node.as_deref().unwrap_or("nobody").to_owned();
            let router = &change.virtual_router_name;
            text.line(
                1,
                &format!("VirtualRouter {router}: {} -> {}", of(before), of(after)),
            );
        }
    }
    for report in &difference.nodes {
        node(&mut text, report, is_whole);
    }
    if !difference.clients.is_empty() {
        text.heading("CLIENTS");
        for change in &difference.clients {
            let service = &change.virtual_service;
            text.line(
                1,
                &format!(
                    "VirtualService {service}, {} ({})",
                    change.service, change.scheduler
                ),
            );
            for effect in &change.effects {
                text.line(2, effect);
            }
            if let Some(percent) = change.moved_percent {
                text.line(
                    2,
                    &format!(
                        "about {percent:.0} % of the clients' addresses come to another real server, or to none, with new connections"
                    ),
                );
            }
        }
    }
    if difference.is_empty() {
        text.heading("Nothing would change.");
    }
    for note in &difference.notes {
        text.heading(&format!("Note: {note}."));
    }
    text.0
}

fn qualified(namespace: &str, name: &str) -> String {
    if namespace.is_empty() {
        name.to_owned()
    } else {
        format!("{namespace}/{name}")
    }
}

/// Conditions of one object. Of one that is new and has nothing against it one line is enough.
fn conditions(text: &mut Text, changes: &[ConditionChange]) {
    let is_well =
        |change: &ConditionChange| change.before.is_none() && change.after.status == "True";
    if let [first, ..] = changes
        && changes.iter().all(is_well)
    {
        let name = qualified(&first.namespace, &first.name);
        let types: Vec<&str> = changes.iter().map(|change| change.type_).collect();
        text.line(1, &format!("{} {name}: {}", first.kind, types.join(", ")));
        return;
    }
    for change in changes {
        condition(text, change);
    }
}

fn condition(text: &mut Text, change: &ConditionChange) {
    let name = qualified(&change.namespace, &change.name);
    let after = &change.after;
    let before = match &change.before {
        Some(before) if before.status != after.status || before.reason != after.reason => {
            format!(" (now {} {})", before.status, before.reason)
        }
        _ => String::new(),
    };
    text.line(
        1,
        &format!(
            "{} {name}: {}={} {}{before}",
            change.kind, change.type_, after.status, after.reason
        ),
    );
    if after.status != "True" {
        text.line(2, &after.message);
    }
}

fn node(text: &mut Text, report: &NodeReport, is_whole: bool) {
    text.heading(&format!("NODE {}", report.node_name));
    for plan in &report.plans {
        let change = match plan.change {
            Fate::Created => "a new plan".to_owned(),
            Fate::Deleted => "its plan is withdrawn".to_owned(),
            _ => format!("its plan changes in {}", plan.fields.join(", ")),
        };
        text.line(
            1,
            &format!("{} {}: {change}", plan.source_kind, plan.source),
        );
    }
    let shown = if is_whole {
        report.operations.len()
    } else {
        OPERATIONS_MAXIMUM
    };
    for operation in report.operations.iter().take(shown) {
        text.line(2, operation);
    }
    let hidden = report.operations.len().saturating_sub(shown);
    if hidden > 0 {
        text.line(2, &format!("and {hidden} more: --output yaml has them all"));
    }
    for problem in &report.problems {
        text.line(1, &format!("in the way: {problem}"));
    }
}
