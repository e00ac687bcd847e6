//! `--node-exec`: a command of the user, such as ssh, runs `sh -s` on the node. The script is its standard input.

use std::process::Stdio;
use std::time::Duration;

use futures::future::BoxFuture;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use zeroize::Zeroizing;

use crate::error::NodeProblem;
use crate::script::Script;
use crate::shell::{NodeShell, Output};
use crate::target::NodeTarget;

/// The most bytes that are read of each stream.
const LIMIT: usize = 1 << 20;
/// How long an output may stay open after the command has ended: a shared connection of ssh keeps it.
const LINGER: Duration = Duration::from_millis(500);

/// The command of `--node-exec`.
#[derive(Clone, Debug)]
pub struct NodeExec {
    words: Vec<String>,
    timeout: Duration,
}

/// A command that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCommand {
    /// A quote is not closed.
    #[error("the quotes of the command are not closed")]
    Quotes,
    /// Nothing.
    #[error("the command is empty")]
    Empty,
    /// The program would depend on the node.
    #[error("the first word of the command must not contain {{node}} or {{address}}")]
    Program,
    /// Every node would get the same command.
    #[error(
        "the command contains neither {{node}} nor {{address}}, so it would run on the same machine for every node"
    )]
    SameForAll,
}

impl NodeExec {
    /// Splits a command as a shell does. No shell ever runs it. `timeout` is `--node-timeout`.
    pub fn parse(command: &str, timeout: Duration) -> Result<Self, InvalidCommand> {
        let words = shlex::split(command).ok_or(InvalidCommand::Quotes)?;
        let is_template = |word: &String| word.contains("{node}") || word.contains("{address}");
        match words.first() {
            None => Err(InvalidCommand::Empty),
            Some(first) if first.is_empty() => Err(InvalidCommand::Empty),
            Some(first) if is_template(first) => Err(InvalidCommand::Program),
            Some(_) if !words.iter().any(is_template) => Err(InvalidCommand::SameForAll),
            Some(_) => Ok(Self { words, timeout }),
        }
    }

    /// The limit of one script.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The words for a node, with `sh -s`. Values are replaced inside words and are not split. No value begins with a dash.
    pub fn words(&self, node: &NodeTarget) -> Vec<String> {
        let address = node.address();
        let fill = |word: &String| {
            // In one pass: a value is not searched again.
            let mut filled = String::new();
            let mut rest = word.as_str();
            while let Some(at) = rest.find('{') {
                filled.push_str(&rest[..at]);
                rest = &rest[at..];
                let (value, length) = if rest.starts_with("{node}") {
                    (node.name(), "{node}".len())
                } else if rest.starts_with("{address}") {
                    (address.as_str(), "{address}".len())
                } else {
                    ("{", 1)
                };
                filled.push_str(value);
                rest = &rest[length..];
            }
            filled + rest
        };
        let words = self.words.iter().map(fill);
        words.chain(["sh", "-s"].map(str::to_owned)).collect()
    }

    async fn execute(&self, node: &NodeTarget, script: &Script) -> Result<Output, NodeProblem> {
        let words = self.words(node);
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| NodeProblem::Start {
                program: words[0].clone(),
                reason: client::error::Error::from(error).message,
            })?;
        let mut group = ProcessGroup::of(&child);
        let result = tokio::time::timeout(self.timeout, communicate(&mut child, script)).await;
        match result {
            // A service command that was handed over may still run in the group.
            Ok(Ok(output)) => {
                group.0 = None;
                Ok(output)
            }
            other => {
                drop(group);
                let _ = child.wait().await;
                other.unwrap_or(Err(NodeProblem::TimedOut(self.timeout)))
            }
        }
    }
}

