//! A server that says what a test tells it to, where a real one cannot be brought to.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// What to say to a command, and after how long; nothing means silence.
pub(crate) type Script = dyn Fn(&[String]) -> Option<(Duration, String)> + Send + Sync;

pub(crate) const NOW: Duration = Duration::ZERO;

/// A port of one's own to listen on.
pub(crate) async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// Answers on `listener` for as long as the test runs.
pub(crate) fn serve(
    listener: TcpListener,
    script: impl Fn(&[String]) -> Option<(Duration, String)> + Send + Sync + 'static,
) {
    let script: Arc<Script> = Arc::new(script);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(talk(client, Arc::clone(&script)));
        }
    });
}

async fn talk(client: TcpStream, script: Arc<Script>) {
    let (reader, mut writer) = client.into_split();
    let mut reader = BufReader::new(reader);
    let mut line = String::new();
    while 0 < reader.read_line(&mut line).await.unwrap_or(0) {
        let count: usize = line.trim()[1..].parse().unwrap();
        let mut parts = Vec::new();
        for _ in 0..count {
            line.clear();
            reader.read_line(&mut line).await.unwrap();
            let length: usize = line.trim()[1..].parse().unwrap();
            let mut part = vec![0; length + 2];
            reader.read_exact(&mut part).await.unwrap();
            parts.push(String::from_utf8_lossy(&part[..length]).into_owned());
        }
        line.clear();
        if let Some((delay, answer)) = script(&parts) {
            tokio::time::sleep(delay).await;
            if writer.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

/// The answer to `CLUSTER SLOTS`: first slot, last slot and port of each range.
pub(crate) fn slots(ranges: &[(u16, u16, u16)]) -> String {
    let mut text = format!("*{}\r\n", ranges.len());
    for (start, end, port) in ranges {
        text += &format!("*3\r\n:{start}\r\n:{end}\r\n*2\r\n$9\r\n127.0.0.1\r\n:{port}\r\n");
    }
    text
}
