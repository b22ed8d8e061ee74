//! Conversations that end in a SQL database.
//!
//! `cargo run -p inferkit-examples --example sql_archive -- [FILE]`: a conversation on a Redis server is archived in the SQLite
//! database FILE as soon as it is idle, deleted from Redis when its time is over, read back and at last erased with its user.
//! Without FILE the database is in memory.

#![expect(clippy::print_stdout, reason = "a terminal program talks to its user")]

mod archive;

use std::sync::Arc;
use std::time::Duration;

use inferkit::chatsession::{
    Append, Archive as _, Config, Janitor, Lifetime, Message, NewSession, RedisSessionStore,
    SessionId, SessionStore as _, SessionStoreExt as _, Swept, UserId,
};
use inferkit::core::Pool;
use inferkit_localredis::{Flavor, Server};

use archive::SqlArchive;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Result<()> {
    let path = std::env::args().nth(1).unwrap_or_else(|| ":memory:".to_owned());
    // The server lives as long as this value.
    let server = tokio::task::spawn_blocking(|| Server::start(Flavor::Plain)).await??;
    let driver = Pool::connect(server.url()).await?.into_driver();
    // Short times, so that all of it is seen; in production leave the default of an hour and a day.
    let lifetime = Lifetime::new(Duration::from_millis(500), Duration::from_secs(2));
    let config = Config::new().with_lifetime(lifetime);
    let store = Arc::new(RedisSessionStore::new(driver, config)?);
    let archive = Arc::new(SqlArchive::open(&path)?);
    let janitor = Janitor::new(Arc::<RedisSessionStore>::clone(&store));
    let janitor =
        janitor.archiving(Arc::<SqlArchive>::clone(&archive), |session| 2 <= session.messages);

    let (id, ann) = (SessionId::new("trip to Rome")?, UserId::new("ann")?);
    store.create(&NewSession::new(id.clone(), ann.clone())).await?;
    let turn = [
        Message::user("What should I see in Rome?"),
        Message::assistant("The Forum, early in the morning."),
    ];
    let _ids = store.append(&id, &Append::new(turn)).await?;
    println!("in redis  {} messages", store.session(&id).await?.map_or(0, |found| found.messages));

    let idle = until(&janitor, |swept| 0 < swept.archived).await?;
    println!("idle      {} session archived", idle.archived);
    let over = until(&janitor, |swept| 0 < swept.deleted).await?;
    println!(
        "over      {} session deleted, in redis: {}",
        over.deleted,
        store.export(&id).await?.is_some()
    );

    // What is archived can be asked with SQL.
    let sums = "SELECT owner, role, count(*), sum(message.tokens) FROM message JOIN session ON id = session
                GROUP BY owner, role ORDER BY role";
    let rows = archive.transact(move |sql| Ok(rows(sql, sums))).await??;
    for (owner, role, messages, tokens) in rows {
        println!("in sql    {owner} {role}: {messages} message, {tokens} tokens");
    }
    if let Some(transcript) = archive.load(&id).await? {
        for entry in &transcript.entries {
            println!(
                "          {}: {}",
                entry.message.role.as_str(),
                entry.message.content.to_text()
            );
        }
    }
    janitor.erase_user(&ann).await?;
    println!("erased    in sql: {}", archive.load(&id).await?.is_some());
    Ok(())
}

/// Looks after sessions until the janitor has done something.
async fn until(janitor: &Janitor, done: impl Fn(&Swept) -> bool) -> Result<Swept> {
    loop {
        let swept = janitor.sweep().await?;
        if done(&swept) {
            return Ok(swept);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

type Sums = Vec<(String, String, i64, i64)>;

fn rows(sql: &rusqlite::Transaction<'_>, query: &str) -> rusqlite::Result<Sums> {
    let mut select = sql.prepare(query)?;
    let rows =
        select.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use inferkit::chatsession::{MemorySessionStore, Summary, Transcript};

    async fn export(store: &MemorySessionStore, id: &SessionId) -> Transcript {
        store.export(id).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn a_session_goes_on_and_none_of_its_messages_is_lost() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let archive = SqlArchive::open(file.path().to_str().unwrap()).unwrap();
        let store = MemorySessionStore::new(Config::new()).unwrap();
        let (id, ann) =
            (SessionId::new("a'; DROP TABLE session; --").unwrap(), UserId::new("ann").unwrap());
        assert_eq!(archive.load(&id).await.unwrap(), None);
        store.create(&NewSession::new(id.clone(), ann.clone())).await.unwrap();
        for text in ["a", "naïve '\" \0 🙂"] {
            let _ids = store.say(&id, Message::user(text)).await.unwrap();
        }
        let first = export(&store, &id).await;
        for _ in 0..2 {
            archive.store(&first).await.unwrap();
            assert_eq!(archive.load(&id).await.unwrap().unwrap(), first);
        }
        // It goes on, is summarized, and its older messages are trimmed.
        let _ids = store.say(&id, Message::user("c")).await.unwrap();
        let whole = export(&store, &id).await;
        let summary = Summary::new("They met.", 3, whole.entries[1].id, 2);
        assert!(store.commit_summary(&id, 0, &summary).await.unwrap());
        assert_eq!(store.trim(&id).await.unwrap(), 2);
        let trimmed = export(&store, &id).await;
        archive.store(&trimmed).await.unwrap();
        // A late janitor with the older state changes nothing.
        archive.store(&first).await.unwrap();
        let archived = SqlArchive::open(file.path().to_str().unwrap()).unwrap().load(&id).await;
        let archived = archived.unwrap().unwrap();
        assert_eq!((archived.entries, archived.session), (whole.entries, trimmed.session));

        assert_eq!(archive.remove_user(&UserId::new("bob").unwrap()).await.unwrap(), 0);
        assert_eq!(archive.remove_user(&ann).await.unwrap(), 1);
        assert!(!archive.remove(&id).await.unwrap());
        archive.store(&first).await.unwrap();
        assert!(archive.remove(&id).await.unwrap());
        let left = archive.transact(|sql| {
            Ok(sql.query_row("SELECT count(*) FROM message", [], |row| row.get::<_, i64>(0)))
        });
        assert_eq!(left.await.unwrap().unwrap(), 0, "messages go with their session");
    }
}
