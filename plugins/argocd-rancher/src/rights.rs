//! The permissions that each command needs in the cluster of Argo CD. The preflight check of a rotation, the documentation
//! and the manifests in `docs/rbac` follow from this table. In Rancher, a user's own tokens need no permission.

use argocd::application;
use client::permission::Need::{Optional, Required, When};
use client::permission::{Permission, PermissionTable};

use crate::connections::{ARGOCD, NAMESPACE};

/// The cluster Secret, and its Lease.
pub(crate) const SECRET: &str = "SECRET";
/// The backup Secret of a rotation.
pub(crate) const BACKUP: &str = "SECRET-rotation";

const ALL: &[&str] = &["list", "status", "verify", "add", "rotate", "rollback", "remove"];
const ROTATION: &[&str] = &["rotate", "rollback"];
/// Those that read the state that Argo CD reports.
const SYNC: &[&str] = &["list", "status", "verify", "rotate"];

const HERE: (&str, &str) = (ARGOCD, NAMESPACE);
const SECRETS: (&str, &str) = ("", "secrets");
const LEASES: (&str, &str) = ("coordination.k8s.io", "leases");
const APPLICATIONS: (&str, &str) = ("argoproj.io", "applications");

const NO_STATE: &str = "the state that Argo CD reports is unknown, and `rotate` of a cluster with Applications requires \
                        `--force=use`";

/// The permissions.
pub const TABLE: PermissionTable = PermissionTable {
    rows: &[
        Permission::on(HERE, SECRETS, &["list"], ALL, Required),
        Permission::on(
            HERE,
            SECRETS,
            &["get"],
            &["list", "status", "add", "rotate", "rollback", "remove"],
            Required,
        )
        .only(&["argocd-secret"]),
        Permission::on(HERE, SECRETS, &["get", "patch"], ROTATION, Required).target(SECRET),
        Permission::on(HERE, SECRETS, &["get", "patch", "delete"], ROTATION, Required).target(BACKUP),
        Permission::on(HERE, SECRETS, &["create"], ROTATION, Required),
        Permission::on(HERE, LEASES, &["get", "patch"], ROTATION, Required).target(SECRET),
        Permission::on(HERE, LEASES, &["create"], ROTATION, Required),
        Permission::on(
            HERE,
            LEASES,
            &["list"],
            &["list", "verify"],
            Optional("rotations in progress are unknown"),
        ),
        Permission::on(
            HERE,
            LEASES,
            &["get", "list"],
            &["status"],
            Optional("a rotation in progress is unknown"),
        ),
        Permission::on(
            HERE,
            LEASES,
            &["list"],
            &["rotate"],
            Optional("`--within` does not select a cluster because of its interrupted rotation"),
        ),
        Permission::on(HERE, SECRETS, &["get", "create", "patch"], &["add"], Required),
        Permission::on(HERE, SECRETS, &["get", "patch", "delete"], &["remove"], Required),
        Permission::on(HERE, LEASES, &["get"], &["add", "remove"], Required),
        Permission::on(
            HERE,
            LEASES,
            &["delete"],
            &["remove"],
            Optional("the Lease of the removed cluster stays"),
        ),
        Permission::on(HERE, LEASES, &["list"], &["remove"], When("with `--leftovers`")),
        Permission::on(
            HERE,
            APPLICATIONS,
            &["list"],
            &["rotate", "remove"],
            Optional("`rotate` requires `--force=use`, and `remove` `--force=applications`"),
        ),
        Permission::on(
            (ARGOCD, ""),
            APPLICATIONS,
            &["list"],
            &["rotate", "remove"],
            Optional(
                "Applications in other namespaces are unknown: if Argo CD may read such, `rotate` requires `--force=use`, and `remove` \
                 `--force=applications`",
            ),
        ),
        Permission::on(
            HERE,
            ("", "configmaps"),
            &["get"],
            &["rotate", "remove"],
            Optional("unless all Applications can be listed, Argo CD counts as one that reads other namespaces"),
        )
        .only(&[application::SETTINGS]),
        Permission::on(HERE, ("", "services"), &["list"], SYNC, Optional(NO_STATE)),
        Permission::on(HERE, ("", "services/proxy"), &["get"], SYNC, Optional(NO_STATE)),
    ],
    reading: &["list", "status", "verify"],
    apart: &[],
    free: &["version", "completion", "options"],
};
