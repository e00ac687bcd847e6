//! Every command of every plugin against a server that is hostile or broken. Each has to end with an error, in time, within its
//! memory, without a credential in its output, and without anything that controls the terminal or a shell.

#![cfg(unix)]

mod typed;

use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::{PLUGINS, every_command, plugin_binary};
use futures::stream::{self, StreamExt as _};
use rstest::rstest;
use serde_json::Value;
use tempfile::TempDir;
use test_cluster::{HostileServer, Hostility, Identity, Kubeconfig, built};
use tokio::process::Command;

/// The credential of the kubeconfig, and the password of the proxy. Neither looks like one.
const PLANTED: [&str; 2] = ["a-plain-word-for-the-api", "a-plain-word-for-the-proxy"];
/// The longest that a command may take, on a busy machine.
const LONGEST: Duration = Duration::from_secs(90);
/// The most memory that a command may take.
const MOST_KIB: u64 = 64 << 10;
/// How many commands run side by side. Most of them wait.
const AT_ONCE: usize = 6;
/// There a command may find what it asks for.
const PLAUSIBLE: [Hostility; 7] = [
    Hostility::EvilNames,
    Hostility::FullOfMaps,
    Hostility::FullOfFields,
    Hostility::EndlessPages,
    Hostility::SamePage,
    Hostility::ExpiredPages,
    Hostility::ExpiredForGood,
];
const RANCHER: [&str; 2] = ["--rancher-context", "hostile"];

/// A home directory with a kubeconfig that leads to a hostile server.
struct Victim {
    home: TempDir,
    server: HostileServer,
}

impl Victim {
    async fn of(hostility: Hostility) -> Result<Self> {
        let home = tempfile::tempdir()?;
        let server = HostileServer::start(hostility).await?;
        let identity = Identity::Token(PLANTED[0].to_owned());
        let kubeconfig = Kubeconfig::new().context("hostile", server.url(), server.ca_pem(), &identity);
        kubeconfig.write(home.path().join("config"))?;
        Ok(Self { home, server })
    }

    /// Runs a program in this home.
    async fn run(&self, program: PathBuf, arguments: &[String], proxy: &str) -> Result<Output> {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .env("HOME", self.home.path())
            .env("KUBECONFIG", self.home.path().join("config"))
            .env("HTTPS_PROXY", proxy)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = tokio::time::timeout(LONGEST, command.output()).await;
        Ok(output.with_context(|| format!("no end within {LONGEST:?}"))??)
    }

    /// Runs a command of a plugin with the most verbose log. A server on this machine is never proxied.
    async fn plugin(&self, plugin: &str, arguments: &[String]) -> Result<Output> {
        let proxy = format!("http://me:{}@127.0.0.1:1", PLANTED[1]);
        self.run(plugin_binary(plugin)?, arguments, &proxy).await
    }
}

