//! A TCP proxy that can go silent: connections stay open, and nothing passes any more (half-open TCP).
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "helpers of tests")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    /// The switch of the connections that are open now; new ones get a new switch.
    silent: Arc<std::sync::Mutex<Arc<AtomicBool>>>,
    pub(crate) accepted: Arc<AtomicUsize>,
}

impl Proxy {
    pub(crate) async fn start(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let silent = Arc::new(std::sync::Mutex::new(Arc::new(AtomicBool::new(false))));
        let accepted = Arc::new(AtomicUsize::new(0));
        let (switches, count) = (Arc::clone(&silent), Arc::clone(&accepted));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let switch = Arc::clone(&switches.lock().unwrap());
                let upstream = TcpStream::connect(&server).await.unwrap();
                let (client_read, client_write) = client.into_split();
                let (server_read, server_write) = upstream.into_split();
                tokio::spawn(forward(client_read, server_write, Arc::clone(&switch)));
                tokio::spawn(forward(server_read, client_write, switch));
            }
        });
        Self { address, silent, accepted }
    }

    /// Stops forwarding on all connections that are open now.
    pub(crate) fn go_silent(&self) {
        let mut silent = self.silent.lock().unwrap();
        silent.store(true, Ordering::SeqCst);
        *silent = Arc::new(AtomicBool::new(false));
    }
}

async fn forward(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    silent: Arc<AtomicBool>,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = match from.read(&mut buffer).await {
            Ok(0) | Err(_) if silent.load(Ordering::SeqCst) => std::future::pending().await,
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        if !silent.load(Ordering::SeqCst) && to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
