//! The permissions that each command needs on each cluster. The preflight check of a rotation, the documentation and the
//! manifests in `docs/rbac` follow from this table.

use client::permission::Need::{Optional, Required, When};
use client::permission::{Permission, PermissionTable};

use crate::connections::{DOWNSTREAM, MANAGEMENT};

/// The id of the cluster, which is also its namespace.
pub(crate) const CLUSTER_ID: &str = "CLUSTER_ID";
/// Rancher keeps the values of registration tokens in Secrets.
pub(crate) const IN_SECRETS: &str = "with token storage `secret`";
/// The downstream cluster is not reached through Rancher.
pub(crate) const DIRECT: &str = "with a `--downstream-context` that does not lead through Rancher";
/// There is no way through Rancher that the downstream cluster could be compared with.
pub(crate) const NO_RANCHER: &str = "with a `--downstream-context`, and without a context of Rancher";
/// The rotation points the agent at the new token by itself.
pub(crate) const POINTS: &str = "without `--force=weak-proof`, with which Rancher itself may deploy the new token";

const ALL: &[&str] = &["list", "status", "verify", "rotate", "rescue", "rollback"];
const ROTATION: &[&str] = &["rotate", "rescue", "rollback"];
const PAGES: &[&str] = &["status", "verify"];
const LIST: &[&str] = &["list"];
const STATUS: &[&str] = &["status"];
const VERIFY: &[&str] = &["verify"];

const EVERYWHERE: (&str, &str) = (MANAGEMENT, "");
const OF_CLUSTER: (&str, &str) = (MANAGEMENT, CLUSTER_ID);
const OF_AGENT: (&str, &str) = (DOWNSTREAM, "cattle-system");

const CLUSTERS: (&str, &str) = ("management.cattle.io", "clusters");
const TOKENS: (&str, &str) = ("management.cattle.io", "clusterregistrationtokens");
const LEASES: (&str, &str) = ("coordination.k8s.io", "leases");
const SECRETS: (&str, &str) = ("", "secrets");
const DEPLOYMENTS: (&str, &str) = ("apps", "deployments");
const PODS: (&str, &str) = ("", "pods");
const AGENT: &[&str] = &["cattle-cluster-agent"];

const UNKNOWN: &str = "what it shows is `unknown`";

