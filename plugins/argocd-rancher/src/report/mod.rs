//! The rotation of Argo CD's tokens in the words of people and of documents.

pub(crate) mod product;
