//! The messages and services that travel, generated from `proto/` at build time.
//!
//! Nothing outside this crate should need them: [`crate::server`] turns them into typed requests.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]

tonic::include_proto!("tfplugin6");

/// go-plugin's own services.
pub mod plugin {
    tonic::include_proto!("plugin");
}

/// The gRPC health checking protocol.
pub mod health {
    tonic::include_proto!("grpc.health.v1");
}
