//! What the gateway is told: by a TOML file, or by nothing at all.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

use inferkit::core::Deployment;
use inferkit::ratelimit::Plan;
use inferkit_examples::Result;
use serde::Deserialize;

/// The whole of it; every part has a default, so that an empty file is a gateway for trying out.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) listen: SocketAddr,
    /// What all keys begin with.
    pub(crate) namespace: String,
    pub(crate) redis: Redis,
    pub(crate) models: Vec<Model>,
    pub(crate) keys: Vec<Key>,
    pub(crate) limits: Limits,
    pub(crate) cache: Cache,
    /// An HTTP endpoint that scores candidates for `/v1/recommend`; without it a small scorer in the process does.
    pub(crate) scorer: Option<String>,
    /// Whether the page at `/` is served, and shows the beginnings of prompts.
    pub(crate) dashboard: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            namespace: "gateway".to_owned(),
            redis: Redis::default(),
            models: Vec::new(),
            keys: [("sk-demo-free", "ann", "free"), ("sk-demo-pro", "bea", "pro")]
                .into_iter()
                .chain([("sk-demo-enterprise", "corp", "enterprise")])
                .map(|(key, name, plan)| Key {
                    key: Secret(key.to_owned()),
                    name: name.to_owned(),
                    tenant: "demo".to_owned(),
                    plan: plan.to_owned(),
                    requests_per_minute: None,
                })
                .collect(),
            limits: Limits::default(),
            cache: Cache::default(),
            scorer: None,
            dashboard: true,
        }
    }
}

/// Where Redis is: one URL for all, and others for deployments that have their own server.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Redis {
    /// Without it a server is started, which ends with the gateway.
    pub(crate) url: Option<Secret>,
    /// `caches`, `features`, `search`, `coordination` or `events`.
    #[serde(flatten)]
    pub(crate) deployments: BTreeMap<String, Secret>,
}

/// A model that callers may name, and who answers for it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Model {
    pub(crate) name: String,
    /// For all callers together; none if not given.
    pub(crate) requests_per_minute: Option<u64>,
    /// Dollars for a thousand tokens, in and out.
    pub(crate) prices: Option<[f64; 2]>,
    pub(crate) upstreams: Vec<Upstream>,
}

/// An OpenAI-compatible endpoint.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Upstream {
    pub(crate) name: String,
    /// Such as `https://api.openai.com/v1`.
    pub(crate) url: String,
    /// The name of the model there.
    pub(crate) model: String,
    /// The variable of the environment that holds its key.
    pub(crate) api_key_env: Option<String>,
    /// Its share of 10 000 callers; the first one has what is left.
    #[serde(default)]
    pub(crate) share: u32,
}

/// A caller.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Key {
    pub(crate) key: Secret,
    /// What logs and limits call it.
    pub(crate) name: String,
    /// Answers and sessions are shared within a tenant, and never beyond.
    pub(crate) tenant: String,
    /// `free`, `pro` or `enterprise`.
    pub(crate) plan: String,
    /// Instead of the plan's number.
    #[serde(default)]
    pub(crate) requests_per_minute: Option<u64>,
}

impl Key {
    /// # Errors
    ///
    /// If there is no such plan.
    pub(crate) fn plan(&self) -> Result<Plan> {
        let mut plan = match self.plan.as_str() {
            "free" => Plan::FREE,
            "pro" => Plan::PRO,
            "enterprise" => Plan::ENTERPRISE,
            other => {
                let detail = format!("there is no plan {other:?}: take free, pro or enterprise");
                return Err(detail.into());
            }
        };
        plan.requests_per_minute = self.requests_per_minute.unwrap_or(plan.requests_per_minute);
        Ok(plan)
    }
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Limits {
    pub(crate) when_redis_fails: WhenRedisFails,
    /// Generations at work at the same time, over all gateways.
    pub(crate) gpu_slots: u64,
    /// What an answer is expected to take until the model's answers are known.
    pub(crate) expected_tokens: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { when_redis_fails: WhenRedisFails::Local, gpu_slots: 8, expected_tokens: 256 }
    }
}

/// What becomes of limits while their server cannot be reached.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum WhenRedisFails {
    /// Nobody is limited.
    Open,
    /// Nobody is admitted.
    Closed,
    /// Each gateway limits by itself.
    Local,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Cache {
    /// How similar a question must be to take another's answer.
    pub(crate) threshold: f64,
    /// Prompts longer than this use the exact tier only.
    pub(crate) max_prompt_bytes: usize,
}

impl Default for Cache {
    fn default() -> Self {
        // MiniLM reads 256 tokens; what comes after them would not count.
        Self { threshold: 0.93, max_prompt_bytes: 768 }
    }
}

