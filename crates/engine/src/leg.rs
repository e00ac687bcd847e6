//! The way that a run is on, and the mark that it leaves on what it writes.
//!
//! A goal has two values, and a way three: where time has cut off the way back while it was walked, the new credential is the
//! only one that lives, and stays. A run only ever moves on to a later leg. So a conditional write that was decided on in an
//! earlier one does not fit an object that carries the mark of a later one: the mark is written in the same write, or, where
//! nothing else is to be changed, by a write of its own that gives the object a new version.

use serde::{Deserialize, Serialize};

use crate::phase::Goal;

/// Which way a run is going.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Leg {
    /// To the new credential.
    Forward,
    /// Back to the old one.
    Back,
    /// The way back was cut off: the new one stays.
    Stay,
}

impl Leg {
    /// All of them, in order.
    pub const ALL: [Self; 3] = [Self::Forward, Self::Back, Self::Stay];

    /// That of a run with this goal; `kept`: the way back was cut off.
    pub fn of(goal: Goal, kept: bool) -> Self {
        match goal {
            Goal::Forward => Self::Forward,
            Goal::Back if kept => Self::Stay,
            Goal::Back => Self::Back,
        }
    }

    /// What an object is marked with that a run has written on this leg.
    ///
    /// ```
    /// use engine::leg::Leg;
    /// assert_eq!(Leg::Back.mark("x7k2p"), "x7k2p/back");
    /// ```
    pub fn mark(self, run: &str) -> String {
        format!("{run}/{}", self.word())
    }

    /// The leg in a mark of this run; that of another run is none.
    pub fn in_mark(mark: &str, run: Option<&str>) -> Option<Self> {
        let (of, leg) = mark.split_once('/')?;
        Self::ALL.into_iter().find(|each| Some(of) == run && each.word() == leg)
    }

    fn word(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Back => "back",
            Self::Stay => "stay",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_that_of_its_own_run_alone() {
        for leg in Leg::ALL {
            let mark = leg.mark("x7k2p");
            assert_eq!(Leg::in_mark(&mark, Some("x7k2p")), Some(leg));
            assert_eq!(Leg::in_mark(&mark, Some("zzzzz")), None);
            assert_eq!(Leg::in_mark(&mark, None), None);
        }
        assert_eq!(Leg::in_mark("x7k2p", Some("x7k2p")), None);
    }
}
