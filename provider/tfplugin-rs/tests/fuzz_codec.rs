//! The fuzz target of the codec for a bounded time: good inputs, damaged at random. `TFPLUGIN_SEED` repeats a run.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../fuzz/codec.rs"]
#[allow(unreachable_pub, reason = "public for the fuzz target")]
mod codec;

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

const ROUNDS: usize = 60_000;

/// Inputs that are read. What is found by fuzzing is added here, so that it is never lost again.
const GOOD: [(&str, &[u8]); 22] = [
    (r#""string""#, b"\xa3abc"),
    (r#""string""#, b"\xd4\x00\x00"),
    (r#""string""#, b"\xc7\x07\x0c\x82\x01\xc2\x02\xa2ab"),
    (r#""bool""#, b"\xc3"),
    (r#""number""#, b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff"),
    (r#""number""#, b"\xcb\x3f\xb9\x99\x99\x99\x99\x99\x9a"),
    (r#""number""#, b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00"),
    (r#""number""#, b"\xbb0.1234567890123456789012345e9"),
    (r#""number""#, b"\xc7\x06\x0c\x82\x03\x92\x01\xc3\x05\x02"),
    (r#""dynamic""#, b"\x92\xc4\x08\"string\"\xa1x"),
    (r#""dynamic""#, b"\x92\xc4\x09\"dynamic\"\xc0"),
    (r#""dynamic""#, b"\x92\xc4\x09\"dynamic\"\x92\xc4\x06\"bool\"\xc2"),
    (r#""dynamic""#, br#"{"type":["list","string"],"value":["x"]}"#),
    (r#"["list","number"]"#, b"\x93\x01\x02\xc0"),
    (r#"["set","string"]"#, b"\x92\xa1a\xd4\x00\x00"),
    (r#"["map","bool"]"#, b"\x82\xa1a\xc3\xa1b\xc2"),
    (r#"["tuple",["string","number"]]"#, b"\x92\xa1a\x07"),
    (r#"["object",{"a":"string","b":["list",["object",{"c":"number"}]]}]"#, b"\x82\xa1a\xa1x\xa1b\x91\x81\xa1c\x01"),
    (r#"["object",{"a":"string","b":"dynamic"}]"#, br#"{"a":"x","b":null,"gone":[1,2]}"#),
    (r#"["object",{"a":"string"},["a"]]"#, b"\x81\xa1a\xc0"),
    (r#"["list",["list",["list",["list","dynamic"]]]]"#, b"\x91\x91\x91\x91\x92\xc4\x06\"bool\"\xc3"),
    (r#"["map","number"]"#, br#"{"a":1e30,"b":-0.0,"c":18446744073709551615}"#),
];

/// A small deterministic source of numbers (splitmix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % bound.max(1) as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        // Bytes that mean much in msgpack and JSON come more often.
        const TELLING: &[u8] =
            b"\x00\x01\x0c\x7f\x80\x90\xa0\xc0\xc1\xc4\xc7\xca\xcb\xcf\xd4\xd9\xdc\xdd\xde\xdf\xff\"[]{},:e-.";
        if self.below(2) == 0 { TELLING[self.below(TELLING.len())] } else { u8::try_from(self.below(256)).unwrap() }
    }
}

fn input(chance: &mut Chance) -> Vec<u8> {
    let (ty, value) = GOOD[chance.below(GOOD.len())];
    let mut data = [ty.as_bytes(), b"\0", value].concat();
    // The description of the type stays whole more often than not: most damage to it is refused at once.
    let from = if chance.below(4) == 0 { 0 } else { ty.len() + 1 };
    for _ in 0..chance.below(5) {
        let at = from + chance.below((data.len() + 1).saturating_sub(from));
        match chance.below(6) {
            0 if at < data.len() => data[at] = chance.byte(),
            1 if at < data.len() => data[at] ^= 1 << chance.below(8),
            2 if at < data.len() => drop(data.remove(at)),
            3 => data.truncate(at.max(1)),
            4 => {
                let (_, other) = GOOD[chance.below(GOOD.len())];
                data.splice(at..at, other.iter().copied());
            }
            _ => data.insert(at.min(data.len()), chance.byte()),
        }
    }
    data
}

#[test]
fn good_inputs_are_read() {
    for (ty, value) in GOOD {
        codec::check(&[ty.as_bytes(), b"\0", value].concat());
    }
}

#[test]
fn damaged_inputs_break_no_promise() {
    let given = std::env::var("TFPLUGIN_SEED").ok().map(|seed| seed.parse().unwrap());
    let seed = given.unwrap_or_else(|| RandomState::new().build_hasher().finish());
    println!("TFPLUGIN_SEED={seed}");
    let mut chance = Chance(seed);
    for round in 0..ROUNDS {
        let data = input(&mut chance);
        let held = std::panic::catch_unwind(|| codec::check(&data));
        assert!(held.is_ok(), "TFPLUGIN_SEED={seed}, round {round}: {:?}", String::from_utf8_lossy(&data));
    }
}

/// Nesting that no configuration has is refused, and does not use up the stack.
#[test]
fn bottomless_values_are_refused() {
    let nested = [vec![0x91; 5_000], vec![0xc0]].concat();
    let open = [b"\x92\xc4\x09\"dynamic\"".repeat(5_000), vec![0xc0]].concat();
    for value in [nested, open] {
        assert!(tfplugin::codec::from_msgpack(&value, &tfplugin::Type::Dynamic).is_err());
    }
    let deep = format!("{}\"string\"{}", "[\"list\",".repeat(5_000), "]".repeat(5_000));
    codec::check(&[deep.as_bytes(), b"\0\xc0"].concat());
}
