//! What a policy's author needs, without an engine: a crate to begin with, a component made of it, its cases run, its
//! decisions explained, compared over a simulated fleet, attacked with random ones, and timed.
//!
//! Everything here runs a policy through the very code that the engine runs it through ([`vmetal_policy::Workbench`]): what
//! the rules say, what is believed of an answer, and what it may use up are the engine's.
//!
//! Functions take what they need as arguments (files, seeds, a clock) and give data; how it is shown is the command line's
//! affair. The same seed gives the same fleet, trace, report and picture on every machine.

pub use vmetal_policy::Quotas;

pub mod bench;
mod chance;
pub mod comparison;
pub mod diff;
mod error;
pub mod explain;
pub mod fleet;
pub mod fuzz;
pub mod inspect;
pub mod plot;
pub mod project;
pub mod simulate;
mod spec;
pub mod synthetic;
pub mod trial;

pub use error::ToolError;
pub use spec::Spec;
pub use vmetal_policy::componentize::Built;

/// The two kinds of decision, for those who do not know the SDK.
pub mod kinds {
    pub use vmetal_policy_sdk::Kind;
    /// Chooses node types.
    pub const COST: Kind = Kind::Cost;
    /// Chooses hosts.
    pub const PLACEMENT: Kind = Kind::Placement;
}

/// Makes a component of a policy crate and writes it to `<out>/<name>.wasm`.
///
/// # Errors
/// When cargo, the encoder or the file system refuses.
pub fn build(directory: &std::path::Path, out: &std::path::Path) -> Result<Built, ToolError> {
    Ok(vmetal_policy::componentize::build(directory, out)?)
}

/// Writes a component that other tools made to `out`, with the cases of a directory in it.
///
/// # Errors
/// When it is no policy, it or the cases cannot be read, there are none, or it brings some already.
pub fn pack(component: &std::path::Path, cases: &std::path::Path, out: &std::path::Path) -> Result<Built, ToolError> {
    Ok(vmetal_policy::componentize::pack(component, cases, out)?)
}
