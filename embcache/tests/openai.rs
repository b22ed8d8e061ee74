//! The embedder over HTTP, against a small server of our own.
#![cfg(feature = "openai")]
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use inferkit_embcache::{Embedder, EmbedderExt as _, Error, OpenAiConfig, OpenAiEmbedder};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

type Requests = Arc<Mutex<Vec<String>>>;

/// Answers every request with `answer(request)`: a status line's end and a body; nothing for `None`.
async fn serve(
    answer: impl Fn(&str) -> Option<(&'static str, String)> + Send + Sync + 'static,
) -> (String, Requests) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/", listener.local_addr().unwrap());
    let requests = Requests::default();
    let (answer, log) = (Arc::new(answer), Arc::clone(&requests));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
            tokio::spawn(async move {
                let request = read_request(&mut stream).await;
                log.lock().unwrap().push(request.clone());
                let Some((status, body)) = answer(&request) else {
                    tokio::time::sleep(Duration::from_secs(60)).await;
                    return;
                };
                let head = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    body.len()
                );
                stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
            });
        }
    });
    (url, requests)
}

async fn read_request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let count = stream.read(&mut chunk).await.unwrap();
        bytes.extend(chunk.iter().take(count));
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length: usize = head
                .lines()
                .find_map(|line| {
                    line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok()
                })
                .unwrap_or(0);
            if count == 0 || length <= body.len() {
                return text;
            }
        }
    }
}

fn config(url: &str) -> OpenAiConfig {
    OpenAiConfig::new(url, "small", 2).with_api_key("sk-secret")
}

