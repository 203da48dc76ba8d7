//! `vmetal`: the command line of the engine.
//!
//! The commands only ask the API and render the answers; they decide nothing. `vmetal store` works without the engine:
//! whoever checks or restores a store cannot ask the engine that does not start with it. So does `vmetal policy`, for
//! those who write policies. Rendering is pure: objects, events and the
//! present time go in, text comes out, so that what an operator reads is tested word for word.
//!
//! Exit codes: 0 done, 1 the engine refused or the object does not exist, 2 the command line or a file is wrong.

pub mod args;
mod commands;
mod error;
mod manifest;
mod policy;
mod render;
mod store;
mod text;

pub use commands::run;
pub use error::CliError;
