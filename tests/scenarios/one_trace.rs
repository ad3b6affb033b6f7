//! A command and the projection of its events form one trace, which starts at the client's `traceparent`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use acceptance::{Marketplace, Name, a_listing, until_eq, until_some};
use anyhow::Context as _;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use reqwest::Method;
use tonic::{Request, Response, Status};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// An OTLP collector that stores the received spans, each with the name of its service.
#[derive(Debug, Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<(String, Span)>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(&self, request: Request<ExportTraceServiceRequest>) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        for of_service in request.into_inner().resource_spans {
            let service = text(&of_service.resource.unwrap_or_default().attributes, "service.name");
            let sent = of_service.scope_spans.into_iter().flat_map(|scope| scope.spans);
            spans.extend(sent.map(|span| (service.clone(), span)));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    async fn listen(&self) -> anyhow::Result<SocketAddr> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(self.clone()));
        tokio::spawn(server.serve_with_incoming(tonic::transport::server::TcpIncoming::from(listener)));
        Ok(address)
    }

    fn of_trace(&self, trace: &str) -> Vec<(String, Span)> {
        let spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        spans.iter().filter(|(_, span)| hex(&span.trace_id) == trace).cloned().collect()
    }
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    let value = attributes.iter().find(|attribute| attribute.key == key).and_then(|attribute| attribute.value.clone());
    match value {
        Some(AnyValue { value: Some(any_value::Value::StringValue(text)) }) => text,
        _ => String::new(),
    }
}

fn hex(id: &[u8]) -> String {
    id.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
}

#[tokio::test]
async fn a_command_and_every_projection_of_its_events_are_one_trace() -> anyhow::Result<()> {
    let collector = Collector::default();
    let endpoint = format!("http://{}", collector.listen().await?);
    let mut builder = Marketplace::builder();
    for name in [Name::CommandApi, Name::QueryApi, Name::Projector] {
        builder = builder.setting(name, "OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint).setting(name, "OTEL_BSP_SCHEDULE_DELAY", 50);
    }
    let market = builder.start().await?;
    let ada = market.seller("ada")?;
    let request = ada.command(Method::POST, "/api/v1/listings")?.json(&a_listing().with_stock(3).0);
    let answer = request.header("traceparent", &format!("00-{TRACE}-{CALLER}-01")).send().await?.expect(201)?;
    assert_eq!(answer.header("content-type"), Some("application/json"));

    let (_, command) = until_some("the span of the command", async || {
        Ok(collector.of_trace(TRACE).into_iter().find(|(_, span)| span.name == "POST /api/v1/listings"))
    })
    .await?;
    assert_eq!(hex(&command.parent_span_id), CALLER);

    let projections = ["listing_catalog", "listing_page", "listing_search", "stock_levels"];
    let all: BTreeSet<String> = projections.into_iter().map(str::to_owned).collect();
    until_eq("one span per projection", all, async || {
        let applied = collector.of_trace(TRACE).into_iter().filter(|(service, _)| service == "projector");
        Ok(applied.map(|(_, span)| text(&span.attributes, "projection.name")).collect())
    })
    .await?;

    // Each span is a descendant of the command's span.
    let spans = collector.of_trace(TRACE);
    let parents: BTreeMap<String, String> =
        spans.iter().map(|(_, span)| (hex(&span.span_id), hex(&span.parent_span_id))).collect();
    for (service, span) in &spans {
        let mut at = hex(&span.span_id);
        while at != hex(&command.span_id) {
            at.clone_from(
                parents.get(&at).with_context(|| format!("the parent of the span {service}: {} is missing", span.name))?,
            );
        }
    }
    market.stop().await
}
