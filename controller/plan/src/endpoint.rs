//! EndpointSlices (discovery.k8s.io/v1) with no more of them than planning looks at: a cluster has many, and most of
//! what they say is of no use here.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::discovery::v1::{
    Endpoint as ApiEndpoint, EndpointConditions, EndpointPort as ApiEndpointPort,
    EndpointSlice as ApiEndpointSlice,
};
use lvs_crds::traffic_policy::AdministrativeState;
use lvs_crds::value::{AddressFamily, Protocol};
use serde::Deserialize;
use serde_json::Value;

use crate::address_range::parse_address;
use crate::input::Body;

/// Label of an EndpointSlice with the name of its Service.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// An EndpointSlice as read.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointSlice {
    /// Name of its Service, in the namespace of the slice.
    pub service_name: String,
    /// Its endpoints, or why they cannot be read.
    pub body: Body<Endpoints>,
}

/// Endpoints that can serve, and their ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// Ports that every endpoint of the slice has.
    pub ports: Vec<EndpointPort>,
    /// Each address once, sorted. What is neither ready nor serving is left out, as are all of a slice of host names.
    pub addresses: Vec<(IpAddr, EndpointState)>,
}

/// A port of endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPort {
    /// Name of the Service's port; empty where it has none.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Port, 1..65535; `None` = all ports.
    pub port: Option<u16>,
}

/// What an endpoint can do for clients. The lesser is the better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndpointState {
    /// It takes new connections.
    Ready,
    /// It is about to end, or not ready, but goes on with the connections that it has.
    Serving,
}

impl EndpointState {
    /// By the conditions of an endpoint; `None` where it can do nothing. What a condition does not say is what the API
    /// defines for it: ready is true, and serving is what ready is.
    fn of(conditions: Option<&EndpointConditions>) -> Option<Self> {
        let ready = conditions.and_then(|all| all.ready).unwrap_or(true);
        let serving = conditions.and_then(|all| all.serving).unwrap_or(ready);
        match (ready, serving) {
            (true, _) => Some(Self::Ready),
            (false, true) => Some(Self::Serving),
            (false, false) => None,
        }
    }

    /// The administrative state of an endpoint whose RealServer has `wanted`.
    pub fn administrative_state(self, wanted: AdministrativeState) -> AdministrativeState {
        match self {
            Self::Ready => wanted,
            Self::Serving => wanted.max(AdministrativeState::Draining),
        }
    }
}

impl EndpointSlice {
    /// Reads the object as the API has it.
    pub fn read(value: &Value) -> Self {
        let label = value
            .pointer("/metadata/labels")
            .and_then(|labels| labels.get(SERVICE_NAME_LABEL));
        let body = ApiEndpointSlice::deserialize(value)
            .map_err(|error| error.to_string())
            .and_then(|slice| Endpoints::read(&slice));
        Self {
            service_name: label.and_then(Value::as_str).unwrap_or_default().to_owned(),
            body: body.map_or_else(Body::Undecodable, Body::Decoded),
        }
    }
}

impl Endpoints {
    fn read(slice: &ApiEndpointSlice) -> Result<Self, String> {
        let family = match slice.address_type.as_str() {
            "IPv4" => AddressFamily::IPv4,
            "IPv6" => AddressFamily::IPv6,
            // Names are nobody's addresses.
            "FQDN" => return Ok(Self::default()),
            other => return Err(format!("addressType: {other:?} is not known")),
        };
        let mut addresses = BTreeMap::new();
        for endpoint in &slice.endpoints {
            let Some(state) = EndpointState::of(endpoint.conditions.as_ref()) else {
                continue;
            };
            let address = read_address(endpoint, family)?;
            let known = addresses.entry(address).or_insert(state);
            *known = state.min(*known);
        }
        let ports = slice.ports.iter().flatten().filter_map(read_port);
        Ok(Self {
            ports: ports.collect::<Result<_, _>>()?,
            addresses: addresses.into_iter().collect(),
        })
    }
}

/// The address of an endpoint. Of several the first is enough: the API has them for interchangeable.
fn read_address(endpoint: &ApiEndpoint, family: AddressFamily) -> Result<IpAddr, String> {
    let text = endpoint.addresses.first().map(String::as_str);
    let text = text.unwrap_or_default();
    parse_address(text)
        .filter(|address| AddressFamily::of(address) == family)
        .ok_or_else(|| {
            format!(
                "endpoints[].addresses: {text:?} is no {family:?} address in its plain spelling"
            )
        })
}

