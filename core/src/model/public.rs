//! Shapes of published models by name, for measurements that name a model and do not describe it.
//!
//! Each row repeats the `config.json` that the model's makers publish with its weights on huggingface.co, under the
//! organisation that the name stands for (meta-llama, Qwen, mistralai, microsoft, openai, deepseek-ai, 01-ai,
//! HuggingFaceTB, allenai, TinyLlama). Names of variants follow the name: `-Instruct`, `-2507`, `-v0.3` and the like.

use serde::Deserialize;

/// Experts of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpertShape {
    /// Experts of a layer.
    pub count: u32,
    /// Experts that each token goes to.
    pub per_token: u32,
    /// Layers that have experts.
    pub layers: u32,
}

/// What a prediction needs to know of a model beside the times of its operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicModel {
    /// The name it is known by.
    pub name: String,
    /// Number of layers.
    pub layers: u32,
    /// Width of the residual stream.
    pub hidden: u32,
    /// Width of the feed-forward layer, or of one expert.
    pub feed_forward: u32,
    /// Number of query heads.
    pub heads: u32,
    /// Number of key and value heads.
    pub kv_heads: u32,
    /// Width of one head.
    pub head_size: u32,
    /// Number of tokens in the vocabulary.
    pub vocabulary: u32,
    /// Experts, where it has them.
    pub experts: Option<ExpertShape>,
}

