//! lvs-controller
fn main() {}
