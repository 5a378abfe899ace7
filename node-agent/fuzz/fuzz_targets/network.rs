//! The kernel's answers about devices, addresses, rules, routes, GUE ports and nftables, which we did not write.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use lvs_agent::kernel::message::{Attributes, split_replies};
use lvs_agent::kernel::{address, fou, link, nftables, route, rule};

fuzz_target!(|bytes: &[u8]| {
    let names = BTreeMap::from([(1, "lo"), (2, "eth0")]);
    let bodies = split_replies(bytes).unwrap_or_default();
    for body in bodies.iter().map(|reply| reply.body).chain([bytes]) {
        let _ = link::read(body);
        let _ = address::read(body);
        let _ = rule::read(body);
        let _ = route::read(body, &names);
        let _ = fou::read(body);
        if let Ok(attributes) = Attributes::read(body) {
            let _ = nftables::expression::read(&attributes);
            let _ = nftables::rule::read(Some(body), Some(&attributes));
        }
    }
});
