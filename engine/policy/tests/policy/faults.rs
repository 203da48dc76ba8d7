//! Components that fail while they decide: each failure has its name, closes or falls back as bound, and leaves the
//! next decision alone.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use vmetal_model::PolicyKind;
use vmetal_policy::{
    Bars, Config, Fault, OnFailure, OutputError, PolicyEngine, PolicyError, Round, RunError, TypeDecision,
};

use crate::decide;
use crate::fixtures::{Fixture, GOOD};
use crate::support::{self, offer, wanted};

const LOOP: Fixture = Fixture { body: "(loop $l (br $l))", ..GOOD };
const TRAP: Fixture = Fixture { body: "unreachable", ..GOOD };
const DIVIDE: Fixture = Fixture { body: "(drop (i32.div_u (i32.const 1) (local.get $i)))", ..GOOD };
const RECURSE: Fixture = Fixture { body: "(drop (call $again (i32.const 0)))", ..GOOD };
const GROW: Fixture = Fixture { body: "(loop $l (drop (memory.grow (i32.const 64))) (br $l))", ..GOOD };
const OUT_OF_RANGE: Fixture = Fixture { answer: r"\01\00\00\00\09\00\00\00", ..GOOD };
const NONE: Fixture = Fixture { answer: r"\00\00\00\00\00\00\00\00", ..GOOD };
const NO_PRICE: Fixture = Fixture { prices: r"\00", ..GOOD };
const WILD_POINTER: Fixture = Fixture { body: "(i32.store (i32.const 136) (i32.const -8))", ..GOOD };
const CHATTY: Fixture = Fixture {
    imports: r#"(import "vmetal:policy/log@0.1.0" "emit" (func $emit (param i32 i32 i64 i64)))"#,
    body: "(loop $l
        (call $emit (i32.const 2) (i32.const 1001) (i64.const -1) (i64.extend_i32_u (local.get $i)))
        (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 1000))))",
    ..GOOD
};

fn engine(fixture: &Fixture, on_failure: OnFailure) -> PolicyEngine {
    PolicyEngine::new(Config { cost: fixture.binding(on_failure), ..Config::native() }).unwrap()
}

fn choose(engine: &PolicyEngine) -> Result<TypeDecision, PolicyError> {
    engine.choose_type(&wanted(&[("cpu", "1")]), &[offer("small", &[("cpu", "2"), ("memory", "4Gi")])], 0)
}

/// Decides with the fixture bound closed and returns its fault, after making sure that the next decision is unharmed
/// and that the native twin stands in when bound so.
fn fault(fixture: &Fixture) -> Fault {
    let engine = engine(fixture, OnFailure::Closed);
    let fault = match choose(&engine) {
        Err(PolicyError::Failed { fault, policy, .. }) => {
            assert!(policy.starts_with("fixture@1 sha256:"), "{policy}");
            fault
        }
        other => panic!("expected a failure, got {other:?}"),
    };
    engine.install(PolicyKind::Cost, &GOOD.binding(OnFailure::Closed)).unwrap();
    let next = choose(&engine).unwrap();
    assert_eq!((next.chosen, next.costs[0].to_string()), (Some(0), "5".to_owned()));

    engine.install(PolicyKind::Cost, &fixture.binding(OnFailure::NativeTwin)).unwrap();
    let stood_in = choose(&engine).unwrap();
    assert_eq!((stood_in.chosen, stood_in.costs[0].to_string()), (Some(0), "28".to_owned()));
    assert_eq!(stood_in.record.policy.name, "cost-vcluster");
    assert!(stood_in.record.stood_in_for.unwrap().contains(&fault.to_string()));
    fault
}

#[test]
fn a_good_fixture_decides() {
    let decision = choose(&engine(&GOOD, OnFailure::Closed)).unwrap();
    assert_eq!((decision.chosen, decision.costs[0].to_string()), (Some(0), "5".to_owned()));
    let policy = decision.record.policy;
    assert_eq!((policy.name.as_str(), policy.version.as_str(), policy.generation), ("fixture", "1", 1));
    assert_eq!(policy.sha256.unwrap().len(), 64);
}

