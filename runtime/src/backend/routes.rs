//! The devices of this host: one entry for each card, however many interfaces reach it.

use super::contract::{Backend, DeviceInfo, Platform};
use super::cuda::CudaPlatform;
use super::error::DeviceError;
use super::faulty::losing;
use super::wgpu::{GL, WgpuOptions, WgpuPlatform};
use crate::model::store::user_folder;
use std::sync::{Arc, OnceLock};

/// One way to reach a device.
#[derive(Clone)]
pub struct Route {
    /// Who opens it.
    pub platform: Arc<dyn Platform>,
    /// What that interface says of it.
    pub info: DeviceInfo,
}

/// One device, with the ways to reach it, the preferred one first.
#[derive(Clone)]
pub struct Found {
    /// Its name: the preferred route's backend and a number.
    pub name: String,
    /// The ways, at least one.
    pub routes: Vec<Route>,
}

/// What was found.
pub struct Routes {
    /// The devices.
    pub devices: Vec<Found>,
    /// Backends without a device here, and why.
    pub absent: Vec<(&'static str, DeviceError)>,
}

/// Backends in the order in which they are preferred for one and the same card on an operating system, by its name in
/// [`std::env::consts::OS`]: the maker's own interface first, where there is one. The processor comes after all of them.
/// A system that is not known has at most a portable interface.
#[must_use]
pub fn priority(system: &str) -> &'static [&'static str] {
    match system {
        "linux" | "windows" => &["cuda", "wgpu"],
        // Metal on Apple's systems, Vulkan on Android; there is no driver of NVIDIA's for any of them.
        _ => &["wgpu"],
    }
}

/// Every backend but the processor, in the order of [`priority`] on this system; the same objects for the life of the
/// process.
#[must_use]
pub fn platforms() -> &'static [Arc<dyn Platform>] {
    static PLATFORMS: OnceLock<Vec<Arc<dyn Platform>>> = OnceLock::new();
    PLATFORMS.get_or_init(|| {
        // Compiled kernels are kept beside the models; where there is no such folder they are compiled each time.
        let cache = user_folder().ok().map(|models| models.with_file_name("kernels"));
        let cuda = CudaPlatform { cache: cache.clone(), ..CudaPlatform::default() };
        let wgpu = WgpuPlatform::new(WgpuOptions { cache, ..WgpuOptions::default() });
        let known: [Arc<dyn Platform>; 2] = [Arc::new(cuda), Arc::new(wgpu)];
        let all: Vec<Arc<dyn Platform>> = ordered(&known, priority(std::env::consts::OS));
        match std::env::var(LOSE).ok().and_then(|launches| launches.parse().ok()) {
            Some(launches) => all.into_iter().map(|inner| Arc::new(Losing { inner, launches }) as Arc<_>).collect(),
            None => all,
        }
    })
}

/// Those that an order names, in that order.
fn ordered(known: &[Arc<dyn Platform>], order: &[&str]) -> Vec<Arc<dyn Platform>> {
    order.iter().filter_map(|name| known.iter().find(|platform| platform.name() == *name)).cloned().collect()
}

/// Environment variable that rehearses a loss: every device is lost at so many batches after it was opened. The gate
/// before a stage takes six, so that from seven on the loss comes in the middle of a run.
const LOSE: &str = "ISOTHERM_REHEARSE_LOSS";

/// A platform whose devices are lost.
struct Losing {
    inner: Arc<dyn Platform>,
    launches: u32,
}

impl Platform for Losing {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn devices(&self) -> Result<Vec<DeviceInfo>, DeviceError> {
        self.inner.devices()
    }

    fn open(&self, index: usize) -> Result<Box<dyn Backend>, DeviceError> {
        Ok(losing(self.inner.open(index)?, self.launches))
    }

    fn refills_beside(&self) -> bool {
        self.inner.refills_beside()
    }
}

/// PCI domain, bus and device of an address such as `0000:01:00.0` or `01:00.0`. The function is left out: interfaces
/// write it differently, and a card has one.
pub(super) fn pci(address: &str) -> Option<(u32, u32, u32)> {
    let number = |text: &str| u32::from_str_radix(text, 16).ok();
    let address = address.split('.').next()?;
    match *address.split(':').collect::<Vec<_>>() {
        [domain, bus, device] => Some((number(domain)?, number(bus)?, number(device)?)),
        [bus, device] => Some((0, number(bus)?, number(device)?)),
        _ => None,
    }
}

/// Whether two interfaces speak of one card. Names prove nothing: two cards of one kind share theirs.
fn same_card(a: &DeviceInfo, b: &DeviceInfo) -> bool {
    let known = |text: &Option<String>| text.as_deref().map(str::to_lowercase);
    if let (Some(a), Some(b)) = (known(&a.uuid), known(&b.uuid))
        && a == b
    {
        return true;
    }
    let address = |info: &DeviceInfo| info.pci.as_deref().and_then(pci);
    matches!((address(a), address(b)), (Some(a), Some(b)) if a == b)
}

