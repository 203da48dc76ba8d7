//! Asking a BMC directly whether it lets somebody in, independently of the engine.

use anyhow::{Context, Result, bail};
use kube::api::GetParams;
use kube::{Client, Config};
use vmetal_model::BmcAddress;

/// Whether the BMC at this address (as a host is declared with it) lets this account in.
///
/// # Errors
/// When it says neither yes nor no.
pub async fn opens(address: &str, username: &str, password: &str) -> Result<bool> {
    // An error means that it was installed before.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let address: BmcAddress = address.parse().with_context(|| format!("{address:?} is not a BMC's address"))?;
    // A client for HTTP with TLS and passwords is at hand: Kubernetes' own.
    let mut config = Config::new(address.origin().parse().context("the BMC's origin is no address")?);
    config.accept_invalid_certs = true;
    config.auth_info.username = Some(username.to_owned());
    config.auth_info.password = Some(password.to_owned().into());
    let request = kube::core::Request::new("/redfish/v1/Systems").get("1", &GetParams::default())?;
    let answer = Client::try_from(config)?.send(request.map(kube::client::Body::from)).await;
    match answer.with_context(|| format!("the BMC at {} does not answer", address.origin()))?.status().as_u16() {
        200 => Ok(true),
        401 => Ok(false),
        other => bail!("the BMC at {} answered neither yes nor no: {other}", address.origin()),
    }
}
