use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use inferkit_core::keys::{Key, Namespace};
use inferkit_core::{Cmd, DriverExt as _, DynDriver, Script};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::error::check_name;
use crate::ids::Ids;
use crate::{Error, Result};

static SCRIPT: Script =
    Script::new(concat!("#!lua flags=allow-oom\n", include_str!("scripts/instances.lua")));

/// How often an instance says that it lives, and for how long that counts.
const BEAT: Duration = Duration::from_secs(5);
const LIFE: Duration = Duration::from_secs(15);

/// How many instances of a service live, for what each of them may pass while the server is away.
///
/// Cloning is cheap, and clones count together.
#[derive(Clone)]
pub struct Instances {
    count: Arc<AtomicU64>,
    beating: Option<Arc<Beating>>,
}

struct Beating {
    driver: DynDriver,
    key: Key,
    id: Arc<str>,
    closed: watch::Sender<bool>,
}

impl Instances {
    /// A number that the operator knows; at least 1.
    #[must_use]
    pub fn fixed(count: u64) -> Self {
        Self { count: Arc::new(AtomicU64::new(count.max(1))), beating: None }
    }

    /// Counts the instances that [`run`](Self::run) under the same name; nothing is sent before.
    ///
    /// Until the first answer, one; while the server is away, as many as there were.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`].
    pub fn counted(driver: DynDriver, namespace: &Namespace, service: &str) -> Result<Self> {
        check_name("service", service)?;
        let key = namespace.family("rl").tag(service).literal("instances").build();
        let beating =
            Beating { driver, key, id: Ids::new().make(), closed: watch::Sender::new(false) };
        Ok(Self { beating: Some(Arc::new(beating)), ..Self::fixed(1) })
    }

    /// Returns how many live; at least 1.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Says every 5 seconds that this instance lives, by one `EVALSHA`; others count it for 15 seconds.
    ///
    /// Spawn it. It ends after [`leave`](Self::leave), and at once if the number is fixed.
    ///
    /// # Cancel safety
    ///
    /// It can be aborted and run again at any time.
    pub fn run(&self) -> impl Future<Output = ()> + Send + 'static {
        let (count, beating) = (Arc::clone(&self.count), self.beating.clone());
        async move {
            let Some(beating) = beating else { return };
            let mut closed = beating.closed.subscribe();
            while !*closed.borrow_and_update() {
                match beating.say(LIFE).await {
                    Ok(living) => count.store(living.max(1), Ordering::Relaxed),
                    Err(error) => tracing::debug!(%error, "instances are not counted"),
                }
                let _ = timeout(BEAT, closed.changed()).await;
            }
        }
    }

    /// Says that this instance ends, so that the others need not find out: one `EVALSHA`.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`]; it counts for up to 15 seconds then.
    pub async fn leave(&self) -> Result<()> {
        let Some(beating) = &self.beating else { return Ok(()) };
        beating.closed.send_replace(true);
        beating.say(Duration::ZERO).await.map(drop)
    }
}

impl Beating {
    async fn say(&self, life: Duration) -> Result<u64> {
        let cmd = Cmd::eval(&SCRIPT, &[&self.key]).arg(&*self.id).arg(life.as_millis().to_string());
        self.driver.query(cmd.idempotent()).await.map_err(Error::from)
    }
}

impl fmt::Debug for Instances {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instances").field("count", &self.count()).finish_non_exhaustive()
    }
}