fn answer_in(order: &[usize]) -> String {
    let items: Vec<String> = order
        .iter()
        .map(|index| {
            format!(r#"{{"object":"embedding","index":{index},"embedding":[{index},0.5]}}"#)
        })
        .collect();
    format!(r#"{{"object":"list","data":[{}],"usage":{{"total_tokens":3}}}}"#, items.join(","))
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_stand_in_the_order_of_the_texts() {
    let (url, requests) = serve(|_| Some(("200 OK", answer_in(&[2, 0, 1])))).await;
    let embedder = OpenAiEmbedder::new(config(&url)).unwrap();
    let vectors = embedder.embed_many(&["a", "b \"quoted\"", "c"]).await.unwrap();
    assert_eq!(vectors, [[0.0, 0.5], [1.0, 0.5], [2.0, 0.5]]);
    let requests = requests.lock().unwrap().clone();
    let [request] = &requests[..] else { panic!("{requests:?}") };
    assert!(request.starts_with("POST /v1/embeddings HTTP/1.1\r\n"), "{request}");
    assert!(request.to_ascii_lowercase().contains("authorization: bearer sk-secret\r\n"));
    assert!(request.ends_with(
        r#"{"model":"small","input":["a","b \"quoted\"","c"],"encoding_format":"float"}"#
    ));
    assert!(embedder.embed_many(&[]).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn large_batches_are_split() {
    let (url, requests) = serve(|request| {
        let count = request.matches('"').count() / 2 - 5;
        Some(("200 OK", answer_in(&(0..count).collect::<Vec<_>>())))
    })
    .await;
    let config = config(&url).with_batch_limit(2);
    let embedder = OpenAiEmbedder::new(config).unwrap();
    let vectors = embedder.embed_many(&["a", "b", "c", "d", "e"]).await.unwrap();
    assert_eq!(vectors.len(), 5);
    assert_eq!(requests.lock().unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_do_not_fit_are_errors() {
    let ask = async |body: String| {
        let (url, _) = serve(move |_| Some(("200 OK", body.clone()))).await;
        OpenAiEmbedder::new(config(&url)).unwrap().embed_many(&["a", "b"]).await.unwrap_err()
    };
    assert!(matches!(ask(answer_in(&[0])).await, Error::CountMismatch { expected: 2, got: 1, .. }));
    assert!(matches!(ask(answer_in(&[0, 0])).await, Error::CountMismatch { .. }));
    assert!(matches!(ask(answer_in(&[0, 9])).await, Error::CountMismatch { .. }));
    assert!(matches!(ask(answer_in(&[0, 1, 2])).await, Error::CountMismatch { .. }));
    let short = r#"{"data":[{"index":0,"embedding":[1]},{"index":1,"embedding":[1]}]}"#;
    let error = ask(short.to_owned()).await;
    assert!(matches!(error, Error::DimensionMismatch { expected: 2, got: 1, .. }));
    let huge = r#"{"data":[{"index":0,"embedding":[1e99,1]},{"index":1,"embedding":[1,1]}]}"#;
    assert!(matches!(ask(huge.to_owned()).await, Error::NotFinite { .. } | Error::Embedder { .. }));
    let error = ask("no json".to_owned()).await;
    assert!(matches!(error, Error::Embedder { transient: false, .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_keep_the_status_and_the_name_of_the_error_only() {
    let echo = r#""message":"no: s3cret sk-secret""#;
    let cases = [
        (
            "429 Too Many",
            true,
            format!(r#"{{"error":{{{echo},"code":"rate_limit_exceeded"}}}}"#),
            Some("rate_limit_exceeded"),
        ),
        (
            "400 Bad",
            false,
            format!(r#"{{"error":{{{echo},"code":null,"type":"invalid_request_error"}}}}"#),
            Some("invalid_request_error"),
        ),
        (
            "400 Bad",
            false,
            format!(r#"{{"error":{{{echo},"code":400,"type":"invalid"}}}}"#),
            Some("invalid"),
        ),
        (
            "400 Bad",
            false,
            r#"{"error":{"code":"the input s3cret","type":"invalid"}}"#.to_owned(),
            Some("invalid"),
        ),
        ("401 No", false, r#"{"error":{"code":"sk-secret","type":["s3cret"]}}"#.to_owned(), None),
        (
            "401 No",
            false,
            format!(r#"{{"error":{{"code":"s3cret{}"}}}}"#, "s3cret".repeat(9)),
            None,
        ),
        ("401 No", false, r#"{"error":{"code":"","type":{"s3cret":1}}}"#.to_owned(), None),
        ("401 No", false, r#"{"error":"s3cret","code":"s3cret"}"#.to_owned(), None),
        ("503 Busy", true, "s3cret sk-secret".repeat(50), None),
        ("503 Busy", true, String::new(), None),
    ];
    for (status, transient, body, expected) in cases {
        let (url, _) = serve(move |_| Some((status, body.clone()))).await;
        let error = OpenAiEmbedder::new(config(&url)).unwrap().embed("a").await.unwrap_err();
        assert_eq!(error.is_transient(), transient, "{error}");
        let Error::Status { status: number, code, .. } = &error else { panic!("{error:?}") };
        assert!(status.starts_with(&number.to_string()));
        assert_eq!(code.as_deref(), expected);
        assert!(error.to_string().contains(expected.unwrap_or("status")), "{error}");
        let printed = format!("{error} {error:?}");
        assert!(!printed.contains("cret"), "{printed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_cannot_be_read_is_not_repeated() {
    let body = r#"{"data":[{"index":0,"embedding":["s3cret","s3cret"]}]}"#;
    let (url, _) = serve(move |_| Some(("200 OK", body.to_owned()))).await;
    let error = OpenAiEmbedder::new(config(&url)).unwrap().embed("a").await.unwrap_err();
    assert!(matches!(error, Error::Embedder { transient: false, .. }), "{error:?}");
    assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_looks_like_a_name_is_not_kept() {
    let body = r#"{"error":{"code":"hidden"}}"#;
    let (url, _) = serve(move |_| Some(("401 No", body.to_owned()))).await;
    let config = config(&url).with_api_key("hidden");
    let error = OpenAiEmbedder::new(config).unwrap().embed("a").await.unwrap_err();
    assert!(matches!(&error, Error::Status { status: 401, code: None, .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_service_is_a_transient_error() {
    let (url, _) = serve(|_| None).await;
    let config = config(&url).with_timeout(Duration::from_millis(100));
    let error = OpenAiEmbedder::new(config).unwrap().embed("a").await.unwrap_err();
    assert!(matches!(error, Error::Embedder { transient: true, .. }), "{error:?}");
    assert!(error.is_transient());
}

#[test]
fn the_key_is_not_printed_and_wrong_settings_are_refused() {
    let good = config("https://user:sk-hidden@example.com/v1");
    let embedder = OpenAiEmbedder::new(good.clone()).unwrap();
    assert!(!format!("{good:?} {embedder:?}").contains("sk-"), "{good:?} {embedder:?}");
    for wrong in [
        config("example.com/v1"),
        config("ftp://example.com"),
        OpenAiConfig::new("http://localhost", "", 2),
        OpenAiConfig::new("http://localhost", "m", 0),
        OpenAiConfig::new("http://localhost", "m", 2).with_batch_limit(0),
    ] {
        assert!(matches!(OpenAiEmbedder::new(wrong), Err(Error::Config(_))));
    }
}
