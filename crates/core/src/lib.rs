//! Being a good kubectl citizen: what every plugin of this workspace needs and none should write again.
//!
//! This crate knows no product.

pub mod clock;
pub mod secret;
