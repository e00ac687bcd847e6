//! `kubectl bootstrap-token rbac`: shows and creates the bindings that a node needs to join with a token, and warns about bindings
//! that grant more.

use bootstrap::rbac::{self, Bindings, ExcessiveBinding, GrantStatus};
use bootstrap::{BOOTSTRAPPERS, Group, GroupFlaw, KUBEADM_GROUP};
use cli::ExitCode;
use cli::app::{Context, DryRun, GlobalFlags};
use cli::output::{self, OutputFlags, OutputFormat};
use cli::table::{Column, Look, Table};
use cli::ui::Ui;
use client::error::Error;
use serde::Serialize;

use crate::cluster::{self, ClusterConnection};
use crate::report::API_VERSION;

#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Rbac {
    #[command(subcommand)]
    pub command: RbacCommand,
}

#[derive(clap::Subcommand, Clone, Debug)]
pub(crate) enum RbacCommand {
    /// Show the required bindings, and bindings that grant tokens more
    #[command(after_help = EXAMPLES)]
    Show(Show),
    /// Create the missing bindings
    #[command(after_help = EXAMPLES)]
    Apply(Apply),
}

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Show {
    /// The group of the tokens
    #[arg(long, value_name = "GROUP", default_value = KUBEADM_GROUP, value_parser = group)]
    pub group: String,

    /// Output format: json, yaml, jsonpath=TEMPLATE, custom-columns=SPEC
    #[arg(short = 'o', long, value_name = "FORMAT", help_heading = "Output options")]
    pub output: Option<String>,
}

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Apply {
    /// The group of the tokens
    #[arg(long, value_name = "GROUP", default_value = KUBEADM_GROUP, value_parser = group)]
    pub group: String,

    /// Must be "none", "server", or "client". If client strategy, only print what would be created. If server strategy, submit a server-side dry run
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "client", default_value_t, value_name = "MODE")]
    pub dry_run: DryRun,
}

const EXAMPLES: &str = "\
Examples:
  # Show whether nodes can join with kubeadm's tokens, and what else those tokens are granted
  kubectl bootstrap-token rbac show

  # Let nodes join with tokens in another group
  kubectl bootstrap-token rbac apply --group system:bootstrappers:gpu

Joining needs three bindings: to request a certificate, to have the first one approved, and to have renewals approved. Existing bindings of any name count, such as those of kubeadm.

`kubeadm join` also reads ConfigMaps and nodes. `kubeadm init phase bootstrap-token` grants that to kubeadm's group only.";

/// A group of tokens, or the group of all tokens.
fn group(text: &str) -> Result<String, GroupFlaw> {
    if text == BOOTSTRAPPERS {
        return Ok(text.to_owned());
    }
    Ok(text.parse::<Group>()?.to_string())
}

/// The document of `-o json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RbacStatus<'a> {
    api_version: &'static str,
    kind: &'static str,
    group: &'a str,
    /// All required bindings exist.
    complete: bool,
    grants: Vec<GrantRow<'a>>,
    excess: &'a [ExcessiveBinding],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct GrantRow<'a> {
    purpose: &'static str,
    role: &'static str,
    subject: &'a str,
    binding: Option<&'a str>,
}

const COLUMNS: &[Column] = &[
    Column::new("PURPOSE"),
    Column::new("GROUP"),
    Column::new("CLUSTERROLE"),
    Column::new("BINDING"),
];

pub(crate) async fn run(rbac: Rbac, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    match rbac.command {
        RbacCommand::Show(show) => run_show(&show, global, context).await,
        RbacCommand::Apply(apply) => run_apply(&apply, global, context).await,
    }
}

async fn run_show(show: &Show, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let (flags, format) = OutputFlags::of_page(show.output.as_ref(), "rbac show")?;
    let cluster = ClusterConnection::open(global, context)?;
    let bindings = rbac::read(cluster.client(), &show.group).await?;
    let complete = bindings.is_complete();
    let rows = bindings.grants.iter().map(|status| GrantRow {
        purpose: status.grant.purpose(),
        role: status.grant.role(),
        subject: status.grant.subject(&show.group),
        binding: status.binding.as_deref(),
    });
    if let OutputFormat::Table = format {
        let mut table = Table::new(COLUMNS);
        for row in rows {
            let binding = row.binding.unwrap_or("<missing>");
            table.row([row.purpose, row.subject, row.role, binding]);
        }
        context.ui.write_out(&table.render(Look::default()));
    } else {
        let document = RbacStatus {
            api_version: API_VERSION,
            kind: "BootstrapRBAC",
            group: &show.group,
            complete,
            grants: rows.collect(),
            excess: &bindings.excess,
        };
        output::print_value(&context.ui, &flags, &document)?;
    }
    warn_about_excess(&bindings, &context.ui);
    if !complete {
        context.ui.hint(cluster.rbac_apply(&show.group));
    }
    Ok(ExitCode::Done)
}

async fn run_apply(apply: &Apply, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let ui = &context.ui;
    let cluster = ClusterConnection::open(global, context)?;
    let bindings = rbac::read(cluster.client(), &apply.group).await?;
    for status in &bindings.grants {
        let (name, created) = create_missing(status, apply, &cluster).await?;
        let result = if created {
            format!("created{}", apply.dry_run.suffix())
        } else {
            "unchanged".to_owned()
        };
        ui.out(format!("clusterrolebinding.rbac.authorization.k8s.io/{name} {result}"));
    }
    warn_about_excess(&bindings, ui);
    Ok(ExitCode::Done)
}

/// Creates a binding if it is missing. Returns its name, and whether it was created.
async fn create_missing(
    status: &GrantStatus,
    apply: &Apply,
    cluster: &ClusterConnection,
) -> Result<(String, bool), Error> {
    let group = apply.group.as_str();
    if let Some(name) = &status.binding {
        return Ok((name.clone(), false));
    }
    if apply.dry_run == DryRun::Client {
        return Ok((status.grant.binding_name(group), true));
    }
    let write = cluster::write(apply.dry_run == DryRun::Server);
    match rbac::apply(cluster.client(), status.grant, group, &write).await {
        Ok(name) => Ok((name, true)),
        // It was created meanwhile, or another binding has its name.
        Err(error) if error.is_already_exists() => {
            let bindings = rbac::read(cluster.client(), group).await?;
            let now = bindings.grants.into_iter().find(|now| now.grant == status.grant);
            match now.and_then(|now| now.binding) {
                Some(name) => Ok((name, false)),
                None => Err(Error::from(error)
                    .hint("a binding with this name has another role or subject: check it, and delete or rename it")),
            }
        }
        Err(error) => Err(error.into()),
    }
}

/// An attacker with a token has all of these permissions.
fn warn_about_excess(bindings: &Bindings, ui: &Ui) {
    for excess in &bindings.excess {
        let ExcessiveBinding {
            kind,
            name,
            role,
            group,
            ..
        } = excess;
        let place = excess
            .namespace
            .as_deref()
            .map_or(String::new(), |namespace| format!(" in namespace {namespace}"));
        ui.warn(format!(
            "{kind} {name}{place} grants tokens in {group} more than joining needs: {role}"
        ));
    }
    if bindings.namespaces_unknown {
        ui.warn("no permission to list RoleBindings: bindings that grant tokens more in a namespace are unknown");
    }
}
