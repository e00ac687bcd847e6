//! `kubectl bootstrap-token generate`

use anyhow::{Result, ensure};

use crate::cluster::{self, Printed, bare, shell};

#[tokio::test(flavor = "multi_thread")]
async fn generate_prints_a_token_that_create_accepts_once() -> Result<()> {
    let plane = bare().await?;
    let shell = shell(plane).await?;
    let generated = shell
        .bootstrap_token(["generate", "--server", "https://127.0.0.1:1"])
        .run()
        .await?
        .expect(0)?;
    let token = Printed::read(&generated.stdout)?;
    let created = shell
        .bootstrap_token(["create", "--token-stdin"])
        .stdin(generated.stdout.clone())
        .run()
        .await?
        .expect(0)?;
    ensure!(created.stdout == generated.stdout);
    let again = shell
        .bootstrap_token(["create", "--token-stdin"])
        .stdin(generated.stdout)
        .run()
        .await?
        .expect(1)?;
    ensure!(again.stderr.contains("already exists"), "{again}");
    cluster::prints_nothing_of(&again, token.secret())
}
