//! The recovery of servers of K3s and RKE2 whose tokens were changed and that do not start, or will not start again.
//!
//! It needs no record of an earlier run. [`facts`] is what was observed of each server, [`diagnosis`] names its state, and [`plan`]
//! decides on the next action, one at a time. Nothing here reads or writes anything.
//!
//! How a server starts (measured on K3s 1.36.3):
//!
//! - It uses the configured token, else that of its file `server/token`. Only with a configured one it first asks its join server.
//! - With that token it opens its own copy of the datastore. If the copy has another one, it ends, and has written nothing.
//! - If its `cred/passwd` differs from the copy's and is newer, it ends and names the file: the *trap*.
//! - Then it joins etcd, which updates its copy. If the datastore has another token, it ends when it saves.
//!
//! So a server that does not start comes back with the token of its own copy, and after one failed start with that of the datastore. A
//! failed start says which of the two was wrong. That is why the token of a copy, which cannot be read, need not be known.

mod by_hand;
pub mod diagnosis;
pub mod facts;
pub mod plan;
mod round;
