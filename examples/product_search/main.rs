//! Searches a made-up shop of 2400 products by meaning, with the conditions of the question as filters.
//!
//! `cargo run --release -p inferkit-examples --example product_search -- "red shoes under $100"`; without arguments it
//! reads questions from the terminal.
//!
//! Beside every answer of the HNSW index stand its recall and time, and the time of an exact search in memory.
//! The embeddings are cached on the server: with a server of your own (`INFERKIT_REDIS_URL`) the second run embeds
//! nothing; without, it lives for one run.
//! `INFERKIT_MODEL_DIR` names a folder with the weights of all-MiniLM-L6-v2, which are fetched otherwise.

#![expect(clippy::print_stdout, reason = "a terminal program talks to its user")]

mod catalog;
mod question;

use std::collections::HashSet;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use inferkit::core::Pool;
use inferkit::core::keys::Namespace;
use inferkit::embcache::{CachedEmbedder, Embedder as _, EmbedderExt as _, RedisEmbeddingCache};
use inferkit::vectorsearch::{
    Bulk, Document, Filter, Hnsw, Knn, MemoryVectorIndex, RedisVectorIndex, Schema, Vector,
    VectorField, VectorIndex as _, VectorIndexExt as _,
};
use inferkit_examples::embedder::MiniLmEmbedder;
use inferkit_examples::minilm::MiniLm;
use inferkit_examples::{Result, model_folder};
use inferkit_localredis::{Flavor, Server};

use catalog::Product;
use question::Conditions;

/// The texts that are embedded at a time.
const BATCH: usize = 96;
const HITS: usize = 5;
/// How many neighbors recall is measured over.
const MEASURED: usize = 10;

#[tokio::main]
async fn main() -> Result<()> {
    let questions: Vec<String> = std::env::args().skip(1).collect();
    let start = Instant::now();
    // The server lives as long as this value, and ends with the program however that ends.
    let server = tokio::task::spawn_blocking(|| Server::start(Flavor::Redis)).await??;
    println!("redis     {}, {}", server.version(), millis(start.elapsed()));
    let shop = Shop::open(&server).await?;
    for question in &questions {
        println!("\n> {question}");
        shop.answer(question).await?;
    }
    if questions.is_empty() {
        shop.talk().await?;
    }
    Ok(())
}

struct Shop {
    embedder: CachedEmbedder<MiniLmEmbedder>,
    index: RedisVectorIndex,
    exact: MemoryVectorIndex,
}

impl Shop {
    async fn open(server: &Server) -> Result<Self> {
        let start = Instant::now();
        let model = tokio::task::spawn_blocking(|| -> Result<_> {
            let folder = model_folder()?;
            MiniLm::load(&folder)
        })
        .await??;
        println!("model     {}, {}", model.model(), millis(start.elapsed()));

        let driver = Pool::connect(server.url()).await?.into_driver();
        let namespace = Namespace::new("shop")?;
        let cache = RedisEmbeddingCache::new(Arc::clone(&driver), namespace.clone());
        let embedder = CachedEmbedder::new(MiniLmEmbedder::new(model), Arc::new(cache));
        let field = VectorField::hnsw("embedding", embedder.dimensions(), Hnsw::default());
        let schema =
            Schema::builder("shop:products-v1", namespace.family("product").prefix(), field)
                .tag("category")
                .tag("color")
                .numeric("price")
                .build()?;
        let shop = Self {
            embedder,
            exact: MemoryVectorIndex::new(schema.clone()),
            index: RedisVectorIndex::new(driver, schema),
        };
        shop.index.ensure_index().await?;
        // What an earlier run with another catalog may have left.
        shop.index.remove_where(&Filter::all(), Bulk::apply().allow_all()).await?;
        shop.fill().await?;
        Ok(shop)
    }

    async fn fill(&self) -> Result<()> {
        let products = catalog::all();
        let start = Instant::now();
        let mut shown = Instant::now();
        for (batch, chunk) in products.chunks(BATCH).enumerate() {
            let texts: Vec<String> = chunk.iter().map(Product::text).collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let vectors = self.embedder.embed_many(&texts).await?;
            let mut documents = Vec::with_capacity(chunk.len());
            for (place, (product, vector)) in chunk.iter().zip(vectors).enumerate() {
                let id = (batch * BATCH + place).to_string();
                let document = Document::new(id).with_fields(product)?;
                documents.push(document.with("embedding", Vector::new(vector)?));
            }
            self.index.put_many(&documents).await?;
            self.exact.put_many(&documents).await?;
            if Duration::from_secs(2) < shown.elapsed() {
                println!("          {} of {} products", (batch + 1) * BATCH, products.len());
                shown = Instant::now();
            }
        }
        let embedded = self.embedder.stats().misses;
        let verified = self.index.verify().await?;
        println!(
            "products  {} written, {} indexed, {embedded} embedded, {}",
            verified.stored,
            verified.indexed,
            millis(start.elapsed())
        );
        if verified.is_complete() { Ok(()) } else { Err("a product is not in the index".into()) }
    }

    /// Reads questions until the end of the input or an empty line.
    async fn talk(&self) -> Result<()> {
        if io::stdin().is_terminal() {
            println!("\nAsk for something, such as: red shoes under $100; an empty line ends.");
        }
        loop {
            print!("\n> ");
            io::stdout().flush()?;
            let mut line = String::new();
            if io::stdin().read_line(&mut line)? == 0 || line.trim().is_empty() {
                return Ok(());
            }
            if let Err(error) = self.answer(line.trim()).await {
                println!("failed    {error}");
            }
        }
    }

    async fn answer(&self, question: &str) -> Result<()> {
        let conditions = Conditions::read(question);
        println!("filter    {}", conditions.describe());
        let start = Instant::now();
        let vector = Vector::new(self.embedder.embed(question).await?)?;
        let embedded = start.elapsed();
        let query = Knn::new("embedding", vector, MEASURED, conditions.filter()?)?.returning([
            "title",
            "description",
            "category",
            "color",
            "price",
        ])?;
        let start = Instant::now();
        let found = self.index.knn(&query).await?;
        let searched = start.elapsed();
        let start = Instant::now();
        let exact = self.exact.knn(&query).await?;
        let compared = start.elapsed();

        for hit in found.hits.iter().take(HITS) {
            let product: Product = hit.fields.read()?;
            let similarity = hit.distance.to_similarity().as_f64();
            println!(
                "{similarity:.3}  ${:>7.2}  {}: {}",
                product.price, product.title, product.description
            );
        }
        if found.hits.is_empty() {
            println!("nothing fits these conditions");
        }
        // Equal texts of two brands are equally near: what counts is the distance.
        let furthest = exact.hits.last().map(|hit| hit.distance.as_f64() + 1e-6);
        let near = |distance: f64| furthest.is_some_and(|furthest| distance <= furthest);
        let right: HashSet<_> = found
            .hits
            .iter()
            .filter(|hit| near(hit.distance.as_f64()))
            .map(|hit| &hit.key)
            .collect();
        println!(
            "embedding {}, search {} (HNSW on Redis), exact search in memory {}; {} of the {} nearest found",
            millis(embedded),
            millis(searched),
            millis(compared),
            right.len(),
            exact.hits.len(),
        );
        Ok(())
    }
}

fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}
