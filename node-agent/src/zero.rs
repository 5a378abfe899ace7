//! `lvs-agent zero`: counters of IPVS to zero (ipvsadm -Z), of services that are ours unless everything is asked for.

use anyhow::{Context, bail, ensure};
use lvs_core::ipvs::ServiceKey;
use lvs_core::shown::ShownZero;
use lvs_core::shown::owner::Owners;

use crate::args::ZeroArguments;
use crate::show::{Knowledge, client, is_loaded, named};

/// Sets them to zero, and says of which, in JSON.
///
/// # Errors
/// When it is not known what is ours, when nothing is of the VirtualService that is named, and when the kernel refuses to
/// zero everything. That it refuses one service of several is told within the answer.
pub fn zero(arguments: &ZeroArguments) -> anyhow::Result<String> {
    let mut answer = ShownZero {
        all: arguments.all,
        ..ShownZero::default()
    };
    if arguments.all {
        if is_loaded() {
            client().zero(None)?;
        }
    } else {
        let knowledge = Knowledge::read(&arguments.places);
        let Some(owners) = knowledge.owners() else {
            bail!(
                "what is ours is not known, nothing was changed: {}",
                knowledge.problems.join("; ")
            );
        };
        let keys = chosen(&owners, named(&arguments.of));
        if let Some(name) = &arguments.of.virtual_service {
            ensure!(
                !keys.is_empty(),
                "no service here is of VirtualService {name}"
            );
        }
        let mut client = client();
        for key in keys {
            match client.zero(Some(&key)) {
                Ok(()) => answer.zeroed.push(key.to_string()),
                Err(error) => answer.problems.push(error.to_string()),
            }
        }
    }
    let text = serde_json::to_string(&answer).context("writing the answer")?;
    Ok(format!("{text}\n"))
}

fn chosen(owners: &Owners<'_>, of: Option<(Option<&str>, &str)>) -> Vec<ServiceKey> {
    let is_wanted = |key: &ServiceKey| {
        let owner = owners.of(key);
        of.is_none_or(|(namespace, name)| owner.is_some_and(|one| one.is_of(namespace, name)))
    };
    owners.keys().copied().filter(is_wanted).collect()
}
