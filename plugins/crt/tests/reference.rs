//! The generated pages are up to date, and the help follows the rules of the project.

use kubectl_crt::cli::Crt;
use kubectl_crt::rights;
use reference::Plugin;

fn plugin() -> Plugin {
    Plugin {
        name: "crt",
        command: cli::app::command::<Crt>(),
        rotations: &[
            ("crt-rotation", include_str!("../src/rotation/stages.rs")),
            ("crt-rescue", include_str!("../src/rotation/rescue.rs")),
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
        .check_help(env!("CARGO_BIN_EXE_kubectl-crt"), &["rotate", "rescue", "rollback"])
        .unwrap();
}

#[test]
fn commands_in_the_help_and_in_the_documentation_are_valid() {
    plugin().check_examples().unwrap();
}
