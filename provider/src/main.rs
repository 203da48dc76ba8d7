//! The `terraform-provider-vmetal` binary.

use std::process::ExitCode;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    tfplugin::serve(provider_vmetal::Vmetal::new(), provider_vmetal::ADDRESS).await
}
