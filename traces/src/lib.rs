//! How a change is followed from the API server to the kernels: spans of controllers and agents, which a collector of
//! OpenTelemetry gets by OTLP (http/protobuf). Off unless an endpoint is given; nothing that it does is waited for.
//!
//! Identities, sampling and the text form of a context are those of OpenTelemetry's SDK. The queue and the export are here, as
//! they must neither block anybody nor stay silent about what was lost.

pub mod args;
pub mod context;
pub mod counts;
pub mod exporter;
mod limits;
pub mod span;

pub use args::TraceArguments;
pub use counts::SpanCounts;
pub use exporter::{Exporting, Origin, start};
pub use opentelemetry::KeyValue;
pub use opentelemetry::trace::{SpanContext, Status};
pub use opentelemetry_sdk::Resource;
pub use opentelemetry_sdk::trace::SpanData;
pub use span::{Span, Tracer, texts};
