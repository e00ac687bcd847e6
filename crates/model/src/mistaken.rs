//! A protocol with a mistake in it, made of the real one: what an exploration must find to be worth anything.
//!
//! Such a protocol has the notes, writes and timers of the real one, lies to it, and passes its answers on.

use engine::protocol::{Next, Protocol, Run, Step, Wait};

/// The run as the real protocol sees it.
pub fn real<P, Q>(run: &Run<Q>) -> Run<P>
where
    P: Protocol,
    Q: Protocol<Notes = P::Notes, Timer = P::Timer>,
{
    let Run {
        id,
        goal,
        phase,
        notes,
        timers,
        put_back,
    } = run.clone();
    Run {
        id,
        goal,
        phase,
        notes,
        timers,
        put_back,
    }
}

/// The answer of the real protocol as that of the mistaken one. A refusal in the middle is a wait: somebody does what it asks for.
pub fn told<P, Q>(next: Next<P>, run: Option<&Run<Q>>) -> Next<Q>
where
    P: Protocol,
    Q: Protocol<Notes = P::Notes, Write = P::Write, Timer = P::Timer>,
{
    match (next, run) {
        (Next::Begin(notes), _) => Next::Begin(notes),
        (Next::Do(step), _) => Next::Do(Step {
            phase: step.phase,
            write: step.write,
            starts: step.starts,
            stops: step.stops,
            repeats: step.repeats,
        }),
        (Next::Wait(wait), _) => Next::Wait(Wait {
            phase: wait.phase,
            what: wait.what,
            starts: wait.starts,
        }),
        (Next::TurnBack(reason), _) => Next::TurnBack(reason),
        (Next::Done, _) => Next::Done,
        (Next::Refuse(obstacles), Some(run)) => Next::wait(run.phase, obstacles[0].hint.clone()),
        (Next::Refuse(obstacles), None) => Next::Refuse(obstacles),
    }
}
