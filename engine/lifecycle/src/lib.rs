//! What happens next: pure step functions over the model.
//!
//! The engine is level-triggered. For one object it reads what is stored, calls a step function of this crate, commits what
//! comes back, performs at most one effect, and commits what became of it. Nothing here does I/O, waits, or reads a clock:
//! `now` is an argument, and so is everything that was observed. That is what makes it possible to run the same code
//! against a simulator, to replay a failure from its seed, and to answer "what would happen" without doing it.
//!
//! * [`host::step`] decides for a physical server, [`host::outcome`] takes in what an effect brought, [`host::recover`]
//!   what to believe after a crash, and [`host::agent`] what the installer says and is told.
//! * [`node::step`] and [`node::outcome`] do the same for a claim; [`claim`] says which claims are decided on together, and
//!   what reserving their hosts writes.
//! * [`transitions`] is the list of all allowed phase changes; a step that would make another one is a bug and is caught by
//!   the tests. The diagram in `docs/lifecycle.md` is made from it.
//! * [`standby`] plans which hosts are kept installed ahead of claims.
//! * [`ladder`] says what each stage and each cause of failure lead to, and [`limits::Limits`] holds every deadline and retry
//!   count as data.
//! * [`grant`] is what a step must have to disrupt a server, or to put one into the pool.
//!
//! Rules that hold for every step: an effect is only asked for together with a status that records the intent; every wait
//! has a reason, and a deadline unless waiting costs nothing; what a tenant left on a host leaves its record only through
//! [`grant::settle`], which takes the erase record.

pub mod claim;
pub mod grant;
pub mod host;
pub mod ladder;
pub mod limits;
pub mod node;
pub mod note;
pub mod standby;
pub mod storm;
pub mod transitions;

pub use limits::Limits;
pub use note::Note;
