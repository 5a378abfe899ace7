//! Spans, each made where something is done and with times that are told.

use std::fmt;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::TracerProvider;
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt, Tracer as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, SpanData, SpanProcessor};
use tokio::sync::mpsc;

use crate::counts::{SpanCounts, SpanResult};
use crate::limits::QUEUED_SPANS;

/// Makes spans. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Tracer(SdkTracer);

/// Something that is being done. It ends when it is told to, or when it is dropped.
pub struct Span(opentelemetry_sdk::trace::Span);

impl fmt::Debug for Span {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Span").field(self.context()).finish()
    }
}

impl Tracer {
    /// A tracer of `service`, and the queue in which its spans are as soon as they have ended. `sampling_ratio` of the traces
    /// that begin here, 0 to 1, are sampled, and of those that others began what they have sampled.
    pub fn open(
        service: &'static str,
        resource: Resource,
        sampling_ratio: f64,
        counts: SpanCounts,
    ) -> (Self, mpsc::Receiver<SpanData>) {
        let (sender, queue) = mpsc::channel(QUEUED_SPANS);
        let sampler = Sampler::TraceIdRatioBased(sampling_ratio);
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::ParentBased(Box::new(sampler)))
            .with_resource(resource)
            .with_span_processor(Queue { sender, counts })
            .build();
        (Self(provider.tracer(service)), queue)
    }

    /// The first span of a trace, begun at `begun`. Whether the trace is sampled is decided here.
    pub fn root(&self, name: &'static str, begun: SystemTime, attributes: Vec<KeyValue>) -> Span {
        self.build(name, &Context::new(), begun, attributes)
    }

    /// A span within `parent`, of this process or of another.
    pub fn child(
        &self,
        name: &'static str,
        parent: &SpanContext,
        begun: SystemTime,
        attributes: Vec<KeyValue>,
    ) -> Span {
        let parent = Context::new().with_remote_span_context(parent.clone());
        self.build(name, &parent, begun, attributes)
    }

    fn build(
        &self,
        name: &'static str,
        parent: &Context,
        begun: SystemTime,
        attributes: Vec<KeyValue>,
    ) -> Span {
        let builder = SpanBuilder::from_name(name)
            .with_kind(SpanKind::Internal)
            .with_start_time(begun)
            .with_attributes(attributes);
        Span(self.0.build_with_context(builder, parent))
    }
}

impl Span {
    /// What others continue.
    pub fn context(&self) -> &SpanContext {
        self.0.span_context()
    }

    /// Says one thing more of it.
    pub fn set(&mut self, attribute: KeyValue) {
        self.0.set_attribute(attribute);
    }

    /// It did not succeed, for this reason: a word, not what somebody may have written.
    pub fn fail(&mut self, reason: &'static str) {
        self.0.set_status(Status::error(reason));
    }

    /// It is over.
    pub fn end(mut self, now: SystemTime) {
        self.0.end_with_timestamp(now);
    }
}

/// Puts spans that ended into the exporter's queue, and drops them if that is full. Blocks nobody.
#[derive(Debug)]
struct Queue {
    sender: mpsc::Sender<SpanData>,
    counts: SpanCounts,
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut opentelemetry_sdk::trace::Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.sender.try_send(span).is_err() {
            self.counts.add(SpanResult::Dropped, 1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        // The exporter does so by itself, and nobody is to wait for it.
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// A list of words as the value of an attribute.
pub fn texts(words: Vec<opentelemetry::StringValue>) -> opentelemetry::Value {
    opentelemetry::Value::Array(opentelemetry::Array::String(words))
}
