//! The seam: one trait through which all traffic goes.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;

use crate::cmd::ToArg;
use crate::{Answers, Batch, Cmd, Error, ErrorKind, FromReply, Reply, Result, Script};

#[cfg(feature = "fred")]
pub(crate) mod fred;
pub(crate) mod layers;
#[cfg(feature = "redis")]
pub(crate) mod redis;

/// A way to a server: the contract with those who implement one.
///
/// Callers use [`DriverExt`].
/// An implementation repeats nothing by itself, except what it knows not to have reached the server.
#[async_trait]
pub trait Driver: Debug + Send + Sync + 'static {
    /// Sends one command and waits for its reply: one round trip.
    ///
    /// # Errors
    ///
    /// The server's refusal, or why there is no answer; [`Error::maybe_applied`] tells whether the command may have run.
    /// [`ErrorKind::Config`] for a [blocking](Cmd::blocking) command on a shared connection.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not take back a command that was sent.
    async fn call(&self, cmd: Cmd) -> Result<Reply>;

    /// Sends a batch and waits for all its replies: one round trip (on a cluster one per node, side by side).
    ///
    /// Returns one result per command, in order: one refused command does not hide the others.
    ///
    /// # Errors
    ///
    /// The outer error means that no command of the batch has a known outcome; for an
    /// [atomic](Batch::atomic) batch also that the server discarded it.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not take back commands that were sent.
    async fn pipeline(&self, batch: Batch) -> Result<Vec<Result<Reply>>>;
}

/// A driver that can be kept in any struct.
pub type DynDriver = Arc<dyn Driver>;

/// What makes connections of one's own, for commands that block.
///
/// A [`Pool`](crate::Pool), a redis-rs client (through [`RedisConnect`](crate::RedisConnect)) and a fred client
/// (through [`FredDriver`](crate::FredDriver)) are such.
#[async_trait]
pub trait Connect: Debug + Send + Sync + 'static {
    /// Opens a connection that nobody shares; it accepts [blocking](Cmd::blocking) commands and closes when dropped.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Connection`], [`ErrorKind::Timeout`] or [`ErrorKind::Auth`].
    async fn connect(&self) -> Result<DynDriver>;
}

/// What callers do with a [`Driver`].
pub trait DriverExt: Driver {
    /// Sends one command and reads its reply as `T`.
    ///
    /// One round trip; two where a script is not known to the server yet (`EVALSHA`, then `EVAL`).
    ///
    /// # Errors
    ///
    /// As [`Driver::call`], and [`ErrorKind::Reply`] if the reply is not a `T`.
    fn query<T: FromReply>(&self, cmd: Cmd) -> impl Future<Output = Result<T>> + Send {
        async move {
            let reply = match cmd.script() {
                None => self.call(cmd).await,
                // Boxed, so that a plain command does not carry the room for it.
                Some(script) => Box::pin(call_script(self, cmd, script)).await,
            };
            T::from_reply(reply?)
        }
    }

    /// Calls `script` with `keys` and `args` and reads its reply as `T`; see [`DriverExt::query`].
    ///
    /// # Errors
    ///
    /// As [`DriverExt::query`].
    /// An error that the script itself raised may come after some of its writes: then [`Error::maybe_applied`] is true.
    fn eval<T: FromReply, K: ToArg, A: ToArg>(
        &self,
        script: &'static Script,
        keys: &[K],
        args: &[A],
    ) -> impl Future<Output = Result<T>> + Send {
        self.query(Cmd::eval(script, keys).args(args))
    }

