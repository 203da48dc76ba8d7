//! What the kernel command line tells the installer.

use vmetal_model::MacAddr;

/// Where to call, as whom.
#[derive(Clone, PartialEq, Eq)]
pub struct Cmdline {
    /// The engine, `http://ADDRESS:PORT`, without a slash at the end.
    pub url: String,
    /// The boot attempt's token.
    pub token: String,
    /// The interface that the machine was booted over.
    pub mac: MacAddr,
    /// The boot attempt.
    pub attempt: String,
}

impl std::fmt::Debug for Cmdline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} as {} (attempt {}, token redacted)", self.url, self.mac, self.attempt)
    }
}

/// Why the command line is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CmdlineError {
    /// A parameter is not there.
    #[error("the kernel command line has no {0}; the boot script is not the engine's")]
    Missing(&'static str),
    /// A parameter has no meaning.
    #[error("{name} on the kernel command line is not valid: {reason}")]
    Invalid {
        /// Which.
        name: &'static str,
        /// Why.
        reason: String,
    },
}

impl Cmdline {
    /// Reads the parameters; the last of several of one name counts, as in the kernel.
    ///
    /// # Errors
    /// [`CmdlineError`] names the parameter, never its value when that is the token.
    pub fn parse(text: &str) -> Result<Self, CmdlineError> {
        let value = |name: &'static str| {
            text.split_whitespace()
                .filter_map(|word| word.strip_prefix(name)?.strip_prefix('='))
                .next_back()
                .filter(|value| !value.is_empty())
                .ok_or(CmdlineError::Missing(name))
        };
        let url = value("vmetal.url")?.trim_end_matches('/');
        if !url.starts_with("http://") {
            let reason = format!("{url} does not begin with http://");
            return Err(CmdlineError::Invalid { name: "vmetal.url", reason });
        }
        let mac = value("vmetal.mac")?
            .parse()
            .map_err(|e| CmdlineError::Invalid { name: "vmetal.mac", reason: format!("{e}") })?;
        Ok(Cmdline {
            url: url.to_owned(),
            token: value("vmetal.token")?.to_owned(),
            mac,
            attempt: value("vmetal.attempt")?.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const GOOD: &str = "console=ttyS0 vmetal.url=http://10.0.0.1:8080/ vmetal.token=s3cret vmetal.mac=52-54-00-AB-CD-01 \
                        vmetal.attempt=a-1 quiet\n";

    #[test]
    fn parameters_are_found_among_others() {
        let line = Cmdline::parse(GOOD).unwrap();
        assert_eq!(line.url, "http://10.0.0.1:8080");
        assert_eq!(line.mac.to_string(), "52:54:00:ab:cd:01");
        assert_eq!((line.token.as_str(), line.attempt.as_str()), ("s3cret", "a-1"));
        assert!(!format!("{line:?}").contains("s3cret"));
        let twice = Cmdline::parse(&format!("{GOOD} vmetal.attempt=a-2")).unwrap();
        assert_eq!(twice.attempt, "a-2");
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        for name in ["vmetal.url", "vmetal.token", "vmetal.mac", "vmetal.attempt"] {
            let without = GOOD.replace(name, "other");
            assert_eq!(Cmdline::parse(&without), Err(CmdlineError::Missing(name)));
        }
        assert!(matches!(
            Cmdline::parse(&GOOD.replace("http:", "ftp:")),
            Err(CmdlineError::Invalid { name: "vmetal.url", .. })
        ));
        assert!(matches!(
            Cmdline::parse(&GOOD.replace("52-54", "01-54")),
            Err(CmdlineError::Invalid { name: "vmetal.mac", .. })
        ));
    }
}
