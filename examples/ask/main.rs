//! Asks questions through a semantic cache on a real Redis, with a real sentence model.
//!
//! `cargo run --release -p inferkit-examples --example ask -- "a question" "another"`; without arguments it reads
//! questions from the terminal.
//!
//! | variable | what |
//! |---|---|
//! | `INFERKIT_REDIS_URL` | a running server with RediSearch; the cache is then kept there under the prefix `ask` |
//! | `INFERKIT_MODEL_DIR` | a folder with the weights of all-MiniLM-L6-v2 |
//! | `OPENAI_API_KEY`, `OPENAI_BASE_URL`, `OPENAI_MODEL` | a model that answers the misses |
//! | `INFERKIT_PRICE_PER_1K_TOKENS` | dollars, for the sum of money saved |

#![expect(clippy::print_stdout, reason = "a terminal program talks to its user")]

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use inferkit::core::Pool;
use inferkit::core::keys::Namespace;
use inferkit::embcache::{CachedEmbedder, RedisEmbeddingCache};
use inferkit::semcache::{
    Answer, Config, Hit, Lookup, Policy, RedisSemanticCache, Rejection, Request,
    SemanticCache as _, Tenant,
};
use inferkit_examples::answerer::Answerer;
use inferkit_examples::embedder::{MiniLmEmbedder, Timed};
use inferkit_examples::minilm::MiniLm;
use inferkit_examples::prices::{Price, dollars};
use inferkit_examples::{Result, model_folder};
use inferkit_localredis::{Flavor, Server};

/// How similar a question must be to take another's answer.
///
/// With this model rewordings of a short question are about 0.94 apart and other questions about the same thing can be
/// 0.92: a number for a demonstration, not for a product.
const THRESHOLD: f64 = 0.93;

/// The model reads 256 tokens; what comes after them would not count, and long questions would look the same.
const MAX_PROMPT_BYTES: usize = 768;

#[tokio::main]
async fn main() -> Result<()> {
    let questions: Vec<String> = std::env::args().skip(1).collect();
    let start = Instant::now();
    // The server lives as long as this value, and ends with the program however that ends.
    let server = tokio::task::spawn_blocking(|| Server::start(Flavor::Redis)).await??;
    let kept = if server.is_external() { "yours, prefix `ask`" } else { "for this run only" };
    println!("redis     {} ({kept}), {}", server.version(), millis(start.elapsed()));
    let mut session = Session::open(&server).await?;

    for question in &questions {
        println!("\n> {question}");
        session.ask_and_go_on(question).await;
    }
    if questions.is_empty() {
        session.talk().await?;
    }
    session.sum_up();
    match session.failed {
        failed if 0 < failed && !questions.is_empty() => {
            Err(format!("{failed} of {} questions failed", questions.len()).into())
        }
        _ => Ok(()),
    }
}

struct Session {
    cache: RedisSemanticCache,
    model: MiniLm,
    /// How long the model took, within a lookup.
    embedding: Timed<MiniLmEmbedder>,
    answerer: Answerer,
    price: Price,
    asked: usize,
    hits: usize,
    failed: usize,
    saved_micros: u64,
}

impl Session {
    async fn open(server: &Server) -> Result<Self> {
        let start = Instant::now();
        let (model, answerer) = tokio::task::spawn_blocking(|| -> Result<_> {
            let folder = model_folder()?;
            let model = MiniLm::load(&folder)?;
            let answerer = Answerer::from_env(&model, folder.parent())?;
            Ok((model, answerer))
        })
        .await??;
        println!(
            "model     {}, {} dimensions, {}",
            model.model(),
            model.dimensions(),
            millis(start.elapsed())
        );
        println!("answers   {}", answerer.describe());
        let per_1k = std::env::var("INFERKIT_PRICE_PER_1K_TOKENS").ok();
        let price = Price::of(answerer.model(), per_1k.as_deref())?;
        println!("money     {}", price.basis());

        let driver = Pool::connect(server.url()).await?.into_driver();
        let namespace = Namespace::new("ask")?;
        let embedding = Timed::new(MiniLmEmbedder::new(model.clone()));
        let embeddings = RedisEmbeddingCache::new(Arc::clone(&driver), namespace.clone());
        let embedder = Arc::new(CachedEmbedder::new(embedding.clone(), Arc::new(embeddings)));
        let config = Config::new().with_namespace(namespace).with_policy(
            Policy::default().with_threshold(THRESHOLD)?.with_max_prompt_bytes(MAX_PROMPT_BYTES),
        );
        let cache = RedisSemanticCache::new(driver, embedder, config)?;
        cache.ensure_index().await?;
        Ok(Self {
            cache,
            model,
            embedding,
            answerer,
            price,
            asked: 0,
            hits: 0,
            failed: 0,
            saved_micros: 0,
        })
    }

