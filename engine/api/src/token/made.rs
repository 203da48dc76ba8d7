//! Tokens that a token makes: for a while, for one purpose, and for no more than the maker may do itself.
//!
//! * Kept as hashes, in this process only: after a restart of the engine they are gone, and whoever needs one asks again.
//! * A token is good for no longer than what made it: one made by a line of the file goes with that line, and one made by a token
//!   that was granted for a while ends with that, unless whoever holds a later one of the same name prolongs it.
//! * A made token makes no others.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use vmetal_model::FieldError;

use super::{Holder, Role, TokenStore, generate, hash};
use crate::credential::{ApiToken, ApiTokenRequest, IssuedToken};
use crate::error::BackendError;

/// The most made tokens at one time.
const MOST: usize = 1_000;
/// The most characters of a reason that go into a token's name.
const MOST_REASON: usize = 80;

/// One of them.
pub(super) struct Made {
    sha256: [u8; 32],
    id: String,
    holder: Holder,
    by: Arc<str>,
    parent: Parent,
    reason: String,
    request_id: String,
    expires: Instant,
}

/// What made a token.
#[derive(Clone, Copy)]
enum Parent {
    /// A line of the file.
    Listed([u8; 32]),
    /// A token that was granted for a while, until then.
    Granted(Instant),
}

impl Parent {
    /// The longest that a token lives that asks for this.
    fn bound(self, wish: Instant) -> Instant {
        match self {
            Self::Listed(_) => wish,
            Self::Granted(until) => wish.min(until),
        }
    }
}

impl TokenStore {
    /// A new token for whoever presents this one. Asked for again with the same request id, the one before ends: its secret is
    /// known to nobody.
    pub(crate) fn make(&self, presented: &str, request: &ApiTokenRequest) -> Result<ApiToken, BackendError> {
        let ApiTokenRequest { role, ttl, reason, request_id } = request;
        let (maker, parent) = self.maker(presented)?;
        check(*ttl, Some(reason))?;
        if *role > maker.role {
            let message = format!("the token {:?} is for looking only and makes no {}", maker.name, role.as_str());
            return Err(BackendError::Forbidden { message });
        }
        let internal = |error: super::TokenError| BackendError::Internal { message: error.to_string() };
        let token = generate().map_err(internal)?;
        let sha256 = hash(token.expose());
        // Told to anybody: it follows from the hash, and the token does not follow from that.
        let id = hex::encode(&sha256[..6]);
        let reason: String = reason.trim().chars().filter(|c| !c.is_control()).take(MOST_REASON).collect();
        let name = format!("{} (token {id}: {reason})", maker.name).into();
        let now = Instant::now();
        let made = Made {
            sha256,
            id,
            holder: Holder { name, role: *role },
            by: maker.name,
            parent,
            reason,
            request_id: request_id.clone(),
            expires: parent.bound(now + *ttl),
        };
        let mut all = self.all_made();
        all.retain(|one| one.expires > now && !(one.by == made.by && one.request_id == made.request_id));
        if all.len() >= MOST {
            return Err(BackendError::Precondition {
                message: format!("there are {MOST} tokens that were made for a while already"),
                advice: "revoke what is not needed, or wait until some have expired".to_owned(),
            });
        }
        let issued = made.issued(now);
        all.push(made);
        drop(all);
        tracing::info!(id = issued.id, name = issued.name, role = role.as_str(), "made a token");
        Ok(ApiToken { token, issued })
    }

    /// A longer life, from now on, for a token that this one's holder made.
    pub(crate) fn prolong(&self, presented: &str, id: &str, ttl: Duration) -> Result<IssuedToken, BackendError> {
        let (maker, parent) = self.maker(presented)?;
        check(ttl, None)?;
        let now = Instant::now();
        let mut all = self.all_made();
        let found = all.iter_mut().find(|one| one.id == id && one.expires > now && self.stands(one));
        let Some(made) = found.filter(|one| one.by == maker.name) else {
            return Err(BackendError::Precondition {
                message: format!("there is no token {id} that {:?} made", maker.name),
                advice: "it has expired, was revoked, or the engine was restarted; make another".to_owned(),
            });
        };
        made.parent = parent;
        made.expires = parent.bound(now + ttl);
        Ok(made.issued(now))
    }

