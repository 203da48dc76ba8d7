//! Where a database is and how to reach it: a URL that never shows its password.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use super::tls::MakeTls;
use crate::error::OpenError;

/// Options of the URL that are handed to the driver as they are.
const KNOWN: [&str; 8] =
    ["host", "port", "user", "dbname", "application_name", "connect_timeout", "options", "target_session_attrs"];

/// The address of a PostgreSQL database, as `postgres://USER:PASSWORD@HOST:PORT/DATABASE?OPTION=VALUE&...`.
///
/// Options as libpq has them: `host` (also a directory with a unix socket), `port`, `user`, `dbname`,
/// `application_name`, `connect_timeout`, `options`, `target_session_attrs`, and
///
/// * `sslmode`: `disable`, or `require`, `verify-ca` and `verify-full`, which all mean TLS with a verified certificate
///   and name (a certificate that is not verified protects against nobody who can sit in between). Absent: `disable` for
///   unix sockets and loopback addresses, else `verify-full`. `allow` and `prefer` are refused: they fall back to clear
///   text when somebody on the way asks for it.
/// * `sslrootcert`: a file with the authorities to trust, in PEM. Absent: those of the system.
///
/// Neither `Debug` nor `Display` shows the password.
#[derive(Clone)]
pub struct PostgresUrl {
    pub(super) config: tokio_postgres::Config,
    pub(super) tls: MakeTls,
    shown: Arc<str>,
}

impl PostgresUrl {
    /// Reads a URL. A file with the authorities is read at once.
    ///
    /// # Errors
    /// [`OpenError::Url`], without any part of the password.
    pub fn parse(url: &str) -> Result<Self, OpenError> {
        let wrong = |what: &str| OpenError::Url { what: what.to_owned() };
        let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"));
        let rest = rest.ok_or_else(|| wrong("it does not start with postgres://"))?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (mut mode, mut roots, mut passed) = (None, None, Vec::new());
        for option in query.split('&').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some(("sslmode", value)) => mode = Some(Mode::parse(value)?),
                Some(("sslrootcert", value)) => roots = Some(PathBuf::from(decode(value))),
                Some((name, _)) if KNOWN.contains(&name) => passed.push(option),
                // The name is not repeated: with a `?` in the password that is not encoded, it would be part of it.
                _ => {
                    return Err(wrong(&format!(
                        "it has an option that is not known; known are {}, sslmode and sslrootcert",
                        KNOWN.join(", ")
                    )));
                }
            }
        }
        let plain = format!("postgres://{place}?{}", passed.join("&"));
        let mut config: tokio_postgres::Config = plain.parse().map_err(|_| {
            // What the driver says may quote what it could not read.
            wrong("user, password, host, port or database cannot be told apart; write special characters as %XX")
        })?;
        if config.get_hosts().is_empty() {
            return Err(wrong("it names no host; for a unix socket, add ?host=/directory/of/the/socket"));
        }
        if config.get_user().is_none() {
            return Err(wrong("it names no user"));
        }
        if config.get_dbname().is_none() {
            return Err(wrong("it names no database"));
        }
        let local = config.get_hosts().iter().all(is_local);
        let mode = mode.unwrap_or(if local { Mode::Clear } else { Mode::Verified });
        if mode == Mode::Verified && config.get_hosts().iter().any(|host| matches!(host, Host::Unix(_))) {
            return Err(wrong("it asks for TLS on a unix socket, which PostgreSQL does not offer; leave sslmode out"));
        }
        config.ssl_mode(if mode == Mode::Clear { SslMode::Disable } else { SslMode::Require });
        let tls = match mode {
            Mode::Clear => MakeTls::none(),
            Mode::Verified => MakeTls::verified(roots.as_deref().map(authorities).transpose()?)?,
        };
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(Duration::from_secs(5));
        }
        if config.get_application_name().is_none() {
            config.application_name("vmetald");
        }
        // A peer that is gone without a word must not hold a commit for minutes.
        config.keepalives_idle(Duration::from_secs(10));
        config.keepalives_interval(Duration::from_secs(5));
        config.keepalives_retries(3);
        config.tcp_user_timeout(Duration::from_secs(15));
        let shown = show(&config).into();
        Ok(Self { config, tls, shown })
    }

    /// The same address with a password that was kept elsewhere.
    #[must_use]
    pub fn with_password(mut self, password: &str) -> Self {
        self.config.password(password);
        self
    }
}