/// Name in lower case, layers, hidden, feed-forward, heads, key-value heads, head width, vocabulary.
type Row = (&'static str, u32, u32, u32, u32, u32, u32, u32);

#[rustfmt::skip]
const DENSE: &[Row] = &[
    ("llama-2-7b", 32, 4096, 11008, 32, 32, 128, 32000),
    ("llama-2-13b", 40, 5120, 13824, 40, 40, 128, 32000),
    ("llama-2-70b", 80, 8192, 28672, 64, 8, 128, 32000),
    ("llama-3-8b", 32, 4096, 14336, 32, 8, 128, 128_256),
    ("llama-3-70b", 80, 8192, 28672, 64, 8, 128, 128_256),
    ("llama-3.1-8b", 32, 4096, 14336, 32, 8, 128, 128_256),
    ("llama-3.1-70b", 80, 8192, 28672, 64, 8, 128, 128_256),
    ("llama-3.1-405b", 126, 16384, 53248, 128, 8, 128, 128_256),
    ("llama-3.2-1b", 16, 2048, 8192, 32, 8, 64, 128_256),
    ("llama-3.2-3b", 28, 3072, 8192, 24, 8, 128, 128_256),
    ("llama-3.3-70b", 80, 8192, 28672, 64, 8, 128, 128_256),
    ("deepseek-r1-distill-llama-8b", 32, 4096, 14336, 32, 8, 128, 128_256),
    ("deepseek-r1-distill-llama-70b", 80, 8192, 28672, 64, 8, 128, 128_256),
    ("deepseek-r1-distill-qwen-1.5b", 28, 1536, 8960, 12, 2, 128, 151_936),
    ("deepseek-r1-distill-qwen-7b", 28, 3584, 18944, 28, 4, 128, 152_064),
    ("deepseek-r1-distill-qwen-14b", 48, 5120, 13824, 40, 8, 128, 152_064),
    ("deepseek-r1-distill-qwen-32b", 64, 5120, 27648, 40, 8, 128, 152_064),
    ("qwen2.5-0.5b", 24, 896, 4864, 14, 2, 64, 151_936),
    ("qwen2.5-1.5b", 28, 1536, 8960, 12, 2, 128, 151_936),
    ("qwen2.5-3b", 36, 2048, 11008, 16, 2, 128, 151_936),
    ("qwen2.5-7b", 28, 3584, 18944, 28, 4, 128, 152_064),
    ("qwen2.5-14b", 48, 5120, 13824, 40, 8, 128, 152_064),
    ("qwen2.5-32b", 64, 5120, 27648, 40, 8, 128, 152_064),
    ("qwen2.5-72b", 80, 8192, 29568, 64, 8, 128, 152_064),
    ("qwq-32b", 64, 5120, 27648, 40, 8, 128, 152_064),
    ("qwen3-0.6b", 28, 1024, 3072, 16, 8, 128, 151_936),
    ("qwen3-1.7b", 28, 2048, 6144, 16, 8, 128, 151_936),
    ("qwen3-4b", 36, 2560, 9728, 32, 8, 128, 151_936),
    ("qwen3-8b", 36, 4096, 12288, 32, 8, 128, 151_936),
    ("qwen3-14b", 40, 5120, 17408, 40, 8, 128, 151_936),
    ("qwen3-32b", 64, 5120, 25600, 64, 8, 128, 151_936),
    ("mistral-7b", 32, 4096, 14336, 32, 8, 128, 32768),
    ("mistral-nemo", 40, 5120, 14336, 32, 8, 128, 131_072),
    ("mistral-small-24b", 40, 5120, 32768, 32, 8, 128, 131_072),
    ("mistral-large", 88, 12288, 28672, 96, 8, 128, 32768),
    ("phi-3-mini", 32, 3072, 8192, 32, 32, 96, 32064),
    ("phi-3-medium", 40, 5120, 17920, 40, 10, 128, 32064),
    ("phi-3.5-mini", 32, 3072, 8192, 32, 32, 96, 32064),
    ("phi-4", 40, 5120, 17920, 40, 10, 128, 100_352),
    ("phi-4-mini", 32, 3072, 8192, 24, 8, 128, 200_064),
    ("yi-6b", 32, 4096, 11008, 32, 4, 128, 64000),
    ("yi-34b", 60, 7168, 20480, 56, 8, 128, 64000),
    ("tinyllama", 22, 2048, 5632, 32, 4, 64, 32000),
    ("smollm2-135m", 30, 576, 1536, 9, 3, 64, 49152),
    ("smollm2-360m", 32, 960, 2560, 15, 5, 64, 49152),
    ("smollm2-1.7b", 24, 2048, 8192, 32, 32, 64, 49152),
];

/// A row, experts of a layer, experts of a token. All their layers have experts.
#[rustfmt::skip]
const EXPERTS: &[(Row, u32, u32)] = &[
    (("mixtral-8x7b", 32, 4096, 14336, 32, 8, 128, 32000), 8, 2),
    (("mixtral-8x22b", 56, 6144, 16384, 48, 8, 128, 32768), 8, 2),
    (("qwen3-30b-a3b", 48, 2048, 768, 32, 4, 128, 151_936), 128, 8),
    (("qwen3-coder-30b-a3b", 48, 2048, 768, 32, 4, 128, 151_936), 128, 8),
    (("qwen3-235b-a22b", 94, 4096, 1536, 64, 4, 128, 151_936), 128, 8),
    (("qwen3-coder-480b-a35b", 62, 6144, 2560, 96, 8, 128, 151_936), 160, 8),
    (("phi-3.5-moe", 32, 4096, 6400, 32, 8, 128, 32064), 16, 2),
    (("phi-mini-moe", 32, 4096, 960, 32, 8, 128, 32064), 16, 2),
    (("gpt-oss-20b", 24, 2880, 2880, 64, 8, 64, 201_088), 32, 4),
    (("gpt-oss-120b", 36, 2880, 2880, 64, 8, 64, 201_088), 128, 4),
    (("olmoe-1b-7b", 16, 2048, 1024, 16, 16, 128, 50304), 64, 8),
];

impl PublicModel {
    /// The model of this name, for example `meta-llama/Llama-3.1-8B-Instruct`; none where it is not in the table.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let short = name.trim_end_matches('/').rsplit('/').next().unwrap_or(name).to_lowercase();
        let short = short.strip_prefix("meta-").unwrap_or(&short);
        // What follows the name of a model must begin something else, so that a 7B is no 7B5 and Phi-4 no Phi-4-mini.
        let matches = |row: &Row| {
            short.strip_prefix(row.0).is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '.'))
        };
        let dense = DENSE.iter().map(|row| (row, None));
        let with_experts = EXPERTS.iter().map(|(row, count, per_token)| (row, Some((*count, *per_token))));
        let (row, experts) =
            dense.chain(with_experts).filter(|(row, _)| matches(row)).max_by_key(|(row, _)| row.0.len())?;
        let &(_, layers, hidden, feed_forward, heads, kv_heads, head_size, vocabulary) = row;
        let experts = experts.map(|(count, per_token)| ExpertShape { count, per_token, layers });
        Some(Self {
            name: name.to_owned(),
            layers,
            hidden,
            feed_forward,
            heads,
            kv_heads,
            head_size,
            vocabulary,
            experts,
        })
    }

    /// The model that a `config.json` of huggingface.co describes. Errors: it is no such document, or a number that is
    /// needed is not in it.
    pub fn from_config(name: &str, text: &str) -> Result<Self, String> {
        let outer: Outer = serde_json::from_str(text).map_err(|e| format!("it is no configuration of a model: {e}"))?;
        let config = outer.text_config.unwrap_or(outer.config);
        let need =
            |value: Option<u32>, key: &str| value.filter(|&v| v > 0).ok_or_else(|| format!("it does not state {key}"));
        let layers = need(config.num_hidden_layers, "num_hidden_layers")?;
        let hidden = need(config.hidden_size, "hidden_size")?;
        let heads = need(config.num_attention_heads, "num_attention_heads")?;
        let per_token = config.num_experts_per_tok.unwrap_or(1);
        let count = [config.num_local_experts, config.num_experts, config.n_routed_experts].into_iter().flatten().max();
        let experts = count.filter(|&count| count > 1).map(|count| {
            let plain = config.first_k_dense_replace.unwrap_or(0).min(layers);
            let every = config.decoder_sparse_step.unwrap_or(1).max(1);
            ExpertShape { count, per_token, layers: (layers - plain) / every }
        });
        Ok(Self {
            name: name.to_owned(),
            layers,
            hidden,
            feed_forward: config
                .moe_intermediate_size
                .filter(|_| experts.is_some())
                .or(config.intermediate_size)
                .unwrap_or(0),
            heads,
            kv_heads: config.num_key_value_heads.unwrap_or(heads),
            head_size: config.head_dim.unwrap_or(hidden / heads),
            vocabulary: config.vocab_size.unwrap_or(0),
            experts,
        })
    }
}

