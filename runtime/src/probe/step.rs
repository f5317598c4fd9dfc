//! A step of a device's power: idle, full load, idle again, with its temperature beside it.
//!
//! What a first-order model needs is the way up and the way down; the idle part before tells the air. The load is decoding
//! with the model's real layers, as heavy as the device will ever have.

use super::profile::start;
use super::{ProbeError, Request};
use crate::discover::Machine;
use crate::engine::cache::blocks_for;
use crate::engine::pass::Pass;
use crate::engine::{CpuDevice, Kernels, Sampling};
use crate::host::Roots;
use crate::model::Geometry;
use crate::model::gguf::Gguf;
use crate::telemetry::{Sample, Sampler};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Tokens of the passes that make the load.
const TOKENS: usize = 32;

/// What is done.
pub struct Step<'a> {
    /// Time with nothing to do, before.
    pub idle: Duration,
    /// Time of full load.
    pub load: Duration,
    /// Time with nothing to do, after.
    pub cooling: Duration,
    /// Time between two samples.
    pub interval: Duration,
    /// The model's file.
    pub gguf: &'a Gguf,
    /// Its geometry.
    pub geometry: &'a Geometry,
    /// How kernels compute.
    pub kernels: Kernels,
}

/// One sample of the step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepSample {
    /// Seconds since it began.
    pub seconds: f64,
    /// Mean power since the sample before, in watts.
    pub watts: f64,
    /// Temperature in °C.
    pub celsius: f64,
    /// Clock in MHz, where it is told.
    pub megahertz: Option<f64>,
    /// 1 under load, 0 without.
    pub busy: f64,
}

/// Why there is no step.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// Nothing tells its temperature or its power.
    #[error("device {device:?} has no sensor of its {what} here, so that how it warms cannot be seen")]
    NoSensor {
        /// The device.
        device: String,
        /// `temperature` or `power`.
        what: &'static str,
    },
    /// The load could not be made.
    #[error("device {device:?} took no load")]
    Load {
        /// The device.
        device: String,
        /// Why.
        #[source]
        source: Box<ProbeError>,
    },
    /// Somebody ended it.
    #[error("the step was ended before it was over")]
    Ended,
}

/// Makes the step and samples it. `progress` hears how much is done, and ends it with `false`.
///
/// # Errors
/// No sensor, no load, or an end before its time.
pub fn power_step(
    roots: &Roots,
    device: &CpuDevice,
    step: &Step<'_>,
    progress: &mut dyn FnMut(f64) -> bool,
) -> Result<Vec<StepSample>, StepError> {
    let machine = Machine::discover(roots);
    let mut sampler = Sampler::of_host(roots, &machine);
    let no = |what| StepError::NoSensor { device: device.name.clone(), what };
    let place = match &device.card {
        None => Some(0),
        Some(card) => {
            let infos = card.platform.devices().unwrap_or_default();
            let pci = infos.into_iter().find(|info| info.index == card.index).and_then(|info| info.pci);
            machine.cards.iter().position(|known| known.pci.is_some() && known.pci == pci).map(|at| at + 1)
        }
    };
    let place = place.ok_or_else(|| no("temperature"))?;
    let first = sampler.sample(0)[place];
    first.celsius.or(first.hot_spot_celsius).ok_or_else(|| no("temperature"))?;
    if first.watts.is_none() && first.joules.is_none() {
        return Err(no("power"));
    }
    let (work, over) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let load = std::thread::Builder::new()
            .name("isotherm-load".to_owned())
            .spawn_scoped(scope, || load(device, step, &work, &over));
        let sampled = sampled(&mut sampler, place, step, &work, progress);
        over.store(true, Ordering::SeqCst);
        let failed = |source| StepError::Load { device: device.name.clone(), source: Box::new(source) };
        let ended = load.map_err(|error| failed(ProbeError::Thread(error)))?.join();
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic)).map_err(failed)?;
        sampled
    })
}

fn sampled(
    sampler: &mut Sampler,
    place: usize,
    step: &Step<'_>,
    work: &AtomicBool,
    progress: &mut dyn FnMut(f64) -> bool,
) -> Result<Vec<StepSample>, StepError> {
    let whole = step.idle + step.load + step.cooling;
    let begun = Instant::now();
    let mut samples = Vec::new();
    let mut before: Option<(Sample, f64)> = None;
    for round in 0_u32.. {
        let at = step.interval * round;
        if at > whole {
            break;
        }
        if !progress(at.as_secs_f64() / whole.as_secs_f64()) {
            return Err(StepError::Ended);
        }
        let busy = at >= step.idle && at < step.idle + step.load;
        work.store(busy, Ordering::SeqCst);
        std::thread::sleep((begun + at).saturating_duration_since(Instant::now()));
        let (seconds, sample) = (begun.elapsed().as_secs_f64(), sampler.sample(0)[place]);
        let mean = before.and_then(|(before, then)| {
            let joules = sample.joules?.value() - before.joules?.value();
            (seconds > then).then(|| joules / (seconds - then))
        });
        let watts = sample.watts.map(|watts| watts.value()).or(mean);
        if let (Some(watts), Some(celsius)) = (watts, sample.celsius.or(sample.hot_spot_celsius)) {
            let megahertz = sample.clock_hertz.map(|clock| clock.value() / 1e6);
            let busy = f64::from(u8::from(busy));
            samples.push(StepSample { seconds, watts, celsius: celsius.value(), megahertz, busy });
        }
        before = Some((sample, seconds));
    }
    work.store(false, Ordering::SeqCst);
    Ok(samples)
}

/// Runs passes while there is work to do, and sleeps while there is none.
fn load(device: &CpuDevice, step: &Step<'_>, work: &AtomicBool, over: &AtomicBool) -> Result<(), ProbeError> {
    let layers = step.geometry.layers;
    let model = step.geometry.describe(step.gguf, "load", 4, None);
    let conditions = |_: &CpuDevice| isotherm_core::cost::Conditions::default();
    let request = Request {
        gguf: step.gguf,
        geometry: step.geometry,
        model: &model,
        devices: std::slice::from_ref(device),
        kernels: step.kernels,
        host: "",
        memory: None,
        budget: isotherm_core::units::Seconds::ZERO,
        when: "",
        conditions: &conditions,
    };
    let mut pipeline = start(&request, &[(device, 0..layers)], step.kernels, TOKENS, TOKENS, blocks_for(TOKENS))?;
    let mut pass = Pass::default();
    let tokens: Vec<u32> = (0..TOKENS as u32).map(|token| 3 + token % 7).collect();
    while !over.load(Ordering::SeqCst) {
        if !work.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(10));
            continue;
        }
        pass.clear();
        pass.push(0, &tokens, 0.., [TOKENS - 1]);
        pass.ask(Sampling::GREEDY, 1, std::iter::empty());
        pipeline.send(pass);
        pass = pipeline.receive();
        super::profile::sound(device, &mut pass)?;
    }
    Ok(())
}
