//! Objects in files that users give.

use std::io::Read;
use std::path::Path;

use lvs_crds::{RealServer, VirtualService};
use serde_json::Value;

/// Objects of the kinds that commands look at.
#[derive(Default)]
pub struct Objects {
    /// VirtualServices.
    pub services: Vec<VirtualService>,
    /// RealServers.
    pub real_servers: Vec<RealServer>,
}

impl Objects {
    /// Takes up the documents of a file in YAML or JSON, `-` for standard input. Items of lists are taken one by one;
    /// other kinds are passed over.
    pub fn read(&mut self, path: &Path) -> Result<(), String> {
        let text = if path == Path::new("-") {
            let mut text = String::new();
            let read = std::io::stdin().read_to_string(&mut text);
            read.map_err(|error| format!("read standard input: {error}"))?;
            text
        } else {
            crate::import::read(path)?
        };
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        for document in documents {
            self.take(document)
                .map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(())
    }

    fn take(&mut self, mut document: Value) -> Result<(), String> {
        if let Some(items) = document.get_mut("items").and_then(Value::as_array_mut) {
            for item in std::mem::take(items) {
                self.take(item)?;
            }
            return Ok(());
        }
        if !document["apiVersion"]
            .as_str()
            .is_some_and(|version| version.starts_with("lvs.dev/"))
        {
            return Ok(());
        }
        let name = document["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        match document["kind"].as_str() {
            Some("VirtualService") => self.services.push(
                serde_json::from_value(document)
                    .map_err(|error| format!("VirtualService {name}: {error}"))?,
            ),
            Some("RealServer") => self.real_servers.push(
                serde_json::from_value(document)
                    .map_err(|error| format!("RealServer {name}: {error}"))?,
            ),
            _ => {}
        }
        Ok(())
    }

    /// The one VirtualService, or the one of this name.
    pub fn service(&self, name: Option<&str>) -> Result<&VirtualService, String> {
        let named: Vec<&VirtualService> = self
            .services
            .iter()
            .filter(|service| {
                name.is_none_or(|name| service.metadata.name.as_deref() == Some(name))
            })
            .collect();
        match named.as_slice() {
            [service] => Ok(service),
            [] => Err("the files hold no such VirtualService".to_owned()),
            several => Err(format!(
                "the files hold {} VirtualServices: name one by --virtual-service",
                several.len()
            )),
        }
    }

    /// The RealServer of this name.
    pub fn real_server(&self, name: &str) -> Result<&RealServer, String> {
        let found = self
            .real_servers
            .iter()
            .find(|server| server.metadata.name.as_deref() == Some(name));
        found.ok_or_else(|| format!("the files hold no RealServer {name}"))
    }
}
