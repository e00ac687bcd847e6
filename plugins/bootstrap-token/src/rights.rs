//! The permissions that each command needs. The preflight check of a rotation, the documentation and the manifests in
//! `docs/rbac` follow from this table.

use client::permission::Need::{Optional, Required, When};
use client::permission::{Permission, PermissionTable};

use crate::report::target::CLUSTER;

/// The Secret of the token, and its Lease.
pub(crate) const TOKEN: &str = "TOKEN";
/// The Secret that the token is delivered to.
pub(crate) const DELIVERY_NAMESPACE: &str = "DELIVERY_NAMESPACE";
pub(crate) const DELIVERY_SECRET: &str = "DELIVERY_SECRET";
/// The token is delivered to a Secret.
pub(crate) const TO_SECRET: &str = "with `--deliver secret:…`";

const ROTATION: &[&str] = &["rotate", "rollback"];
/// Nodes are reached with pods.
pub(crate) const VIA_POD: &str = "with `--via pod`";
/// There are snapshots.
pub(crate) const WITH_ETCD: &str = "with embedded etcd";
pub(crate) const SERVER_ROTATE: &str = "server-token rotate";
pub(crate) const SERVER_RECOVER: &str = "server-token recover";
const SERVER_ROTATION: &[&str] = &[SERVER_ROTATE, "server-token rollback", SERVER_RECOVER];
pub(crate) const AGENT_ROTATE: &str = "agent-token rotate";
/// The rotations and the recovery of both tokens.
const BOTH_ROTATIONS: &[&str] = &[
    SERVER_ROTATE,
    "server-token rollback",
    SERVER_RECOVER,
    "agent-token set",
    AGENT_ROTATE,
    "agent-token remove",
    "agent-token rollback",
];
const BY_POD: &[&str] = &[
    SERVER_ROTATE,
    "server-token rollback",
    SERVER_RECOVER,
    SERVER_STATUS_BY_POD,
    "agent-token set",
    AGENT_ROTATE,
    "agent-token remove",
    "agent-token rollback",
    AGENT_STATUS_BY_POD,
];
/// The Lease of the rotation of the server token.
const SERVER_LEASE: &str = "server-token";
const SERVER_STATUS: &str = "server-token status";
pub(crate) const SERVER_STATUS_BY_POD: &str = "server-token status --via pod";
const SERVER_VERIFY: &str = "server-token verify";
const AGENT_STATUS: &str = "agent-token status";
pub(crate) const AGENT_STATUS_BY_POD: &str = "agent-token status --via pod";
const AGENT_VERIFY: &str = "agent-token verify";
const SNAPSHOTS: &str = "snapshots";
const RESTORE_PLAN: &str = "snapshots restore-plan";
const RBAC: &[&str] = &["rbac show", "rbac apply"];

const WHOLE: (&str, &str) = (CLUSTER, "");
const OF_TOKENS: (&str, &str) = (CLUSTER, "kube-system");

const SECRETS: (&str, &str) = ("", "secrets");
const LEASES: (&str, &str) = ("coordination.k8s.io", "leases");
const NODES: (&str, &str) = ("", "nodes");
const CONFIG_MAPS: (&str, &str) = ("", "configmaps");
const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

/// The ClusterRoles that nodes need to join.
const JOINING: &[&str] = &[
    "system:node-bootstrapper",
    "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
    "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
];

