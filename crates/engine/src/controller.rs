//! The half of a rotation that does I/O: [`Controller`] observes both sides and applies single steps.

use std::time::Duration;

use client::access::Needed;
use client::connection::Server;
use client::error::{Error, Kind};
use client::secret::Fingerprint;

use crate::engine::{LONGEST_OBSERVATION, LONGEST_WRITE};
use crate::lock::Fence;
use crate::plan::Plan;
use crate::rotation::{Rotation, Timer};
use crate::run::{Draw, Run};

/// Observes one target and applies steps to it. It makes no decisions.
#[expect(
    async_fn_in_trait,
    reason = "the engine runs one controller on one task and never spawns its futures"
)]
pub trait Controller {
    /// The rotation that it carries out.
    type Rotation: Rotation;

    /// Reads both sides. It may be dropped at any moment.
    async fn observe(&self, run: Option<&RunOf<Self>>) -> Result<ObservedOf<Self>, Failure>;

    /// How long one observation may take. After that it is dropped, and counts as without an answer.
    fn longest_observation(&self) -> Duration {
        LONGEST_OBSERVATION
    }

    /// The source of new values. The controller keeps them until the step that needs them. The result must not hold a
    /// lock, since other methods are called before it is dropped.
    fn draw(&self) -> Box<dyn Draw + Send + '_>;

    /// The permissions that the run needs, as far as they follow from the last observation. They are checked at each start,
    /// also of a resumed run.
    fn needs(&self) -> Vec<Needed<'_>>;

    /// Sends one step. Its precondition is the identity of the objects that were observed last. Checks the fence right
    /// before it sends.
    async fn apply(&self, step: &StepOf<Self>, run: &RunOf<Self>, fence: &Fence) -> Result<(), Failure>;

    /// How long one step may take. A step of several requests may take longer than one write under the fence: each of them asks
    /// the fence, and none of them may be harmful once [`Timer::InFlight`] has passed.
    fn longest(&self, _step: &StepOf<Self>) -> Duration {
        LONGEST_WRITE
    }

    /// The duration of a timer. That of [`Timer::InFlight`] is at least [`LONGEST_WRITE`].
    fn lasts(&self, timer: Timer) -> Duration;

    /// The API server that stores the Lease. Journaled deadlines are times of its clock.
    fn server(&self) -> &Server;

    /// Who can resume the run, in words.
    fn resumable_by(&self) -> String;

    /// How the other side was reached, for the title of the plan: `, reached through Rancher`.
    fn reached(&self) -> String {
        String::new()
    }

    /// Adds details to the error that a run ended with.
    fn explain(&self, error: Error) -> Error {
        error
    }

    /// Submits a step as a server-side dry run.
    async fn dry_run(&self, step: &StepOf<Self>) -> ServerCheck;

    /// What else the old credentials are in, as far as only the observation shows it, a sentence each.
    fn also_invalidated(&self, _plan: &PlanOf<Self>) -> Vec<String> {
        Vec::new()
    }

    /// What could not be proven at the end, a sentence each.
    fn unproven(&self) -> Vec<String> {
        Vec::new()
    }

    /// The credential in use at the end of a run, and the final message. `plan` is `None` if there was none.
    async fn summary(&self, before: &ObservedOf<Self>, plan: Option<&PlanOf<Self>>) -> Summary;

    /// The same after a roll-forward, when the new credential stays in use.
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
    /// Its fingerprint, if known.
    pub in_use: Option<Fingerprint>,
    /// The final message, one sentence.
    pub message: String,
}

/// The result of a server dry run of a step.
#[derive(Debug)]
pub enum ServerCheck {
    /// It would accept it.
    Accepted,
    /// It would reject it.
    Rejected(Error),
    /// The step was not submitted, and why.
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

/// Why an observation or a step failed.
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
    /// The lock was lost. Nothing may be written.
    #[error("the lock was lost")]
    LockLost,
}

impl Failure {
    /// Whether the server has answered that it does not carry out the step. A write without an answer may still arrive.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::Conflict => true,
            Self::Permanent(error) => matches!(error.kind, Kind::Forbidden | Kind::Invalid | Kind::Conflict),
            Self::Transient(_) | Self::LockLost => false,
        }
    }
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
