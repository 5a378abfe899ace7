//! kubectl-lvs: what people do with lvs-operator from their own machine. Imports and scripts ask nobody; the rest asks the API server, by kubectl.

pub mod arguments;
pub mod bundle;
pub mod chart;
pub mod dictionary;
pub mod import;
pub mod keyword;
pub mod kubectl;
pub mod live;
pub mod manifest;
pub mod plan;
pub mod preflight;
pub mod real_server_script;
pub mod shadow;
pub mod yaml;