    /// Ends a made token: by who made it, or by whoever may do everything. One that is gone already is no error.
    pub(crate) fn revoke(&self, caller: &Holder, id: &str) -> Result<(), BackendError> {
        let mut all = self.all_made();
        let Some(at) = all.iter().position(|one| one.id == id) else { return Ok(()) };
        if all[at].by != caller.name && caller.role != Role::Operator {
            let message = format!("token {id} was not made by {:?}", caller.name);
            return Err(BackendError::Forbidden { message });
        }
        let gone = all.swap_remove(at);
        tracing::info!(id, name = %gone.holder.name, by = %caller.name, "revoked a token");
        Ok(())
    }

    /// Those that are good now, by id.
    pub(crate) fn issued(&self) -> Vec<IssuedToken> {
        let now = Instant::now();
        let all = self.all_made();
        let mut issued: Vec<_> =
            all.iter().filter(|one| one.expires > now && self.stands(one)).map(|one| one.issued(now)).collect();
        issued.sort_by(|a, b| a.id.cmp(&b.id));
        issued
    }

    /// Whose made token this is.
    pub(super) fn holder_of_made(&self, sha256: &[u8; 32]) -> Option<Holder> {
        let all = self.all_made();
        let found = all.iter().find(|one| one.sha256 == *sha256)?;
        (found.expires > Instant::now() && self.stands(found)).then(|| found.holder.clone())
    }

    /// Whether what made a token is still good for it.
    fn stands(&self, made: &Made) -> bool {
        match made.parent {
            Parent::Granted(_) => true,
            Parent::Listed(sha256) => {
                self.listed().iter().any(|entry| entry.sha256 == sha256 && entry.holder.role >= made.holder.role)
            }
        }
    }

    /// Who presents a token that may make others.
    fn maker(&self, presented: &str) -> Result<(Holder, Parent), BackendError> {
        let sha256 = hash(presented);
        if let Some(entry) = self.listed().iter().find(|entry| entry.sha256 == sha256) {
            return Ok((entry.holder.clone(), Parent::Listed(sha256)));
        }
        let granted = self.shared.granted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(one) = granted.get(&sha256) {
            return Ok((one.holder.clone(), Parent::Granted(one.expires)));
        }
        let message = "a token that was made for a while makes no others".to_owned();
        Err(BackendError::Forbidden { message })
    }