/// The name of a card without what OpenGL's drivers add to it: bus and instruction set behind strokes.
fn bare(name: &str) -> &str {
    name.split('/').next().unwrap_or(name).trim()
}

/// Where a card that is seen through OpenGL belongs. That interface tells neither address nor identifier: where exactly one
/// card has its name it is that one, and where several have, nobody can say which.
enum ThroughGl {
    Another,
    Same(usize),
    OneOf(usize),
}

fn through_gl(info: &DeviceInfo, devices: &[Found]) -> ThroughGl {
    if info.interface != GL || info.pci.is_some() || info.uuid.is_some() {
        return ThroughGl::Another;
    }
    let same = |found: &Found| found.routes.iter().any(|route| bare(&route.info.name) == bare(&info.name));
    let places: Vec<usize> = (0..devices.len()).filter(|&i| same(&devices[i])).collect();
    match *places {
        [] => ThroughGl::Another,
        [place] => ThroughGl::Same(place),
        _ => ThroughGl::OneOf(places.len()),
    }
}

impl Routes {
    /// Looks at platforms. `order` names backends in the order in which they are preferred; those it leaves out are not
    /// looked at. The platforms' own order where it is empty.
    #[must_use]
    pub fn discover(platforms: &[Arc<dyn Platform>], order: &[&str]) -> Self {
        let rank = |name: &str| order.iter().position(|wanted| *wanted == name);
        let mut asked: Vec<&Arc<dyn Platform>> =
            platforms.iter().filter(|platform| order.is_empty() || rank(platform.name()).is_some()).collect();
        asked.sort_by_key(|platform| rank(platform.name()));
        let (mut devices, mut absent): (Vec<Found>, Vec<_>) = (Vec::new(), Vec::new());
        for platform in asked {
            let infos = match platform.devices() {
                Ok(infos) => infos,
                Err(error) => {
                    absent.push((platform.name(), error));
                    continue;
                }
            };
            for info in infos {
                let route = Route { platform: Arc::clone(platform), info };
                match through_gl(&route.info, &devices) {
                    ThroughGl::Another => {}
                    ThroughGl::Same(place) => {
                        devices[place].routes.push(route);
                        continue;
                    }
                    ThroughGl::OneOf(cards) => {
                        let what = format!("telling which of {cards} cards of its name it is");
                        let device = format!("{} through {GL}", route.info.name);
                        absent.push((platform.name(), DeviceError::NotSupported { device, what }));
                        continue;
                    }
                }
                match devices.iter_mut().find(|found| found.routes.iter().any(|r| same_card(&r.info, &route.info))) {
                    Some(found) => found.routes.push(route),
                    None => {
                        let name = format!("{}{}", route.info.backend, route.info.index);
                        devices.push(Found { name, routes: vec![route] });
                    }
                }
            }
        }
        Self { devices, absent }
    }

    /// The route to a device that was measured before: by identifier or address where it has one, else by its number.
    #[must_use]
    pub fn find(&self, backend: &str, name: &str, uuid: Option<&str>, address: Option<&str>) -> Option<&Route> {
        let routes =
            || self.devices.iter().flat_map(|found| found.routes.iter()).filter(|route| route.info.backend == backend);
        let by_uuid = |route: &&Route| uuid.is_some() && route.info.uuid.as_deref() == uuid;
        let by_pci = |route: &&Route| {
            let wanted = address.and_then(pci);
            wanted.is_some() && route.info.pci.as_deref().and_then(pci) == wanted
        };
        let found = routes().find(by_uuid).or_else(|| routes().find(by_pci));
        if found.is_some() || uuid.is_some() || address.is_some() {
            return found;
        }
        // A logical device has a number of its own behind the card's.
        let number = name.strip_prefix(backend)?.split('-').next()?;
        routes().find(|route| route.info.index.to_string() == number)
    }
}

#[cfg(test)]
mod tests {
    use super::super::contract::Hardware;
    use super::*;

    struct Listed(&'static str, Vec<DeviceInfo>);

    impl Platform for Listed {
        fn name(&self) -> &'static str {
            self.0
        }

        fn devices(&self) -> Result<Vec<DeviceInfo>, DeviceError> {
            if self.1.is_empty() {
                return Err(DeviceError::NoDriver { backend: self.0, why: "none".into() });
            }
            Ok(self.1.clone())
        }

        fn open(&self, index: usize) -> Result<Box<dyn Backend>, DeviceError> {
            Err(DeviceError::NoSuchDevice { backend: self.0, wanted: index, found: 0 })
        }
    }

