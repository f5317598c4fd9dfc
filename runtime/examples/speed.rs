//! Prints prefill and decode speed of a model file by arithmetic and cores.
//!
//! `cargo run -p isotherm-runtime --example speed -- MODEL.gguf [portable|avx2|avx512]`

use isotherm_runtime::cpu::{Arithmetic, Isa};
use isotherm_runtime::engine::{CpuDevice, Cut, Kernels, Runner, Sampling};
use isotherm_runtime::model::Geometry;
use isotherm_runtime::model::gguf::Gguf;
use std::time::Instant;

/// Seconds that this thread has been on a processor, where the system says; on a busy machine this tells what the wall
/// clock cannot.
fn on_processor() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(text.split(' ').next()?.parse::<f64>().ok()? * 1e-9)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("give a model file")?;
    let wanted = std::env::args().nth(2);
    let gguf = Gguf::open(path.as_ref())?;
    let geometry = Geometry::from_gguf(&gguf)?;
    let cores = CpuDevice::host_cores();
    let isa = Isa::available().iter().copied().rfind(|isa| wanted.as_deref().is_none_or(|name| name == isa.name()));
    let isa = isa.ok_or("this processor does not have those instructions")?;
    println!("{} arithmetic cores load_s prefill_tok_s decode_tok_s p50 best", isa.name());
    for arithmetic in [Arithmetic::F32, Arithmetic::Int8] {
        for count in 1..=cores.len() {
            let device = CpuDevice::new("cpu", &cores[..count]);
            let cut = Cut { layers: 0..geometry.layers, device };
            let begin = Instant::now();
            let mut runner = Runner::start(&gguf, &geometry, Kernels { isa, arithmetic }, &[cut], 512, 256)?;
            let load = begin.elapsed().as_secs_f64();
            let prompt: Vec<u32> = (0..256).map(|i| (i * 37 % geometry.vocabulary) as u32).collect();
            let (mut prefill, mut decode) = (Vec::new(), Vec::new());
            let (mut prefill_own, mut decode_own) = (0.0, 0.0);
            for _ in 0..5 {
                let mut last = Instant::now();
                let mut own = on_processor().unwrap_or(0.0);
                let mut first = true;
                runner.generate(&prompt, 64, &[], Sampling::GREEDY, &mut |_| {
                    let now = Instant::now();
                    let span = (now - last).as_secs_f64();
                    let own_span = on_processor().unwrap_or(0.0) - own;
                    if std::mem::take(&mut first) {
                        prefill.push(span);
                        prefill_own += own_span;
                    } else {
                        decode.push(span);
                        decode_own += own_span;
                    }
                    own += own_span;
                    last = Instant::now();
                    true
                })?;
            }
            prefill.sort_by(f64::total_cmp);
            decode.sort_by(f64::total_cmp);
            println!(
                "{} {count} {load:.2} {:.0} (best {:.0}) {:.1} (best {:.1}), per second on the processor: {:.0} {:.1}",
                arithmetic.name(),
                256.0 / prefill[prefill.len() / 2],
                256.0 / prefill[0],
                1.0 / decode[decode.len() / 2],
                1.0 / decode[0],
                256.0 * prefill.len() as f64 / prefill_own,
                decode.len() as f64 / decode_own,
            );
        }
    }
    Ok(())
}
