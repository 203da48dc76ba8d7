//! The services go-plugin hosts expect beside the provider.

use std::pin::Pin;

use futures::{Stream, stream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::wire::{
    health::{HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_server::Health},
    plugin::{
        ConnInfo, ShutdownRequest, ShutdownResponse, StdioData, grpc_broker_server::GrpcBroker,
        grpc_controller_server::GrpcController, grpc_stdio_server::GrpcStdio,
    },
};

type Endless<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Ends the process on request.
pub(super) struct Controller {
    stop: CancellationToken,
}

impl Controller {
    pub(super) fn new(stop: CancellationToken) -> Self {
        Self { stop }
    }
}

#[tonic::async_trait]
impl GrpcController for Controller {
    async fn shutdown(&self, _: Request<ShutdownRequest>) -> Result<Response<ShutdownResponse>, Status> {
        self.stop.cancel();
        Ok(Response::new(ShutdownResponse {}))
    }
}

/// Would carry what a plugin prints. We print nothing after the handshake, so the stream stays silent and open.
pub(super) struct Stdio;

#[tonic::async_trait]
impl GrpcStdio for Stdio {
    type StreamStdioStream = Endless<StdioData>;
    async fn stream_stdio(&self, _: Request<()>) -> Result<Response<Self::StreamStdioStream>, Status> {
        Ok(Response::new(Box::pin(stream::pending())))
    }
}

/// Would connect further sockets between host and plugin. Terraform never does; the host keeps the stream open.
pub(super) struct Broker;

#[tonic::async_trait]
impl GrpcBroker for Broker {
    type StartStreamStream = Endless<ConnInfo>;
    async fn start_stream(&self, _: Request<Streaming<ConnInfo>>) -> Result<Response<Self::StartStreamStream>, Status> {
        Ok(Response::new(Box::pin(stream::pending())))
    }
}

/// Answers the host's ping.
pub(super) struct Healthy;

#[tonic::async_trait]
impl Health for Healthy {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        match request.get_ref().service.as_str() {
            "" | "plugin" => Ok(Response::new(HealthCheckResponse { status: ServingStatus::Serving.into() })),
            other => Err(Status::not_found(format!("there is no service {other:?} here"))),
        }
    }

    type WatchStream = Endless<HealthCheckResponse>;
    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let status = match request.get_ref().service.as_str() {
            "" | "plugin" => ServingStatus::Serving,
            _ => ServingStatus::ServiceUnknown,
        };
        let first = stream::iter([Ok(HealthCheckResponse { status: status.into() })]);
        Ok(Response::new(Box::pin(futures::StreamExt::chain(first, stream::pending()))))
    }
}
