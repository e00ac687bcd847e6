//! What the verbs show: rows, chains of evidence, and the words of a rotation. Everything that decides what is said stands here
//! and does no I/O, except [`evidence`] and [`owners`], which gather what is to be said.

pub mod chain;
pub mod evidence;
pub mod judge;
pub mod owners;
pub mod product;
pub mod row;

pub use cli::rotation::API_VERSION;
