//! The codec: what is written is read back, and bytes we did not write never panic.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what it expects"
)]

#[path = "support/strategies.rs"]
mod strategies;

use lvs_crds::value::AddressFamily;
use lvs_ipvs::attribute::{AttributeError, Attributes};
use lvs_ipvs::message::{
    Content, Envelope, GENERIC_HEADER_LENGTH, HEADER_LENGTH, Message, Messages,
};
use lvs_ipvs::{decode, encode};
use proptest::prelude::*;

const ENVELOPE: Envelope = Envelope {
    family: 0x1d,
    flags: 5,
    sequence: 7,
};

fn only_message(bytes: &[u8]) -> Message<'_> {
    let mut messages = Messages::new(bytes);
    let message = messages.next().expect("a message").expect("well formed");
    assert_eq!(messages.next(), None);
    message
}

proptest! {
    #[test]
    fn operations_come_back(operations in prop::collection::vec(strategies::operation(), 1..20)) {
        let mut buffer = Vec::new();
        for operation in &operations {
            encode::operation(&mut buffer, ENVELOPE, operation);
            prop_assert_eq!(buffer.len() % 4, 0);
        }
        let decoded: Vec<_> = Messages::new(&buffer)
            .map(|message| {
                let message = message.expect("well formed");
                assert_eq!((message.kind, message.flags, message.sequence), (0x1d, 5, 7));
                match message.content() {
                    Ok(Content::Data { command, attributes }) => decode::operation(command, attributes),
                    other => panic!("{other:?}"),
                }
            })
            .collect::<Result<_, _>>()
            .expect("decodes");
        prop_assert_eq!(decoded, operations);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        everything(&bytes);
    }

    /// Random bytes seldom get past the first length; damaged messages do.
    #[test]
    fn damaged_messages_never_panic(
        operation in strategies::operation(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut buffer = Vec::new();
        encode::operation(&mut buffer, ENVELOPE, &operation);
        for (index, byte) in damage {
            let index = index.index(buffer.len());
            buffer[index] = byte;
        }
        everything(&buffer);
        everything(&buffer[..cut.index(buffer.len())]);
        everything(&buffer[HEADER_LENGTH + GENERIC_HEADER_LENGTH..]);
    }

    #[test]
    fn a_cut_message_is_an_error(operation in strategies::operation(), cut in any::<prop::sample::Index>()) {
        let mut buffer = Vec::new();
        encode::operation(&mut buffer, ENVELOPE, &operation);
        let cut = 1 + cut.index(buffer.len() - 1);
        prop_assert!(Messages::new(&buffer[..cut]).next().is_some_and(|message| message.is_err()));
    }

    #[test]
    fn prefixes_and_netmasks(length in 0_u8..=32, mask in any::<u32>()) {
        prop_assert_eq!(decode::ipv4_prefix_length(encode::ipv4_netmask(length)), length);
        match decode::ipv4_prefix_length(mask) {
            decode::NOT_A_PREFIX => prop_assert!(mask.count_ones() != mask.leading_ones()),
            length => prop_assert_eq!(encode::ipv4_netmask(length), mask),
        }
    }
}

/// Every way in.
fn everything(bytes: &[u8]) {
    for message in Messages::new(bytes) {
        let Ok(message) = message else { continue };
        if let Ok(Content::Data {
            command,
            attributes,
        }) = message.content()
        {
            attributes_of(command, attributes);
        }
    }
    for command in 0..20 {
        attributes_of(command, bytes);
    }
    let error = Message {
        kind: 2,
        flags: 0x300,
        sequence: 0,
        payload: bytes,
    };
    let _ = error.content();
    let _ = Message {
        flags: 0x200,
        ..error
    }
    .content();
}

fn attributes_of(command: u8, bytes: &[u8]) {
    for attribute in Attributes::new(bytes).flatten() {
        let _ = (
            attribute.u8(),
            attribute.u16(),
            attribute.be16(),
            attribute.u32(),
        );
        let _ = (attribute.ipv4(), attribute.ipv6(), attribute.string());
    }
    let _ = decode::operation(command, bytes);
    let _ = decode::service(bytes);
    let _ = decode::destination(bytes, AddressFamily::IPv4);
    let _ = decode::destination(bytes, AddressFamily::IPv6);
    let _ = (decode::timeouts(bytes), decode::info(bytes));
    let _ = decode::sync_daemon(bytes);
}

#[test]
fn lengths_of_attributes_are_checked() {
    let claimed_too_long = [9, 0, 1, 0, 0, 0, 0, 0];
    let mut attributes = Attributes::new(&claimed_too_long);
    assert_eq!(
        attributes.next(),
        Some(Err(AttributeError::Length {
            claimed: 9,
            remaining: 8
        }))
    );
    assert_eq!(attributes.next(), None, "after an error it ends");
    let claimed_too_short = [3, 0, 1, 0];
    assert!(
        Attributes::new(&claimed_too_short)
            .next()
            .is_some_and(|first| first.is_err())
    );
}

#[test]
fn the_kernels_own_text_is_found() {
    // error -22, the request's header of 16 bytes, then attribute NLMSGERR_ATTR_MSG.
    let mut payload = (-22_i32).to_ne_bytes().to_vec();
    payload.extend([20, 0, 0, 0, 0x1d, 0, 5, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
    let capped = payload.len();
    payload.extend([8, 0, 1, 0, b'n', b'o', b'!', 0]);
    let expected = Ok(Content::Refused {
        errno: 22,
        message: Some("no!".to_owned()),
    });
    let message = Message {
        kind: 2,
        flags: 0x300,
        sequence: 7,
        payload: &payload,
    };
    assert_eq!(message.content(), expected);
    // Not capped: the request's payload (20 - 16 bytes) stands between.
    let mut whole = payload[..capped].to_vec();
    whole.extend([1, 1, 0, 0]);
    whole.extend(&payload[capped..]);
    assert_eq!(
        Message {
            flags: 0x200,
            payload: &whole,
            ..message
        }
        .content(),
        expected
    );
}

#[test]
fn requests_name_their_service_only() {
    let mut buffer = Vec::new();
    encode::bare(&mut buffer, ENVELOPE, 4);
    assert_eq!(only_message(&buffer).payload, [4, 1, 0, 0]);
}
