//! `kubectl argocd-rancher`, the program.

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::app::run::<kubectl_argocd_rancher::cli::ArgocdRancher>()
}
