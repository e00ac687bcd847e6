//! What can be proven of the engine without any API server: the plan and the journal, each with the
//! small rotation of [`badge`].

mod badge;
mod journaling;
mod planning;
