//! A complete small provider: notes, each a file in a directory.
//!
//! It shows every part an author touches: a provider configuration, a schema with rules, a plan hook, idempotent create,
//! read, update, delete, import, a wait that Ctrl-C ends, and private notes; `notes/kinds.rs` has one of everything else. The crate's acceptance tests run it under the
//! real terraform; the attribute `fault` is there for them (`panic`; `tell`, which notes that the caller is gone).

use std::{collections::BTreeMap, fs, io, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use tfplugin::{
    Action, Apply, Attribute, Ctx, DataSource, Diagnostic, Diagnostics, Ephemeral, Function, IdentitySchema, Imported,
    Lister, Named, Outcome, Path, Pending, Private, Provider, Read, Resource, Schema, Type, Value,
    plan::{Plan, empty_object},
    schema::Validator,
};

#[path = "notes/kinds.rs"]
mod kinds;

use kinds::{Count, Join, Lock, Recite, Shelf};

/// The provider.
pub struct Notes;

/// Where the notes are.
pub struct Directory(PathBuf);

impl Provider for Notes {
    type Client = Directory;

    fn name(&self) -> &str {
        "notes"
    }

    fn schema(&self) -> Schema {
        Schema::new("Notes.", [("dir", Attribute::required(Type::String).describe("Where the notes are kept."))])
    }

    fn configure(&self, config: &Value) -> Result<Directory, Diagnostics> {
        Ok(Directory(config.attr("dir").as_str().unwrap_or(".").into()))
    }

    fn resources(&self) -> Vec<Named<dyn Resource<Directory>>> {
        vec![("notes_note", Arc::new(Note))]
    }

    fn data_sources(&self) -> Vec<Named<dyn DataSource<Directory>>> {
        vec![("notes_count", Arc::new(Count))]
    }

    fn functions(&self) -> Vec<Named<dyn Function>> {
        vec![("join", Arc::new(Join))]
    }

    fn ephemerals(&self) -> Vec<Named<dyn Ephemeral<Directory>>> {
        vec![("notes_lock", Arc::new(Lock))]
    }

    fn lists(&self) -> Vec<Named<dyn Lister<Directory>>> {
        vec![("notes_note", Arc::new(Shelf))]
    }

    fn actions(&self) -> Vec<Named<dyn Action<Directory>>> {
        vec![("notes_recite", Arc::new(Recite))]
    }
}

/// The resource.
pub struct Note;

type Fields = BTreeMap<String, String>;

impl Note {
    fn path(ctx: &Ctx<Directory>, title: &str) -> Result<PathBuf, Diagnostic> {
        Ok(ctx.client()?.0.join(format!("{title}.json")))
    }

    fn load(ctx: &Ctx<Directory>, title: &str) -> Result<Option<Fields>, Diagnostic> {
        let path = Self::path(ctx, title)?;
        let failed = |e: String| Diagnostic::error("Cannot read the note", format!("{}: {e}", path.display()));
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| failed(e.to_string())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    fn save(ctx: &Ctx<Directory>, planned: &Value, config: &Value) -> Result<(), Diagnostic> {
        let title = planned.attr("title").as_str().unwrap_or_default();
        let mut fields = Fields::new();
        for name in ["text", "mood"] {
            if let Some(text) = planned.attr(name).as_str() {
                fields.insert(name.into(), text.into());
            }
        }
        let secret = config.attr("secret").as_str().unwrap_or_default();
        fields.insert("secret_length".into(), secret.len().to_string());
        let path = Self::path(ctx, title)?;
        let json = serde_json::to_vec(&fields).unwrap_or_default();
        fs::write(&path, json)
            .map_err(|e| Diagnostic::error("Cannot write the note", format!("{}: {e}", path.display())))
    }

    fn fill(state: &mut Value, title: &str, fields: &Fields) {
        state.set("id", title);
        state.set("title", title);
        for name in ["text", "mood"] {
            state.set(name, fields.get(name).cloned());
        }
        let length = fields.get("secret_length").and_then(|n| n.parse::<i64>().ok());
        state.set("secret_length", length);
    }

    /// Waits as long as the note wants to; `false` when the user lost patience.
    async fn wait(ctx: &Ctx<Directory>, planned: &Value) -> bool {
        let seconds = planned.attr("delay").as_i64().and_then(|s| u64::try_from(s).ok()).unwrap_or(0);
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(seconds)) => true,
            () = ctx.cancelled().cancelled() => false,
        }
    }

    async fn write(&self, ctx: &Ctx<Directory>, request: Apply) -> Result<Outcome, Diagnostic> {
        let title = request.planned.attr("title").as_str().unwrap_or_default().to_owned();
        Self::save(ctx, &request.planned, &request.config)?;
        let mut state = request.planned.clone();
        Self::fill(&mut state, &title, &Self::load(ctx, &title)?.unwrap_or_default());
        let mut private = request.private;
        private.set("written", "yes");
        ctx.checkpoint(state.clone(), private.clone());
        if request.planned.attr("fault").as_str() == Some("panic") {
            panic!("the note asked for it");
        }
        let outcome = Outcome::new(state, private);
        if Self::wait(ctx, &request.planned).await {
            return Ok(outcome);
        }
        if ctx.is_abandoned() && request.planned.attr("fault").as_str() == Some("tell") {
            let trace = Self::path(ctx, &title)?.with_extension("abandoned");
            fs::write(trace, "").map_err(|e| Diagnostic::error("Cannot leave a trace", e.to_string()))?;
        }
        Ok(outcome.with(Diagnostic::warning("Stopped waiting", "The note is written; it only did not get its rest.")))
    }
}

