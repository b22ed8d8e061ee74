use std::fmt;
use std::marker::PhantomData;

use crate::{Cmd, Error, ErrorKind, FromReply, Reply, Result};

/// Commands that go to the server together, in one round trip.
///
/// A batch can be passed from crate to crate: each appends its reads and keeps the typed [`Slot`]s; one
/// [`DriverExt::run`](crate::DriverExt::run) sends them all, and each takes its own answers.
///
/// A plain batch is a pipeline: its commands run in order on one node, others' commands may run in between, and one
/// that fails does not stop the others.
/// On a cluster it is split by node, one round trip each, side by side; order holds per node, except that a command whose
/// slot is moving is sent again after the others.
/// An [atomic](Batch::atomic) batch is a `MULTI`: nothing runs in between, and all its keys must share a slot.
///
/// # Examples
///
/// ```
/// use inferkit_core::{Batch, Cmd};
///
/// let mut batch = Batch::new();
/// let name = batch.push::<Option<String>>(Cmd::new("GET").key("name").readonly());
/// let age = batch.push::<Option<u64>>(Cmd::new("GET").key("age").readonly());
/// # let _ = (name, age);
/// // let mut answers = driver.run(batch).await?;
/// // let (name, age) = (answers.take(name)?, answers.take(age)?);
/// assert_eq!(batch.len(), 2);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Batch {
    cmds: Vec<Cmd>,
    atomic: bool,
}

impl Batch {
    /// Makes an empty pipeline.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes an empty batch that will run as a `MULTI`.
    #[must_use]
    pub fn atomic() -> Self {
        Self { cmds: Vec::new(), atomic: true }
    }

    /// Appends a command whose answer will be read as `T`.
    pub fn push<T: FromReply>(&mut self, cmd: Cmd) -> Slot<T> {
        self.cmds.push(cmd);
        Slot { index: self.cmds.len() - 1, answer: PhantomData }
    }

    /// Returns the number of commands.
    #[must_use]
    pub fn len(&self) -> usize {
        self.cmds.len()
    }

    /// Tells whether there is no command yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cmds.is_empty()
    }

    /// Tells whether the batch runs as a `MULTI`.
    #[must_use]
    pub fn is_atomic(&self) -> bool {
        self.atomic
    }

    /// Returns the commands in order.
    #[must_use]
    pub fn cmds(&self) -> &[Cmd] {
        &self.cmds
    }

    /// Returns the commands, for an implementor of [`Driver`](crate::Driver).
    #[must_use]
    pub fn into_cmds(self) -> Vec<Cmd> {
        self.cmds
    }

    pub(crate) fn cmds_mut(&mut self) -> &mut Vec<Cmd> {
        &mut self.cmds
    }
}

impl FromIterator<Cmd> for Batch {
    fn from_iter<I: IntoIterator<Item = Cmd>>(cmds: I) -> Self {
        Self { cmds: cmds.into_iter().collect(), atomic: false }
    }
}

/// The place of one answer in the [`Answers`] of a [`Batch`].
pub struct Slot<T> {
    index: usize,
    answer: PhantomData<fn() -> T>,
}

impl<T> fmt::Debug for Slot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Slot").field(&self.index).finish()
    }
}

/// The answers to a [`Batch`], taken out one by one.
#[derive(Debug)]
pub struct Answers(Vec<Option<Result<Reply>>>);

impl Answers {
    /// Wraps the replies to a batch, in the order of its commands.
    #[must_use]
    pub fn new(replies: Vec<Result<Reply>>) -> Self {
        Self(replies.into_iter().map(Some).collect())
    }

    /// Returns what was not taken yet, in the order of the commands.
    pub fn into_replies(self) -> impl Iterator<Item = Result<Reply>> {
        self.0.into_iter().flatten()
    }

    /// Takes the answer for `slot`.
    ///
    /// # Errors
    ///
    /// The error of that one command; [`ErrorKind::Reply`] if the answer is not a `T`; [`ErrorKind::Config`] if the
    /// slot belongs to another batch.
    #[expect(clippy::needless_pass_by_value, reason = "a slot is used up by taking its answer")]
    pub fn take<T: FromReply>(&mut self, slot: Slot<T>) -> Result<T> {
        match self.0.get_mut(slot.index).and_then(Option::take) {
            Some(reply) => T::from_reply(reply?),
            None => Err(Error::new(
                ErrorKind::Config,
                "this batch holds no answer at that slot: take each slot once, from the answers of its own batch",
            )),
        }
    }
}
