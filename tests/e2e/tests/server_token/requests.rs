//! What a rotation costs: its requests. No two servers are away at once.

use std::sync::Arc;

use anyhow::{Result, ensure};
use e2e::CommandOutput;
use serde_json::Value;
use tokio::sync::oneshot;

use crate::rotation_fixture::RotationFixture;

const SERVERS: usize = 3;
/// The requests to one server about its token, beside those of waits.
const TO_SUPERVISOR: usize = 30;
/// The requests to the Kubernetes API for each server, beside those of waits and writes of the Lease.
const TO_KUBERNETES: usize = 15;
/// `/readyz` of the API server of each server: once in each observation that counts.
const READINESS: usize = 10;
/// The writes of the Lease: one for each step and each wait, one to begin, and one to end.
const LEASE_WRITES: usize = 20;

/// The requests that a command has logged (`-v=6`).
#[derive(Debug, Default)]
struct Logged {
    to_supervisors: usize,
    /// `/readyz` of each server's own API server.
    readiness: usize,
    to_kubernetes: usize,
    lease_writes: usize,
    /// All answers, also in waits.
    answers: usize,
    counted: Vec<String>,
}

fn is_request(line: &str) -> bool {
    let methods = ["GET ", "POST ", "PUT ", "PATCH ", "DELETE "];
    methods.iter().any(|method| line.starts_with(method))
}

/// `prove    restart server s1`
fn is_step(line: &str) -> bool {
    let phases = ["make ", "place ", "prove ", "retire ", "confirm "];
    phases.iter().any(|phase| line.starts_with(phase)) && !line.contains("waiting for")
}

impl Logged {
    /// A wait is what lies between the first observation after a step and the last one before the next step. Nothing is waited for
    /// before the first step.
    fn of(output: &CommandOutput) -> Self {
        let mut logged = Self::default();
        let (mut looks, mut is_first): (Vec<Vec<&str>>, bool) = (vec![Vec::new()], true);
        for line in output.stderr.lines() {
            if is_step(line) {
                logged.count(&looks, is_first);
                (looks, is_first) = (vec![Vec::new()], false);
            }
            if !is_request(line) {
                continue;
            }
            logged.answers += usize::from(!line.contains(" failed in "));
            if line.contains("/api/v1/nodes?") {
                looks.push(Vec::new());
            }
            if let Some(look) = looks.last_mut() {
                look.push(line);
            }
        }
        logged.count(&looks, is_first);
        logged
    }

    fn count(&mut self, looks: &[Vec<&str>], is_first: bool) {
        // What a step sends by itself comes before its first observation.
        let last = looks.len().saturating_sub(1);
        let counted = looks
            .iter()
            .enumerate()
            .filter(|(at, _)| is_first || *at <= 1 || *at == last);
        for line in counted.flat_map(|(_, look)| look) {
            let counter = if !line.contains("https://") {
                &mut self.to_supervisors
            } else if line.contains("/readyz ") {
                &mut self.readiness
            } else if line.contains("/leases") && !line.starts_with("GET ") {
                &mut self.lease_writes
            } else {
                &mut self.to_kubernetes
            };
            *counter += 1;
            self.counted.push((*line).to_owned());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_costs_little_beside_its_restarts() -> Result<()> {
    let fixture = Arc::new(RotationFixture::start_three("requests", ["nowhere"; SERVERS]).await?);
    // As long as those of real servers.
    fixture.servers.cluster.slow_down(1.0)?;
    let (done, until) = oneshot::channel();
    let watched = Arc::clone(&fixture);
    let watching = tokio::spawn(async move { watched.servers.cluster.watch_restarts(until).await });
    let rotated = fixture.run("rotate", &["-v=6"]).await?.expect(0)?;
    drop(done);
    let restarts = watching.await??;

    let logged = Logged::of(&rotated);
    let requests = fixture.servers.cluster.requests().await?;
    let is_own = |request: &&Value| {
        let agent = request["userAgent"].as_str().unwrap_or_default();
        agent.contains("kubectl-bootstrap-token/") && request["status"] != 0
    };
    let answered = requests.iter().filter(is_own).count();
    let counted = logged.counted.join("\n");
    ensure!(
        logged.answers == answered,
        "{} logged, {answered} answered",
        logged.answers
    );
    for (what, count, most) in [
        ("supervisors", logged.to_supervisors, TO_SUPERVISOR * SERVERS),
        ("/readyz", logged.readiness, READINESS * SERVERS),
        ("Kubernetes", logged.to_kubernetes, TO_KUBERNETES * SERVERS),
        ("the Lease", logged.lease_writes, LEASE_WRITES),
    ] {
        println!("{count} requests to {what}, at most {most}");
        ensure!(count <= most, "{count} requests to {what}:\n{counted}");
    }
    println!("{:?}, of which {restarts:?} are restarts", rotated.took);
    fixture.servers.cluster.slow_down(1.0 / 16.0)?;
    fixture.is_rotated().await
}
