//! Schemas of texts: what the API server checks of each single string, with the words a user
//! reads when it refuses one.
//!
//! These types carry no data. A field stays a `String` and names one of them in
//! `#[schemars(with = "…")]`, so that lists of them report the index of the bad item.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

/// Defines a schema for strings: greatest length in characters, then CEL rules with messages.
macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident, $maximum_length:literal, [$(($rule:expr, $message:expr)),+ $(,)?];)+) => {$(
        $(#[$doc])*
        pub struct $name;

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string",
                    "maxLength": $maximum_length,
                    "x-kubernetes-validations": [$({"rule": $rule, "message": $message}),+],
                })
            }
        }
    )+};
}

texts! {
    /// An IPv4 or IPv6 address. The longest, an IPv6 address with an embedded IPv4 one, has 45
    /// characters.
    Address, 45, [(
        "isIP(self)",
        "must be an IPv4 or IPv6 address such as 192.0.2.10 or 2001:db8::10, without prefix length, zone or leading zeros; write an IPv4-mapped address (::ffff:a.b.c.d) as plain IPv4"
    )];

    /// An address that hosts can be reached by from elsewhere.
    UnicastAddress, 45, [
        (
            "isIP(self)",
            "must be an IPv4 or IPv6 address such as 192.0.2.10 or 2001:db8::10, without prefix length, zone or leading zeros; write an IPv4-mapped address (::ffff:a.b.c.d) as plain IPv4"
        ),
        (
            "!isIP(self) || ip(self).isGlobalUnicast()",
            "must be an address clients can reach: not unspecified, loopback, link-local, multicast or broadcast"
        ),
    ];

    /// A multicast address. CEL knows no multicast of every scope, so it is what is left of addresses when unicast,
    /// unspecified, loopback, link-local and broadcast ones are taken away.
    MulticastAddress, 45, [(
        "isIP(self) && !ip(self).isGlobalUnicast() && !ip(self).isLinkLocalUnicast() && !ip(self).isLoopback() && !ip(self).isUnspecified() && self != '255.255.255.255'",
        "must be a multicast address such as 224.0.0.81 or ff02::81"
    )];

    /// A network in CIDR notation.
    Network, 49, [
        (
            "isCIDR(self)",
            "must be a network in CIDR notation such as 192.0.2.0/24 or 2001:db8::/64"
        ),
        (
            "!isCIDR(self) || cidr(self) == cidr(self).masked()",
            "must be the address of the network itself: clear the bits behind the prefix length, as in 192.0.2.0/24 instead of 192.0.2.7/24"
        ),
    ];

    /// One address, a network, or a range of addresses from first to last.
    PoolEntry, 79, [
        (
            "self.matches('^[^-]+-[^-]+$') ? isIP(self.split('-')[0]) && isIP(self.split('-')[1]) : isIP(self) || isCIDR(self)",
            "must be one address (192.0.2.10), a network (192.0.2.0/28) or a range (192.0.2.10-192.0.2.19)"
        ),
        (
            "!self.matches('^[^-]+-[^-]+$') || !isIP(self.split('-')[0]) || !isIP(self.split('-')[1]) || ip(self.split('-')[0]).family() == ip(self.split('-')[1]).family()",
            "must be a range within one family: first and last address both IPv4 or both IPv6"
        ),
        // CEL has no order of addresses: IPv4 ranges as numbers, IPv6 ranges are left to lvs-plan.
        (
            "!self.matches('^[0-9.]+-[0-9.]+$') || !isIP(self.split('-')[0]) || !isIP(self.split('-')[1]) || [[self.split('-')[0], self.split('-')[1]].map(end, [end.split('.')].map(part, int(part[0]) * 16777216 + int(part[1]) * 65536 + int(part[2]) * 256 + int(part[3]))[0])].all(end, end[0] <= end[1])",
            "must be a range from the lower to the higher address: swap first and last"
        ),
        (
            "!isCIDR(self) || cidr(self) == cidr(self).masked()",
            "must be the address of the network itself: clear the bits behind the prefix length, as in 192.0.2.0/24 instead of 192.0.2.7/24"
        ),
        (
            "isCIDR(self) ? cidr(self).ip().isGlobalUnicast() : isIP(self) ? ip(self).isGlobalUnicast() : !self.matches('^[^-]+-[^-]+$') || !isIP(self.split('-')[0]) || !isIP(self.split('-')[1]) || ip(self.split('-')[0]).isGlobalUnicast() && ip(self.split('-')[1]).isGlobalUnicast()",
            "must hold addresses clients can reach: not unspecified, loopback, link-local, multicast or broadcast"
        ),
    ];

    /// Name of a part of an object, unique within it: a DNS label (RFC 1123).
    PartName, 63, [(
        "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
        "must be a DNS label: lower-case letters, digits and '-', beginning and ending with a letter or digit, at most 63 characters"
    )];

    /// Name of an object: a DNS subdomain (RFC 1123).
    ObjectName, 253, [(
        "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",
        "must be an object's name: lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit, at most 253 characters"
    )];

    /// Name of a VirtualRouter; shorter, as names of other objects are made from it.
    RouterName, 48, [(
        "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",
        "must be the name of a VirtualRouter: lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit, at most 48 characters"
    )];

    /// URL of an HTTP endpoint on a host that is named by its address.
    EndpointUrl, 512, [
        (
            "isURL(self) && url(self).getHostname() != ''",
            "must be a URL such as http://127.0.0.1:9/ok or http://[2001:db8::9]/ok"
        ),
        (
            "!isURL(self) || self.startsWith('/') || self.startsWith('http://')",
            "must begin with http://, as directors ask without TLS: name an endpoint that answers plain HTTP, such as one on the director itself"
        ),
        (
            "!self.matches('^http://[^/]') || (self.matches('^http://[[]') ? isIP(self.split('[')[1].split(']')[0]) : isIP(self.split('/')[2].split(':')[0]))",
            "must name its host by address, as a director's fitness must not hang on name resolution: write 127.0.0.1 instead of localhost"
        ),
        (
            "!self.matches('^http://[^/]') || self.matches('^http://([[][^]/?#]*[]]|[^][:/?#]*)(:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?([/?#]|$)')",
            "must have a port of 1..65535: correct the number, or remove it for port 80"
        ),
        (
            "!self.matches('^http://[^/]') || self.matches('^http://[][A-Za-z0-9.:-]+(/[A-Za-z0-9._~:/@!$&()*+,;=%-]*([?][A-Za-z0-9._~:/?@!$&()*+,;=%-]*)?)?$')",
            "must consist of host, port, path and query in characters that need no escape: remove user and fragment, begin the path with '/', write other characters as %XX"
        ),
    ];

    /// URL of a judge who is asked about real servers, over HTTP with or without TLS.
    JudgeUrl, 1024, [
        (
            "self.matches('^https?://([[][0-9A-Fa-f:.]+[]]|[0-9a-z]([-0-9a-z.]*[0-9a-z])?)([:/?#]|$)')",
            "must begin with http:// or https:// and a host, an address or a name in lower case, such as http://judge.shop.svc.cluster.local:8080/ask or https://[2001:db8::7]/: correct scheme or host, and remove a user"
        ),
        (
            "!self.matches('^https?://[^/?#]') || self.matches('^https?://([[][^]/?#]*[]]|[^][:/?#]*)(:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?([/?#]|$)')",
            "must have a port of 1..65535: correct the number, or remove it for port 80, or 443 of https"
        ),
        (
            "self.matches('^[a-z]+://[][A-Za-z0-9.:-]+(/[!$%&-;=@A-Z_a-z~]*)?([?][!$%&-;=?@A-Z_a-z~]*)?$')",
            "must consist of host, port, path and query in characters that need no escape: remove a fragment, write other characters as %XX, such as %20 for a space"
        ),
    ];

    /// Type of a condition of a Node: a name that may have a DNS subdomain in front.
    NodeConditionType, 316, [(
        "self.matches('^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$')",
        "must be the type of a condition such as Ready or example.com/UplinkReady: correct the name"
    )];

    /// Path and query of an HTTP request, as they are sent.
    HttpPath, 1024, [
        (
            "self.startsWith('/')",
            "must begin with '/', such as /index.html: a check names no scheme and no host here"
        ),
        (
            "!self.startsWith('/') || self.matches('^/[!$%&-;=@A-Z_a-z~]*([?][!$%&-;=?@A-Z_a-z~]*)?$')",
            "must consist of path and query in characters that need no escape: remove a fragment, write other characters as %XX, such as %20 for a space"
        ),
    ];

    /// Value of a Host header: a name of at most 253 characters or an address, and a port.
    HostHeader, 259, [(
        "self.matches('^([[][0-9A-Fa-f:.]+[]]|[0-9A-Za-z_]([-0-9A-Za-z_.]*[0-9A-Za-z_])?[.]?)(:[0-9]{1,5})?$')",
        "must be what a Host header holds, a name or an address, if need be with a port, such as www.example.org or [2001:db8::10]:8080: remove scheme and path"
    )];

    /// Name of a header of a request that holds no body and ends its connection.
    HeaderName, 256, [
        (
            "self.matches('^[!#$%&*+.^_`|~0-9A-Za-z-]+$')",
            "must be the name of a header such as Accept-Language, without ':': letters, digits and any of !#$%&*+-.^_`|~"
        ),
        (
            "!(self.lowerAscii() in ['host', 'connection', 'content-length', 'expect', 'keep-alive', 'proxy-connection', 'te', 'trailer', 'transfer-encoding', 'upgrade'])",
            "must not be a header that checks write themselves: set http.host instead of a header Host; leave out those of the connection and of a body, such as Connection and Content-Length"
        ),
    ];

    /// Value of a header.
    HeaderValue, 1024, [(
        "self.matches('^([!-~]([ -~]*[!-~])?)?$')",
        "must be printable ASCII that neither begins nor ends with a space: remove other characters and line breaks"
    )];

    /// A final status of HTTP, or a range of them from first to last.
    StatusRange, 7, [
        (
            "self.matches('^[2-5][0-9]{2}(-[2-5][0-9]{2})?$')",
            "must be a status or a range of statuses within 200-599, such as 204 or 200-299, in quotation marks"
        ),
        (
            "!self.matches('^[2-5][0-9]{2}-[2-5][0-9]{2}$') || self.split('-')[0] <= self.split('-')[1]",
            "must be a range from the lower to the higher status: swap first and last"
        ),
    ];

    /// Name by which a server is asked for its certificate.
    ServerName, 253, [(
        "isIP(self) || self.matches('^[0-9A-Za-z_]([-0-9A-Za-z_.]*[0-9A-Za-z_])?$')",
        "must be a host name or an address, such as www.example.org or 2001:db8::10: remove port and brackets"
    )];

    /// Bytes of a datagram.
    HexadecimalBytes, 1024, [(
        "self.matches('^([0-9A-Fa-f]{2})*$')",
        "must be bytes as pairs of hexadecimal digits, such as 00ff7a: remove 0x, spaces and other characters"
    )];

    /// Name in the DNS: labels of at most 63 characters, or the root.
    QueryName, 253, [(
        "self == '.' || self.matches('^([0-9A-Za-z_]([-0-9A-Za-z_]{0,61}[0-9A-Za-z_])?[.])*[0-9A-Za-z_]([-0-9A-Za-z_]{0,61}[0-9A-Za-z_])?[.]?$')",
        "must be a name in the DNS such as www.example.org, or . for the root: labels of at most 63 letters, digits, '-' and '_', divided by '.'"
    )];

    /// Name in the DNS of a host, with its domain, in the one spelling that names have here. The last label has a letter
    /// first, which tells a name from an address.
    DomainName, 253, [(
        "self.matches('^([0-9a-z_]([-0-9a-z_]{0,61}[0-9a-z_])?[.])+[a-z]([-0-9a-z]{0,61}[0-9a-z])?$')",
        "must be a whole name in the DNS such as db.example: at least two labels of at most 63 lower-case letters, digits, '-' and '_', divided by '.', without one at the end; for addresses use target type Addresses"
    )];

    /// What a record in the DNS says, as in a master file.
    RecordText, 255, [(
        "self.matches('^[ -~]+$')",
        "must be what a record says, in printable ASCII, such as 192.0.2.1 or 10 mail.example.org: remove other characters"
    )];

    /// Name that a mail client gives itself.
    HelloName, 253, [(
        "self.matches('^[0-9A-Za-z]([-0-9A-Za-z.]*[0-9A-Za-z])?$')",
        "must be a host name such as lb.example.org: remove other characters, or helloName altogether to give the address"
    )];

    /// Name of a service as gRPC's health checking protocol has it; by custom package and name.
    GrpcService, 253, [(
        "self.matches('^[!-~]+$')",
        "must be the name of a service such as shop.Cart, in printable ASCII without spaces; remove it to ask about the server as a whole"
    )];

    /// Name of a user or of a database.
    DatabaseName, 63, [(
        "self.matches('^[0-9A-Za-z_][-0-9A-Za-z_.@]*$')",
        "must be the name of a user or of a database: letters, digits and any of -_.@, beginning with a letter, a digit or '_'"
    )];

    /// Name of a network device: what the kernel's dev_valid_name() admits (net/core/dev.c).
    DeviceName, 15, [(
        "self.matches('^[^/:[:space:]]+$') && self != '.' && self != '..'",
        "must be a network device such as eth0 or bond0.100: at most 15 characters, none of them '/', ':' or white space"
    )];
}
