//! The snapshots of etcd: which token each of them needs, and how one is restored.

pub(crate) mod command;
pub(crate) mod needs;
mod restore;
pub(crate) mod row;
