//! Neither token is anywhere but on the servers and in the files of the user.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::cluster::{TOKEN, file};
use crate::rotation_fixture::{RotationFixture, backups};

/// Everything as verbose as it can be.
const VERBOSE: &str = "-v=9";

/// Fails if one of the tokens is in a text, also encoded as in a Secret or in a header.
pub(crate) fn hides(what: &str, text: &str, tokens: &[String]) -> Result<()> {
    for token in tokens {
        let forms = [
            token.clone(),
            token[..12].to_owned(),
            token[token.len() - 12..].to_owned(),
        ];
        // In three texts, the token begins at each of the offsets that change its encoding.
        let encoded = ["", "server:", "node:"].map(|user| STANDARD.encode(format!("{user}{token}")));
        let encoded = encoded.iter().map(|text| text[4..text.len() - 4].to_owned());
        for form in forms.into_iter().chain(encoded) {
            ensure!(!text.contains(&form), "{what} has a token:\n{text}");
        }
    }
    Ok(())
}

/// All objects of kube-system, with the values of Secrets in plain text.
pub(crate) async fn objects(fixture: &RotationFixture) -> Result<String> {
    let kinds = ["api-resources", "--namespaced", "--verbs=list", "-o", "name"];
    let kinds = fixture.shell().kubectl(kinds).run().await?.expect(0)?.stdout;
    let kinds = kinds.lines().collect::<Vec<_>>().join(",");
    let get = ["-n", "kube-system", "get", &kinds, "-o", "json"];
    let list = fixture.shell().kubectl(get).run().await?.expect(0)?.stdout;
    ensure!(list.contains("kubectl-rotation.github.io"), "the Lease is missing");
    let mut text = list.clone();
    let list: Value = serde_json::from_str(&list)?;
    for object in list["items"].as_array().context("no items")? {
        for value in object["data"].as_object().into_iter().flat_map(|data| data.values()) {
            let value = STANDARD.decode(value.as_str().unwrap_or_default()).unwrap_or_default();
            text += &String::from_utf8_lossy(&value);
        }
    }
    Ok(text)
}

/// A wrapper that records its arguments and its environment.
pub(crate) fn recording(fixture: &RotationFixture) -> Result<(String, std::path::PathBuf)> {
    let home = fixture.shell().home();
    let (script, record) = (home.join("record"), home.join("recorded"));
    let text = format!(
        "#!/bin/sh\n/usr/bin/tr '\\0' '\\n' </proc/$$/cmdline >>'{0}'\n/usr/bin/tr '\\0' '\\n' </proc/$$/environ >>'{0}'\nexec \"$@\"\n",
        record.display()
    );
    std::fs::write(&script, text)?;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700))?;
    let exec = fixture.node_exec()?;
    let exec = exec.trim_start_matches("--node-exec=");
    Ok((format!("--node-exec='{}' {exec}", script.display()), record))
}

/// All files below the home directory, without those of the user.
pub(crate) fn files(home: &Path, of_user: &[&str]) -> Result<String> {
    let mut text = String::new();
    for entry in std::fs::read_dir(home)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() && name != "bin" {
            text += &files(&entry.path(), of_user)?;
        } else if entry.file_type()?.is_file() && !of_user.iter().any(|own| name.starts_with(own)) {
            text += &String::from_utf8_lossy(&std::fs::read(entry.path())?);
        }
    }
    Ok(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_token_is_in_an_output_an_object_an_argument_or_an_environment() -> Result<()> {
    let fixture = RotationFixture::start_three("leaks", ["config", "env", "token-file"]).await?;
    let (exec, record) = recording(&fixture)?;
    let run = async |verb: &str, more: &[&str]| {
        let more: Vec<&str> = [exec.as_str(), VERBOSE]
            .into_iter()
            .chain(more.iter().copied())
            .collect();
        fixture.shell().bootstrap_token(fixture.args(verb, &more)).run().await
    };
    let mut tokens = vec![TOKEN.to_owned()];
    let mut outputs = vec![run("rotate", &["--dry-run"]).await?.expect(0)?.to_string()];
    outputs.push(run("rotate", &["--only", "s1"]).await?.expect(4)?.to_string());
    tokens.push(fixture.new_token()?);
    hides("an object", &objects(&fixture).await?, &tokens)?;
    for server in ["s1", "s2", "s3"] {
        let found = backups(&fixture.servers.cluster.root(server))?;
        ensure!(!found.is_empty(), "{server} has no backup of its configuration");
        for path in found {
            let mode = std::fs::metadata(&path)?.permissions().mode() & 0o7777;
            ensure!(mode == 0o600, "others may read {}: {mode:o}", path.display());
        }
    }
    outputs.push(run("rollback", &["-o", "json"]).await?.expect(0)?.to_string());
    outputs.push(run("rotate", &["-o", "json"]).await?.expect(0)?.to_string());
    tokens.push(fixture.new_token()?);
    let old = file(fixture.shell(), "old-again", TOKEN, 0o600)?;
    for command in ["status", "verify"] {
        for token_file in [fixture.new_file(), &old] {
            let args = ["server-token", command, VERBOSE, "--token-file", token_file];
            outputs.push(fixture.shell().bootstrap_token(args).run().await?.to_string());
        }
    }
    for output in &outputs {
        hides("an output", output, &tokens)?;
    }
    hides("an object", &objects(&fixture).await?, &tokens)?;
    let recorded = std::fs::read_to_string(record)?;
    ensure!(recorded.contains("node-exec"), "no child was recorded");
    hides("a child", &recorded, &tokens)?;
    hides("a file", &files(fixture.shell().home(), &["old", "new"])?, &tokens)?;
    fixture.is_rotated().await
}
