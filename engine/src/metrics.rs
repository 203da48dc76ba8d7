//! What a monitoring system reads: counts and delays of this engine, in Prometheus' text format (version 0.0.4).
//!
//! Everything is computed when it is asked for, from what the engine knows anyway. What counts something that happened
//! (names that end in `_total`) counts what this process committed; what counts objects, counts the fleet as this engine sees
//! it. Nothing names an object: what is wrong with one host is in its status and its events.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use vmetal_model::{HostPhase, Stage, TenantNodePhase};

use crate::engine::Engine;

/// The form of the answer.
const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// How long a client may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pause after a connection could not be accepted, as when too many files are open.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers `GET /metrics` on each connection. Runs until dropped.
pub async fn serve(listener: TcpListener, engine: Arc<Engine>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(talk(stream, Arc::clone(&engine)));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection for metrics");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn talk(stream: TcpStream, engine: Arc<Engine>) {
    let service = service_fn(|request: Request<Incoming>| {
        let answer = answer(request.method(), request.uri().path(), || engine.metrics());
        std::future::ready(Ok::<_, Infallible>(answer))
    });
    let ended = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection for metrics ended");
    }
}

fn answer(method: &Method, path: &str, metrics: impl FnOnce() -> String) -> Response<String> {
    let (status, text) = match (method, path) {
        (&Method::GET | &Method::HEAD, "/metrics") => (StatusCode::OK, metrics()),
        (_, "/metrics") => (StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, "the metrics are at /metrics\n".to_owned()),
    };
    let mut response = Response::new(text);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(FORMAT));
    response
}

/// A text being written, one metric after the other.
#[derive(Default)]
struct Page(String);

impl Page {
    /// One metric with all its samples: labels as they are written between the braces, and values.
    fn metric<L: AsRef<str>>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, f64)>,
    ) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP vmetal_{name} {help}\n# TYPE vmetal_{name} {kind}");
        for (labels, value) in samples {
            let labels = labels.as_ref();
            let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
            let _ = writeln!(self.0, "vmetal_{name}{braces} {value}");
        }
    }

    fn gauge<L: AsRef<str>>(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = (L, f64)>) {
        self.metric(name, "gauge", help, samples);
    }
}

impl Engine {
    /// All metrics, as they are now.
    pub fn metrics(&self) -> String {
        let mut page = Page::default();
        self.objects(&mut page);
        self.happened(&mut page);
        self.load(&mut page);
        page.0
    }

    fn objects(&self, page: &mut Page) {
        let hosts = self.fleet.hosts();
        let mut breached: BTreeMap<Stage, usize> = BTreeMap::new();
        let mut phases: BTreeMap<HostPhase, usize> = HostPhase::ALL.into_iter().map(|phase| (phase, 0)).collect();
        for host in &hosts {
            *phases.entry(host.status.phase).or_default() += 1;
            if let Some(breach) = &host.status.breach {
                *breached.entry(breach.stage).or_default() += 1;
            }
        }
        let phases = phases.into_iter().map(|(phase, n)| (format!("phase=\"{}\"", phase.as_str()), n as f64));
        page.gauge("hosts", "Hosts by phase.", phases);
        let breached = Stage::ALL.into_iter().map(|stage| {
            let n = breached.get(&stage).copied().unwrap_or_default();
            (format!("stage=\"{}\"", stage.as_str()), n as f64)
        });
        page.gauge("hosts_past_deadline", "Hosts that missed a deadline and have not got further, by stage.", breached);
        let mut nodes: BTreeMap<TenantNodePhase, usize> = BTreeMap::new();
        for node in self.fleet.nodes() {
            *nodes.entry(node.status.phase).or_default() += 1;
        }
        let nodes = nodes.into_iter().map(|(phase, n)| (format!("phase=\"{}\"", phase.as_str()), n as f64));
        page.gauge("tenant_nodes", "Tenant nodes by phase.", nodes);
    }

    fn happened(&self, page: &mut Page) {
        let counts = self.ledger.remarks().into_iter().map(|((kind, reason), n)| {
            // Reasons are the lifecycle's own words: nothing in them needs escaping.
            (format!("kind=\"{}\",reason=\"{reason}\"", kind.as_str()), n as f64)
        });
        let help = "Events that this process committed. The reason deadline is a stage that was not done in time.";
        page.metric("events_total", "counter", help, counts);
    }

    fn load(&self, page: &mut Page) {
        let lanes = self.lanes.counts();
        let label = |name: &str| format!("lane=\"{name}\"");
        let of = |what: fn(&vmetal_runtime::LaneCounts) -> usize| {
            lanes.iter().map(move |lane| (label(lane.name), what(lane) as f64))
        };
        page.gauge("lane_width", "How much of a kind of work may go on at the same time.", of(|lane| lane.width));
        page.gauge("lane_in_use", "How much of a kind of work goes on.", of(|lane| lane.in_use));
        page.gauge("lane_waiting", "How much of a kind of work waits for its turn.", of(|lane| lane.waiting));
        let queue = self.scheduler.stats();
        let counts = [("waiting", queue.waiting), ("ready", queue.ready), ("running", queue.running)];
        let counts = counts.map(|(state, n)| (format!("state=\"{state}\""), n as f64));
        page.gauge("queue", "Objects to be looked at: later, now, and being looked at.", counts);
        page.gauge(
            "queue_lag_seconds",
            "How long the first object that is due has been due.",
            [("", queue.lag.as_secs_f64())],
        );
        page.gauge(
            "effects_under_way",
            "Effects that a clean stop waits for.",
            [("", self.effects_under_way() as f64)],
        );
        let storm = f64::from(u8::from(self.storm().is_some()));
        page.gauge("storm", "1 while so many hosts fail at once that nothing destructive is begun.", [("", storm)]);
        page.gauge(
            "store_revision",
            "The revision of the store up to which this engine knows everything.",
            [("", self.fleet.revision() as f64)],
        );
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn samples_are_written_as_prometheus_reads_them() {
        let mut page = Page::default();
        page.gauge("lag_seconds", "How late.", [("", 1.5)]);
        page.metric("events_total", "counter", "What happened.", [("kind=\"host\",reason=\"deadline\"", 3.0)]);
        assert_eq!(
            page.0,
            "# HELP vmetal_lag_seconds How late.\n# TYPE vmetal_lag_seconds gauge\nvmetal_lag_seconds 1.5\n\
             # HELP vmetal_events_total What happened.\n# TYPE vmetal_events_total counter\n\
             vmetal_events_total{kind=\"host\",reason=\"deadline\"} 3\n"
        );
    }

    #[test]
    fn only_the_one_question_is_answered() {
        let ask = |method: Method, path: &str| answer(&method, path, || "m".to_owned());
        let good = ask(Method::GET, "/metrics");
        assert_eq!((good.status(), good.body().as_str()), (StatusCode::OK, "m"));
        assert_eq!(good.headers()[header::CONTENT_TYPE], FORMAT);
        assert_eq!(ask(Method::POST, "/metrics").status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(ask(Method::GET, "/").status(), StatusCode::NOT_FOUND);
    }
}