impl Resource<Directory> for Note {
    fn schema(&self) -> Schema {
        let same_case = |a: &Value, b: &Value| match (a.as_str(), b.as_str()) {
            (Some(a), Some(b)) => a.eq_ignore_ascii_case(b),
            _ => a == b,
        };
        Schema::new(
            "A note.",
            [
                ("id", Attribute::computed(Type::String).use_state_for_unknown().describe("Its title.")),
                ("title", Attribute::required(Type::String).requires_replace().describe("Its name.")),
                ("text", Attribute::optional(Type::String).semantic_equality(same_case).describe("What it says.")),
                (
                    "mood",
                    Attribute::optional(Type::String)
                        .default("calm")
                        .validate(Validator::one_of(&["calm", "cross"]))
                        .describe("How it says it."),
                ),
                ("secret", Attribute::optional(Type::String).write_only().describe("Nobody may know.")),
                ("secret_length", Attribute::computed(Type::Number).describe("But this much.")),
                ("delay", Attribute::optional(Type::Number).describe("Seconds it takes.")),
                ("fault", Attribute::optional(Type::String).describe("What goes wrong.")),
            ],
        )
        .version(1)
    }

    fn identity(&self) -> Option<IdentitySchema> {
        Some(IdentitySchema::new().required("title", Type::String, "Its name."))
    }

    fn validate(&self, config: &Value) -> Diagnostics {
        if config.attr("text").as_str() == Some("") {
            return Diagnostic::error("Empty note", "A note says something or nothing.").at(Path::attr("text")).into();
        }
        Diagnostics::new()
    }

    fn plan<'a>(&'a self, _: &'a Ctx<Directory>, plan: &'a mut Plan) -> Pending<'a, Diagnostics> {
        Box::pin(async move {
            if plan.replace.is_empty() {
                return Diagnostics::new();
            }
            Diagnostic::warning("The note is rewritten", "Another title is another note.")
                .at(Path::attr("title"))
                .into()
        })
    }

    fn create<'a>(&'a self, ctx: &'a Ctx<Directory>, request: Apply) -> Pending<'a, Outcome> {
        Box::pin(async move {
            let title = request.planned.attr("title").as_str().unwrap_or_default().to_owned();
            match Self::load(ctx, &title) {
                Ok(Some(_)) => Outcome::gone().with(Diagnostic::error(
                    "The note exists already",
                    format!("There is a note {title:?}. To manage it here, run: terraform import <address> {title}"),
                )),
                Ok(None) => self.write(ctx, request).await.unwrap_or_else(|e| Outcome::gone().with(e)),
                Err(error) => Outcome::gone().with(error),
            }
        })
    }

    fn read<'a>(&'a self, ctx: &'a Ctx<Directory>, request: Read) -> Pending<'a, Outcome> {
        Box::pin(async move {
            let mut state = request.state;
            let title = state.attr("title").as_str().unwrap_or_default().to_owned();
            match Self::load(ctx, &title) {
                Ok(Some(fields)) => {
                    Self::fill(&mut state, &title, &fields);
                    Outcome::new(state, request.private)
                }
                Ok(None) => Outcome::gone(),
                Err(error) => Outcome::new(state, request.private).with(error),
            }
        })
    }

    fn update<'a>(&'a self, ctx: &'a Ctx<Directory>, request: Apply) -> Pending<'a, Outcome> {
        Box::pin(async move {
            let prior = Outcome::new(request.prior.clone(), request.private.clone());
            self.write(ctx, request).await.unwrap_or_else(|error| prior.with(error))
        })
    }

    fn delete<'a>(&'a self, ctx: &'a Ctx<Directory>, request: Read) -> Pending<'a, Outcome> {
        Box::pin(async move {
            let title = request.state.attr("title").as_str().unwrap_or_default().to_owned();
            let removed = Self::path(ctx, &title).map(fs::remove_file);
            match removed {
                Ok(Err(error)) if error.kind() != io::ErrorKind::NotFound => {
                    Outcome::new(request.state, request.private)
                        .with(Diagnostic::error("Cannot remove the note", error.to_string()))
                }
                Ok(_) => Outcome::gone(),
                Err(error) => Outcome::new(request.state, request.private).with(error),
            }
        })
    }

    fn import<'a>(&'a self, ctx: &'a Ctx<Directory>, id: &'a str) -> Pending<'a, Result<Imported, Diagnostics>> {
        Box::pin(async move {
            let fields = Self::load(ctx, id)?.ok_or_else(|| {
                Diagnostics::from(Diagnostic::error("No such note", format!("There is no note {id:?} to import.")))
            })?;
            let mut state = empty_object(&self.schema());
            Self::fill(&mut state, id, &fields);
            Ok(Imported { state, private: Private::default() })
        })
    }

    fn upgrade(&self, _: i64, mut state: serde_json::Value) -> Result<serde_json::Value, Diagnostic> {
        // Version 0 called the text "body".
        if let Some(fields) = state.as_object_mut()
            && let Some(body) = fields.remove("body")
        {
            fields.insert("text".into(), body);
        }
        Ok(state)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    tfplugin::serve(Notes, "example.com/tfplugin/notes").await
}
