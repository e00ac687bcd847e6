//! The plugins as users of krew install them: from a manifest with its archive, and from an index. The real krew installs
//! them, the real kubectl runs them, and krew's own validator checks the manifests.
//!
//! The archives hold the programs of the other end-to-end tests, under the names of a release.

mod commands;
mod home;
mod index;
mod local_files;
mod release_server;
mod validate;