impl fmt::Display for PostgresUrl {
    /// The URL without password and options.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// What of the address operators see: itself a URL that PostgreSQL's tools take.
fn show(config: &tokio_postgres::Config) -> String {
    let port = |place: usize| config.get_ports().get(place).or(config.get_ports().first()).copied().unwrap_or(5432);
    let (mut hosts, mut sockets) = (Vec::new(), Vec::new());
    for (place, host) in config.get_hosts().iter().enumerate() {
        match host {
            Host::Tcp(name) if name.contains(':') => hosts.push(format!("[{name}]:{}", port(place))),
            Host::Tcp(name) => hosts.push(format!("{name}:{}", port(place))),
            Host::Unix(path) => sockets.push(format!("?host={}&port={}", path.display(), port(place))),
        }
    }
    let (user, database) = (config.get_user().unwrap_or_default(), config.get_dbname().unwrap_or_default());
    format!("postgres://{user}@{}/{database}{}", hosts.join(","), sockets.first().map_or("", String::as_str))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Clear,
    Verified,
}

impl Mode {
    fn parse(text: &str) -> Result<Self, OpenError> {
        match text {
            "disable" => Ok(Self::Clear),
            "require" | "verify-ca" | "verify-full" => Ok(Self::Verified),
            "allow" | "prefer" => Err(OpenError::Url {
                what: format!(
                    "sslmode={text} falls back to clear text without saying so; write sslmode=verify-full or sslmode=disable"
                ),
            }),
            _ => Err(OpenError::Url {
                what: "sslmode is not known; write sslmode=verify-full or sslmode=disable".into(),
            }),
        }
    }
}

fn is_local(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => name == "localhost" || name.parse().is_ok_and(|address: IpAddr| address.is_loopback()),
    }
}

/// `%XX` in the value of an option.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = after.get(..2).and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        match (first, escaped) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn authorities(path: &std::path::Path) -> Result<Vec<CertificateDer<'static>>, OpenError> {
    let pem = std::fs::read(path).map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(OpenError::Url { what: format!("sslrootcert {} holds no certificate in PEM", path.display()) }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn mode(url: &str) -> SslMode {
        PostgresUrl::parse(url).unwrap().config.get_ssl_mode()
    }

    #[test]
    fn clear_text_only_where_nobody_listens_or_where_it_is_asked_for() {
        assert_eq!(mode("postgres://u@/d?host=/run/postgresql"), SslMode::Disable);
        assert_eq!(mode("postgres://u@127.0.0.1/d"), SslMode::Disable);
        assert_eq!(mode("postgres://u@[::1]/d"), SslMode::Disable);
        assert_eq!(mode("postgres://u@db.example/d"), SslMode::Require);
        assert_eq!(mode("postgres://u@db.example/d?sslmode=disable"), SslMode::Disable);
        assert_eq!(mode("postgresql://u@127.0.0.1/d?sslmode=verify-full"), SslMode::Require);
        for (url, says) in [
            ("postgres://u@db.example/d?sslmode=prefer", "falls back to clear text"),
            ("postgres://u@/d?host=/run/postgresql&sslmode=require", "unix socket"),
            ("postgres://u@db.example/d?sslmode=yes", "sslmode is not known"),
            ("postgres://u@db.example/d?sslrootcert=/no/such/file", "/no/such/file"),
        ] {
            let error = PostgresUrl::parse(url).unwrap_err().to_string();
            assert!(error.contains(says), "{url}: {error}");
        }
    }

    #[test]
    fn nothing_shows_a_password() {
        let url =
            PostgresUrl::parse("postgres://vmetal:hunter2@db.example:5433,other.example/inventory?application_name=x");
        let url = url.unwrap().with_password("hunter3");
        let shown = format!("{url} {url:?}");
        assert!(shown.starts_with("postgres://vmetal@db.example:5433,other.example:5432/inventory "), "{shown}");
        assert!(!shown.contains("hunter"), "{shown}");
        for wrong in [
            "postgres://vmetal:hunter2@db.example:port/d",
            "postgres://vmetal:hunter2?x=hunter2@db.example/d",
            "postgres://vmetal:hunt?er2=hunter2@db.example/d",
            "mysql://vmetal:hunter2@db.example/d",
            "postgres://vmetal:hunter2@/d",
            "postgres://vmetal:hunter2@db.example",
        ] {
            let error = PostgresUrl::parse(wrong).unwrap_err();
            let mut said = format!("{error} {error:?}");
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                said += &format!(" {cause} {cause:?}");
                source = cause.source();
            }
            assert!(!said.contains("hunt") && !said.contains("er2"), "{wrong}: {said}");
        }
    }
}
