//! Questions to the DNS, by the name servers of `/etc/resolv.conf`.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use lvs_plan::dns_name::{Answer, Answers};

use crate::resolver::{Lookup, PARALLEL_MAXIMUM};

/// Longest time for an answer, whatever the name servers do.
const TIMEOUT: Duration = Duration::from_secs(5);
/// After this long without an answer the question is put again, or to the next server.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
/// Attempts that do not fit into [`TIMEOUT`], so that it alone decides.
const ATTEMPTS: usize = 3;

/// The DNS as name servers tell it.
#[derive(Clone)]
pub struct Dns {
    servers: Servers,
    client: Arc<Mutex<Option<Client>>>,
}

/// Who is asked.
#[derive(Clone, Debug)]
enum Servers {
    /// Those of `/etc/resolv.conf`.
    System,
    /// These.
    Given(Vec<SocketAddr>),
}

#[derive(Clone)]
struct Client {
    resolver: TokioResolver,
    /// Addresses of the name servers, for messages.
    servers: Arc<str>,
}

impl Dns {
    /// As `/etc/resolv.conf` says, which is read when the first name is asked for.
    pub fn of_system() -> Self {
        Self::of(Servers::System)
    }

    /// By these name servers.
    pub fn of_servers(servers: Vec<SocketAddr>) -> Self {
        Self::of(Servers::Given(servers))
    }

    fn of(servers: Servers) -> Self {
        Self {
            servers,
            client: Arc::default(),
        }
    }

    /// The client, once its configuration could be read.
    fn client(&self) -> Result<Client, String> {
        let mut known = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = &*known {
            return Ok(client.clone());
        }
        let client = self.servers.client()?;
        Ok(known.insert(client).clone())
    }
}

impl Servers {
    fn client(&self) -> Result<Client, String> {
        let (config, options) = match self {
            Self::System => {
                read_system_conf().map_err(|error| format!("reading /etc/resolv.conf: {error}"))?
            }
            Self::Given(servers) => {
                let servers = servers.iter().map(|server| {
                    let mut config = NameServerConfig::udp_and_tcp(server.ip());
                    for connection in &mut config.connections {
                        connection.port = server.port();
                    }
                    config
                });
                let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
                (config, ResolverOpts::default())
            }
        };
        let servers: Vec<String> = config
            .name_servers()
            .iter()
            .map(|server| server.ip.to_string())
            .collect();
        let mut builder =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let ours = builder.options_mut();
        *ours = options;
        // Who asks when, and how long an answer holds, is decided elsewhere.
        ours.cache_size = 0;
        ours.use_hosts_file = ResolveHosts::Never;
        ours.timeout = ATTEMPT_TIMEOUT;
        ours.attempts = ATTEMPTS;
        ours.max_active_requests = 4 * PARALLEL_MAXIMUM;
        let resolver = builder
            .build()
            .map_err(|error| format!("making a DNS client: {error}"))?;
        Ok(Client {
            resolver,
            servers: servers.join(", ").into(),
        })
    }
}

impl Lookup for Dns {
    async fn lookup(&self, name: &str) -> Answers {
        // With the root at its end the name is whole: no search domain is appended.
        let whole = self.client().and_then(|client| {
            let whole = Name::from_ascii(format!("{name}."));
            whole
                .map(|whole| (client, whole))
                .map_err(|error| format!("reading the name: {error}"))
        });
        match whole {
            Ok((client, name)) => {
                let (ipv4, ipv6) = tokio::join!(
                    client.ask(&name, RecordType::A),
                    client.ask(&name, RecordType::AAAA)
                );
                Answers { ipv4, ipv6 }
            }
            Err(why) => Answers {
                ipv4: Answer::Failed(why.clone()),
                ipv6: Answer::Failed(why),
            },
        }
    }
}

impl Client {
    async fn ask(&self, name: &Name, type_: RecordType) -> Answer {
        let servers = &self.servers;
        let question = self.resolver.lookup(name.clone(), type_);
        let found = match tokio::time::timeout(TIMEOUT, question).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return self.without_addresses(&error),
            Err(_) => {
                let seconds = TIMEOUT.as_secs();
                return Answer::Failed(format!("no answer from {servers} within {seconds} s"));
            }
        };
        let records = found.answers();
        let addresses: Vec<_> = records
            .iter()
            .filter_map(|record| match (&record.data, type_) {
                (RData::A(address), RecordType::A) => Some(address.0.into()),
                (RData::AAAA(address), RecordType::AAAA) => Some(address.0.into()),
                _ => None,
            })
            .collect();
        // Aliases on the way count, too.
        let shortest = records.iter().map(|record| record.ttl).min();
        if addresses.is_empty() {
            Answer::NoRecords
        } else {
            Answer::Addresses {
                addresses,
                time_to_live: Duration::from_secs(shortest.unwrap_or_default().into()),
            }
        }
    }

    fn without_addresses(&self, error: &NetError) -> Answer {
        let servers = &self.servers;
        match error {
            NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
                ResponseCode::NXDomain => Answer::NoSuchName,
                _ => Answer::NoRecords,
            },
            NetError::Dns(DnsError::ResponseCode(code)) => {
                let code = format!("{code:?}").to_uppercase();
                Answer::Failed(format!("{servers} answered {code}"))
            }
            NetError::Timeout => Answer::Failed(format!("no answer from {servers}")),
            error => Answer::Failed(format!("asking {servers}: {error}")),
        }
    }
}
