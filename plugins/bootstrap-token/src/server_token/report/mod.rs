//! What the commands about the server token print. Nothing here does I/O.

pub(crate) mod configured;
pub(crate) mod server;
pub(crate) mod status;
pub(crate) mod verification;
mod warnings;

/// The names of a list in a sentence: `s1, s2 and s3`.
fn joined(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
