//! Kinds as types: which Rust type each kind has, and an object whose kind is known only at run time.

use serde::de::DeserializeOwned;
use serde::{Deserialize as _, Serialize};
use serde_json::Value;
use vmetal_model::{
    Host, Image, Kind, Metadata, Network, NodeType, Object, Policy, TenantCluster, TenantNode, host, image, network,
    node_type, policy, tenant_cluster, tenant_node,
};

/// A kind of object as a Rust type: implemented by [`Host`], [`NodeType`], [`TenantNode`], [`TenantCluster`],
/// [`Image`], [`Network`] and [`Policy`].
pub trait Resource: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {
    /// The kind.
    const KIND: Kind;
    /// What the user wants.
    type Spec: Serialize + DeserializeOwned + Clone + Send + Sync + 'static;
    /// What the engine has found and done.
    type Status: Serialize + DeserializeOwned + Clone + Send + Sync + 'static;

    /// The object's frame.
    fn object(&self) -> &Object<Self::Spec, Self::Status>;

    /// The object from its frame.
    fn from_object(object: Object<Self::Spec, Self::Status>) -> Self;
}

macro_rules! resource {
    ($object:ty, $kind:expr, $spec:ty, $status:ty) => {
        impl Resource for $object {
            const KIND: Kind = $kind;
            type Spec = $spec;
            type Status = $status;
            fn object(&self) -> &Object<$spec, $status> {
                self
            }
            fn from_object(object: Object<$spec, $status>) -> Self {
                object
            }
        }
    };
}

resource!(Host, Kind::Host, host::HostSpec, host::HostStatus);
resource!(NodeType, Kind::NodeType, node_type::NodeTypeSpec, node_type::NodeTypeStatus);
resource!(TenantNode, Kind::TenantNode, tenant_node::TenantNodeSpec, tenant_node::TenantNodeStatus);
resource!(TenantCluster, Kind::TenantCluster, tenant_cluster::TenantClusterSpec, tenant_cluster::TenantClusterStatus);
resource!(Image, Kind::Image, image::ImageSpec, image::ImageStatus);
resource!(Network, Kind::Network, network::NetworkSpec, network::NetworkStatus);
resource!(Policy, Kind::Policy, policy::PolicySpec, policy::PolicyStatus);

/// An object of a kind known at run time, with spec and status as JSON. Fields that this program does not know are kept.
#[derive(Debug, Clone, PartialEq)]
pub struct AnyObject {
    /// The kind.
    pub kind: Kind,
    /// Name, identity and history.
    pub metadata: Metadata,
    /// What the user wants, as the kind's `Spec` serialises.
    pub spec: Value,
    /// What the engine has found and done, as the kind's `Status` serialises.
    pub status: Value,
}

/// An object that does not have the shape this program expects of its kind.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Another kind was asked for.
    #[error("{name:?} is a {found}, not a {expected}")]
    Kind {
        /// The object's name.
        name: String,
        /// The kind that was asked for.
        expected: Kind,
        /// The kind it has.
        found: Kind,
    },
    /// The JSON does not fit the type: engine and client are of different versions.
    #[error("{kind} {name:?} has a shape this program does not know: {source}")]
    Shape {
        /// The object's kind.
        kind: Kind,
        /// The object's name.
        name: String,
        /// Where it does not fit.
        #[source]
        source: serde_json::Error,
    },
}

impl AnyObject {
    /// The object's name.
    pub fn name(&self) -> &str {
        &self.metadata.name
    }

    /// The object as JSON: `{"metadata": …, "spec": …, "status": …}`.
    pub fn to_json(&self) -> Value {
        serde_json::json!({ "metadata": self.metadata, "spec": self.spec, "status": self.status })
    }

    /// Takes a typed object apart.
    ///
    /// # Errors
    /// [`DecodeError::Shape`] when a part cannot be serialised (a map with keys that are not strings; the model has none).
    pub fn from_typed<R: Resource>(object: &R) -> Result<Self, DecodeError> {
        let object = object.object();
        let shape = |source| DecodeError::Shape { kind: R::KIND, name: object.metadata.name.clone(), source };
        Ok(AnyObject {
            kind: R::KIND,
            metadata: object.metadata.clone(),
            spec: serde_json::to_value(&object.spec).map_err(shape)?,
            status: serde_json::to_value(&object.status).map_err(shape)?,
        })
    }

    /// The object as its type.
    ///
    /// # Errors
    /// [`DecodeError`] when it is of another kind or was written by a program with another idea of its shape.
    pub fn typed<R: Resource>(&self) -> Result<R, DecodeError> {
        let name = || self.metadata.name.clone();
        if self.kind != R::KIND {
            return Err(DecodeError::Kind { name: name(), expected: R::KIND, found: self.kind });
        }
        let shape = |source| DecodeError::Shape { kind: self.kind, name: name(), source };
        Ok(R::from_object(Object {
            metadata: self.metadata.clone(),
            spec: R::Spec::deserialize(&self.spec).map_err(shape)?,
            status: R::Status::deserialize(&self.status).map_err(shape)?,
        }))
    }
}
