//! Cases, run on a policy and, where it is a shipped one, on its native twin.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vmetal_policy::cases::Case;
use vmetal_policy::{Record, Workbench, componentize};

use crate::error::ToolError;
use crate::inspect::{self, Inspection};
use crate::spec::Spec;

/// What became of one case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// What the case shows.
    pub case: String,
    /// On what it ran: `component` or `native twin`.
    pub on: &'static str,
    /// What is not as expected; empty when all is.
    pub problems: Vec<String>,
    /// Fuel that it used; none for a native twin.
    pub fuel: Option<u64>,
}

/// What became of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// The policy, as `name@version sha256:…`.
    pub policy: String,
    /// Case by case.
    pub runs: Vec<Run>,
}

impl Trial {
    /// How many runs were not as expected.
    pub fn failed(&self) -> usize {
        self.runs.iter().filter(|run| !run.problems.is_empty()).count()
    }
}

/// Runs the cases that a policy brings and those of more files or directories.
///
/// # Errors
/// When the policy is refused, files cannot be read, or there is no case at all. A case that is not decided as it
/// expects is no error but a [`Run`] with problems.
pub fn trial(spec: &Spec, files: &[PathBuf]) -> Result<Trial, ToolError> {
    let bench = spec.open()?;
    let mut cases = bench.cases()?;
    for path in files {
        let read = if path.is_dir() { componentize::read_cases } else { componentize::read_case_file };
        cases.extend(read(path)?);
    }
    let identity = bench.identity();
    if cases.is_empty() {
        return Err(ToolError::NoCases { what: identity.to_string() });
    }
    runs_of(&bench, spec, &cases)
}

/// What is known of a component before an engine has it.
#[derive(Debug, Clone)]
pub struct Examination {
    /// What it is.
    pub inspection: Inspection,
    /// What became of the cases that it brings; it may bring none.
    pub trial: Trial,
}

/// Loads a component, asks it about itself and runs the cases that it brings, as an engine does. `name` is what messages call it.
///
/// # Errors
/// When it is refused or cannot be asked. A case that is not decided as it expects is no error but a [`Run`] with problems.
pub fn examine(name: &str, bytes: Arc<[u8]>) -> Result<Examination, ToolError> {
    let bench = Workbench::bytes(name.to_owned(), bytes, "", None)?;
    let (inspection, cases) = (inspect::look(&bench)?, bench.cases()?);
    let spec = Spec::file(Path::new(name));
    Ok(Examination { inspection, trial: runs_of(&bench, &spec, &cases)? })
}

fn runs_of(bench: &Workbench, spec: &Spec, cases: &[Case]) -> Result<Trial, ToolError> {
    let identity = bench.identity();
    let twin = match bench.outside() {
        Some(_) => spec.twin(&identity.name)?,
        None => None,
    };
    let on = if bench.outside().is_some() { "component" } else { "native twin" };
    let mut runs = Vec::new();
    for case in cases {
        let (run, record) = one(bench, on, case);
        runs.push(run);
        if let Some(twin) = &twin {
            let (mut run, other) = one(twin, "native twin", case);
            if let (Some(record), Some(other)) = (record, other) {
                run.problems.extend(difference(&record, &other));
            }
            runs.push(run);
        }
    }
    Ok(Trial { policy: identity.to_string(), runs })
}

fn one(bench: &Workbench, on: &'static str, case: &Case) -> (Run, Option<Record>) {
    let run = |problems, fuel| Run { case: case.case.clone(), on, problems, fuel };
    match bench.run_case(case) {
        Ok(record) => (run(case.problems(&record), record.fuel), Some(record)),
        Err(error) => (run(vec![chain(&error)], None), None),
    }
}

/// An error with its causes, each said once.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        let more = deeper.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = deeper.source();
    }
    text
}

/// What a component decided otherwise than its twin.
fn difference(component: &Record, twin: &Record) -> Option<String> {
    let same = component.chosen == twin.chosen && component.candidates == twin.candidates;
    (!same).then(|| {
        format!("component and native twin differ: component chose {:?}, twin {:?}", component.chosen, twin.chosen)
    })
}

/// What is to be tried: a component or a shipped policy as it is named, a crate built beside its sources, or every component
/// in a directory that is no crate.
///
/// # Errors
/// When a crate does not build, or a directory holds no component.
pub fn components(target: &str) -> Result<Vec<Spec>, ToolError> {
    let directory = Path::new(target);
    if !directory.is_dir() {
        return Ok(vec![Spec::read(target)]);
    }
    if directory.join("Cargo.toml").is_file() {
        return Ok(vec![Spec::file(&componentize::build(directory, directory)?.path)]);
    }
    let file = |source| ToolError::File { path: directory.to_owned(), source };
    let entries = std::fs::read_dir(directory).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(file)?;
    let mut found: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "wasm"));
    found.sort();
    if found.is_empty() {
        return Err(ToolError::Usage {
            message: format!("{} holds neither a crate (Cargo.toml) nor a component (*.wasm)", directory.display()),
        });
    }
    Ok(found.iter().map(|path| Spec::file(path)).collect())
}
