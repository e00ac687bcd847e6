//! The plugins as krew's users get them: from a manifest with its archive, and from an index, by the real krew, and then
//! run through the real kubectl. And what krew's own checker says of the manifests.
//!
//! The archives hold the programs that the other stories run, under the names that they are shipped with.

mod commands;
mod home;
mod index;
mod local_files;
mod release_server;
mod validate;
