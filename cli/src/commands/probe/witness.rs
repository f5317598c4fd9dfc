//! Steps timed apart from any probe, to hold its tables against.

use super::Wanted;
use crate::failure::{Code, Failure};
use crate::models::{self, LocalModel};
use crate::{interrupt, trust};
use isotherm_core::cost::StepShape;
use isotherm_core::ids::Layers;
use isotherm_core::units::Seconds;
use isotherm_runtime::engine::Kernels;
use isotherm_runtime::host::Roots;
use isotherm_runtime::probe::{Request, Witnessed, conditions, witness};
use std::sync::atomic::Ordering;

/// Times steps of these shapes through layers of a model on every device that is wanted, or on the one so named, each for so
/// long.
pub fn witnessed(
    model: &LocalModel,
    wanted: &Wanted<'_>,
    only: Option<&str>,
    layers: Layers,
    shapes: &[StepShape],
    each: Seconds,
) -> Result<Vec<(String, Layers, Vec<Witnessed>)>, Failure> {
    let devices = wanted.devices()?;
    let kernels = Kernels { arithmetic: wanted.arithmetic.arithmetic(), ..Kernels::detect() };
    let (name, now) = (trust::host_id(), trust::now()?.to_string());
    let request = Request {
        gguf: &model.gguf,
        geometry: &model.geometry,
        model: &model.model,
        devices: &devices,
        kernels,
        host: &name,
        memory: None,
        budget: each,
        when: &now,
        conditions: &|device| conditions(&Roots::default(), device, kernels),
    };
    let mut found = Vec::new();
    for device in devices.iter().filter(|device| only.is_none_or(|name| device.name == name)) {
        let steps = witness(&request, device, layers, shapes, each)
            .map_err(|e| Failure::new(Code::Device, format!("failed to time steps: {}", models::causes(&e))))?;
        found.push((device.name.clone(), layers, steps));
        if interrupt::flag().load(Ordering::Relaxed) {
            return Err(Failure::io("interrupted"));
        }
    }
    Ok(found)
}
