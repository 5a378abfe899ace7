//! lvs-agent: applies NodePlans to the kernel of one node.
fn main() {}
