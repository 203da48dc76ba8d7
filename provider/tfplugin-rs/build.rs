//! Compiles the protocol definitions with a compiler written in Rust, so that no `protoc` is needed to build.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    // Methods a provider does not have answer UNIMPLEMENTED instead of having to be written out.
    let provider = protox::compile(["proto/tfplugin6.proto"], ["proto"])?;
    tonic_prost_build::configure().generate_default_stubs(true).compile_fds(provider)?;
    let side_services = protox::compile(["proto/plugin.proto", "proto/health.proto"], ["proto"])?;
    tonic_prost_build::configure().compile_fds(side_services)?;
    Ok(())
}
