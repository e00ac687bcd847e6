//! `kubectl argocd-rancher verify`: proves that the token that Argo CD has for a cluster works, or says what is wrong.

use argocd::{ClusterSecret, connection, lookup};
use cli::ExitCode;
use cli::app::{Context, GlobalFlags};
use cli::output::{self, OutputFlags, OutputFormat};
use cli::rotation::leases::LeasedRotations;
use client::error::{Error, Kind};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use rancher::ClusterId;
use serde::Serialize;

use crate::address::RancherAddress as _;
use crate::controller::BLIND;
use crate::mark::{self, API_VERSION};
use crate::proof::{Mark, Point, Trial};
use crate::report::product::Part;
use crate::rotation::ArgocdRancher;
use crate::sides::{ARGOCD, Argo, Rancher, RancherFlags};

/// How many clusters are asked at once: one whose agent is offline takes half a minute.
const AT_ONCE: usize = 8;

/// What is typed after `kubectl argocd-rancher verify`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Verify {
    /// Clusters by id, by the name that Argo CD calls them, or by the name of their Secret
    #[arg(value_name = "CLUSTER", required = true)]
    pub subjects: Vec<String>,

    /// The other side.
    #[command(flatten)]
    pub rancher: RancherFlags,

    /// Output format: json, yaml, jsonpath=TEMPLATE, custom-columns=SPEC
    #[arg(short = 'o', long, value_name = "FORMAT", help_heading = "Output options")]
    pub output: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  # Does Argo CD's token for this cluster work?
  kubectl argocd-rancher verify staging

  # The same for a script
  kubectl argocd-rancher verify c-x7k2p -o jsonpath='{.items[0].proven}'

The token of the Secret is used, with the trust that the Secret gives, as Argo CD does it; nothing is changed. An agent
that is offline takes Rancher half a minute to report. Exit code 0 means proven, 1 means not.";

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Verifications {
    api_version: &'static str,
    kind: &'static str,
    items: Vec<Verification>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Verification {
    secret: String,
    cluster_name: String,
    cluster: ClusterId,
    token: Option<String>,
    proven: bool,
    proofs: Vec<Point>,
}

/// Runs it.
pub(crate) async fn run(verify: Verify, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let (flags, format) = OutputFlags::of_page(verify.output.as_ref(), "verify")?;
    let argo = Argo::open(global, &context.environment)?;
    let rancher = verify.rancher.open(&argo, global, context).await?;
    let (clusters, rotations) = futures::try_join!(
        argo.clusters(),
        LeasedRotations::<ArgocdRancher>::read(&argo.server, Some(&argo.namespace), ARGOCD)
    )?;
    let chosen = verify
        .subjects
        .iter()
        .map(|asked| find(&clusters, asked))
        .collect::<Result<Vec<_>, _>>()?;
    // Owned values: futures that borrow from a closure's argument are not `Send`.
    let asked: Vec<_> = chosen
        .into_iter()
        .map(|cluster| one(&argo, rancher.as_ref(), cluster, &clusters, &rotations))
        .collect();
    let items: Vec<Verification> = stream::iter(asked).buffered(AT_ONCE).try_collect().await?;
    let proven = items.iter().all(|item| item.proven);
    let all = Verifications {
        api_version: API_VERSION,
        kind: "ArgoCDClusterVerificationList",
        items,
    };
    match format {
        OutputFormat::Table => print(context, &all.items)?,
        _ => output::print_value(&context.ui, &flags, &all)?,
    }
    Ok(if proven { ExitCode::Done } else { ExitCode::Failed })
}

/// The one cluster that the user means, among those that lead through Rancher.
pub(super) fn find<'a>(clusters: &'a [ClusterSecret], asked: &str) -> Result<&'a ClusterSecret, Error> {
    let through = || clusters.iter().filter(|cluster| cluster.server.rancher().is_some());
    if let Some(exact) = through().find(|cluster| cluster.object.name == asked) {
        return Ok(exact);
    }
    let is = |cluster: &&ClusterSecret| {
        let by_id = cluster.server.rancher().is_some_and(|(_, id)| id.as_str() == asked);
        by_id || cluster.name == asked
    };
    match through().filter(is).collect::<Vec<_>>()[..] {
        [one] => Ok(one),
        [] => Err(Error::new(
            Kind::NotFound,
            format!("Argo CD has no cluster {asked:?} that it reaches through Rancher"),
        )
        .hint("`kubectl argocd-rancher list` shows those that it has")),
        ref several => {
            let names: Vec<&str> = several.iter().map(|cluster| cluster.object.name.as_str()).collect();
            Err(
                Error::usage(format!("{asked:?} may be any of the Secrets {}", names.join(", ")))
                    .hint("name the Secret that is meant"),
            )
        }
    }
}

