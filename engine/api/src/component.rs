//! Components of policies on their way in: bounded in size, in number, and in how long a sender may be silent.

use std::time::Duration;

use futures::stream::{Stream, StreamExt as _};
use tokio::sync::Semaphore;
use tonic::Status;
use vmetal_model::FieldError;
use vmetal_model::policy::LARGEST_COMPONENT;

use crate::error::BackendError;
use crate::proto::ComponentPart;

/// Components that are held in memory at the same time; more wait for their turn.
const AT_ONCE: usize = 2;
/// The longest silence of a sender.
const SILENCE: Duration = Duration::from_secs(20);

/// Lets few in at a time.
pub(crate) fn lane() -> Semaphore {
    Semaphore::new(AT_ONCE)
}

fn refused(message: String) -> Status {
    BackendError::Invalid { errors: vec![FieldError::new("component", message)] }.to_status()
}

/// Takes in a whole component: what its digest should be, and its bytes. Nothing larger than was said, and nothing larger than
/// a component may be, is ever held.
pub(crate) async fn receive<S>(mut parts: S) -> Result<(String, Vec<u8>), Status>
where
    S: Stream<Item = Result<ComponentPart, Status>> + Unpin,
{
    let Some(first) = next(&mut parts).await? else {
        return Err(refused("came without a part; expected at least its digest and size".to_owned()));
    };
    let ComponentPart { sha256, size_bytes, data } = first;
    if size_bytes > LARGEST_COMPONENT {
        return Err(refused(format!("is {size_bytes} bytes large; expected at most {LARGEST_COMPONENT}")));
    }
    let mut bytes = data;
    while bytes.len() as u64 <= size_bytes
        && let Some(part) = next(&mut parts).await?
    {
        bytes.extend_from_slice(&part.data);
    }
    match bytes.len() as u64 {
        seen if seen == size_bytes => Ok((sha256, bytes)),
        seen if seen > size_bytes => Err(refused(format!("has more bytes than the {size_bytes} that were announced"))),
        seen => Err(refused(format!("ended after {seen} of {size_bytes} bytes"))),
    }
}

async fn next<S>(parts: &mut S) -> Result<Option<ComponentPart>, Status>
where
    S: Stream<Item = Result<ComponentPart, Status>> + Unpin,
{
    let silent = |_| {
        let message = format!("the rest of the component did not come within {} s", SILENCE.as_secs());
        BackendError::Unavailable { message }.to_status()
    };
    tokio::time::timeout(SILENCE, parts.next()).await.map_err(silent)?.transpose()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::sync::Arc;

    use super::*;
    use crate::convert::component_parts;

    fn part(sha256: &str, size_bytes: u64, data: &[u8]) -> ComponentPart {
        ComponentPart { sha256: sha256.into(), size_bytes, data: data.to_vec() }
    }

    async fn given(parts: Vec<ComponentPart>) -> Result<(String, Vec<u8>), String> {
        let stream = futures::stream::iter(parts.into_iter().map(Ok));
        receive(stream).await.map_err(|status| status.message().to_owned())
    }

    #[tokio::test]
    async fn what_is_sent_in_parts_arrives_whole() {
        for length in [0, 1, crate::COMPONENT_PART, 3 * crate::COMPONENT_PART + 5] {
            let bytes: Arc<[u8]> = (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect();
            let parts: Vec<_> = component_parts("d".into(), Arc::clone(&bytes)).collect();
            assert_eq!(given(parts).await.unwrap(), ("d".to_owned(), bytes.to_vec()));
        }
    }

    #[tokio::test]
    async fn more_less_and_too_much_are_refused() {
        let size = LARGEST_COMPONENT + 1;
        for (parts, why) in [
            (vec![], "without a part"),
            (vec![part("d", size, &[])], "expected at most 33554432"),
            (vec![part("d", 3, &[]), part("", 0, b"four")], "more bytes than the 3"),
            (vec![part("d", 3, b"ab")], "after 2 of 3 bytes"),
        ] {
            let error = given(parts).await.unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_sender_that_falls_silent_holds_no_place() {
        let first = futures::stream::iter([Ok(part("d", 3, b"a"))]);
        let status = receive(first.chain(futures::stream::pending())).await.unwrap_err();
        assert!(status.message().contains("did not come within 20 s"), "{status}");
    }
}
