//! Power and heat of a plan's devices, as far as they are known, and in words where that comes from.

use super::ServerSetup;
use crate::SimulateError;
use crate::body::Body;
use crate::heat::{Heat, Seat};
use crate::pile::{Item, Pile};
use isotherm_core::device::Device;
use isotherm_core::power::Draw;
use isotherm_core::problem::PlacementProblem;
use isotherm_core::thermal::governor::Governor;
use isotherm_core::thermal::{ThermalNode, ThermalState, Throttle};
use isotherm_core::units::Watts;

/// The heat of all servers; each learns where its figures come from. Devices in a case that hold nothing idle in it.
pub fn heat(problem: &PlacementProblem, servers: &mut [ServerSetup]) -> Result<Heat, SimulateError> {
    let mut heat = Heat { seats: vec![Seat::Nowhere; servers.len()], ..Heat::default() };
    let conditions = &problem.conditions;
    let mut items = Vec::with_capacity(servers.len());
    for server in servers.iter_mut() {
        let (item, source) = item(problem.graph.device(server.device), server.power_cap)?;
        server.source = source;
        items.push(item);
    }
    let mut placed: Vec<&str> = Vec::new();
    for chassis in &conditions.chassis {
        let mut members = Vec::new();
        let mut within = Vec::new();
        let mut idle = Vec::new();
        for name in &chassis.devices {
            let refused = |why| {
                let (chassis, device) = (chassis.name.clone(), name.clone());
                SimulateError::Chassis { chassis, device, why }
            };
            if placed.contains(&name.as_str()) {
                return Err(refused("stands in a chassis already; name it once"));
            }
            placed.push(name);
            if let Some(server) = servers.iter().position(|server| &server.name == name) {
                if let Some(item) = items[server].take() {
                    within.push(server);
                    members.push(item);
                }
                continue;
            }
            let device = problem
                .graph
                .find(name)
                .ok_or_else(|| refused("is not in the device graph; name one of its devices"))?;
            // It holds no stage; what it draws idle warms the case all the same.
            idle.extend(bystander(problem.graph.device(device)));
        }
        if within.is_empty() {
            continue;
        }
        for (member, &server) in within.iter().enumerate() {
            heat.seats[server] = Seat::Pile(heat.piles.len(), member);
        }
        members.extend(idle);
        let pile = Pile::new(members, Some(chassis), problem.ambient, conditions.air.clone());
        heat.piles.push((pile, within));
    }
    for (server, item) in items.into_iter().enumerate() {
        let Some(item) = item else { continue };
        let device = problem.graph.device(servers[server].device);
        if is_plain(device) && conditions.air.is_empty() {
            heat.seats[server] = Seat::Alone(heat.bodies.len());
            let state = device.thermal.as_ref().map(|record| {
                let node = ThermalNode::of(record, problem.ambient);
                (ThermalState::settled(node, item.draw.idle()), Throttle::of(record))
            });
            heat.bodies.push(Body::new(item.draw, item.cap, state));
        } else {
            heat.seats[server] = Seat::Pile(heat.piles.len(), 0);
            let pile = Pile::new(vec![item], None, problem.ambient, conditions.air.clone());
            heat.piles.push((pile, vec![server]));
        }
    }
    Ok(heat)
}

/// Whether one node and one throttle say all of a device.
fn is_plain(device: &Device) -> bool {
    let nodes = device.thermal.as_ref().is_none_or(|r| r.die.is_none() && r.case.is_none() && r.fan.is_none());
    nodes && device.governor.is_none() && device.battery.is_none()
}

fn governor(device: &Device) -> Option<Governor> {
    device.governor.clone().or_else(|| device.thermal.as_ref().and_then(Governor::of_throttle))
}

fn bystander(device: &Device) -> Option<Item> {
    let idle = device.idle_watts.as_ref()?.value;
    let record = Some(device.thermal.clone()?);
    Some(Item { draw: Draw::new(idle, idle), cap: 1.0, record, governor: None, battery: None })
}

fn item(device: &Device, power_cap: Option<Watts>) -> Result<(Option<Item>, String), SimulateError> {
    let (Some(draw), Some(idle), Some(busy)) = (Draw::of(device), &device.idle_watts, &device.busy_watts) else {
        if let Some(cap) = power_cap {
            return Err(SimulateError::CapWithoutPower { device: device.name.clone(), cap });
        }
        return Ok((None, "no power figures".to_owned()));
    };
    let mut source = format!("simulated, {} power", idle.how.weaker(busy.how));
    let (idle, busy) = (idle.value, busy.value);
    let cap = match power_cap {
        Some(cap) if cap < busy => {
            if cap <= idle {
                return Err(SimulateError::CapBelowIdle { device: device.name.clone(), cap, idle });
            }
            draw.speed_under(cap)
        }
        _ => 1.0,
    };
    match &device.thermal {
        Some(record) => {
            let how = record.resistance_kelvin_per_watt.how.weaker(record.capacity_joules_per_kelvin.how);
            source += &format!(", {how} thermal parameters");
            if governor(device).is_none() {
                source += ", no throttle parameters";
            }
        }
        None => source += ", no thermal parameters",
    }
    let (record, battery) = (device.thermal.clone(), device.battery.clone());
    Ok((Some(Item { draw, cap, record, governor: governor(device), battery }), source))
}
