//! Prints how good the answers of the semantic tier are: `cargo run --release -p inferkit-benches --bin quality [-- --quick]`.
//!
//! It takes the place of a cache that compares every prompt, with vectors of all-MiniLM-L6-v2 that were made beforehand,
//! and serves as `inferkit_semcache` does: the most similar prompt above the threshold that the guard accepts, of three.
//!
//! - `qqp`: pairs of Quora questions, of which people said whether they mean the same. The first of each pair are in the
//!   cache, the others are asked. An answer is right if the two questions mean the same, also by way of others.
//! - `banking77`: questions to a bank, of 77 kinds, asked one after the other in an order that is the same in every run;
//!   what is missed is stored. An answer is right if it was given to a question of the same kind.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints a report")]

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use inferkit::semcache::Guard;
use inferkit_benches::{Matrix, Result, csv_rows, shuffled};
use serde::Deserialize;

const THRESHOLDS: [f32; 8] = [0.75, 0.80, 0.85, 0.88, 0.90, 0.92, 0.95, 0.98];
/// How many candidates the verifier looks at, the default of the cache.
const CANDIDATES: usize = 3;
/// What a quick run takes of each data set.
const QUICK: usize = 400;

fn main() -> ExitCode {
    match report() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quality: {error}");
            ExitCode::FAILURE
        }
    }
}

fn report() -> Result<()> {
    let quick = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => false,
        [word] if word == "--quick" => true,
        _ => return Err("usage: quality [--quick]".into()),
    };
    let folder = std::env::var_os("INFERKIT_SHARED_DATA")
        .ok_or("set INFERKIT_SHARED_DATA to the folder of the data sets")?;
    let folder = PathBuf::from(folder).join("semcache");
    if quick {
        eprintln!("quality: --quick shows that everything runs; its numbers mean little");
    }
    println!(
        "{:<10} {:>9}  {:<8} {:>8}  {:>9}  {:>9}",
        "data", "threshold", "", "hit rate", "precision", "wrong/100"
    );
    let qqp = Questions::qqp(&folder, quick)?;
    let neighbors = qqp.neighbors();
    for threshold in THRESHOLDS {
        for guarded in [false, true] {
            qqp.ask_all(&neighbors, threshold, guarded).print("qqp", threshold, guarded);
        }
    }
    println!("{:<10} {} of {} have a right answer", "qqp", qqp.answerable(), qqp.asked.len());
    let stream = Questions::banking77(&folder, quick)?;
    for threshold in THRESHOLDS {
        for guarded in [false, true] {
            stream.ask_in_turn(threshold, guarded).print("banking77", threshold, guarded);
        }
    }
    Ok(())
}

/// Texts, their vectors, and which of them mean the same.
struct Questions {
    texts: Vec<String>,
    vectors: Matrix,
    /// Two texts with the same number mean the same.
    meanings: Vec<usize>,
    stored: Vec<usize>,
    asked: Vec<usize>,
}

#[derive(Deserialize)]
struct Pairs {
    texts: Vec<String>,
    pairs: Vec<(usize, usize, u8)>,
}

impl Questions {
    fn qqp(folder: &Path, quick: bool) -> Result<Self> {
        let Pairs { texts, mut pairs } =
            serde_json::from_slice(&std::fs::read(folder.join("qqp6k_pairs.json"))?)?;
        pairs.truncate(if quick { QUICK } else { usize::MAX });
        let vectors = Matrix::read(&folder.join("qqp6k_minilm_f16.npz"))?;
        if vectors.len() != texts.len() {
            return Err("there is not one vector for each text".into());
        }
        let mut meanings: Vec<usize> = (0..texts.len()).collect();
        for (a, b, same) in &pairs {
            if let (1, Some(&a), Some(&b)) = (same, meanings.get(*a), meanings.get(*b)) {
                meanings
                    .iter_mut()
                    .filter(|meaning| **meaning == a)
                    .for_each(|meaning| *meaning = b);
            }
        }
        let stored: BTreeSet<usize> = pairs.iter().map(|(a, _, _)| *a).collect();
        let asked: BTreeSet<usize> = pairs.iter().map(|(_, b, _)| *b).collect();
        let asked = asked.difference(&stored).copied().collect();
        Ok(Self { texts, vectors, meanings, stored: stored.into_iter().collect(), asked })
    }

