//! The half of a rotation that does I/O: [`Controller`] observes both sides and applies single steps.

use std::time::Duration;

use client::connection::Server;
use client::error::Error;
use client::secret::Fingerprint;

use crate::lock::Fence;
use crate::plan::Plan;
use crate::rotation::{Rotation, Timer};
use crate::run::{Draw, Run};

/// Observes and applies for one target. It decides nothing.
#[expect(
    async_fn_in_trait,
    reason = "the engine runs one controller on one task and never spawns its futures"
)]
pub trait Controller {
    /// The rotation that it carries out.
    type Rotation: Rotation;

    /// Reads both sides.
    async fn observe(&self, run: Option<&RunOf<Self>>) -> Result<ObservedOf<Self>, Failure>;

    /// Where new values come from. What was drawn is kept until the step that needs it. The result must hold no lock: other
    /// methods are called while it lives.
    fn draw(&self) -> Box<dyn Draw + '_>;

    /// Sends one step, with the identity of the objects that were observed last as its precondition. Asks the fence right
    /// before it sends.
    async fn apply(&self, step: &StepOf<Self>, run: &RunOf<Self>, fence: &Fence) -> Result<(), Failure>;

    /// How long a timer runs, from the moment it is started. [`Timer::InFlight`] is the engine's own: it is not asked for.
    fn lasts(&self, timer: Timer) -> Duration;

    /// The API server that keeps the Lease. By its clock deadlines are journaled.
    fn server(&self) -> &Server;

    /// Who can resume the run, in words.
    fn resumable_by(&self) -> String;

    /// How the other side was reached, for the title of the plan: `, reached through Rancher`.
    fn reached(&self) -> String {
        String::new()
    }

    /// Adds what this kind of rotation knows to the error that a run ended with.
    fn explain(&self, error: Error) -> Error {
        error
    }

    /// Lets the server check a step without storing anything.
    async fn dry_run(&self, step: &StepOf<Self>) -> ServerCheck;

    /// What could not be proven at the end, a sentence each.
    fn unproven(&self) -> Vec<String> {
        Vec::new()
    }

    /// The credential that is in use at the end of a run, and the last sentence about it. `plan`: where one could be made.
    async fn summary(&self, before: &ObservedOf<Self>, plan: Option<&PlanOf<Self>>) -> Summary;

    /// The same where a rollback was no longer possible, so that the new credential stays.
    fn rolled_forward(&self) -> Summary {
        Summary::default()
    }
}

/// The rotation of a controller.
pub type RotationOf<C> = <C as Controller>::Rotation;
/// What a controller observes.
pub type ObservedOf<C> = <RotationOf<C> as Rotation>::Observed;
/// What a controller applies.
pub type StepOf<C> = <RotationOf<C> as Rotation>::Step;
/// The run of a controller's rotation.
pub type RunOf<C> = Run<RotationOf<C>>;
/// The plan of a controller's rotation.
pub type PlanOf<C> = Plan<RotationOf<C>>;

/// The credential that is in use at the end of a run.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Its fingerprint, where it is known.
    pub in_use: Option<Fingerprint>,
    /// What there is to know, in a sentence.
    pub message: String,
}

/// The result of a server dry run of a step.
#[derive(Debug)]
pub enum ServerCheck {
    /// It would accept it.
    Accepted,
    /// It would reject it.
    Rejected(Error),
    /// It was not asked, and why.
    NotChecked(&'static str),
}

impl From<Result<(), Error>> for ServerCheck {
    fn from(checked: Result<(), Error>) -> Self {
        checked.map_or_else(Self::Rejected, |()| Self::Accepted)
    }
}

impl std::fmt::Display for ServerCheck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Accepted => f.write_str("server dry run"),
            Self::Rejected(error) => write!(f, "rejected by the server: {}", error.message),
            Self::NotChecked(why) => write!(f, "not checked: {why}"),
        }
    }
}

/// Why observing or applying failed, as far as the engine must know.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The object is not what was observed (409): observe again, decide again.
    #[error("the object has changed since it was read")]
    Conflict,
    /// No response, or a transient error. In a wait it means "not yet".
    #[error("{0}")]
    Transient(#[source] Error),
    /// An error that a retry does not change, such as a missing permission.
    #[error("{0}")]
    Permanent(#[source] Error),
    /// The lock is not ours any more: nothing may be written.
    #[error("the lock was lost")]
    LockLost,
}

/// A transient error of the client is a transient failure.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        if error.kind.is_transient() {
            Self::Transient(error)
        } else {
            Self::Permanent(error)
        }
    }
}
