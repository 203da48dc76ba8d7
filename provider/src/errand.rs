//! What Terraform was started for, as far as its command line tells.
//!
//! Terraform plans everything as it stands before it destroys, so as to refresh the state, and nothing in the protocol says
//! that this plan is not meant. A plan that has to fail, because a tenant node can never get a server, would then keep the user
//! from destroying just that. So the provider looks at who started it: the client's command line, and the variables that add to
//! it. Where they tell nothing (another client, another system, a client that runs the provider elsewhere) a plan is a plan.

use std::os::unix::process::parent_id;

/// Whether whoever started this process is destroying.
pub(crate) fn destroys() -> bool {
    let line = std::fs::read(format!("/proc/{}/cmdline", parent_id())).unwrap_or_default();
    destroying(&line, |name| std::env::var(name).ok())
}

/// The same of a command line as the kernel shows it: arguments that end in a zero byte each.
fn destroying(line: &[u8], var: impl Fn(&str) -> Option<String>) -> bool {
    let line = String::from_utf8_lossy(line);
    let mut arguments = line.split('\0').skip(1).filter(|argument| !argument.is_empty());
    // Options before the command (-chdir) are the client's own.
    let Some(command) = arguments.find(|argument| !argument.starts_with('-')) else { return false };
    let flag = |argument: &str| {
        let name = argument.strip_prefix("--").or(argument.strip_prefix('-'));
        matches!(name, Some("destroy" | "destroy=true" | "destroy=1"))
    };
    let mut added = ["TF_CLI_ARGS".to_owned(), format!("TF_CLI_ARGS_{command}")].into_iter();
    match command {
        "destroy" => true,
        "plan" | "apply" => {
            arguments.any(flag) || added.any(|name| var(&name).is_some_and(|more| more.split_whitespace().any(flag)))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> bool {
        destroying(line.replace(' ', "\0").as_bytes(), |_| None)
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
            assert!(of(line), "{line}");
        }
        for line in [
            "terraform apply ",
            "terraform plan -out=destroy ",
            "terraform -chdir=destroy plan ",
            "terraform plan -destroy=false ",
            "cargo test destroy ",
            "terraform ",
            "",
        ] {
            assert!(!of(line), "{line}");
        }
    }

    #[test]
    fn so_do_the_variables_that_add_to_it() {
        let with = |name: &'static str| move |asked: &str| (asked == name).then(|| "-no-color -destroy".to_owned());
        let line = b"terraform\0plan\0";
        assert!(destroying(line, with("TF_CLI_ARGS")) && destroying(line, with("TF_CLI_ARGS_plan")));
        assert!(!destroying(line, with("TF_CLI_ARGS_apply")));
    }
}
