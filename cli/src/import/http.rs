//! Values of HTTP checks that the API's rules admit.

use std::fmt::Write as _;

/// A path as it is sent, at most 1024 characters; and whether it had to be changed for that.
pub fn path(text: &str) -> Option<(String, bool)> {
    let mut path = String::new();
    if !text.starts_with('/') {
        path.push('/');
    }
    let mut query = false;
    for byte in text.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"!$%&'()*+,-./:;=@_~".contains(&byte);
        if plain || byte == b'?' && query {
            path.push(char::from(byte));
        } else if byte == b'?' {
            query = true;
            path.push('?');
        } else {
            // Writing to a string does not fail.
            let _ = write!(path, "%{byte:02X}");
        }
    }
    let changed = path != text;
    (path.len() <= 1024).then_some((path, changed))
}

/// Whether a text is what a Host header holds: a name or an address, and a port.
pub fn host_header(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => {
            if host.is_empty()
                || !host
                    .bytes()
                    .all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'))
            {
                return false;
            }
            (
                "a",
                rest.strip_prefix(':')
                    .or_else(|| rest.is_empty().then_some("0")),
            )
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, Some("0")),
        },
    };
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let name = host.strip_suffix('.').unwrap_or(host);
    text.len() <= 259
        && port.is_some_and(|port| {
            (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit())
        })
        && name
            .bytes()
            .all(|byte| inner(byte) || matches!(byte, b'-' | b'.'))
        && name.bytes().next().is_some_and(inner)
        && name.bytes().last().is_some_and(inner)
}

/// Whether a text is a regular expression that checks can use.
pub fn regular_expression(text: &str) -> bool {
    // Go's RE2, by which the API server judges, knows no words of these.
    let foreign = [
        "(?x", "\\<", "\\>", "\\b{", "&&", "--", "~~", "(?R", "(?u", "(?-u",
    ]
    .iter()
    .any(|part| text.contains(part));
    (1..=1024).contains(&text.chars().count())
        && !foreign
        && regex_automata::util::syntax::parse(text).is_ok()
}

/// Statuses and ranges within 200-599, at most 16 of them; and those that are not.
pub fn status_codes(arguments: &[String]) -> (Vec<String>, Vec<String>) {
    let mut codes: Vec<String> = Vec::new();
    let mut refused = Vec::new();
    for argument in arguments {
        let (first, last) = argument.split_once('-').unwrap_or((argument, argument));
        let status = |text: &str| {
            text.parse::<u16>()
                .ok()
                .filter(|status| text.len() == 3 && (200..600).contains(status))
        };
        match (status(first), status(last)) {
            (Some(low), Some(high)) if low <= high && codes.len() < 16 => {
                if !codes.contains(argument) {
                    codes.push(argument.clone());
                }
            }
            _ => refused.push(argument.clone()),
        }
    }
    (codes, refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_escaped() {
        assert_eq!(path("/index.html"), Some(("/index.html".to_owned(), false)));
        assert_eq!(path("index.html"), Some(("/index.html".to_owned(), true)));
        assert_eq!(
            path("/a b?c=d?e#f"),
            Some(("/a%20b?c=d?e%23f".to_owned(), true))
        );
    }

    #[test]
    fn hosts_are_names_or_addresses_with_or_without_port() {
        for good in [
            "www.example.org",
            "a",
            "[2001:db8::1]:80",
            "192.0.2.1:8080",
            "_x.",
        ] {
            assert!(host_header(good), "{good}");
        }
        for bad in ["", "a b", "http://a", "a:", "[]", "-a", "[::1]x"] {
            assert!(!host_header(bad), "{bad}");
        }
    }

    #[test]
    fn statuses_keep_to_what_can_be_final() {
        let (codes, refused) =
            status_codes(&["200-299", "100", "503", "299-200", "2000"].map(String::from));
        assert_eq!(codes, ["200-299", "503"]);
        assert_eq!(refused, ["100", "299-200", "2000"]);
    }
}