/// Runs `check` for each command of each plugin, and reports all failures.
async fn for_each_command(check: impl AsyncFn(&str, &[String]) -> Result<()>) -> Result<()> {
    let mut commands = Vec::new();
    for plugin in PLUGINS {
        commands.extend(
            every_command(plugin, &RANCHER)?
                .into_iter()
                .map(|words| (plugin, words)),
        );
    }
    let checks = commands.iter().map(async |(plugin, words)| {
        let checked = check(plugin, words).await;
        checked
            .err()
            .map(|error| format!("kubectl {plugin} {}: {error:#}", words.join(" ")))
    });
    let failures: Vec<_> = stream::iter(checks).buffer_unordered(AT_ONCE).collect().await;
    let failures: Vec<_> = failures.into_iter().flatten().collect();
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

/// Checks what holds for any output.
fn harmless(output: &Output) -> Result<String> {
    let bytes = [&output.stdout[..], &output.stderr].concat();
    let text = String::from_utf8(bytes).context("the output is not UTF-8")?;
    ensure!(!text.contains("internal error"), "{text}");
    ensure!(
        PLANTED.iter().all(|planted| !text.contains(planted)),
        "a credential in:\n{text}"
    );
    let controls = |c: char| c.is_control() && c != '\n' && c != '\t';
    ensure!(!text.contains(controls), "a control character in:\n{text:?}");
    ensure!(
        !text.lines().any(|line| line.starts_with("error: forged")),
        "a forged message in:\n{text}"
    );
    Ok(text)
}

#[rstest]
#[case::gzip_bomb(Hostility::GzipBomb)]
#[case::endless(Hostility::Endless)]
#[case::many_maps(Hostility::ManyMaps)]
#[case::many_fields(Hostility::ManyFields)]
#[case::many_maps_in_error(Hostility::ManyMapsInError)]
#[case::full_of_maps(Hostility::FullOfMaps)]
#[case::full_of_fields(Hostility::FullOfFields)]
#[case::nested(Hostility::Nested)]
#[case::endless_pages(Hostility::EndlessPages)]
#[case::same_page(Hostility::SamePage)]
#[case::expired_pages(Hostility::ExpiredPages)]
#[case::expired_for_good(Hostility::ExpiredForGood)]
#[case::stalled(Hostility::Stalled)]
#[case::cut_gzip(Hostility::CutGzip)]
#[case::login_page(Hostility::LoginPage)]
#[case::huge_headers(Hostility::HugeHeaders)]
#[case::garbage(Hostility::Garbage)]
#[case::redirect(Hostility::Redirect)]
#[case::redirect_loop(Hostility::RedirectLoop)]
#[case::huge_retry_after(Hostility::HugeRetryAfter)]
#[case::echo(Hostility::Echo)]
#[case::evil_names(Hostility::EvilNames)]
#[tokio::test(flavor = "multi_thread")]
async fn every_command_survives(#[case] hostility: Hostility) -> Result<()> {
    let victim = Victim::of(hostility).await?;
    for_each_command(async |plugin, words| {
        // Without it a stalled body is given up after 90 s.
        let timeout = if hostility == Hostility::Stalled { "2s" } else { "0" };
        let flags = ["-v=9".to_owned(), format!("--request-timeout={timeout}")];
        let output = victim.plugin(plugin, &[words, &flags].concat()).await?;
        let text = harmless(&output)?;
        ensure!(text.contains("Request Headers:"), "the server was not asked:\n{text}");
        let failed = output.status.code().is_some_and(|code| (1..=5).contains(&code));
        ensure!(failed || PLAUSIBLE.contains(&hostility), "{}:\n{text}", output.status);
        ensure!(
            output.status.code().is_some_and(|code| code < 100),
            "{}:\n{text}",
            output.status
        );

        let completion = ["__complete", &words[0], ""].map(str::to_owned);
        let completed = victim.plugin(plugin, &completion).await?;
        let text = harmless(&completed)?;
        ensure!(completed.status.success() && text.ends_with(":4\n"), "{text}");
        ensure!(!text.contains("$(") && !text.contains('`'), "shell syntax in:\n{text}");
        ensure!(!victim.server.was_left(), "the redirect was followed");
        Ok(())
    })
    .await
}

#[rstest]
#[case::many_maps(Hostility::ManyMaps, "the response of the server has more than 100000 JSON tokens")]
#[case::endless_pages(
    Hostility::EndlessPages,
    "the list of the server does not end: it has more than 1000 pages"
)]
#[case::same_page(
    Hostility::SamePage,
    "the list of the server does not end: a page continues with itself"
)]
#[case::expired_pages(Hostility::ExpiredPages, "the continue token is too old")]
#[case::huge_headers(Hostility::HugeHeaders, "message head is too large")]
#[tokio::test(flavor = "multi_thread")]
async fn an_error_says_what_is_wrong_with_the_list(#[case] hostility: Hostility, #[case] reason: &str) -> Result<()> {
    let victim = Victim::of(hostility).await?;
    for plugin in PLUGINS {
        let output = victim.plugin(plugin, &["list".to_owned()]).await?;
        let text = harmless(&output)?;
        ensure!(text.contains(reason), "kubectl {plugin} list:\n{text}");
    }
    Ok(())
}

#[rstest]
#[case::gzip_bomb(Hostility::GzipBomb)]
#[case::endless(Hostility::Endless)]
#[case::many_maps(Hostility::ManyMaps)]
#[case::many_fields(Hostility::ManyFields)]
#[case::many_maps_in_error(Hostility::ManyMapsInError)]
#[case::full_of_maps(Hostility::FullOfMaps)]
#[case::full_of_fields(Hostility::FullOfFields)]
#[case::nested(Hostility::Nested)]
#[case::huge_headers(Hostility::HugeHeaders)]
#[tokio::test(flavor = "multi_thread")]
async fn no_command_fills_the_memory(#[case] hostility: Hostility) -> Result<()> {
    let victim = Victim::of(hostility).await?;
    for_each_command(async |plugin, words| {
        let program = plugin_binary(plugin)?.to_string_lossy().into_owned();
        let measured = victim.run(built("cost")?, &[&[program], words].concat(), "").await?;
        let cost: Value = serde_json::from_slice(&measured.stdout)?;
        let peak = cost["peak_kib"].as_u64().context("no peak")?;
        let failed = cost["code"] != 0;
        ensure!((failed || PLAUSIBLE.contains(&hostility)) && peak < MOST_KIB, "{cost}");
        Ok(())
    })
    .await
}
