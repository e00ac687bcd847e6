//! `kubectl bootstrap-token create`: creates a token and prints it once.
//!
//! The rules of the authenticator are checked before the first request. The API server would store an invalid token, and reject it
//! when a node joins.

use std::collections::BTreeMap;

use bootstrap::{BOOTSTRAPPERS, Group, KUBEADM_GROUP, NewToken, Token, TokenSecret, Usage, tokens};
use cli::ExitCode;
use cli::app::{Context, DryRun, GlobalFlags};
use cli::output::{self, OutputFlags, OutputFormat};
use cli::ui::Ui;
use client::error::Error;
use supervisor::{CaHash, Distribution};

use crate::cluster::{self, ClusterConnection};
use crate::endpoint::{self, EndpointFlags};
use crate::join;
use crate::lifetime::{DEFAULT, LifetimeFlags};
use crate::private_file::{PrivateFile, WriteFlags};
use crate::report::join::{JoinCheck, JoinMethod, checks};
use crate::report::row::TokenRow;
use crate::template::TokenTemplate;

/// How many random ids are tried. There are two billion ids.
const ATTEMPTS: usize = 10;

#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Create {
    #[command(flatten)]
    pub lifetime: LifetimeFlags,

    /// What the token is used for: authentication, signing (needed by `kubeadm join`)
    #[arg(
        long,
        value_name = "USAGES",
        value_delimiter = ',',
        default_value = "authentication,signing"
    )]
    pub usages: Vec<Usage>,

    /// Groups besides system:bootstrappers; default by distribution, '' for none
    #[arg(long, value_name = "GROUPS")]
    pub groups: Option<String>,

    /// Human-readable description
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub description: String,

    /// Comma separated labels to apply to the Secret
    #[arg(short = 'l', long, value_name = "KEY=VALUE", value_delimiter = ',', value_parser = label)]
    pub labels: Vec<(String, String)>,

    /// Create the token on standard input, as `generate` printed it
    #[arg(long)]
    pub token_stdin: bool,

    /// Must be "none", "server", or "client". If client strategy, only print what would be created. If server strategy, submit a server-side dry run
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "client", default_value_t, value_name = "MODE")]
    pub dry_run: DryRun,

    /// Include the token in -o json, yaml, jsonpath and custom-columns
    #[arg(long, help_heading = "Output options")]
    pub show_token: bool,

    /// Output format: kubeconfig, json, yaml, name, jsonpath=TEMPLATE, custom-columns=SPEC; by default only the token
    #[arg(short = 'o', long, value_name = "FORMAT", help_heading = "Output options")]
    pub output: Option<String>,

    #[command(flatten)]
    pub write: WriteFlags,

    #[command(flatten)]
    pub endpoint: EndpointFlags,
}

const EXAMPLES: &str = "\
Examples:
  # Create a token that is valid for one hour
  kubectl bootstrap-token create

  # Write a bootstrap kubeconfig for a kubelet, valid for 15 minutes, that only its owner can read
  kubectl bootstrap-token create --ttl 15m --usages authentication -o kubeconfig --write node.conf

  # Create a token in a group of its own (see `rbac apply --group`)
  kubectl bootstrap-token create --groups system:bootstrappers:gpu --description 'rack 7' -l rack=7

  # Let the API server check what would be created
  kubectl bootstrap-token create --dry-run=server -o yaml

The token is printed only once. -o json and similar formats contain it only with --show-token.";

pub(crate) async fn run(create: Create, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let ui = &context.ui;
    let output = CreateOutput::of(&create)?;
    let mut template = template(&create)?;
    let file = create.write.open()?;
    let given = cluster::token_from_stdin(ui, create.token_stdin).await?;
    if let Some(weakness) = given.as_ref().and_then(Token::weakness) {
        ui.warn(format!("the token on stdin can be guessed: {weakness}"));
    }
    let cluster = ClusterConnection::open(global, context)?;
    // Also sets the server's clock.
    let distribution = Distribution::of_version(&cluster.version().await?);
    if create.groups.is_none() && template.usages.contains(&Usage::Authentication) {
        template.groups = vec![default_group(distribution)];
    }
    let endpoint = match output {
        CreateOutput::Kubeconfig => Some(endpoint::find(&cluster, create.endpoint, ui).await?),
        _ => None,
    };
    // A created token is also printed.
    let _hold = ui.hold();
    let (new, created) = create_token(&template, given, &cluster, create.dry_run).await?;
    if create.dry_run != DryRun::None {
        print_preview(&create, &output, created, &cluster, ui)?;
        return Ok(ExitCode::Done);
    }
    let token = CreatedToken {
        new: &new,
        created: &created,
        distribution,
        cluster: &cluster,
        ui,
    };
    let delivered = match (&output, endpoint) {
        (CreateOutput::Document(flags, format), _) => token.document(flags, format, create.show_token),
        (CreateOutput::Kubeconfig, Some(endpoint)) => {
            let text = endpoint.kubeconfig(&new.token);
            text.and_then(|text| token.deliver(&text, file))
        }
        _ => token.bare(file).await,
    };
    if let Err(error) = delivered {
        return Err(token.take_back(&error).await);
    }
    warn_if_it_cannot_join(&new, distribution, &cluster, ui).await;
    Ok(ExitCode::Done)
}

