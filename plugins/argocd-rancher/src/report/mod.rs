//! The texts about rotations.

pub(crate) mod product;
