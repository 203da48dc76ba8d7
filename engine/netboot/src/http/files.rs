//! Streams a file, whole or one range of it, in bounded memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

/// Read and sent at once.
const CHUNK: u64 = 256 * 1024;

/// An open file. The inode stays what it is even when another file takes its name, so a transfer is never a mix of two.
#[derive(Debug, Clone)]
pub struct OpenFile {
    file: Arc<File>,
    len: u64,
    etag: HeaderValue,
    content_type: &'static str,
}

/// Called once, when the last byte asked for was handed to the connection.
pub type OnSent = Box<dyn FnOnce() + Send>;

impl OpenFile {
    /// Wraps an open file whose contents have this digest (or another name that changes with them).
    ///
    /// # Errors
    /// When its size cannot be read, or it is not a regular file.
    pub fn new(file: File, digest: &str, content_type: &'static str) -> io::Result<Self> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "not a regular file"));
        }
        let etag = HeaderValue::from_str(&format!("\"{digest}\""))
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the digest is not plain text"))?;
        Ok(OpenFile { file: Arc::new(file), len: metadata.len(), etag, content_type })
    }

    /// Its size in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True when it has no contents.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Answers a GET or HEAD (RFC 9110 sections 13 and 14): `If-None-Match`, `Range` with one range, `If-Range`.
    pub fn respond(&self, method: &Method, request: &HeaderMap, sent: Option<OnSent>) -> Response {
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        headers.insert(header::ETAG, self.etag.clone());
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        if let Some(known) = request.get(header::IF_NONE_MATCH)
            && (known == "*"
                || known.as_bytes().split(|&b| b == b',').any(|tag| tag.trim_ascii() == self.etag.as_bytes()))
        {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return response;
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        let same_file = request.get(header::IF_RANGE).is_none_or(|tag| tag == self.etag);
        let wanted = request.get(header::RANGE).filter(|_| same_file).and_then(|range| range.to_str().ok());
        let (from, to, status) = match wanted.map_or(Wanted::Whole, |range| parse_range(range, self.len)) {
            Wanted::Whole => (0, self.len, StatusCode::OK),
            Wanted::Part { from, to } => {
                if let Ok(value) = HeaderValue::from_str(&format!("bytes {from}-{}/{}", to - 1, self.len)) {
                    headers.insert(header::CONTENT_RANGE, value);
                }
                (from, to, StatusCode::PARTIAL_CONTENT)
            }
            Wanted::Impossible => {
                if let Ok(value) = HeaderValue::from_str(&format!("bytes */{}", self.len)) {
                    headers.insert(header::CONTENT_RANGE, value);
                }
                *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
                return response;
            }
        };
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(to - from));
        *response.status_mut() = status;
        if method != Method::HEAD {
            *response.body_mut() = self.stream(from, to, sent);
        }
        response
    }

    fn stream(&self, from: u64, to: u64, sent: Option<OnSent>) -> Body {
        struct State {
            file: Arc<File>,
            at: u64,
            to: u64,
            sent: Option<OnSent>,
        }
        let state = State { file: Arc::clone(&self.file), at: from, to, sent };
        Body::from_stream(futures::stream::try_unfold(state, |mut state| async move {
            if state.at >= state.to {
                if let Some(sent) = state.sent.take() {
                    sent();
                }
                return Ok::<_, io::Error>(None);
            }
            let (file, at) = (Arc::clone(&state.file), state.at);
            let wanted = (state.to - at).min(CHUNK);
            let read = tokio::task::spawn_blocking(move || {
                let mut buffer = vec![0; usize::try_from(wanted).unwrap_or_default()];
                file.read_exact_at(&mut buffer, at).map(|()| Bytes::from(buffer))
            });
            let bytes = read.await.map_err(io::Error::other)??;
            state.at += wanted;
            // The body is complete with its last byte: the connection does not poll again once Content-Length is reached.
            if state.at >= state.to
                && let Some(sent) = state.sent.take()
            {
                sent();
            }
            Ok(Some((bytes, state)))
        }))
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Whole,
    /// `to` is exclusive.
    Part {
        from: u64,
        to: u64,
    },
    Impossible,
}

/// One range; several at once, other units and nonsense mean the whole file, as RFC 9110 section 14.2 allows.
fn parse_range(range: &str, len: u64) -> Wanted {
    let Some((from, to)) = range.strip_prefix("bytes=").and_then(|spec| spec.trim().split_once('-')) else {
        return Wanted::Whole;
    };
    match (from.parse::<u64>(), to.parse::<u64>()) {
        (Ok(from), Ok(to)) if from > to => Wanted::Whole,
        (Ok(from), _) if from >= len => Wanted::Impossible,
        (Ok(from), Ok(to)) => Wanted::Part { from, to: to.saturating_add(1).min(len) },
        (Ok(from), Err(_)) if to.is_empty() => Wanted::Part { from, to: len },
        (Err(_), Ok(0)) if from.is_empty() => Wanted::Impossible,
        (Err(_), Ok(_)) if from.is_empty() && len == 0 => Wanted::Impossible,
        (Err(_), Ok(last)) if from.is_empty() => Wanted::Part { from: len.saturating_sub(last), to: len },
        _ => Wanted::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_as_rfc_9110_reads_them() {
        for (range, wanted) in [
            ("bytes=0-0", Wanted::Part { from: 0, to: 1 }),
            ("bytes=2-5", Wanted::Part { from: 2, to: 6 }),
            ("bytes=2-", Wanted::Part { from: 2, to: 10 }),
            ("bytes=-3", Wanted::Part { from: 7, to: 10 }),
            ("bytes=-30", Wanted::Part { from: 0, to: 10 }),
            ("bytes=5-100", Wanted::Part { from: 5, to: 10 }),
            ("bytes=0-18446744073709551615", Wanted::Part { from: 0, to: 10 }),
            ("bytes=10-", Wanted::Impossible),
            ("bytes=-0", Wanted::Impossible),
            ("bytes=5-2", Wanted::Whole),
            ("bytes=0-1,3-4", Wanted::Whole),
            ("lines=1-2", Wanted::Whole),
            ("bytes=", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
        ] {
            assert_eq!(parse_range(range, 10), wanted, "{range}");
        }
        assert_eq!(parse_range("bytes=-5", 0), Wanted::Impossible);
    }

    proptest::proptest! {
        #[test]
        fn no_range_panics_or_leaves_the_file(range in ".{0,40}", a in 0u64..40, b in 0u64..40, len in 0u64..30) {
            for text in [range, format!("bytes={a}-{b}"), format!("bytes={a}-"), format!("bytes=-{b}")] {
                if let Wanted::Part { from, to } = parse_range(&text, len) {
                    proptest::prop_assert!(from < to && to <= len, "{} of {}", text, len);
                }
            }
        }
    }
}