    fn banking77(folder: &Path, quick: bool) -> Result<Self> {
        let file = std::fs::read_to_string(folder.join("banking77_test.csv"))?;
        let vectors = Matrix::read(&folder.join("banking77_test_minilm_f16.npz"))?;
        let mut kinds: HashMap<String, usize> = HashMap::new();
        let (mut texts, mut meanings) = (Vec::new(), Vec::new());
        for row in csv_rows(&file).skip(1) {
            let Ok([text, kind]) = <[String; 2]>::try_from(row) else {
                return Err("a row has not two fields".into());
            };
            let next = kinds.len();
            meanings.push(*kinds.entry(kind).or_insert(next));
            texts.push(text);
        }
        if vectors.len() != texts.len() {
            return Err("there is not one vector for each text".into());
        }
        let mut asked = shuffled(texts.len(), 7);
        asked.truncate(if quick { QUICK } else { usize::MAX });
        Ok(Self { texts, vectors, meanings, stored: Vec::new(), asked })
    }

    fn same(&self, a: usize, b: usize) -> bool {
        self.meanings.get(a) == self.meanings.get(b)
    }

    fn answerable(&self) -> usize {
        let meanings: BTreeSet<_> =
            self.stored.iter().map(|text| self.meanings.get(*text)).collect();
        self.asked.iter().filter(|text| meanings.contains(&self.meanings.get(**text))).count()
    }

    /// The most similar stored questions of each that is asked, the most similar first.
    fn neighbors(&self) -> Vec<Vec<(f32, usize)>> {
        let of = |asked: &usize| {
            let mut best = Vec::with_capacity(CANDIDATES + 1);
            for stored in &self.stored {
                insert(&mut best, self.vectors.similarity(*asked, *stored), *stored);
            }
            best
        };
        self.asked.iter().map(of).collect()
    }

    /// What is served among candidates.
    fn serve(
        &self,
        asked: usize,
        candidates: &[(f32, usize)],
        threshold: f32,
        guarded: bool,
    ) -> Option<usize> {
        let text = |index: usize| self.texts.get(index).map_or("", String::as_str);
        candidates
            .iter()
            .filter(|(similarity, _)| threshold <= *similarity)
            .find(|(_, stored)| !guarded || Guard::default().accepts(text(asked), text(*stored)))
            .map(|(_, stored)| *stored)
    }

    fn ask_all(&self, neighbors: &[Vec<(f32, usize)>], threshold: f32, guarded: bool) -> Score {
        let mut score = Score::default();
        for (asked, candidates) in self.asked.iter().zip(neighbors) {
            let served = self.serve(*asked, candidates, threshold, guarded);
            score.count(served.map(|stored| self.same(*asked, stored)));
        }
        score
    }

    fn ask_in_turn(&self, threshold: f32, guarded: bool) -> Score {
        let (mut score, mut stored) = (Score::default(), Vec::new());
        for asked in &self.asked {
            let mut best = Vec::with_capacity(CANDIDATES + 1);
            for other in &stored {
                insert(&mut best, self.vectors.similarity(*asked, *other), *other);
            }
            let served = self.serve(*asked, &best, threshold, guarded);
            if served.is_none() {
                stored.push(*asked);
            }
            score.count(served.map(|stored| self.same(*asked, stored)));
        }
        score
    }
}

/// Keeps the most similar ones, the most similar first.
fn insert(best: &mut Vec<(f32, usize)>, similarity: f32, index: usize) {
    let place = best.partition_point(|(other, _)| similarity <= *other);
    if place < CANDIDATES {
        best.insert(place, (similarity, index));
        best.truncate(CANDIDATES);
    }
}

#[derive(Default)]
struct Score {
    asked: u32,
    right: u32,
    wrong: u32,
}

impl Score {
    fn count(&mut self, served: Option<bool>) {
        self.asked += 1;
        match served {
            Some(true) => self.right += 1,
            Some(false) => self.wrong += 1,
            None => {}
        }
    }

    fn print(&self, data: &str, threshold: f32, guarded: bool) {
        let share = |part: u32, whole: u32| f64::from(part) / f64::from(whole.max(1));
        let hits = self.right + self.wrong;
        println!(
            "{data:<10} {threshold:>9.2}  {:<8} {:>8.3}  {:>9.3}  {:>9.2}",
            if guarded { "guarded" } else { "plain" },
            share(hits, self.asked),
            share(self.right, hits),
            100.0 * share(self.wrong, self.asked),
        );
    }
}
