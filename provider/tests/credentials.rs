//! Credentials that change while an apply runs, as they do where runs are long.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests watch the real clock")]

#[path = "support/bench.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod bench;
#[path = "support/engine.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod engine;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bench::{Bench, host};
use tfplugin::testing::Planned;
use vmetal_api::identity::{Issuers, Refusal, Verified, Verifying};
use vmetal_api::{Holder, Role, TokenStore, token};
use vmetal_model::Kind;

fn says(bench: &Bench) -> String {
    std::fs::read_to_string(bench.dir.path().join("output.log")).unwrap()
}

/// The token is replaced on both sides while the provider waits for a host. The wait breaks, and goes on with the new token.
#[test]
fn a_token_file_is_rotated_in_the_middle_of_an_apply() {
    let mut bench = Bench::new();
    let (hashes, file) = (bench.dir.path().join("tokens"), bench.dir.path().join("token"));
    let rotate = |tokens: &TokenStore, token: &str| {
        std::fs::write(&hashes, format!("tests {}\n", hex::encode(token::hash(token)))).unwrap();
        tokens.reload(&hashes).unwrap();
        std::fs::write(&file, token).unwrap();
    };
    rotate(&bench.engine.tokens, "vmt_old");
    bench.tf.env("VMETAL_TOKEN", "");
    bench.tf.env("VMETAL_TOKEN_FILE", &file.display().to_string());
    bench.config(&host("h1", ""));
    bench.engine.world.hold("h1");
    let mut apply = bench.apply_until_made(Kind::Host, "h1");
    rotate(&bench.engine.tokens, "vmt_new");
    // Nothing that was opened with the old token goes on.
    bench.engine.down();
    bench.engine.up();
    bench.engine.world.release("h1");
    assert!(apply.wait().unwrap().success(), "{}", says(&bench));
    assert_eq!(bench.tf.plan().unwrap(), Planned::Nothing);
}

/// Believes one token of one run.
#[derive(Debug)]
struct Platform(AtomicUsize);

impl Issuers for Platform {
    fn verify<'a>(&'a self, identity_token: &'a str) -> Verifying<'a> {
        self.0.fetch_add(1, Ordering::Relaxed);
        let holder = Holder { name: "hcp (run)".into(), role: Role::Operator };
        let verified = Verified { holder, lifetime: Duration::from_secs(3600) };
        let wrong = Refusal::NotBelieved("its signature is not the issuer's".to_owned());
        Box::pin(std::future::ready(if identity_token == "the run's identity" { Ok(verified) } else { Err(wrong) }))
    }
}

/// A workspace of HCP Terraform without any secret: the run shows who it is, the engine forgets the token that it gave for that,
/// and the apply does not notice.
#[test]
fn a_run_shows_who_it_is_instead_of_a_secret() {
    let mut bench = Bench::new();
    let platform = Arc::new(Platform(AtomicUsize::new(0)));
    bench.engine.issuers = platform.clone();
    bench.engine.down();
    bench.engine.up();
    bench.tf.env("VMETAL_TOKEN", "");
    bench.tf.env("TFC_WORKLOAD_IDENTITY_TOKEN", "somebody else's");
    bench.tf.env("TFC_WORKLOAD_IDENTITY_TOKEN_VMETAL", "the run's identity");
    bench.config(&host("h1", ""));
    bench.engine.world.hold("h1");
    let mut apply = bench.apply_until_made(Kind::Host, "h1");
    let before = platform.0.load(Ordering::Relaxed);
    bench.engine.down();
    // As after a restart: what was granted is known to that process only.
    bench.engine.tokens = TokenStore::default();
    bench.engine.up();
    bench.engine.world.release("h1");
    assert!(apply.wait().unwrap().success(), "{}", says(&bench));
    assert!(platform.0.load(Ordering::Relaxed) > before, "the token was not renewed");
    bench.tf.env("TFC_WORKLOAD_IDENTITY_TOKEN_VMETAL", "stolen");
    let refused = bench.tf.run(&["plan", "-no-color"]).unwrap();
    assert!(!refused.ok() && refused.flat().contains("the identity token is not believed"), "{}", refused.text);
}
