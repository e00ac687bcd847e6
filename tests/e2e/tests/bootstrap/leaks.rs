//! The token is printed where it was asked for, and nowhere else.

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use e2e::Desk;
use testbed::{Bed, Fault, FaultProxy, Kubeconfig, On, Upstream};

use crate::cluster::{self, Printed, bare, desk};

fn leaks(text: &str, token: &Printed) -> bool {
    let secret = token.secret();
    let forms = [secret.to_owned(), secret[..10].to_owned(), secret[6..].to_owned()];
    let encoded = [&token.text, secret].map(|plain| STANDARD.encode(plain).trim_end_matches('=').to_owned());
    forms.iter().chain(&encoded).any(|form| text.contains(form.as_str()))
}

const FORMS: [&[&str]; 4] = [&[], &["-v=9"], &["-o", "json", "-v=9"], &["-o", "yaml"]];

#[tokio::test(flavor = "multi_thread")]
async fn no_verb_shows_a_token_that_was_not_asked_to() -> Result<()> {
    let desk = desk(bare().await?).await?;
    let token = cluster::create(&desk, &["-l", "story=leaks"]).await?;
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
            let outcome = desk.bootstrap_token(&args).stdin(token.text.clone()).run().await?;
            ensure!(outcome.code() != Some(101), "a panic of {args:?}");
            ensure!(!leaks(&outcome.to_string(), &token), "{args:?} shows it");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn create_shows_it_once_on_stdout_and_documents_have_it_only_if_asked_to() -> Result<()> {
    let desk = desk(bare().await?).await?;
    let made = desk.bootstrap_token(["create", "-v=9"]).run().await?.expect(0)?;
    let token = Printed::read(&made.stdout)?;
    ensure!(!leaks(&made.stderr, &token), "stderr shows it");
    let document = desk
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
    ensure!(!leaks(&document.to_string(), &hidden), "-o json shows it");
    let asked = desk
        .bootstrap_token(["create", "-o", "json", "--show-token", "-v=9"])
        .run()
        .await?
        .expect(0)?;
    let shown = serde_json::from_str::<serde_json::Value>(&asked.stdout)?["token"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let shown = Printed::read(&format!("{shown}\n"))?;
    ensure!(!leaks(&asked.stderr, &shown), "stderr shows it");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_servers_do_not_make_it_talk() -> Result<()> {
    let plane = bare().await?;
    let token = cluster::create(&desk(plane).await?, &[]).await?;
    let proxy = FaultProxy::start([Upstream::admin_of(plane)]).await?;
    let kubeconfig = proxy.redirect(Kubeconfig::read(plane.kubeconfig())?);
    let desk = Desk::new(Bed::shared().await?, &kubeconfig)?;
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
                let outcome = desk.bootstrap_token(&command).stdin(token.text.clone()).run().await?;
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
