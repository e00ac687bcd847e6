//! `agent-token`: the first one is set, it is rotated and removed, on fake servers.

mod agents;
mod by_hand;
mod configured;
mod fixture;
mod hook;
mod kill;
mod pods;
mod refusals;
mod rotate;
