//! How controllers and agents let Prometheus scrape them where plain HTTP is not enough: `/metrics` on a port of its own, over
//! TLS, for those whose bearer token the API server knows and permits it. Whatever cannot be judged is refused.
//!
//! The health endpoints are not here: kubelets ask them without a certificate and without a token.

pub mod args;
pub mod certificate;
pub mod judge;
mod limits;
pub mod review;
pub mod server;
pub mod verdict;

pub use args::ScrapeArguments;
pub use server::serve;
