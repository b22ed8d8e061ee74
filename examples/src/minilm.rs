//! The sentence model all-MiniLM-L6-v2 on the CPU, through candle.
//!
//! Only candle's tensors and layers are used.
//! The encoder itself is the hundred lines below, because the crate of ready-made models
//! takes minutes to compile.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use candle_core::{D, DType, Device, Tensor};
use candle_nn::{Embedding, LayerNorm, Linear, Module, VarBuilder, embedding, linear, ops};
use serde::Deserialize;
use tokenizers::{Tokenizer, TruncationParams};

use crate::Result;

const NAME: &str = "all-MiniLM-L6-v2";
const FILES: [&str; 3] = ["model.safetensors", "tokenizer.json", "config.json"];

/// Tokens in one forward pass, padding included: enough to keep the cores busy,
/// and little enough to stay in their caches.
const TOKENS_PER_PASS: usize = 512;

/// Turns texts into vectors of unit length with all-MiniLM-L6-v2.
///
/// A clone is cheap and shares the weights.
/// Embedding is work for the CPU: from async code call it inside `spawn_blocking`.
#[derive(Clone)]
pub struct MiniLm {
    shared: Arc<Shared>,
}

struct Shared {
    tokenizer: Tokenizer,
    encoder: Encoder,
}

impl MiniLm {
    /// Finds the folder with the model's three files in `root` or below it.
    pub fn find(root: &Path) -> Option<PathBuf> {
        if FILES.iter().all(|file| root.join(file).is_file()) {
            return Some(root.to_path_buf());
        }
        let mut folders: Vec<PathBuf> = fs::read_dir(root)
            .ok()?
            .filter_map(|entry| {
                let entry = entry.ok()?;
                // Links are not followed, so that the walk ends.
                entry.file_type().ok()?.is_dir().then(|| entry.path())
            })
            .collect();
        folders.sort();
        folders.iter().find_map(|folder| Self::find(folder))
    }

    /// Loads the model from the folder in `root` that holds its files.
    ///
    /// # Errors
    ///
    /// If `root` does not hold the files, or they are not a BERT model with its tokenizer.
    pub fn load(root: &Path) -> Result<Self> {
        let folder = Self::find(root).ok_or_else(|| {
            format!("{} holds no folder with {}", root.display(), FILES.join(", "))
        })?;
        let read = |file: &str| {
            let path = folder.join(file);
            fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))
        };

        let config: Config = serde_json::from_slice(&read("config.json")?)
            .map_err(|error| format!("cannot understand config.json: {error}"))?;
        if config.hidden_act != "gelu" {
            return Err(format!("the activation {} is not supported", config.hidden_act).into());
        }
        // The tokenizer's own limit of 128 is that of its training; this is the model's.
        let max_length = read("sentence_bert_config.json")
            .ok()
            .and_then(|bytes| serde_json::from_slice::<SentenceConfig>(&bytes).ok())
            .map_or(256, |sentence| sentence.max_seq_length)
            .min(config.max_position_embeddings);

        let mut tokenizer = Tokenizer::from_bytes(read("tokenizer.json")?)
            .map_err(|error| format!("cannot understand tokenizer.json: {error}"))?;
        // The file pads every text to 128 tokens, which costs ten times the work.
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(Some(TruncationParams { max_length, ..TruncationParams::default() }))
            .map_err(|error| format!("cannot truncate to {max_length} tokens: {error}"))?;

        let weights = VarBuilder::from_buffered_safetensors(
            read("model.safetensors")?,
            DType::F32,
            &Device::Cpu,
        )?;
        let encoder = Encoder::load(&weights, &config)?;
        Ok(Self { shared: Arc::new(Shared { tokenizer, encoder }) })
    }

    /// Returns the model's name.
    pub fn model(&self) -> &str {
        NAME
    }

    /// Returns the length of the vectors.
    pub fn dimensions(&self) -> usize {
        self.shared.encoder.dimensions
    }

    /// Counts the tokens of `text` as this model's tokenizer sees them.
    ///
    /// # Errors
    ///
    /// If the tokenizer fails.
    pub fn count_tokens(&self, text: &str) -> Result<usize> {
        Ok(self.shared.tokenizer.encode_fast(text, false)?.len())
    }

    /// Returns one vector of unit length for each text, in their order.
    ///
    /// Texts of similar length share a forward pass, so that padding costs little.
    ///
    /// # Errors
    ///
    /// If the tokenizer or the model fails.
    pub fn embed_batch(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
        let mut inputs = Vec::with_capacity(texts.len());
        for (position, text) in texts.iter().enumerate() {
            inputs.push((position, self.shared.tokenizer.encode_fast(*text, true)?));
        }
        inputs.sort_by_key(|(_, encoding)| encoding.len());

        let mut vectors = vec![Vec::new(); texts.len()];
        let mut rest = inputs.as_slice();
        while let Some((_, first)) = rest.first() {
            let shortest = first.len();
            let count = rest
                .iter()
                .zip(1..)
                .take_while(|((_, encoding), count)| {
                    let longest = encoding.len();
                    *count == 1
                        || longest * count <= TOKENS_PER_PASS && longest <= shortest + shortest / 4
                })
                .count();
            let (group, later) = rest.split_at(count);
            rest = later;

            let tokens: Vec<&[u32]> = group.iter().map(|(_, input)| input.get_ids()).collect();
            let pooled = self.shared.encoder.forward(&tokens)?;
            for ((position, _), vector) in group.iter().zip(pooled) {
                if let Some(slot) = vectors.get_mut(*position) {
                    *slot = vector;
                }
            }
        }
        Ok(vectors)
    }
}