async fn one(
    argo: &Argo,
    rancher: Option<&Rancher>,
    cluster: &ClusterSecret,
    clusters: &[ClusterSecret],
    rotations: &LeasedRotations<ArgocdRancher>,
) -> Result<Verification, Error> {
    let token = cluster.token();
    let mut proofs = vec![secret(cluster, clusters)];
    let object = &cluster.object;
    if let Some(part) = rotations.of(&object.namespace, &object.name).and_then(Part::of) {
        let why = format!("not called: {part}, and a call could be taken for one of Argo CD's");
        proofs.push(Point::new("alone", Mark::Unknown, why));
    } else if let (Ok(config), Some(token)) = (&cluster.config, &token) {
        let found = Trial::of(cluster, config, token).run(argo, rancher).await?;
        proofs.extend(found.points());
    }
    let called = proofs.len() > 1;
    // That Argo CD is content proves nothing: it is so for hours after a token was revoked. That it is not does.
    proofs.extend(view(argo, cluster).await);
    let proven = proofs.iter().all(|point| point.status == Mark::Good) && called;
    let (_, id) = cluster
        .server
        .rancher()
        .ok_or_else(|| Error::failed(format!("{} does not lead through Rancher", cluster.server)))?;
    Ok(Verification {
        secret: cluster.object.name.clone(),
        cluster_name: cluster.name.clone(),
        cluster: id,
        token: token.as_ref().map(mark::shown),
        proven,
        proofs,
    })
}

fn secret(cluster: &ClusterSecret, clusters: &[ClusterSecret]) -> Point {
    let name = &cluster.object.name;
    let mut wrong: Vec<String> = cluster.problems.iter().map(ToString::to_string).collect();
    match &cluster.config {
        Err(bad) => wrong.push(bad.to_string()),
        Ok(config) => {
            wrong.extend(config.flaws().iter().map(|flaw| format!("config {flaw}")));
            if config.bearer_token().is_none() && config.flaws().is_empty() {
                wrong.push("Argo CD does not log in with a token here".to_owned());
            }
        }
    }
    let duplicates = lookup::duplicates(clusters);
    wrong.extend(
        duplicates
            .iter()
            .filter(|duplicate| duplicate.secrets.contains(name))
            .map(ToString::to_string),
    );
    if !wrong.is_empty() {
        return Point::new("secret", Mark::Bad, format!("Secret {name}: {}", wrong.join("; ")));
    }
    let token = cluster.token();
    let token = token.as_ref().map_or_else(String::new, mark::shown);
    Point::new("secret", Mark::Good, format!("Secret {name} holds {token}"))
}

/// Argo CD's own view, where it can be read and says something.
async fn view(argo: &Argo, cluster: &ClusterSecret) -> Option<Point> {
    let views = connection::read(&argo.server.client, &argo.namespace).await.ok()??;
    let view = views.get(&cluster.server)?;
    let kinds = view
        .kinds
        .map_or_else(String::new, |kinds| format!(", watching {kinds} kinds"));
    Some(match (view.connected?, view.kinds) {
        (true, Some(0)) => Point::new("argocd", Mark::Bad, BLIND),
        (true, _) => Point::new("argocd", Mark::Good, format!("Argo CD calls itself connected{kinds}")),
        (false, _) => Point::new("argocd", Mark::Bad, "Argo CD's last full look at the cluster failed"),
    })
}

fn print(context: &Context, items: &[Verification]) -> Result<(), Error> {
    let ui = &context.ui;
    for item in items {
        for point in &item.proofs {
            ui.out(point.line(ui))?;
        }
        let (secret, cluster) = (&item.secret, &item.cluster);
        ui.out(if item.proven {
            format!("proven: Argo CD can work with cluster {cluster} by Secret {secret}")
        } else {
            format!("not proven: see above what of Secret {secret} for cluster {cluster} is not as it should be")
        })?;
    }
    Ok(())
}
