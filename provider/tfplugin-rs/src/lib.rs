//! A Terraform plugin SDK in Rust: protocol 6, spoken the way Terraform (1.0 and later) and OpenTofu speak it.
//!
//! An author implements [`Provider`] and [`Resource`] and calls [`serve`] from `main`. The rest is here:
//!
//! | module | what it does |
//! |---|---|
//! | [`schema`] | attributes with their rules: defaults, validators, replacement, semantic equality |
//! | [`value`], [`path`], [`diagnostics`] | the vocabulary |
//! | [`codec`] | values to and from msgpack and JSON, driven by the schema's types |
//! | [`plan`] | the plan that follows from a schema, and Terraform's consistency rules checked on our own replies |
//! | [`server`] | handshake, mutual TLS, the gRPC services, panic guard, logs, `--debug` |
//! | [`testing`] | a harness that drives the real `terraform` |
//!
//! The design rests on one observation: in this protocol the dangerous failure is not a wrong answer but a lost one. A
//! gRPC error or a crash during a create drops the state of an object that exists. So every operation runs behind a
//! guard, every failure is a diagnostic with a state beside it, and no operation ends because its caller went away.
//!
//! Not covered yet: data sources, functions, ephemeral resources, resource identity, list resources and actions. Their
//! RPCs answer `UNIMPLEMENTED`, which cores accept from providers whose schema does not mention them.

pub mod codec;
pub mod diagnostics;
pub mod path;
pub mod plan;
pub mod resource;
pub mod schema;
pub mod server;
pub mod testing;
pub mod value;
pub mod wire;

pub use codec::Type;
pub use diagnostics::{Diagnostic, Diagnostics, Severity};
pub use path::Path;
pub use resource::{Apply, Ctx, Imported, Named, Outcome, Pending, Private, Provider, Read, Resource};
pub use schema::{Attribute, Schema};
pub use server::serve;
pub use value::{Number, Value};