    /// Reads questions until the end of the input or an empty line.
    async fn talk(&mut self) -> Result<()> {
        let terminal = io::stdin().is_terminal();
        if terminal {
            println!("\nAsk a question a line, then ask it in other words; an empty line ends.");
        }
        loop {
            print!("\n> ");
            io::stdout().flush()?;
            let mut line = String::new();
            if io::stdin().read_line(&mut line)? == 0 || line.trim().is_empty() {
                return Ok(());
            }
            if !terminal {
                println!("{}", line.trim());
            }
            self.ask_and_go_on(line.trim()).await;
        }
    }

    /// A question that fails does not end the conversation.
    async fn ask_and_go_on(&mut self, question: &str) {
        if let Err(error) = self.ask(question).await {
            self.failed += 1;
            println!("failed    {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                println!("          because {cause}");
                source = cause.source();
            }
        }
    }

    async fn ask(&mut self, question: &str) -> Result<()> {
        let request = Request::new(Tenant::shared(), self.answerer.model(), question)?;
        self.asked += 1;
        self.embedding.take();
        let start = Instant::now();
        let lookup = self.cache.lookup(&request).await?;
        let took = start.elapsed();
        let embedded = self.embedding.take();
        let redis = took.saturating_sub(embedded.unwrap_or_default());
        let steps = match embedded {
            Some(embedded) => format!("redis {}, embedding {}", millis(redis), millis(embedded)),
            None => format!("redis {}, no embedding", millis(redis)),
        };
        match lookup {
            Lookup::Exact(hit) => {
                println!("EXACT HIT     the same question   [{steps}]");
                self.serve(&hit)?;
            }
            Lookup::Semantic(hit) => {
                println!(
                    "SEMANTIC HIT  similarity {:.3} to {:?}   [{steps}]",
                    hit.similarity.as_f64(),
                    hit.prompt
                );
                self.serve(&hit)?;
            }
            other => {
                let refused = match &other {
                    Lookup::Near(near) if near.reason != Rejection::Threshold => {
                        format!(", refused by {:?}", near.reason)
                    }
                    _ => String::new(),
                };
                let Err(miss) = other.into_hit() else { return Err("a hit was no hit".into()) };
                let nearest = match miss.nearest {
                    Some(near) => format!("nearest {:.3}", near.similarity.as_f64()),
                    None => "nothing near".to_owned(),
                };
                println!("MISS          {nearest}{refused}, {THRESHOLD} is asked for   [{steps}]");
                let start = Instant::now();
                let answer = self.answerer.answer(question).await?;
                let answered = millis(start.elapsed());
                println!("{}", answer.text);
                if !answer.cacheable {
                    println!("not cached    ({}, {answered})", answer.finish_reason);
                    return Ok(());
                }
                let tokens = answer.prompt_tokens + answer.completion_tokens;
                let cost = self.price.cost_micros(answer.prompt_tokens, answer.completion_tokens);
                let stored = Answer::new(answer.text)?
                    .with_usage(answer.prompt_tokens, answer.completion_tokens);
                let start = Instant::now();
                self.cache.store(&request, &stored, Some(miss)).await?;
                println!(
                    "answered in {answered} by {}, {tokens} tokens, {}; stored in {}",
                    answer.model,
                    dollars(cost),
                    millis(start.elapsed())
                );
            }
        }
        Ok(())
    }

    fn serve(&mut self, hit: &Hit) -> Result<()> {
        let tokens = hit.tokens_used.unwrap_or_default();
        let prompt = u64::try_from(self.model.count_tokens(&hit.prompt)?)?.min(tokens);
        let saved = self.price.cost_micros(prompt, tokens - prompt);
        self.hits += 1;
        self.saved_micros += saved;
        println!("{}", hit.text().unwrap_or("(the answer is not text)"));
        println!("saved {} now, {} so far", dollars(saved), dollars(self.saved_micros));
        Ok(())
    }

    fn sum_up(&self) {
        println!(
            "\n{} questions, {} from the cache, {} saved",
            self.asked,
            self.hits,
            dollars(self.saved_micros)
        );
    }
}

fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}