#[test]
fn an_endless_loop_runs_out_of_fuel_and_always_of_the_same() {
    for _ in 0..2 {
        match fault(&LOOP) {
            Fault::Run(RunError::OutOfFuel { fuel }) => assert_eq!(fuel, 50_005_000),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn too_much_memory_is_refused() {
    match fault(&GROW) {
        Fault::Run(RunError::OutOfMemory { wanted, limit }) => assert!(wanted > limit && limit == 128 << 20),
        other => panic!("{other:?}"),
    }
}

#[test]
fn traps_are_named() {
    for (fixture, name) in [(&TRAP, "unreachable"), (&DIVIDE, "divide by zero"), (&RECURSE, "stack exhausted")] {
        match fault(fixture) {
            Fault::Run(RunError::Trapped { trap }) => assert!(trap.contains(name), "{trap}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn answers_that_lie_are_not_believed() {
    let output = |fixture: &Fixture| match fault(fixture) {
        Fault::Output(error) => error,
        other => panic!("{other:?}"),
    };
    assert_eq!(output(&OUT_OF_RANGE), OutputError::RowOutOfRange { row: 9, rows: 1 });
    assert_eq!(output(&NONE), OutputError::NothingChosen { feasible: 1, wanted: 1 });
    assert_eq!(output(&NO_PRICE), OutputError::PriceCount { seen: 0, rows: 1 });
}

#[test]
fn an_answer_outside_its_memory_cannot_be_read() {
    assert!(matches!(fault(&WILD_POINTER), Fault::Run(RunError::Call(_))));
}

#[test]
fn an_excluded_row_cannot_be_chosen() {
    let engine = engine(&GOOD, OnFailure::Closed);
    let mut taken = offer("small", &[("cpu", "2")]);
    taken.free = 0;
    match engine.choose_type(&wanted(&[]), &[taken], 0) {
        Err(PolicyError::Failed { fault: Fault::Output(OutputError::GateIgnored { name, reason }), .. }) => {
            assert_eq!((name.as_str(), reason.as_str()), ("small", "0 of 1 hosts free"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn notes_are_kept_up_to_a_bound() {
    let record = choose(&engine(&CHATTY, OnFailure::Closed)).unwrap().record;
    assert_eq!((record.notes.kept.len(), record.notes.dropped), (64, 936));
    let last = &record.notes.kept[63];
    assert_eq!((last.level.as_str(), last.code, last.args), ("warn", 1001, [-1, 63]));
}

#[test]
fn the_clock_is_a_backstop_that_blames_the_machine() {
    let mut config = Config { cost: LOOP.binding(OnFailure::Closed), ..Config::native() };
    config.limits.compiled.fuel_base = u64::MAX / 2;
    // Far more than the good policy needs below, which has the same limit; what only the clock stopped is tried twice.
    config.limits.compiled.deadline = Duration::from_millis(500);
    let engine = PolicyEngine::new(config).unwrap();
    assert!(matches!(choose(&engine), Err(PolicyError::Failed { fault: Fault::Run(RunError::Overloaded { .. }), .. })));
    engine.install(PolicyKind::Cost, &GOOD.binding(OnFailure::Closed)).unwrap();
    assert_eq!(choose(&engine).unwrap().chosen, Some(0));
}

#[test]
fn an_exchange_under_load_loses_no_decision() {
    let engine = engine(&GOOD, OnFailure::Closed);
    let twin = support::native().identities()[0].name.clone();
    let bindings = [vmetal_policy::Binding::native("cost-vcluster"), GOOD.binding(OnFailure::Closed)];
    std::thread::scope(|scope| {
        let deciders: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let decision = choose(&engine).unwrap();
                        // Name, digest and price always belong together.
                        let policy = &decision.record.policy;
                        let expected = if policy.name == twin { ("28", false) } else { ("5", true) };
                        assert_eq!((decision.costs[0].to_string().as_str(), policy.sha256.is_some()), expected);
                    }
                })
            })
            .collect();
        for binding in bindings.iter().cycle().take(10) {
            engine.install(PolicyKind::Cost, binding).unwrap();
        }
        deciders.into_iter().for_each(|decider| decider.join().unwrap());
    });
}

#[test]
fn a_policy_that_fails_again_and_again_rests_and_is_then_asked_once_more() {
    let engine = engine(&TRAP, OnFailure::Closed);
    let decide = |now| engine.choose_type(&wanted(&[]), &[offer("small", &[("cpu", "2")])], now).unwrap_err();
    let rests = |error: &PolicyError| matches!(error, PolicyError::Failed { fault: Fault::Resting { .. }, .. });
    let seen: Vec<bool> = [100, 101, 102, 103, 161, 162, 163, 40].into_iter().map(|now| rests(&decide(now))).collect();
    // Three failures, a pause of a minute, one more try; a clock that was set back ends the pause.
    assert_eq!(seen, [false, false, false, true, true, false, true, false]);
    // Another policy in the seat begins with a clean record.
    engine.install(PolicyKind::Cost, &GOOD.binding(OnFailure::Closed)).unwrap();
    assert!(engine.choose_type(&wanted(&[]), &[offer("small", &[])], 164).is_ok());
}

#[test]
fn the_policy_before_can_be_seated_again_at_once() {
    let engine = engine(&GOOD, OnFailure::Closed);
    assert_eq!(engine.roll_back_cost(), None);
    engine.install(PolicyKind::Cost, &TRAP.binding(OnFailure::Closed)).unwrap();
    assert!(choose(&engine).is_err());
    assert_eq!(engine.roll_back_cost().map(|identity| identity.generation), Some(1));
    assert_eq!(choose(&engine).unwrap().record.policy.generation, 1);
    assert_eq!(engine.roll_back_cost().map(|identity| identity.generation), Some(2));
    assert!(choose(&engine).is_err());
}

/// A claim that is decided on by a policy that fails: what it is told, and what the log says.
fn told_and_logged(fixture: &Fixture) -> (String, String) {
    let engine = engine(fixture, OnFailure::Closed);
    let (types, hosts) = decide::fleet();
    let view = decide::view(&hosts);
    let mut round =
        Round::new(&types[1..], view, vmetal_model::Timestamp::UNIX_EPOCH).recorded_as("c.00000000".to_owned());
    let error = round.decide(&engine, &decide::tenant_node(&[("cpu", "1")]), &Bars::none()).unwrap_err();
    let id = round.last_decision().unwrap();
    let recorded = round.end(&engine).and_then(|recorded| recorded.keeping(|kept| kept == id)).unwrap();
    let fleet = recorded.fleet.clone();
    let journal = recorded.journal(None);
    let decided = journal.decisions().next().unwrap().clone();
    assert_eq!((decided.host, decided.answer.as_str()), (None, ""), "there is no answer");
    let again = engine.replay(&journal, fleet, decided.number).unwrap_err().to_string();
    assert!(again.contains("no answer") && again.contains(&error.to_string()), "{again}");
    // The next decision is unaffected.
    engine.install(PolicyKind::Cost, &GOOD.binding(OnFailure::Closed)).unwrap();
    let view = decide::view(&hosts);
    let mut round = Round::new(&types[1..], view, vmetal_model::Timestamp::UNIX_EPOCH);
    assert!(round.decide(&engine, &decide::tenant_node(&[("cpu", "1")]), &Bars::none()).unwrap().host.is_some());
    (error.to_string(), decided.reason)
}

#[test]
fn every_failure_has_a_name_of_its_own_on_the_claim_and_in_the_log() {
    let failures = [
        (&LOOP, "used up its 50005000 units of fuel"),
        (&RECURSE, "call stack exhausted"),
        (&GROW, "bytes of memory, at most 134217728 are allowed"),
        (&TRAP, "unreachable"),
        (&DIVIDE, "divide by zero"),
        (&OUT_OF_RANGE, "chose row 9 of 1"),
        (&NONE, "chose none although its verdicts leave 1 candidates"),
        (&NO_PRICE, "answered with 0 prices for 1 candidates"),
        (&WILD_POINTER, "could not be called"),
    ];
    for (fixture, name) in failures {
        let (told, logged) = told_and_logged(fixture);
        assert!(told.contains("fixture@1 sha256:") && told.contains(name), "{name} in {told}");
        assert_eq!(told, logged);
    }
}
