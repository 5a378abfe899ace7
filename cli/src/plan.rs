//! `kubectl lvs plan`: what would change if objects were applied, or deleted. It writes nothing.

mod clients;
mod cluster;
mod difference;
mod node;
mod read;
mod table;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use lvs_plan::Inputs;
use lvs_plan::input::ExistingPlan;
use lvs_plan::rehearsal::rehearse;

pub use cluster::{Cluster, Kind, key};
pub use difference::{Difference, Fate, difference, problems};
pub use node::NodeUnderPlans;
pub use read::{apply, cluster, delete};
pub use text::text;

use crate::kubectl::Kubectl;

/// Exit status when something would change.
const CHANGES: u8 = 2;
/// Exit status when it cannot be told.
const FAILED: u8 = 3;

/// Arguments of `plan`.
#[derive(Clone, Debug, Args)]
pub struct PlanArguments {
    /// Files, folders or addresses with the objects, as kubectl apply takes them; - for standard input.
    #[arg(long = "filename", short = 'f', required = true)]
    pub filenames: Vec<String>,
    /// The objects are to be deleted, not applied.
    #[arg(long)]
    pub delete: bool,
    /// Namespace of objects that name none.
    #[arg(long, short)]
    pub namespace: Option<String>,
    /// Format.
    #[arg(long, short, value_enum, default_value_t = PlanOutput::Text)]
    pub output: PlanOutput,
}

/// Format of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PlanOutput {
    /// For people; long lists of operations are cut short.
    Text,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// Does it. 0: nothing would change; 2: something would; 3: it cannot be told.
pub fn run(kubectl: &Kubectl, arguments: &PlanArguments) -> ExitCode {
    let told = plan(kubectl, arguments).and_then(|difference| {
        let text = render(&difference, arguments.output)?;
        let written = std::io::stdout().write_all(text.as_bytes());
        written.map_err(|error| format!("write to standard output: {error}"))?;
        Ok(difference)
    });
    match told {
        Ok(difference) if difference.is_empty() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(CHANGES),
        Err(error) => {
            // Nobody is there to be told that it could not be told.
            let _ = writeln!(std::io::stderr(), "kubectl lvs plan: {error}");
            ExitCode::from(FAILED)
        }
    }
}

fn render(difference: &Difference, output: PlanOutput) -> Result<String, String> {
    let written = |error: &dyn std::fmt::Display| format!("write the plan: {error}");
    match output {
        PlanOutput::Text => Ok(text(difference, false)),
        PlanOutput::Json => serde_json::to_string_pretty(difference)
            .map(|text| format!("{text}\n"))
            .map_err(|error| written(&error)),
        PlanOutput::Yaml => serde_saphyr::to_string(difference).map_err(|error| written(&error)),
    }
}

fn plan(kubectl: &Kubectl, arguments: &PlanArguments) -> Result<Difference, String> {
    let files = read::Files::new(&arguments.filenames, arguments.namespace.as_deref())?;
    let (now, mut notes) = read::cluster(kubectl)?;
    let mut then = now.clone();
    let objects = if arguments.delete {
        let objects = files.delete(kubectl)?;
        delete(&mut then, &objects)
    } else {
        let objects = files.apply(kubectl)?;
        apply(&mut then, objects)
    };
    let mut difference = compare(&now, &then)?;
    difference.objects = objects;
    notes.append(&mut difference.notes);
    difference.notes = notes;
    Ok(difference)
}

/// What is another if a cluster becomes another, once it has come to rest: then from where it rests now, as what it holds by
/// then decides what it keeps.
///
/// # Errors
/// When an object is not what its kind has to be.
pub fn compare(now: &Cluster, then: &Cluster) -> Result<Difference, String> {
    let present = now.inputs()?;
    let before = rehearse(present.clone());
    let mut inputs = then.inputs()?;
    inputs.node_plans.clone_from(&before.inputs.node_plans);
    inputs.leases.clone_from(&before.inputs.leases);
    for (key, object) in &mut inputs.virtual_services {
        let known = before.inputs.virtual_services.get(key);
        if let Some(known) = known.filter(|known| known.meta.uid == object.meta.uid) {
            Arc::make_mut(object).status.clone_from(&known.status);
        }
    }
    let after = rehearse(inputs);
    let mut difference = difference(&before, &after);
    let on_its_way = unfinished(&present, &before.inputs);
    if on_its_way > 0 {
        difference.notes.push(format!(
            "{on_its_way} NodePlans are not yet what the present objects ask for; what is shown begins where they will be"
        ));
    }
    Ok(difference)
}

/// How many plans are others when the cluster has come to rest.
fn unfinished(present: &Inputs, rested: &Inputs) -> usize {
    let (present, rested) = (&present.node_plans, &rested.node_plans);
    let names: BTreeSet<&String> = present.keys().chain(rested.keys()).collect();
    let body = |plans: &BTreeMap<String, Arc<ExistingPlan>>, name: &String| {
        plans.get(name).map(|plan| plan.object.body.clone())
    };
    let names = names.into_iter();
    names
        .filter(|name| body(present, name) != body(rested, name))
        .count()
}
