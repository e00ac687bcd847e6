//! `kubectl bootstrap-token rbac`: the bindings that a node needs to join with a token, shown or made; and what tokens are
//! given beyond that.

use bootstrap::judge::{EVERY_TOKEN, Group, GroupFlaw, KUBEADM_GROUP};
use bootstrap::rbac::{self, Excess, Given, Survey};
use cli::ExitCode;
use cli::app::{Context, DryRun, GlobalFlags};
use cli::output::{self, OutputFlags, OutputFormat};
use cli::table::{Column, Look, Table};
use cli::ui::Ui;
use client::error::Error;
use serde::Serialize;

use crate::report::API_VERSION;
use crate::side::{self, Side};

/// What is typed after `kubectl bootstrap-token rbac`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Rbac {
    /// Show or make.
    #[command(subcommand)]
    pub what: What,
}

/// Show or make.
#[derive(clap::Subcommand, Clone, Debug)]
pub(crate) enum What {
    /// Show which of the bindings are there, and which others give tokens more than they need
    #[command(after_help = EXAMPLES)]
    Show(Show),
    /// Make the bindings that are missing
    #[command(after_help = EXAMPLES)]
    Apply(Apply),
}

/// What is typed after `rbac show`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Show {
    /// The group of the tokens
    #[arg(long, value_name = "GROUP", default_value = KUBEADM_GROUP, value_parser = group)]
    pub group: String,

    /// Output format: json, yaml, jsonpath=TEMPLATE, custom-columns=SPEC
    #[arg(short = 'o', long, value_name = "FORMAT", help_heading = "Output options")]
    pub output: Option<String>,
}

/// What is typed after `rbac apply`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Apply {
    /// The group of the tokens
    #[arg(long, value_name = "GROUP", default_value = KUBEADM_GROUP, value_parser = group)]
    pub group: String,

    /// Make nothing; with "server" the API server checks what would be made
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "client", default_value_t, value_name = "MODE")]
    pub dry_run: DryRun,
}

const EXAMPLES: &str = "\
Examples:
  # May nodes join with kubeadm's tokens, and may those do more than that?
  kubectl bootstrap-token rbac show

  # Let nodes join with tokens of a group of our own
  kubectl bootstrap-token rbac apply --group system:bootstrappers:gpu

Three bindings are needed: to ask for a certificate, to have the first one approved, and to have renewals approved. A
binding of any name counts, so that kubeadm's own are not made a second time. `kubeadm join` reads some ConfigMaps and
nodes besides; `kubeadm init phase bootstrap-token` gives its own group the right to that.";

/// A group that a binding may be for: that of every token too.
fn group(text: &str) -> Result<String, GroupFlaw> {
    if text == EVERY_TOKEN {
        return Ok(text.to_owned());
    }
    Ok(text.parse::<Group>()?.to_string())
}

/// The document of `-o json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    api_version: &'static str,
    kind: &'static str,
    group: &'a str,
    /// All three are there.
    complete: bool,
    grants: Vec<Row>,
    excess: &'a [Excess],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    purpose: &'static str,
    role: &'static str,
    subject: String,
    /// `None`: nothing gives it.
    binding: Option<String>,
}

const COLUMNS: &[Column] = &[
    Column::new("TO"),
    Column::new("GROUP"),
    Column::new("CLUSTERROLE"),
    Column::new("BINDING"),
];

/// Runs it.
pub(crate) async fn run(rbac: Rbac, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    match rbac.what {
        What::Show(show) => run_show(&show, global, context).await,
        What::Apply(apply) => run_apply(&apply, global, context).await,
    }
}

async fn run_show(show: &Show, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let (flags, format) = OutputFlags::of_page(show.output.as_ref(), "rbac show")?;
    let side = Side::open(global, context)?;
    let survey = rbac::survey(side.client(), show.group.as_str()).await?;
    let complete = survey.missing().is_empty();
    let rows: Vec<Row> = survey.given.iter().map(|given| row(given, &show.group)).collect();
    if let OutputFormat::Table = format {
        let mut table = Table::new(COLUMNS);
        for row in &rows {
            let binding = row.binding.as_deref().unwrap_or("<missing>");
            table.row([row.purpose, row.subject.as_str(), row.role, binding]);
        }
        context.ui.write_out(&table.render(Look::default()))?;
    } else {
        let document = Document {
            api_version: API_VERSION,
            kind: "BootstrapRBAC",
            group: &show.group,
            complete,
            grants: rows,
            excess: &survey.excess,
        };
        output::print_value(&context.ui, &flags, &document)?;
    }
    alarm(&survey, &context.ui);
    if !complete {
        context
            .ui
            .hint(format!("kubectl bootstrap-token rbac apply --group {}", show.group));
    }
    Ok(ExitCode::Done)
}

fn row(given: &Given, group: &str) -> Row {
    Row {
        purpose: given.grant.purpose(),
        role: given.grant.role(),
        subject: given.grant.subject(group).to_owned(),
        binding: given.by.clone(),
    }
}

async fn run_apply(apply: &Apply, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let ui = &context.ui;
    let side = Side::open(global, context)?;
    let survey = rbac::survey(side.client(), apply.group.as_str()).await?;
    for given in &survey.given {
        let (name, made) = one(given, apply, &side).await?;
        let done = if made {
            format!("created{}", apply.dry_run.suffix())
        } else {
            "unchanged".to_owned()
        };
        ui.out(format!("clusterrolebinding.rbac.authorization.k8s.io/{name} {done}"))?;
    }
    alarm(&survey, ui);
    Ok(ExitCode::Done)
}

/// Makes what nothing gives yet; gives the name of the binding, and whether it is new.
async fn one(given: &Given, apply: &Apply, side: &Side) -> Result<(String, bool), Error> {
    let group = apply.group.as_str();
    if let Some(name) = &given.by {
        return Ok((name.clone(), false));
    }
    if apply.dry_run == DryRun::Client {
        return Ok((given.grant.binding_name(group), true));
    }
    let write = side::write(apply.dry_run == DryRun::Server);
    match rbac::apply(side.client(), given.grant, group, &write).await {
        Ok(name) => Ok((name, true)),
        // Somebody else may have made it in between; or the name is taken by something else.
        Err(error) if error.is_already_exists() => {
            let survey = rbac::survey(side.client(), group).await?;
            let now = survey.given.into_iter().find(|now| now.grant == given.grant);
            match now.and_then(|now| now.by) {
                Some(name) => Ok((name, false)),
                None => Err(Error::from(error).hint(
                    "a binding of that name is there and binds something else: look at it, and delete or rename it",
                )),
            }
        }
        Err(error) => Err(error.into()),
    }
}

/// Whoever gets hold of a token can do all of this.
fn alarm(survey: &Survey, ui: &Ui) {
    for excess in &survey.excess {
        let Excess {
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
            "{kind} {name}{place} gives tokens of {group} more than joining needs: {role}"
        ));
    }
    if survey.namespaces_unknown {
        ui.warn("no right to list RoleBindings: what tokens are given in single namespaces is unknown");
    }
}