#[derive(Debug, Deserialize)]
struct Outer {
    text_config: Option<Config>,
    #[serde(flatten)]
    config: Config,
}

#[derive(Debug, Default, Deserialize)]
struct Config {
    num_hidden_layers: Option<u32>,
    hidden_size: Option<u32>,
    intermediate_size: Option<u32>,
    moe_intermediate_size: Option<u32>,
    num_attention_heads: Option<u32>,
    num_key_value_heads: Option<u32>,
    head_dim: Option<u32>,
    vocab_size: Option<u32>,
    num_local_experts: Option<u32>,
    num_experts: Option<u32>,
    n_routed_experts: Option<u32>,
    num_experts_per_tok: Option<u32>,
    first_k_dense_replace: Option<u32>,
    decoder_sparse_step: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_of_a_model_have_its_shape_and_other_models_do_not() {
        let layers = |name: &str| PublicModel::named(name).map(|model| (model.layers, model.experts.map(|e| e.count)));
        assert_eq!(layers("meta-llama/Llama-3.1-8B"), Some((32, None)));
        assert_eq!(layers("meta-llama/Meta-Llama-3.1-8B-Instruct"), Some((32, None)));
        assert_eq!(layers("Qwen/Qwen3-30B-A3B-Instruct-2507"), Some((48, Some(128))));
        assert_eq!(layers("Qwen/Qwen3-32B/"), Some((64, None)));
        assert_eq!(layers("microsoft/Phi-4-mini-instruct"), Some((32, None)));
        assert_eq!(layers("microsoft/phi-4"), Some((40, None)));
        assert_eq!((layers("acme/Llama-3.1-80B"), layers("Qwen3.5-8B"), layers("")), (None, None, None));
    }

    #[test]
    fn every_name_of_the_table_finds_its_own_row() {
        for row in DENSE.iter().chain(EXPERTS.iter().map(|(row, ..)| row)) {
            let model = PublicModel::named(row.0).unwrap_or_else(|| panic!("{} is not found", row.0));
            assert_eq!((model.layers, model.hidden, model.vocabulary), (row.1, row.2, row.7), "{}", row.0);
            assert_eq!(model.heads % model.kv_heads, 0, "{}", row.0);
        }
    }

    #[test]
    fn a_configuration_states_the_shape_itself() {
        let text = r#"{"num_hidden_layers": 4, "hidden_size": 64, "num_attention_heads": 8, "num_experts": 6,
            "num_experts_per_tok": 2, "moe_intermediate_size": 32, "first_k_dense_replace": 1, "vocab_size": 100}"#;
        let model = PublicModel::from_config("acme/moe", text).expect("a configuration");
        assert_eq!((model.layers, model.head_size, model.kv_heads, model.feed_forward), (4, 8, 8, 32));
        assert_eq!(model.experts, Some(ExpertShape { count: 6, per_token: 2, layers: 3 }));
        let inner = r#"{"text_config": {"num_hidden_layers": 2, "hidden_size": 8, "num_attention_heads": 2}}"#;
        assert_eq!(PublicModel::from_config("b", inner).expect("a configuration").layers, 2);
        assert!(PublicModel::from_config("c", r#"{"hidden_size": 8}"#).is_err());
    }
}
