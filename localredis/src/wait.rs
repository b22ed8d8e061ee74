use std::{
    io::{self, Write as _},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use crate::{Error, Result};

/// How long several servers may take to agree, on a busy machine.
const AGREE: Duration = Duration::from_secs(60);

/// Looks again and again until a state holds; `look` says what is still missing.
///
/// A server that does not answer yet counts as a state that does not hold yet.
pub(crate) fn until(what: &str, mut look: impl FnMut() -> Result<Option<String>>) -> Result<()> {
    let begin = Instant::now();
    loop {
        let seen = match look() {
            Ok(None) => return Ok(()),
            Ok(Some(missing)) => missing,
            Err(error) => error.chain(),
        };
        if AGREE < begin.elapsed() {
            return Err(Error::Late { what: what.to_owned(), seconds: AGREE.as_secs(), seen });
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Says on standard error what is going on, unless the value returned is dropped within two seconds.
pub(crate) fn announce_if_slow(what: String) -> mpsc::Sender<()> {
    let (done, over) = mpsc::channel();
    thread::spawn(move || {
        if over.recv_timeout(Duration::from_secs(2)) == Err(mpsc::RecvTimeoutError::Timeout) {
            // A closed standard error is no reason to fail.
            let _shown = writeln!(io::stderr(), "inferkit-localredis: {what}");
        }
    });
    done
}
