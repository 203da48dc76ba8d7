//! The account that we sign in with (DSP0268 `AccountService`, `ManagerAccount`).

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Gateway, uncancelled};
use crate::error::BmcError;
use crate::redfish::path::ResourcePath;
use crate::redfish::system::text;
use crate::transport::{Auth, Request};

impl Gateway {
    /// Asks one harmless question that needs the password.
    ///
    /// # Errors
    /// Any [`BmcError`] but [`BmcError::NotApplied`].
    pub async fn sign_in(&self) -> Result<(), BmcError> {
        self.system().await.map(|_| ())
    }

    /// Gives the account that this gateway signs in with another password. That it holds is for the caller to see, with a
    /// gateway that has it.
    ///
    /// # Errors
    /// Any [`BmcError`]; [`BmcError::Protocol`] when the BMC has no such account or does not take the password. Where the
    /// answer leaves it open what became of it, [`BmcError::Unreachable`]: it is as if there had been none.
    pub async fn change_password(&self, new: &str) -> Result<(), BmcError> {
        let (this, new) = (self.clone(), new.to_owned());
        uncancelled(async move { this.give_password(&new).await }).await
    }

    async fn give_password(&self, new: &str) -> Result<(), BmcError> {
        let _alone = self.known.transport.link.writes.lock().await;
        // Not another machine's account.
        let system = self.system().await?;
        self.same_machine(&system)?;
        let (path, etag) = self.account().await?;
        let body = json!({ "Password": new });
        let name = format!("PATCH {path}");
        let patch = |etag: Option<String>| {
            let (path, body) = (&path, &body);
            async move {
                let if_match = etag.as_deref();
                self.send(Request { method: Method::PATCH, body: Some(body), if_match, ..Request::get(path) }).await
            }
        };
        let answer = match patch(etag.clone()).await.map_err(open)? {
            // The BMC wants a precondition and offered none, or the account was changed in between: once more, whatever it is.
            answer
                if answer.status == StatusCode::PRECONDITION_REQUIRED
                    || answer.status == StatusCode::PRECONDITION_FAILED =>
            {
                patch(Some("*".to_owned())).await.map_err(open)?
            }
            answer => answer,
        };
        if answer.status.is_success() {
            return Ok(());
        }
        let error = match self.known.transport.unexpected(&name, "HTTP 2xx", &answer) {
            // A BMC that refuses a value likes to repeat it.
            BmcError::Protocol { origin, request, expected, seen } => {
                let seen = if new.is_empty() { seen } else { seen.replace(new, "(the new password)") };
                BmcError::Protocol { origin, request, expected, seen }
            }
            other => other,
        };
        Err(if answer.status.is_client_error() { error } else { open(error) })
    }

    /// Our account and its entity tag.
    async fn account(&self) -> Result<(ResourcePath, Option<String>), BmcError> {
        let root_path = ResourcePath::root();
        let root = self.read(Request { auth: Auth::None, ..Request::get(&root_path) }).await?.0;
        let missing = |request: &ResourcePath, expected: &str, seen: String| BmcError::Protocol {
            origin: self.known.transport.origin.clone(),
            request: format!("GET {request}"),
            expected: expected.to_owned(),
            seen,
        };
        let shown = |value: &Value| value.to_string().chars().take(200).collect::<String>();
        let service = ResourcePath::link(&root["AccountService"])
            .ok_or_else(|| missing(&root_path, "a link to AccountService", shown(&root["AccountService"])))?;
        let accounts = self.read(Request::get(&service)).await?.0;
        let accounts = ResourcePath::link(&accounts["Accounts"])
            .ok_or_else(|| missing(&service, "a link to Accounts", shown(&accounts["Accounts"])))?;
        let username = self.known.transport.username();
        let mut names = Vec::new();
        for path in self.collection(&accounts).await? {
            let (account, etag) = self.read(Request::get(&path)).await?;
            match text(&account, "UserName") {
                Some(name) if name == username => return Ok((path, etag)),
                name => names.extend(name.filter(|name| !name.is_empty())),
            }
        }
        let seen = if names.is_empty() { "none with a name".to_owned() } else { names.join(", ") };
        Err(missing(&accounts, &format!("an account {username:?}"), seen))
    }
}

/// An answer that says neither yes nor no: a BMC that fails after it has done what it was asked would lock us out, were it taken
/// for a no.
fn open(error: BmcError) -> BmcError {
    match error {
        BmcError::Protocol { origin, request, expected, seen } => {
            BmcError::Unreachable { origin, request, reason: format!("expected {expected}, seen {seen}") }
        }
        other => other,
    }
}
