//! The direction of a run: which credential it ends on, and the mark of the direction on objects.
//!
//! A run only turns to a later direction, and then marks each object again. The mark is part of the write. If nothing
//! else changes, a fence gives the object a new version. So a late conditional write of the earlier direction is
//! rejected.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The annotation with the mark, on objects without a record of their own.
pub const ANNOTATION: &str = "kubectl-rotation.github.io/direction";

/// Which credential a run ends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Direction {
    /// The new credential: the old one is retired.
    Forward,
    /// The old credential: the original state is restored. Possible until *retire*.
    Rollback,
    /// The new credential, since a rollback was begun and is no longer possible.
    RollForward,
}

impl Direction {
    /// All directions, in the order in which a run can turn.
    pub const ALL: [Self; 3] = [Self::Forward, Self::Rollback, Self::RollForward];

    /// Whether the run ends on the old credential.
    pub fn is_rollback(self) -> bool {
        self == Self::Rollback
    }

    /// The mark of a run that writes in this direction.
    ///
    /// ```
    /// use engine::direction::Direction;
    /// assert_eq!(Direction::Rollback.mark("x7k2p"), "x7k2p/rollback");
    /// ```
    pub fn mark(self, run: &str) -> String {
        format!("{run}/{self}")
    }

    /// The direction in a mark of this run. `None` for the mark of another run.
    pub fn in_mark(mark: &str, run: &str) -> Option<Self> {
        let (of, direction) = mark.split_once('/')?;
        let named = |each: &Self| each.to_string() == direction;
        Self::ALL.into_iter().find(named).filter(|_| of == run)
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Forward => "forward",
            Self::Rollback => "rollback",
            Self::RollForward => "rollForward",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_by_its_own_run_only() {
        for direction in Direction::ALL {
            let mark = direction.mark("x7k2p");
            assert_eq!(Direction::in_mark(&mark, "x7k2p"), Some(direction));
            assert_eq!(Direction::in_mark(&mark, "zzzzz"), None);
        }
        assert_eq!(Direction::in_mark("x7k2p", "x7k2p"), None);
    }

    #[test]
    fn the_mark_uses_the_word_of_the_journal() {
        for direction in Direction::ALL {
            let word = serde_json::to_string(&direction).unwrap();
            assert_eq!(word, format!("{:?}", direction.to_string()));
        }
    }
}