    /// Sends a batch and returns its answers: one round trip.
    ///
    /// In a pipeline, scripts that the server does not know are sent again with their source, in one more round trip,
    /// after the other commands of the batch.
    /// In an atomic batch scripts travel with their source from the start, so that nothing is half done.
    ///
    /// # Errors
    ///
    /// As [`Driver::pipeline`]; the errors of single commands are in the [`Answers`].
    fn run(&self, batch: Batch) -> impl Future<Output = Result<Answers>> + Send {
        async move {
            let mut batch = batch;
            if batch.is_empty() {
                return Ok(Answers::new(Vec::new()));
            }
            let atomic = batch.is_atomic();
            let scripts: Vec<(usize, Cmd)> = batch
                .cmds()
                .iter()
                .enumerate()
                .filter(|(_, cmd)| cmd.script().is_some())
                .map(|(index, cmd)| (index, cmd.clone()))
                .collect();
            if atomic {
                for cmd in batch.cmds_mut() {
                    if cmd.script().is_some() {
                        *cmd = cmd.with_source();
                    }
                }
            }
            let mut replies = self.pipeline(batch).await?;
            let unknown: Vec<&(usize, Cmd)> = scripts
                .iter()
                .filter(|(index, _)| {
                    matches!(replies.get(*index), Some(Err(error)) if error.kind() == ErrorKind::NoScript)
                })
                .collect();
            if !unknown.is_empty() && !atomic {
                let again = unknown.iter().map(|(_, cmd)| cmd.with_source()).collect();
                let mut answers = self.pipeline(again).await.map(Vec::into_iter);
                for (index, _) in unknown {
                    let answer = match &mut answers {
                        Ok(answers) => answers.next(),
                        Err(error) => Some(Err(error.clone())),
                    };
                    if let (Some(place), Some(answer)) = (replies.get_mut(*index), answer) {
                        *place = answer;
                    }
                }
            }
            for (index, cmd) in &scripts {
                if let (Some(script), Some(Err(error))) = (cmd.script(), replies.get_mut(*index)) {
                    *error = script_error(error.clone(), script);
                }
            }
            Ok(Answers::new(replies))
        }
    }
}

impl<D: Driver + ?Sized> DriverExt for D {}

/// Calls a script by its digest, and with its source where the server does not know it.
async fn call_script<D: Driver + ?Sized>(
    driver: &D,
    cmd: Cmd,
    script: &'static Script,
) -> Result<Reply> {
    let reply = match driver.call(cmd.clone()).await {
        Err(error) if error.kind() == ErrorKind::NoScript => driver.call(cmd.with_source()).await,
        other => other,
    };
    reply.map_err(|error| script_error(error, script))
}

/// A script that raised an error may have written before it.
fn script_error(error: Error, script: &Script) -> Error {
    // The server names the line of the script in what was raised inside it; older ones do not always.
    let inside = error.to_string().contains("user_script");
    let raised = inside || (error.kind() == ErrorKind::Server && !error.is_transient());
    let maybe_applied = raised || error.maybe_applied();
    error.with("script", script.sha1()).with_maybe_applied(maybe_applied)
}

pub(crate) type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

// Written out instead of `#[async_trait]`, which would put the future into a second box.
macro_rules! forward {
    ($($pointer:ident),*) => {$(
        #[deny(clippy::missing_trait_methods)]
        impl<D: Driver + ?Sized> Driver for $pointer<D> {
            fn call<'a, 'b>(&'a self, cmd: Cmd) -> Answer<'b, Reply>
            where
                'a: 'b,
            {
                (**self).call(cmd)
            }

            fn pipeline<'a, 'b>(&'a self, batch: Batch) -> Answer<'b, Vec<Result<Reply>>>
            where
                'a: 'b,
            {
                (**self).pipeline(batch)
            }
        }
    )*};
}
forward!(Arc, Box);

/// The refusal of a command that would hold up everybody else on the connection.
#[cfg(any(feature = "fred", feature = "redis"))]
#[inline]
pub(crate) fn refuse_blocking(cmds: &[Cmd]) -> Result<()> {
    match cmds.iter().find(|cmd| cmd.blocking_for().is_some()) {
        Some(cmd) => Err(Error::new(
            ErrorKind::Config,
            "a blocking command needs a connection of its own: open one with Connect::connect",
        )
        .with("command", cmd.name())),
        None => Ok(()),
    }
}
