//! What the verbs show: rows, chains of evidence, and the words of a rotation. Everything that decides what is said stands here
//! and does no I/O, except [`evidence`] and [`owners`], which gather what is to be said.

pub(crate) mod chain;
pub(crate) mod evidence;
pub(crate) mod judge;
pub(crate) mod owners;
pub(crate) mod product;
pub(crate) mod row;

pub(crate) use cli::rotation::API_VERSION;
