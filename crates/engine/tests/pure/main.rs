//! What can be tested of the engine without an API server: the plan, the run and the journal, with the rotation of a [`badge`]
//! and with a [`scripted`] one.

mod badge;
mod journaling;
mod looks;
mod planning;
mod runs;
mod scripted;
