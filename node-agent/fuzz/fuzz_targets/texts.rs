//! Texts from the API server and from disk: plans and the journal of what is ours.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lvs_agent::book::ReceivedPlan;
use lvs_agent::plan_watch::GuardedPlan;
use lvs_core::journal::Journal;

fuzz_target!(|bytes: &[u8]| {
    // With its annotations, of which that of traces is read.
    let _ = serde_json::from_slice::<GuardedPlan>(bytes).map(ReceivedPlan::from);
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(journal) = Journal::from_text(text, "boot")
    {
        // What is read can be written, and is read back the same.
        let again = journal.to_text().ok().and_then(|text| Journal::from_text(&text, "boot").ok());
        assert_eq!(again.as_ref(), Some(&journal));
    }
});
