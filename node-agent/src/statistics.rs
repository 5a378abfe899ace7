//! Statistics of IPVS for Prometheus: read when they are asked for, over a socket of their own, at most once a second.
//!
//! The sync loop says whose are shown, and goes on. The kernel holds its lock of rules for one message of a dump at a time, so
//! that a write waits for a fraction of a millisecond.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use lvs_core::ipvs::{DestinationKey, ServiceKey};
use lvs_core::statistics::{
    Counters, DestinationStatistics, SORRY_SERVER, ServiceStatistics, ServiceSubject, Subjects,
};
use lvs_ipvs::{Client, ClientOptions, DumpError, Wanted};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::sync::watch;

use crate::limits::{STATISTICS_ANSWER, STATISTICS_KEPT};

/// Whose statistics are shown, as the sync loop says it. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct StatisticsExchange(watch::Sender<Arc<Subjects>>);

impl StatisticsExchange {
    /// From now on these.
    pub fn show(&self, subjects: Subjects) {
        self.0.send_replace(Arc::new(subjects));
    }

    /// What is shown to Prometheus, read from the kernel of this network namespace.
    pub fn collector(&self) -> Box<dyn Collector> {
        let mut client = Client::new(ClientOptions {
            timeout: STATISTICS_ANSWER,
            ..ClientOptions::default()
        });
        Box::new(self.collector_from(move |subjects| {
            client.statistics(|key| match subjects.services.get(key) {
                None => Wanted::Nothing,
                Some(service) if service.real_servers.is_empty() && !service.is_sorry => {
                    Wanted::Service
                }
                Some(_) => Wanted::Destinations,
            })
        }))
    }

    fn collector_from(&self, read: impl ReadStatistics + 'static) -> StatisticsMetrics {
        StatisticsMetrics {
            subjects: self.0.subscribe(),
            reader: Mutex::new(Reader {
                read: Box::new(read),
                latest: None,
                failures: 0,
            }),
        }
    }
}

/// Reads the statistics of these, and perhaps of others.
trait ReadStatistics: FnMut(&Subjects) -> Result<Vec<ServiceStatistics>, DumpError> + Send {}
impl<Read: FnMut(&Subjects) -> Result<Vec<ServiceStatistics>, DumpError> + Send> ReadStatistics
    for Read
{
}

/// What was read, and of whom.
struct Reading {
    subjects: Arc<Subjects>,
    /// Nothing where it could not be read.
    statistics: Arc<Vec<ServiceStatistics>>,
}

struct Reader {
    read: Box<dyn ReadStatistics>,
    latest: Option<(Instant, Arc<Vec<ServiceStatistics>>)>,
    failures: u64,
}

impl Reader {
    fn statistics(&mut self, subjects: &Subjects, now: Instant) -> Arc<Vec<ServiceStatistics>> {
        // Without a service of ours the kernel is left alone: to ask it loads the module.
        if subjects.services.is_empty() {
            return Arc::default();
        }
        if let Some((at, statistics)) = &self.latest
            && now.saturating_duration_since(*at) < STATISTICS_KEPT
        {
            return Arc::clone(statistics);
        }
        let statistics = (self.read)(subjects).unwrap_or_else(|error| {
            self.failures += 1;
            tracing::warn!("statistics are not shown: {error}");
            Vec::new()
        });
        let statistics = Arc::new(statistics);
        self.latest = Some((now, Arc::clone(&statistics)));
        statistics
    }
}

/// The collector.
struct StatisticsMetrics {
    subjects: watch::Receiver<Arc<Subjects>>,
    reader: Mutex<Reader>,
}

impl fmt::Debug for StatisticsMetrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("StatisticsMetrics");
        debug
            .field("subjects", &self.subjects)
            .finish_non_exhaustive()
    }
}

