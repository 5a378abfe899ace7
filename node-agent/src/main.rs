//! lvs-agent
fn main() {}
