//! What the provider promises to configurations and states: its schema, as a file that changes only on purpose.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../examples/reference/pages.rs"]
#[allow(unreachable_pub, reason = "shared with the program that writes the pages")]
mod pages;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

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

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn the_registry_pages_are_what_the_schema_and_the_examples_make() {
    let made = pages::all(&provider_vmetal::description(), &repository().join("examples/registry")).unwrap();
    let docs = repository().join("docs/registry");
    for (path, text) in &made {
        let there = std::fs::read_to_string(docs.join(path)).unwrap_or_default();
        assert!(there == *text, "docs/registry/{path} is stale; run: make docs");
        // What the registry itself checks of a page.
        assert!(text.starts_with("---\npage_title: \"") && text.len() < 500_000, "{path}");
    }
    let mut files = BTreeSet::new();
    for (_, directory, _, _) in pages::SORTS {
        for entry in std::fs::read_dir(docs.join(directory)).unwrap() {
            files.insert(format!("{directory}/{}", entry.unwrap().file_name().to_str().unwrap()));
        }
    }
    let expected: BTreeSet<String> = made.keys().filter(|path| path.contains('/')).cloned().collect();
    assert_eq!(files, expected, "a page of something that is not there");
}

/// Every attribute, however deep, stands on the page of what it belongs to, with a description.
#[test]
fn every_attribute_is_documented() {
    fn names(attributes: &Json, found: &mut Vec<String>) {
        for (name, attribute) in attributes.as_object().into_iter().flatten() {
            assert!(
                attribute["description"].as_str().is_some_and(|text| !text.is_empty()),
                "{name} has no description"
            );
            found.push(format!("- `{name}` ("));
            names(&attribute["nested_type"]["attributes"], found);
        }
    }
    let provider = &provider_vmetal::description()["provider_schemas"][provider_vmetal::ADDRESS];
    let mut seen = 0;
    for (member, directory, _, sort) in pages::SORTS.into_iter().filter(|(member, ..)| *member != "functions") {
        for (name, schema) in provider[member].as_object().unwrap() {
            let path = format!("docs/registry/{directory}/{}.md", name.strip_prefix("vmetal_").unwrap());
            let page = std::fs::read_to_string(repository().join(&path)).unwrap();
            let mut expected = Vec::new();
            names(&schema["block"]["attributes"], &mut expected);
            for line in &expected {
                assert!(page.contains(line.as_str()), "{path} ({sort}) does not say what {line} is");
            }
            seen += expected.len();
        }
    }
    assert!(seen > 200, "the attributes were not found: {seen}");
}

/// Every example is what the provider takes. Clients before 1.14 know neither actions, which they only parse, nor lists.
#[test]
fn every_example_is_valid() {
    let mut seen = 0;
    for (_, _, directory, sort) in pages::SORTS {
        let Ok(entries) = std::fs::read_dir(repository().join("examples/registry").join(directory)) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let dir = tempfile::tempdir().unwrap();
            let binary = PathBuf::from(env!("CARGO_BIN_EXE_terraform-provider-vmetal"));
            let tf = Terraform::new(dir.path(), &Provider::mirror(provider_vmetal::ADDRESS, binary)).unwrap();
            let head = std::fs::read_to_string(repository().join("examples/registry/provider/provider.tf")).unwrap();
            let head = head.replace("\"vmetal/vmetal\"", &format!("{:?}", provider_vmetal::ADDRESS));
            let (list, new) = (sort == "List Resource", tf.knows("query").unwrap());
            let file = if list { "main.tfquery.hcl" } else { "main.tf" };
            std::fs::write(dir.path().join(file), &text).unwrap();
            let formatted = tf.run(&["fmt", "-check", "-diff"]).unwrap();
            assert!(formatted.ok(), "{} is not as `terraform fmt` writes it:\n{}", path.display(), formatted.text);
            if new || !(list || sort == "Action") {
                tf.config(&if list { head } else { format!("{head}{text}") }).unwrap();
                tf.init().unwrap();
                let query = list.then_some("-query");
                let check = ["validate", "-no-color"].into_iter().chain(query).collect::<Vec<_>>();
                let valid = tf.run(&check).unwrap();
                assert!(valid.ok(), "{}:\n{}", path.display(), valid.text);
            }
            seen += 1;
        }
    }
    assert!(seen >= 30, "the examples were not found: {seen}");
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
