//! Prints what the family promises about speed beside what it measures:
//! `cargo run --release -p inferkit-benches --bin ratios -- [AREA ...] [--json] [--quick]`.
//!
//! Ours and the baseline are measured in turn on a server of the program's own; the ratio is the median over the rounds.
//! It ends with 0 also where a promise is missed.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints a report")]

use std::process::ExitCode;

use inferkit_benches::{AREAS, Area, Effort, Result};

fn main() -> ExitCode {
    let run = || -> Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(report())
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ratios: {error}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::future_not_send, reason = "it runs where it is made, in `block_on`")]
async fn report() -> Result<()> {
    let (mut json, mut effort, mut wanted) = (false, Effort::FULL, Vec::<&Area>::new());
    for word in std::env::args().skip(1) {
        match word.as_str() {
            "--json" => json = true,
            "--quick" => effort = Effort::QUICK,
            name => wanted.push(AREAS.iter().find(|area| area.name == name).ok_or_else(|| {
                let names: Vec<&str> = AREAS.iter().map(|area| area.name).collect();
                format!("there is no area `{name}`; areas: {}", names.join(", "))
            })?),
        }
    }
    if wanted.is_empty() {
        wanted = AREAS.iter().collect();
    }
    if cfg!(debug_assertions) {
        eprintln!("ratios: this is not a release build, so the numbers mean nothing");
    }
    if effort.divisor != 1 {
        eprintln!("ratios: --quick shows that everything runs; its numbers mean little");
    }
    if !json {
        println!(
            "{:<26} {:>6}  {:<8} {:<6}  {:<16} {:>9} / {:<9}",
            "promise", "ratio", "target", "", "spread", "ours", "baseline"
        );
    }
    for area in wanted {
        for line in (area.measure)(effort).await? {
            match json {
                true => println!("{}", serde_json::to_string(&line)?),
                false => println!("{line}"),
            }
        }
    }
    Ok(())
}
