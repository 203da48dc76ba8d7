//! The network boot process' side of the socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::stream::{BoxStream, StreamExt as _};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use vmetal_model::boot::{BootChange, BootEvent, BootNews, BootTable};

use super::{AgentReply, AgentRequest};
use crate::error::ApiError;
use crate::proto;
use crate::proto::netboot_client::NetbootClient as Rpc;

/// Longer than an installer's request may be held.
const AGENT_DEADLINE: Duration = Duration::from_secs(120);
const RECORD_DEADLINE: Duration = Duration::from_secs(10);
/// The pause before the boot table is asked for again.
const RECONNECT: Duration = Duration::from_secs(1);

/// A connection to the engine. Cheap to clone. It connects when it is used, and again after the engine has been away:
/// every call may simply be repeated on the same client.
#[derive(Debug, Clone)]
pub struct NetbootClient {
    path: PathBuf,
    rpc: Rpc<Channel>,
}

/// What [`NetbootClient::follow_boot`] tells.
#[derive(Debug, Clone, PartialEq)]
pub enum BootFeed {
    /// The whole table as it is now.
    Table(BootTable),
    /// What changed since.
    Change(BootChange),
    /// The engine is away; the last table still holds. Said once per outage.
    Away(ApiError),
}

impl NetbootClient {
    /// A client of the socket at `path`. Does not connect yet; must be called inside a tokio runtime.
    pub fn connect(path: &Path) -> Self {
        let socket = path.to_owned();
        let connector = tower::service_fn(move |_: http::Uri| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        // The name is only for the `:authority` header; the connector decides where the bytes go.
        let channel = Endpoint::from_static("http://vmetald")
            .connect_timeout(Duration::from_secs(5))
            .connect_with_connector_lazy(connector);
        let rpc = Rpc::new(channel)
            .max_decoding_message_size(crate::MAX_MESSAGE_BYTES)
            .max_encoding_message_size(crate::MAX_MESSAGE_BYTES);
        NetbootClient { path: path.to_owned(), rpc }
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }

    fn failed(&self, status: &tonic::Status) -> ApiError {
        ApiError::from_status(&self.place(), status)
    }

    fn incompatible(what: &str, error: &serde_json::Error) -> ApiError {
        ApiError::Incompatible { message: format!("{what} cannot be read or written: {error}") }
    }

    /// The boot table, whole, at once; then what changes, until the connection breaks.
    ///
    /// # Errors
    /// [`ApiError`] when the stream cannot be opened.
    pub async fn watch_boot(&self) -> Result<BoxStream<'static, Result<BootNews, ApiError>>, ApiError> {
        let stream = self.rpc.clone().watch_boot(proto::WatchBootRequest {}).await;
        let stream = stream.map_err(|status| self.failed(&status))?.into_inner();
        let this = self.clone();
        let news = move |item: Result<proto::BootNews, tonic::Status>| match item {
            Ok(news) => {
                serde_json::from_slice(&news.json).map_err(|e| Self::incompatible("the engine's boot table", &e))
            }
            Err(status) => Err(this.failed(&status)),
        };
        Ok(stream.map(news).boxed())
    }

    /// The boot table for ever: a broken stream is opened again after a second. Never ends.
    pub fn follow_boot(&self) -> BoxStream<'static, BootFeed> {
        enum State {
            Open(BoxStream<'static, Result<BootNews, ApiError>>),
            /// To be opened; the outage has been told or there was none yet.
            Closed(Told),
        }
        #[derive(Clone, Copy, PartialEq, Eq)]
        enum Told {
            No,
            Yes,
        }
        let this = self.clone();
        futures::stream::unfold((State::Closed(Told::No), this), |(mut state, this)| async move {
            loop {
                let (error, told) = match state {
                    State::Open(mut stream) => match stream.next().await {
                        Some(Ok(BootNews::Whole(table))) => {
                            return Some((BootFeed::Table(table), (State::Open(stream), this)));
                        }
                        Some(Ok(BootNews::Change(change))) => {
                            return Some((BootFeed::Change(change), (State::Open(stream), this)));
                        }
                        Some(Err(error)) => (error, Told::No),
                        None => {
                            let reason = "it ended the connection".to_owned();
                            (ApiError::EngineUnreachable { endpoint: this.place(), reason }, Told::No)
                        }
                    },
                    State::Closed(told) => match this.watch_boot().await {
                        Ok(stream) => {
                            state = State::Open(stream);
                            continue;
                        }
                        Err(error) => (error, told),
                    },
                };
                tokio::time::sleep(RECONNECT).await;
                state = State::Closed(Told::Yes);
                if told == Told::No {
                    return Some((BootFeed::Away(error), (state, this)));
                }
            }
        })
        .boxed()
    }

    /// Passes on one request of an installer or an installed system.
    ///
    /// # Errors
    /// [`ApiError`]: answer 503, the installer asks again.
    pub async fn agent(&self, request: AgentRequest) -> Result<AgentReply, ApiError> {
        let AgentRequest { method, path, bearer_token, peer, body } = request;
        let message = proto::AgentRequest { method, path, bearer_token, peer, body };
        let mut rpc = self.rpc.clone();
        let answer = self.within(AGENT_DEADLINE, rpc.agent(message)).await?;
        let status = u16::try_from(answer.status).map_err(|_| ApiError::Incompatible {
            message: format!("the engine answered with the impossible HTTP status {}", answer.status),
        })?;
        Ok(AgentReply { status, body: answer.body })
    }

    /// Tells what was seen on the network.
    ///
    /// # Errors
    /// [`ApiError`]; the caller may keep the events and tell them later.
    pub async fn record(&self, events: &[BootEvent]) -> Result<(), ApiError> {
        let json = serde_json::to_vec(events).map_err(|e| Self::incompatible("boot events", &e))?;
        let mut rpc = self.rpc.clone();
        self.within(RECORD_DEADLINE, rpc.record(proto::RecordRequest { json })).await?;
        Ok(())
    }

    async fn within<T>(
        &self,
        deadline: Duration,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, ApiError> {
        match tokio::time::timeout(deadline, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.failed(&status)),
            Err(_) => Err(ApiError::Timeout { endpoint: self.place(), seconds: deadline.as_secs() }),
        }
    }
}
