//! The server token of K3s and RKE2: with it a machine joins as a server, and with it the datastore's bootstrap data is encrypted.

pub mod rotation;
