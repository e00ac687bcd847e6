//! The generated pages are up to date, and the help follows the rules of the project.

use kubectl_argocd_rancher::cli::ArgocdRancher;
use kubectl_argocd_rancher::rights;
use reference::Plugin;

fn plugin() -> Plugin {
    Plugin {
        name: "argocd-rancher",
        command: cli::app::command::<ArgocdRancher>(),
        rotations: &[("argocd-rancher-rotation", include_str!("../src/rotation/stages.rs"))],
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
            env!("CARGO_BIN_EXE_kubectl-argocd_rancher"),
            &["add", "rollback", "rotate"],
        )
        .unwrap();
}

#[test]
fn commands_in_the_help_and_in_the_documentation_are_valid() {
    plugin().check_examples().unwrap();
}
