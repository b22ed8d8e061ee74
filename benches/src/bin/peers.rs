//! Measures ours beside libraries of other languages: `cargo run --release -p inferkit-benches --bin peers [-- --quick]`.
//!
//! It needs `python3` with `venv` and `pip`, and installs the peers into the user's cache folder the first time.
//! Ours and a peer's calls are measured in turn on one server, and the ratio is the median over the rounds.
//! It ends with 0 also where a target is missed.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints a report")]

use std::process::ExitCode;

use inferkit_benches::{Effort, Result, peers};

fn main() -> ExitCode {
    let run = || -> Result<()> {
        let effort = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
            [] => Effort::FULL,
            [word] if word == "--quick" => Effort::QUICK,
            _ => return Err("usage: peers [--quick]".into()),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        for line in runtime.block_on(peers(effort))? {
            let times = 1.0 / line.ratio;
            println!("{line}  ({times:.1} times as fast)");
        }
        Ok(())
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}
