//! What the verbs show. Nothing here does I/O.

pub(crate) mod kubeconfig;
pub(crate) mod product;
pub(crate) mod row;

pub(crate) use cli::rotation::API_VERSION;
