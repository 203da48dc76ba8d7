//! What is checked about a component before any of it is compiled.

use vmetal_policy_sdk::Kind;
use wasmparser::{Encoding, Parser, Payload, Validator, WasmFeatures};

use crate::error::LoadError;

/// Versions of the boundary that this engine speaks.
pub(crate) const KNOWN_VERSIONS: [&str; 1] = [vmetal_policy_sdk::WIT_VERSION];

const PACKAGE: &str = "vmetal:policy/";

/// What a component says on its outside. Only the outermost component's imports and exports count: inner modules are linked
/// among themselves.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outline {
    pub(crate) imports: Vec<String>,
    pub(crate) exports: Vec<String>,
    /// The cases that it brings, as JSON.
    pub(crate) cases: Option<String>,
}

impl Outline {
    /// True when it exports the interface (for example `cost`), in whatever version.
    pub(crate) fn exports_some(&self, interface: &str) -> bool {
        let prefix = format!("{PACKAGE}{interface}@");
        self.exports.iter().any(|export| export.starts_with(&prefix))
    }
}

/// Reads a component's outside, and no more of it than that.
pub(crate) fn outline(policy: &str, bytes: &[u8]) -> Result<Outline, LoadError> {
    let policy = || policy.to_owned();
    let malformed =
        |error: wasmparser::BinaryReaderError| LoadError::Malformed { policy: policy(), detail: error.to_string() };
    let mut outline = Outline::default();
    let mut depth = 0u32;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(malformed)? {
            Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => {
                return Err(LoadError::NotAComponent { policy: policy() });
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    outline.imports.push(import.map_err(malformed)?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    outline.exports.push(export.map_err(malformed)?.name.name.to_owned());
                }
            }
            Payload::CustomSection(section) if depth == 0 && section.name() == crate::cases::SECTION => {
                outline.cases = Some(String::from_utf8_lossy(section.data()).into_owned());
            }
            _ => {}
        }
    }
    Ok(outline)
}

/// The interfaces by which a component shows what it decides on.
const SEATS: [(Kind, &str); 2] = [(Kind::Cost, "cost"), (Kind::Placement, "placement")];

/// Checks that the bytes are a whole component that imports nothing but the boundary and exports the interface of a kind in
/// a known version. Gives the cases that it brings.
pub(crate) fn scan(policy: &str, bytes: &[u8], kind: Kind) -> Result<Option<String>, LoadError> {
    let outline = outline(policy, bytes)?;
    let shows = |(_, interface): &(Kind, &str)| outline.exports_some(interface);
    let seen = SEATS.into_iter().filter(shows).map(|(kind, _)| kind).collect::<Vec<_>>();
    let Outline { imports, exports, cases } = outline;
    let policy = || policy.to_owned();
    features(bytes).map_err(|problem| match problem {
        Problem::Feature(detail) => LoadError::ForbiddenFeature { policy: policy(), detail },
        Problem::Malformed(detail) => LoadError::Malformed { policy: policy(), detail },
    })?;
    if let Some(import) = imports.into_iter().find(|import| !import.starts_with(PACKAGE)) {
        return Err(LoadError::ForbiddenImport { policy: policy(), import });
    }
    let foreign = |export: &&String| {
        export.strip_prefix(PACKAGE).is_some_and(|rest| {
            let version = rest.split_once('@').map_or("", |(_, version)| version);
            !KNOWN_VERSIONS.contains(&version)
        })
    };
    if let Some(export) = exports.iter().find(foreign) {
        let known = KNOWN_VERSIONS.join(", ");
        return Err(LoadError::UnknownVersion { policy: policy(), export: export.clone(), known });
    }
    if let Some(seen) = seen.first().filter(|_| !seen.contains(&kind)) {
        return Err(LoadError::WrongKind { policy: policy(), wanted: kind, seen: *seen });
    }
    let own = SEATS.into_iter().filter(|(of, _)| *of == kind).map(|(_, interface)| interface);
    for interface in own.chain(["meta", "explain"]) {
        let wanted = format!("{PACKAGE}{interface}@{}", vmetal_policy_sdk::WIT_VERSION);
        if !exports.contains(&wanted) {
            return Err(LoadError::MissingExport { policy: policy(), wanted });
        }
    }
    Ok(cases)
}

enum Problem {
    Feature(String),
    Malformed(String),
}

fn features(bytes: &[u8]) -> Result<(), Problem> {
    let allowed = WasmFeatures::default()
        - WasmFeatures::THREADS
        - WasmFeatures::RELAXED_SIMD
        - WasmFeatures::MEMORY64
        - WasmFeatures::CM_ASYNC;
    let Err(error) = Validator::new_with_features(allowed).validate_all(bytes) else { return Ok(()) };
    match Validator::new_with_features(WasmFeatures::all()).validate_all(bytes) {
        Ok(_) => Err(Problem::Feature(error.to_string())),
        Err(error) => Err(Problem::Malformed(error.to_string())),
    }
}
