//! `kubectl bootstrap-token list`

use anyhow::{Result, ensure};
use e2e::until;
use expectrl::Expect as _;
use rstest::rstest;

use crate::cluster::{self, Raw, bare, shell};

#[tokio::test(flavor = "multi_thread")]
async fn list_supports_table_wide_yaml_jsonpath_and_custom_columns() -> Result<()> {
    let shell = shell(bare().await?).await?;
    let token = cluster::create(&shell, &["--ttl", "5h", "--description", "a\tb", "-l", "test=table"]).await?;
    cluster::create(&shell, &[]).await?;
    let only = ["list", "-l", "test=table"];
    let list = async |more: &[&str]| shell.bootstrap_token(only.iter().chain(more)).run().await?.expect(0);
    let table = list(&[]).await?.stdout;
    let header: Vec<&str> = table.lines().next().unwrap_or_default().split_whitespace().collect();
    ensure!(
        header == ["ID", "TTL", "EXPIRES", "USAGES", "GROUPS", "DESCRIPTION", "STATE"],
        "{table}"
    );
    ensure!(
        table.contains("authentication,signing") && table.contains("active"),
        "{table}"
    );
    let wide = list(&["-o", "wide", "--no-headers"]).await?.stdout;
    ensure!(
        wide.lines().count() == 1 && wide.contains(&format!("kube-system/bootstrap-token-{}", token.id)),
        "{wide}"
    );
    let path = list(&["-o", "jsonpath={.items[*].id}"]).await?.stdout;
    ensure!(path == token.id, "{path}");
    let columns = list(&["-o", "custom-columns=ID:.id,STATE:.state"]).await?.stdout;
    ensure!(
        columns == format!("ID       STATE\n{}   active\n", token.id),
        "{columns}"
    );
    let yaml = list(&["-o", "yaml"]).await?.stdout;
    ensure!(yaml.contains("kind: BootstrapTokenList"), "{yaml}");
    let by_age = [
        "list",
        "--sort-by",
        "{.metadata.creationTimestamp}",
        "-o",
        "jsonpath={.items[*].metadata.creationTimestamp}",
    ];
    let sorted = shell.bootstrap_token(by_age).run().await?.expect(0)?.stdout;
    let times: Vec<&str> = sorted.split(' ').collect();
    ensure!(times.len() > 1 && times.is_sorted(), "{sorted}");
    let none = shell
        .bootstrap_token(["list", "-l", "test=none"])
        .run()
        .await?
        .expect(0)?;
    ensure!(
        none.stdout.is_empty() && none.stderr == "No bootstrap tokens found.\n",
        "{none}"
    );
    Ok(())
}

const SECRET: &str = "0a1b2c3d4e5f6g7h";

#[rstest]
#[case::masters(
    "rej001",
    "auth-extra-groups",
    "system:masters",
    "does not begin with system:bootstrappers:"
)]
#[case::every("rej002", "auth-extra-groups", "system:bootstrappers", "is a group of every token")]
#[case::upper_group(
    "rej003",
    "auth-extra-groups",
    "system:bootstrappers:Kubeadm",
    "characters other than"
)]
#[case::comma("rej004", "auth-extra-groups", "system:bootstrappers:a,", "a comma too many")]
#[case::space(
    "rej005",
    "auth-extra-groups",
    "system:bootstrappers:a, system:bootstrappers:b",
    "contains a space"
)]
#[case::newline(
    "rej006",
    "token-secret",
    "0a1b2c3d4e5f6g7h\n",
    "not 16 lower-case letters or digits"
)]
#[case::upper_secret("rej007", "token-secret", "0A1B2C3D4E5F6G7H", "not 16 lower-case letters or digits")]
#[case::mismatch("rej008", "token-id", "rejxxx", "not the id in the Secret's name")]
#[case::off("rej009", "usage-bootstrap-authentication", "True", "not exactly \"true\"")]
#[tokio::test(flavor = "multi_thread")]
async fn list_explains_tokens_that_the_api_server_rejects(
    #[case] id: &str,
    #[case] key: &str,
    #[case] value: &str,
    #[case] why: &str,
) -> Result<()> {
    let plane = bare().await?;
    let shell = shell(plane).await?;
    let raw = Raw::new(id).with(key, value);
    raw.create(plane).await?;
    rejected_and_explained(&shell, plane, &raw.id, why).await
}

