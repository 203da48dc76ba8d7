//! What many resources cost in calls of the API, counted at the engine: what is one call for each must not become two, and what
//! is one for all must not become one for each.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests watch the real clock")]

#[path = "support/bench.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod bench;
#[path = "support/engine.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod engine;

use std::time::{Duration, Instant};

use bench::{Bench, changes};
use engine::PASSWORD;
use tfplugin::testing::Planned;
use vmetal_model::Kind;

/// More than are asked for one by one.
const HOSTS: usize = 80;
/// So many are asked for one by one (`SINGLE` in `src/reads.rs`).
const SINGLE: usize = 32;
/// How long a listing is true (`FRESH` in `src/reads.rs`): a refresh that takes longer has more than one.
const FRESH: Duration = Duration::from_secs(5);

#[test]
fn a_create_is_one_call_and_a_refresh_is_one_listing() {
    let bench = Bench::new();
    bench.config(&format!(
        r#"
resource "vmetal_host" "many" {{
  count = {HOSTS}
  name  = "h${{count.index}}"
  bmc = {{
    address     = "redfish+http://127.0.0.1:8000/redfish/v1/Systems/${{count.index}}"
    username    = "root"
    password_wo = "{PASSWORD}"
  }}
  boot_mac = format("52:54:00:aa:00:%02x", count.index)
}}
"#
    ));
    let world = &bench.engine.world;
    assert_eq!(world.calls(), [].into(), "nothing was asked for before there is anything");
    bench.apply_to_the_last(HOSTS, "h79");
    // The declaration with the wait for it, and the removal of its stamp, where the last one's is not promised.
    let mut made = world.calls();
    let unstamped = made.remove("annotate").unwrap();
    assert!((HOSTS - 1..=HOSTS).contains(&unstamped), "{unstamped} stamps were removed");
    assert_eq!(made, [("apply", HOSTS), ("follow", HOSTS)].into(), "an apply");

    let begin = Instant::now();
    assert_eq!(bench.tf.plan().unwrap(), Planned::Nothing);
    let (took, mut read) = (begin.elapsed(), world.calls());
    let lists = read.remove("list").unwrap();
    let most = 1 + usize::try_from(took.as_secs() / FRESH.as_secs()).unwrap();
    assert!((1..=most).contains(&lists), "a refresh of {took:?}: {lists} listings");
    assert!(read.values().sum::<usize>() <= SINGLE, "a refresh: {read:?}");

    // What a listing does not have is asked for, and only then gone.
    world.vanish(Kind::Host, "h79");
    assert_eq!(bench.tf.plan().unwrap(), changes("vmetal_host.many[79]", &["create"]));
}