impl fmt::Debug for MiniLm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("MiniLm")
            .field("model", &NAME)
            .field("dimensions", &self.dimensions())
            .finish_non_exhaustive()
    }
}

/// What is needed of `config.json`.
#[derive(Deserialize)]
struct Config {
    hidden_act: String,
    hidden_size: usize,
    intermediate_size: usize,
    layer_norm_eps: f64,
    max_position_embeddings: usize,
    num_attention_heads: usize,
    num_hidden_layers: usize,
    type_vocab_size: usize,
    vocab_size: usize,
}

/// What is needed of `sentence_bert_config.json`.
#[derive(Deserialize)]
struct SentenceConfig {
    max_seq_length: usize,
}

/// A BERT encoder with mean pooling.
struct Encoder {
    words: Embedding,
    /// The embeddings of the positions, each with that of the first token type added:
    /// a single sentence has no second one.
    positions: Tensor,
    norm: LayerNorm,
    layers: Vec<Layer>,
    dimensions: usize,
}

impl Encoder {
    fn load(weights: &VarBuilder<'_>, config: &Config) -> candle_core::Result<Self> {
        let size = config.hidden_size;
        let part = weights.pp("embeddings");
        let words = embedding(config.vocab_size, size, part.pp("word_embeddings"))?;
        let positions =
            part.get((config.max_position_embeddings, size), "position_embeddings.weight")?;
        let types = part.get((config.type_vocab_size, size), "token_type_embeddings.weight")?;
        let positions = positions.broadcast_add(&types.narrow(0, 0, 1)?)?;
        let norm = candle_nn::layer_norm(size, config.layer_norm_eps, part.pp("LayerNorm"))?;
        let layers = (0..config.num_hidden_layers)
            .map(|layer| Layer::load(&weights.pp(format!("encoder.layer.{layer}")), config))
            .collect::<candle_core::Result<_>>()?;
        Ok(Self { words, positions, norm, layers, dimensions: size })
    }

    /// Encodes texts given by their token ids; the last one is the longest.
    fn forward(&self, texts: &[&[u32]]) -> candle_core::Result<Vec<Vec<f32>>> {
        let length = texts.last().map_or(0, |text| text.len());
        let shape = (texts.len(), length);
        let mut ids = Vec::with_capacity(texts.len() * length);
        let mut kept = Vec::with_capacity(texts.len() * length);
        for text in texts {
            ids.extend_from_slice(text);
            ids.resize(ids.len() + length - text.len(), 0);
            kept.resize(kept.len() + text.len(), 1_f32);
            kept.resize(kept.len() + length - text.len(), 0_f32);
        }
        let padded = kept.contains(&0.0);
        let ids = Tensor::from_vec(ids, shape, &Device::Cpu)?;
        let kept = Tensor::from_vec(kept, shape, &Device::Cpu)?;

        let mut hidden =
            self.words.forward(&ids)?.broadcast_add(&self.positions.narrow(0, 0, length)?)?;
        hidden = self.norm.forward(&hidden)?;
        // Added to the attention scores: nothing for a token, very little for padding.
        let mask = match padded {
            true => Some(((&kept - 1.0)? * 1e9)?.unsqueeze(1)?.unsqueeze(1)?),
            false => None,
        };
        for layer in &self.layers {
            hidden = layer.forward(&hidden, mask.as_ref())?;
        }

        let sums = hidden.broadcast_mul(&kept.unsqueeze(2)?)?.sum(1)?;
        // The mean differs from the sum by a factor, which the division by the length undoes.
        sums.broadcast_div(&sums.sqr()?.sum_keepdim(1)?.sqrt()?)?.to_vec2()
    }
}

struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    attended: Linear,
    attended_norm: LayerNorm,
    intermediate: Linear,
    output: Linear,
    output_norm: LayerNorm,
    heads: usize,
}

impl Layer {
    fn load(weights: &VarBuilder<'_>, config: &Config) -> candle_core::Result<Self> {
        let (size, inner) = (config.hidden_size, config.intermediate_size);
        let norm = |name| candle_nn::layer_norm(size, config.layer_norm_eps, weights.pp(name));
        Ok(Self {
            query: linear(size, size, weights.pp("attention.self.query"))?,
            key: linear(size, size, weights.pp("attention.self.key"))?,
            value: linear(size, size, weights.pp("attention.self.value"))?,
            attended: linear(size, size, weights.pp("attention.output.dense"))?,
            attended_norm: norm("attention.output.LayerNorm")?,
            intermediate: linear(size, inner, weights.pp("intermediate.dense"))?,
            output: linear(inner, size, weights.pp("output.dense"))?,
            output_norm: norm("output.LayerNorm")?,
            heads: config.num_attention_heads,
        })
    }

    fn forward(&self, hidden: &Tensor, mask: Option<&Tensor>) -> candle_core::Result<Tensor> {
        let (batch, length, size) = hidden.dims3()?;
        let width = size / self.heads;
        let split = |tensor: Tensor| {
            tensor.reshape((batch, length, self.heads, width))?.transpose(1, 2)?.contiguous()
        };
        let scale = (width as f64).sqrt().recip();
        let query = split((self.query.forward(hidden)? * scale)?)?;
        let key = split(self.key.forward(hidden)?)?;
        let value = split(self.value.forward(hidden)?)?;

        let mut scores = query.matmul(&key.transpose(D::Minus2, D::Minus1)?)?;
        if let Some(mask) = mask {
            scores = scores.broadcast_add(mask)?;
        }
        let context = ops::softmax_last_dim(&scores)?.matmul(&value)?;
        let context = context.transpose(1, 2)?.contiguous()?.reshape((batch, length, size))?;
        let attended = (self.attended.forward(&context)? + hidden)?;
        let attended = self.attended_norm.forward(&attended)?;

        let inner = self.intermediate.forward(&attended)?.gelu_erf()?;
        let output = (self.output.forward(&inner)? + attended)?;
        self.output_norm.forward(&output)
    }
}

#[cfg(test)]
mod tests {
    use std::env;

    use super::*;

    #[test]
    fn a_folder_without_the_files_is_named() {
        let folder = env::current_dir().unwrap().join("ask");
        let error = MiniLm::load(&folder).unwrap_err().to_string();
        assert!(error.contains("ask holds no folder with model.safetensors"), "{error}");
    }

    #[test]
    #[ignore = "needs the model's weights in INFERKIT_MODEL_DIR"]
    fn a_vector_does_not_depend_on_its_batch() {
        let model = MiniLm::load(env::var("INFERKIT_MODEL_DIR").unwrap().as_ref()).unwrap();
        let long = "word ".repeat(1_000);
        let texts = ["a cat", "", &long, "a cat sat on the mat", "the cat sat on a mat today"];
        let vectors = model.embed_batch(&texts).unwrap();
        assert_eq!(vectors.len(), texts.len());
        for (text, vector) in texts.iter().zip(&vectors) {
            assert_eq!(vector.len(), model.dimensions());
            let alone = model.embed_batch(&[text]).unwrap();
            let similarity: f32 = alone[0].iter().zip(vector).map(|(a, b)| a * b).sum();
            assert!((similarity - 1.0).abs() < 1e-5, "{similarity}");
        }
        assert!(model.embed_batch(&[]).unwrap().is_empty());
    }
}