/// The permissions.
pub const TABLE: PermissionTable = PermissionTable {
    rows: &[
        Permission::on(OF_TOKENS, SECRETS, &["list"], &["list"], Required),
        Permission::on(
            WHOLE,
            SECRETS,
            &["get", "list"],
            &["list"],
            Optional("misplaced tokens in other namespaces are not listed"),
        ),
        Permission::on(
            OF_TOKENS,
            SECRETS,
            &["get"],
            &["list"],
            Optional("Secrets with the name of a token and another type are not listed"),
        ),
        Permission::on(
            OF_TOKENS,
            LEASES,
            &["list"],
            &["list"],
            Optional("rotations in progress are unknown"),
        ),
        Permission::on(
            OF_TOKENS,
            SECRETS,
            &["get"],
            &["status", "verify", "kubeconfig"],
            Required,
        ),
        Permission::on(
            OF_TOKENS,
            LEASES,
            &["get"],
            &["status", SERVER_STATUS, AGENT_STATUS, SNAPSHOTS, RESTORE_PLAN],
            Optional("a rotation in progress is unknown"),
        ),
        Permission::on(WHOLE, NODES, &["list"], &[SNAPSHOTS, RESTORE_PLAN], Required),
        Permission::on(
            WHOLE,
            ("k3s.cattle.io", "etcdsnapshotfiles"),
            &["list"],
            &[SNAPSHOTS, RESTORE_PLAN],
            Required,
        ),
        Permission::on(WHOLE, NODES, &["list"], &[SERVER_STATUS, AGENT_STATUS], Required),
        Permission::on(
            WHOLE,
            NODES,
            &["list"],
            &[SERVER_VERIFY, AGENT_VERIFY],
            When("without `--server-address`"),
        ),
        Permission::on(
            WHOLE,
            ("k3s.cattle.io", "etcdsnapshotfiles"),
            &["list"],
            &[SERVER_STATUS],
            Optional("which token the snapshots of etcd need is unknown"),
        ),
        Permission::on(WHOLE, NODES, &["list"], BOTH_ROTATIONS, Required),
        Permission::on(
            WHOLE,
            ("k3s.cattle.io", "etcdsnapshotfiles"),
            &["list"],
            SERVER_ROTATION,
            When(WITH_ETCD),
        ),
        Permission::on(
            OF_TOKENS,
            SECRETS,
            &["get", "create", "patch", "delete"],
            BOTH_ROTATIONS,
            Required,
        ),
        Permission::on(OF_TOKENS, LEASES, &["create"], BOTH_ROTATIONS, Required),
        Permission::on(OF_TOKENS, LEASES, &["get", "patch"], BOTH_ROTATIONS, Required).only(&[SERVER_LEASE]),
        Permission::on(WHOLE, ("", "namespaces"), &["get"], BOTH_ROTATIONS, Required).only(&["kube-system"]),
        Permission::on(
            WHOLE,
            ("apiextensions.k8s.io", "customresourcedefinitions"),
            &["get"],
            BOTH_ROTATIONS,
            Optional("a Harvester is recognized by the labels of its Nodes only"),
        )
        .only(&["settings.harvesterhci.io"]),
        Permission::on(WHOLE, NODES, &["get"], BY_POD, When(VIA_POD)),
        Permission::on(
            OF_TOKENS,
            ("", "pods"),
            &["create", "get", "list", "delete"],
            BY_POD,
            When(VIA_POD),
        ),
        Permission::on(OF_TOKENS, ("", "pods/log"), &["get"], BY_POD, When(VIA_POD)),
        Permission::on(OF_TOKENS, SECRETS, &["list", "create", "delete"], BY_POD, When(VIA_POD)),
        Permission::on(OF_TOKENS, SECRETS, &["create"], &["create"], Required),
        Permission::on(
            OF_TOKENS,
            SECRETS,
            &["get", "delete"],
            &["create"],
            Optional("a token is left if the response was lost, or if it could not be delivered"),
        ),
        Permission::on(OF_TOKENS, SECRETS, &["get", "patch"], &["extend"], Required),
        Permission::on(OF_TOKENS, SECRETS, &["get", "delete"], &["revoke"], Required),
        Permission::on(
            OF_TOKENS,
            SECRETS,
            &["list"],
            &["revoke"],
            When("with `-l` or `--expired`"),
        ),
        Permission::on(
            OF_TOKENS,
            SECRETS,
            &["get", "create", "patch", "delete"],
            ROTATION,
            Required,
        ),
        Permission::on(OF_TOKENS, LEASES, &["create"], ROTATION, Required),
        Permission::on(OF_TOKENS, LEASES, &["get", "patch"], ROTATION, Required).target(TOKEN),
        Permission::on(
            OF_TOKENS,
            LEASES,
            &["delete"],
            &["rotate", "revoke"],
            Optional("the Lease of the revoked token stays"),
        ),
        Permission::on(
            OF_TOKENS,
            LEASES,
            &["get"],
            &["revoke"],
            Optional("the Lease of the revoked token stays"),
        ),
        Permission::on(
            (CLUSTER, DELIVERY_NAMESPACE),
            SECRETS,
            &["get", "patch"],
            ROTATION,
            When(TO_SECRET),
        )
        .only(&[DELIVERY_SECRET]),
        Permission::on(
            OF_TOKENS,
            CONFIG_MAPS,
            &["get"],
            ROTATION,
            Optional("the certificate authority in a delivered file is compared with that of the kubeconfig only"),
        )
        .only(&["kube-root-ca.crt"]),
        Permission::on(
            WHOLE,
            ("", "namespaces"),
            &["get"],
            &["revoke", "rotate", "rollback"],
            Optional("it is not checked that each `--api-server` belongs to this cluster"),
        )
        .only(&["kube-system"]),
        Permission::on(
            (CLUSTER, "kube-public"),
            CONFIG_MAPS,
            &["get"],
            &["create", "status", "verify", "kubeconfig", "rotate", "rollback"],
            Optional("the signature of a token, the address and the certificate authority for nodes are not checked"),
        )
        .only(&["cluster-info"]),
        Permission::on(
            WHOLE,
            ("authorization.k8s.io", "subjectaccessreviews"),
            &["create"],
            &["create", "status", "verify"],
            Optional("whether the group of a token may join is unknown"),
        ),
        Permission::on(
            (CLUSTER, "default"),
            ("discovery.k8s.io", "endpointslices"),
            &["list"],
            &["revoke"],
            Optional("`revoke` waits for 12 seconds, as if there were several API servers"),
        ),
        Permission::on(WHOLE, (RBAC_GROUP, "clusterrolebindings"), &["list"], RBAC, Required),
        Permission::on(
            WHOLE,
            (RBAC_GROUP, "rolebindings"),
            &["list"],
            RBAC,
            Optional("bindings in namespaces that grant tokens too much are not reported"),
        ),
        Permission::on(
            WHOLE,
            (RBAC_GROUP, "clusterrolebindings"),
            &["create"],
            &["rbac apply"],
            Required,
        ),
        Permission::on(
            WHOLE,
            (RBAC_GROUP, "clusterroles"),
            &["bind"],
            &["rbac apply"],
            Required,
        )
        .only(JOINING),
    ],
    reading: &[
        "list",
        "status",
        "verify",
        "kubeconfig",
        "rbac show",
        SERVER_STATUS,
        SERVER_VERIFY,
        AGENT_STATUS,
        AGENT_VERIFY,
        SNAPSHOTS,
        RESTORE_PLAN,
    ],
    // With the token, a privileged pod, or the Secrets of kube-system, a node can be controlled.
    apart: &[("server-token", BY_POD)],
    free: &["generate", "version", "completion", "options", "verify --token-stdin"],
};
