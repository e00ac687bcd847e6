//! `--agents`: the configuration of agents.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use e2e::CommandOutput;
use rstest::rstest;
use serde_json::{Value, json};

use super::fixture::{AGENT, AgentFixture};
use super::hook::{EDIT, KILL, hooked};
use crate::cluster::TOKEN;

/// The places in which an agent has its token, by the names of the agents.
const PINS: [(&str, &str); 5] = [
    ("a1", "config"),
    ("a2", "config-dir"),
    ("a3", "env"),
    ("a4", "flag"),
    ("a5", "token-file"),
];

/// One server, with these agents and tokens.
async fn start(name: &str, agent: Option<&str>, agents: &[(&str, &str, &str)]) -> Result<AgentFixture> {
    let agents = agents
        .iter()
        .map(|(name, pin, token)| json!({ "name": name, "pin": pin, "token": token }));
    let agents: Vec<Value> = agents.collect();
    AgentFixture::start(name, 1, agent, json!({ "agents": agents })).await
}

/// The files of an agent that can have its token.
fn files(fixture: &AgentFixture, agent: &str) -> String {
    let names = [
        "etc/rancher/k3s/config.yaml",
        "etc/rancher/k3s/config.yaml.d/50-token.yaml",
        "etc/rancher/k3s/server-token",
        "etc/systemd/system/k3s-agent.service.env",
        "etc/systemd/system/k3s-agent.service",
    ];
    let mut all = String::new();
    for name in names {
        all += &std::fs::read_to_string(fixture.config(agent, name)).unwrap_or_default();
    }
    all
}

fn has(fixture: &AgentFixture, agent: &str, token: &str) -> Result<()> {
    let files = files(fixture, agent);
    ensure!(files.contains(token), "{agent} does not have {token}:\n{files}");
    Ok(())
}

