//! A turn of a conversation: what was said before goes to the model, and the turn is kept as a whole.

use axum::http::{HeaderMap, StatusCode};
use inferkit::chatsession::{
    Append, Budget, ClientId, FinishReason, Message, NewSession, Role, SessionId,
    SessionStore as _, SessionStoreExt as _, Usage, UserId,
};
use inferkit::semcache::Finish;
use inferkit_examples::chain;

use crate::app::App;
use crate::config::Key;
use crate::openai::Chat;
use crate::problem::Problem;

/// The header that names the session, in requests and in answers.
pub(crate) const SESSION: &str = "x-session-id";
/// What a model is shown of a conversation.
const WINDOW_TOKENS: u64 = 3_000;

/// The part of a request that will be kept.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) name: String,
    session: SessionId,
    /// What the caller said.
    said: Vec<Message>,
    /// What makes a repetition of the request the same turn.
    id: String,
}

impl Turn {
    /// Reads the session that a request names, and puts its window before the request's messages.
    pub(crate) async fn begin(
        app: &App,
        key: &Key,
        headers: &HeaderMap,
        request: &str,
        chat: &mut Chat,
    ) -> Result<Option<Self>, Problem> {
        let Some(name) = headers.get(SESSION) else { return Ok(None) };
        let name = name.to_str().ok().filter(|name| !name.is_empty() && name.len() <= 128);
        let name = name.ok_or_else(|| {
            Problem::bad_request(format!("{SESSION} must be 1 to 128 visible ASCII characters"))
        })?;
        // A session belongs to a tenant: the same name elsewhere is another session.
        let session = SessionId::new(format!("{}/{name}", key.tenant)).map_err(bad)?;
        let window = app.sessions.window(&session, Budget::new(WINDOW_TOKENS)).await;
        let mut system: Vec<_> =
            chat.messages.iter().filter(|said| is_system(said)).cloned().collect();
        let said: Vec<_> = chat.messages.iter().filter(|said| !is_system(said)).cloned().collect();
        if said.is_empty() {
            return Err(Problem::bad_request("a turn needs a message besides those of the system"));
        }
        let mut before = Vec::new();
        match window.map_err(lost)? {
            Some(window) => {
                for mut message in window.to_messages() {
                    // The model is told what was said, and not what we noted about it.
                    (message.usage, message.finish_reason, message.client_id) = (None, None, None);
                    // The request's own system message takes the place of the kept one.
                    if !is_system(&message) || system.is_empty() {
                        before.push(message);
                    }
                }
            }
            None => {
                let user = UserId::new(format!("{}/{}", key.tenant, key.name)).map_err(bad)?;
                let mut new = NewSession::new(session.clone(), user).with_model(&*chat.model);
                if let Some(first) = system.first() {
                    new = new.with_system(first.content.to_text());
                }
                app.sessions.create(&new).await.map_err(lost)?;
            }
        }
        system.append(&mut before);
        system.extend(said.iter().cloned());
        chat.messages = system;
        let id = headers.get("idempotency-key").and_then(|id| id.to_str().ok());
        let id = id.filter(|id| !id.is_empty()).unwrap_or(request).to_owned();
        Ok(Some(Self { name: name.to_owned(), session, said, id }))
    }

    /// Keeps the turn: all of it or nothing, and once, however often it is sent.
    pub(crate) async fn keep(
        &self,
        app: &App,
        answer: &str,
        finish: Finish,
        (prompt_tokens, completion_tokens): (u64, u64),
    ) -> Result<(), Problem> {
        let usage = Usage { prompt_tokens, completion_tokens, ..Usage::default() };
        let finish = match finish {
            Finish::Truncated => FinishReason::Length,
            _ => FinishReason::Stop,
        };
        let answer = Message::assistant(answer).with_usage(usage).with_finish_reason(finish);
        let mut messages = Vec::with_capacity(self.said.len() + 1);
        for (place, message) in self.said.iter().cloned().chain([answer]).enumerate() {
            let id = ClientId::new(format!("{}/{place}", self.id)).map_err(bad)?;
            messages.push(message.with_client_id(id));
        }
        let _ids =
            app.sessions.append(&self.session, &Append::new(messages)).await.map_err(lost)?;
        Ok(())
    }
}

fn is_system(message: &Message) -> bool {
    matches!(message.role, Role::System | Role::Developer)
}

fn bad(error: inferkit::chatsession::Error) -> Problem {
    Problem::bad_request(chain(&error))
}

/// A conversation is not continued without its memory, and a turn that is not kept is not acknowledged.
fn lost(error: inferkit::chatsession::Error) -> Problem {
    match &error {
        inferkit::chatsession::Error::Backend(_) => Problem::unavailable(
            "session_unavailable",
            format!("the session cannot be reached: {}; send the turn again", chain(&error)),
        ),
        _ => Problem::new(StatusCode::CONFLICT, "session_refused", chain(&error)),
    }
}
