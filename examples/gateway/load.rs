//! `--load N`: requests as they come in life, so that the page shows some.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use inferkit_examples::Result;
use serde_json::json;

use crate::config::Config;

/// Questions, each in several wordings.
const QUESTIONS: [[&str; 3]; 10] = [
    [
        "What is the capital of France?",
        "what's the capital of france?",
        "Tell me the capital of France",
    ],
    [
        "Explain photosynthesis briefly",
        "explain photosynthesis in short",
        "What is photosynthesis?",
    ],
    ["How fast does light travel?", "what is the speed of light", "How fast is light?"],
    ["What is an LLM?", "what does LLM mean?", "what is a large language model?"],
    ["Who wrote Hamlet?", "who is the author of Hamlet?", "Hamlet was written by whom?"],
    ["What is the largest planet?", "which planet is the largest?", "biggest planet?"],
    ["What is Valkey?", "what's valkey", "Tell me what Valkey is"],
    ["What is the capital of Japan?", "what's the japanese capital", "Name the capital of Japan."],
    [
        "When did the Second World War end?",
        "when did WW2 end?",
        "In which year did the Second World War end?",
    ],
    ["What is a semantic cache?", "explain semantic caching", "what does a semantic cache do?"],
];

/// Requests that are under way at the same time.
const AT_ONCE: usize = 6;
const PAUSE: Duration = Duration::from_millis(120);

/// Sends `count` requests to the gateway at `address`, and returns how many were answered.
pub(crate) async fn load(config: &Config, address: SocketAddr, count: usize) -> Result<usize> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(60)).build()?;
    let model = config.models.first().map_or("offline-answers", |model| &model.name).to_owned();
    let keys: Vec<_> = config.keys.iter().map(|key| key.key.0.clone()).collect();
    let (next, answered) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let workers = (0..AT_ONCE).map(|_| {
        let (client, model, keys) = (client.clone(), model.clone(), keys.clone());
        let (next, answered) = (Arc::clone(&next), Arc::clone(&answered));
        tokio::spawn(async move {
            loop {
                let place = next.fetch_add(1, Ordering::Relaxed);
                if count <= place {
                    return;
                }
                if send(&client, address, &model, &keys, place).await.is_ok_and(|ok| ok) {
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                tokio::time::sleep(PAUSE).await;
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await?;
    }
    Ok(answered.load(Ordering::Relaxed))
}

async fn send(
    client: &reqwest::Client,
    address: SocketAddr,
    model: &str,
    keys: &[String],
    place: usize,
) -> Result<bool> {
    // Places are scattered, so that neighbors differ in everything.
    let mixed = place.wrapping_mul(2_654_435_761) >> 7;
    let key = keys.get(mixed % keys.len().max(1)).map(String::as_str).unwrap_or_default();
    let request = match mixed % 10 {
        0 => {
            let body = json!({ "user": format!("user-{}", mixed % 37) });
            client.post(format!("http://{address}/v1/recommend")).json(&body)
        }
        1 => {
            let body = json!({
                "model": "all-MiniLM-L6-v2",
                "input": [format!("document {}", mixed % 23), "a text that comes again"],
            });
            client.post(format!("http://{address}/v1/embeddings")).json(&body)
        }
        kind => {
            // What is asked often is asked very often: half of all questions are of three.
            let few = if mixed & 64 == 0 { 3 } else { QUESTIONS.len() };
            let question = QUESTIONS.get((mixed / 10) % few);
            let wording = question.and_then(|question| question.get((mixed / 100) % 3));
            let body = json!({
                "model": model, "stream": kind % 2 == 0,
                "messages": [{ "role": "user", "content": wording.copied().unwrap_or("Hello?") }],
            });
            let request = client.post(format!("http://{address}/v1/chat/completions")).json(&body);
            match kind {
                2 => request.header("x-session-id", format!("trip-{}", mixed % 5)),
                _ => request,
            }
        }
    };
    let response = request.bearer_auth(key).send().await?;
    let ok = response.status().is_success();
    response.bytes().await?;
    Ok(ok)
}
