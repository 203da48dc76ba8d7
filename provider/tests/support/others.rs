//! What others do in the world of the tests while a client is at work, and what is seen of the client.

use vmetal_api::{AnyObject, Apply, BackendError, Resource};
use vmetal_model::Kind;

use super::{Inner, World};

impl World {
    /// All objects, in order.
    pub(crate) fn objects(&self) -> Vec<AnyObject> {
        self.lock().objects.values().cloned().collect()
    }

    /// How often an object was declared, whatever came of it.
    pub(crate) fn asked(&self, kind: Kind, name: &str) -> usize {
        self.lock().asked.get(&(kind, name.to_owned())).copied().unwrap_or_default()
    }

    /// Keeps another BMC password for a host, as after an order that the BMC has carried out.
    pub(crate) fn rotate(&self, host: &str, password: &str) {
        self.lock().secrets.insert((Kind::Host, host.to_owned(), "bmc.password".to_owned()), password.to_owned());
    }

    /// Declares an object as it once was, as somebody else might.
    pub(crate) fn put_back(&self, old: &AnyObject) {
        let mut inner = self.lock();
        let mut object = inner.objects[&(old.kind, old.metadata.name.clone())].clone();
        object.spec = old.spec.clone();
        object.metadata.labels = old.metadata.labels.clone();
        object.metadata.generation += 1;
        inner.store(object);
    }
}

impl Inner {
    /// All objects of a kind that nobody holds.
    pub(super) fn moving<R: Resource>(&self) -> Vec<R> {
        let held = |object: &R| self.held.contains(&object.object().metadata.name);
        self.all::<R>().into_iter().filter(|object| !held(object)).collect()
    }

    /// Of a tenant node on which something is decided, only how it is emptied can change.
    pub(super) fn stays(&self, found: &AnyObject, apply: &Apply) -> Result<(), BackendError> {
        let mut wanted = apply.spec.clone();
        wanted["drain"] = found.spec["drain"].clone();
        let unlike = |(field, secret): (&String, &vmetal_api::Secret)| {
            let key = (apply.kind, apply.name.clone(), field.clone());
            self.secrets.get(&key).map(String::as_str) != Some(secret.expose())
        };
        if found.status["phase"] == "pending" || (wanted == found.spec && !apply.secrets.iter().any(unlike)) {
            return Ok(());
        }
        let message = format!("tenant node {} is decided already; only drain can still change", apply.name);
        Err(BackendError::Precondition { message, advice: "replace it".to_owned() })
    }
}
