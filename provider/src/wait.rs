//! Waiting for the engine, for as long as the user allows and not a moment longer than they want.
//!
//! The wait follows the engine's watch stream. It outlives the engine: a stream that breaks is opened again until time is
//! up, so that an engine that restarts (or is upgraded) in the middle of an apply costs nothing but the pause.

use std::time::Duration;

use futures::StreamExt as _;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use vmetal_api::{ApiError, Client, Following, Resource, WatchItem};
use vmetal_model::{Failure, Uid};

use crate::kind::Verdict;

/// The pause before a broken stream is opened again.
const REOPEN: Duration = Duration::from_secs(1);

/// How a wait ended. The object is the last one seen.
#[derive(Debug)]
pub(crate) enum Ended<O> {
    /// It is there.
    Done(Box<O>),
    /// It no longer exists (or another one has its name).
    Gone,
    /// The engine has given up.
    Stuck(Box<O>, Failure),
    /// The user asked to stop.
    Cancelled(Option<Box<O>>),
    /// Time is up.
    Deadline(Option<Box<O>>),
    /// The engine refuses to be asked.
    Refused(Option<Box<O>>, ApiError),
}

/// What is waited for, and under which limits.
pub(crate) struct Wait<'a> {
    pub(crate) client: &'a Client,
    pub(crate) name: &'a str,
    pub(crate) uid: &'a Uid,
    pub(crate) within: Duration,
    pub(crate) cancelled: &'a CancellationToken,
}

impl Wait<'_> {
    /// Waits until `judge` is content with the object. `told` hears what is going on, once per change.
    pub(crate) async fn until<O: Resource>(&self, judge: impl Fn(&O) -> Verdict, told: impl FnMut(&str)) -> Ended<O> {
        self.until_from(None, judge, told).await
    }

    /// The same, where there may be a stream already that tells every change after a state that was judged.
    pub(crate) async fn until_from<O: Resource>(
        &self,
        mut news: Option<Following<O>>,
        judge: impl Fn(&O) -> Verdict,
        mut told: impl FnMut(&str),
    ) -> Ended<O> {
        let deadline = Instant::now() + self.within;
        let mut last: Option<Box<O>> = None;
        let mut doubt: Option<(Failure, Instant)> = None;
        let mut saying = String::new();
        loop {
            let open = async {
                match news.take() {
                    Some(news) => Ok(news),
                    None => self.client.watch_as::<O>(Some(self.name)).await,
                }
            };
            let mut stream = tokio::select! {
                opened = open => match opened {
                    Ok(stream) => stream,
                    Err(error) if error.is_transient() => {
                        told(&format!("{error}; trying again"));
                        match self.pause(deadline).await {
                            Pause::Over => continue,
                            Pause::Cancelled => return Ended::Cancelled(last),
                            Pause::Deadline => return Ended::Deadline(last),
                        }
                    }
                    Err(error) => return Ended::Refused(last, error),
                },
                () = self.cancelled.cancelled() => return Ended::Cancelled(last),
                () = sleep_until(deadline) => return Ended::Deadline(last),
            };
            let mut present: Option<O> = None;
            loop {
                let doubt_ends = doubt.as_ref().map_or(deadline, |(_, until)| *until);
                let item = tokio::select! {
                    item = stream.next() => item,
                    () = self.cancelled.cancelled() => return Ended::Cancelled(last),
                    () = sleep_until(doubt_ends.min(deadline)) => {
                        return match (doubt.take(), last) {
                            (Some((failure, until)), Some(object)) if until <= deadline => Ended::Stuck(object, failure),
                            (_, last) => Ended::Deadline(last),
                        };
                    }
                };
                let seen = match item {
                    Some(Ok(WatchItem::Sync(object))) => {
                        present = Some(object);
                        continue;
                    }
                    // Only now is it known that there is nothing more.
                    Some(Ok(WatchItem::Bookmark { .. })) => present.take(),
                    Some(Ok(WatchItem::Changed(object))) => Some(object),
                    Some(Ok(WatchItem::Deleted(_))) => None,
                    Some(Err(error)) if !error.is_transient() => return Ended::Refused(last, error),
                    Some(Err(_)) | None => break,
                };
                let Some(object) = seen.filter(|seen| seen.object().metadata.uid == *self.uid) else {
                    return Ended::Gone;
                };
                let verdict = judge(&object);
                let object = Box::new(object);
                match verdict {
                    Verdict::Done => return Ended::Done(object),
                    Verdict::Stuck(failure) => return Ended::Stuck(object, failure),
                    Verdict::Doubtful(failure, grace) => {
                        let since = doubt.take().filter(|(old, _)| old.cause == failure.cause);
                        let until = since.map_or_else(|| Instant::now() + grace, |(_, until)| until);
                        if saying != failure.message {
                            saying.clone_from(&failure.message);
                            told(&saying);
                        }
                        doubt = Some((failure, until));
                    }
                    Verdict::Going(what) => {
                        doubt = None;
                        if saying != what {
                            told(&what);
                            saying = what;
                        }
                    }
                }
                last = Some(object);
            }
            match self.pause(deadline).await {
                Pause::Over => {}
                Pause::Cancelled => return Ended::Cancelled(last),
                Pause::Deadline => return Ended::Deadline(last),
            }
        }
    }

    /// Waits until the object is gone.
    pub(crate) async fn gone<O: Resource>(&self, what: impl Fn(&O) -> String, told: impl FnMut(&str)) -> Ended<O> {
        self.until(|object| Verdict::Going(what(object)), told).await
    }

    async fn pause(&self, deadline: Instant) -> Pause {
        tokio::select! {
            () = sleep(REOPEN) => Pause::Over,
            () = self.cancelled.cancelled() => Pause::Cancelled,
            () = sleep_until(deadline) => Pause::Deadline,
        }
    }
}

enum Pause {
    Over,
    Cancelled,
    Deadline,
}
