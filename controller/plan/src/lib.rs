//! lvs-plan
