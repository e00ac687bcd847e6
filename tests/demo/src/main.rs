//! The demo: a management cluster, a downstream cluster, Rancher's stand-in and three registered clusters, and a
//! rotation by the real kubectl before the user's eyes. `cargo xtask demo` builds what it needs and runs it.

mod show;
mod signals;
mod stage;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use testbed::Era;

use crate::show::Show;
use crate::signals::Signals;
use crate::stage::Stage;

/// Rotate a cluster's registration token before your eyes
#[derive(Parser)]
struct Demo {
    /// Which kind of Rancher
    #[arg(long, value_enum, default_value = "secret")]
    era: EraWord,

    /// Leave me in a shell instead of showing the tour
    #[arg(long)]
    shell: bool,
}

#[derive(clap::ValueEnum, Clone, Copy)]
enum EraWord {
    Plain,
    Secret,
}

impl From<EraWord> for Era {
    fn from(word: EraWord) -> Self {
        match word {
            EraWord::Plain => Self::Plain,
            EraWord::Secret => Self::Secret,
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match Box::pin(run(&Demo::parse())).await {
        Ok(code) => code,
        Err(error) => {
            anstream::eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whatever happens, what was started is ended before this returns.
async fn run(demo: &Demo) -> Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let stage = tokio::select! {
        stage = Stage::build(demo.era.into()) => stage?,
        // What has been started so far ends with this process.
        stop = signals.next() => return Ok(stop.code()),
    };
    let mut show = Show::new(&stage, &mut signals);
    let outcome = if demo.shell {
        show.shell().await
    } else {
        show.tour().await
    };
    stage.end().await;
    outcome
}
