//! What the provider promises to configurations and states: its schema, as a file that changes only on purpose.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use tfplugin::{
    describe::breaking,
    testing::{Provider, Terraform},
};

fn golden() -> Json {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn the_schema_changes_only_on_purpose() {
    let (golden, now) = (golden(), provider_vmetal::description());
    let broken = breaking(&golden, &now);
    assert!(
        broken.is_empty(),
        "these changes break what users have:\n  {}\nTake them back; or, if they are meant, say so in CHANGELOG.md and run: make docs BREAKING=1",
        broken.join("\n  ")
    );
    assert!(golden == now, "provider/schema.json is not what the provider offers; run: make docs");
}

/// A client prints what it is new enough to know; that must be what the golden file says.
#[test]
fn a_real_client_reads_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_terraform-provider-vmetal"));
    let tf = Terraform::new(dir.path(), &Provider::mirror(provider_vmetal::ADDRESS, binary)).unwrap();
    let address = provider_vmetal::ADDRESS;
    tf.config(&format!("terraform {{\n  required_providers {{\n    vmetal = {{ source = \"{address}\" }}\n  }}\n}}\n"))
        .unwrap();
    tf.init().unwrap();
    let printed: Json = serde_json::from_str(&tf.expect(&["providers", "schema", "-json"]).unwrap().text).unwrap();
    let printed = &printed["provider_schemas"][address];
    let mut differences = Vec::new();
    within(printed, &golden()["provider_schemas"][address], address, &mut differences);
    assert!(
        differences.is_empty(),
        "the client reads something else than the golden file:\n{}",
        differences.join("\n")
    );
    for member in ["resource_schemas", "data_source_schemas"] {
        let count = printed[member].as_object().map_or(0, serde_json::Map::len);
        assert!(count >= 5, "{member}: the client printed {count}");
    }
}

/// Where `part` says something else than `whole`. What is false, empty or zero may be left out.
fn within(part: &Json, whole: &Json, at: &str, differences: &mut Vec<String>) {
    match (part, whole) {
        (Json::Object(part), Json::Object(_)) => {
            for (name, part) in part {
                within(part, &whole[name], &format!("{at}.{name}"), differences);
            }
        }
        (Json::Array(part), Json::Array(whole)) if part.len() == whole.len() => {
            for (index, (part, whole)) in part.iter().zip(whole).enumerate() {
                within(part, whole, &format!("{at}[{index}]"), differences);
            }
        }
        (Json::Bool(false), Json::Null) => {}
        (part, whole) if part == whole => {}
        (part, whole) => differences.push(format!("{at}: {part} instead of {whole}")),
    }
}
