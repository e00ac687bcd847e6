//! `kubectl bootstrap-token create`: makes a token, and prints it once.
//!
//! Everything is checked by the authenticator's own rules before it is written: the API server stores anything, and says
//! later, to the node, no more than 401.

use std::collections::BTreeMap;
use std::time::Duration;

use bootstrap::judge::{EVERY_TOKEN, Group, KUBEADM_GROUP, Usage};
use bootstrap::{NewToken, Token, TokenSecret, rbac, tokens};
use cli::ExitCode;
use cli::app::{Context, DryRun, GlobalFlags};
use cli::output::{self, OutputFlags, OutputFormat};
use client::error::Error;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::endpoint::{self, Endpoint, EndpointFlags};
use crate::lifetime::{DEFAULT, LifetimeFlags};
use crate::report::kubeconfig;
use crate::report::row::Row;
use crate::side::{self, Side};

/// How often a taken id is drawn again. There are two thousand million ids.
const DRAWS: usize = 10;

/// What is typed after `kubectl bootstrap-token create`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Create {
    /// How long it lives; an hour where nothing is said.
    #[command(flatten)]
    pub lifetime: LifetimeFlags,

    /// What it is for: authentication, signing (which `kubeadm join` needs)
    #[arg(
        long,
        value_name = "USAGES",
        value_delimiter = ',',
        default_value = "authentication,signing"
    )]
    pub usages: Vec<Usage>,

    /// Groups besides system:bootstrappers; by default kubeadm's, none with --groups ''
    #[arg(long, value_name = "GROUPS")]
    pub groups: Option<String>,

    /// For people
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub description: String,

    /// Labels of its Secret
    #[arg(short = 'l', long, value_name = "KEY=VALUE", value_delimiter = ',', value_parser = label)]
    pub labels: Vec<(String, String)>,

    /// Make the token that stands on standard input, as `generate` has printed it
    #[arg(long)]
    pub token_stdin: bool,

    /// Make nothing; with "server" the API server checks what would be made
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "client", default_value_t, value_name = "MODE")]
    pub dry_run: DryRun,

    /// Have the token itself in -o json, yaml, jsonpath and custom-columns
    #[arg(long, help_heading = "Output options")]
    pub show_token: bool,

    /// Output format: kubeconfig, json, yaml, name, jsonpath=TEMPLATE, custom-columns=SPEC; by default the token alone
    #[arg(short = 'o', long, value_name = "FORMAT", help_heading = "Output options")]
    pub output: Option<String>,

    /// For -o kubeconfig.
    #[command(flatten)]
    pub endpoint: EndpointFlags,
}

const EXAMPLES: &str = "\
Examples:
  # A token for the next hour
  kubectl bootstrap-token create

  # What a kubelet needs to join by TLS bootstrap, for a quarter of an hour
  kubectl bootstrap-token create --ttl 15m --usages authentication -o kubeconfig > bootstrap-kubelet.conf

  # For machines of one kind, in a group of their own (see `rbac apply --group`)
  kubectl bootstrap-token create --groups system:bootstrappers:gpu --description 'rack 7' -l rack=7

  # What would be made
  kubectl bootstrap-token create --dry-run=server -o yaml

The token is printed once, on standard output, and nowhere else; -o json and the like do not hold it without --show-token.
The end is counted by the API server's clock. More than 24h needs --allow-long, and no end --never-expires.";

/// Runs it.
pub(crate) async fn run(create: Create, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let form = Form::of(&create)?;
    let wanted = Wanted::of(&create)?;
    let given = side::token_from_stdin(&context.ui, create.token_stdin).await?;
    if let Some(weakness) = given.as_ref().and_then(Token::weakness) {
        context.ui.warn(format!("the given token can be guessed: {weakness}"));
    }
    let side = Side::open(global, context)?;
    // Before anything is decided by its clock, the server must have spoken.
    side.version().await?;
    let endpoint = match form {
        Form::Kubeconfig => Some(endpoint::find(&side, create.endpoint, &context.ui).await?),
        _ => None,
    };
    // What was created is also printed.
    let _hold = context.ui.hold();
    let (new, made) = make(&wanted, given, &side, create.dry_run).await?;
    warn_if_it_cannot_join(&new, &side, context).await;
    print(&create, &form, &new, made, endpoint.as_ref(), &side, context)?;
    Ok(ExitCode::Done)
}

