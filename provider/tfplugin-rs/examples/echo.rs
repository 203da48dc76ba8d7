//! Terraform's own `terraform_data`, as a provider of its own: it keeps what it is given, in the state and nowhere else.
//!
//! So it needs no memory and works in every way that Terraform starts providers. It is also the least that a resource of any
//! provider can cost, which is what the project's bench measures with it.

use std::{process::ExitCode, sync::Arc};

use tfplugin::{
    Apply, Attribute, Ctx, Diagnostics, Imported, Named, Outcome, Pending, Private, Provider, Read, Resource, Schema,
    Type, Value,
};

struct Echo;

impl Provider for Echo {
    type Client = ();

    fn name(&self) -> &str {
        "echo"
    }

    fn schema(&self) -> Schema {
        Schema::new("Says what it is told.", [] as [(&str, Attribute); 0])
    }

    fn configure(&self, _: &Value) -> Result<(), Diagnostics> {
        Ok(())
    }

    fn resources(&self) -> Vec<Named<dyn Resource<()>>> {
        vec![("echo_data", Arc::new(Data))]
    }
}

struct Data;

fn said(request: Apply) -> Outcome {
    let mut state = request.planned;
    state.set("output", state.attr("input").clone());
    Outcome::new(state, request.private)
}

impl Resource<()> for Data {
    fn schema(&self) -> Schema {
        Schema::new(
            "A value.",
            [
                ("input", Attribute::required(Type::Dynamic).describe("What is said.")),
                ("output", Attribute::computed(Type::Dynamic).describe("The same.")),
            ],
        )
    }

    fn create<'a>(&'a self, _: &'a Ctx<()>, request: Apply) -> Pending<'a, Outcome> {
        Box::pin(async move { said(request) })
    }

    fn read<'a>(&'a self, _: &'a Ctx<()>, request: Read) -> Pending<'a, Outcome> {
        Box::pin(async move { Outcome::new(request.state, request.private) })
    }

    fn update<'a>(&'a self, _: &'a Ctx<()>, request: Apply) -> Pending<'a, Outcome> {
        Box::pin(async move { said(request) })
    }

    fn delete<'a>(&'a self, _: &'a Ctx<()>, _: Read) -> Pending<'a, Outcome> {
        Box::pin(async { Outcome::gone() })
    }

    fn import<'a>(&'a self, _: &'a Ctx<()>, id: &'a str) -> Pending<'a, Result<Imported, Diagnostics>> {
        Box::pin(async move {
            let value = Value::Dynamic(Box::new((Type::String, Value::from(id))));
            let state = Value::object([("input", value.clone()), ("output", value)]);
            Ok(Imported { state, private: Private::default() })
        })
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    tfplugin::serve(Echo, "example.com/tfplugin/echo").await
}