/// What is printed.
enum CreateOutput {
    Token,
    Kubeconfig,
    Document(OutputFlags, OutputFormat),
}

impl CreateOutput {
    fn of(create: &Create) -> Result<Self, Error> {
        let output = match create.output.as_deref().unwrap_or_default() {
            "" => Self::Token,
            "kubeconfig" => Self::Kubeconfig,
            text => {
                let flags = OutputFlags {
                    output: Some(text.to_owned()),
                    ..OutputFlags::default()
                };
                match flags.format()? {
                    OutputFormat::Wide => return Err(Error::usage("create does not support -o wide")),
                    format => Self::Document(flags, format),
                }
            }
        };
        let is_kubeconfig = matches!(output, Self::Kubeconfig);
        if create.dry_run != DryRun::None && (create.show_token || is_kubeconfig) {
            return Err(Error::usage("a dry run creates no token that could be printed"));
        }
        if create.show_token && !matches!(output, Self::Document(..)) {
            return Err(Error::usage(
                "--show-token requires -o json, yaml, jsonpath or custom-columns",
            ));
        }
        if create.write.write.is_some() && (create.dry_run != DryRun::None || matches!(output, Self::Document(..))) {
            return Err(Error::usage(
                "--write takes the token itself or -o kubeconfig, without --dry-run",
            ));
        }
        if create.endpoint.endpoint_from.is_some() && !is_kubeconfig {
            return Err(Error::usage("--endpoint-from requires -o kubeconfig"));
        }
        Ok(output)
    }
}

fn template(create: &Create) -> Result<TokenTemplate, Error> {
    let mut usages = create.usages.clone();
    usages.sort_unstable();
    usages.dedup();
    let groups = groups(create.groups.as_deref().unwrap_or_default())?;
    if !usages.contains(&Usage::Authentication) && !groups.is_empty() {
        return Err(Error::usage("a token with groups needs the usage authentication")
            .hint("add authentication to --usages, or omit --groups"));
    }
    Ok(TokenTemplate {
        usages,
        groups,
        ttl: create.lifetime.checked(Some(DEFAULT))?,
        description: create.description.clone(),
        labels: create.labels.iter().cloned().collect(),
    })
}

