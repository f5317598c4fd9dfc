//! Stages in a row, each on its own threads.
//!
//! The first stage runs on the thread that drives the pipeline, so that a pipeline of one stage is a function call;
//! every other stage has a thread that takes passes from a channel and sends them on. Passes come back to the driver in
//! the order in which they were sent.

use super::channel::{Receiver, Sender, bounded};
use super::device::CpuDevice;
use super::device_stage::DeviceStage;
use super::gate::{self, GateError};
use super::pass::Pass;
use super::shelf::{self, Away, Offload, Offloaded};
use super::stage::{Stage, StageSpec};
use super::weights::packed_bytes;
use crate::backend::{Counters, DeviceError, MemoryInfo};
use crate::cpu::neighbours::Reading;
use crate::cpu::team::{Patience, Team, pin};
use crate::model::Geometry;
use crate::model::gguf::Gguf;
use std::collections::VecDeque;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// One stage's place and make.
#[derive(Clone, Debug)]
pub(crate) struct StagePlace {
    pub(crate) device: CpuDevice,
    pub(crate) spec: StageSpec,
}

/// Why a stage could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The operating system gave no memory for weights or cache.
    #[error("device {device:?} has no memory for its stage; free some or plan for less")]
    Memory {
        /// The device.
        device: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The weights may take less memory than a stage can be run with.
    #[error(
        "device {device:?} may hold {budget} bytes of weights; its stage needs {least} for the output head and two layers, \
         however many others lie in a file: give a larger budget"
    )]
    Budget {
        /// The device.
        device: String,
        /// Bytes it may hold.
        budget: usize,
        /// Bytes it has to hold.
        least: usize,
    },
    /// A card did not open or did not take the stage.
    #[error("device {device:?} did not take its stage")]
    Device {
        /// The device.
        device: String,
        /// What it said.
        #[source]
        source: Box<DeviceError>,
    },
    /// A card computes something else than the reference does.
    #[error("device {device:?} was refused at the gate")]
    Gate {
        /// The device.
        device: String,
        /// The operation, and by how much it differs.
        #[source]
        source: GateError,
    },
    /// The operating system gave no thread.
    #[error("device {device:?} could not start its threads")]
    Threads {
        /// The device.
        device: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// A loaded stage, and how much longer than it takes it holds a pass.
struct Worker {
    kind: Kind,
    /// Thousandths of its own time.
    held: u32,
}

/// One loaded stage.
enum Kind {
    /// On the processor, with its threads.
    Processor(Box<Stage>, Team),
    /// On a device behind the contract.
    Card(Box<DeviceStage>),
}

/// Loaded stages, ready for passes.
pub(crate) struct Pipeline {
    first: Worker,
    /// To the second stage; none where there is one stage only.
    next: Option<Sender<Pass>>,
    /// From the last stage.
    last: Option<Receiver<Pass>>,
    /// Passes that a single stage has finished.
    finished: VecDeque<Pass>,
    threads: Vec<JoinHandle<()>>,
}

/// Passes that may lie between two stages.
const CAPACITY: usize = 64;

impl Pipeline {
    /// Loads all stages, each on its own device at the same time. The calling thread becomes the first worker of the
    /// first stage's device, and is bound to its core. Threads wait as if other stages were on these other cores
    /// besides.
    ///
    /// # Errors
    /// When a device gives no memory or threads.
    ///
    /// # Panics
    /// When there is no stage, or a device has no cores.
    pub(crate) fn start_beside(
        gguf: &Gguf,
        geometry: &Geometry,
        places: &[StagePlace],
        others: &[usize],
    ) -> Result<Self, StartError> {
        Self::start_all(gguf, geometry, places, None, others)
    }

    /// As [`Self::start_beside`], with at most so many bytes of the processor's weights in memory, and the others in a
    /// folder, all stages together; each gets a share by the size of its weights.
    ///
    /// # Errors
    /// When a stage's share is too small for it, and as for [`Self::start_beside`].
    ///
    /// # Panics
    /// As [`Self::start_beside`].
    pub(crate) fn start_within(
        gguf: &Gguf,
        geometry: &Geometry,
        places: &[StagePlace],
        budget: Option<(usize, &Path)>,
    ) -> Result<Self, StartError> {
        Self::start_all(gguf, geometry, places, budget, &[])
    }

    fn start_all(
        gguf: &Gguf,
        geometry: &Geometry,
        places: &[StagePlace],
        budget: Option<(usize, &Path)>,
        others: &[usize],
    ) -> Result<Self, StartError> {
        let patience = |index, otherwise| patience(places, others, index, otherwise);
        let core = |index: usize| places.get(index).and_then(|place| place.device.cores.first()).copied();
        let mut shares = shares(gguf, geometry, places, budget)?.into_iter();
        let first_share = shares.next().flatten();
        let shares: Vec<Option<Offload>> = shares.collect();
        let (head, rest) = places.split_first().expect("a pipeline has a stage");
        let mut threads = Vec::new();
        let (ready, started) = std::sync::mpsc::channel();
        // From the last stage to the second: each is given the way to the one after it.
        let (mut to, last) = bounded(CAPACITY, patience(0, Patience::Sleep), core(0));
        for (index, place) in places.iter().enumerate().skip(1).rev() {
            let (to_this, inbox) = bounded(CAPACITY, patience(index, Patience::Sleep), core(index));
            let helpers = patience(index, Patience::Glance);
            let outbox = std::mem::replace(&mut to, to_this);
            let (gguf, geometry, place, ready) = (gguf.clone(), geometry.clone(), place.clone(), ready.clone());
            let device = place.device.name.clone();
            let share = shares[index - 1].clone();
            let thread = std::thread::Builder::new()
                .name(format!("isotherm-{device}"))
                .spawn(move || match load(&gguf, &geometry, &place, helpers, share.as_ref()) {
                    Ok(mut stage) => {
                        // The driver waits for this message, so it is there to hear it.
                        let _ = ready.send(Ok(()));
                        serve(&mut stage, &inbox, &outbox);
                    }
                    Err(error) => {
                        let _ = ready.send(Err(error));
                    }
                })
                .map_err(|source| StartError::Threads { device, source })?;
            threads.push(thread);
        }
        let first = load(gguf, geometry, head, patience(0, Patience::Glance), first_share.as_ref())?;
        for _ in rest {
            started.recv().expect("a stage reports before it ends")?;
        }
        let (next, last) = if rest.is_empty() { (None, None) } else { (Some(to), Some(last)) };
        Ok(Self { first, next, last, finished: VecDeque::new(), threads })
    }

    /// Takes a pass through the first stage, here and now, and sends it on.
    ///
    /// # Panics
    /// When a stage's thread has panicked.
    pub(crate) fn send(&mut self, mut pass: Pass) {
        timed(&mut self.first, &mut pass);
        match &self.next {
            None => self.finished.push_back(pass),
            Some(next) => assert!(next.send(pass), "the thread of a stage has ended"),
        }
    }

    /// The oldest pass that has been through all stages, waiting for it. At least one must be on its way.
    ///
    /// # Panics
    /// When none is on its way, or a stage's thread has panicked.
    pub(crate) fn receive(&mut self) -> Pass {
        match &self.last {
            None => self.finished.pop_front().expect("a pass is on its way"),
            Some(last) => last.receive().expect("the thread of a stage has ended"),
        }
    }

    /// What the first stage's device has done since it was opened; none where that is the processor.
    pub(crate) fn counters(&self) -> Option<Counters> {
        match &self.first.kind {
            Kind::Processor(..) => None,
            Kind::Card(stage) => Some(stage.device().counters()),
        }
    }

    /// Bytes that the first stage has allocated on its card, and the card's memory as its driver tells it; none where
    /// the stage is on the processor.
    ///
    /// # Errors
    /// What the driver says.
    pub(crate) fn card_memory(&mut self) -> Result<Option<(u64, MemoryInfo)>, DeviceError> {
        match &mut self.first.kind {
            Kind::Processor(..) => Ok(None),
            Kind::Card(stage) => {
                let device = stage.device_mut();
                Ok(Some((device.live().bytes, device.memory()?)))
            }
        }
    }

    /// Waits until a pass has been through all stages, or it is `deadline`.
    pub(crate) fn wait(&self, deadline: Instant) {
        if let Some(last) = &self.last {
            last.wait(deadline);
        }
    }

    /// The oldest pass that has been through all stages, if there is one.
    pub(crate) fn try_receive(&mut self) -> Option<Pass> {
        match &self.last {
            None => self.finished.pop_front(),
            Some(last) => last.try_receive(),
        }
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        // Closing the way in ends the second stage, whose end closes the way to the third, and so on.
        self.next = None;
        self.last = None;
        for thread in self.threads.drain(..) {
            // A panic there has been reported as the end of the channel.
            let _ = thread.join();
        }
    }
}

/// Adds what a stage brought to what those before it did.
fn add_to(all: &mut Option<Offloaded>, figures: &Offloaded) {
    match all {
        Some(all) => all.add(figures),
        None => *all = Some(*figures),
    }
}

/// How the threads of stage `index` wait: on cores that no other stage uses, nor anybody else that is named, they
/// watch; on others, `otherwise`.
fn patience(places: &[StagePlace], elsewhere: &[usize], index: usize, otherwise: Patience) -> Patience {
    let own = &places[index].device.cores;
    // A card's thread has no core of its own, and one that watches would take another stage's.
    if own.is_empty() {
        return Patience::Sleep;
    }
    let mut others = places.iter().enumerate().filter(|(other, _)| *other != index);
    let shared = others.any(|(_, place)| place.device.cores.iter().any(|core| own.contains(core)))
        || elsewhere.iter().any(|core| own.contains(core));
    if shared { otherwise } else { Patience::Watch }
}

/// Loads one stage on the calling thread, which becomes the first worker of its device.
fn load(
    gguf: &Gguf,
    geometry: &Geometry,
    place: &StagePlace,
    helpers: Patience,
    offload: Option<&Offload>,
) -> Result<Worker, StartError> {
    let device = || place.device.name.clone();
    let worker = |kind| Worker { kind, held: place.device.held };
    if let Some(card) = &place.device.card {
        match gate::check(card, gguf, geometry, &place.spec) {
            Ok(()) => {}
            Err(gate::Refused::Differs(source)) => return Err(StartError::Gate { device: device(), source }),
            Err(gate::Refused::Failed(source)) => {
                return Err(StartError::Device { device: device(), source: Box::new(source) });
            }
        }
        let opened = card.open().and_then(|card| DeviceStage::load(card, gguf, geometry, place.spec.clone()));
        let failed = |source| StartError::Device { device: device(), source: Box::new(source) };
        return opened.map(|stage| worker(Kind::Card(Box::new(stage)))).map_err(failed);
    }
    pin(place.device.cores[0]);
    let team =
        Team::new(&place.device.cores, helpers).map_err(|source| StartError::Threads { device: device(), source })?;
    let stage = Stage::load(gguf, geometry, place.spec.clone(), offload, &team)
        .map_err(|source| StartError::Memory { device: device(), source })?;
    Ok(worker(Kind::Processor(Box::new(stage), team)))
}

/// How much of its weights each stage on the processor may hold; none where it may hold all.
fn shares(
    gguf: &Gguf,
    geometry: &Geometry,
    places: &[StagePlace],
    budget: Option<(usize, &Path)>,
) -> Result<Vec<Option<Offload>>, StartError> {
    let Some((budget, folder)) = budget else { return Ok(places.iter().map(planned).collect()) };
    let weights = |place: &StagePlace| packed_bytes(gguf, geometry, &place.spec.layers);
    let own: Vec<Option<(Vec<usize>, usize)>> =
        places.iter().map(|place| place.device.card.is_none().then(|| weights(place))).collect();
    let bytes = |(layers, head): &(Vec<usize>, usize)| layers.iter().sum::<usize>() + head;
    let all: usize = own.iter().flatten().map(bytes).sum();
    if all <= budget {
        return Ok(vec![None; places.len()]);
    }
    let share = |(place, own): (&StagePlace, &Option<(Vec<usize>, usize)>)| {
        let Some(own) = own else { return Ok(planned(place)) };
        let budget = (budget as u128 * bytes(own) as u128 / all.max(1) as u128) as usize;
        let least = shelf::least(&own.0) + own.1;
        if budget < least {
            return Err(StartError::Budget { device: place.device.name.clone(), budget, least });
        }
        Ok(Some(Offload { away: Away::Within(budget), folder: folder.to_owned() }))
    };
    places.iter().zip(&own).map(share).collect()
}

/// What the plan leaves elsewhere of a stage. A card brings it from memory and needs no folder.
fn planned(place: &StagePlace) -> Option<Offload> {
    let folder = || place.spec.folder.clone().unwrap_or_else(std::env::temp_dir);
    (place.spec.away > 0).then(|| Offload { away: Away::Layers(place.spec.away), folder: folder() })
}

/// A layer in a file that could not be read.
fn unread(error: &std::io::Error) -> DeviceError {
    DeviceError::Driver {
        device: "the processor".to_owned(),
        during: "reading a layer's weights",
        why: error.to_string(),
    }
}

/// Runs passes until one end of the stage's channels is gone.
fn serve(stage: &mut Worker, inbox: &Receiver<Pass>, outbox: &Sender<Pass>) {
    while let Some(mut pass) = inbox.receive() {
        timed(stage, &mut pass);
        if !outbox.send(pass) {
            return;
        }
    }
}

/// Waits so many thousandths of the time since `begin` longer, watching the clock: a thread that slept would wake late.
fn hold(begin: Instant, thousandths: u32) {
    let until = begin + begin.elapsed() * (1000 + thousandths) / 1000;
    while Instant::now() < until {
        std::hint::spin_loop();
    }
}

/// Runs a pass and notes how long it took, and how long it was on its way before.
fn timed(stage: &mut Worker, pass: &mut Pass) {
    let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let begin = Instant::now();
    if let Some(left) = pass.left {
        pass.between_ns.push(nanoseconds(begin.saturating_duration_since(left)));
    }
    // Until the stage has done with it, held or not, whoever waits on its cores leaves them to it.
    let _at_work = match &stage.kind {
        Kind::Processor(_, team) => Some(team.begin()),
        Kind::Card(_) => None,
    };
    // A pass that a stage could not take goes on to the end, untouched, so that whoever waits for it hears of it.
    if pass.failed.is_none() {
        let head_before = pass.head_ns;
        match &mut stage.kind {
            Kind::Processor(stage, team) => {
                pass.failed = stage.run(team, pass).err().map(|error| Box::new(unread(&error)));
                if let Some(figures) = stage.offloaded() {
                    add_to(&mut pass.offloaded, &figures);
                }
            }
            Kind::Card(stage) => {
                pass.failed = stage.run(pass).err().map(Box::new);
                if let Some(figures) = stage.offloaded() {
                    add_to(&mut pass.offloaded, &figures);
                }
            }
        }
        if stage.held > 0 {
            hold(begin, stage.held);
            let head = pass.head_ns.saturating_sub(head_before);
            pass.head_ns += head * u64::from(stage.held) / 1000;
        }
    }
    let end = Instant::now();
    pass.busy_ns.push(nanoseconds(end.saturating_duration_since(begin)));
    pass.left = Some(end);
    if pass.looks_beside {
        pass.beside.push(match &stage.kind {
            Kind::Processor(_, team) => team.look_beside(),
            Kind::Card(_) => Reading::UNKNOWN,
        });
        let looked = Instant::now();
        pass.looking_ns += nanoseconds(looked.saturating_duration_since(end));
        pass.left = Some(looked);
    }
}
