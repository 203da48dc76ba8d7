//! iPXE scripts, one per host and state.
//!
//! A script is text that a machine runs before anything else, so nothing goes into it that could end a line or a word:
//! values are checked, not escaped, because iPXE has no quoting that covers everything.

use vmetal_model::boot::{BootEntry, BootTarget};
use vmetal_model::net::MacAddr;

use crate::dhcp::boot::HttpBase;

/// What a script says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Script {
    /// Start the installer.
    Installer,
    /// Tell the firmware to go on to the next boot device.
    LocalDisk,
    /// Say that this attempt loops, and power off.
    Looping,
}

/// A value that must not be put into a script.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name} of host {host:?} contains a character that an iPXE script cannot carry; expected letters, digits and -._~"
)]
pub struct Unsafe {
    /// Which value.
    pub name: &'static str,
    /// Whose.
    pub host: String,
}

/// Writes the script.
///
/// # Errors
/// [`Unsafe`] when host name, token or attempt could change the script's meaning.
pub fn render(
    script: Script,
    entry: &BootEntry,
    mac: MacAddr,
    base: &HttpBase,
    kernel_args: &str,
) -> Result<String, Unsafe> {
    let safe = |name: &'static str, value: &str| {
        let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if !value.is_empty() && value.bytes().all(fine) {
            Ok(())
        } else {
            Err(Unsafe { name, host: entry.host.clone() })
        }
    };
    safe("the name", &entry.host)?;
    let host = &entry.host;
    let (attempt, token) = match (&entry.target, script) {
        (BootTarget::Agent { attempt, token }, Script::Installer | Script::Looping) => (attempt, token),
        // `exit` hands control back to the firmware, which goes on with its next boot device.
        _ => return Ok(format!("#!ipxe\necho vmetal: {host} boots from its own disk\nexit\n")),
    };
    safe("the attempt", attempt)?;
    safe("the token", token)?;
    if script == Script::Looping {
        return Ok(format!(
            "#!ipxe\n\
             echo vmetal: {host} began network boot of attempt {attempt} too often; the installer never called\n\
             echo vmetal: powering off; see the events of host {host}\n\
             sleep 10\n\
             poweroff || exit\n"
        ));
    }
    let extra = if kernel_args.is_empty() { String::new() } else { format!(" {kernel_args}") };
    Ok(format!(
        "#!ipxe\n\
         echo vmetal: {host}, attempt {attempt}\n\
         set tries:int32 0\n\
         :fetch\n\
         imgfree\n\
         kernel {base}/assets/kernel initrd=initrd vmetal.url={base} vmetal.token={token} vmetal.mac={mac} vmetal.attempt={attempt}{extra} || goto again\n\
         initrd --name initrd {base}/assets/initrd || goto again\n\
         boot || goto again\n\
         :again\n\
         inc tries\n\
         iseq ${{tries}} 10 && goto failed ||\n\
         echo vmetal: failed, try ${{tries}} of 10\n\
         sleep 3\n\
         goto fetch\n\
         :failed\n\
         echo vmetal: kernel or initramfs could not be fetched or started\n\
         exit 1\n"
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::testing::{SERVER, agent_entry, disk_entry};

    const BASE: HttpBase = HttpBase { address: SERVER, port: 8080 };

    fn script(which: Script, entry: &BootEntry) -> Result<String, Unsafe> {
        render(which, entry, entry.macs[0], &BASE, "console=ttyS0")
    }

    #[test]
    fn the_installer_gets_everything_it_needs_on_its_command_line() {
        let text = script(Script::Installer, &agent_entry("node-1", 1)).unwrap();
        let kernel = text.lines().find(|line| line.starts_with("kernel ")).unwrap();
        assert_eq!(
            kernel,
            "kernel http://172.22.0.1:8080/assets/kernel initrd=initrd vmetal.url=http://172.22.0.1:8080 \
             vmetal.token=token-of-node-1 vmetal.mac=52:54:00:00:00:01 vmetal.attempt=attempt-of-node-1 \
             console=ttyS0 || goto again"
        );
        assert!(text.starts_with("#!ipxe\n"));
    }

    #[test]
    fn a_host_that_boots_from_disk_is_sent_on_and_gets_no_token() {
        for which in [Script::LocalDisk, Script::Installer, Script::Looping] {
            let text = script(which, &disk_entry("b", 2)).unwrap();
            assert!(text.ends_with("exit\n") && !text.contains("token") && !text.contains("kernel"), "{text}");
        }
    }

    #[test]
    fn a_looping_host_is_told_so_and_gets_no_token() {
        let text = script(Script::Looping, &agent_entry("a", 1)).unwrap();
        assert!(text.contains("poweroff") && !text.contains("token-of-a"), "{text}");
    }

    #[test]
    fn nothing_that_could_end_a_line_or_a_word_gets_in() {
        for bad in ["", "a b", "a\nshell", "a${net0/mac}", "a||shell", "ä"] {
            let mut entry = agent_entry("a", 1);
            entry.target = BootTarget::Agent { attempt: "1".to_owned(), token: bad.to_owned() };
            assert_eq!(script(Script::Installer, &entry).unwrap_err().name, "the token");
            entry.host = bad.to_owned();
            assert_eq!(script(Script::LocalDisk, &entry).unwrap_err().name, "the name");
        }
    }
}