async fn communicate(child: &mut Child, script: &Script) -> Result<Output, NodeProblem> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async {
        if let Some(mut stdin) = stdin {
            // A command that does not read it has no result, which is reported.
            let _ = stdin.write_all(script.text().as_bytes()).await;
            let _ = stdin.shutdown().await;
        }
        std::future::pending::<()>().await;
    };
    let (mut out, mut err) = (Zeroizing::new(Vec::new()), Zeroizing::new(Vec::new()));
    let status = {
        let streams = async { tokio::try_join!(read(stdout, &mut out), read(stderr, &mut err)) };
        tokio::pin!(streams, feed);
        let mut is_read = false;
        let status = loop {
            tokio::select! {
                status = child.wait() => break status,
                read = &mut streams, if !is_read => {
                    read?;
                    is_read = true;
                }
                () = &mut feed => {}
            }
        };
        if !is_read && let Ok(read) = tokio::time::timeout(LINGER, &mut streams).await {
            read?;
        }
        status
    };
    Ok(Output {
        stdout: out,
        stderr: Zeroizing::new(String::from_utf8_lossy(&err).into_owned()),
        code: status.ok().and_then(|status| status.code()),
    })
}

async fn read(stream: Option<impl AsyncRead + Unpin>, into: &mut Zeroizing<Vec<u8>>) -> Result<(), NodeProblem> {
    let Some(mut stream) = stream else { return Ok(()) };
    // At its full size from the start: a buffer that grows leaves parts of a secret behind.
    into.reserve_exact(LIMIT);
    let mut part = Zeroizing::new(vec![0; 8192]);
    loop {
        match stream.read(&mut part).await {
            Ok(0) | Err(_) => return Ok(()),
            Ok(count) if into.len() + count > LIMIT => return Err(NodeProblem::TooMuchOutput(LIMIT)),
            Ok(count) => into.extend_from_slice(&part[..count]),
        }
    }
}

/// Kills the process group of the command when it is dropped, also by an interrupt.
struct ProcessGroup(Option<Pid>);

impl ProcessGroup {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| Pid::from_raw(id.cast_signed())))
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

impl NodeShell for NodeExec {
    fn way(&self) -> &'static str {
        "--node-exec"
    }

    fn returns_secrets(&self) -> bool {
        true
    }

    fn restart_delay(&self) -> Duration {
        Duration::ZERO
    }

    fn timeout(&self) -> Duration {
        self.timeout
    }

    fn run<'a>(&'a self, node: &'a NodeTarget, script: &'a Script) -> BoxFuture<'a, Result<Output, NodeProblem>> {
        Box::pin(self.execute(node, script))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn target(name: &str, address: &str) -> NodeTarget {
        NodeTarget::new(name, address.parse().unwrap()).unwrap()
    }

    fn words(command: &str, node: &NodeTarget) -> Vec<String> {
        NodeExec::parse(command, Duration::from_secs(1)).unwrap().words(node)
    }

    #[test]
    fn values_are_replaced_inside_words() {
        let node = target("s1.example", "10.0.0.1");
        assert_eq!(
            words("ssh -J 'b c' root@{address} -o \"Tag={node}-{x}\" {", &node),
            [
                "ssh",
                "-J",
                "b c",
                "root@10.0.0.1",
                "-o",
                "Tag=s1.example-{x}",
                "{",
                "sh",
                "-s"
            ]
        );
        assert_eq!(words("ssh {address}", &target("s1", "fd00::1"))[1], "fd00::1");
    }

    #[rstest]
    #[case("", InvalidCommand::Empty)]
    #[case("'' {node}", InvalidCommand::Empty)]
    #[case("ssh 'x {node}", InvalidCommand::Quotes)]
    #[case("{node} x", InvalidCommand::Program)]
    #[case("ssh root@s1", InvalidCommand::SameForAll)]
    fn a_command_that_cannot_be_used_is_refused(#[case] command: &str, #[case] reason: InvalidCommand) {
        assert_eq!(NodeExec::parse(command, Duration::ZERO).unwrap_err(), reason);
    }

    #[rstest]
    #[case("-oProxyCommand=x")]
    #[case("")]
    #[case("a b")]
    #[case("a$(reboot)")]
    #[case("A")]
    #[case("a..b")]
    #[case("a.-b")]
    fn a_name_that_no_node_has_is_refused(#[case] name: &str) {
        assert!(NodeTarget::new(name, "10.0.0.1".parse().unwrap()).is_err());
    }
}