fn groups(text: &str) -> Result<Vec<Group>, Error> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let group = |text: &str| {
        text.parse().map_err(|flaw| {
            Error::usage(format!("invalid --groups: group {text:?} {flaw}")).hint(
                "a group has the form system:bootstrappers:NAME, with a-z, 0-9, ':' and '-'; separate groups with commas only",
            )
        })
    };
    text.split(',').map(group).collect()
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label must have the form KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Creates the token. If its random id is taken, tries another one.
async fn create_token(
    template: &TokenTemplate,
    given: Option<Token>,
    cluster: &ClusterConnection,
    dry_run: DryRun,
) -> Result<(NewToken, TokenSecret), Error> {
    let write = cluster::write(dry_run == DryRun::Server);
    for _ in 0..ATTEMPTS {
        let token = given.clone().map_or_else(Token::generate, Ok)?;
        let new = template.token(token, BTreeMap::new(), cluster.server.clock.now())?;
        if dry_run == DryRun::Client {
            let preview = new.preview();
            return Ok((new, preview));
        }
        match tokens::create(cluster.client(), &new, &write).await {
            Ok(created) => return Ok((new, created)),
            Err(error) if error.is_already_exists() && given.is_none() => {}
            Err(error) if error.is_unanswered() && dry_run == DryRun::None => {
                return find_created(new, error, cluster).await;
            }
            Err(error) if error.is_already_exists() => {
                return Err(Error::from(error).hint("generate another token: this id is taken"));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::failed(format!("{ATTEMPTS} random ids in a row are taken")))
}

/// After a lost response: looks for the Secret, and compares its token.
async fn find_created(
    new: NewToken,
    error: bootstrap::Error,
    cluster: &ClusterConnection,
) -> Result<(NewToken, TokenSecret), Error> {
    match tokens::get(cluster.client(), &new.token.id).await {
        Ok(Some(created)) if created.token.as_ref() == Some(&new.token) => Ok((new, created)),
        Ok(_) => Err(error.into()),
        Err(_) => Err(Error::from(error).hint(format!(
            "it may have been created: `{}` revokes it if it exists",
            cluster.command("revoke", new.token.id.as_str())
        ))),
    }
}

/// The group that the distribution's own command gives a new token.
fn default_group(distribution: Distribution) -> Group {
    let name = match distribution {
        Distribution::Kubernetes => KUBEADM_GROUP,
        Distribution::K3s => "system:bootstrappers:k3s:default-node-token",
        Distribution::Rke2 => "system:bootstrappers:rke2:default-node-token",
    };
    name.parse().expect("a valid group")
}

/// The API server accepts a valid token that nodes cannot join with.
async fn warn_if_it_cannot_join(new: &NewToken, distribution: Distribution, cluster: &ClusterConnection, ui: &Ui) {
    let inputs = join::inputs_of_new(new, distribution, cluster, ui).await;
    let is_meant = |check: &JoinCheck| match check.kind {
        JoinMethod::Kubeadm => new.usages.contains(&Usage::Signing),
        JoinMethod::Kubelet => new.usages.contains(&Usage::Authentication),
        JoinMethod::Agent => true,
    };
    for check in checks(&inputs).into_iter().filter(is_meant) {
        if !check.reasons.is_empty() {
            ui.warn(check);
        }
    }
    if inputs.permissions != Ok([true, true]) {
        let group = new.groups.first().map_or(BOOTSTRAPPERS, Group::as_str);
        ui.hint(cluster.rbac_apply(group));
    }
}

/// Prints what a dry run would create, without the token.
fn print_preview(
    create: &Create,
    output: &CreateOutput,
    preview: TokenSecret,
    cluster: &ClusterConnection,
    ui: &Ui,
) -> Result<(), Error> {
    if let CreateOutput::Document(flags, _) = output {
        return output::print_object(ui, flags, &TokenRow::new(preview, cluster.server.clock.now()));
    }
    ui.out(format!("secret/{} created{}", preview.name, create.dry_run.suffix()));
    Ok(())
}

/// A created token on its way to the user.
struct CreatedToken<'a> {
    new: &'a NewToken,
    created: &'a TokenSecret,
    distribution: Distribution,
    cluster: &'a ClusterConnection,
    ui: &'a Ui,
}

impl CreatedToken<'_> {
    /// The token itself, in the form that nodes of the distribution take.
    async fn bare(&self, file: Option<PrivateFile>) -> Result<(), Error> {
        let (id, token) = (&self.new.token.id, &self.new.token);
        self.ui.status(match self.new.expiration {
            Some(time) => format!("Token {id} expires at {}.", bootstrap::expiration::format(time)),
            None => format!("Token {id} never expires. Revoke it when it is no longer needed."),
        });
        let with_authority = if self.distribution.supervisor().is_some() {
            let authority = self.cluster.authority_of_supervisor().await;
            let text = authority.and_then(|pem| Some(CaHash::of(&pem)?.join_token(&token.text())));
            if text.is_none() {
                self.ui
                    .warn("the token is printed without the hash of the certificate authority, which is not known: agents do not verify the server with it");
            }
            text
        } else {
            None
        };
        let text = with_authority.unwrap_or_else(|| token.text());
        self.deliver(&format!("{}\n", text.expose()), file)
    }

    fn document(&self, flags: &OutputFlags, format: &OutputFormat, show_token: bool) -> Result<(), Error> {
        let mut row = TokenRow::new(self.created.clone(), self.cluster.server.clock.now());
        if show_token {
            row = row.with_token(&self.new.token);
        } else if !matches!(format, OutputFormat::Name) {
            self.ui
                .hint("the output does not contain the token; to include it, pass --show-token");
        }
        output::print_object(self.ui, flags, &row)?;
        self.is_printed()
    }

    fn deliver(&self, text: &str, file: Option<PrivateFile>) -> Result<(), Error> {
        if let Some(file) = file {
            return file.write(text);
        }
        self.ui.write_out(text);
        self.is_printed()
    }

    fn is_printed(&self) -> Result<(), Error> {
        self.ui.output_error().cloned().map_or(Ok(()), Err)
    }

    /// Revokes a token that could not be delivered.
    async fn take_back(&self, error: &Error) -> Error {
        let (id, why) = (&self.new.token.id, error.to_string());
        let why = why.trim_start_matches("error: ");
        match tokens::delete(self.cluster.client(), self.created, &cluster::write(false)).await {
            Ok(()) => Error::failed(format!(
                "bootstrap token {id} was revoked, since it could not be delivered: {why}"
            )),
            Err(_) => Error::failed(format!(
                "bootstrap token {id} was created, but could not be delivered: {why}"
            ))
            .hint(format!("`{}` revokes it", self.cluster.command("revoke", id.as_str()))),
        }
    }
}
