//! Looks whether a server is what its task needs, and says what to do where it is not.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::{Batch, Cmd, Deployment, Driver, DriverExt as _, ErrorKind, Reply};

/// How grave a finding is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, and something may go wrong later.
    Warning,
    /// What runs here loses state, or does not work at all.
    Failure,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warning => "warn",
            Self::Failure => "FAIL",
        })
    }
}

/// What one check found.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Finding {
    /// What was looked at, such as `eviction`.
    pub check: &'static str,
    /// How grave it is.
    pub level: Level,
    /// What is there.
    pub found: String,
    /// What to do, if anything.
    pub advice: Option<String>,
}

/// What was found at one place.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Checkup {
    /// The deployments that are there.
    pub deployments: Vec<Deployment>,
    /// One for each check.
    pub findings: Vec<Finding>,
}

impl Checkup {
    /// Returns the gravest level.
    #[must_use]
    pub fn worst(&self) -> Level {
        self.findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok)
    }
}

impl fmt::Display for Checkup {
    /// Writes a table, a line for each check, and what to do below it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.deployments.iter().map(|deployment| deployment.name()).collect();
        writeln!(f, "{}", names.join(", "))?;
        for Finding { check, level, found, advice } in &self.findings {
            writeln!(f, "  {level:<4}  {check:<13} {found}")?;
            if let Some(advice) = advice {
                writeln!(f, "                      -> {advice}")?;
            }
        }
        Ok(())
    }
}

/// Examines the server behind a driver for the deployments that are on it.
///
/// One round trip, and one that measures the time of an answer.
/// It changes nothing; what its user may not ask (`CONFIG`, `MODULE`, `ACL`) is told as a warning or left out.
/// On a cluster one of the nodes answers.
///
/// A server that cannot be reached is a finding and no error.
pub async fn examine(driver: &dyn Driver, deployments: &[Deployment]) -> Checkup {
    let mut doctor = Doctor { deployments, findings: Vec::new() };
    let start = Instant::now();
    if let Err(error) = driver.query::<Reply>(Cmd::new("PING")).await {
        let cause = std::error::Error::source(&error).map(|source| format!(": {source}"));
        doctor.fail(
            "reachable",
            format!("{error}{}", cause.unwrap_or_default()),
            "start the server, or correct its address, user and password",
        );
    } else {
        doctor.reachable(start.elapsed());
        doctor.look(driver).await;
    }
    Checkup { deployments: deployments.to_vec(), findings: doctor.findings }
}

struct Doctor<'d> {
    deployments: &'d [Deployment],
    findings: Vec<Finding>,
}

