//! A wrapper of `--node-exec` that does something before or after a script that writes on a node.

use std::os::unix::fs::PermissionsExt as _;

use anyhow::Result;

use crate::rotation_fixture::RotationFixture;

/// What an edit of a configuration is called in a script. Others are `restart`, `restore` and `forget`.
pub(crate) const EDIT: &str = "replace";
/// Kills the command that has started the wrapper.
pub(crate) const KILL: &str = "kill -9 $PPID";

/// `--node-exec=…` that runs lines of shell at each script that matches a pattern of `case`: the name of the node, a space and the action.
/// `$n` is the number of such scripts so far.
pub(crate) fn hooked(fixture: &RotationFixture, pattern: &str, before: &str, after: &str) -> Result<String> {
    let home = fixture.shell().home();
    let (script, count) = (home.join("hook"), home.join("hook.count"));
    let text = format!(
        r#"#!/bin/sh
PATH=/usr/bin:/bin
node=$1
shift
script=$(cat)
action=$(printf '%s\n' "$script" | sed -n "s/^action='\(.*\)'$/\1/p" | head -n 1)
run() {{ printf '%s\n' "$script" | "$@"; }}
case "$node $action" in
    {pattern}) ;;
    *)
        run "$@"
        exit
        ;;
esac
n=$(($(cat '{count}' 2>/dev/null) + 1))
echo "$n" >'{count}'
{before}
run "$@"
code=$?
{after}
exit "$code"
"#,
        count = count.display()
    );
    if count.exists() {
        std::fs::remove_file(count)?;
    }
    std::fs::write(&script, text)?;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700))?;
    let exec = fixture.node_exec()?;
    let exec = exec.trim_start_matches("--node-exec=");
    Ok(format!("--node-exec='{}' {{node}} {exec}", script.display()))
}
