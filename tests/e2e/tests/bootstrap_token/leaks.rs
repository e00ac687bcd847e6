//! A token is printed only where it was requested.

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use e2e::Shell;
use rustix::process::Signal;
use test_cluster::{Fault, FaultProxy, Kubeconfig, On, TestEnvironment, Upstream};

use crate::cluster::{self, Printed, bare, shell};
use crate::rotation_fixture::RotationFixture;

fn leaks(text: &str, token: &Printed) -> bool {
    let secret = token.secret();
    let forms = [secret.to_owned(), secret[..10].to_owned(), secret[6..].to_owned()];
    let encoded = [&token.text, secret].map(|plain| STANDARD.encode(plain).trim_end_matches('=').to_owned());
    forms.iter().chain(&encoded).any(|form| text.contains(form.as_str()))
}

const FORMS: [&[&str]; 4] = [&[], &["-v=9"], &["-o", "json", "-v=9"], &["-o", "yaml"]];

#[tokio::test(flavor = "multi_thread")]
async fn no_command_prints_a_token_unless_asked() -> Result<()> {
    let shell = shell(bare().await?).await?;
    let token = cluster::create(&shell, &["-l", "test=leaks"]).await?;
    for command in [
        vec!["list"],
        vec!["verify", &token.id],
        vec!["verify", "--token-stdin"],
        vec!["create", "--dry-run", "--token-stdin"],
        vec!["create", "--dry-run=server"],
        vec!["create", "--token-stdin"],
        vec!["extend", &token.id, "--ttl", "3h"],
        vec!["revoke", &token.id, "--dry-run=server"],
        vec!["rbac", "show"],
        vec!["version"],
    ] {
        for form in FORMS {
            let args: Vec<&str> = command.iter().copied().chain(form.iter().copied()).collect();
            let outcome = shell.bootstrap_token(&args).stdin(token.text.clone()).run().await?;
            ensure!(outcome.code() != Some(101), "a panic of {args:?}");
            ensure!(!leaks(&outcome.to_string(), &token), "{args:?} prints it");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn create_prints_the_token_once_and_in_documents_only_if_asked() -> Result<()> {
    let shell = shell(bare().await?).await?;
    let made = shell.bootstrap_token(["create", "-v=9"]).run().await?.expect(0)?;
    let token = Printed::read(&made.stdout)?;
    ensure!(!leaks(&made.stderr, &token), "the token is on stderr");
    let document = shell
        .bootstrap_token(["create", "-o", "json", "-v=9"])
        .run()
        .await?
        .expect(0)?;
    let id = serde_json::from_str::<serde_json::Value>(&document.stdout)?["id"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let data = cluster::data_of(bare().await?, &id).await?;
    let hidden = Printed {
        text: format!("{id}.{}", data["token-secret"]),
        id,
    };
    ensure!(!leaks(&document.to_string(), &hidden), "the token is in the document");
    let asked = shell
        .bootstrap_token(["create", "-o", "json", "--show-token", "-v=9"])
        .run()
        .await?
        .expect(0)?;
    let shown = serde_json::from_str::<serde_json::Value>(&asked.stdout)?["token"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let shown = Printed::read(&format!("{shown}\n"))?;
    ensure!(!leaks(&asked.stderr, &shown), "the token is on stderr");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_responses_do_not_leak_tokens() -> Result<()> {
    let plane = bare().await?;
    let token = cluster::create(&shell(plane).await?, &[]).await?;
    let proxy = FaultProxy::start([Upstream::admin_of(plane)]).await?;
    let kubeconfig = proxy.redirect(Kubeconfig::read(plane.kubeconfig())?);
    let shell = Shell::new(TestEnvironment::shared().await?, &kubeconfig)?;
    let encoded = STANDARD.encode(&token.text);
    for body in [
        format!(
            "{{\"kind\":\"Status\",\"status\":\"Failure\",\"code\":500,\"message\":\"cannot store {}\"}}",
            token.text
        ),
        format!(
            "{{\"kind\":\"SecretList\",\"items\":[{{\"metadata\":{{}},\"data\":{{\"token-secret\":[\"{encoded}\"]}}}}]}}"
        ),
        format!(
            "{{\"kind\":\"Secret\",\"metadata\":{{}},\"data\":{{\"token-secret\":\"%{}\"}}}}",
            token.text
        ),
        format!("panic: {}", token.text),
        format!("{{\"data\": \"{encoded}"),
    ] {
        for status in [200, 403, 422, 500] {
            proxy.heal();
            let body = body.clone();
            proxy.plan(On::request().path("*/secrets*").always(), Fault::Say { status, body });
            for command in [
                vec!["list", "-v=9"],
                vec!["create", "--token-stdin", "-v=9"],
                vec!["verify", &token.id, "-v=9"],
                vec!["extend", &token.id, "--ttl", "1h", "-v=9"],
                vec!["revoke", &token.id, "--yes", "--timeout", "0s", "-v=9"],
            ] {
                let outcome = shell.bootstrap_token(&command).stdin(token.text.clone()).run().await?;
                ensure!(outcome.code() != Some(101), "a panic of {command:?}");
                let asked_for = command[0] == "create" && outcome.code() == Some(0);
                ensure!(
                    !leaks(&outcome.stderr, &token),
                    "{command:?} shows it at {status} {}",
                    body_kind(status)
                );
                ensure!(
                    asked_for || !leaks(&outcome.stdout, &token),
                    "{command:?} shows it at {status}"
                );
            }
        }
    }
    Ok(())
}

fn body_kind(status: u16) -> &'static str {
    if status == 200 { "answers" } else { "refusals" }
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_rollback_and_status_print_no_token() -> Result<()> {
    let fixture = RotationFixture::new("rotate-leaks").await?;
    let run = fixture.start_and_deliver(&["-v=9", "-o", "json"]).await?;
    let new = fixture.held().await?;
    let journal = serde_json::to_string(&fixture.lease().await?)?;
    ensure!(journal.contains(&new.id), "the id is not in the journal");
    run.signal(Signal::INT)?;
    let stopped = run.finish().await?.expect(130)?;
    let undone = fixture
        .shell
        .bootstrap_token(fixture.rollback(&["-v=9"]))
        .run()
        .await?
        .expect(0)?;
    let status = fixture
        .shell
        .bootstrap_token(["status", &fixture.old.id, "-v=9"])
        .run()
        .await?
        .expect(0)?;
    for token in [&fixture.old, &new] {
        for text in [
            token.secret().to_owned(),
            STANDARD.encode(&token.text),
            STANDARD.encode(token.secret()),
        ] {
            for shown in [&stopped.to_string(), &undone.to_string(), &status.to_string(), &journal] {
                ensure!(!shown.contains(text.trim_end_matches('=')), "a token is shown");
            }
        }
    }
    fixture.is_restored().await
}
