//! One generation for many callers, and what happens when it fails: within a process, and between two coalescers on one
//! server, which know no more of each other than two processes do.
#![expect(clippy::panic, clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::io::{Error as IoError, ErrorKind as IoErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use inferkit_localredis::{Flavor, Server};
use inferkit_semcache::conformance::{Compass, policy};
use inferkit_semcache::{
    Answer, CacheControl, Chunk, Coalescer, Finish, GenerateError, Lookup, MemorySemanticCache,
    OnCacheError, RedisFlights, RedisSemanticCache, SemanticCache, Source,
};
use support::{answer, request};
use tokio::sync::Notify;

fn memory() -> Arc<MemorySemanticCache> {
    Arc::new(MemorySemanticCache::new(Arc::new(Compass::default()), policy()))
}

fn over(cache: &Arc<MemorySemanticCache>) -> Coalescer {
    Coalescer::new(Arc::<MemorySemanticCache>::clone(cache))
}

/// A cache and two coalescers over it that meet only at the server.
async fn two() -> (Arc<RedisSemanticCache>, [Coalescer; 2]) {
    let server = Server::shared(Flavor::Redis).unwrap();
    let pool = support::pool_of(server.url()).await;
    let config = support::config();
    let namespace = config.namespace.clone();
    let cache = Arc::new(support::over(pool.clone().into_driver(), config).await);
    let coalescers = [(); 2].map(|()| {
        let driver = pool.clone().into_driver();
        let flights = RedisFlights::new(driver, Arc::new(pool.clone()), namespace.clone());
        let cache = Arc::<RedisSemanticCache>::clone(&cache);
        Coalescer::new(cache).across(flights).with_lease(Duration::from_millis(600))
    });
    (cache, coalescers)
}

fn down() -> IoError {
    IoError::new(IoErrorKind::TimedOut, "the model is out")
}

async fn never() -> Result<Answer, IoError> {
    panic!("nothing is to be generated")
}

