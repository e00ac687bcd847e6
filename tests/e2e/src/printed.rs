//! The commands that an output names, run in a shell as they are printed.

use anyhow::{Result, ensure};

use crate::{CommandOutput, Invocation, Shell};

/// Before a command that is not in backticks: a hint that is only a command, the last lines of `status`, and the end of a rotation.
const BEFORE: [&str; 4] = ["hint: ", "  resume    ", "  rollback  ", "("];

/// The commands in a text, in their order and each once.
pub fn printed_commands(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for line in text.lines() {
        let in_backticks = line
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|words| words.starts_with("kubectl "));
        let bare = BEFORE.iter().filter_map(|before| {
            let at = line.find(&format!("{before}kubectl "))?;
            let (words, in_brackets) = (&line[at + before.len()..], *before == "(");
            if in_brackets {
                words.split(", ").next()
            } else {
                Some(words)
            }
        });
        for command in in_backticks.chain(bare).map(str::trim_end) {
            if !found.iter().any(|known| known == command) {
                found.push(command.to_owned());
            }
        }
    }
    found
}

impl CommandOutput {
    /// The commands in both streams.
    pub fn commands(&self) -> Vec<String> {
        printed_commands(&format!("{}\n{}", self.stdout, self.stderr))
    }
}

impl Shell {
    /// A printed command in a POSIX shell, with more flags.
    pub fn printed(&self, command: &str, flags: &[&str]) -> Invocation {
        let script = format!("{command} \"$@\"");
        Invocation::new(self, "/bin/sh", ["-c", &script, "sh"].iter().chain(flags))
    }

    /// Runs the only command in an output that begins with these words, with more flags.
    pub async fn follow(&self, output: &CommandOutput, start: &str, flags: &[&str]) -> Result<CommandOutput> {
        let mut commands = output.commands();
        commands.retain(|command| command.starts_with(start));
        ensure!(
            commands.len() == 1,
            "{} commands `{start} …` in\n{output}",
            commands.len()
        );
        self.printed(&commands[0], flags).run().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_wherever_they_are_printed() {
        let text = "error: kubectl apply has written it\n\
                    hint: `kubectl crt rotate a --context 'x y'` resumes it\n\
                    hint: `kubectl crt rotate a --context 'x y'` resumes it, or see `kubectl crt status a`\n\
                    hint: kubectl bootstrap-token rbac apply --group g\n\
                    \x20 resume    kubectl crt rotate b\n\
                    Connections stay open (kubectl rollout restart deployment/rancher, on the management cluster).\n\
                    hint: `argocd cluster get a` says why\n";
        assert_eq!(
            printed_commands(text),
            [
                "kubectl crt rotate a --context 'x y'",
                "kubectl crt status a",
                "kubectl bootstrap-token rbac apply --group g",
                "kubectl crt rotate b",
                "kubectl rollout restart deployment/rancher",
            ]
        );
    }
}
