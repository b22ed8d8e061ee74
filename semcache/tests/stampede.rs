//! Many processes ask the same new question: real processes, which run this very program again.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::collections::HashSet;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use inferkit_core::keys::Namespace;
use inferkit_core::{Cmd, DriverExt as _, DynDriver};
use inferkit_localredis::{Flavor, Server, unique_prefix};
use inferkit_semcache::{Coalescer, RedisFlights, SemanticCache};
use support::{answer, request};

const PROCESSES: usize = 4;
const TASKS: usize = 16;
/// Names the server and the namespace to a process that works.
const WORK: &str = "INFERKIT_STAMPEDE";
const PATIENCE: Duration = Duration::from_secs(60);

/// What a process does: all its tasks ask the same question, and an answer takes until the test says so.
///
/// Without the variable it is no process of a test, and has nothing to do.
#[tokio::test(flavor = "multi_thread")]
async fn one_process_of_many() {
    let Ok(work) = std::env::var(WORK) else { return };
    let (url, namespace) = work.split_once(' ').unwrap();
    let pool = support::pool_of(url).await;
    let driver = pool.clone().into_driver();
    let config = support::config().with_namespace(Namespace::new(namespace).unwrap());
    let namespace = config.namespace.clone();
    let cache: Arc<dyn SemanticCache> = Arc::new(support::cache(Arc::clone(&driver), config).await);
    let flights = RedisFlights::new(Arc::clone(&driver), Arc::new(pool), namespace.clone());
    let coalescer = Coalescer::new(cache).across(flights).with_lease(Duration::from_secs(1));
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let (coalescer, driver) = (coalescer.clone(), Arc::clone(&driver));
            let key = |name| format!("{namespace}:{name}");
            let [count, owner, go] = [key("generations"), key("owner"), key("go")];
            tokio::spawn(async move {
                let generate = || async move {
                    let number: u64 = driver.query(Cmd::new("INCR").key(count)).await?;
                    let set = Cmd::new("SET").key(owner).arg(u64::from(std::process::id()));
                    driver.query::<()>(set).await?;
                    let go = || driver.query::<Option<String>>(Cmd::new("GET").key(&go));
                    while go().await?.is_none() {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                    Ok::<_, inferkit_core::Error>(answer(&format!("answer {number}")))
                };
                coalescer.get_or_generate(&request("1@0"), generate).await.unwrap()
            })
        })
        .collect();
    for task in tasks {
        let served = task.await.unwrap();
        println!("\nSERVED {} {}", served.source, served.answer.text().unwrap());
    }
}

struct Scene {
    _server: Server,
    driver: DynDriver,
    namespace: String,
    processes: Vec<Child>,
}

impl Scene {
    async fn start(flavor: Flavor) -> Self {
        let server = Server::start(flavor).unwrap();
        let driver = support::pool(server.url()).await;
        let namespace = unique_prefix();
        let config = support::config().with_namespace(Namespace::new(&namespace).unwrap());
        support::cache(Arc::clone(&driver), config).await;
        let work = format!("{} {namespace}", server.url());
        let processes = (0..PROCESSES).map(|_| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "one_process_of_many", "--nocapture"])
                .env(WORK, &work)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        });
        Self { processes: processes.collect(), _server: server, driver, namespace }
    }

    async fn number(&self, name: &str) -> u64 {
        let cmd = Cmd::new("GET").key(format!("{}:{name}", self.namespace));
        self.driver.query::<Option<u64>>(cmd).await.unwrap().unwrap_or(0)
    }

    /// Waits until so many answers were begun, and so many processes wait at the server.
    async fn until(&self, generations: u64, waiting: usize) {
        let start = Instant::now();
        loop {
            let info = support::text(&self.driver, Cmd::new("INFO").arg("clients")).await;
            let blocked = info.lines().find_map(|line| line.strip_prefix("blocked_clients:"));
            let blocked: usize = blocked.unwrap().trim().parse().unwrap();
            if self.number("generations").await == generations && blocked == waiting {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{generations} generations, {waiting} waiting");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Lets the answer be given, and returns what the tasks of all processes were served.
    async fn go(&mut self) -> Vec<String> {
        let cmd = Cmd::new("SET").key(format!("{}:go", self.namespace)).arg("1");
        self.driver.query::<()>(cmd).await.unwrap();
        let mut served = Vec::new();
        for process in std::mem::take(&mut self.processes) {
            let waiting = tokio::task::spawn_blocking(|| process.wait_with_output().unwrap());
            let output = waiting.await.unwrap();
            assert!(output.status.success());
            let text = String::from_utf8(output.stdout).unwrap();
            let lines = text.lines().filter_map(|line| line.strip_prefix("SERVED "));
            served.extend(lines.map(ToOwned::to_owned));
        }
        served
    }
}

impl Drop for Scene {
    /// A test that fails leaves no process behind.
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn check(served: &[String], processes: usize, answer: &str) {
    assert_eq!(served.len(), processes * TASKS);
    let different: HashSet<String> = served.iter().cloned().collect();
    let expected = ["generated", "shared"].map(|source| format!("{source} {answer}"));
    assert_eq!(different, HashSet::from(expected));
    let generated = served.iter().filter(|line| line.starts_with("generated")).count();
    assert_eq!(generated, 1, "only one says that it was its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_tasks_in_four_processes_cause_one_generation() {
    for flavor in [Flavor::Redis, Flavor::Valkey] {
        let mut scene = Scene::start(flavor).await;
        scene.until(1, PROCESSES - 1).await;
        let served = scene.go().await;
        assert_eq!(scene.number("generations").await, 1, "{flavor:?}");
        check(&served, PROCESSES, "answer 1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_owner_causes_one_more() {
    for flavor in [Flavor::Redis, Flavor::Valkey] {
        let mut scene = Scene::start(flavor).await;
        scene.until(1, PROCESSES - 1).await;
        let owner = scene.number("owner").await;
        let place =
            scene.processes.iter().position(|child| u64::from(child.id()) == owner).unwrap();
        let mut process = scene.processes.swap_remove(place);
        process.kill().unwrap();
        process.wait().unwrap();
        scene.until(2, PROCESSES - 2).await;
        assert_ne!(scene.number("owner").await, owner);
        let served = scene.go().await;
        assert_eq!(scene.number("generations").await, 2, "{flavor:?}");
        check(&served, PROCESSES - 1, "answer 2");
    }
}
