//! Credentials in the wrong place: a password in an address or a proxy variable, a token where a name belongs.

use anyhow::{Result, ensure};
use e2e::plugin_binary;
use rstest::rstest;
use test_cluster::Hostility;

use crate::{PLANTED, Victim, harmless};

/// A registration token and a bootstrap token.
const TOKENS: [&str; 2] = [
    "dk6nhzh5vr9ks8c2kkdss2c6snr5dw42b8k6zhwprjh598fbclkk87",
    "abcdef.0123456789abcdef",
];

#[rstest]
#[case::server(&["--server", "https://me:a-plain-word-for-the-api@127.0.0.1:1"], "")]
#[case::broken_server(&["--server", "https://me:a-plain/word-for/a-plain-word-for-the-api@host:x"], "")]
#[case::proxy(&["--server", "https://api.invalid:6443"], "http://me:a-plain-word-for-the-proxy@127.0.0.1:1")]
#[case::broken_proxy(&["--server", "https://api.invalid:6443"], "me:a-plain-word-for-the-proxy@[broken")]
#[case::proxy_with_a_slash(&["--server", "https://api.invalid:6443"], "http://me:a/a-plain-word-for-the-proxy@host:1")]
#[case::token_flag(&["--token", "a-plain-word-for-the-api", "--unknown"], "")]
#[tokio::test(flavor = "multi_thread")]
async fn a_password_in_an_address_is_not_printed(#[case] flags: &[&str], #[case] proxy: &str) -> Result<()> {
    let victim = Victim::of(Hostility::Echo).await?;
    for (plugin, command) in [("crt", "list"), ("bootstrap-token", "list"), ("argocd-rancher", "list")] {
        let words = [&[command, "-v=9"], flags].concat();
        let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
        let output = victim.run(plugin_binary(plugin)?, &words, proxy).await?;
        let text = harmless(&output)?;
        ensure!(matches!(output.status.code(), Some(1 | 2)), "{plugin}: {text}");
        ensure!(
            PLANTED.iter().all(|planted| !text.contains(&planted[..12])),
            "{plugin}: {text}"
        );
    }
    Ok(())
}

#[rstest]
#[case::as_a_command("crt", &["TOKEN"])]
#[case::as_a_cluster("crt", &["status", "TOKEN"])]
#[case::as_a_context("crt", &["list", "--context", "TOKEN"])]
#[case::as_one_too_many("crt", &["status", "c-x7k2p", "TOKEN"])]
#[case::as_an_output("bootstrap-token", &["list", "-o", "TOKEN"])]
#[case::as_a_duration("bootstrap-token", &["create", "--ttl", "TOKEN"])]
#[case::as_a_number("crt", &["rotate", "c-x7k2p", "--max-parallel", "TOKEN"])]
#[case::in_an_api_server("bootstrap-token", &["verify", "07401b", "--api-server", "http://TOKEN:TOKEN@host"])]
#[case::as_a_name_of_argocd("argocd-rancher", &["status", "TOKEN"])]
#[case::as_a_secret("argocd-rancher", &["list", "--rancher-url", "https://127.0.0.1:1", "--rancher-token-secret", "argocd/TOKEN/token"])]
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_typed_where_a_name_belongs_is_not_printed(
    #[case] plugin: &str,
    #[case] words: &[&str],
) -> Result<()> {
    let victim = Victim::of(Hostility::Echo).await?;
    for token in TOKENS {
        let words: Vec<String> = words.iter().map(|word| word.replace("TOKEN", token)).collect();
        let output = victim
            .plugin(plugin, &[&words[..], &["-v=9".to_owned()]].concat())
            .await?;
        let text = harmless(&output)?;
        ensure!(!output.status.success() && !text.contains(token), "{text}");
    }
    Ok(())
}
