//! The generated pages are up to date, and the help follows the rules of the project.

use kubectl_bootstrap_token::cli::BootstrapToken;
use kubectl_bootstrap_token::rights;
use reference::Plugin;

fn plugin() -> Plugin {
    Plugin {
        name: "bootstrap-token",
        command: cli::app::command::<BootstrapToken>(),
        rotations: &[
            ("bootstrap-token-rotation", include_str!("../src/rotation/stages.rs")),
            (
                "agent-token-rotation",
                include_str!("../src/agent_token/rotation/stages.rs"),
            ),
            (
                "server-token-rotation",
                include_str!("../src/server_token/rotation/stages.rs"),
            ),
        ],
        permissions: rights::TABLE,
    }
}

#[test]
fn pages_are_up_to_date() {
    plugin().check().unwrap();
}

#[test]
fn help_follows_the_rules() {
    plugin()
        .check_help(
            env!("CARGO_BIN_EXE_kubectl-bootstrap_token"),
            &[
                "rotate",
                "server-token rotate",
                "server-token rollback",
                "server-token recover",
                "server-token status",
                "agent-token status",
                "agent-token set",
                "agent-token rotate",
                "agent-token remove",
                "agent-token rollback",
            ],
        )
        .unwrap();
}

#[test]
fn commands_in_the_help_and_in_the_documentation_are_valid() {
    plugin().check_examples().unwrap();
}
