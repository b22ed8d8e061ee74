//! Loads a Parquet file into the feature store, with progress, and compares a sample afterwards:
//! `cargo run --release -p inferkit-examples --example load_features -- [FILE ENTITY_COLUMN TIME_COLUMN]`.
//!
//! Without a file it makes one of 200 000 rows of 50 features. `INFERKIT_REDIS_URL` names the server that is loaded; without
//! it a server of the program's own is started, and what was loaded ends with it.
//! Ctrl-C ends the load between two batches, and says how many rows are done; `INFERKIT_SKIP=<rows>` goes on there.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints a report")]

use std::error::Error;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow_array::{ArrayRef, Float32Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use inferkit::core::keys::Namespace;
use inferkit::core::{Pool, PoolConfig};
use inferkit::featurestore::arrow::{Columns, parquet_rows, parquet_schema, read_parquet};
use inferkit::featurestore::{FeatureStore as _, Load, RedisFeatureStore, compare};
use inferkit_localredis::{Flavor, Server};
use parquet::arrow::ArrowWriter;

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

const ROWS: i64 = 200_000;
const FEATURES: i64 = 50;

#[tokio::main]
async fn main() -> ExitCode {
    let Err(error) = load().await else { return ExitCode::SUCCESS };
    eprint!("load_features: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        eprint!(": {cause}");
        source = cause.source();
    }
    eprintln!();
    ExitCode::FAILURE
}

async fn load() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let folder = tempfile::tempdir()?;
    let (path, entity, time) = match words.as_slice() {
        [] => (sample(folder.path())?, "user_id".to_owned(), "event_timestamp".to_owned()),
        [file, entity, time] => (PathBuf::from(file), entity.clone(), time.clone()),
        _ => return Err("usage: load_features [FILE ENTITY_COLUMN TIME_COLUMN]".into()),
    };
    let skip = std::env::var("INFERKIT_SKIP").map_or(Ok(0), |rows| rows.parse::<u64>())?;
    let server = tokio::task::spawn_blocking(|| Server::start(Flavor::Plain)).await??;
    let driver = Pool::connect_with(PoolConfig::single(server.url())?).await?.into_driver();
    let store = RedisFeatureStore::new(driver, Namespace::default());
    let columns = Columns::new([entity], time);
    let (schema, total) = parquet_schema(&path)?;
    let group = store.register(&columns.group("entity", "loaded", &schema)?.build()?).await?;
    println!("{total} rows of {} features from {}", group.features().len(), path.display());

    let start = Instant::now();
    let done = Arc::new(AtomicU64::new(skip));
    let reported = Arc::clone(&done);
    let load = Load::default().skip(skip).on_progress(move |loaded| {
        reported.store(loaded.through, Ordering::Relaxed);
    });
    let rows = parquet_rows(&path, &group, &columns);
    let loaded = tokio::select! {
        loaded = load.run(&store, &group, rows) => loaded?,
        () = show(&done, total) => return Err("the progress ended".into()),
        _ = tokio::signal::ctrl_c() => {
            let done = done.load(Ordering::Relaxed);
            println!("\n{done} of {total} rows are done: INFERKIT_SKIP={done} goes on there");
            return Ok(());
        }
    };
    let seconds = start.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let rate = (loaded.through - skip) as f64 * group.features().len() as f64 / seconds;
    println!(
        "\r{} rows in {seconds:.1} s, {rate:.0} features a second; {} stored, {} left out for newer events",
        loaded.through, loaded.written.applied, loaded.written.older
    );

    let (_, batches) = read_parquet(&path, &group, &columns)?;
    let mut found = Vec::new();
    // One batch in ten.
    for rows in batches.step_by(10) {
        found.push(compare(&store, &group, &rows?).await?);
    }
    let compared: u64 = found.iter().map(|comparison| comparison.rows).sum();
    let wrong = found.iter().filter(|comparison| !comparison.is_consistent()).count();
    println!("{compared} rows were compared with the file, {wrong} batches differ");
    if wrong == 0 && loaded.through == total {
        Ok(())
    } else {
        Err("the store differs from the file".into())
    }
}

/// Shows how far the load is, twice a second.
async fn show(done: &AtomicU64, total: u64) {
    let start = Instant::now();
    let before = done.load(Ordering::Relaxed);
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = done.load(Ordering::Relaxed);
        #[expect(clippy::cast_precision_loss, reason = "a share and a rate")]
        let (share, rate) = (
            now as f64 / total.max(1) as f64,
            (now - before) as f64 / start.elapsed().as_secs_f64(),
        );
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 40")]
        let filled = (share.clamp(0.0, 1.0) * 40.0) as usize;
        let end = if io::stdout().is_terminal() { '\r' } else { '\n' };
        print!("[{:<40}] {:>5.1} %  {rate:.0} rows/s{end}", "#".repeat(filled), share * 100.0);
        let _ = io::stdout().flush();
    }
}

/// A file to try it with.
fn sample(folder: &Path) -> Result<PathBuf> {
    let path = folder.join("sample.parquet");
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..ROWS));
    let times =
        TimestampMicrosecondArray::from_iter_values((0..ROWS).map(|n| 1_700_000_000_000_000 + n));
    let mut columns: Vec<(String, ArrayRef)> =
        vec![("user_id".to_owned(), ids), ("event_timestamp".to_owned(), Arc::new(times))];
    for feature in 0..FEATURES {
        #[expect(clippy::cast_precision_loss, reason = "any numbers will do")]
        let values = (0..ROWS).map(|n| ((n * 31 + feature * 7) % 1_000) as f32 * 0.25);
        let values: ArrayRef = Arc::new(Float32Array::from_iter_values(values));
        columns.push((format!("feature_{feature:02}"), values));
    }
    let batch = RecordBatch::try_from_iter(columns)?;
    let mut writer = ArrowWriter::try_new(std::fs::File::create(&path)?, batch.schema(), None)?;
    writer.write(&batch)?;
    writer.close()?;
    Ok(path)
}
