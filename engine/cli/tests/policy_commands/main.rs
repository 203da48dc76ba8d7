//! `vmetal policy`: the page about policies, walked; what authors get for files that are no policies; and the commands that ask
//! an engine, with a running one behind them.
#![allow(clippy::unwrap_used, reason = "tests")]

mod decisions;
mod install;
mod no_policies;
#[path = "../../../policy-source/tests/source/openssl.rs"]
#[allow(dead_code, reason = "the tests of signatures use all of it")]
mod openssl;
mod page;
// An engine over a store in memory, with hosts that are available for good; no BMC is called.
#[allow(dead_code, reason = "the engine's own tests use all of it")]
#[path = "../../../tests/claims/world.rs"]
mod world;

use clap::Parser as _;
use tokio::net::TcpListener;
use vmetal_api::{ServerConfig, TokenStore, serve, token};
use vmetal_cli::CliError;
use vmetal_cli::args::Cli;
use vmetal_model::Timestamp;
use world::World;

const TOKEN: &str = "vmt_test";

/// Serves the API of an engine, as long as the runtime lives; gives its address.
async fn start(world: &World) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let tokens = TokenStore::new([("admin", token::hash(TOKEN))]);
    tokio::spawn(serve(listener, world.backend(0), tokens, ServerConfig::default(), std::future::pending()));
    endpoint
}

async fn vmetal(endpoint: &str, args: &[&str]) -> Result<String, CliError> {
    let fixed = ["vmetal", "--endpoint", endpoint, "--token", TOKEN];
    let cli = Cli::try_parse_from(fixed.iter().chain(args)).unwrap();
    let mut out = Vec::new();
    vmetal_cli::run(cli, || Timestamp::UNIX_EPOCH, &mut out).await?;
    Ok(String::from_utf8(out).unwrap())
}
