//! The smallest whole provider: greetings that are remembered for as long as the process lives.
//!
//! A real provider talks to something that remembers; [`Greetings`] stands for the client of that. Terraform starts a provider
//! several times per command, so this one is good for `--debug` only, where one process serves all of them:
//!
//! ```console
//! $ cargo run --example hello -- --debug
//! TF_REATTACH_PROVIDERS='{...}'
//! ```

use std::{
    collections::BTreeSet,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
};

use tfplugin::{
    Apply, Attribute, Ctx, Diagnostic, Diagnostics, Imported, Named, Outcome, Pending, Private, Provider, Read,
    Resource, Schema, Type, Value, schema::Validator,
};

type Greetings = Arc<Mutex<BTreeSet<String>>>;

#[derive(Default)]
struct Hello(Greetings);

impl Provider for Hello {
    type Client = Greetings;

    fn name(&self) -> &str {
        "hello"
    }

    fn schema(&self) -> Schema {
        Schema::new("Greets.", [] as [(&str, Attribute); 0])
    }

    fn configure(&self, _: &Value) -> Result<Greetings, Diagnostics> {
        Ok(Arc::clone(&self.0))
    }

    fn resources(&self) -> Vec<Named<dyn Resource<Greetings>>> {
        vec![("hello_greeting", Arc::new(Greeting))]
    }
}

struct Greeting;

impl Greeting {
    /// All that there is to know of a greeting follows from its name.
    fn state(name: &str) -> Value {
        Value::object([("name", name.to_owned()), ("text", format!("Hello, {name}!"))])
    }

    fn with<T>(ctx: &Ctx<Greetings>, work: impl FnOnce(&mut BTreeSet<String>) -> T) -> Result<T, Diagnostic> {
        Ok(work(&mut ctx.client()?.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Resource<Greetings> for Greeting {
    fn schema(&self) -> Schema {
        let short = Validator::string("Long name", |name| match name.chars().count() {
            0..=20 => Ok(()),
            count => Err(format!("Expected at most 20 characters, found {count}.")),
        });
        Schema::new(
            "A greeting.",
            [
                (
                    "name",
                    Attribute::required(Type::String).requires_replace().validate(short).describe("Who is greeted."),
                ),
                ("text", Attribute::computed(Type::String).use_state_for_unknown().describe("What is said.")),
            ],
        )
    }

    fn create<'a>(&'a self, ctx: &'a Ctx<Greetings>, request: Apply) -> Pending<'a, Outcome> {
        Box::pin(async move {
            let name = request.planned.attr("name").as_str().unwrap_or_default().to_owned();
            match Self::with(ctx, |greetings| greetings.insert(name.clone())) {
                Ok(true) => Outcome::new(Self::state(&name), request.private),
                Ok(false) => Outcome::gone().with(Diagnostic::error(
                    "Already greeted",
                    format!(
                        "{name} was greeted before. Import the greeting instead: terraform import <address> {name}"
                    ),
                )),
                Err(error) => Outcome::gone().with(error),
            }
        })
    }

    fn read<'a>(&'a self, ctx: &'a Ctx<Greetings>, request: Read) -> Pending<'a, Outcome> {
        Box::pin(async move {
            let name = request.state.attr("name").as_str().unwrap_or_default();
            match Self::with(ctx, |greetings| greetings.contains(name)) {
                Ok(true) => Outcome::new(Self::state(name), request.private),
                Ok(false) => Outcome::gone(),
                // What is not known to be gone is still there.
                Err(error) => Outcome::new(request.state, request.private).with(error),
            }
        })
    }

    fn update<'a>(&'a self, _: &'a Ctx<Greetings>, request: Apply) -> Pending<'a, Outcome> {
        // Another name is another greeting, and there is nothing else to change.
        Box::pin(async move { Outcome::new(request.planned, request.private) })
    }

    fn delete<'a>(&'a self, ctx: &'a Ctx<Greetings>, request: Read) -> Pending<'a, Outcome> {
        Box::pin(async move {
            let name = request.state.attr("name").as_str().unwrap_or_default();
            match Self::with(ctx, |greetings| greetings.remove(name)) {
                Ok(_) => Outcome::gone(),
                Err(error) => Outcome::new(request.state, request.private).with(error),
            }
        })
    }

    fn import<'a>(&'a self, ctx: &'a Ctx<Greetings>, id: &'a str) -> Pending<'a, Result<Imported, Diagnostics>> {
        Box::pin(async move {
            if Self::with(ctx, |greetings| greetings.contains(id))? {
                return Ok(Imported { state: Self::state(id), private: Private::default() });
            }
            Err(Diagnostic::error("No such greeting", format!("{id} was never greeted.")).into())
        })
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    tfplugin::serve(Hello::default(), "example.com/acme/hello").await
}
