//! The roles in `docs/rbac/crt.yaml` are what the commands need: all of them work with the required ones, without any of these
//! `rotate` is refused, and without an optional one the commands say what they do not know.

use anyhow::{Context as _, Result, ensure};
use e2e::{RancherFixture, Roles, Shell, Unseen, make_member_of_local, succeeds};
use rstest::rstest;
use test_cluster::{TokenStorage, User};

/// The roles of one side, and the admin's kubeconfig of it.
type Side = (Roles, String);

/// Those that are required, without the rules for some cases.
fn required(roles: &Roles, other_cases: &[&str]) -> Roles {
    roles.labelled(&["need: required"]).not_for(other_cases)
}

/// A user of Rancher with the selected ones of the roles for `access`.
async fn user_with(
    fixture: &RancherFixture,
    access: &str,
    select: impl Fn(&Roles) -> Roles,
) -> Result<(Shell, Vec<Side>)> {
    let id = fixture.cluster.id.as_str();
    let user = User {
        name: format!("u-{access}-{id}"),
        token: format!("token-{access}-{id}:2rnt8wz5bj7hd9lcf4mgsp6x8xk2vq5rnt7wz9bj4hd6lcfmgspxk3vq"),
        groups: Vec::new(),
    };
    fixture.rancher.add_user(&user).await?;
    let own = format!("kubectl-{id}-");
    let agent = format!("namespace: {}\n", fixture.cluster.agent_namespace());
    let words = [
        ("USER", user.name.as_str()),
        ("CLUSTER_ID", id),
        ("namespace: cattle-system\n", &agent),
        ("kubectl-crt-", &own),
    ];
    let roles = Roles::read("crt", &words)?;
    let mut sides = Vec::new();
    for (side, plane) in [("management", fixture.management), ("downstream", fixture.downstream)] {
        let labels = [&*format!("access: {access}"), &format!("side: {side}")];
        let admin = plane.kubeconfig().to_str().context("the path is not UTF-8")?.to_owned();
        sides.push((select(&roles.labelled(&labels)), admin));
    }
    for (roles, admin) in &sides {
        roles.apply(&fixture.shell, &["--kubeconfig", admin]).await?;
    }
    let admin = ["--kubeconfig", sides[0].1.as_str()];
    make_member_of_local(&user.name, &fixture.shell, &admin).await?;
    Ok((fixture.shell_of(&user).await?, sides))
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_work_with_the_required_roles() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Secret, "bari").await?;
    let id = fixture.cluster.id.as_str();
    let (reader, _) = user_with(&fixture, "read", |roles| required(roles, &[])).await?;
    succeeds(async || reader.crt(["verify", id]).run().await).await?;
    for args in [&["list"][..], &["list", id, "--probe"], &["status", id], &["version"]] {
        reader.crt(args).run().await?.expect(0)?;
    }
    let refused = reader.crt(["rotate", id, "--yes"]).run().await?.expect(1)?;
    ensure!(refused.stderr.contains("leases"), "{refused}");

    let (writer, _) = user_with(&fixture, "write", |roles| required(roles, &[])).await?;
    succeeds(async || writer.crt(["rotate", id, "--dry-run"]).run().await).await?;
    writer
        .crt(["rotate", id, "--settle", "0s", "--yes"])
        .run()
        .await?
        .expect(0)?;
    writer.crt(["rollback", id, "--yes"]).run().await?.expect(0)?;
    Ok(())
}

/// How the downstream cluster is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    ThroughRancher,
    Direct,
    /// The context of the management cluster is not Rancher's either. It is the admin's. The fake Rancher has not recorded the CA of the
    /// cluster, so the check of the context is overridden.
    WithoutRancher,
}

impl Path {
    fn flags(self, id: &str) -> Vec<String> {
        let direct = ["--downstream-context".to_owned(), format!("{id}-direct")];
        let management = ["--context", "management", "--force=context"].map(str::to_owned);
        match self {
            Self::ThroughRancher => Vec::new(),
            Self::Direct => direct.into(),
            Self::WithoutRancher => direct.into_iter().chain(management).collect(),
        }
    }
}

