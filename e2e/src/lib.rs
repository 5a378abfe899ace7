//! The lab, the stories and the benches.
