use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use tokio::sync::mpsc;

use crate::{Answer, Finish, GenerateError, Served, Source};

/// About how long the pieces are in which an answer of the cache is replayed, in bytes.
const PIECE: usize = 24;

/// A piece of an answer.
///
/// `Debug` does not print the text.
#[derive(Clone, Eq, PartialEq)]
#[non_exhaustive]
pub enum Chunk {
    /// The next piece of the text.
    Text(Bytes),
    /// The end: without it the answer counts as broken off.
    #[non_exhaustive]
    Done {
        /// How the model ended.
        finish: Finish,
        /// The tokens of the request and of the answer, if known.
        usage: Option<(u64, u64)>,
    },
}

impl Chunk {
    /// Makes a piece of the text.
    #[must_use]
    pub fn text(text: impl Into<Bytes>) -> Self {
        Self::Text(text.into())
    }

    /// Makes the end.
    #[must_use]
    pub fn done(finish: Finish, usage: Option<(u64, u64)>) -> Self {
        Self::Done { finish, usage }
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "Text({} B)", text.len()),
            Self::Done { finish, usage } => {
                f.debug_struct("Done").field("finish", finish).field("usage", usage).finish()
            }
        }
    }
}

type Work = Pin<Box<dyn Future<Output = Result<Served, GenerateError>> + Send>>;

/// An answer, piece by piece; the last one is [`Chunk::Done`] or an error.
///
/// [`Chunk::Done`] comes when the answer is stored, after all of its text has been passed on.
#[must_use = "nothing happens before it is read"]
pub struct AnswerStream {
    /// What looks up or generates; it runs while the stream is read.
    work: Option<Work>,
    /// What comes of it as it is generated.
    pieces: mpsc::Receiver<Chunk>,
    /// Whether anything came that way.
    passed: Arc<AtomicBool>,
    /// What is to be replayed.
    tail: VecDeque<Chunk>,
    source: Option<Source>,
    stored_at: Option<Duration>,
}

/// Where the pieces of an answer go while it is generated.
pub(crate) struct Pieces {
    to: mpsc::Sender<Chunk>,
    passed: Arc<AtomicBool>,
}

impl AnswerStream {
    pub(crate) fn new<F>(work: impl FnOnce(Pieces) -> F) -> Self
    where
        F: Future<Output = Result<Served, GenerateError>> + Send + 'static,
    {
        let (to, pieces) = mpsc::channel(1);
        let passed = Arc::new(AtomicBool::new(false));
        let work = work(Pieces { to, passed: Arc::clone(&passed) });
        Self {
            work: Some(Box::pin(work)),
            pieces,
            passed,
            tail: VecDeque::new(),
            source: None,
            stored_at: None,
        }
    }

    /// Returns the next piece; `None` after the last.
    pub async fn next(&mut self) -> Option<Result<Chunk, GenerateError>> {
        futures_util::StreamExt::next(self).await
    }

    /// Returns where the answer came from, once its last piece is known.
    #[must_use]
    pub fn source(&self) -> Option<Source> {
        self.source
    }

    /// Returns when the cache stored the answer, since the Unix epoch, if it came from there and that is known.
    #[must_use]
    pub fn stored_at(&self) -> Option<Duration> {
        self.stored_at
    }
}

impl Stream for AnswerStream {
    type Item = Result<Chunk, GenerateError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Ok(chunk) = this.pieces.try_recv() {
            return Poll::Ready(Some(Ok(chunk)));
        }
        if let Some(work) = &mut this.work {
            let outcome = work.as_mut().poll(context);
            // Whatever the work sent it sent in this very call.
            if let Poll::Ready(outcome) = outcome {
                this.work = None;
                match outcome {
                    Ok(served) => {
                        this.source = Some(served.source);
                        this.stored_at = served.stored_at;
                        this.tail = match this.passed.load(Ordering::Relaxed) {
                            true => [done(&served.answer)].into(),
                            false => replay(&served.answer),
                        };
                    }
                    Err(error) => {
                        // The pieces before it are still in the channel, at most one.
                        if let Ok(chunk) = this.pieces.try_recv() {
                            this.work = Some(Box::pin(std::future::ready(Err(error))));
                            return Poll::Ready(Some(Ok(chunk)));
                        }
                        return Poll::Ready(Some(Err(error)));
                    }
                }
            }
            if let Ok(chunk) = this.pieces.try_recv() {
                return Poll::Ready(Some(Ok(chunk)));
            }
            if this.work.is_some() {
                return Poll::Pending;
            }
        }
        Poll::Ready(this.tail.pop_front().map(Ok))
    }
}