/// Also without the rules for other cases, each rule is needed.
#[rstest]
#[case::with_secret_storage(TokenStorage::Secret, Path::ThroughRancher, &["--downstream-context"])]
#[case::with_status_storage(
    TokenStorage::Status,
    Path::ThroughRancher,
    &["--downstream-context", "token storage `secret`"]
)]
#[case::with_a_direct_context(TokenStorage::Secret, Path::Direct, &["without a context of Rancher"])]
#[case::with_a_direct_context_and_status_storage(
    TokenStorage::Status,
    Path::Direct,
    &["without a context of Rancher", "token storage `secret`"]
)]
#[case::without_a_context_of_rancher(TokenStorage::Secret, Path::WithoutRancher, &[])]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_is_refused_without_any_required_rule(
    #[case] storage: TokenStorage,
    #[case] path: Path,
    #[case] other_cases: &[&str],
) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "pisa").await?;
    let id = fixture.cluster.id.as_str();
    let of_side = |roles: &Roles| required(roles, other_cases);
    let (shell, mut sides) = user_with(&fixture, "write", of_side).await?;
    let flags = path.flags(id);
    let rotate = ["rotate", id, "--dry-run"];
    let rotate: Vec<&str> = rotate.into_iter().chain(flags.iter().map(String::as_str)).collect();
    let rotate = async || shell.crt(&rotate).run().await;
    succeeds(rotate).await?;
    if path == Path::WithoutRancher {
        sides.remove(0);
    }
    for (roles, admin) in &sides {
        let admin = (&fixture.shell, &["--kubeconfig", admin.as_str()][..]);
        roles.are_needed(("rotate", &[]), admin, rotate).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_say_what_they_do_not_know_without_an_optional_rule() -> Result<()> {
    // The name is unique among the tests.
    let fixture = RancherFixture::begin(TokenStorage::Secret, "cuneo").await?;
    let id = fixture.cluster.id.as_str();
    let (shell, sides) = user_with(&fixture, "read", Roles::clone).await?;
    let (by_id, by_name, list) = (["status", id], ["status", "cuneo"], ["list", id]);
    let run = async |args: &[&str]| shell.crt(args).run().await;
    let unseen = |rules, args, text| Unseen {
        rules,
        args,
        code: 0,
        text,
    };
    let management = [
        Unseen {
            code: 1,
            ..unseen(
                &[("clusters", "found by its id only")],
                &by_name,
                "its display name is known only to who may list clusters",
            )
        },
        Unseen {
            code: 1,
            ..unseen(
                &[("clusters", "not found by `namespace/name`")],
                &["status", "fleet-default/nowhere"],
                "provisioning.cattle.io",
            )
        },
        unseen(
            &[("secrets", "the fingerprints of tokens")],
            &["list"],
            "no permission to list Secrets",
        ),
        unseen(
            &[("leases", "rotations in progress are unknown")],
            &list,
            "no permission to list Leases",
        ),
        unseen(
            &[("settings", "Rancher's version and address are unknown")],
            &by_id,
            "<unknown version>",
        ),
        unseen(
            &[("leases", "a rotation in progress is unknown")],
            &by_id,
            "unknown (no permission to read Leases)",
        ),
        unseen(
            &[
                ("clusterregistrationtokens", "For list, verify."),
                ("clusterregistrationtokens", "what it shows is `unknown`"),
            ],
            &by_id,
            "cannot list resource \"clusterregistrationtokens\"",
        ),
        unseen(
            &[
                ("features", "the token storage is known by the registration tokens only"),
                ("clusterregistrationtokens", "For list, verify."),
                ("clusterregistrationtokens", "what it shows is `unknown`"),
            ],
            &by_id,
            "token storage: <unknown>",
        ),
        unseen(
            &[
                ("secrets", "the fingerprints of tokens"),
                ("secrets", "what it shows is `unknown`"),
            ],
            &by_id,
            "not all registration tokens can be read",
        ),
    ];
    let downstream = [
        unseen(&[("pods", "For verify.")], &by_id, "cannot list resource \"pods\""),
        unseen(
            &[("deployments", "For verify.")],
            &by_id,
            "cannot get resource \"deployments\"",
        ),
        unseen(&[("secrets", "For verify.")], &by_id, "cannot get resource \"secrets\""),
    ];
    // What is said of provisioned clusters does not show on an imported one.
    let others = [
        "an imported cluster with a provisioning cluster",
        "of a provisioned cluster are not",
    ];
    for ((roles, admin), cases) in sides.iter().zip([&management[..], &downstream]) {
        let admin = (&fixture.shell, &["--kubeconfig", admin.as_str()][..]);
        roles.are_optional(cases, &others, admin, run).await?;
    }
    Ok(())
}
