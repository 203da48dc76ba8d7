//! The engine as a process of its own, and what it costs.

#![allow(clippy::disallowed_methods, reason = "starts real processes and waits for them in real time")]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Seconds of processor time, and memory, of a process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    /// User and system time, seconds.
    pub cpu: f64,
    /// Resident memory, KiB.
    pub resident_kib: u64,
}

/// What a process has cost so far; zero when it is gone.
pub fn cost(pid: Option<u32>) -> Cost {
    let of = pid.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{of}/{file}")).unwrap_or_default();
    // proc(5): utime and stime are the 14th and 15th field, in clock ticks; the second may hold spaces.
    let stat = read("stat");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: f64 = fields.iter().skip(11).take(2).filter_map(|text| text.parse::<f64>().ok()).sum();
    let status = read("status");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident_kib = resident.and_then(|text| text.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0);
    // USER_HZ is 100 on every architecture that Rust's standard library supports on Linux.
    Cost { cpu: ticks / 100.0, resident_kib }
}

/// Every process with its parent. (A list of a process' children is something that not every kernel has.)
fn parents() -> Vec<(u32, u32)> {
    let parent = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // proc(5): after the name, which may hold anything, come the state and the parent.
        stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()
    };
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, parent(pid)?))).collect()
}

/// A child process that ends with its owner: with the bench's own end, even by SIGKILL, the kernel ends it. To be started from
/// the main thread, whose end is the process' end.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program with its output in `<directory>/<name>.log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &str, directory: &Path, program: &Path, arguments: &[&str]) -> Result<Self> {
        Self::start_with(name, directory, program, arguments, &[])
    }

    /// As [`Process::start`], with these variables in its environment.
    ///
    /// # Errors
    /// As [`Process::start`].
    pub fn start_with(
        name: &str,
        directory: &Path,
        program: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let log = directory.join(format!("{name}.log"));
        let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Process { name: name.to_owned(), child, log })
    }

    /// What it has cost so far.
    pub fn cost(&self) -> Cost {
        cost(Some(self.child.id()))
    }

    /// What it has cost so far, with every process below it.
    pub fn cost_of_all(&self) -> Cost {
        let parents = parents();
        let mut all = vec![self.child.id()];
        let mut next = 0;
        while let Some(pid) = all.get(next).copied() {
            next += 1;
            all.extend(parents.iter().filter(|(_, parent)| *parent == pid).map(|(child, _)| *child));
        }
        all.into_iter().map(|pid| cost(Some(pid))).fold(Cost::default(), |sum, one| Cost {
            cpu: sum.cpu + one.cpu,
            resident_kib: sum.resident_kib + one.resident_kib,
        })
    }

    /// What it wrote so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Fails, with the end of its log, when it has ended.
    ///
    /// # Errors
    /// When it has ended.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(self.ended(status)),
        }
    }

    fn ended(&self, status: ExitStatus) -> anyhow::Error {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(20)..].join("\n");
        anyhow!("{} ended with {status}:\n{end}", self.name)
    }

    /// Waits until it has ended well.
    ///
    /// # Errors
    /// When it fails, or is still at it when the time is over.
    pub async fn succeed(mut self, within: Duration) -> Result<()> {
        let begin = Instant::now();
        loop {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(self.ended(status)),
                None if begin.elapsed() > within => {
                    bail!("{} had not ended after {within:?}:\n{}", self.name, self.log());
                }
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Waits until its log says that it is ready.
    ///
    /// # Errors
    /// When it ends, or is not ready in time.
    pub async fn ready(&mut self, word: &str, within: Duration) -> Result<()> {
        let begin = Instant::now();
        while !self.log().contains(word) {
            self.check()?;
            if begin.elapsed() > within {
                bail!("{} was not ready within {within:?}; its log is {}", self.name, self.log.display());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX));
        let _ = kill(pid, Signal::SIGTERM);
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(3) {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[tokio::test]
    async fn what_a_process_started_counts_with_it() {
        let directory = tempfile::tempdir().unwrap();
        // Two shells, of which the inner one keeps a processor busy until it is ended.
        let script = "sh -c 'while :; do :; done' & wait";
        let busy = Process::start("busy", directory.path(), Path::new("sh"), &["-c", script]).unwrap();
        let begin = Instant::now();
        while busy.cost_of_all().cpu < busy.cost().cpu + 0.05 {
            assert!(begin.elapsed() < Duration::from_secs(30), "{:?} {:?}", busy.cost(), busy.cost_of_all());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let inner: Vec<u32> =
            parents().into_iter().filter(|(_, up)| *up == busy.child.id()).map(|(pid, _)| pid).collect();
        for pid in inner {
            kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL).unwrap();
        }
    }

    #[tokio::test]
    async fn a_program_that_fails_says_what_it_wrote() {
        let directory = tempfile::tempdir().unwrap();
        let run = |script| Process::start("it", directory.path(), Path::new("sh"), &["-c", script]).unwrap();
        run("exit 0").succeed(Duration::from_secs(30)).await.unwrap();
        let error = run("echo why; exit 3").succeed(Duration::from_secs(30)).await.unwrap_err().to_string();
        assert!(error.contains("why") && error.contains('3'), "{error}");
    }
}