impl fmt::Debug for AnswerStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerStream").field("source", &self.source).finish_non_exhaustive()
    }
}

/// Passes the pieces of a stream on, and returns what they are together.
pub(crate) async fn collect<F, G, S, E>(start: F, pieces: Pieces) -> Result<Answer, GenerateError>
where
    F: FnOnce() -> G + Send,
    G: Future<Output = Result<S, E>> + Send,
    S: Stream<Item = Result<Chunk, E>> + Send,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let failed = |error: E| GenerateError::Generate(Arc::from(error.into()));
    let mut chunks = Box::pin(start().await.map_err(failed)?);
    let mut text = BytesMut::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(failed)?;
        match chunk {
            Chunk::Text(piece) => {
                text.extend_from_slice(&piece);
                pieces.passed.store(true, Ordering::Relaxed);
                // The receiver lives as long as this future, which it polls.
                let _ = pieces.to.send(Chunk::Text(piece)).await;
            }
            // It is passed on when the answer is stored: whoever reads no further has not stopped the storing.
            Chunk::Done { finish, usage } => {
                let answer = Answer::new(text.freeze())
                    .map_err(|error| GenerateError::Generate(Arc::new(error)))?;
                let answer = answer.with_finish(finish);
                return Ok(match usage {
                    Some((prompt, completion)) => answer.with_usage(prompt, completion),
                    None => answer,
                });
            }
        }
    }
    Err(GenerateError::BrokenOff)
}

/// The pieces of an answer: a few words each, or as many bytes where it is no text.
fn replay(answer: &Answer) -> VecDeque<Chunk> {
    let response = answer.response();
    let mut chunks = VecDeque::new();
    let mut start = 0;
    while start < response.len() {
        let end = end_of_piece(answer, start);
        chunks.push_back(Chunk::Text(response.slice(start..end)));
        start = end;
    }
    chunks.push_back(done(answer));
    chunks
}

fn done(answer: &Answer) -> Chunk {
    let usage = answer.tokens_used().zip(answer.completion_tokens());
    let usage = usage.map(|(all, completion)| (all.saturating_sub(completion), completion));
    Chunk::Done { finish: answer.finish(), usage }
}

/// Behind the first blank after about a piece, so that no word and no character is torn.
fn end_of_piece(answer: &Answer, start: usize) -> usize {
    let len = answer.response().len();
    let from = start.saturating_add(PIECE).min(len);
    let Some(text) = answer.text() else { return from };
    let from = (from..len).find(|place| text.is_char_boundary(*place)).unwrap_or(len);
    let rest = text.get(from..).unwrap_or_default();
    rest.char_indices()
        .find(|(_, c)| c.is_whitespace())
        .map_or(len, |(place, c)| from + place + c.len_utf8())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pieces(answer: &Answer) -> Vec<Bytes> {
        replay(answer)
            .into_iter()
            .filter_map(|chunk| match chunk {
                Chunk::Text(text) => Some(text),
                Chunk::Done { .. } => None,
            })
            .collect()
    }

    #[test]
    fn answers_are_replayed_in_words() {
        let text = "plants turn light into sugar and oxygen. ".repeat(4);
        let pieces = pieces(&Answer::new(text.clone()).unwrap());
        assert!(3 < pieces.len() && pieces.iter().all(|piece| piece.len() < 48));
        assert!(pieces.iter().rev().skip(1).all(|piece| piece.ends_with(b" ")));
        assert_eq!(pieces.concat(), text.as_bytes());
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_no_character_torn(text in "[a é日🙂\n]{0,200}", bytes in prop::collection::vec(any::<u8>(), 1..200)) {
            let text = Answer::new(format!("x{text}")).unwrap();
            let parts = pieces(&text);
            prop_assert!(parts.iter().all(|piece| str::from_utf8(piece).is_ok()));
            prop_assert_eq!(parts.concat(), text.response().to_vec());
            if let Ok(answer) = Answer::new(bytes.clone()) {
                prop_assert_eq!(pieces(&answer).concat(), bytes);
            }
        }
    }
}
