//! The policy engine from outside: shipped components against their native twins, and components that misbehave.

mod cases;
mod decide;
mod equivalence;
mod faults;
mod fixtures;
mod frozen;
mod languages;
mod loading;
mod support;
