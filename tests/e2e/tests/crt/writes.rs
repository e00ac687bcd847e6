//! The writes of a run, as the proxy recorded them, in short form.

use test_cluster::{FaultProxy, On, Request};

/// Whether it writes the Lease, which is lock and journal.
pub(crate) fn is_lease(request: &Request) -> bool {
    request.path.contains("/leases")
}

/// Method and kind of object, and the name unless it is generated: `PATCH deployments/cattle-cluster-agent`.
pub(crate) fn essence(write: &Request) -> String {
    let mut words = write.path.rsplit('/');
    let (last, kind) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let object = match write.method.as_str() {
        "POST" => last.to_owned(),
        _ if kind == "clusters" || last.starts_with("cattle-credentials-") => kind.to_owned(),
        _ if last.starts_with("zz-") => format!("{kind}/zz-"),
        _ => format!("{kind}/{last}"),
    };
    format!("{} {object}", write.method)
}

/// The writes that a server has processed.
pub(crate) fn effective(proxy: &FaultProxy) -> Vec<String> {
    let done = |write: &&Request| write.status.is_some_and(|status| (200..300).contains(&status));
    proxy.writes().iter().filter(done).map(ToString::to_string).collect()
}

/// The next request with the same method to the same object. If the name is generated, the kind of object must match.
pub(crate) fn same_as(write: &Request) -> On {
    let on = On::write().method(write.method.clone());
    if is_lease(write) {
        // In a cluster that was never rotated, the first write creates the Lease.
        return On::write().path("*/leases*");
    }
    let essence = essence(write);
    let object = essence.split_once(' ').map_or("", |(_, object)| object);
    match object {
        "clusters" => on.path("*/management.cattle.io/v3/clusters/*"),
        "secrets" if write.method == "DELETE" => on.path("*/secrets/cattle-credentials-*"),
        object if object.ends_with("/zz-") => on.path(format!("*/{object}*")),
        object => on.path(format!("*/{object}")),
    }
}
