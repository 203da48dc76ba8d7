//! The generated messages and services. Private: the crate's public types are the model's.
#![allow(missing_docs, unreachable_pub, clippy::all, clippy::allow_attributes_without_reason, reason = "generated")]

tonic::include_proto!("vmetal.v1");
