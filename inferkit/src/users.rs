//! Users of the server who may do what their crate does, and nothing else.
//!
//! The rules are made from the key tables of the crates: the keys of their families and the commands that are used on
//! them.
//! Users at run time make, change and drop no index; [`admin`] makes one who does, because who makes an index reads keys
//! under any prefix through it.
//!
//! `deploy/` holds the files for each deployment that are made from this.

use std::collections::BTreeSet;
use std::fmt;

use inferkit_core::keys::{KeyFamily, Namespace, acl};
use inferkit_core::{Cmd, Deployment, LEASE_KEYS};

/// The commands that change indexes; users at run time have none of them.
const INDEX_COMMANDS: [&str; 6] =
    ["+ft.create", "+ft.alter", "+ft.dropindex", "+ft.aliasadd", "+ft.aliasupdate", "+ft.aliasdel"];

/// A user, without a password.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct User {
    /// The name, which is that of the crate.
    pub name: String,
    /// Where the user is needed.
    pub deployments: Vec<Deployment>,
    /// What the user may do, as `ACL SETUSER` takes it; keys first.
    pub rules: Vec<String>,
}

impl User {
    /// Makes a user of a crate's key table, who may not change indexes.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        deployments: &[Deployment],
        tables: &[&[KeyFamily]],
        namespace: &Namespace,
    ) -> Self {
        let rows: Vec<KeyFamily> = tables.iter().flat_map(|table| table.iter().copied()).collect();
        let mut rules = acl(&rows, namespace);
        rules.retain(|rule| !INDEX_COMMANDS.contains(&rule.as_str()));
        Self { name: name.into(), deployments: deployments.to_vec(), rules }
    }

    /// Makes a user who may do what each of `users` may: for a service that uses several crates.
    #[must_use]
    pub fn joined(name: impl Into<String>, users: &[Self]) -> Self {
        let (mut rules, mut deployments) = (Vec::new(), BTreeSet::new());
        for user in users {
            deployments.extend(&user.deployments);
            for rule in &user.rules {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
        // Keys first, as a person reads it.
        rules.sort_by_key(|rule| !rule.starts_with('~'));
        Self { name: name.into(), deployments: deployments.into_iter().collect(), rules }
    }

    /// Lets the user use the documents under a prefix too, and search an index or an alias.
    ///
    /// The server takes the names of indexes for keys.
    #[must_use]
    pub fn with_index(mut self, prefix: &str, index: &str) -> Self {
        self.rules.insert(0, format!("~{index}"));
        self.rules.insert(0, format!("~{prefix}*"));
        self
    }

    /// Returns the command that makes the user, or makes it anew.
    #[must_use]
    pub fn to_cmd(&self, password: &str) -> Cmd {
        let cmd = Cmd::new("ACL").arg("SETUSER").arg(&*self.name);
        let cmd = cmd.arg("reset").arg("on").arg(format!(">{password}"));
        cmd.args(self.rules.iter().map(String::as_str))
    }
}

impl fmt::Display for User {
    /// Writes a line of an ACL file; `PASSWORD_DIGEST` is to be replaced by the SHA-256 of the password in hex.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "user {} on #PASSWORD_DIGEST resetchannels -@all {}",
            self.name,
            self.rules.join(" ")
        )
    }
}

/// Returns a user for each crate that is compiled in, for the keys under `namespace`.
///
/// That of `vectorsearch` has no keys yet, since they are the caller's: see [`User::with_index`].
#[must_use]
pub fn runtime(namespace: &Namespace) -> Vec<User> {
    let mut users = Vec::new();
    let mut add = |name: &str, deployments: &[Deployment], tables: &[&[KeyFamily]]| {
        users.push(User::new(name, deployments, tables, namespace));
    };
    #[cfg(feature = "semcache")]
    add("semcache", &[Deployment::Caches], &[inferkit_semcache::KEYS, LEASE_KEYS]);
    #[cfg(feature = "embcache")]
    add("embcache", &[Deployment::Caches], &[inferkit_embcache::KEYS]);
    #[cfg(feature = "featurestore")]
    add("featurestore", &[Deployment::Features], &[inferkit_featurestore::KEYS]);
    #[cfg(feature = "ratelimit")]
    add("ratelimit", &[Deployment::Coordination], &[inferkit_ratelimit::KEYS]);
    #[cfg(feature = "chatsession")]
    add("chatsession", &[Deployment::Coordination], &[inferkit_chatsession::KEYS, LEASE_KEYS]);
    #[cfg(feature = "modelserve")]
    add(
        "modelserve",
        &[Deployment::Caches, Deployment::Coordination],
        &[inferkit_modelserve::KEYS],
    );
    #[cfg(feature = "mlevents")]
    add("mlevents", &[Deployment::Events], &[inferkit_mlevents::KEYS, LEASE_KEYS]);
    add("leases", &[Deployment::Coordination], &[LEASE_KEYS]);
    #[cfg(feature = "vectorsearch")]
    {
        let mut user = User::new(
            "vectorsearch",
            &[Deployment::Search],
            &[inferkit_vectorsearch::KEYS],
            namespace,
        );
        user.rules.retain(|rule| !rule.starts_with('~'));
        users.push(user);
    }
    users
}

/// Returns the user who makes, changes and drops indexes, and cannot read or write documents but through them.
#[must_use]
pub fn admin() -> User {
    let mut rules = vec!["~*".to_owned()];
    rules.extend(INDEX_COMMANDS.map(str::to_owned));
    rules.extend(["+ft.info", "+ft.search", "+ft._list"].map(str::to_owned));
    // What the pool itself sends.
    rules.extend(["+hello", "+client", "+ping", "+role", "+info"].map(str::to_owned));
    let deployments = vec![Deployment::Caches, Deployment::Search];
    User { name: "index-admin".to_owned(), deployments, rules }
}
