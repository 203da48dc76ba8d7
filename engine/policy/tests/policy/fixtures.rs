//! Components written by hand, to misbehave in exactly one way each.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use vmetal_policy::{Binding, OnFailure, Source, componentize};
use wit_component::StringEncoding;

/// A cost policy that answers, for one offer, with price 5 and the pick given in `ANSWER`, after running `BODY`.
///
/// Layout, by the canonical ABI: `info` at 64 (name, version, kind, reasons), `choice` at 128 (pick, prices, verdicts),
/// one price at 192, one verdict at 208, an empty result at 256, no text at 264. Arguments are written from 1024 on and not read.
const MODULE: &str = r#"
(module
  IMPORTS
  (memory (export "memory") PAGES)
  (global $next (mut i32) (i32.const 1024))
  (data (i32.const 16) "fixture")
  (data (i32.const 32) "1")
  (data (i32.const 64) "\10\00\00\00\07\00\00\00\20\00\00\00\01\00\00\00KIND\00\00\00\00\00\00\00\00\00\00\00")
  (data (i32.const 128) "ANSWER\c0\00\00\00PRICES\00\00\00\d0\00\00\00\01\00\00\00")
  (data (i32.const 192) "\40\4b\4c\00\00\00\00\00")
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $at i32)
    (local.set $at
      (i32.and
        (i32.add (global.get $next) (i32.sub (local.get 2) (i32.const 1)))
        (i32.sub (i32.const 0) (local.get 2))))
    (global.set $next (i32.add (local.get $at) (local.get 3)))
    (local.get $at))
  (func $again (param i32) (result i32)
    (i32.add (i32.const 1) (call $again (i32.add (local.get 0) (i32.const 1)))))
  (func (export "vmetal:policy/meta@0.1.0#describe") (result i32) (i32.const 64))
  (func (export "vmetal:policy/meta@0.1.0#validate-settings") (param i32 i32) (result i32) (i32.const 256))
  (func (export "vmetal:policy/meta@0.1.0#settings-schema") (result i32) SCHEMA)
  (func (export "vmetal:policy/explain@0.1.0#explain") (param i32) (result i32) (i32.const 256))
  (func (export "vmetal:policy/EXPORT") (param i32) (result i32)
    (local $i i32)
    BODY
    (i32.const 128))
)"#;

/// One way to be a cost policy.
pub(crate) struct Fixture {
    pub(crate) body: &'static str,
    pub(crate) imports: &'static str,
    /// `option<u32>`: a tag of four bytes and a row of four.
    pub(crate) answer: &'static str,
    pub(crate) prices: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) pages: u32,
    /// What gives the place of the settings' schema.
    pub(crate) schema: &'static str,
}

/// Answers well.
pub(crate) const GOOD: Fixture = Fixture {
    body: "",
    imports: "",
    answer: r"\01\00\00\00\00\00\00\00",
    prices: r"\01",
    kind: r"\00",
    pages: 1,
    schema: "(i32.const 264)",
};

impl Fixture {
    /// The component.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let text = MODULE
            .replace("IMPORTS", self.imports)
            .replace("PAGES", &self.pages.to_string())
            .replace("KIND", self.kind)
            .replace("SCHEMA", self.schema)
            .replace("ANSWER", self.answer)
            .replace("PRICES", self.prices)
            .replace("BODY", self.body);
        // `PRICES` is one byte of a count of four; `PAGES` had to go before it.
        encode(&text.replace("EXPORT", "cost@0.1.0#choose"), "cost-policy")
    }

    pub(crate) fn binding(&self, on_failure: OnFailure) -> Binding {
        bind(self.bytes(), on_failure)
    }
}

fn encode(text: &str, world: &str) -> Vec<u8> {
    let mut module = wat::parse_str(text).unwrap();
    let mut resolve = wit_parser::Resolve::default();
    let (package, _) = resolve.push_path(crate::support::workspace().join("policies/wit")).unwrap();
    let world = resolve.select_world(&[package], Some(world)).unwrap();
    wit_component::embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    componentize::encode(&module).unwrap()
}

/// One way to be a placement policy: always these picks, and these codes for the candidates, whatever they are.
#[allow(dead_code, reason = "for the engine's own tests, which share this file")]
pub(crate) struct Placing {
    pub(crate) picks: &'static [u32],
    pub(crate) codes: &'static [u32],
}

#[allow(dead_code, reason = "for the engine's own tests, which share this file")]
impl Placing {
    /// The component. `decision` at 128 (picks at 192, verdicts at 512).
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let word = |number: u32| number.to_le_bytes().map(|byte| format!("\\{byte:02x}")).concat();
        let words = |numbers: &[u32]| numbers.iter().copied().map(word).collect::<String>();
        let verdicts: String = self.codes.iter().map(|code| words(&[*code, 0, 0, 0])).collect();
        let count = |length: usize| u32::try_from(length).unwrap();
        let decision = words(&[192, count(self.picks.len()), 512, count(self.codes.len())]);
        let data = MODULE.lines().filter(|line| !line.contains("ANSWER") && !line.contains("(i32.const 192) \""));
        let text = data.collect::<Vec<_>>().join("\n");
        let answer = format!(
            "(memory (export \"memory\") 1)\n  (data (i32.const 128) \"{decision}\")\n  \
             (data (i32.const 192) \"{}\")\n  (data (i32.const 512) \"{verdicts}\")",
            words(self.picks)
        );
        let text = text
            .replace("(memory (export \"memory\") PAGES)", &answer)
            .replace("IMPORTS", "")
            .replace("KIND", r"\01")
            .replace("SCHEMA", "(i32.const 264)")
            .replace("BODY", "")
            .replace("EXPORT", "placement@0.1.0#place");
        encode(&text, "placement-policy")
    }
}

pub(crate) fn bind(bytes: Vec<u8>, on_failure: OnFailure) -> Binding {
    let source = Source::Bytes { name: "fixture".to_owned(), bytes: Arc::from(bytes), sha256: None };
    Binding { source, settings: String::new(), on_failure }
}

/// A component in text form.
pub(crate) fn component(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}