type Labels = Vec<(&'static str, String)>;

/// A service as it is shown.
struct ShownService<'a> {
    labels: Labels,
    subject: &'a ServiceSubject,
    /// None while the kernel does not have it, or cannot be read: unknown is not zero.
    statistics: Option<&'a ServiceStatistics>,
}

/// A real server as it is shown.
struct ShownRealServer<'a> {
    labels: Labels,
    is_up: Option<bool>,
    /// None also of one that is out since it is down.
    statistics: Option<&'a DestinationStatistics>,
}

impl Reading {
    fn services(&self) -> Vec<ShownService<'_>> {
        let read: BTreeMap<ServiceKey, &ServiceStatistics> = self
            .statistics
            .iter()
            .map(|service| (service.key, service))
            .collect();
        let subjects = self.subjects.services.iter();
        subjects
            .map(|(key, subject)| ShownService {
                labels: service_labels(key, subject),
                subject,
                statistics: read.get(key).copied(),
            })
            .collect()
    }
}

impl<'a> ShownService<'a> {
    fn real_servers(&self) -> impl Iterator<Item = ShownRealServer<'a>> {
        let read = self
            .statistics
            .into_iter()
            .flat_map(|one| &one.destinations);
        let subject = self.subject;
        // Of those in no plan it is the one that serves.
        let sorry_server = read.clone().find(|found| {
            let is_planned = subject.real_servers.contains_key(&found.key);
            subject.is_sorry && !is_planned && found.weight > 0
        });
        let read: BTreeMap<DestinationKey, &DestinationStatistics> =
            read.map(|found| (found.key, found)).collect();
        let planned = subject
            .real_servers
            .iter()
            .map(move |(key, one)| (*key, one.name.as_str(), one.is_up, read.get(key).copied()));
        let sorry_server = sorry_server.map(|found| (found.key, SORRY_SERVER, None, Some(found)));
        let labels = self.labels.clone();
        planned
            .chain(sorry_server)
            .map(move |(key, name, is_up, statistics)| {
                let mut labels = labels.clone();
                labels.extend(real_server_labels(name, key));
                ShownRealServer {
                    labels,
                    is_up,
                    statistics,
                }
            })
    }
}

/// A label `namespace` would be taken for that of the agent's pod.
fn service_labels(key: &ServiceKey, subject: &ServiceSubject) -> Labels {
    let mut labels = vec![
        ("virtual_service_namespace", subject.namespace.clone()),
        ("virtual_service", subject.name.clone()),
    ];
    match key {
        ServiceKey::Address {
            address,
            protocol,
            port,
        } => labels.extend([
            ("address", address.to_string()),
            ("protocol", format!("{protocol:?}")),
            ("port", port.to_string()),
        ]),
        ServiceKey::FirewallMark { mark, family } => labels.extend([
            ("mark", mark.to_string()),
            ("address_family", format!("{family:?}")),
        ]),
    }
    labels
}