/// A text that `Debug` does not show.
#[derive(Clone, Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(pub(crate) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl Config {
    /// Reads a file, or takes the defaults and what the environment says.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or says what cannot be.
    pub(crate) fn load(path: Option<&Path>) -> Result<Self> {
        let mut config = match path {
            Some(path) => {
                let name = path.display();
                let text = std::fs::read_to_string(path)
                    .map_err(|error| format!("cannot read {name}: {error}"))?;
                toml::from_str(&text).map_err(|error| format!("{name}: {error}"))?
            }
            None => Self::default(),
        };
        // An empty variable is what is left of one that somebody wanted to unset.
        let variable =
            |name: &str| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
        if config.redis.url.is_none() {
            config.redis.url = variable("INFERKIT_REDIS_URL").map(Secret);
        }
        for deployment in Deployment::ALL {
            let name = deployment.name();
            let url = variable(&format!("INFERKIT_REDIS_{}_URL", name.to_uppercase()));
            if let Some(url) = url {
                config.redis.deployments.entry(name.to_owned()).or_insert(Secret(url));
            }
        }
        let endpoint = variable("OPENAI_BASE_URL")
            .or_else(|| variable("OPENAI_API_KEY").map(|_| "https://api.openai.com/v1".to_owned()));
        if let (true, Some(url)) = (config.models.is_empty(), endpoint) {
            let model = variable("OPENAI_MODEL").unwrap_or_else(|| "gpt-4o-mini".to_owned());
            let upstream = Upstream {
                name: "openai".to_owned(),
                url,
                model: model.clone(),
                api_key_env: Some("OPENAI_API_KEY".to_owned()),
                share: 0,
            };
            config.models.push(Model {
                name: model,
                requests_per_minute: None,
                prices: None,
                upstreams: vec![upstream],
            });
        }
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        if self.keys.is_empty() {
            return Err("no [[keys]]: nobody could ask".into());
        }
        let (mut keys, mut names) = (HashSet::new(), HashSet::new());
        for key in &self.keys {
            key.plan()?;
            // Sessions are `tenant/name`: with a slash in a tenant two of them could meet.
            if key.tenant.contains('/') || key.name.contains('/') {
                return Err(
                    format!("the key of {:?} has a '/' in its name or tenant", key.name).into()
                );
            }
            if !keys.insert(&key.key.0) || !names.insert(&key.name) {
                return Err(
                    format!("two [[keys]] have the key or the name of {:?}", key.name).into()
                );
            }
            if key.key.0.is_empty() || key.name.is_empty() || key.tenant.is_empty() {
                return Err(
                    format!("the key of {:?} lacks its key, name or tenant", key.name).into()
                );
            }
        }
        for model in &self.models {
            if model.upstreams.is_empty() {
                return Err(format!("the model {:?} has no upstream", model.name).into());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_a_gateway_and_a_wrong_word_is_named() {
        let config: Config = toml::from_str("").unwrap();
        config.check().unwrap();
        assert_eq!(config.keys.len(), 3);
        let error = toml::from_str::<Config>("listn = \"127.0.0.1:1\"").unwrap_err().to_string();
        assert!(error.contains("listn"), "{error}");
        let key = "[[keys]]\nkey='a'\nname='b'\ntenant='c'\nplan='gold'";
        let error = toml::from_str::<Config>(key).unwrap().check().unwrap_err().to_string();
        assert!(error.contains("gold"), "{error}");
        let checked = |text: &str| {
            toml::from_str::<Config>(text).unwrap().check().map_err(|error| error.to_string())
        };
        let key = |key: &str, name: &str, tenant: &str| {
            format!("[[keys]]\nkey={key:?}\nname={name:?}\ntenant={tenant:?}\nplan='pro'\n")
        };
        checked(&(key("a", "ann", "acme") + &key("b", "bob", "acme"))).unwrap();
        for wrong in [
            key("a", "ann", "acme/x"),
            key("a", "ann/x", "acme"),
            key("a", "ann", "acme") + &key("a", "bob", "acme"),
            key("a", "ann", "acme") + &key("b", "ann", "other"),
        ] {
            checked(&wrong).unwrap_err();
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let text = "[redis]\nurl='redis://:hunter2@host'\ncaches='redis://:hunter2@other'";
        let config: Config = toml::from_str(text).unwrap();
        assert_eq!(config.redis.deployments.len(), 1);
        assert!(!format!("{config:?}").contains("hunter2"));
        assert!(!format!("{config:?}").contains("sk-demo"));
    }
}