/// A port; `None` where it is of a protocol that nobody balances.
fn read_port(port: &ApiEndpointPort) -> Option<Result<EndpointPort, String>> {
    let protocol = match port.protocol.as_deref() {
        None | Some("TCP") => Protocol::TCP,
        Some("UDP") => Protocol::UDP,
        Some("SCTP") => Protocol::SCTP,
        Some(_) => return None,
    };
    let number = match port.port.map(u16::try_from) {
        None => None,
        Some(Ok(number)) if number != 0 => Some(number),
        Some(_) => {
            let number = port.port.unwrap_or_default();
            return Some(Err(format!("ports[].port: {number} is not in 1..65535")));
        }
    };
    Some(Ok(EndpointPort {
        name: port.name.clone().unwrap_or_default(),
        protocol,
        port: number,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn slice(address_type: &str, endpoints: &Value, ports: &Value) -> EndpointSlice {
        EndpointSlice::read(&json!({
            "metadata": {"namespace": "shop", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": address_type, "endpoints": endpoints, "ports": ports,
        }))
    }

    fn decoded(slice: EndpointSlice) -> Endpoints {
        assert_eq!(slice.service_name, "web");
        match slice.body {
            Body::Decoded(endpoints) => endpoints,
            Body::Undecodable(error) => panic!("{error}"),
        }
    }

    fn undecodable(slice: EndpointSlice, words: &str) {
        assert_eq!(slice.service_name, "web", "whose it is is known");
        match slice.body {
            Body::Decoded(endpoints) => panic!("{endpoints:?}"),
            Body::Undecodable(error) => assert!(error.contains(words), "{error}"),
        }
    }

    #[test]
    fn conditions_say_who_serves_and_who_drains() {
        let all = [None, Some(true), Some(false)];
        for ready in all {
            for serving in all {
                for terminating in all {
                    let conditions = EndpointConditions {
                        ready,
                        serving,
                        terminating,
                    };
                    let expected = match (ready, serving) {
                        (None | Some(true), _) => Some(EndpointState::Ready),
                        (Some(false), Some(true)) => Some(EndpointState::Serving),
                        (Some(false), None | Some(false)) => None,
                    };
                    assert_eq!(
                        EndpointState::of(Some(&conditions)),
                        expected,
                        "{conditions:?}"
                    );
                }
            }
        }
        assert_eq!(EndpointState::of(None), Some(EndpointState::Ready));
    }

    #[test]
    fn the_greater_restriction_of_the_two_wins() {
        use AdministrativeState::{Disabled, Draining, Enabled};
        let of = |state: EndpointState| {
            [Enabled, Draining, Disabled].map(|wanted| state.administrative_state(wanted))
        };
        assert_eq!(of(EndpointState::Ready), [Enabled, Draining, Disabled]);
        assert_eq!(of(EndpointState::Serving), [Draining, Draining, Disabled]);
    }

    #[test]
    fn what_is_kept_is_small_sorted_and_each_address_once() {
        let endpoints = decoded(slice(
            "IPv4",
            &json!([
                {"addresses": ["10.0.0.9"], "nodeName": "a", "zone": "z", "targetRef": {"kind": "Pod", "name": "web-9"}},
                {"addresses": ["10.0.0.1"], "conditions": {"ready": false, "serving": true, "terminating": true}},
                {"addresses": ["10.0.0.1", "10.0.0.2"], "conditions": {"ready": true}},
                {"addresses": ["10.0.0.3"], "conditions": {"ready": false}},
            ]),
            &json!([{"name": "http", "port": 8080, "appProtocol": "http"}, {"protocol": "UDP"}, {"protocol": "QUIC", "port": 1}]),
        ));
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(
            endpoints.addresses,
            [
                (address("10.0.0.1"), EndpointState::Ready),
                (address("10.0.0.9"), EndpointState::Ready)
            ]
        );
        let ports: Vec<_> = endpoints
            .ports
            .iter()
            .map(|port| (port.name.as_str(), port.protocol, port.port))
            .collect();
        assert_eq!(
            ports,
            [
                ("http", Protocol::TCP, Some(8080)),
                ("", Protocol::UDP, None)
            ]
        );
    }

    #[test]
    fn names_are_ignored_and_null_lists_are_empty() {
        let names = json!([{"addresses": ["db.example"]}]);
        let of_names = decoded(slice("FQDN", &names, &json!([{"port": 80}])));
        assert_eq!(of_names, Endpoints::default());
        let empty = decoded(slice("IPv6", &Value::Null, &Value::Null));
        assert_eq!(empty, Endpoints::default());
    }

    #[test]
    fn what_cannot_be_read_is_no_empty_slice() {
        let one = |address: &str| json!([{"addresses": [address]}]);
        undecodable(slice("IPv7", &one("10.0.0.1"), &Value::Null), "IPv7");
        undecodable(slice("IPv4", &one("10.0.0.01"), &Value::Null), "10.0.0.01");
        undecodable(
            slice("IPv4", &one("2001:db8::1"), &Value::Null),
            "2001:db8::1",
        );
        undecodable(
            slice("IPv4", &json!([{"addresses": []}]), &Value::Null),
            "addresses",
        );
        undecodable(slice("IPv4", &json!("none"), &Value::Null), "string");
        undecodable(
            slice("IPv4", &one("10.0.0.1"), &json!([{"port": 70000}])),
            "70000",
        );
        undecodable(
            slice("IPv4", &one("10.0.0.1"), &json!([{"port": 0}])),
            "1..65535",
        );
    }
}
