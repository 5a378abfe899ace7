//! The context of a trace as text (W3C Trace Context, section 3.2: `traceparent`), as a NodePlan carries it from the controller
//! to an agent.
//!
//! What stands there is only a hint for traces. Whoever can write a NodePlan can write anything there: what is not exactly a
//! context is none.

use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{SpanContext, TraceContextExt};
use opentelemetry_sdk::propagation::TraceContextPropagator;

use crate::limits::CONTEXT_BYTES;

/// Annotation of a NodePlan: the span in which its spec was written.
pub const ANNOTATION: &str = "lvs.dev/traceparent";

/// The text of a context; `None` for one that is not sampled, as nobody would see what continues it.
pub fn to_text(context: &SpanContext) -> Option<String> {
    let is_worth = context.is_valid() && context.is_sampled();
    is_worth.then(|| format!("00-{}-{}-01", context.trace_id(), context.span_id()))
}

/// The context that a text says, if it says one of a sampled trace.
pub fn from_text(text: &str) -> Option<SpanContext> {
    // The SDK reads more than is written, such as a flag of one digit.
    let is_in_place = |(position, byte): (usize, u8)| match position {
        2 | 35 | 52 => byte == b'-',
        _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
    };
    let is_of_version_00 = text.len() == CONTEXT_BYTES && text.starts_with("00-");
    if !is_of_version_00 || !text.bytes().enumerate().all(is_in_place) {
        return None;
    }
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &Text(text));
    let context = context.span().span_context().clone();
    (context.is_valid() && context.is_sampled()).then_some(context)
}

/// The one header that there is.
struct Text<'a>(&'a str);

impl Extractor for Text<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == "traceparent").then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent"]
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanId, TraceFlags, TraceId, TraceState};
    use proptest::prelude::*;

    use super::*;

    /// The example of the specification, section 3.2.4.
    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_example_of_the_specification_is_read() {
        let context = from_text(EXAMPLE).unwrap();
        assert_eq!(
            context.trace_id().to_string(),
            "4bf92f3577b34da6a3ce929d0e0e4736"
        );
        assert_eq!(context.span_id().to_string(), "00f067aa0ba902b7");
        assert!(context.is_remote() && context.is_sampled());
        assert_eq!(to_text(&context).unwrap(), EXAMPLE);
    }

    #[test]
    fn what_is_not_exactly_a_context_of_a_sampled_trace_is_none() {
        for text in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473600f067aa0ba902b7--01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1-",
            " 0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(from_text(text), None, "{text}");
        }
        assert_eq!(from_text(&format!("{EXAMPLE}-00")), None);
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_is_read_is_what_is_written(text in "\\PC*|[0-9a-f-]{55}|00-[0-9a-f-]{52}|.{55}") {
            if let Some(context) = from_text(&text) {
                let again = to_text(&context).unwrap();
                // The flags may have had more than the one that is known.
                prop_assert_eq!(&again[..53], &text[..53]);
            }
        }

        #[test]
        fn every_context_of_a_sampled_trace_survives(trace in 1_u128.., span in 1_u64.., is_sampled: bool) {
            let flags = if is_sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
            let context = SpanContext::new(
                TraceId::from_bytes(trace.to_be_bytes()),
                SpanId::from_bytes(span.to_be_bytes()),
                flags,
                true,
                TraceState::default(),
            );
            let text = to_text(&context);
            prop_assert_eq!(text.is_some(), is_sampled);
            prop_assert_eq!(text.as_deref().and_then(from_text), is_sampled.then_some(context));
        }
    }
}