#[tokio::test(flavor = "multi_thread")]
async fn many_tasks_share_one_generation() {
    let cache = memory();
    let (coalescer, runs) = (over(&cache), Arc::new(AtomicUsize::new(0)));
    let call = || {
        let (coalescer, runs) = (coalescer.clone(), Arc::clone(&runs));
        tokio::spawn(async move {
            let generate = || async move {
                tokio::time::sleep(Duration::from_millis(50)).await;
                runs.fetch_add(1, Ordering::SeqCst);
                Ok::<_, IoError>(answer("yes"))
            };
            coalescer.get_or_generate(&request("1@0"), generate).await.unwrap()
        })
    };
    let calls: Vec<_> = (0..64).map(|_| call()).collect();
    let mut generated = 0;
    for call in calls {
        let served = call.await.unwrap();
        assert_eq!(served.answer.text(), Some("yes"));
        generated += usize::from(served.source == Source::Generated);
    }
    assert_eq!((runs.load(Ordering::SeqCst), generated), (1, 1));
    let stats = cache.stats();
    assert_eq!((stats.misses, stats.stored), (1, 1), "one lookup for all");
    let again = coalescer.get_or_generate(&request("1@0"), never).await.unwrap();
    assert_eq!(again.source, Source::Exact);
    let similar = coalescer.get_or_generate(&request("1@5"), never).await.unwrap();
    assert!(matches!(similar.source, Source::Semantic(similarity) if 0.99 < similarity.as_f64()));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_question_is_not_waited_for() {
    let coalescer = over(&memory());
    let [began, gate] = [(); 2].map(|()| Arc::new(Notify::new()));
    let waiting = {
        let (coalescer, began, gate) = (coalescer.clone(), Arc::clone(&began), Arc::clone(&gate));
        tokio::spawn(async move {
            let generate = || async move {
                began.notify_one();
                gate.notified().await;
                Ok::<_, IoError>(answer("slow"))
            };
            coalescer.get_or_generate(&request("1@0"), generate).await.unwrap()
        })
    };
    // It has looked up by now, and found nothing.
    began.notified().await;
    // Another prompt, however similar, another tenant, and another wish are other questions.
    let stranger = support::of("other", "1@0");
    let anew = request("1@0").with_control(CacheControl::new().no_cache());
    for question in [request("1@1"), stranger, anew] {
        let generate = || async { Ok::<_, IoError>(answer("fast")) };
        let served = coalescer.get_or_generate(&question, generate).await.unwrap();
        assert_eq!((served.answer.text(), served.source), (Some("fast"), Source::Generated));
    }
    gate.notify_one();
    assert_eq!(waiting.await.unwrap().answer.text(), Some("slow"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_reaches_all_who_waited_and_is_not_remembered() {
    let coalescer = over(&memory());
    let runs = Arc::new(AtomicUsize::new(0));
    let call = || {
        let (coalescer, runs) = (coalescer.clone(), Arc::clone(&runs));
        tokio::spawn(async move {
            let generate = || async move {
                tokio::time::sleep(Duration::from_millis(50)).await;
                runs.fetch_add(1, Ordering::SeqCst);
                Err::<Answer, _>(down())
            };
            coalescer.get_or_generate(&request("1@0"), generate).await.unwrap_err()
        })
    };
    let calls: Vec<_> = (0..8).map(|_| call()).collect();
    for call in calls {
        let error = call.await.unwrap();
        let GenerateError::Generate(source) = &error else { panic!("{error:?}") };
        assert_eq!(source.to_string(), "the model is out");
    }
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    let served = coalescer
        .get_or_generate(&request("1@0"), || async { Ok::<_, IoError>(answer("yes")) })
        .await
        .unwrap();
    assert_eq!(served.source, Source::Generated);
}

#[tokio::test]
async fn a_failure_is_remembered_where_that_is_wanted() {
    let coalescer = over(&memory()).with_negative_ttl(Duration::from_millis(100));
    let fail = || async { Err::<Answer, _>(down()) };
    coalescer.get_or_generate(&request("1@0"), fail).await.unwrap_err();
    coalescer.get_or_generate(&request("1@0"), never).await.unwrap_err();
    coalescer
        .get_or_generate(&request("2@0"), || async { Ok::<_, IoError>(answer("other")) })
        .await
        .unwrap();
    let start = Instant::now();
    let succeed = || async { Ok::<_, IoError>(answer("yes")) };
    while coalescer.get_or_generate(&request("1@0"), succeed).await.is_err() {
        assert!(start.elapsed() < Duration::from_secs(10), "it is remembered for ever");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_takes_over_from_who_is_dropped() {
    // In the same process, and in another one, where the lease must end first.
    for elsewhere in [false, true] {
        let (_, [here, there]) = two().await;
        let started = Arc::new(Notify::new());
        let first = {
            let (here, started) = (here.clone(), Arc::clone(&started));
            tokio::spawn(async move {
                let generate = || async move {
                    started.notify_one();
                    std::future::pending::<Result<Answer, IoError>>().await
                };
                here.get_or_generate(&request("1@0"), generate).await
            })
        };
        started.notified().await;
        let coalescer = if elsewhere { there } else { here };
        let second = tokio::spawn(async move {
            let generate = || async { Ok::<_, IoError>(answer("second")) };
            coalescer.get_or_generate(&request("1@0"), generate).await.unwrap()
        });
        tokio::task::yield_now().await;
        first.abort();
        let served = second.await.unwrap();
        assert_eq!((served.answer.text(), served.source), (Some("second"), Source::Generated));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_generation_is_given_back_at_once_where_that_is_run() {
    let (_, [here, there]) = two().await;
    let there = there.clone();
    let run = tokio::spawn(here.run());
    let started = Arc::new(Notify::new());
    let first = {
        let (here, started) = (here.clone(), Arc::clone(&started));
        tokio::spawn(async move {
            let generate = || async move {
                started.notify_one();
                std::future::pending::<Result<Answer, IoError>>().await
            };
            here.get_or_generate(&request("1@0"), generate).await
        })
    };
    started.notified().await;
    first.abort();
    drop(here);
    // It ends when all leases are given back.
    run.await.unwrap();
    let generate = || async { Ok::<_, IoError>(answer("second")) };
    let start = Instant::now();
    there.get_or_generate(&request("1@0"), generate).await.unwrap();
    assert!(start.elapsed() < Duration::from_millis(500), "the lease had not to end");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_is_woken_by_the_answer() {
    let (_, [here, there]) = two().await;
    // So long that only being woken ends the wait in time.
    let (started, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let owner = {
        let (here, started, go) = (here.clone(), Arc::clone(&started), Arc::clone(&go));
        tokio::spawn(async move {
            let generate = || async move {
                started.notify_one();
                go.notified().await;
                Ok::<_, IoError>(answer("yes").with_usage(5, 1))
            };
            here.get_or_generate(&request("1@0"), generate).await.unwrap()
        })
    };
    started.notified().await;
    let waiter = {
        let there = there.clone();
        tokio::spawn(async move { there.get_or_generate(&request("1@0"), never).await.unwrap() })
    };
    // Longer than the lease: it is renewed meanwhile.
    tokio::time::sleep(Duration::from_millis(900)).await;
    go.notify_one();
    assert_eq!(owner.await.unwrap().source, Source::Generated);
    let served = waiter.await.unwrap();
    assert_eq!((served.answer.text(), served.source), (Some("yes"), Source::Shared));
    assert_eq!(served.answer.tokens_used(), Some(6));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_tries_itself_after_a_failure_or_an_answer_that_is_not_for_others() {
    for first in [Err(()), Ok(answer("cut").with_finish(Finish::Truncated))] {
        let (cache, [here, there]) = two().await;
        let (started, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let owner = {
            let (here, started, go) = (here.clone(), Arc::clone(&started), Arc::clone(&go));
            tokio::spawn(async move {
                let generate = || async move {
                    started.notify_one();
                    go.notified().await;
                    first.map_err(|()| down())
                };
                here.get_or_generate(&request("1@0"), generate).await
            })
        };
        started.notified().await;
        let waiter = {
            let there = there.clone();
            tokio::spawn(async move {
                let generate = || async { Ok::<_, IoError>(answer("second")) };
                there.get_or_generate(&request("1@0"), generate).await.unwrap()
            })
        };
        tokio::time::sleep(Duration::from_millis(50)).await;
        go.notify_one();
        let _ = owner.await.unwrap();
        let served = waiter.await.unwrap();
        assert_eq!((served.answer.text(), served.source), (Some("second"), Source::Generated));
        assert!(!matches!(cache.lookup(&request("1@0")).await.unwrap().hit(),
            Some(hit) if hit.text() == Some("cut")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_is_gone_is_gone_around_or_an_error() {
    let server = Server::start(Flavor::Redis).unwrap();
    let pool = support::pool_of(server.url()).await;
    let config = support::config();
    let namespace = config.namespace.clone();
    let cache = Arc::new(support::over(pool.clone().into_driver(), config).await);
    let make = || {
        let flights = RedisFlights::new(
            pool.clone().into_driver(),
            Arc::new(pool.clone()),
            namespace.clone(),
        );
        Coalescer::new(Arc::<RedisSemanticCache>::clone(&cache)).across(flights)
    };
    let (open, closed) = (make(), make().with_on_cache_error(OnCacheError::Fail));
    drop(server);
    let generate = || async { Ok::<_, IoError>(answer("without a cache")) };
    let served = open.get_or_generate(&request("1@0"), generate).await.unwrap();
    assert_eq!((served.answer.text(), served.source), (Some("without a cache"), Source::Generated));
    let error = closed.get_or_generate(&request("1@0"), never).await.unwrap_err();
    assert!(matches!(error, GenerateError::Cache(_)), "{error:?}");
}

#[tokio::test]
async fn requests_that_want_to_leave_nothing_are_answered_on_their_own() {
    let cache = memory();
    let coalescer = over(&cache);
    let private = request("1@0").with_control(CacheControl::new().no_store());
    let generate = || async {
        tokio::task::yield_now().await;
        Ok::<_, IoError>(answer("private"))
    };
    let (one, other) = tokio::join!(
        coalescer.get_or_generate(&private, generate),
        coalescer.get_or_generate(&private, generate),
    );
    for served in [one.unwrap(), other.unwrap()] {
        assert_eq!(served.source, Source::Generated);
    }
    assert!(cache.lookup(&request("1@0")).await.unwrap().hit().is_none());
}

const WORDS: [&str; 4] = ["plants ", "turn ", "light ", "into sugar"];

fn words() -> impl futures_util::Stream<Item = Result<Chunk, IoError>> + Send + 'static {
    let done = Chunk::done(Finish::Complete, Some((3, 4)));
    stream::iter(WORDS.map(Chunk::text).into_iter().chain([done]).map(Ok))
}

/// The text of a stream and how it ended.
async fn read(
    mut stream: inferkit_semcache::AnswerStream,
) -> (String, Result<Option<Chunk>, String>) {
    let mut text = String::new();
    let mut done = None;
    while let Some(chunk) = stream.next().await {
        match chunk {
            Ok(Chunk::Text(piece)) => text.push_str(str::from_utf8(&piece).unwrap()),
            Ok(chunk) => done = Some(chunk),
            Err(error) => return (text, Err(error.to_string())),
        }
    }
    (text, Ok(done))
}

#[tokio::test]
async fn a_stream_is_stored_as_it_passes_and_replayed() {
    let cache = memory();
    let coalescer = over(&cache);
    let mut stream = coalescer.get_or_stream(request("1@0"), || async { Ok(words()) });
    for (place, word) in WORDS.into_iter().enumerate() {
        assert_eq!(stream.next().await.unwrap().unwrap(), Chunk::text(word));
        assert!(stream.source().is_none() || place + 1 == WORDS.len(), "the end is not known yet");
    }
    let done = Chunk::done(Finish::Complete, Some((3, 4)));
    assert_eq!(read(stream).await, (String::new(), Ok(Some(done.clone()))));
    let Lookup::Exact(hit) = cache.lookup(&request("1@0")).await.unwrap() else { panic!() };
    assert_eq!((hit.text(), hit.tokens_used), (Some("plants turn light into sugar"), Some(7)));
    for prompt in ["1@0", "1@5"] {
        let stream = coalescer
            .get_or_stream(request(prompt), || async { Err::<stream::Empty<_>, _>(down()) });
        let replayed = read(stream).await;
        assert_eq!(replayed, ("plants turn light into sugar".to_owned(), Ok(Some(done.clone()))));
    }
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_never_stored() {
    let cache = memory();
    let coalescer = over(&cache);
    let error = stream::iter([Ok(Chunk::text("plants ")), Err(down())]);
    let ended = stream::iter([Ok::<_, IoError>(Chunk::text("plants "))]);
    let cut = stream::iter([
        Ok::<_, IoError>(Chunk::text("plants ")),
        Ok(Chunk::done(Finish::Truncated, None)),
    ]);
    let first = read(coalescer.get_or_stream(request("1@0"), || async { Ok(error) })).await;
    assert_eq!(first, ("plants ".to_owned(), Err("the answer could not be generated".to_owned())));
    let second = read(coalescer.get_or_stream(request("1@0"), || async { Ok(ended) })).await;
    assert!(
        matches!(&second, (text, Err(error)) if text == "plants " && error.contains("ended before"))
    );
    let third = read(coalescer.get_or_stream(request("1@0"), || async { Ok(cut) })).await;
    assert_eq!(third, ("plants ".to_owned(), Ok(Some(Chunk::done(Finish::Truncated, None)))));
    let mut dropped = coalescer.get_or_stream(request("1@0"), || async { Ok(words()) });
    assert_eq!(dropped.next().await.unwrap().unwrap(), Chunk::text("plants "));
    drop(dropped);
    assert!(cache.lookup(&request("1@0")).await.unwrap().hit().is_none());
    assert_eq!(cache.stats().stored, 0);
    // And nobody waits for it.
    let again = read(coalescer.get_or_stream(request("1@0"), || async { Ok(words()) })).await;
    assert_eq!(again.0, "plants turn light into sugar");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_stream_receives_the_whole_answer() {
    for elsewhere in [false, true] {
        let (_, [here, there]) = two().await;
        let (started, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let slow = {
            let (started, go) = (Arc::clone(&started), Arc::clone(&go));
            words().then(move |chunk| {
                let (started, go) = (Arc::clone(&started), Arc::clone(&go));
                async move {
                    if chunk.as_ref().is_ok_and(|chunk| *chunk == Chunk::text("light ")) {
                        started.notify_one();
                        go.notified().await;
                    }
                    chunk
                }
            })
        };
        let owner = here.get_or_stream(request("1@0"), || async { Ok(slow) });
        let owner = tokio::spawn(read(owner));
        started.notified().await;
        let waiting = if elsewhere { there } else { here };
        let none = || async { Err::<stream::Empty<_>, _>(down()) };
        let waiter = tokio::spawn(read(waiting.get_or_stream(request("1@0"), none)));
        tokio::time::sleep(Duration::from_millis(30)).await;
        go.notify_one();
        let whole = "plants turn light into sugar";
        assert_eq!(owner.await.unwrap().0, whole);
        let (text, end) = waiter.await.unwrap();
        assert_eq!((text.as_str(), end.is_ok()), (whole, true));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_whose_end_was_received_is_stored() {
    let (cache, [coalescer, _]) = two().await;
    let start = || async {
        let chunks =
            [Chunk::text("It "), Chunk::text("is."), Chunk::done(Finish::Complete, Some((3, 2)))];
        Ok::<_, IoError>(stream::iter(chunks.map(Ok)))
    };
    let mut answer = coalescer.get_or_stream(request("1@0"), start);
    let mut text = Vec::new();
    loop {
        match answer.next().await.unwrap().unwrap() {
            Chunk::Text(piece) => text.extend_from_slice(&piece),
            Chunk::Done { finish, usage, .. } => {
                assert_eq!((finish, usage), (Finish::Complete, Some((3, 2))));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((&text[..], answer.source()), (&b"It is."[..], Some(Source::Generated)));
    // Nobody reads on: callers stop at the end.
    drop(answer);
    assert!(matches!(cache.lookup(&request("1@0")).await.unwrap(), Lookup::Exact(_)));
}
