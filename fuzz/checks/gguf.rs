//! Any bytes as a model file: an error or a file whose every tensor can be read to its last value.

use isotherm_runtime::model::gguf::Gguf;

/// Values read per tensor; a hostile header may promise more than a fuzzer has time for.
const VALUES_MAX: u64 = 1 << 16;

/// Panics where the promise above is broken.
pub fn check(data: &[u8]) {
    let Ok(file) = Gguf::from_bytes(data.to_vec()) else { return };
    for (key, value) in file.metadata().iter() {
        assert!(file.metadata().get(key).is_some(), "{key} is listed and not found");
        let _ = value.kind();
    }
    for tensor in file.tensors() {
        if tensor.values() <= VALUES_MAX {
            assert_eq!(tensor.dequantise().len() as u64, tensor.values());
        }
        assert!(tensor.row(tensor.rows()).is_none(), "a row past the end");
    }
}