    fn info(backend: &'static str, index: usize, pci: Option<&str>) -> DeviceInfo {
        DeviceInfo {
            backend,
            index,
            name: "card".into(),
            interface: backend.into(),
            driver: None,
            hardware: Hardware::Discrete,
            pci: pci.map(str::to_owned),
            uuid: None,
            ids: None,
            memory_bytes: None,
        }
    }

    fn two_routes() -> Vec<Arc<dyn Platform>> {
        vec![
            Arc::new(Listed(
                "cuda",
                vec![info("cuda", 0, Some("0000:01:00.0")), info("cuda", 1, Some("0000:41:00.0"))],
            )),
            Arc::new(Listed("wgpu", vec![info("wgpu", 0, Some("0000:41:00")), info("wgpu", 1, None)])),
        ]
    }

    #[test]
    fn a_card_seen_through_two_interfaces_is_one_device_with_the_preferred_route_first() {
        let routes = Routes::discover(&two_routes(), &[]);
        let names: Vec<&str> = routes.devices.iter().map(|found| found.name.as_str()).collect();
        assert_eq!(names, ["cuda0", "cuda1", "wgpu1"]);
        let second: Vec<&str> = routes.devices[1].routes.iter().map(|route| route.info.backend).collect();
        assert_eq!(second, ["cuda", "wgpu"]);
    }

    #[test]
    fn a_card_seen_through_vulkan_and_opengl_is_one_device_unless_two_cards_share_its_name() {
        let named = |index, name: &str, interface: &str, pci| DeviceInfo {
            name: name.into(),
            interface: interface.into(),
            ..info("wgpu", index, pci)
        };
        let through = |infos| Routes::discover(&[Arc::new(Listed("wgpu", infos)) as Arc<dyn Platform>], &[]);
        let first = named(0, "NVIDIA H200", "Vulkan", Some("0000:01:00.0"));
        let gl = |index| named(index, "NVIDIA H200/PCIe/SSE2", GL, None);
        let routes = through(vec![first.clone(), gl(1)]);
        assert_eq!((routes.devices.len(), routes.devices[0].routes.len()), (1, 2));
        assert_eq!(routes.devices[0].routes[1].info.interface, GL);
        let second = named(1, "NVIDIA H200", "Vulkan", Some("0000:02:00.0"));
        let routes = through(vec![first.clone(), second, gl(2)]);
        assert_eq!((routes.devices.len(), routes.absent.len()), (2, 1), "no third card comes out of two");
        let routes = through(vec![first, named(1, "Mesa Intel UHD", GL, None)]);
        assert_eq!(routes.devices.len(), 2, "another card's name is another card");
    }

    #[test]
    fn each_system_prefers_the_makers_own_interface_where_it_has_one() {
        let platforms = two_routes();
        let preferred = |system: &str| {
            let names = |routes: Routes| routes.devices.into_iter().map(|found| found.name).collect::<Vec<_>>();
            names(Routes::discover(&ordered(&platforms, priority(system)), &[]))
        };
        assert_eq!(preferred("linux"), ["cuda0", "cuda1", "wgpu1"]);
        assert_eq!(preferred("windows"), preferred("linux"));
        for system in ["macos", "ios", "android", "some other"] {
            assert_eq!(preferred(system), ["wgpu0", "wgpu1"], "{system}");
        }
    }

    #[test]
    fn the_user_turns_the_order_round_or_leaves_a_backend_out() {
        let routes = Routes::discover(&two_routes(), &["wgpu", "cuda"]);
        assert_eq!(routes.devices[0].name, "wgpu0");
        assert_eq!(routes.devices[0].routes.len(), 2);
        let routes = Routes::discover(&two_routes(), &["wgpu"]);
        assert!(routes.devices.iter().all(|found| found.routes.len() == 1 && found.name.starts_with("wgpu")));
    }

    #[test]
    fn a_device_is_found_again_by_its_address_and_not_by_a_number_that_moved() {
        let routes = Routes::discover(&two_routes(), &[]);
        let found = routes.find("cuda", "cuda0", None, Some("0000:41:00.0")).map(|route| route.info.index);
        assert_eq!(found, Some(1));
        assert!(routes.find("cuda", "cuda0", None, Some("0000:99:00.0")).is_none());
        assert_eq!(routes.find("wgpu", "wgpu1-3", None, None).map(|route| route.info.index), Some(1));
    }

    #[test]
    fn a_backend_without_a_driver_is_absent_with_its_reason() {
        let mut platforms = two_routes();
        platforms.push(Arc::new(Listed("hip", Vec::new())));
        let routes = Routes::discover(&platforms, &[]);
        assert!(matches!(routes.absent[..], [("hip", DeviceError::NoDriver { .. })]));
    }
}
