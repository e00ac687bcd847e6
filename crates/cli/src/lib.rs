//! The command line of every plugin.
//!
//! This crate does not depend on a product. A plugin's `main` calls [`app::run`] with a type that implements
//! [`app::Plugin`]. The plugin then uses:
//!
//! - [`ui::Ui`] owns the streams: data to stdout, messages to stderr;
//! - [`flags::ConnectionFlags`] are kubectl's connection flags;
//! - [`output`] and [`table`] print lists and objects as kubectl does;
//! - [`rotation`] has the commands of every rotation;
//! - [`Failures`] are those of a command for several targets;
//! - [`ExitCode`] is how a command ends.

pub mod age;
pub mod app;
mod exit_code;
mod failures;
pub mod flags;
pub mod output;
pub mod rotation;
pub mod table;
pub mod test_times;
pub mod ui;

pub use self::exit_code::ExitCode;
pub use self::failures::Failures;
