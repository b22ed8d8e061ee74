//! rig's conversations in memory and on Redis.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use inferkit_localredis::{Flavor, Server, unique_prefix};
use inferkit_rig::inferkit_chatsession::inferkit_core::keys::Namespace;
use inferkit_rig::inferkit_chatsession::inferkit_core::{
    Batch, Cmd, Driver, DynDriver, Error as CoreError, ErrorKind, Pool, Reply, Result as CoreResult,
};
use inferkit_rig::inferkit_chatsession::{
    Append, Budget, Config, Content, Error, Fork, ImageUrl, Lifetime, MemorySessionStore,
    Message as Stored, NewSession, Part, Range, RedisSessionStore, Role, SessionId, SessionStore,
    SessionStoreExt as _, Summary, ToolCall as StoredCall, UserId,
};
use inferkit_rig::{Error as RigError, RigMemory};
use rig_core::completion::Message;
use rig_core::completion::message::{
    AssistantContent, AssistantMessage, CallId, DocumentSourceKind, Image, LocalCallId, Opaque,
    Origin, Reasoning, StopReason, Text, ToolCall, ToolFunction, ToolName, ToolResultContent,
    UserContent,
};
use rig_core::memory::{ConversationMemory as _, MemoryError};
use serde_json::json;

fn ann() -> UserId {
    UserId::new("ann").unwrap()
}

fn config() -> Config {
    Config::new().with_namespace(Namespace::new(&unique_prefix()).unwrap())
}

async fn driver() -> DynDriver {
    Pool::connect(Server::shared(Flavor::Redis).unwrap().url()).await.unwrap().into_driver()
}

async fn stores() -> Vec<Arc<dyn SessionStore>> {
    vec![
        Arc::new(MemorySessionStore::new(config()).unwrap()),
        Arc::new(RedisSessionStore::new(driver().await, config()).unwrap()),
    ]
}

fn call(id: impl Into<CallId>, arguments: &str) -> ToolCall {
    let name = ToolName::new("weather").unwrap();
    ToolCall::new(id.into(), ToolFunction::parse(name, arguments))
}

fn wire(id: &str) -> CallId {
    CallId::from_wire(id)
}

fn assistant(content: Vec<AssistantContent>) -> Message {
    Message::Assistant(AssistantMessage::new(content))
}

fn said(text: &str) -> AssistantContent {
    AssistantContent::Text(Text::new(text))
}

fn result(call: &ToolCall, content: ToolResultContent) -> UserContent {
    UserContent::ToolResult(call.result(vec![content]))
}

fn text(text: &str) -> ToolResultContent {
    ToolResultContent::Text(Text::new(text))
}

