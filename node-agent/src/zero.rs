//! `lvs-agent zero`: counters of IPVS to zero (ipvsadm -Z), of services that are ours unless everything is asked for.

use anyhow::{Context, bail};
use lvs_core::ipvs::ServiceKey;
use lvs_core::shown::ShownZero;
use lvs_core::shown::owner::Owners;

use crate::args::ZeroArguments;
use crate::show::{Knowledge, client, is_loaded, named};

/// Sets them to zero, and says of which, in JSON.
///
/// # Errors
/// When it is not known what is ours, and when the kernel refuses to zero everything. That it refuses one service of several is told within the answer.
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
        // None of the one that is named is no fault: a standby that is a real server itself has no service.
        let mut client = client();
        for key in chosen(&owners, named(&arguments.of)) {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use lvs_core::journal::Journal;

    use super::*;
    use crate::args::{OfVirtualService, Places};
    use crate::disk::JournalFile;
    use crate::run::BOOT_ID;

    /// A standby of DR that is a real server itself made `kubectl lvs zero NAME` end as if an agent were missing.
    #[test]
    fn a_node_without_a_service_of_it_says_so_and_it_is_no_error() {
        let directory = tempfile::tempdir().unwrap();
        let boot_id = std::fs::read_to_string(BOOT_ID).unwrap();
        let journal = JournalFile::of(directory.path(), boot_id.trim());
        journal.write(&Journal::default()).unwrap();
        let answer = zero(&ZeroArguments {
            of: OfVirtualService {
                virtual_service: Some("shop/web".to_owned()),
            },
            all: false,
            places: Places {
                state_directory: directory.path().join("state"),
                runtime_directory: directory.path().to_owned(),
            },
        });
        let answer: ShownZero = serde_json::from_str(&answer.unwrap()).unwrap();
        assert_eq!(answer, ShownZero::default());
    }
}
