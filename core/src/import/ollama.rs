//! Ollama's manifests: which file of its store is the model.

use crate::digest::Digest;
use serde::Deserialize;

/// The kind of layer that holds a model's file, as Ollama writes it into its manifests.
const MODEL_LAYER: &str = "application/vnd.ollama.image.model";

/// Why a text names no model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OllamaError {
    /// It is no manifest.
    #[error("the manifest cannot be read: {0}")]
    Json(String),
    /// It has no layer with a model, or several.
    #[error("the manifest names {0} model layers; one is read")]
    Layers(usize),
    /// The layer's name is no digest.
    #[error("the model layer is named {0:?}, which is no SHA-256 digest")]
    Digest(String),
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
struct Layer {
    #[serde(rename = "mediaType")]
    media_type: String,
    digest: String,
}

/// The digest of the model's file, which Ollama keeps as `blobs/sha256-HEX`. Errors: the text names no single model.
pub fn model_digest(text: &str) -> Result<Digest, OllamaError> {
    let manifest: Manifest = serde_json::from_str(text).map_err(|error| OllamaError::Json(error.to_string()))?;
    let models: Vec<&Layer> = manifest.layers.iter().filter(|layer| layer.media_type == MODEL_LAYER).collect();
    let [model] = models.as_slice() else { return Err(OllamaError::Layers(models.len())) };
    model.digest.parse().map_err(|_| OllamaError::Digest(model.digest.chars().take(80).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_layer_is_found_among_the_others() {
        let hex = "ab".repeat(32);
        let text = format!(
            "{{\"schemaVersion\": 2, \"layers\": [{{\"mediaType\": \"application/vnd.ollama.image.template\", \"digest\": \
             \"sha256:00\"}}, {{\"mediaType\": \"{MODEL_LAYER}\", \"digest\": \"sha256:{hex}\", \"size\": 5}}]}}"
        );
        assert_eq!(model_digest(&text).map(|digest| digest.hex()), Ok(hex));
        assert_eq!(model_digest("{}"), Err(OllamaError::Layers(0)));
        assert!(matches!(model_digest("no"), Err(OllamaError::Json(_))));
        let broken = text.replace("sha256:ab", "sha256:zz");
        assert!(matches!(model_digest(&broken), Err(OllamaError::Digest(_))));
    }
}
