//! The job of `kubectl crt`: a rotation of a cluster's registration token, from the first look to the last.

use anyhow::Result;

use crate::show::Presenter;

pub(crate) async fn play(show: &mut Presenter<'_>) -> Result<()> {
    Presenter::title("kubectl crt: the tokens that clusters are registered in Rancher by");
    show.kubectl(
        "Every registration token, by its fingerprint, and who uses it:",
        "crt list --context rancher",
    )
    .await?;
    show.kubectl(
        "One cluster: its agent, the Secret, the token and the tunnels:",
        "crt status prod-eu --context rancher",
    )
    .await?;
    show.kubectl(
        "A new token. It settles for 2 s here; in earnest one waits the usual 45 s, because a redeploy that Rancher \
         began just before may still render the old token for half a minute:",
        "crt rotate prod-eu --yes --settle 2s --context rancher",
    )
    .await?;
    show.kubectl("Afterwards:", "crt list --context rancher").await
}
