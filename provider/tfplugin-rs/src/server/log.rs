//! Logs in the form Terraform understands: one JSON object per line on standard error, as Go's hclog writes them.
//!
//! Secrets that came in through the schema are hidden ([`super::redact`]), also in what a panic says. Terraform re-levels such
//! lines into its own log; plain lines would all be debug. Levels come from the variables
//! Terraform documents, the most specific first; without any, only warnings and errors are written.

use std::{
    borrow::Cow,
    env,
    io::{self, Write},
    panic,
};

use serde_json::{Map, Value, json};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt},
    util::SubscriberInitExt,
};

use super::redact::redact;

/// Sends this process's `tracing` events and panics to standard error. A subscriber that is already installed stays.
pub(super) fn install(provider: &str) {
    let level = level(provider, |name| env::var(name).ok());
    let layer = Hclog { module: format!("provider.{provider}") }.with_filter(level);
    // An author may have installed a subscriber of their own; theirs wins.
    let _ = tracing_subscriber::registry().with(layer).try_init();
    panic::set_hook(Box::new(|info| {
        let at = info.location().map(ToString::to_string).unwrap_or_default();
        let what = info.payload_as_str().unwrap_or("no message");
        tracing::error!(target: "provider", at, "panic: {what}");
    }));
}

fn level(provider: &str, var: impl Fn(&str) -> Option<String>) -> LevelFilter {
    let own = format!("TF_LOG_PROVIDER_{}", provider.to_uppercase().replace('-', "_"));
    let set =
        [own.as_str(), "TF_LOG_PROVIDER", "TF_LOG"].into_iter().find_map(|name| var(name).filter(|v| !v.is_empty()));
    match set.map(|level| level.to_uppercase()).as_deref() {
        Some("TRACE" | "JSON") => LevelFilter::TRACE,
        Some("DEBUG") => LevelFilter::DEBUG,
        Some("INFO") => LevelFilter::INFO,
        Some("ERROR") => LevelFilter::ERROR,
        Some("OFF") => LevelFilter::OFF,
        _ => LevelFilter::WARN,
    }
}

struct Hclog {
    module: String,
}

impl<S: Subscriber> Layer<S> for Hclog {
    #[allow(clippy::disallowed_methods, reason = "a log line says when it was written; nothing is decided with it")]
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let line = render(&self.module, event, &jiff::Timestamp::now().to_string());
        // With standard error closed there is nobody to tell.
        let _ = writeln!(io::stderr().lock(), "{line}");
    }
}

fn render(module: &str, event: &Event<'_>, now: &str) -> Value {
    let level = match *event.metadata().level() {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    };
    let mut fields = Fields(Map::new());
    event.record(&mut fields);
    let mut line = fields.0;
    for text in line.values_mut() {
        if let Value::String(text) = text
            && let Cow::Owned(redacted) = redact(text)
        {
            *text = redacted;
        }
    }
    let message = line.remove("message").unwrap_or_else(|| json!(event.metadata().name()));
    line.insert("@level".to_owned(), json!(level));
    line.insert("@message".to_owned(), message);
    line.insert("@module".to_owned(), json!(module));
    line.insert("@timestamp".to_owned(), json!(now));
    Value::Object(line)
}

struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), json!(value));
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), json!(value));
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), json!(value));
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), json!(value));
    }
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.insert(field.name().to_owned(), json!(format!("{value:?}")));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn the_most_specific_variable_wins() {
        let vars = |name: &str| match name {
            "TF_LOG" => Some("TRACE".to_owned()),
            "TF_LOG_PROVIDER_VMETAL" => Some("info".to_owned()),
            _ => None,
        };
        assert_eq!(level("vmetal", vars), LevelFilter::INFO);
        assert_eq!(level("other", vars), LevelFilter::TRACE);
        assert_eq!(level("other", |_| None), LevelFilter::WARN);
    }

    #[test]
    fn lines_have_the_fields_terraform_reads() {
        struct Capture(Arc<Mutex<Vec<Value>>>);
        impl<S: Subscriber> Layer<S> for Capture {
            fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
                self.0.lock().unwrap().push(render("provider.x", event, "now"));
            }
        }
        let lines = Arc::default();
        let subscriber = tracing_subscriber::registry().with(Capture(Arc::clone(&lines)));
        tracing::subscriber::with_default(subscriber, || tracing::warn!(host = "a", tries = 2u64, "slow {}", "BMC"));
        let expected = json!({
            "@level": "warn", "@message": "slow BMC", "@module": "provider.x", "@timestamp": "now", "host": "a", "tries": 2,
        });
        assert_eq!(*lines.lock().unwrap(), [expected]);
    }
}