impl Doctor<'_> {
    async fn look(&mut self, driver: &dyn Driver) {
        let mut batch = Batch::new();
        let info = batch.push::<String>(Cmd::new("INFO").arg("everything"));
        let notify = Cmd::new("CONFIG").arg("GET").arg("notify-keyspace-events");
        let notify = batch.push::<Vec<String>>(notify);
        let who = batch.push::<String>(Cmd::new("ACL").arg("WHOAMI"));
        let time = batch.push::<Vec<String>>(Cmd::new("TIME"));
        let indexes = batch.push::<Vec<String>>(Cmd::new("FT._LIST"));
        let sent = SystemTime::now();
        let mut answers = match driver.run(batch).await {
            Ok(answers) => answers,
            Err(error) => {
                let advice = "look at the server's log";
                return self.fail("answers", error.to_string(), advice);
            }
        };
        let info = answers.take(info).unwrap_or_else(|error| {
            let advice = "give the doctor's user +info: most checks need it";
            self.warn("info", error.to_string(), advice);
            String::new()
        });
        let info = fields(&info);
        if !info.is_empty() {
            self.version(&info);
            self.eviction(&info);
            self.memory(&info);
            self.persistence(&info);
            self.role(&info);
        }
        if self.deployments.iter().any(|deployment| deployment.needs_search()) {
            // Whoever may not ask for the list of indexes still sees that the command is there.
            match answers.take(indexes) {
                Ok(found) => self.ok("search", format!("{} indexes", found.len())),
                Err(error) if error.kind() == ErrorKind::Auth => {
                    self.ok("search", "there, and this user may not list indexes".to_owned());
                }
                Err(_) => self.fail(
                    "search",
                    "the server has no FT.* commands".to_owned(),
                    "use Redis 8, or load RediSearch 2.8 or later",
                ),
            }
        }
        if let Ok(notify) = answers.take(notify) {
            // The family waits with blocking reads, never for notifications.
            match notify.get(1).map(String::as_str).unwrap_or_default() {
                "" => self.ok("notifications", "off".to_owned()),
                events => self.warn(
                    "notifications",
                    format!("on: {events}"),
                    "nothing here needs them; CONFIG SET notify-keyspace-events \"\" saves CPU",
                ),
            }
        }
        match answers.take(who) {
            Ok(user) if user == "default" => self.warn(
                "user",
                "the default user, who may do everything".to_owned(),
                "make users with the rules of each crate's key table (ACL SETUSER)",
            ),
            Ok(user) => self.ok("user", user),
            Err(_) => self.ok("user", "one who may not ask who it is".to_owned()),
        }
        if let Ok(time) = answers.take(time) {
            self.clock(&time, sent);
        }
    }

    fn reachable(&mut self, took: Duration) {
        let found = format!("answers in {:.1} ms", took.as_secs_f64() * 1e3);
        match took < Duration::from_millis(50) {
            true => self.ok("reachable", found),
            false => {
                self.warn(
                    "reachable",
                    found,
                    "put the server next to the service: every call waits",
                );
            }
        }
    }

    fn version(&mut self, info: &BTreeMap<&str, &str>) {
        let (name, version, least) = match info.get("valkey_version") {
            Some(version) => ("Valkey", *version, [8, 0]),
            None => ("Redis", info.get("redis_version").copied().unwrap_or("?"), [7, 2]),
        };
        let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        let is = [parts.next().unwrap_or(0), parts.next().unwrap_or(0)];
        let found = format!("{name} {version}");
        match least <= is {
            true => self.ok("version", found),
            false => self.fail("version", found, "use Redis 7.2 or later, or Valkey 8 or later"),
        }
    }

    fn eviction(&mut self, info: &BTreeMap<&str, &str>) {
        let policy = info.get("maxmemory_policy").copied().unwrap_or("?");
        // Where deployments share a server, what must not be lost decides.
        let strict =
            self.deployments.iter().find(|deployment| deployment.eviction_policy() == "noeviction");
        let found = policy.to_owned();
        match strict {
            Some(deployment) if policy != "noeviction" => self.fail(
                "eviction",
                found,
                &format!("CONFIG SET maxmemory-policy noeviction: {deployment} must not vanish"),
            ),
            Some(_) => self.ok("eviction", found),
            None if policy == "noeviction" => self.warn(
                "eviction",
                found,
                "CONFIG SET maxmemory-policy allkeys-lfu: a full cache refuses what is new",
            ),
            None => self.ok("eviction", found),
        }
    }

    fn memory(&mut self, info: &BTreeMap<&str, &str>) {
        let number = |name: &str| info.get(name).and_then(|value| value.parse::<u64>().ok());
        let used = number("used_memory").unwrap_or(0);
        let mebi = |bytes: u64| bytes / (1024 * 1024);
        match number("maxmemory") {
            None | Some(0) => self.warn(
                "memory",
                format!("{} MiB, without a limit", mebi(used)),
                "CONFIG SET maxmemory: without it the machine runs out of memory first",
            ),
            Some(most) => {
                let found = format!("{} of {} MiB", mebi(used), mebi(most));
                let evicts = info.get("maxmemory_policy") != Some(&"noeviction");
                match u128::from(used) * 10 < u128::from(most) * 9 || evicts {
                    true => self.ok("memory", found),
                    false => {
                        self.warn("memory", found, "raise maxmemory before writes are refused");
                    }
                }
            }
        }
    }

    fn persistence(&mut self, info: &BTreeMap<&str, &str>) {
        let is = |name: &str, value: &str| info.get(name) == Some(&value);
        for (status, what) in
            [("aof_last_write_status", "append-only file"), ("rdb_last_bgsave_status", "snapshot")]
        {
            if is(status, "err") {
                let found = format!("the last {what} could not be written");
                return self.fail("persistence", found, "look at the disk: writes will be refused");
            }
        }
        let must = self.deployments.iter().find(|deployment| deployment.needs_persistence());
        match (is("aof_enabled", "1"), must) {
            (true, _) => self.ok("persistence", "append-only file".to_owned()),
            (false, None) => {
                self.ok("persistence", "none, which a cache can do without".to_owned());
            }
            (false, Some(deployment)) => self.warn(
                "persistence",
                "no append-only file".to_owned(),
                &format!("CONFIG SET appendonly yes: a restart forgets {deployment}"),
            ),
        }
    }

    fn role(&mut self, info: &BTreeMap<&str, &str>) {
        let role = info.get("role").copied().unwrap_or("?");
        let clustered = info.get("cluster_enabled") == Some(&"1");
        let found = if clustered { format!("{role} of a cluster") } else { role.to_owned() };
        match (role, info.get("master_link_status").copied()) {
            ("slave", Some("up")) if clustered => self.ok("role", found),
            ("slave", Some("up") | None) => {
                self.fail(
                    "role",
                    found,
                    "give the address of the primary: a replica takes no writes",
                );
            }
            ("slave", Some(link)) => {
                let found = format!("{found}, its link is {link}");
                self.fail("role", found, "look why the replica lost its primary");
            }
            _ => self.ok("role", found),
        }
    }

    fn clock(&mut self, time: &[String], sent: SystemTime) {
        let theirs = time.first().and_then(|seconds| seconds.parse::<u64>().ok());
        let ours = sent.duration_since(UNIX_EPOCH).map(|time| time.as_secs());
        let (Some(theirs), Ok(ours)) = (theirs, ours) else { return };
        let apart = theirs.abs_diff(ours);
        match apart {
            0..=2 => self.ok("clock", "as ours".to_owned()),
            _ => self.warn(
                "clock",
                format!("{apart} s from ours"),
                "let NTP set both: the server's clock decides, and ours is in logs and event times",
            ),
        }
    }

    fn ok(&mut self, check: &'static str, found: String) {
        self.findings.push(Finding { check, level: Level::Ok, found, advice: None });
    }

    fn warn(&mut self, check: &'static str, found: String, advice: &str) {
        let advice = Some(advice.to_owned());
        self.findings.push(Finding { check, level: Level::Warning, found, advice });
    }

    fn fail(&mut self, check: &'static str, found: String, advice: &str) {
        let advice = Some(advice.to_owned());
        self.findings.push(Finding { check, level: Level::Failure, found, advice });
    }
}

/// Reads the lines `name:value` of `INFO`.
fn fields(info: &str) -> BTreeMap<&str, &str> {
    info.lines().filter_map(|line| line.split_once(':')).collect()
}
