//! The demo of `kubectl crt`: a rotation of a cluster's registration token.

use anyhow::Result;

use crate::presenter::Presenter;

pub(crate) async fn play(show: &mut Presenter<'_>) -> Result<()> {
    Presenter::title("kubectl crt: the registration tokens of Rancher's downstream clusters");
    show.kubectl(
        "List the registration tokens, with their fingerprints and users:",
        "crt list --context rancher",
    )
    .await?;
    show.kubectl(
        "Show the status of one cluster:",
        "crt status prod-eu --context rancher",
    )
    .await?;
    show.kubectl(
        "Rotate its token. (In production, keep the default `--settle 45s`: a redeploy that Rancher started just before may \
         still render the old token for half a minute.)",
        "crt rotate prod-eu --yes --settle 2s --context rancher",
    )
    .await?;
    show.kubectl("List them again:", "crt list --context rancher").await
}
