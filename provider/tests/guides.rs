//! The guides: written by hand, and held to what the provider takes.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use tfplugin::testing::{Provider, Terraform};

/// What a registry shows under "Guides", by file name.
const GUIDES: [&str; 6] = [
    "adopting-a-rack",
    "getting-started",
    "migrating-from-ironic",
    "migrating-from-metal3",
    "placement-policy",
    "terraform-cloud",
];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn guides() -> BTreeMap<String, String> {
    let entries = fs::read_dir(repository().join("docs/registry/guides")).unwrap();
    entries
        .map(|entry| {
            let path = entry.unwrap().path();
            assert_eq!(path.extension().unwrap(), "md", "{}", path.display());
            (path.file_stem().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap())
        })
        .collect()
}

/// The fenced blocks of a language, in order.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Option<(bool, String)> = None;
    for line in text.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(info)) => open = Some((info == language, String::new())),
            (None, None) => {}
            (Some(_), Some(_)) => {
                let (wanted, block) = open.take().unwrap();
                found.extend(wanted.then_some(block));
            }
            (Some((_, block)), None) => {
                block.push_str(line);
                block.push('\n');
            }
        }
    }
    assert!(open.is_none(), "a block is not closed");
    found
}

/// What registries read of a page: title, place in the menu, one line for searching; and how large a page may be.
#[test]
fn every_guide_has_what_a_registry_reads() {
    let guides = guides();
    assert_eq!(guides.keys().map(String::as_str).collect::<Vec<_>>(), GUIDES);
    for (name, text) in &guides {
        let (front, body) =
            text.strip_prefix("---\n").and_then(|rest| rest.split_once("\n---\n\n# ")).unwrap_or_else(|| {
                panic!("{name} does not begin with front matter and a heading");
            });
        let mut lines = front.lines();
        let title = lines.next().unwrap().strip_prefix("page_title: \"").and_then(|rest| rest.strip_suffix('"'));
        assert!(title.is_some_and(|title| !title.is_empty()), "{name}: {front}");
        assert_eq!(lines.next(), Some("subcategory: \"\""), "{name}");
        assert_eq!(lines.next(), Some("description: |-"), "{name}");
        let description = lines.next().unwrap();
        assert!(description.starts_with("  ") && description.trim().len() > 20, "{name}: {description}");
        assert_eq!(lines.next(), None, "{name}");
        assert!(text.len() < 500_000 && !body.contains("\n# "), "{name}: one first heading");
    }
}

/// Resources and data sources that a guide names in its text have a page.
#[test]
fn what_a_guide_names_is_there() {
    let mut seen = 0;
    for (name, text) in guides() {
        for word in text.split('`').skip(1).step_by(2).filter(|word| !word.contains(char::is_whitespace)) {
            let Some(page) = word.strip_prefix("vmetal_") else { continue };
            let there = |place: &&str| repository().join(format!("docs/registry/{place}/{page}.md")).exists();
            assert!(["resources", "data-sources"].iter().any(there), "{name} names {word}, which has no page");
            seen += 1;
        }
    }
    assert!(seen > 20, "the names were not found: {seen}");
}

/// Every `terraform` block of a guide is formatted, and those of one guide together are a configuration that the provider takes.
/// `hcl` blocks (of other clients, other providers) are only parsed. All guides are modules of one configuration, so that the
/// client is started once.
#[test]
fn every_configuration_in_a_guide_is_valid() {
    let dir = tempfile::tempdir().unwrap();
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_terraform-provider-vmetal"));
    let tf = Terraform::new(dir.path(), &Provider::mirror(provider_vmetal::ADDRESS, binary)).unwrap();
    let mut root = String::new();
    let mut whole = guides();
    let example = fs::read_to_string(repository().join("examples/terraform/terraform-cloud/main.tf")).unwrap();
    whole.insert("example-terraform-cloud".to_owned(), format!("```terraform\n{example}```\n"));
    for (name, text) in &whole {
        let (module, parsed) = (dir.path().join(name), dir.path().join("parsed").join(name));
        fs::create_dir(&module).unwrap();
        fs::create_dir_all(&parsed).unwrap();
        write!(root, "module \"{name}\" {{\n  source = \"./{name}\"\n").unwrap();
        for (index, block) in blocks(text, "terraform").iter().enumerate() {
            fs::write(parsed.join(format!("{index}.tf")), block).unwrap();
            // The short address means another registry to each client, and the mirror has a version of its own. Where a workspace
            // is belongs to the root only.
            let block = block.replace("\"vmetal/vmetal\"", &format!("{:?}", provider_vmetal::ADDRESS));
            let block = block.replace("      version = \"~> 0.1\"\n", "");
            fs::write(module.join(format!("{index}.tf")), without(&block, "  cloud {")).unwrap();
            for line in block.lines() {
                if let Some(variable) = line.strip_prefix("variable \"").and_then(|rest| rest.split('"').next()) {
                    writeln!(root, "  {variable} = null").unwrap();
                }
            }
        }
        root.push_str("}\n");
        for (index, block) in blocks(text, "hcl").iter().enumerate() {
            fs::write(parsed.join(format!("hcl{index}.tf")), block).unwrap();
        }
        assert!(fs::read_dir(&module).unwrap().count() > 0, "{name} shows no configuration");
    }
    let formatted = tf.run(&["fmt", "-check", "-diff", "-recursive", "-no-color", "parsed"]).unwrap();
    assert!(formatted.ok(), "not as `terraform fmt` writes it:\n{}", formatted.text);
    // An import belongs to the root: that guide is the root's own.
    let importing =
        whole.keys().filter(|name| blocks(&whole[*name], "terraform").iter().any(|b| b.contains("\nimport {")));
    let importing: Vec<_> = importing.cloned().collect();
    assert_eq!(importing, ["adopting-a-rack"]);
    let mut config = String::new();
    for (name, text) in &whole {
        if importing.contains(name) {
            let text = blocks(text, "terraform").concat();
            config += &text.replace("\"vmetal/vmetal\"", &format!("{:?}", provider_vmetal::ADDRESS));
            let begin = root.find(&format!("module \"{name}\"")).unwrap();
            let end = begin + root[begin..].find("\n}\n").unwrap() + 3;
            root.replace_range(begin..end, "");
        }
    }
    tf.config(&format!("{config}{root}")).unwrap();
    tf.init().unwrap();
    let valid = tf.run(&["validate", "-no-color"]).unwrap();
    assert!(valid.ok(), "{}", valid.text);
}

/// The text without a block of this first line, up to the brace that closes it.
fn without(text: &str, first: &str) -> String {
    let Some(begin) = text.find(first) else { return text.to_owned() };
    let indent: String = first.chars().take_while(|c| *c == ' ').collect();
    let close = format!("\n{indent}}}\n");
    let end = begin + text[begin..].find(&close).unwrap() + close.len();
    format!("{}{}", &text[..begin], &text[end..])
}

/// The engine's part of the example is a configuration that the engine reads: its keys are those of the page on it.
#[test]
fn the_example_of_the_workspace_is_that_of_the_guide() {
    let file = fs::read_to_string(repository().join("examples/terraform/terraform-cloud/vmetald-oidc.toml")).unwrap();
    let guide = &guides()["terraform-cloud"];
    let shown = blocks(guide, "toml").into_iter().find(|block| block.contains("[[oidc]]")).unwrap();
    let settings = |text: &str| -> Vec<String> {
        text.lines()
            .map(|line| line.split('#').next().unwrap().trim().to_owned())
            .filter(|line| !line.is_empty())
            .collect()
    };
    assert_eq!(settings(&shown), settings(&file));
}