#[tokio::test(flavor = "multi_thread")]
async fn list_explains_secrets_of_the_wrong_type_or_namespace() -> Result<()> {
    let plane = bare().await?;
    let shell = shell(plane).await?;
    let mut opaque = Raw::new("rej010");
    opaque.secret.type_ = Some("Opaque".to_owned());
    opaque.create(plane).await?;
    rejected_and_explained(&shell, plane, "rej010", "of type \"Opaque\"").await?;
    let mut elsewhere = Raw::new("rej011");
    elsewhere.secret.metadata.namespace = Some("default".to_owned());
    elsewhere.create(plane).await?;
    rejected_and_explained(&shell, plane, "rej011", "in namespace default, not in kube-system").await
}

async fn rejected_and_explained(
    shell: &e2e::Shell,
    plane: &test_cluster::ControlPlane,
    id: &str,
    why: &str,
) -> Result<()> {
    let row = cluster::row(shell, id).await?;
    ensure!(row["state"] == "broken", "{row}");
    let message = row["reasons"][0]["message"].as_str().unwrap_or_default();
    ensure!(message.contains(why), "{message}");
    ensure!(row["reasons"][1].is_null(), "more than one: {row}");
    // The table shows the same, and the API server rejects the token.
    let table = shell.bootstrap_token(["list"]).run().await?.expect(0)?;
    let line = table
        .stdout
        .lines()
        .find(|line| line.starts_with(id))
        .unwrap_or_default();
    ensure!(line.contains("broken: ") && line.contains(why), "{line}");
    ensure!(
        !cluster::is_accepted(plane, &format!("{id}.{SECRET}")).await?,
        "the token is accepted"
    );
    let verified = shell
        .bootstrap_token(["verify", "--token-stdin"])
        .stdin(format!("{id}.{SECRET}\n"));
    let verified = verified.run().await?.expect(1)?;
    ensure!(verified.stdout.contains("rejected"), "{verified}");
    cluster::prints_nothing_of(&verified, SECRET)
}

#[tokio::test(flavor = "multi_thread")]
async fn list_shows_a_valid_secret_as_active() -> Result<()> {
    let plane = bare().await?;
    let shell = shell(plane).await?;
    let raw = Raw::new("good01").with("auth-extra-groups", "system:bootstrappers:a,system:bootstrappers:b");
    raw.create(plane).await?;
    let row = cluster::row(&shell, "good01").await?;
    ensure!(row["state"] == "active" && row["reasons"][0].is_null(), "{row}");
    until("the token to be accepted", async || {
        Ok(cluster::is_accepted(plane, &format!("good01.{SECRET}"))
            .await?
            .then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn list_distinguishes_signing_only_and_unused_tokens_from_broken_ones() -> Result<()> {
    let plane = bare().await?;
    let shell = shell(plane).await?;
    let signing = cluster::create(&shell, &["--usages", "signing"]).await?;
    ensure!(cluster::row(&shell, &signing.id).await?["state"] == "signing-only");
    let mut unused = Raw::new("none01");
    unused
        .secret
        .data
        .get_or_insert_default()
        .remove("usage-bootstrap-authentication");
    unused.create(plane).await?;
    ensure!(cluster::row(&shell, "none01").await?["state"] == "no-usage");
    let rejected = shell.bootstrap_token(["verify", &signing.id]).run().await?.expect(1)?;
    ensure!(
        rejected.stdout.contains("usages do not include authentication"),
        "{rejected}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_id_there_is_a_list_to_select_from() -> Result<()> {
    let shell = shell(bare().await?).await?;
    let token = cluster::create(&shell, &[]).await?;
    for command in ["rotate", "rollback", "status", "verify", "extend", "revoke"] {
        let mut terminal = shell.bootstrap_token([command]).on_terminal()?;
        let shown = tokio::task::block_in_place(|| -> Result<String> {
            let mut shown = terminal
                .expect(format!("Select what to {command}"))?
                .as_bytes()
                .to_vec();
            shown.extend(terminal.expect("EXPIRES")?.before());
            terminal.send(expectrl::ControlCode::EndOfText)?;
            shown.extend(terminal.expect(expectrl::Eof)?.as_bytes());
            Ok(String::from_utf8_lossy(&shown).into_owned())
        })?;
        ensure!(shown.contains("interrupted"), "{command}: {shown}");
        ensure!(shown.contains("TTL"), "{command}: {shown}");
        let piped = shell.bootstrap_token([command]).run().await?.expect(2)?;
        ensure!(piped.stderr.contains("<ID"), "{piped}");
    }
    cluster::data_of(bare().await?, &token.id).await?;
    Ok(())
}