/// What chat completions can say.
fn simple() -> Vec<Message> {
    let (paris, rome) =
        (call(wire("1"), r#"{"city":"Paris"}"#), call(wire("2"), "{\"city\": \"Ro"));
    vec![
        Message::System { content: "Be brief.".into() },
        Message::user("naïve \0 🙂"),
        Message::assistant("Hello."),
        assistant(vec![said("One moment."), AssistantContent::ToolCall(paris.clone())]),
        Message::User { content: vec![result(&paris, text("rain"))] },
        assistant(vec![AssistantContent::ToolCall(rome.clone())]),
        Message::User { content: vec![result(&rome, text(""))] },
        Message::User {
            content: vec![UserContent::Text(Text::new("a")), UserContent::Text(Text::new("b"))],
        },
    ]
}

/// What they cannot.
fn rich() -> Vec<Message> {
    let local = call(LocalCallId::new(), "{}");
    let odd = call(wire("o"), "[1,2]");
    let native = said("Look.").with_native(json!({"type": "message", "id": "msg_1"}));
    let raw = UserContent::Image(Image {
        data: DocumentSourceKind::Base64("aGk=".into()),
        ..Image::default()
    });
    let answer = AssistantMessage::new(vec![
        AssistantContent::Reasoning(Reasoning::new("They want the weather.")),
        native,
        AssistantContent::ToolCall(local.clone()),
        said("Done."),
        AssistantContent::ToolCall(odd.clone()),
    ]);
    let answer = answer.with_origin(Origin::new("responses", "openai", "gpt-5"));
    let mut failed = odd.error_result(vec![text("no"), text("such city")]);
    failed.content.push(ToolResultContent::Json { value: json!({"content": [{"type": "text"}]}) });
    vec![
        Message::user(""),
        Message::User { content: Vec::new() },
        assistant(Vec::new()),
        Message::System { content: String::new() },
        Message::User { content: vec![UserContent::Text(Text::new("What is this?")), raw.clone()] },
        Message::Assistant(answer.with_stop(StopReason::ToolUse)),
        // Results of parallel calls in one message, and more of the user.
        Message::User {
            content: vec![
                UserContent::Text(Text::new("before")),
                result(&local, text("sun")),
                UserContent::ToolResult(failed),
                UserContent::Text(Text::new("after")),
                raw,
            ],
        },
        Message::User { content: vec![result(&local, text("a message of its own"))] },
        assistant(vec![AssistantContent::Opaque(Opaque {
            item: json!({"type": "search", "text": "x", "content": [{"type": "text", "text": "y"}]}),
            replay: true,
        })]),
    ]
}

fn chats(error: &MemoryError) -> &Error {
    error.source().unwrap().downcast_ref::<Error>().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_come_back_as_they_were() {
    for store in stores().await {
        let memory = RigMemory::new(Arc::clone(&store), ann());
        let id = "a}:b{".into();
        assert_eq!(memory.load(&id).await.unwrap(), []);
        memory.append(&id, Vec::new()).await.unwrap();
        assert_eq!(store.session(&SessionId::new("a}:b{").unwrap()).await.unwrap(), None);
        let rich = rich();
        let all = [&simple()[..], &rich].concat();
        memory.append(&id, simple()).await.unwrap();
        memory.append(&id, rich).await.unwrap();
        let loaded = memory.load(&id).await.unwrap();
        for (loaded, message) in loaded.iter().zip(&all) {
            assert_eq!(loaded, message);
        }
        assert_eq!(loaded.len(), all.len());
        assert_eq!(memory.load(&"a".into()).await.unwrap(), [], "another conversation");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_conversation_is_loaded_whole() {
    for store in stores().await {
        let memory = RigMemory::new(store, ann());
        let messages: Vec<Message> = (0..700).map(|n| Message::user(n.to_string())).collect();
        for part in messages.chunks(100) {
            memory.append(&"long".into(), part.to_vec()).await.unwrap();
        }
        assert_eq!(memory.load(&"long".into()).await.unwrap(), messages);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_readers_see_chat_completions() {
    for store in stores().await {
        let memory = RigMemory::new(Arc::clone(&store), ann());
        memory.append(&"s".into(), simple()).await.unwrap();
        let session = SessionId::new("s").unwrap();
        let entries = store.read(&session, Range::All).await.unwrap().unwrap();
        let mut messages: Vec<Stored> = entries.into_iter().map(|entry| entry.message).collect();
        assert!(messages.iter_mut().all(|message| message.client_id.take().is_some()));
        let call = |id, arguments| StoredCall::new(id, "weather", arguments);
        let texts = ["a", "b"].map(|text| Part::Text { text: text.to_owned() });
        let expected = [
            Stored::system("Be brief."),
            Stored::user("naïve \0 🙂"),
            Stored::assistant("Hello."),
            Stored::assistant("One moment.").with_tool_calls([call("1", r#"{"city":"Paris"}"#)]),
            Stored::tool("1", "rain").with_name("weather"),
            Stored::assistant("").with_tool_calls([call("2", "{\"city\": \"Ro")]),
        ];
        assert_eq!(messages[..6], expected);
        assert_eq!(messages[7], Stored::user(texts.to_vec()));

        // What they cannot say stands beside what they can: a tool's result is one, whatever else it is.
        memory.append(&"t".into(), rich()).await.unwrap();
        let session = SessionId::new("t").unwrap();
        let entries = store.read(&session, Range::All).await.unwrap().unwrap();
        let results = entries.iter().filter(|entry| entry.message.role == Role::Tool);
        let results: Vec<String> = results.map(|entry| entry.message.content.to_text()).collect();
        let json = r#"{"content":[{"type":"text"}]}"#;
        let failed = format!("no\nsuch city\n{json}");
        assert_eq!(results, ["sun", &*failed, "a message of its own"]);
        let answer = entries.iter().find(|entry| !entry.message.tool_calls.is_empty()).unwrap();
        assert_eq!(answer.message.content.to_text(), "Look.\nDone.");
        assert_eq!(answer.message.tool_calls.len(), 2);
        // What rig keeps beside the text is not counted as if it were sent.
        assert!((10..60).contains(&answer.tokens), "{}", answer.tokens);
        let image = entries.iter().find(|entry| entry.message.content.to_text() == "What is this?");
        assert!((300..320).contains(&image.unwrap().tokens), "{image:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_wrote_is_read() {
    for store in stores().await {
        let session = SessionId::new("s").unwrap();
        let new = NewSession::new(session.clone(), ann()).with_system("Be brief.");
        store.create(&new).await.unwrap();
        let image = ImageUrl { url: "https://a/b.png".into(), detail: None };
        let parts = vec![Part::Text { text: "Look".into() }, Part::ImageUrl { image_url: image }];
        let append = Append::new([
            Stored::user(parts),
            Stored::tool_calls([StoredCall::new("1", "weather", "{}")]),
            Stored::tool("1", "rain"),
        ]);
        let first = store.append(&session, &append).await.unwrap().ids[0];
        let memory = RigMemory::new(Arc::clone(&store), ann());
        let weather = call(wire("1"), "{}");
        let image = Image { data: DocumentSourceKind::url("https://a/b.png"), ..Image::default() };
        let expected = [
            Message::System { content: "Be brief.".into() },
            Message::User {
                content: vec![UserContent::Text(Text::new("Look")), UserContent::Image(image)],
            },
            assistant(vec![AssistantContent::ToolCall(weather.clone())]),
            Message::User { content: vec![result(&weather, text("rain"))] },
        ];
        assert_eq!(memory.load(&"s".into()).await.unwrap(), expected);

        // An edit: the active branch is what counts.
        let append = Append::new([Stored::user("Hello")]).at(Fork::Instead(first));
        let edited = store.append(&session, &append).await.unwrap().ids[0];
        let expected = [Message::System { content: "Be brief.".into() }, Message::user("Hello")];
        assert_eq!(memory.load(&"s".into()).await.unwrap(), expected);

        // A summary stands for what it summarizes.
        let version = store.session(&session).await.unwrap().unwrap().summary_version;
        let summary = Summary::new("They met.", 3, edited, 1);
        assert!(store.commit_summary(&session, version, &summary).await.unwrap());
        let loaded = memory.load(&"s".into()).await.unwrap();
        let Message::System { content } = &loaded[1] else { panic!("{loaded:?}") };
        assert!(content.ends_with("They met."), "{content}");
        assert_eq!(loaded.len(), 2);

        let audio = Part::Other(json!({"type": "input_audio", "input_audio": {"data": ""}}));
        let _ = store.say(&session, Stored::user(vec![audio])).await.unwrap();
        let error = memory.load(&"s".into()).await.unwrap_err();
        let error = error.source().unwrap().downcast_ref::<RigError>().unwrap();
        assert!(matches!(error, RigError::Message { role: "user", .. }), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_limits_what_is_loaded() {
    for store in stores().await {
        let all = RigMemory::new(Arc::clone(&store), ann());
        let memory = all.clone().with_budget(Budget::new(200));
        for n in 0..50 {
            let turn = [Message::user(format!("Question {n}?")), Message::assistant("Yes.")];
            memory.append(&"s".into(), turn.to_vec()).await.unwrap();
        }
        let (whole, window) =
            (all.load(&"s".into()).await.unwrap(), memory.load(&"s".into()).await.unwrap());
        assert_eq!(whole.len(), 100);
        assert!(5 < window.len() && window.len() < 50, "{}", window.len());
        assert!(whole.ends_with(&window));

        // A call that was never answered is left out, also of what rig's JSON says.
        let orphan = call(LocalCallId::new(), "{}");
        let orphan = assistant(vec![said("Wait."), AssistantContent::ToolCall(orphan)]);
        memory.append(&"s".into(), vec![orphan.clone(), Message::user("?")]).await.unwrap();
        assert!(all.load(&"s".into()).await.unwrap().contains(&orphan));
        let window = memory.load(&"s".into()).await.unwrap();
        assert!(2 <= window.len(), "{window:?}");
        assert_eq!(
            window[window.len() - 2..],
            [assistant(vec![said("Wait.")]), Message::user("?")]
        );

        let small = all.with_budget(Budget::new(1));
        let error = small.load(&"s".into()).await.unwrap_err();
        assert!(matches!(error, MemoryError::Policy(_)), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cleared_conversation_stays_cleared() {
    for store in stores().await {
        let memory = RigMemory::new(store, ann());
        let (first, second) = ("first".into(), "second".into());
        memory.append(&first, simple()).await.unwrap();
        memory.append(&second, simple()).await.unwrap();
        memory.clear(&first).await.unwrap();
        memory.clear(&first).await.unwrap();
        memory.clear(&"never".into()).await.unwrap();
        assert_eq!(memory.load(&first).await.unwrap(), []);
        let late = memory.append(&first, simple()).await.unwrap_err();
        assert!(matches!(chats(&late), Error::Erased), "{late:?}");
        assert_eq!(memory.load(&second).await.unwrap(), simple());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conversations_of_others_are_neither_read_nor_written() {
    for store in stores().await {
        let memory = RigMemory::new(Arc::clone(&store), ann());
        let other = RigMemory::new(Arc::clone(&store), UserId::new("bob").unwrap());
        let id = "s".into();
        memory.append(&id, simple()).await.unwrap();
        for denied in [
            other.load(&id).await.map(|_| ()),
            other.append(&id, simple()).await,
            other.clear(&id).await,
        ] {
            assert!(matches!(chats(&denied.unwrap_err()), Error::OtherUser));
        }
        assert_eq!(memory.load(&id).await.unwrap(), simple());
        let nameless = memory.load(&"".into()).await.unwrap_err();
        assert!(matches!(chats(&nameless), Error::InvalidId { .. }));
    }
}

/// Loses the answers of the first appends.
#[derive(Debug)]
struct Lossy {
    inner: DynDriver,
    losses: AtomicU32,
}

#[async_trait]
impl Driver for Lossy {
    async fn call(&self, cmd: Cmd) -> CoreResult<Reply> {
        let append = cmd.is_idempotent() && cmd.script().is_some();
        let reply = self.inner.call(cmd).await;
        let left = |losses: u32| losses.checked_sub(1);
        if append && self.losses.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left).is_ok() {
            return Err(CoreError::new(ErrorKind::Connection, "lost").with_maybe_applied(true));
        }
        reply
    }

    async fn pipeline(&self, batch: Batch) -> CoreResult<Vec<CoreResult<Reply>>> {
        self.inner.pipeline(batch).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_whose_answer_was_lost_is_stored_once() {
    let driver = Arc::new(Lossy { inner: driver().await, losses: AtomicU32::new(0) });
    let store = Arc::new(RedisSessionStore::new(Arc::<Lossy>::clone(&driver), config()).unwrap());
    let memory = RigMemory::new(store, ann());
    memory.append(&"s".into(), vec![Message::user("1")]).await.unwrap();
    driver.losses.store(2, Ordering::SeqCst);
    memory.append(&"s".into(), vec![Message::user("2"), Message::user("2")]).await.unwrap();
    let expected = ["1", "2", "2"].map(Message::user);
    assert_eq!(memory.load(&"s".into()).await.unwrap(), expected);
    driver.losses.store(3, Ordering::SeqCst);
    let error = memory.append(&"s".into(), vec![Message::user("3")]).await.unwrap_err();
    assert!(chats(&error).maybe_applied());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_that_expired_begins_anew() {
    let life = Lifetime::new(Duration::from_millis(20), Duration::from_millis(20));
    let config = config().with_lifetime(life.with_grace(Duration::from_millis(20)));
    let memory =
        RigMemory::new(Arc::new(RedisSessionStore::new(driver().await, config).unwrap()), ann());
    memory.append(&"s".into(), vec![Message::user("1")]).await.unwrap();
    while !memory.load(&"s".into()).await.unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    memory.append(&"s".into(), vec![Message::user("2")]).await.unwrap();
}

#[tokio::test]
async fn what_is_said_is_not_shown() {
    let store = Arc::new(MemorySessionStore::new(config()).unwrap());
    let shown = format!("{:?}", RigMemory::new(store, UserId::new("a@example.com").unwrap()));
    assert!(!shown.contains("example"), "{shown}");
    assert!(matches!(Content::from("x"), Content::Text(_)));
}
