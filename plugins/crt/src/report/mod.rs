//! What the commands print: rows, a diagnosis, and the texts of a rotation. Only [`inputs`] and [`owners`] do I/O: they collect what
//! the rest is computed from.

pub(crate) mod diagnosis;
pub(crate) mod inputs;
pub(crate) mod machines;
pub(crate) mod owners;
pub(crate) mod rescue;
pub(crate) mod rotation;
pub(crate) mod row;
pub(crate) mod token_state;

pub(crate) use cli::rotation::API_VERSION;
