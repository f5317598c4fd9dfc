//! How fast candle reads prompts and writes tokens, for `isotherm bench runtime --speed --peer-program PROGRAM`.
//!
//! usage: isotherm-peer-candle MODEL.gguf THREADS PROMPT_TOKENS OUTPUT_TOKENS ROUNDS SEQUENCES[,SEQUENCES...]
//!
//! Build it with `RUSTFLAGS="-C target-cpu=native" cargo build --release`: candle chooses its kernels when it is
//! compiled. It waits for a line on standard input before each round and answers with one line of JSON, as
//! `llama_cpp.mjs` does: seconds of the prompt, seconds of each token after it, and for each number of sequences the
//! tokens per second that they wrote together, as a batch. Tokens are the likeliest ones. THREADS is the number of
//! candle's own threads, which the caller also gives in CANDLE_NUM_THREADS.

use candle_core::quantized::gguf_file::Content;
use candle_core::{D, Device, Result, Tensor};
use candle_transformers::models::quantized_llama::ModelWeights;
use std::io::BufRead;
use std::time::Instant;

/// Tokens of each prompt of several sequences.
const SHORT: usize = 16;

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, threads, prompt, output, rounds, sequences] = args.as_slice() else {
        return Err("the first lines of this program's source say how it is called".into());
    };
    // SAFETY: no other thread has been started yet.
    unsafe { std::env::set_var("RAYON_NUM_THREADS", threads) };
    let (prompt, output, rounds): (usize, usize, usize) = (prompt.parse()?, output.parse()?, rounds.parse()?);
    let counts = sequences.split(',').map(str::parse).collect::<std::result::Result<Vec<usize>, _>>()?;
    let mut file = std::fs::File::open(model)?;
    let content = Content::read(&mut file)?;
    let mut weights = ModelWeights::from_gguf(content, &mut file, &Device::Cpu)?;
    // The first pass touches memory for the first time, and does not count.
    write(&mut weights, &[vec![5, 6]], 2)?;
    println!("{}", serde_json::json!({ "ready": true, "version": "candle 0.11.1", "release": null }));
    for line in std::io::stdin().lock().lines().take(rounds) {
        line?;
        let (prefill, token) = write(&mut weights, &[text(prompt, 0)], output + 1)?;
        let mut together = Vec::new();
        for &count in &counts {
            let prompts: Vec<Vec<u32>> = (0..count).map(|salt| text(SHORT, salt)).collect();
            let (_, times) = write(&mut weights, &prompts, output)?;
            together.push((count * times.len()) as f64 / times.iter().sum::<f64>());
        }
        println!("{}", serde_json::json!({ "prefill_s": prefill, "token_s": token, "together": together }));
    }
    Ok(())
}

fn text(length: usize, salt: usize) -> Vec<u32> {
    (0..length).map(|i| ((i * 37 + salt) % 250 + 3) as u32).collect()
}

/// Seconds of prompts of one length, all at once, and of each token after the first; a batch writes one of each. candle
/// takes several tokens of one sequence at once, or one of several: the prompts of a batch are fed token by token.
fn write(weights: &mut ModelWeights, prompts: &[Vec<u32>], tokens: usize) -> Result<(f64, Vec<f64>)> {
    let length = prompts[0].len();
    let mut begin = Instant::now();
    let step = if prompts.len() == 1 { length } else { 1 };
    let mut last = None;
    for from in (0..length).step_by(step) {
        let part: Vec<u32> = prompts.iter().flat_map(|prompt| &prompt[from..from + step]).copied().collect();
        let input = Tensor::from_vec(part, (prompts.len(), step), &Device::Cpu)?;
        last = Some(likeliest(&weights.forward(&input, from)?)?);
    }
    let mut last = last.expect("a prompt has a token");
    let prefill = begin.elapsed().as_secs_f64();
    let mut times = Vec::new();
    for at in 0..tokens.saturating_sub(1) {
        begin = Instant::now();
        last = likeliest(&weights.forward(&last, length + at)?)?;
        times.push(begin.elapsed().as_secs_f64());
    }
    Ok((prefill, times))
}

/// The likeliest token of each sequence, as the input of the next step.
fn likeliest(logits: &Tensor) -> Result<Tensor> {
    logits.argmax(D::Minus1)?.unsqueeze(1)
}
