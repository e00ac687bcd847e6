//! The plan that `--dry-run` prints: `decide` folded over its own predictions.
