//! Certificates of real servers that expire: each is told once, when it is to be warned of.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use lvs_crds::condition::Reason;

use super::{Place, Ration, Seen, Telling, names_shown};
use crate::input::ObjectKey;

impl Ration {
    /// Those that are not told yet. One that nobody speaks of for a while, as while an agent starts, is no other afterwards.
    pub(super) fn tell_certificates(
        &mut self,
        key: &ObjectKey,
        places: &BTreeMap<Place, Seen>,
        before: &BTreeMap<Place, Seen>,
        now: Duration,
    ) -> Vec<Telling> {
        self.told_certificates
            .retain(|place, _| places.contains_key(place));
        for place in places.keys() {
            // Also of one that has none: the status that shows its first is written before that is told, if many are.
            let told = self.told_certificates.entry(place.clone());
            told.or_insert_with(|| before.get(place)?.certificate_expiry.clone());
        }
        self.certificates.grow(now);
        let new: Vec<(&Place, &Time)> = self.new_certificates(places).collect();
        if new.is_empty() || self.certificates.left == 0 {
            return Vec::new();
        }
        let (each, rest) = new.split_at(self.certificates.single(new.len()));
        let telling = |note: String, real_server: Option<&String>| Telling {
            virtual_service: key.clone(),
            reason: Reason::CertificateExpires,
            note,
            real_server: real_server.cloned(),
        };
        let mut tellings: Vec<Telling> = each
            .iter()
            .map(|(place, expiry)| {
                let note = format!("{place}: certificate is valid until {}", expiry.0);
                telling(note, Some(&place.real_server))
            })
            .collect();
        let first = rest.iter().map(|(_, expiry)| expiry.0).min();
        if let Some(first) = first {
            let names: BTreeSet<&str> = rest
                .iter()
                .map(|(place, _)| place.real_server.as_str())
                .collect();
            let (count, noun) = match names.len() {
                1 => (1, "real server"),
                more => (more, "real servers"),
            };
            let shown = names_shown(&names);
            let note = format!(
                "certificates of {count} more {noun}, the first valid until {first}: {shown}"
            );
            tellings.push(telling(note, None));
        }
        let told: Vec<(Place, Option<Time>)> = new
            .iter()
            .map(|(place, expiry)| ((*place).clone(), Some((*expiry).clone())))
            .collect();
        self.certificates.take(tellings.len(), now);
        self.told_certificates.extend(told);
        tellings
    }

    /// Certificates that are to be warned of and are others than were told.
    pub(super) fn new_certificates<'a>(
        &'a self,
        places: &'a BTreeMap<Place, Seen>,
    ) -> impl Iterator<Item = (&'a Place, &'a Time)> {
        places.iter().filter_map(|(place, seen)| {
            let expiry = seen.certificate_expiry.as_ref()?;
            let told = self.told_certificates.get(place)?;
            (told.as_ref() != Some(expiry)).then_some((place, expiry))
        })
    }
}