fn real_server_labels(name: &str, key: DestinationKey) -> [(&'static str, String); 3] {
    [
        ("real_server", name.to_owned()),
        ("real_server_address", key.address.to_string()),
        ("real_server_port", key.port.to_string()),
    ]
}

/// Name, meaning, and value of a counter.
type CounterRow = (&'static str, &'static str, fn(&Counters) -> u64);

/// Of a service, and of a real server of one service.
const COUNTERS: [CounterRow; 5] = [
    ("connections", "Connections scheduled", |counters| {
        counters.connections
    }),
    ("incoming_packets", "Packets from clients", |counters| {
        counters.incoming_packets
    }),
    (
        "outgoing_packets",
        "Packets to clients, of forwarding method NAT: of others they do not come by",
        |counters| counters.outgoing_packets,
    ),
    ("incoming_bytes", "Bytes from clients", |counters| {
        counters.incoming_bytes
    }),
    (
        "outgoing_bytes",
        "Bytes to clients, of forwarding method NAT: of others they do not come by",
        |counters| counters.outgoing_bytes,
    ),
];

/// One family of series: each with its labels and its value.
fn family<'a, Metric: EncodeMetric>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help, kind): (&str, &str, MetricType),
    series: impl Iterator<Item = (&'a Labels, Metric)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, kind)?;
    for (labels, metric) in series {
        metric.encode(family.encode_family(labels)?)?;
    }
    Ok(())
}

impl Collector for StatisticsMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let subjects = Arc::clone(&self.subjects.borrow());
        let (reading, failures) = {
            // Of two who ask at once the second gets what the first has read.
            let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
            let statistics = reader.statistics(&subjects, Instant::now());
            let reading = Reading {
                subjects,
                statistics,
            };
            (reading, reader.failures)
        };
        let encoder = &mut encoder;
        let services = reading.services();
        for (name, help, value) in COUNTERS {
            let name = format!("lvs_agent_service_{name}");
            let series = services.iter().filter_map(|one| {
                let value = value(&one.statistics?.counters);
                Some((&one.labels, ConstCounter::new(value)))
            });
            family(encoder, (&name, help, MetricType::Counter), series)?;
        }
        encode_standing(encoder, &services)?;
        let real_servers: Vec<ShownRealServer<'_>> = services
            .iter()
            .flat_map(ShownService::real_servers)
            .collect();
        for (name, help, value) in COUNTERS {
            let name = format!("lvs_agent_real_server_{name}");
            let series = real_servers.iter().filter_map(|one| {
                let value = value(&one.statistics?.counters);
                Some((&one.labels, ConstCounter::new(value)))
            });
            family(encoder, (&name, help, MetricType::Counter), series)?;
        }
        encode_present(encoder, &real_servers)?;
        let left_out = [
            ("service", reading.subjects.services_left_out),
            ("real_server", reading.subjects.real_servers_left_out),
        ]
        .map(|(kind, count)| (vec![("kind", kind.to_owned())], count));
        let head = (
            "lvs_agent_statistics_left_out",
            "Services and real servers whose statistics are not shown, as there would be more than 20,000 series",
            MetricType::Gauge,
        );
        let series = left_out
            .iter()
            .map(|(labels, count)| (labels, gauge(*count)));
        family(encoder, head, series)?;
        ConstCounter::new(failures).encode(encoder.encode_descriptor(
            "lvs_agent_statistics_failures",
            "How often statistics could not be read from the kernel, and none were shown",
            None,
            MetricType::Counter,
        )?)
    }
}

fn gauge(count: usize) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX))
}

fn flag(is_so: bool) -> ConstGauge<i64> {
    ConstGauge::new(i64::from(is_so))
}

