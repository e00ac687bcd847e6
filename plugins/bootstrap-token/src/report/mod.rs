//! What the verbs show. Nothing here does I/O.

pub mod kubeconfig;
pub mod product;
pub mod row;

pub use cli::rotation::API_VERSION;