/// What is printed.
enum Form {
    Token,
    Kubeconfig,
    Document(OutputFlags, OutputFormat),
}

impl Form {
    fn of(create: &Create) -> Result<Self, Error> {
        let dry = create.dry_run != DryRun::None;
        let form = match create.output.as_deref().unwrap_or_default() {
            "" => Self::Token,
            "kubeconfig" => Self::Kubeconfig,
            _ => {
                let (flags, format) = of_document(create.output.as_ref())?;
                Self::Document(flags, format)
            }
        };
        if dry && (create.show_token || matches!(form, Self::Kubeconfig)) {
            return Err(Error::usage("a dry run makes no token, so there is none to print"));
        }
        if create.show_token && !matches!(form, Self::Document(..)) {
            return Err(Error::usage(
                "--show-token is for -o json, yaml, jsonpath and custom-columns",
            ));
        }
        if create.endpoint.endpoint_from.is_some() && !matches!(form, Self::Kubeconfig) {
            return Err(Error::usage("--endpoint-from is for -o kubeconfig"));
        }
        Ok(form)
    }
}

fn of_document(output: Option<&String>) -> Result<(OutputFlags, OutputFormat), Error> {
    let flags = OutputFlags {
        output: output.cloned(),
        ..OutputFlags::default()
    };
    match flags.format()? {
        OutputFormat::Wide => Err(Error::usage("a token has no wide form: leave -o out")),
        format => Ok((flags, format)),
    }
}

/// What was asked for, checked.
struct Wanted {
    usages: Vec<Usage>,
    groups: Vec<Group>,
    ttl: Option<Duration>,
    description: String,
    labels: BTreeMap<String, String>,
}

impl Wanted {
    fn of(create: &Create) -> Result<Self, Error> {
        let mut usages = create.usages.clone();
        usages.sort_unstable();
        usages.dedup();
        let authenticates = usages.contains(&Usage::Authentication);
        let groups = groups(create.groups.as_deref(), authenticates)?;
        if !authenticates && !groups.is_empty() {
            return Err(Error::usage("a token that is not for authentication is in no group")
                .hint("add authentication to --usages, or leave --groups out"));
        }
        Ok(Self {
            usages,
            groups,
            ttl: create.lifetime.wanted(Some(DEFAULT))?,
            description: create.description.clone(),
            labels: create.labels.iter().cloned().collect(),
        })
    }

    fn with(&self, token: Token, now: Timestamp) -> Result<NewToken, Error> {
        Ok(NewToken {
            token,
            usages: self.usages.clone(),
            groups: self.groups.clone(),
            expiration: self.ttl.map(|ttl| end(now, ttl)).transpose()?,
            description: self.description.clone(),
            labels: self.labels.clone(),
            annotations: BTreeMap::new(),
        })
    }
}

/// When a life that begins now ends.
pub(super) fn end(now: Timestamp, ttl: Duration) -> Result<Timestamp, Error> {
    let ttl = SignedDuration::try_from(ttl).ok();
    ttl.and_then(|ttl| now.checked_add(ttl).ok())
        .ok_or_else(|| Error::usage("that is beyond the end of time; --never-expires says so"))
}

