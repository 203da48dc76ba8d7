//! The module's exports.
#![allow(
    unsafe_code,
    missing_docs,
    clippy::all,
    unreachable_pub,
    reason = "the edge of a module, and generated bindings"
)]

use crate::score::{Facts, score};

mod bindings {
    wit_bindgen::generate!({
        path: "wit",
        world: "per-host",
    });
}

use bindings::exports::vmetal::bench_peer::scoring::{Guest, Host, Verdict};

struct PerHost;

impl Guest for PerHost {
    fn score(now: u64, host: Host) -> Verdict {
        let facts = Facts {
            power: host.power,
            erase_level: host.erase_level,
            failures: host.failures,
            provisions: host.provisions,
            last_release: host.last_release,
            misfit: host.misfit,
        };
        Verdict { code: host.gate, arg: 0, score: score(facts, now) }
    }
}

bindings::export!(PerHost with_types_in bindings);

/// Room for a question of this length.
#[unsafe(no_mangle)]
pub extern "C" fn json_room(length: usize) -> *mut u8 {
    Box::leak(vec![0u8; length].into_boxed_slice()).as_mut_ptr()
}

/// Answers the question at this place: place and length of the answer, in the high and low half.
///
/// # Safety
/// The place must come from `json_room` with the same length.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn json_place(at: *const u8, length: usize) -> u64 {
    // SAFETY: see above; the module's host keeps to it.
    let question = unsafe { core::slice::from_raw_parts(at, length) };
    let answer = Box::leak(crate::json::answer(question).into_boxed_slice());
    (answer.as_ptr() as u64) << 32 | answer.len() as u64
}
