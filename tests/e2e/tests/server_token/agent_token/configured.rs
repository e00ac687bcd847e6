//! Where the agent token is configured.

use anyhow::{Result, ensure};
use serde_json::json;

use super::fixture::{AGENT, AgentFixture};
use crate::leaks::{self, hides, objects, recording};

const CONFIG: &str = "etc/rancher/k3s/config.yaml";
const DROP_IN: &str = "etc/rancher/k3s/config.yaml.d/20-agents.yaml";
const ENVIRONMENT: &str = "etc/systemd/system/k3s.service.env";
const FILE: &str = "etc/rancher/k3s/agent-token";

/// The files of each server that can have it.
fn files(fixture: &AgentFixture) -> Vec<(String, Option<String>)> {
    let all = ["s1", "s2", "s3"]
        .into_iter()
        .flat_map(|server| [CONFIG, DROP_IN, ENVIRONMENT, FILE].map(|file| (server, file)));
    let read = |(server, file): (&str, &str)| {
        let text = std::fs::read_to_string(fixture.config(server, file)).ok();
        (format!("{server} {file}"), text)
    };
    all.map(read).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_place_that_k3s_obeys_is_changed_and_a_rollback_restores_every_file() -> Result<()> {
    let fixture = AgentFixture::start("agent-places", 3, Some(AGENT), json!({})).await?;
    // A file of config.yaml.d wins over config.yaml, where another one is left.
    fixture.configure("s1", Some("another-token-that-is-not-used"))?;
    std::fs::write(
        fixture.config("s1", DROP_IN),
        format!("# of agents\nagent-token: {AGENT} # old\n"),
    )?;
    fixture.configure("s2", None)?;
    std::fs::write(
        fixture.config("s2", ENVIRONMENT),
        format!("K3S_X=1\nK3S_AGENT_TOKEN='{AGENT}'\n"),
    )?;
    fixture.configure("s3", None)?;
    let token_file = fixture.config("s3", FILE);
    std::fs::write(&token_file, format!("{AGENT}\n"))?;
    let config = fixture.config("s3", CONFIG);
    let text = std::fs::read_to_string(&config)?;
    std::fs::write(&config, format!("{text}agent-token-file: {}\n", token_file.display()))?;
    let before = files(&fixture);

    let stopped = fixture.run("rotate", &["--only", "s2"]).await?.expect(4)?;
    fixture.prints_no_token(&stopped)?;
    let changed = files(&fixture);
    ensure!(
        changed.iter().zip(&before).filter(|(now, then)| now != then).count() == 3,
        "{changed:?}"
    );
    let status = ["agent-token", "status", "--token-file", fixture.rotation.old_file()];
    let status = fixture.shell().bootstrap_token(status).run().await?.expect(0)?;
    for text in ["Rotation in progress", "agent-token rotate", "agent-token rollback"] {
        ensure!(status.stdout.contains(text), "{text:?} is missing:\n{status}");
    }
    let rolled_back = fixture.run("rollback", &[]).await?.expect(0)?;
    fixture.prints_no_token(&rolled_back)?;
    ensure!(files(&fixture) == before, "the files differ: {:?}", files(&fixture));
    fixture.all_accept(AGENT).await?;

    fixture.run("rotate", &[]).await?.expect(0)?;
    let new = fixture.new_token()?;
    fixture.all_accept(&new).await?;
    let drop_in = std::fs::read_to_string(fixture.config("s1", DROP_IN))?;
    ensure!(
        drop_in == format!("# of agents\nagent-token: \"{new}\" # old\n"),
        "{drop_in}"
    );
    ensure!(
        std::fs::read_to_string(&token_file)?.trim() == new,
        "the token file has another token"
    );

    // Every place goes, or the next one would be obeyed.
    fixture.run("remove", &[]).await?.expect(0)?;
    let left: Vec<(String, Option<String>)> = files(&fixture);
    let has_token = |(name, text): &&(String, Option<String>)| {
        let text = text.as_deref().unwrap_or_default().to_lowercase();
        !name.ends_with(FILE) && (text.contains("agent-token") || text.contains("agent_token"))
    };
    ensure!(left.iter().find(has_token).is_none(), "{left:?}");
    fixture.all_accept(crate::cluster::TOKEN).await
}

/// On one server, whose children are recorded.
#[tokio::test(flavor = "multi_thread")]
async fn no_agent_token_is_in_an_argument_an_environment_or_another_file() -> Result<()> {
    let fixture = AgentFixture::start("agent-leaks", 1, Some(AGENT), json!({})).await?;
    let stopped = fixture.run_by_hand("rotate", &["--agents"]).await?.expect(2)?;
    ensure!(stopped.stderr.contains("--agents needs --node-exec"), "{stopped}");
    let (exec, record) = recording(&fixture.rotation)?;
    let mut outputs = Vec::new();
    for verb in ["rotate", "remove"] {
        let done = fixture
            .run_by_hand(verb, &[&exec, "--agents", "-v=9"])
            .await?
            .expect(0)?;
        outputs.push(done.to_string());
    }
    fixture.all_accept(crate::cluster::TOKEN).await?;
    let tokens = [crate::cluster::TOKEN.to_owned(), AGENT.to_owned(), fixture.new_token()?];
    for output in &outputs {
        hides("an output", output, &tokens)?;
    }
    let recorded = std::fs::read_to_string(record)?;
    ensure!(recorded.contains("node-exec"), "no child was recorded");
    hides("a child", &recorded, &tokens)?;
    hides(
        "a file",
        &leaks::files(fixture.shell().home(), &["old", "agent"])?,
        &tokens,
    )?;
    hides("an object", &objects(&fixture.rotation).await?, &tokens)
}
