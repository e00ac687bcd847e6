//! `kubectl crt`
fn main() {}
