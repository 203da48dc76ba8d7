//! Where write-only values are kept: named by the object's uid, so that a new object of an old name inherits nothing.

use vmetal_model::Uid;

/// The BMC password of a host.
pub fn bmc_password(host: &Uid) -> String {
    format!("host/{host}/bmc.password")
}

/// The password that a host's BMC is being given.
pub fn next_bmc_password(host: &Uid) -> String {
    format!("host/{host}/bmc.password.next")
}

/// The token of a host's network boot attempt.
pub fn boot_token(host: &Uid) -> String {
    format!("host/{host}/boot-token")
}

/// Whose boot token a secret of this name is, if it is one.
pub fn whose_boot_token(name: &str) -> Option<Uid> {
    let uid = name.strip_prefix("host/")?.strip_suffix("/boot-token")?;
    Some(Uid(uid.to_owned()))
}

/// The kubeconfig of a tenant cluster.
pub fn kubeconfig(cluster: &Uid) -> String {
    format!("tenant_cluster/{cluster}/kubeconfig")
}

/// The user data that a tenant gives for a node.
pub fn user_data(node: &Uid) -> String {
    format!("tenant_node/{node}/user_data")
}

/// The join credentials of a claim.
pub fn join(node: &Uid) -> String {
    format!("tenant_node/{node}/join")
}
