//! kubectl-lvs: what people do with lvs-operator from their own machine. Nothing here asks the API server.

pub mod arguments;
pub mod dictionary;
pub mod import;
pub mod keyword;
pub mod manifest;
pub mod real_server_script;
pub mod yaml;
