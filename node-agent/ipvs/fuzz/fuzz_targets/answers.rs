//! Every parser of lvs-ipvs that reads bytes from the kernel. The same functions as the test
//! `arbitrary_bytes_never_panic`, for longer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lvs_crds::value::AddressFamily;
use lvs_ipvs::attribute::Attributes;
use lvs_ipvs::decode;
use lvs_ipvs::message::{Content, Messages};

fuzz_target!(|bytes: &[u8]| {
    for message in Messages::new(bytes).flatten() {
        if let Ok(Content::Data {
            command,
            attributes,
        }) = message.content()
        {
            parse(command, attributes);
        }
    }
    if let Some((command, attributes)) = bytes.split_first() {
        parse(*command, attributes);
    }
});

fn parse(command: u8, attributes: &[u8]) {
    for attribute in Attributes::new(attributes).flatten() {
        let _ = (
            attribute.u8(),
            attribute.u16(),
            attribute.be16(),
            attribute.u32(),
            attribute.be32(),
        );
        let _ = (attribute.ipv4(), attribute.ipv6(), attribute.string());
    }
    let _ = decode::operation(command, attributes);
    let _ = decode::service(attributes);
    for family in [AddressFamily::IPv4, AddressFamily::IPv6] {
        let _ = decode::destination(attributes, family);
    }
    let _ = (decode::timeouts(attributes), decode::info(attributes));
    let _ = decode::sync_daemon(attributes);
}
