use std::sync::Arc;
use std::time::Duration;

use inferkit_chatsession::{
    Append, Budget, ClientId, Error, Message as Stored, NewSession, SessionId, SessionStore,
    Summary, UserId, Window,
};
use rig_core::completion::Message;
use rig_core::id::ConversationId;
use rig_core::memory::{ConversationMemory, MemoryError};
use rig_core::wasm_compat::WasmBoxedFuture;

mod form;

/// How often messages are sent to the store before rig hears of the failure, and the time before the first repetition.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(50);

/// What a message counts besides its text, and what an image or a document counts, as in messages that the store counts.
const PER_MESSAGE: u64 = 4;
const PER_MEDIUM: u64 = 300;

/// rig's [`ConversationMemory`] in any [`SessionStore`]: one user's conversations, each a session.
///
/// A conversation's id is the session's id, and its session is created with the first messages.
/// Text, tool calls and tool results are stored in the form of chat completions, so that windows, summaries, archives and
/// other readers understand them; what of a message has no place there stands beside it as rig's JSON, and every message
/// comes back as it was.
///
/// Conversations of other users are errors, to read as well as to write: make one memory for each user, which costs nothing.
///
/// | call | round trips |
/// |---|---|
/// | `load` | those of [`SessionStore::recent`]: one for 50 messages |
/// | `append` | 2; 4 for the first messages of a conversation |
/// | `clear` | 1, and those of [`SessionStore::delete`] |
#[derive(Clone, Debug)]
pub struct RigMemory {
    store: Arc<dyn SessionStore>,
    user: UserId,
    budget: Option<Budget>,
}

impl RigMemory {
    /// Makes the memory of a user.
    #[must_use]
    pub fn new(store: Arc<dyn SessionStore>, user: UserId) -> Self {
        Self { store, user, budget: None }
    }

    /// Loads no more than fits a budget: see [`Window::new`].
    #[must_use]
    pub fn with_budget(mut self, budget: Budget) -> Self {
        self.budget = Some(budget);
        self
    }

    /// Returns the store.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn SessionStore> {
        &self.store
    }

    /// The messages of the active branch; none if there is no session.
    async fn history(&self, id: &ConversationId) -> Result<Vec<Message>, MemoryError> {
        let id = session_id(id)?;
        // A step more than the budget, so that the pairs at its edge are seen.
        let wanted = self.budget.map(|budget| budget.tokens.saturating_add(budget.step));
        let recent = self.store.recent(&id, wanted.unwrap_or(u64::MAX)).await;
        let Some(recent) = recent.map_err(MemoryError::backend)? else { return Ok(Vec::new()) };
        self.owned(&recent.session.user)?;
        let stored: Vec<Stored> = match self.budget {
            Some(budget) => {
                let window = Window::new(&recent, budget);
                window.map_err(|error| MemoryError::Policy(error.to_string()))?.to_messages()
            }
            None => {
                let system = recent.session.system.into_iter().map(Stored::system);
                let summary = recent.summary.iter().map(Summary::to_message);
                let said = recent.entries.into_iter().map(|entry| entry.message);
                system.chain(summary).chain(said).collect()
            }
        };
        form::decode(&stored).map_err(MemoryError::backend)
    }

    async fn remember(
        &self,
        id: &ConversationId,
        messages: Vec<Message>,
    ) -> Result<(), MemoryError> {
        if messages.is_empty() {
            return Ok(());
        }
        let id = session_id(id)?;
        let mut stored = Vec::with_capacity(messages.len());
        for message in &messages {
            stored.extend(form::encode(message).map_err(MemoryError::backend)?);
        }
        // The ids are this call's: with them whoever repeats it, we or the driver, stores nothing twice.
        let call = rig_core::id::generate();
        for (index, message) in stored.iter_mut().enumerate() {
            if let Some((text, media)) = form::sent(message) {
                let tokens = self.store.count_tokens(&text).await.map_err(MemoryError::backend)?;
                message.tokens = Some(PER_MESSAGE + tokens + media * PER_MEDIUM);
            }
            let id = ClientId::new(format!("{call}:{index}")).map_err(MemoryError::backend)?;
            message.client_id = Some(id);
        }
        let append = Append::new(stored);
        let mut pause = PAUSE;
        for _ in 1..ATTEMPTS {
            match self.write(&id, &append).await {
                Err(error) if error.is_transient() || error.maybe_applied() => {
                    tracing::debug!(%error, "messages are sent to the store once more");
                    tokio::time::sleep(pause).await;
                    pause *= 4;
                }
                // It expired just now; the next attempt creates it.
                Err(Error::NoSession) => {}
                written => return written.map_err(MemoryError::backend),
            }
        }
        self.write(&id, &append).await.map_err(MemoryError::backend)
    }

    async fn write(&self, id: &SessionId, append: &Append) -> Result<(), Error> {
        match self.store.session(id).await? {
            Some(session) if session.user == self.user => {}
            Some(_) => return Err(Error::OtherUser),
            None => {
                self.store.create(&NewSession::new(id.clone(), self.user.clone())).await?;
            }
        }
        self.store.append(id, append).await.map(|_| ())
    }

    async fn forget(&self, id: &ConversationId) -> Result<(), MemoryError> {
        let id = session_id(id)?;
        let session = self.store.session(&id).await.map_err(MemoryError::backend)?;
        let Some(session) = session else { return Ok(()) };
        self.owned(&session.user)?;
        self.store.delete(&id).await.map(|_| ()).map_err(MemoryError::backend)
    }

    fn owned(&self, user: &UserId) -> Result<(), MemoryError> {
        if *user == self.user { Ok(()) } else { Err(MemoryError::backend(Error::OtherUser)) }
    }
}

fn session_id(id: &ConversationId) -> Result<SessionId, MemoryError> {
    SessionId::new(id.as_str()).map_err(MemoryError::backend)
}

impl ConversationMemory for RigMemory {
    /// Returns the messages of the active branch after the summary, and the summary before them as a system message, if
    /// somebody summarizes the session; with a [budget](RigMemory::with_budget) the newest of them.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Backend`] with the store's [`Error`] as its source; [`MemoryError::Policy`] if the newest messages that
    /// belong together do not fit the budget.
    fn load<'a>(
        &'a self,
        conversation_id: &'a ConversationId,
    ) -> WasmBoxedFuture<'a, Result<Vec<Message>, MemoryError>> {
        Box::pin(self.history(conversation_id))
    }

    /// Appends all messages or none, in one step.
    ///
    /// After a lost connection it is tried again, and stores nothing twice.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Backend`] with the store's [`Error`] as its source: [`Error::Erased`] after [`clear`](Self::clear).
    fn append<'a>(
        &'a self,
        conversation_id: &'a ConversationId,
        messages: Vec<Message>,
    ) -> WasmBoxedFuture<'a, Result<(), MemoryError>> {
        Box::pin(self.remember(conversation_id, messages))
    }

    /// Deletes the conversation, also from the archive if there is a janitor.
    ///
    /// A turn that is still running does not bring it back: its `append` is an error, and so is every other of the same id
    /// for as long as a session lives.
    /// Begin anew under another id.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Backend`] with the store's [`Error`] as its source.
    fn clear<'a>(
        &'a self,
        conversation_id: &'a ConversationId,
    ) -> WasmBoxedFuture<'a, Result<(), MemoryError>> {
        Box::pin(self.forget(conversation_id))
    }
}
