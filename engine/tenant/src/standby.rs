//! What cloud-init is told on a server that is installed ahead of any claim: wait for one, then begin anew with its data.
//!
//! The waiting is a service of ours, made by the standby installation's own first-boot data, so that an image needs nothing
//! but what every image needs: cloud-init, systemd and curl. It says that it runs, and then asks the engine for a claim, a
//! question that is held until there is one. What it gets it writes where the first boot found its data, the `CIDATA` file
//! system; then it takes itself away and has cloud-init's stages run again, each by its own unit, as at a boot. They find
//! another instance id, which is what makes cloud-init treat them as a first boot: host name, files, keys and commands are
//! the claim's. Nothing is rebooted, which would take a server minutes.
//!
//! What a first boot makes once and a second finds there (machine id, SSH host keys) was made by this installation on this
//! server: no other server and no tenant has had it.
//!
//! The service survives a restart of the server; its token is in a file that only root reads, and goes with it.

use serde_json::json;
use vmetal_user_data::HEADER;

use crate::user_data::{Callback, UserDataError, authorization, quoted_url, write};

const SERVICE: &str = "vmetal-standby.service";
const DIRECTORY: &str = "/etc/vmetal";

/// Where a system on standby reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandbyInput {
    /// Where to say that it waits.
    pub phone_home: Callback,
    /// Where to ask for the claim's first-boot data.
    pub claim: Callback,
}

/// Renders the `user-data` of an installation ahead of any claim. The result holds the boot token.
///
/// # Errors
/// [`UserDataError`] when an address or token cannot be written.
pub fn render_standby(input: &StandbyInput) -> Result<String, UserDataError> {
    let file = |path: &str, permissions: &str, content: &str| json!({ "path": path, "permissions": permissions, "owner": "root:root", "content": content });
    let document = json!({
        "write_files": [
            file(&format!("{DIRECTORY}/standby.header"), "0600", &authorization(&input.claim)?),
            file(&format!("{DIRECTORY}/standby.sh"), "0700", &script(input)?),
            file(&format!("/etc/systemd/system/{SERVICE}"), "0644", &unit()),
        ],
        "runcmd": [["systemctl", "enable", "--now", "--no-block", SERVICE]],
    });
    Ok(format!("{HEADER}\n{}", write(&document)?))
}

/// Begins after cloud-init's last stage, at each boot. What the claim's commands leave running outlives it.
fn unit() -> String {
    format!(
        "[Unit]\n\
         Description=Wait for a claim on this server\n\
         Wants=network-online.target\n\
         After=network-online.target cloud-final.service\n\
         \n\
         [Service]\n\
         ExecStart=/bin/sh {DIRECTORY}/standby.sh\n\
         Restart=on-failure\n\
         RestartSec=5\n\
         KillMode=process\n\
         \n\
         [Install]\n\
         WantedBy=cloud-init.target\n"
    )
}

fn script(input: &StandbyInput) -> Result<String, UserDataError> {
    let (phone_home, claim) = (quoted_url(&input.phone_home)?, quoted_url(&input.claim)?);
    Ok(format!(
        r#"#!/bin/sh
# Waits for a claim on this server, then has cloud-init begin anew with the claim's first-boot data.
umask 077
run=/run/vmetal
answer=$run/claim.json
seed=$run/seed
mkdir -p "$run" "$seed"

ask() {{
  curl --silent --output "$answer" --write-out '%{{http_code}}' --header @{DIRECTORY}/standby.header "$@"
}}

until [ "$(ask --max-time 10 --data up {phone_home})" = 204 ]; do sleep 2; done
while :; do
  case $(ask --max-time 60 {claim}) in
    200) break ;;
    204) ;;
    *) sleep 2 ;;
  esac
done

# The data goes where the first boot found its own: a later boot must find the same.
mount -t vfat -o umask=077 /dev/disk/by-label/CIDATA "$seed" || exit 1
python3 - "$answer" "$seed" <<'END' || {{ umount "$seed"; exit 1; }}
import json, os, sys
answer, seed = sys.argv[1:]
with open(answer) as file:
    data = json.load(file)
for key, text in data.items():
    with open(os.path.join(seed, key.replace("_", "-")), "w") as file:
        file.write(text)
END
umount "$seed" || exit 1
rm -f "$answer"

# From here on this is the claim's system.
systemctl --no-reload disable {SERVICE}
rm -rf {DIRECTORY} /etc/systemd/system/{SERVICE}
rm -rf /var/lib/cloud/instance /var/lib/cloud/instances /var/lib/cloud/data /var/lib/cloud/sem
for unit in cloud-init-main cloud-init-local cloud-init cloud-init-network cloud-config cloud-final; do
  if [ "$(systemctl show --property=LoadState --value "$unit.service")" = loaded ]; then
    systemctl restart "$unit.service"
  fi
done
systemctl daemon-reload
"#
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use serde_json::Value;

    use super::*;

    fn input() -> StandbyInput {
        let callback =
            |path: &str| Callback { url: format!("http://172.22.0.1:8080{path}"), token: "the-token".into() };
        StandbyInput {
            phone_home: callback("/agent/v1/phone-home?instance=s"),
            claim: callback("/agent/v1/claim?wait=25"),
        }
    }

    fn files() -> Vec<(String, String, String)> {
        let text = render_standby(&input()).unwrap();
        let document: Value = serde_json::from_str(text.strip_prefix("#cloud-config\n").unwrap()).unwrap();
        let text = |file: &Value, key: &str| file[key].as_str().unwrap().to_owned();
        let files = document["write_files"].as_array().unwrap();
        files.iter().map(|file| (text(file, "path"), text(file, "permissions"), text(file, "content"))).collect()
    }

    #[test]
    fn the_token_is_in_one_file_that_only_root_reads() {
        let with: Vec<_> = files().into_iter().filter(|(.., content)| content.contains("the-token")).collect();
        let [(path, permissions, content)] = with.as_slice() else { panic!("{with:?}") };
        assert_eq!((path.as_str(), permissions.as_str()), ("/etc/vmetal/standby.header", "0600"));
        assert_eq!(content, "Authorization: Bearer the-token\n");
    }

    #[test]
    fn the_script_is_a_script_and_its_python_is_python() {
        let (.., script) = files().into_iter().find(|(path, ..)| path.ends_with(".sh")).unwrap();
        let check = |program: &str, args: &[&str], text: &str| {
            let mut child = Command::new(program).args(args).stdin(Stdio::piped()).spawn().unwrap();
            child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
            assert!(child.wait().unwrap().success(), "{program} refuses:\n{text}");
        };
        check("sh", &["-n"], &script);
        let python = script.split_once("<<'END'").unwrap().1.split_once('\n').unwrap().1;
        let python = python.split_once("\nEND\n").unwrap().0;
        check("python3", &["-c", "import ast, sys; ast.parse(sys.stdin.read())"], python);
    }

    #[test]
    fn what_would_break_out_of_the_script_is_refused() {
        let mut broken = input();
        broken.claim.url = "http://x/'; reboot #".into();
        assert!(render_standby(&broken).is_err());
        let mut broken = input();
        broken.claim.token = "a\nb".into();
        assert!(render_standby(&broken).is_err());
    }
}