/// The names in the sentence about agents that have another token.
fn named(output: &CommandOutput) -> Vec<String> {
    let text = output.stderr.split("or it is not known which: ").nth(1);
    let names = text.and_then(|text| text.split('.').next()).unwrap_or_default();
    names
        .split(", ")
        .map(str::to_owned)
        .filter(|name| !name.is_empty())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_with_the_old_token_are_listed_and_written_with_agents_wherever_they_have_it() -> Result<()> {
    let agents: Vec<(&str, &str, &str)> = PINS.iter().map(|(name, pin)| (*name, *pin, AGENT)).collect();
    let agents = [&agents[..], &[("a6", "config", TOKEN)]].concat();
    let fixture = start("agents-places", Some(AGENT), &agents).await?;
    // Of the form that `k3s token` prints.
    let full = format!("K10{}::node:{AGENT}", fixture.rotation.servers.ca_hash());
    let file = fixture.config("a1", "etc/rancher/k3s/config.yaml");
    std::fs::write(&file, format!("# of an agent\nnode-name: a1\ntoken: {full} # old\n"))?;

    let plan = fixture.run("rotate", &["--agents", "--dry-run"]).await?.expect(0)?;
    ensure!(
        plan.stdout
            .contains("record in the backup Secret which agents get the new token: a1, a2, a3, a4, a5"),
        "{plan}"
    );
    let done = fixture.run("rotate", &["--agents"]).await?.expect(0)?;
    fixture.prints_no_token(&done)?;
    let new = fixture.new_token()?;
    for (agent, _) in PINS {
        has(&fixture, agent, &new)?;
        ensure!(!files(&fixture, agent).contains(AGENT), "{agent} has the old token");
    }
    let text = std::fs::read_to_string(&file)?;
    let expected = format!("token: \"K10{}::node:{new}\" # old", fixture.rotation.servers.ca_hash());
    ensure!(text == format!("# of an agent\nnode-name: a1\n{expected}\n"), "{text}");
    has(&fixture, "a6", TOKEN)?;
    ensure!(named(&done) == ["a6"], "{done}");
    // No agent was restarted, and each has a token with which it could join.
    fixture.all_accept(&new).await?;
    let refused = fixture.rotation.servers.cluster.join_agent("a1", &new).await?;
    ensure!(refused.is_none(), "{refused:?}");

    // Without the flag they are listed only.
    let done = fixture.run("rotate", &[]).await?.expect(0)?;
    ensure!(named(&done) == ["a1", "a2", "a3", "a4", "a5", "a6"], "{done}");
    for (agent, _) in PINS {
        has(&fixture, agent, &new)?;
    }
    fixture.all_accept(&fixture.new_token()?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn set_and_remove_write_agents_too() -> Result<()> {
    let third = "c2".repeat(16);
    let agents = [("a1", "env", TOKEN), ("a2", "config", &third)];
    let fixture = start("agents-set", None, &agents).await?;
    let done = fixture.run("set", &["--agents"]).await?.expect(0)?;
    let new = fixture.new_token()?;
    has(&fixture, "a1", &format!("K3S_TOKEN='{new}'"))?;
    has(&fixture, "a2", &third)?;
    ensure!(named(&done) == ["a2"], "{done}");
    let done = fixture.run("remove", &["--agents"]).await?.expect(0)?;
    has(&fixture, "a1", &format!("K3S_TOKEN='{TOKEN}'"))?;
    has(&fixture, "a2", &third)?;
    ensure!(named(&done) == ["a2"], "{done}");
    fixture.prints_no_token(&done)?;
    fixture.all_accept(TOKEN).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_fails_is_named_and_an_edit_by_another_is_not_overwritten() -> Result<()> {
    let agents = ["a1", "a2", "a3", "a4", "a5"].map(|name| (name, "config", AGENT));
    let fixture = start("agents-fail", Some(AGENT), &agents).await?;
    let cluster = &fixture.rotation.servers.cluster;
    cluster.faults("a1", &json!({ "cut": true })).await?;
    let config = |agent: &str| fixture.config(agent, "etc/rancher/k3s/config.yaml");
    let twice = format!("token: {AGENT}\n\"token\": {AGENT}\n");
    std::fs::write(config("a2"), &twice)?;
    // Directly before the edit, another operator gives a3 another token, and a4 another line.
    let third = "c2".repeat(16);
    let before = format!(
        "case $node$n in a3*) echo 'token: {third}' >'{}' ;; a42) echo 'debug: true' >>'{}' ;; esac",
        config("a3").display(),
        config("a4").display()
    );
    let exec = hooked(&fixture.rotation, &format!("'a3 {EDIT}' | 'a4 {EDIT}'"), &before, "")?;
    let done = fixture.run_by_hand("rotate", &[&exec, "--agents"]).await?.expect(0)?;
    let new = fixture.new_token()?;
    ensure!(named(&done) == ["a1", "a2", "a3"], "{done}");
    for reason in [
        "agent a1 is skipped: cannot read the configuration on node a1 (--node-exec): the command ended with exit code 255: ssh: \
         connect to host",
        "agent a2 is skipped: cannot edit token in",
        "token occurs more than once",
    ] {
        ensure!(done.stderr.contains(reason), "{reason:?} is missing: {done}");
    }
    ensure!(std::fs::read_to_string(config("a2"))? == twice, "a2 was edited");
    ensure!(
        std::fs::read_to_string(config("a3"))? == format!("token: {third}\n"),
        "the edit of another operator was overwritten"
    );
    has(&fixture, "a4", &new)?;
    has(&fixture, "a4", "debug: true")?;
    has(&fixture, "a5", &new)?;
    fixture.prints_no_token(&done)?;
    fixture.all_accept(&new).await
}

/// With the server token, an agent already has what `remove` ends on. A rollback leaves it as it is.
#[rstest]
#[case::resumed("remove", None)]
#[case::rolled_back("rollback", Some(AGENT))]
#[tokio::test(flavor = "multi_thread")]
async fn a_change_killed_between_two_agents_is_resumed_or_rolled_back(
    #[case] verb: &str,
    #[case] restored: Option<&str>,
) -> Result<()> {
    let agents = [("a1", "config", AGENT), ("a2", "env", AGENT), ("a3", "config", TOKEN)];
    let fixture = start(&format!("agents-killed-{verb}"), Some(AGENT), &agents).await?;
    let before: BTreeMap<&str, String> = agents.iter().map(|(name, ..)| (*name, files(&fixture, name))).collect();
    let kills = match restored {
        // The next change would find nothing to do.
        None => &[("a2", KILL, "")][..],
        Some(_) => &[("a1", KILL, ""), ("a1", "", KILL), ("a2", KILL, ""), ("a2", "", KILL)][..],
    };
    for (agent, before_edit, after_edit) in kills {
        // After a rollback its server has just started.
        fixture.accept_now(AGENT).await?;
        let exec = hooked(&fixture.rotation, &format!("'{agent} {EDIT}'"), before_edit, after_edit)?;
        let args = fixture.args("remove", &[&exec, "--agents"]);
        fixture.shell().bootstrap_token(args).run().await?.expect_killed()?;
        // The run has recorded which agents it writes.
        let done = fixture.run(verb, &[]).await?.expect(0)?;
        fixture.prints_no_token(&done)?;
        for (agent, before) in &before {
            let files = files(&fixture, agent);
            let expected = match restored {
                Some(_) => before.replace(&format!("K3S_TOKEN={AGENT}"), &format!("K3S_TOKEN='{AGENT}'")),
                None => before.replace(AGENT, TOKEN),
            };
            ensure!(files == expected, "{agent} has\n{files}\nnot\n{expected}");
        }
    }
    fixture.all_accept(restored.unwrap_or(TOKEN)).await
}