/// How services stand by their checks.
fn encode_standing(
    encoder: &mut DescriptorEncoder<'_>,
    services: &[ShownService<'_>],
) -> fmt::Result {
    let head = (
        "lvs_agent_service_real_servers",
        "Real servers of the service by its plan",
        MetricType::Gauge,
    );
    let planned = services.iter();
    let planned = planned.map(|one| (&one.labels, gauge(one.subject.planned)));
    family(encoder, head, planned)?;
    let head = (
        "lvs_agent_service_real_servers_up",
        "Real servers of the service that are up as this node sees them",
        MetricType::Gauge,
    );
    let up = services.iter();
    let up = up.map(|one| (&one.labels, gauge(one.subject.up)));
    family(encoder, head, up)?;
    let head = (
        "lvs_agent_service_quorum",
        "1 while the service has a quorum of real servers as this node sees them",
        MetricType::Gauge,
    );
    let quorum = services.iter().filter_map(|one| {
        let has_quorum = one.subject.has_quorum?;
        Some((&one.labels, flag(has_quorum)))
    });
    family(encoder, head, quorum)
}

/// What there is of real servers now.
fn encode_present(
    encoder: &mut DescriptorEncoder<'_>,
    real_servers: &[ShownRealServer<'_>],
) -> fmt::Result {
    type Row = (
        &'static str,
        &'static str,
        fn(&DestinationStatistics) -> u32,
    );
    let rows: [Row; 4] = [
        ("active_connections", "Active connections", |statistics| {
            statistics.active_connections
        }),
        (
            "inactive_connections",
            "Inactive connections",
            |statistics| statistics.inactive_connections,
        ),
        (
            "persistent_connections",
            "Persistence templates: clients that stay with this real server",
            |statistics| statistics.persistent_connections,
        ),
        ("weight", "Weight in the kernel", |statistics| {
            statistics.weight
        }),
    ];
    for (name, help, value) in rows {
        let name = format!("lvs_agent_real_server_{name}");
        let series = real_servers.iter().filter_map(|one| {
            let value = i64::from(value(one.statistics?));
            Some((&one.labels, ConstGauge::new(value)))
        });
        family(encoder, (&name, help, MetricType::Gauge), series)?;
    }
    let head = (
        "lvs_agent_real_server_up",
        "1 while the real server passes its checks, 0 while it does not; none while that is not known, or it is told to drain or to be out",
        MetricType::Gauge,
    );
    let up = real_servers
        .iter()
        .filter_map(|one| Some((&one.labels, flag(one.is_up?))));
    family(encoder, head, up)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use lvs_core::statistics::RealServerSubject;
    use lvs_crds::value::{AddressFamily, Protocol};
    use lvs_ipvs::TransportError;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    const LABELS: &str = "virtual_service_namespace=\"shop\",virtual_service=\"web\",address=\"192.0.2.1\",protocol=\"TCP\",port=\"80\"";

    fn service() -> ServiceKey {
        ServiceKey::Address {
            address: "192.0.2.1".parse().unwrap(),
            protocol: Protocol::TCP,
            port: 80,
        }
    }

    fn mark() -> ServiceKey {
        ServiceKey::FirewallMark {
            mark: 8192,
            family: AddressFamily::IPv6,
        }
    }

    fn destination(last: u8) -> DestinationKey {
        DestinationKey {
            address: [192, 0, 2, last].into(),
            port: 80,
        }
    }

    fn subject(name: &str, real_servers: &[(u8, &str, Option<bool>)]) -> ServiceSubject {
        let up = real_servers.iter().filter(|(_, _, up)| *up == Some(true));
        ServiceSubject {
            namespace: "shop".into(),
            name: name.into(),
            planned: real_servers.len(),
            up: up.count(),
            has_quorum: Some(true),
            is_sorry: false,
            real_servers: real_servers
                .iter()
                .map(|(last, name, is_up)| {
                    let subject = RealServerSubject {
                        name: (*name).to_owned(),
                        is_up: *is_up,
                    };
                    (destination(*last), subject)
                })
                .collect(),
        }
    }

    fn read(last: u8, weight: u32) -> DestinationStatistics {
        DestinationStatistics {
            key: destination(last),
            counters: Counters {
                connections: last.into(),
                incoming_bytes: u64::MAX,
                ..Counters::default()
            },
            weight,
            active_connections: 3,
            inactive_connections: 2,
            persistent_connections: 1,
        }
    }

    fn text(
        exchange: &StatisticsExchange,
        read: impl FnMut(&Subjects) -> Result<Vec<ServiceStatistics>, DumpError> + Send + 'static,
    ) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(exchange.collector_from(read)));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn services_and_real_servers_are_shown_by_their_names() {
        let exchange = StatisticsExchange::default();
        let mut web = subject(
            "web",
            &[(11, "web-1", Some(true)), (12, "web-2", Some(false))],
        );
        web.is_sorry = true;
        exchange.show(Subjects {
            services: [(service(), web), (mark(), subject("ftp", &[]))].into(),
            services_left_out: 0,
            real_servers_left_out: 7,
        });
        let text = text(&exchange, |_| {
            Ok(vec![ServiceStatistics {
                key: service(),
                counters: Counters {
                    outgoing_packets: 5,
                    ..Counters::default()
                },
                // One that somebody has put there, with no weight, and the sorry server.
                destinations: vec![read(11, 4), read(66, 0), read(99, 1)],
            }])
        });
        let server = |name: &str, last: u8| {
            format!(
                "{LABELS},real_server=\"{name}\",real_server_address=\"192.0.2.{last}\",real_server_port=\"80\""
            )
        };
        for line in [
            format!("lvs_agent_service_outgoing_packets_total{{{LABELS}}} 5"),
            format!("lvs_agent_service_real_servers{{{LABELS}}} 2"),
            format!("lvs_agent_service_real_servers_up{{{LABELS}}} 1"),
            format!("lvs_agent_service_quorum{{{LABELS}}} 1"),
            format!("lvs_agent_real_server_incoming_bytes_total{{{}}} {}", server("web-1", 11), u64::MAX),
            format!("lvs_agent_real_server_weight{{{}}} 4", server("web-1", 11)),
            format!("lvs_agent_real_server_active_connections{{{}}} 3", server("web-1", 11)),
            format!("lvs_agent_real_server_up{{{}}} 1", server("web-1", 11)),
            format!("lvs_agent_real_server_up{{{}}} 0", server("web-2", 12)),
            format!("lvs_agent_real_server_connections_total{{{}}} 99", server(SORRY_SERVER, 99)),
            "lvs_agent_service_real_servers{virtual_service_namespace=\"shop\",virtual_service=\"ftp\",mark=\"8192\",address_family=\"IPv6\"} 0".to_owned(),
            "lvs_agent_statistics_left_out{kind=\"real_server\"} 7".to_owned(),
            "lvs_agent_statistics_failures_total 0".to_owned(),
        ] {
            assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
        }
        assert!(!text.contains("192.0.2.66"), "{text}");
        assert!(
            !text.contains(&format!("weight{{{}", server("web-2", 12))),
            "{text}"
        );
    }

    #[test]
    fn what_cannot_be_read_is_not_zero_and_what_the_agent_knows_is_shown() {
        let exchange = StatisticsExchange::default();
        let web = subject("web", &[(12, "web-2", Some(false))]);
        exchange.show(Subjects {
            services: [(service(), web)].into(),
            ..Subjects::default()
        });
        let text = text(&exchange, |_| {
            Err(DumpError::Transport {
                what: "the IPVS services".into(),
                source: TransportError::FamilyMissing,
            })
        });
        assert!(
            text.contains("lvs_agent_statistics_failures_total 1"),
            "{text}"
        );
        assert!(!text.contains("connections_total{"), "{text}");
        assert!(
            text.contains("lvs_agent_service_real_servers_up{"),
            "{text}"
        );
        assert!(text.contains("lvs_agent_real_server_up{"), "{text}");
    }

    #[test]
    fn the_kernel_is_asked_once_a_second_and_never_without_a_service_of_ours() {
        let asked = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&asked);
        let mut reader = Reader {
            read: Box::new(move |_| {
                counted.fetch_add(1, Ordering::Relaxed);
                Ok(Vec::new())
            }),
            latest: None,
            failures: 0,
        };
        let now = Instant::now();
        reader.statistics(&Subjects::default(), now);
        assert_eq!(asked.load(Ordering::Relaxed), 0);
        let subjects = Subjects {
            services: [(service(), subject("web", &[]))].into(),
            ..Subjects::default()
        };
        for (milliseconds, count) in [(0, 1), (999, 1), (1000, 2), (1500, 2), (2500, 3)] {
            reader.statistics(
                &subjects,
                now + std::time::Duration::from_millis(milliseconds),
            );
            assert_eq!(asked.load(Ordering::Relaxed), count, "at {milliseconds} ms");
        }
    }
}
