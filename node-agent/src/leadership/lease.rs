//! Between `coordination.k8s.io/v1` Leases and the records of the election.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use lvs_core::election::{
    CHALLENGE_ANNOTATION, Identity, LeaseRecord, LeaseWrite, OFFERED_ANNOTATION, WritePurpose,
};

/// Reads a Lease as the election sees it. A negative number in it counts as zero.
pub fn record(lease: &Lease) -> LeaseRecord {
    let spec = lease.spec.clone().unwrap_or_default();
    let epoch = spec
        .lease_transitions
        .and_then(|count| u64::try_from(count).ok())
        .unwrap_or(0);
    let annotation = |name: &str| lease.metadata.annotations.as_ref()?.get(name);
    let offered =
        annotation(OFFERED_ANNOTATION).is_some_and(|offered| *offered == epoch.to_string());
    let challenger = annotation(CHALLENGE_ANNOTATION)
        .and_then(|challenge| challenge.split_once('/'))
        .filter(|(challenged, _)| *challenged == epoch.to_string())
        .and_then(|(_, challenger)| Identity::parse(challenger));
    LeaseRecord {
        resource_version: lease.metadata.resource_version.clone().unwrap_or_default(),
        holder: Identity::parse(spec.holder_identity.as_deref().unwrap_or_default()),
        epoch,
        lease_duration: spec
            .lease_duration_seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map_or(Duration::ZERO, Duration::from_secs),
        renewed: spec
            .renew_time
            .map(|time| time.0.to_string())
            .unwrap_or_default(),
        offered,
        challenger,
    }
}

/// The Lease to send for `write`: `seen`, which has the version the write is based on, with its fields changed.
/// `wall_clock` is for people; nobody decides by it.
///
/// None when a number does not fit the API's 32 bits.
pub fn written(seen: &Lease, write: &LeaseWrite, wall_clock: Timestamp) -> Option<Lease> {
    let mut lease = seen.clone();
    let annotations = lease.metadata.annotations.get_or_insert_default();
    match &write.challenger {
        Some(challenger) => {
            let challenge = format!("{}/{challenger}", write.epoch);
            annotations.insert(CHALLENGE_ANNOTATION.to_owned(), challenge);
        }
        None => drop(annotations.remove(CHALLENGE_ANNOTATION)),
    }
    if write.purpose == WritePurpose::Challenge {
        // Anything else in it is the holder's.
        return Some(lease);
    }
    let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
    spec.holder_identity = write.holder.as_ref().map(ToString::to_string);
    spec.lease_transitions = Some(i32::try_from(write.epoch).ok()?);
    spec.lease_duration_seconds = Some(i32::try_from(write.lease_duration.as_secs()).ok()?);
    spec.renew_time = Some(MicroTime(wall_clock));
    if write.purpose == WritePurpose::Acquire {
        spec.acquire_time = Some(MicroTime(wall_clock));
    }
    let annotations = lease.metadata.annotations.get_or_insert_default();
    if write.offered {
        annotations.insert(OFFERED_ANNOTATION.to_owned(), write.epoch.to_string());
    } else {
        annotations.remove(OFFERED_ANNOTATION);
    }
    Some(lease)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(purpose: WritePurpose, offered: bool) -> LeaseWrite {
        LeaseWrite {
            purpose,
            resource_version: "7".to_owned(),
            holder: (purpose != WritePurpose::Release).then(|| Identity {
                node: "lb-a".to_owned(),
                incarnation: "x1".to_owned(),
            }),
            epoch: 4,
            lease_duration: Duration::from_secs(10),
            offered,
            challenger: None,
        }
    }

    fn made_by_controller() -> Lease {
        let mut lease = Lease::default();
        lease.metadata.name = Some("lvs-router-edge".to_owned());
        lease.metadata.resource_version = Some("7".to_owned());
        lease.metadata.annotations =
            Some([("lvs.dev/directors".to_owned(), "lb-a,lb-b".to_owned())].into());
        lease
    }

    #[test]
    fn a_fresh_lease_has_no_holder_and_epoch_zero() {
        let record = record(&made_by_controller());
        assert_eq!(
            (record.holder, record.epoch, record.offered),
            (None, 0, false)
        );
        assert_eq!(record.resource_version, "7");
    }

    #[test]
    fn what_is_written_is_read_and_the_rest_stays() {
        let lease = written(
            &made_by_controller(),
            &write(WritePurpose::Acquire, true),
            Timestamp::UNIX_EPOCH,
        )
        .unwrap();
        let read = record(&lease);
        assert_eq!(read.holder.unwrap().to_string(), "lb-a/x1");
        assert_eq!((read.epoch, read.offered), (4, true));
        assert_eq!(read.lease_duration, Duration::from_secs(10));
        assert_eq!(
            lease.metadata.annotations.as_ref().unwrap()["lvs.dev/directors"],
            "lb-a,lb-b"
        );
        assert!(lease.spec.as_ref().unwrap().acquire_time.is_some());

        let released = written(
            &lease,
            &write(WritePurpose::Release, false),
            Timestamp::UNIX_EPOCH,
        )
        .unwrap();
        let read = record(&released);
        assert_eq!((read.holder, read.epoch, read.offered), (None, 4, false));
    }

    #[test]
    fn a_challenge_changes_an_annotation_and_an_answer_removes_it() {
        let held = written(
            &made_by_controller(),
            &write(WritePurpose::Acquire, false),
            Timestamp::UNIX_EPOCH,
        )
        .unwrap();
        let challenger = Identity {
            node: "lb-b".to_owned(),
            incarnation: "y2".to_owned(),
        };
        let challenge = LeaseWrite {
            challenger: Some(challenger.clone()),
            ..write(WritePurpose::Challenge, false)
        };
        let later = Timestamp::UNIX_EPOCH + Duration::from_mins(1);
        let with_challenge = written(&held, &challenge, later).unwrap();
        assert_eq!(with_challenge.spec, held.spec);
        assert_eq!(record(&with_challenge).challenger, Some(challenger));
        let renewed = written(&with_challenge, &write(WritePurpose::Renew, false), later).unwrap();
        assert_eq!(record(&renewed).challenger, None);
        assert_eq!(
            renewed.metadata.annotations.as_ref().unwrap()["lvs.dev/directors"],
            "lb-a,lb-b"
        );
        // One of an earlier epoch is none.
        let mut later_epoch = with_challenge;
        later_epoch.spec.as_mut().unwrap().lease_transitions = Some(5);
        assert_eq!(record(&later_epoch).challenger, None);
    }

    #[test]
    fn an_offer_of_an_earlier_epoch_is_none() {
        let lease = written(
            &made_by_controller(),
            &write(WritePurpose::Renew, true),
            Timestamp::UNIX_EPOCH,
        )
        .unwrap();
        let mut later = lease.clone();
        later.spec.as_mut().unwrap().lease_transitions = Some(5);
        assert!(record(&lease).offered);
        assert!(!record(&later).offered);
    }
}
