//! What many resources cost in calls of the API, counted at the engine: what is one call for each must not become two, and what
//! is one for all must not become one for each.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests watch the real clock")]

#[path = "support/bench.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod bench;
#[path = "support/engine.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod engine;

use bench::{Bench, changes};
use engine::PASSWORD;
use tfplugin::testing::Planned;
use vmetal_model::Kind;

/// More than are asked for one by one.
const HOSTS: usize = 80;

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
    bench.tf.apply().unwrap();
    // The declaration with the wait for it, and the removal of its stamp.
    let made = [("annotate", HOSTS), ("apply", HOSTS), ("follow", HOSTS)];
    assert_eq!(world.calls(), made.into(), "an apply");
    let stamped = |n: usize| !world.get(Kind::Host, &format!("h{n}")).unwrap().metadata.annotations.is_empty();
    assert!(!(0..HOSTS).any(stamped), "no stamp stays");

    assert_eq!(bench.tf.plan().unwrap(), Planned::Nothing);
    let read = world.calls();
    assert_eq!(read.get("list"), Some(&1), "a refresh: {read:?}");
    assert!(read.values().sum::<usize>() <= 33, "a refresh: {read:?}");

    // What a listing does not have is asked for, and only then gone.
    world.vanish(Kind::Host, "h79");
    assert_eq!(bench.tf.plan().unwrap(), changes("vmetal_host.many[79]", &["create"]));
}
