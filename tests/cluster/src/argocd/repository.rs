//! The git repository that Argo CD syncs from: a directory for each [`Content`](super::Content).

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::application::{Content, GATE};

/// The directory of the repository.
pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join("repository")
}

/// Creates it, with all files committed. Needs git.
pub(super) fn make(dir: &Path) -> Result<()> {
    let repository = path(dir);
    for content in [Content::Plain, Content::Gated] {
        let below = repository.join(content.path());
        std::fs::create_dir_all(&below)?;
        for object in objects(content) {
            let name = format!("{}.json", object["metadata"]["name"].as_str().unwrap_or("object"));
            std::fs::write(below.join(name), object.to_string())?;
        }
    }
    for args in [
        &["init", "--quiet", "--initial-branch=main"][..],
        &["add", "--all"],
        &["commit", "--quiet", "--message=everything"],
    ] {
        git(&repository, args)?;
    }
    Ok(())
}

fn objects(content: Content) -> Vec<Value> {
    let deployed = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "deployed"}, "data": {"by": "Argo CD"},
    });
    // No scheduler has this name, so the pod is Pending until a test changes its status.
    let gate = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": GATE, "annotations": {"argocd.argoproj.io/hook": "PreSync"}},
        "spec": {
            "schedulerName": "no-such-scheduler", "restartPolicy": "Never",
            "containers": [{"name": "gate", "image": "gate"}],
        },
    });
    match content {
        Content::Plain => vec![deployed],
        Content::Gated => vec![deployed, gate],
    }
}

fn git(dir: &Path, args: &[&str]) -> Result<()> {
    let out = Command::new("git")
        .args(args)
        .current_dir(dir)
        .env("HOME", dir)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .envs(["GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"].map(|name| (name, "Ada")))
        .envs(["GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"].map(|name| (name, "ada@example.com")))
        .stdin(Stdio::null())
        .output()
        .context("run git: Argo CD syncs from a git repository")?;
    ensure!(
        out.status.success(),
        "git {} failed: {}",
        args.join(" "),
        String::from_utf8_lossy(&out.stderr).trim()
    );
    Ok(())
}
