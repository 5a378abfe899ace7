//! What stands for a script that looks at real servers: a judge, who is asked over HTTP. Where he is nobody can tell from
//! the file, so that he is only shown, ready to be copied.

use serde_json::{Value, json};

use super::http::path;

/// A check of type ExternalHTTP for `command`, with the times of the check that is made meanwhile, as JSON, which is YAML
/// too; and what it takes.
pub fn skeleton(meanwhile: &Value, command: &str) -> String {
    let program = command.split_whitespace().next().unwrap_or_default();
    let program = program.trim_matches(['"', '\'']);
    let program = program.rsplit('/').next().unwrap_or_default();
    let program = path(program).map_or_else(|| "/".to_owned(), |(path, _)| path);
    let mut check = meanwhile.clone();
    if let Some(fields) = check.as_object_mut() {
        for field in ["port", "address", "sourceAddress"] {
            fields.remove(field);
        }
    }
    check["name"] = json!("judge");
    check["type"] = json!("ExternalHTTP");
    check["externalHTTP"] = json!({"url": format!("http://judge.example:8080{program}")});
    format!(
        "with the script behind a web server, answering 200 or 503 to GET {program}?address=ADDRESS&port=PORT, and its host in externalCheckCIDRs of the grant, healthChecks would be: [{check}]"
    )
}

#[cfg(test)]
mod tests {
    use lvs_crds::health_check::HealthCheck;

    use super::*;

    #[test]
    fn what_is_shown_is_a_check() {
        let meanwhile =
            json!({"type": "TCP", "periodSeconds": 7, "timeoutSeconds": 2, "port": 8080});
        let text = skeleton(&meanwhile, "\"/usr/local/bin/is it well?\" now");
        let (_, list) = text.split_once("would be: ").unwrap_or_default();
        let checks: Vec<HealthCheck> = serde_json::from_str(list).unwrap_or_default();
        let check = checks.first();
        assert_eq!(check.map(|check| check.period_seconds), Some(7), "{text}");
        assert_eq!(check.and_then(|check| check.port), None);
        let judge = check.and_then(|check| check.external_http.as_ref()?.judge());
        assert_eq!(judge.map(|judge| judge.path), Some("/is".to_owned()));
    }
}
