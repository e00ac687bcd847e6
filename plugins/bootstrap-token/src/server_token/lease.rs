//! The Lease of the server token. A cluster has one.

use cli::rotation::LeaseName;
use client::cluster_identity::SYSTEM_NAMESPACE;

use crate::report::target::CLUSTER;

pub(crate) fn name() -> LeaseName {
    LeaseName {
        namespace: SYSTEM_NAMESPACE.to_owned(),
        name: "server-token".to_owned(),
        side: CLUSTER,
    }
}
