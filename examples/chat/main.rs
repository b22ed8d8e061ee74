//! A chat in the terminal that remembers: what was said is there after a restart.
//!
//! `cargo run -p inferkit-examples --example chat -- [NAME]`; each name is a conversation.
//! After every answer stand the tokens of the window that the model was shown.
//! `/window` shows it, `/edit TEXT` puts another question in the place of the last one, `/forget` erases all of it, and
//! `/quit` ends.
//!
//! With `INFERKIT_REDIS_URL` the conversation lives on that server for a day after its last message.
//! Without, a server is started for one run, and the conversation comes back from the archive in the folder
//! `chat-sessions`, into which each run puts it at its end.
//! `OPENAI_BASE_URL`, `OPENAI_API_KEY` and `OPENAI_MODEL` name a model; without them the answers are quotations of what was
//! said before, which shows what a window still holds.

#![expect(clippy::print_stdout, reason = "a terminal program talks to its user")]

mod model;

use std::io::{self, BufRead as _, Write as _};
use std::sync::Arc;

use inferkit::chatsession::{
    Append, Archive as _, Budget, Config, Delta, FinishReason, Fork, Janitor, JsonlArchive,
    MAX_MESSAGES, Message, NewSession, RedisSessionStore, Role, SessionId, SessionStore as _,
    SessionStoreExt as _, Summarized, SummaryRule, Turn, UserId, Window,
};
use inferkit::core::Pool;
use inferkit_localredis::{Flavor, Server};

use model::Model;

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Error>;

const SYSTEM: &str = "Answer in one or two sentences.";
/// Small, so that summaries and moving windows are seen soon.
const BUDGET: u64 = 300;
const SUMMARIZE_ABOVE: u64 = 200;

#[tokio::main]
async fn main() -> Result<()> {
    let name = std::env::args().nth(1).unwrap_or_else(|| "first".to_owned());
    // The server lives as long as this value.
    let server = tokio::task::spawn_blocking(|| Server::start(Flavor::Plain)).await??;
    let archive = Arc::new(JsonlArchive::new("chat-sessions"));
    let chat = Chat::open(server.url(), archive, &name, Model::from_env()?).await?;
    println!("model     {}", chat.model);
    println!(
        "messages  {} so far\n",
        chat.store.session(&chat.id).await?.map_or(0, |s| s.messages)
    );
    let janitor = chat.janitor();
    let janitor = tokio::spawn(janitor.run());
    loop {
        print!("> ");
        io::stdout().flush()?;
        let line = tokio::task::spawn_blocking(|| {
            let mut line = String::new();
            io::stdin().lock().read_line(&mut line).map(|bytes| (0 < bytes).then_some(line))
        });
        let Some(line) = line.await?? else { break };
        match line.trim() {
            "" => {}
            "/quit" => break,
            "/window" => println!("{}", chat.show().await?),
            "/forget" => {
                chat.janitor().erase_user(&chat.user).await?;
                println!("all of it is erased");
                return Ok(());
            }
            text => println!("{}", chat.turn(text).await?),
        }
    }
    janitor.abort();
    chat.close().await
}

struct Chat {
    store: Arc<RedisSessionStore>,
    archive: Arc<JsonlArchive>,
    model: Model,
    user: UserId,
    id: SessionId,
}

impl Chat {
    /// Goes on with a conversation: from the server, or else from the archive, or else from nothing.
    async fn open(url: &str, archive: Arc<JsonlArchive>, name: &str, model: Model) -> Result<Self> {
        let driver = Pool::connect(url).await?.into_driver();
        let store = Arc::new(RedisSessionStore::new(driver, Config::new())?);
        let (user, id) = (UserId::new("terminal")?, SessionId::new(name)?);
        let new = NewSession::new(id.clone(), user.clone()).with_system(SYSTEM);
        if store.create(&new).await?
            && let Some(transcript) = archive.load(&id).await?
        {
            let messages: Vec<Message> =
                transcript.branch()?.into_iter().map(|entry| entry.message).collect();
            for page in messages.chunks(MAX_MESSAGES) {
                let _ = store.append(&id, &Append::new(page.iter().cloned())).await?;
            }
        }
        Ok(Self { store, archive, model, user, id })
    }

