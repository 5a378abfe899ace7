//! One health check, asked once: `ask ADDRESS:PORT CHECK` with a check as in `spec.healthChecks`, as JSON. Prints `passes`,
//! or why not, as the status of a RealServer has it. Credentials are those of namespace `shop`, in the files of the folder that
//! `LVS_HEALTH_CHECK_CREDENTIALS_DIRECTORY` names.

#![allow(clippy::print_stdout)]

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::{Context, bail};
use lvs_agent::health::credentials::CredentialFiles;
use lvs_agent::health::probe;
use lvs_core::health::Means;
use lvs_crds::health_check::HealthCheck;
use serde_json::{Value, from_value, json};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [target, check] = &words[..] else {
        bail!(
            "usage: ask ADDRESS:PORT CHECK, such as: ask 127.0.0.1:6379 '{{\"type\": \"Redis\"}}'"
        );
    };
    let target: SocketAddr = target.parse().with_context(|| target.clone())?;
    let mut fields: Value = serde_json::from_str(check).with_context(|| check.clone())?;
    if let Value::Object(fields) = &mut fields {
        fields.entry("name").or_insert_with(|| json!("check"));
    }
    let check: HealthCheck = from_value(fields).with_context(|| check.clone())?;
    let means = Means {
        authorities: None,
        namespace: "shop".to_owned(),
    };
    let files = std::env::var_os("LVS_HEALTH_CHECK_CREDENTIALS_DIRECTORY");
    let files = files.map(|folder| CredentialFiles::new(folder.into(), "checks".to_owned()));
    let files = files.unwrap_or_default();
    Ok(
        match probe::ask(target, &check, &means, &files).await.verdict {
            Ok(()) => {
                println!("passes");
                ExitCode::SUCCESS
            }
            Err(why) => {
                println!("{why}");
                ExitCode::FAILURE
            }
        },
    )
}
