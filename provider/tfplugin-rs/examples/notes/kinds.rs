//! What a provider can have besides resources, one of each.

use std::{fs, time::Duration};

use tfplugin::{
    Action, Attribute, Ctx, DataSource, Diagnostic, Diagnostics, Ephemeral, Found, Function, FunctionError, Listed,
    Lister, Opened, Parameter, Pending, Private, Progress, Renewed, Resource, Schema, Signature, Type, Value,
    plan::empty_object,
};

use super::{Directory, Note};

/// Data source: how many notes there are whose title begins with something.
pub(super) struct Count;

fn titles(ctx: &Ctx<Directory>) -> Result<Vec<String>, Diagnostic> {
    let directory = &ctx.client()?.0;
    let entries = fs::read_dir(directory)
        .map_err(|e| Diagnostic::error("Cannot read the directory", format!("{}: {e}", directory.display())))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut titles: Vec<_> = names.filter_map(|name| Some(name.strip_suffix(".json")?.to_owned())).collect();
    titles.sort();
    Ok(titles)
}

impl DataSource<Directory> for Count {
    fn schema(&self) -> Schema {
        Schema::new(
            "Counts notes.",
            [
                ("prefix", Attribute::optional(Type::String).describe("What their titles begin with.")),
                ("number", Attribute::computed(Type::Number).describe("How many there are.")),
            ],
        )
    }

    fn read<'a>(&'a self, ctx: &'a Ctx<Directory>, config: Value) -> Pending<'a, Found> {
        Box::pin(async move {
            let prefix = config.attr("prefix").as_str().unwrap_or_default().to_owned();
            let counted = titles(ctx).map(|titles| {
                let mut state = config.clone();
                let number = titles.iter().filter(|title| title.starts_with(&prefix)).count();
                state.set("number", u64::try_from(number).unwrap_or(u64::MAX));
                state
            });
            counted.into()
        })
    }
}

/// Function: joins lines.
pub(super) struct Join;

impl Function for Join {
    fn signature(&self) -> Signature {
        let separator = Parameter::new("separator", Type::String, "What stands between.");
        let mut signature = Signature::new("Joins lines", [separator], Type::String);
        signature.variadic = Some(Parameter::new("lines", Type::String, "The lines."));
        signature
    }

    fn call(&self, arguments: &[Value]) -> Result<Value, FunctionError> {
        let texts: Vec<_> = arguments.iter().filter_map(Value::as_str).collect();
        match texts.as_slice() {
            ["panic", ..] => panic!("asked for"),
            [_] => Err(FunctionError::argument(0, "There is nothing to join.")),
            [separator, lines @ ..] => Ok(lines.join(separator).into()),
            [] => Err(FunctionError::new("No separator.")),
        }
    }
}

/// Ephemeral resource: a lock on the directory, a file while the command runs.
pub(super) struct Lock;

impl Ephemeral<Directory> for Lock {
    fn schema(&self) -> Schema {
        Schema::new(
            "A lock.",
            [
                ("owner", Attribute::required(Type::String).describe("Who locks.")),
                ("key", Attribute::computed(Type::String).sensitive().describe("What opens it.")),
            ],
        )
    }

    fn open<'a>(&'a self, ctx: &'a Ctx<Directory>, config: Value) -> Pending<'a, Result<Opened, Diagnostics>> {
        Box::pin(async move {
            let owner = config.attr("owner").as_str().unwrap_or_default().to_owned();
            let path = ctx.client()?.0.join(format!("{owner}.lock"));
            fs::write(&path, "1").map_err(|e| Diagnostic::error("Cannot lock", format!("{}: {e}", path.display())))?;
            let mut result = config.clone();
            // What may not be said: `owner` is the user's.
            if owner == "liar" {
                result.set("owner", "somebody else");
            }
            result.set("key", format!("key of {owner}"));
            let mut private = Private::default();
            private.set("path", path.display().to_string());
            let renew_at = Some(tfplugin::Timestamp::UNIX_EPOCH);
            Ok(Opened { result, private, renew_at })
        })
    }

    fn renew<'a>(&'a self, _: &'a Ctx<Directory>, mut private: Private) -> Pending<'a, Result<Renewed, Diagnostics>> {
        Box::pin(async move {
            private.set("renewed", "yes");
            Ok(Renewed { private, renew_at: None })
        })
    }

    fn close<'a>(&'a self, _: &'a Ctx<Directory>, private: Private) -> Pending<'a, Diagnostics> {
        Box::pin(async move {
            let removed = fs::remove_file(private.get("path").unwrap_or_default());
            removed.err().map(|e| Diagnostic::error("Cannot unlock", e.to_string())).into_iter().collect()
        })
    }
}

/// List: the notes there are.
pub(super) struct Shelf;

impl Lister<Directory> for Shelf {
    fn schema(&self) -> Schema {
        Schema::new("Notes.", [("prefix", Attribute::optional(Type::String).describe("What their titles begin with."))])
    }

    fn list<'a>(
        &'a self,
        ctx: &'a Ctx<Directory>,
        config: Value,
        limit: usize,
    ) -> Pending<'a, Result<Vec<Listed>, Diagnostics>> {
        Box::pin(async move {
            let prefix = config.attr("prefix").as_str().unwrap_or_default();
            let mut listed = Vec::new();
            for title in titles(ctx)?.into_iter().filter(|title| title.starts_with(prefix)).take(limit) {
                let mut state = empty_object(&Note.schema());
                Note::fill(&mut state, &title, &Note::load(ctx, &title)?.unwrap_or_default());
                listed.push(Listed { display_name: title, state });
            }
            Ok(listed)
        })
    }
}

/// Action: reads a note aloud, line by line.
pub(super) struct Recite;

impl Action<Directory> for Recite {
    fn schema(&self) -> Schema {
        Schema::new("Reads a note aloud.", [("title", Attribute::required(Type::String).describe("Which one."))])
    }

    fn plan<'a>(&'a self, _: &'a Ctx<Directory>, config: Value) -> Pending<'a, Diagnostics> {
        Box::pin(async move {
            if config.attr("title").is_unknown() {
                return Diagnostics::new();
            }
            Diagnostic::warning("It will be loud", "Close the door.").into()
        })
    }

    fn invoke<'a>(&'a self, ctx: &'a Ctx<Directory>, config: Value, progress: Progress) -> Pending<'a, Diagnostics> {
        Box::pin(async move {
            let title = config.attr("title").as_str().unwrap_or_default();
            let fields = match Note::load(ctx, title) {
                Ok(Some(fields)) => fields,
                Ok(None) => return Diagnostic::error("No such note", format!("There is no note {title:?}.")).into(),
                Err(error) => return error.into(),
            };
            for line in fields.get("text").map(String::as_str).unwrap_or_default().lines() {
                progress.say(line);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Diagnostics::new()
        })
    }
}
