//! What Terraform was started for, as far as its command line tells.
//!
//! Terraform plans everything as it stands before it destroys, so as to refresh the state, and nothing in the protocol says
//! that this plan is not meant. A plan that has to fail, because a tenant node can never get a server, would then keep the user
//! from destroying just that. So the provider looks at who started it: the client's command line, and the variables that add to
//! it. Where they tell nothing (another client, another system, a client that runs the provider elsewhere) a plan is a plan.

use std::os::unix::process::parent_id;

/// What the client is about, as far as it tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Errand {
    /// Everything that the state has is destroyed.
    DestroyAll,
    /// A part of it is: some are named, or left out by name.
    DestroySome,
    /// Anything else, or not known.
    Other,
}

/// What whoever started this process is about.
pub(crate) fn errand() -> Errand {
    let line = std::fs::read(format!("/proc/{}/cmdline", parent_id())).unwrap_or_default();
    told_by(&line, |name| std::env::var(name).ok())
}

/// The same of a command line as the kernel shows it: arguments that end in a zero byte each.
fn told_by(line: &[u8], var: impl Fn(&str) -> Option<String>) -> Errand {
    let line = String::from_utf8_lossy(line);
    let mut arguments = line.split('\0').skip(1).filter(|argument| !argument.is_empty());
    // Options before the command (-chdir) are the client's own.
    let Some(command) = arguments.find(|argument| !argument.starts_with('-')) else { return Errand::Other };
    let added: Vec<String> =
        ["TF_CLI_ARGS".to_owned(), format!("TF_CLI_ARGS_{command}")].iter().filter_map(|name| var(name)).collect();
    let options: Vec<&str> = arguments
        .chain(added.iter().flat_map(|more| more.split_whitespace()))
        .filter_map(|argument| argument.strip_prefix("--").or(argument.strip_prefix('-')))
        .collect();
    let destroys = match command {
        "destroy" => true,
        "plan" | "apply" => options.iter().any(|name| matches!(*name, "destroy" | "destroy=true" | "destroy=1")),
        _ => false,
    };
    // The last three are OpenTofu's.
    const CHOICE: [&str; 4] = ["target", "exclude", "target-file", "exclude-file"];
    let chooses = options.iter().any(|option| CHOICE.contains(&option.split('=').next().unwrap_or_default()));
    match (destroys, chooses) {
        (true, false) => Errand::DestroyAll,
        (true, true) => Errand::DestroySome,
        (false, _) => Errand::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Errand {
        told_by(line.replace(' ', "\0").as_bytes(), |_| None)
    }

    #[test]
    fn the_command_tells() {
        for line in [
            "terraform destroy -auto-approve ",
            "/usr/bin/terraform -chdir=site destroy ",
            "tofu plan -destroy -out=p ",
            "terraform apply --destroy ",
            "terraform plan -destroy=true ",
        ] {
            assert_eq!(of(line), Errand::DestroyAll, "{line}");
        }
        for line in [
            "terraform destroy -target=vmetal_host.a ",
            "terraform plan -destroy -target vmetal_host.a ",
            "tofu destroy -exclude=vmetal_host.a ",
        ] {
            assert_eq!(of(line), Errand::DestroySome, "{line}");
        }
        for line in [
            "terraform apply ",
            "terraform apply -target=vmetal_host.a ",
            "terraform plan -out=destroy ",
            "terraform -chdir=destroy plan ",
            "terraform plan -destroy=false ",
            "cargo test destroy ",
            "terraform ",
            "",
        ] {
            assert_eq!(of(line), Errand::Other, "{line}");
        }
    }

    #[test]
    fn so_do_the_variables_that_add_to_it() {
        let with = |name: &'static str, more: &'static str| move |asked: &str| (asked == name).then(|| more.to_owned());
        let line = b"terraform\0plan\0";
        let destroy = "-no-color -destroy";
        assert_eq!(told_by(line, with("TF_CLI_ARGS", destroy)), Errand::DestroyAll);
        assert_eq!(told_by(line, with("TF_CLI_ARGS_plan", destroy)), Errand::DestroyAll);
        assert_eq!(told_by(line, with("TF_CLI_ARGS_apply", destroy)), Errand::Other);
        assert_eq!(told_by(b"terraform\0destroy\0", with("TF_CLI_ARGS", "-target=a.b")), Errand::DestroySome);
    }
}
