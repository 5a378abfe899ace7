//! ARP packets and neighbour advertisements, which anybody on the link can send.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lvs_core::fence::claim::Claim;

fuzz_target!(|bytes: &[u8]| {
    for claim in [Claim::from_arp(bytes), Claim::from_ipv6(bytes)].into_iter().flatten() {
        // Whoever claims is one host, and says so of an address.
        assert_eq!(claim.hardware_address.0[0] & 1, 0);
        assert_ne!(claim.hardware_address.0, [0; 6]);
    }
});
