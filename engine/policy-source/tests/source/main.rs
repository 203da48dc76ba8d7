//! Components from outside, with the programs that others use as peers: `openssl` for signatures, Debian's registry for artifacts.
#![allow(clippy::unwrap_used, reason = "tests")]

mod hostile;
mod openssl;
mod registry;
mod signatures;
