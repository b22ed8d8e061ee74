//! Answers questions from the command line, or from the terminal, one a line.
//!
//! The sentence model's weights are read from the folder `INFERKIT_MODEL_DIR`;
//! what can be kept for the next start goes into the folder `INFERKIT_CACHE_DIR`, if it is set.

#![expect(clippy::print_stdout, reason = "a terminal program talks to its user")]

mod answerer;
mod minilm;
mod prices;

use std::{
    env, io,
    path::PathBuf,
    time::{Duration, Instant},
};

use answerer::Answerer;
use minilm::MiniLm;
use prices::{Price, dollars};

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Error>;

#[tokio::main]
async fn main() -> Result<()> {
    let folder = env::var_os("INFERKIT_MODEL_DIR")
        .map(PathBuf::from)
        .ok_or("set INFERKIT_MODEL_DIR to a folder with the weights of all-MiniLM-L6-v2")?;

    let start = Instant::now();
    let model = MiniLm::load(&folder)?;
    println!(
        "{} ({} dimensions) loaded in {}.",
        model.model(),
        model.dimensions(),
        millis(start.elapsed())
    );
    let cache = env::var_os("INFERKIT_CACHE_DIR").map(PathBuf::from);
    let start = Instant::now();
    let answerer = Answerer::from_env(&model, cache.as_deref())?;
    println!("{} Ready in {}.", answerer.describe(), millis(start.elapsed()));
    let per_1k = env::var("INFERKIT_PRICE_PER_1K_TOKENS").ok();
    let price = Price::of(answerer.model(), per_1k.as_deref())?;
    println!("Money is counted at {}.", price.basis());

    let mut session = Session { model, answerer, price };
    let questions: Vec<String> = env::args().skip(1).collect();
    if questions.is_empty() {
        println!("Ask a question a line; an empty line ends.");
        for line in io::stdin().lines() {
            let line = line?;
            if line.trim().is_empty() {
                break;
            }
            session.ask_and_go_on(line.trim()).await;
        }
    }
    for question in &questions {
        session.ask_and_go_on(question).await;
    }
    Ok(())
}

struct Session {
    model: MiniLm,
    answerer: Answerer,
    price: Price,
}

impl Session {
    /// A question that fails does not end the conversation.
    async fn ask_and_go_on(&mut self, question: &str) {
        if let Err(error) = self.ask(question).await {
            println!("  failed    {error}");
        }
    }

    async fn ask(&mut self, question: &str) -> Result<()> {
        println!("\n> {question}");
        if let Answerer::Offline(offline) = &self.answerer {
            let start = Instant::now();
            let vectors = self.model.embed_batch(&[question])?;
            let embedded = start.elapsed();
            if let Some((entry, similarity)) =
                vectors.first().and_then(|vector| offline.nearest(vector))
            {
                println!(
                    "  nearest   {:.3} {:?}, embedded in {}, found in {}",
                    similarity,
                    entry.question,
                    millis(embedded),
                    millis(start.elapsed() - embedded)
                );
            }
        }
        let start = Instant::now();
        let answer = self.answerer.answer(question).await?;
        let cost = self.price.cost_micros(answer.prompt_tokens, answer.completion_tokens);
        println!(
            "  answered  in {} by {}: {} + {} tokens, {}, {}, {}",
            millis(start.elapsed()),
            answer.model,
            answer.prompt_tokens,
            answer.completion_tokens,
            answer.finish_reason,
            if answer.cacheable { "to be cached" } else { "not to be cached" },
            dollars(cost)
        );
        println!("{}", answer.text);
        Ok(())
    }
}

fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}