fn groups(typed: Option<&str>, authenticates: bool) -> Result<Vec<Group>, Error> {
    let text = typed.unwrap_or(if authenticates { KUBEADM_GROUP } else { "" });
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let group = |text: &str| {
        text.parse().map_err(|flaw| {
            Error::usage(format!("group {text:?} {flaw}; the API server would refuse the token"))
                .hint("a group reads system:bootstrappers:NAME, in a-z, 0-9, ':' and '-'; several are divided by commas alone")
        })
    };
    text.split(',').map(group).collect()
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label reads KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Makes it. An id that is taken is drawn again, unless the token was given.
async fn make(
    wanted: &Wanted,
    given: Option<Token>,
    side: &Side,
    dry_run: DryRun,
) -> Result<(NewToken, TokenSecret), Error> {
    let write = side::write(dry_run == DryRun::Server);
    for _ in 0..DRAWS {
        let token = given.clone().map_or_else(Token::generate, Ok)?;
        let new = wanted.with(token, side.server.clock.now())?;
        if dry_run == DryRun::Client {
            let preview = new.preview();
            return Ok((new, preview));
        }
        match tokens::create(side.client(), &new, &write).await {
            Ok(made) => return Ok((new, made)),
            Err(error) if error.is_already_exists() && given.is_none() => {}
            Err(error) if error.is_unanswered() && dry_run == DryRun::None => {
                return if_it_was_made(new, error, side).await;
            }
            Err(error) if error.is_already_exists() => {
                return Err(Error::from(error).hint("another token has this id: generate another one"));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::failed(format!(
        "{DRAWS} ids in a row were taken, which no chance explains"
    )))
}

/// No answer came: the Secret is looked for, and known by its token.
async fn if_it_was_made(new: NewToken, error: bootstrap::Error, side: &Side) -> Result<(NewToken, TokenSecret), Error> {
    match tokens::get(side.client(), &new.token.id).await {
        Ok(Some(made)) if made.token.as_ref() == Some(&new.token) => Ok((new, made)),
        Ok(_) => Err(error.into()),
        Err(_) => Err(Error::from(error).hint(format!(
            "it may have been made all the same: see `kubectl bootstrap-token list`, and revoke {} if it is there",
            new.token.id
        ))),
    }
}

/// A token whose group may ask for nothing is accepted, and its node joins nothing. The API server is asked, because only
/// it knows of every binding; whoever may not ask is told nothing.
async fn warn_if_it_cannot_join(new: &NewToken, side: &Side, context: &Context) {
    if !new.usages.contains(&Usage::Authentication) {
        return;
    }
    let groups: Vec<String> = new.groups.iter().map(ToString::to_string).collect();
    let named = new.groups.first().map_or(EVERY_TOKEN, Group::as_str);
    let hint = || {
        let hint = format!("kubectl bootstrap-token rbac apply --group {named}");
        context.ui.hint(hint);
    };
    match rbac::may_join(side.client(), &new.token.id, &groups).await {
        Ok([true, true]) => {}
        Ok([false, _]) => {
            context
                .ui
                .warn("no binding lets this token ask for a certificate: a node cannot join with it");
            hint();
        }
        Ok([true, false]) => {
            context.ui.warn(
                "nothing approves the certificates that are asked for with this token: somebody must do it by hand",
            );
            hint();
        }
        Err(error) => context.ui.log(4, || {
            format!("whether the token may join is unknown: {}", Error::from(error))
        }),
    }
}

fn print(
    create: &Create,
    form: &Form,
    new: &NewToken,
    made: TokenSecret,
    endpoint: Option<&Endpoint>,
    side: &Side,
    context: &Context,
) -> Result<(), Error> {
    let ui = &context.ui;
    match (form, endpoint) {
        (Form::Document(flags, format), _) => {
            let row = Row::new(made, side.server.clock.now());
            let row = if create.show_token {
                row.with_token(&new.token)
            } else {
                row
            };
            if !create.show_token && create.dry_run == DryRun::None && !matches!(format, OutputFormat::Name) {
                ui.hint("the token itself is not in here: --show-token puts it in");
            }
            output::print_object(ui, flags, &row)
        }
        _ if create.dry_run != DryRun::None => {
            ui.out(format!("secret/{} created{}", made.name, create.dry_run.suffix()))
        }
        (Form::Kubeconfig, Some(endpoint)) => ui.write_out(&kubeconfig::of(&new.token, endpoint)?),
        _ => {
            ui.status(match new.expiration {
                Some(end) => format!(
                    "The token {} ends at {}.",
                    new.token.id,
                    bootstrap::expiration::format(end)
                ),
                None => format!("The token {} never ends: revoke it when it has served.", new.token.id),
            });
            ui.out(new.token.text().expose())
        }
    }
}