    fn all_made(&self) -> MutexGuard<'_, Vec<Made>> {
        self.shared.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Made {
    fn issued(&self, now: Instant) -> IssuedToken {
        IssuedToken {
            id: self.id.clone(),
            name: self.holder.name.to_string(),
            role: self.holder.role,
            by: self.by.to_string(),
            reason: self.reason.clone(),
            expires_in: self.expires.saturating_duration_since(now),
        }
    }
}

fn check(ttl: Duration, reason: Option<&str>) -> Result<(), BackendError> {
    let mut errors = Vec::new();
    let (shortest, longest) = (ApiTokenRequest::SHORTEST, ApiTokenRequest::LONGEST);
    if ttl < shortest || ttl > longest {
        let (from, to) = (shortest.as_secs(), longest.as_secs());
        errors.push(FieldError::new("ttl", format!("{} s is not between {from} s and {to} s", ttl.as_secs())));
    }
    if reason.is_some_and(|reason| reason.trim().is_empty()) {
        errors.push(FieldError::new("reason", "is empty; it goes on the record with the name of the token"));
    }
    if errors.is_empty() { Ok(()) } else { Err(BackendError::Invalid { errors }) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn wish(role: Role, seconds: u64) -> ApiTokenRequest {
        ApiTokenRequest {
            role,
            ttl: Duration::from_secs(seconds),
            reason: "a test".into(),
            request_id: format!("{role:?}{seconds}"),
        }
    }

    fn store(dir: &tempfile::TempDir, lines: &[(&str, &str, &str)]) -> TokenStore {
        let line = |(name, token, role): &(&str, &str, &str)| format!("{name} {} {role}\n", hex::encode(hash(token)));
        let path = dir.path().join("tokens");
        std::fs::write(&path, lines.iter().map(line).collect::<String>()).unwrap();
        TokenStore::load(&path).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_made_token_is_good_for_a_while_and_for_no_more_than_its_maker() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir, &[("ops", "one", "operator"), ("eyes", "two", "reader")]);
        let made = store.make("one", &wish(Role::Operator, 600)).unwrap();
        let holder = store.identify(made.token.expose()).unwrap();
        assert_eq!((holder.role, &*holder.name), (Role::Operator, made.issued.name.as_str()));
        assert!(holder.name.starts_with("ops (token ") && holder.name.ends_with(": a test)"), "{}", holder.name);
        assert!(store.make("two", &wish(Role::Reader, 600)).is_ok());
        let refused = store.make("two", &wish(Role::Operator, 600)).unwrap_err();
        assert!(matches!(refused, BackendError::Forbidden { .. }), "a reader makes no operator: {refused:?}");
        let refused = store.make(made.token.expose(), &wish(Role::Reader, 600)).unwrap_err();
        assert!(matches!(refused, BackendError::Forbidden { .. }), "a made token makes no others: {refused:?}");
        for bad in [wish(Role::Reader, 59), wish(Role::Reader, 86_401)] {
            assert!(matches!(store.make("one", &bad), Err(BackendError::Invalid { .. })), "{bad:?}");
        }
        tokio::time::advance(Duration::from_secs(500)).await;
        store.prolong("one", &made.issued.id, Duration::from_secs(600)).unwrap();
        tokio::time::advance(Duration::from_secs(599)).await;
        assert!(store.identify(made.token.expose()).is_some());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(store.identify(made.token.expose()), None);
        assert!(store.prolong("one", &made.issued.id, Duration::from_secs(600)).is_err(), "what has expired stays so");
        assert_eq!(store.issued(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_made_token_goes_with_what_made_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        let store = store(&dir, &[("ops", "one", "operator"), ("eyes", "two", "reader")]);
        let made = store.make("one", &wish(Role::Operator, 600)).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("operator", "reader")).unwrap();
        store.reload(&path).unwrap();
        assert_eq!(store.identify(made.token.expose()), None, "its maker may do less now");
        std::fs::write(&path, text.lines().skip(1).collect::<String>()).unwrap();
        store.reload(&path).unwrap();
        assert_eq!((store.identify(made.token.expose()), store.issued().len()), (None, 0), "its maker is gone");

        let holder = Holder { name: "ci".into(), role: Role::Operator };
        let granted = store.grant(holder.clone(), Duration::from_secs(100)).unwrap();
        let made = store.make(granted.expose(), &wish(Role::Operator, 600)).unwrap();
        assert_eq!(made.issued.expires_in, Duration::from_secs(100), "no longer than what was granted");
        let renewed = store.grant(holder, Duration::from_secs(300)).unwrap();
        let longer = store.prolong(renewed.expose(), &made.issued.id, Duration::from_secs(600)).unwrap();
        assert_eq!(longer.expires_in, Duration::from_secs(300));
    }

    #[test]
    fn it_is_revoked_by_who_made_it_or_an_operator() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir, &[("ops", "one", "operator"), ("eyes", "two", "reader"), ("spy", "three", "reader")]);
        let made = store.make("two", &wish(Role::Reader, 600)).unwrap();
        let id = made.issued.id.as_str();
        let as_whom = |token: &str| store.identify(token).unwrap();
        assert!(matches!(store.revoke(&as_whom("three"), id), Err(BackendError::Forbidden { .. })));
        assert!(store.prolong("three", id, Duration::from_secs(600)).is_err());
        assert_eq!(store.issued().iter().map(|one| one.by.as_str()).collect::<Vec<_>>(), ["eyes"]);
        store.revoke(&as_whom("two"), id).unwrap();
        assert_eq!(store.identify(made.token.expose()), None);
        store.revoke(&as_whom("two"), id).unwrap();
        let again = store.make("two", &wish(Role::Reader, 600)).unwrap();
        let repeated = store.make("two", &wish(Role::Reader, 600)).unwrap();
        assert_eq!(store.identify(again.token.expose()), None, "asked for again, the one before ends");
        store.revoke(&as_whom("one"), &repeated.issued.id).unwrap();
        assert_eq!(store.issued(), []);
    }
}