    /// Archives the conversation, as the janitor does with one that is idle for an hour.
    async fn close(&self) -> Result<()> {
        if let Some(transcript) = self.store.export(&self.id).await?
            && !transcript.entries.is_empty()
        {
            self.archive.store(&transcript).await?;
        }
        Ok(())
    }

    fn janitor(&self) -> Janitor {
        let store = Arc::<RedisSessionStore>::clone(&self.store);
        let archive = Arc::<JsonlArchive>::clone(&self.archive);
        Janitor::new(store).archiving(archive, |session| 0 < session.messages)
    }

    async fn window(&self) -> Result<Window> {
        let window = self.store.window(&self.id, Budget::new(BUDGET)).await?;
        window.ok_or_else(|| "the conversation has expired: begin anew".into())
    }

    /// Says something, streams the answer into a draft, and summarizes if it is time.
    async fn turn(&self, text: &str) -> Result<String> {
        let question = match text.strip_prefix("/edit ") {
            None => Append::from(Message::user(text)),
            Some(text) => {
                let window = self.window().await?;
                let mut entries = window.entries.iter().rev();
                let last = entries.find(|entry| entry.message.role == Role::User);
                let last = last.ok_or("there is no question to edit")?;
                Append::from(Message::user(text)).at(Fork::Instead(last.id))
            }
        };
        let asked = self.store.append(&self.id, &question).await?;
        let window = self.window().await?;
        let answer = self.model.answer(&window.to_messages()).await?;
        let id = asked.ids.last().map(ToString::to_string).unwrap_or_default();
        let turn = Turn::new(id)?;
        for piece in answer.split_inclusive(' ') {
            self.store.push_draft(&self.id, &turn, &[Delta::text(piece)]).await?;
        }
        self.store.finish_draft(&self.id, &turn, FinishReason::Stop).await?;
        let rule = SummaryRule::above(SUMMARIZE_ABOVE);
        let summarized = self.store.summarize(&self.id, &self.model, rule).await?;
        let mut lines = format!(
            "{answer}\n  [{} of {BUDGET} tokens, {} messages in the window{}]",
            window.tokens,
            window.entries.len(),
            if window.summary.is_some() { ", with a summary" } else { "" },
        );
        if let Summarized::Stored(summary) = summarized {
            let count = summary.messages;
            lines.push_str(&format!(
                "\n  [{count} messages are summarized in {} tokens]",
                summary.tokens
            ));
        }
        Ok(lines)
    }

    /// What the model is shown.
    async fn show(&self) -> Result<String> {
        let window = self.window().await?;
        let line = |message: &Message| {
            format!("  {:<9} {}\n", message.role.as_str(), message.content.to_text())
        };
        let lines: String = window.to_messages().iter().map(line).collect();
        Ok(format!("{lines}  [{} of {BUDGET} tokens]", window.tokens))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Opens the conversation on a server that knows nothing of it.
    async fn restarted(archive: &Arc<JsonlArchive>) -> (Server, Chat) {
        let server =
            tokio::task::spawn_blocking(|| Server::builder(Flavor::Plain).durable().start());
        let server = server.await.unwrap().unwrap();
        let chat = Chat::open(server.url(), Arc::clone(archive), "test", Model::Quoting).await;
        (server, chat.unwrap())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_conversation_survives_a_restart() {
        let folder = std::env::temp_dir().join(format!("inferkit-chat-{}", std::process::id()));
        let archive = Arc::new(JsonlArchive::new(&folder));
        let (server, chat) = restarted(&archive).await;
        chat.turn("My cat is called Minka.").await.unwrap();
        chat.turn("I live in Rome.").await.unwrap();
        chat.turn("/edit I live in Ghent.").await.unwrap();
        chat.close().await.unwrap();
        drop((chat, server));
        let (_server, chat) = restarted(&archive).await;
        let answer = chat.turn("What is my cat called?").await.unwrap();
        assert!(answer.contains("Minka"), "{answer}");
        let mut answers = String::new();
        for number in 0..20 {
            answers =
                chat.turn(&format!("Remark number {number} about the weather.")).await.unwrap();
        }
        assert!(answers.contains("with a summary"), "{answers}");
        assert!(chat.window().await.unwrap().tokens <= BUDGET);
        chat.janitor().erase_user(&chat.user).await.unwrap();
        assert_eq!(archive.load(&chat.id).await.unwrap(), None);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