/// The permissions.
pub const TABLE: PermissionTable = PermissionTable {
    rows: &[
        // The management cluster, whole.
        Permission::on(EVERYWHERE, CLUSTERS, &["get"], ALL, Required).target(CLUSTER_ID),
        Permission::on(
            EVERYWHERE,
            CLUSTERS,
            &["list"],
            ALL,
            Optional("a cluster is found by its id only, `list` shows no display names, and `-l`, `--all` and `--disconnected` fail"),
        ),
        Permission::on(
            EVERYWHERE,
            ("provisioning.cattle.io", "clusters"),
            &["get"],
            ALL,
            Optional("a cluster is not found by `namespace/name`"),
        ),
        Permission::on(
            EVERYWHERE,
            ("provisioning.cattle.io", "clusters"),
            &["list"],
            ALL,
            Optional("an imported cluster with a provisioning cluster is shown as provisioned, and a provisioned one is not rotated"),
        ),
        Permission::on(
            EVERYWHERE,
            ("cluster.x-k8s.io", "machines"),
            &["list"],
            &["status", "rotate", "rescue", "rollback"],
            Optional("the machines of a provisioned cluster are not listed"),
        ),
        Permission::on(
            EVERYWHERE,
            SECRETS,
            &["list"],
            ROTATION,
            Optional("the plans of a provisioned cluster are not read, and it is rotated only with `--force=weak-proof`"),
        ),
        Permission::on(
            EVERYWHERE,
            ("management.cattle.io", "settings"),
            &["get"],
            &["list", "status", "verify", "rotate", "rescue", "rollback", "version"],
            Optional(
                "Rancher's version and address are unknown: `list --probe`, `verify`, `rotate` and `rollback` need a context of \
                 Rancher",
            ),
        )
        .only(&["server-url", "cacerts", "server-version", "agent-image", "crt-default-ttl-minutes"]),
        // A new token would push a changed address too.
        Permission::on(EVERYWHERE, ("management.cattle.io", "settings"), &["get"], ROTATION, When(IN_SECRETS))
            .only(&["server-url", "cacerts"]),
        Permission::on(
            EVERYWHERE,
            ("management.cattle.io", "features"),
            &["get"],
            &["status", "verify", "rotate", "rescue", "rollback", "version"],
            Optional("the token storage is known by the registration tokens only"),
        )
        .only(&["crt-token-ttl-rotation"]),
        Permission::on(EVERYWHERE, TOKENS, &["get", "list"], LIST, Required),
        Permission::on(EVERYWHERE, TOKENS, &["list"], VERIFY, Required),
        Permission::on(
            EVERYWHERE,
            TOKENS,
            &["list"],
            &["status", "version"],
            Optional("the token storage is unknown"),
        ),
        Permission::on(
            EVERYWHERE,
            SECRETS,
            &["get", "list"],
            LIST,
            Optional("the fingerprints of tokens in Secrets are unknown, and orphaned Secrets are not listed"),
        ),
        Permission::on(
            EVERYWHERE,
            LEASES,
            &["list"],
            LIST,
            Optional("rotations in progress are unknown"),
        ),
        // The namespace of the cluster.
        Permission::on(OF_CLUSTER, LEASES, &["get", "create", "patch"], ROTATION, Required),
        Permission::on(
            OF_CLUSTER,
            LEASES,
            &["get"],
            STATUS,
            Optional("a rotation in progress is unknown"),
        ),
        Permission::on(
            OF_CLUSTER,
            TOKENS,
            &["get", "list", "create", "patch", "delete"],
            ROTATION,
            Required,
        ),
        Permission::on(OF_CLUSTER, TOKENS, &["get", "list"], PAGES, Optional(UNKNOWN)),
        Permission::on(EVERYWHERE, CLUSTERS, &["patch"], ROTATION, When(IN_SECRETS)).target(CLUSTER_ID),
        Permission::on(
            OF_CLUSTER,
            SECRETS,
            &["get", "list", "patch"],
            ROTATION,
            When(IN_SECRETS),
        ),
        Permission::on(OF_CLUSTER, SECRETS, &["get", "list"], PAGES, Optional(UNKNOWN)),
        // The agent.
        Permission::on(OF_AGENT, SECRETS, &["get", "create", "delete"], ROTATION, When(POINTS)),
        Permission::on(
            OF_AGENT,
            SECRETS,
            &["list"],
            ROTATION,
            Optional("Secrets that a replaced value has left are not found"),
        ),
        Permission::on(OF_AGENT, SECRETS, &["get"], VERIFY, Required),
        Permission::on(OF_AGENT, SECRETS, &["get"], &["list", "status"], Optional(UNKNOWN)),
        Permission::on(OF_AGENT, PODS, &["list"], ROTATION, When(POINTS)),
        Permission::on(OF_AGENT, PODS, &["list"], VERIFY, Required),
        Permission::on(OF_AGENT, PODS, &["list"], STATUS, Optional(UNKNOWN)),
        Permission::on(OF_AGENT, DEPLOYMENTS, &["get", "patch"], ROTATION, When(POINTS)).only(AGENT),
        Permission::on(OF_AGENT, DEPLOYMENTS, &["get"], VERIFY, Required).only(AGENT),
        Permission::on(
            OF_AGENT,
            DEPLOYMENTS,
            &["get"],
            &["list", "status"],
            Optional(UNKNOWN),
        )
        .only(AGENT),
        Permission::on(
            (DOWNSTREAM, ""),
            ("harvesterhci.io", "settings"),
            &["get"],
            ROTATION,
            Optional("which token Harvester's setting `cluster-registration-url` has is not shown"),
        )
        .only(&["cluster-registration-url"]),
        Permission::on((DOWNSTREAM, ""), ("", "namespaces"), &["get"], ROTATION, When(DIRECT)).only(&["kube-system"]),
        Permission::on(
            (DOWNSTREAM, "kube-system"),
            ("", "configmaps"),
            &["get"],
            ROTATION,
            When(NO_RANCHER),
        )
        .only(&["kube-root-ca.crt"]),
    ],
    reading: &["list", "status", "verify", "version"],
    apart: &[],
    free: &["completion", "options"],
};
