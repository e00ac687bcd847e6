//! Completion of a kubectl plugin, in Cobra's protocol.
//!
//! kubectl runs `kubectl_complete-<name>` with the words after the plugin's name, the last one possibly empty. The answer
//! is one candidate a line, `value<TAB>description`, and a last line `:<directive>`. The same program answers when its
//! own name begins so, or when its first word is `__complete` (what shims written for Go plugins call).
//! (spf13/cobra v1.9, `completions.go`; kubernetes/kubectl v0.33, `pkg/cmd/plugin_completion.go`.)

use std::ffi::OsString;
use std::process::ExitCode as ProcessExit;

use super::Plugin;
use crate::error::ExitCode;

/// A word that could be meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The word.
    pub value: String,
    /// What it is, one line; may be empty.
    pub help: String,
}

/// What is to be completed.
#[derive(Clone, Debug)]
pub struct CompletionRequest {
    /// The words after the plugin's name, without the current one.
    pub words: Vec<String>,
    /// What stands of the word under the cursor.
    pub current: String,
}

pub(super) fn asked(_arguments: &[OsString]) -> Option<Vec<OsString>> {
    None
}

pub(super) fn answer<P: Plugin>(_words: Vec<OsString>) -> ProcessExit {
    ExitCode::Done.into()
}
