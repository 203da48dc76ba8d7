//! A person at a BMC: asks whether it lets somebody in, and changes its password, without the engine.

use anyhow::{Context, Result, bail};
use kube::api::{GetParams, Patch, PatchParams};
use kube::{Client, Config};
use vmetal_model::BmcAddress;

/// Whether the BMC at this address (as a host is declared with it) lets this account in.
///
/// # Errors
/// When it says neither yes nor no.
pub async fn opens(address: &str, username: &str, password: &str) -> Result<bool> {
    let request = kube::core::Request::new("/redfish/v1/Systems").get("1", &GetParams::default())?;
    match send(address, username, password, request).await? {
        200 => Ok(true),
        401 => Ok(false),
        other => bail!("the BMC at {address} answered neither yes nor no: {other}"),
    }
}

/// Gives an account of the lab's BMC another password, as a person does it who tells the engine nothing.
///
/// # Errors
/// When the BMC does not take it.
pub async fn give(address: &str, username: &str, password: &str, new: &str) -> Result<()> {
    let body = serde_json::json!({ "Password": new });
    let accounts = kube::core::Request::new("/redfish/v1/AccountService/Accounts");
    let request = accounts.patch("1", &PatchParams::default(), &Patch::Merge(body))?;
    match send(address, username, password, request).await? {
        200 | 204 => Ok(()),
        other => bail!("the BMC at {address} did not take the password: {other}"),
    }
}

async fn send(address: &str, username: &str, password: &str, request: http::Request<Vec<u8>>) -> Result<u16> {
    // An error means that it was installed before.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let bmc: BmcAddress = address.parse().with_context(|| format!("{address:?} is not a BMC's address"))?;
    // A client for HTTP with TLS and passwords is at hand: Kubernetes' own.
    let mut config = Config::new(bmc.origin().parse().context("the BMC's origin is no address")?);
    config.accept_invalid_certs = true;
    config.auth_info.username = Some(username.to_owned());
    config.auth_info.password = Some(password.to_owned().into());
    let answer = Client::try_from(config)?.send(request.map(kube::client::Body::from)).await;
    Ok(answer.with_context(|| format!("the BMC at {address} does not answer"))?.status().as_u16())
}
