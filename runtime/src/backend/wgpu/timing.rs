//! Events, and the device's own clock where it has one.

use super::super::error::DeviceError;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use wgpu::{
    BufferDescriptor, BufferUsages, CommandEncoder, Device, Features, QuerySet, QuerySetDescriptor, QueryType, Queue,
    SubmissionIndex,
};

/// Times that are kept: events older than so many lose theirs.
const SLOTS: u32 = 256;
/// Bytes of one time.
const TIME_BYTES: u64 = 8;

/// One event.
pub(super) struct Mark {
    pub(super) done: Arc<AtomicBool>,
    pub(super) submission: SubmissionIndex,
    /// Which recording it was, counted from 0.
    ordinal: u32,
}

/// All events of a device.
pub(super) struct Events {
    marks: BTreeMap<u64, Mark>,
    clock: Option<(QuerySet, wgpu::Buffer, f32)>,
    recorded: u32,
}

impl Events {
    pub(super) fn new(device: &Device, queue: &Queue) -> Self {
        let needed = Features::TIMESTAMP_QUERY.union(Features::TIMESTAMP_QUERY_INSIDE_ENCODERS);
        let clock = device.features().contains(needed).then(|| {
            let descriptor = QuerySetDescriptor { label: None, ty: QueryType::Timestamp, count: SLOTS };
            let buffer = BufferDescriptor {
                label: None,
                size: TIME_BYTES * u64::from(SLOTS),
                usage: BufferUsages::QUERY_RESOLVE | BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            };
            (device.create_query_set(&descriptor), device.create_buffer(&buffer), queue.get_timestamp_period())
        });
        Self { marks: BTreeMap::new(), clock, recorded: 0 }
    }

    /// None at all, and no clock.
    pub(super) fn none() -> Self {
        Self { marks: BTreeMap::new(), clock: None, recorded: 0 }
    }

    /// Writes the time into the encoder that ends with the next event.
    pub(super) fn stamp(&self, encoder: &mut CommandEncoder) {
        if let Some((set, ..)) = &self.clock {
            encoder.write_timestamp(set, self.recorded % SLOTS);
        }
    }

    /// Adds an event whose time was [`stamp`](Self::stamp)ed into this submission.
    pub(super) fn add(&mut self, id: u64, queue: &Queue, submission: SubmissionIndex) {
        let done = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&done);
        queue.on_submitted_work_done(move || flag.store(true, Ordering::Release));
        self.marks.insert(id, Mark { done, submission, ordinal: self.recorded });
        self.recorded = self.recorded.wrapping_add(1);
    }

    pub(super) fn get(&self, id: u64) -> Option<&Mark> {
        self.marks.get(&id)
    }

    pub(super) fn forget(&mut self, id: u64) {
        self.marks.remove(&id);
    }

    /// Where the times of two events are read: the set, a buffer to resolve into, both slots, nanoseconds of a tick.
    fn slots(&self, from: u64, to: u64) -> Option<(&QuerySet, &wgpu::Buffer, [u32; 2], f32)> {
        let (set, buffer, period) = self.clock.as_ref()?;
        let slot = |id: u64| {
            let ordinal = self.marks.get(&id)?.ordinal;
            (self.recorded.wrapping_sub(ordinal) <= SLOTS).then_some(ordinal % SLOTS)
        };
        Some((set, buffer, [slot(from)?, slot(to)?], *period))
    }

    /// Time between two events that are done. `read` resolves and reads the whole buffer of times.
    pub(super) fn elapsed(
        &self,
        from: u64,
        to: u64,
        read: impl FnOnce(&QuerySet, &wgpu::Buffer, u64) -> Result<Vec<u8>, DeviceError>,
    ) -> Result<Option<Duration>, DeviceError> {
        let Some((set, buffer, slots, period)) = self.slots(from, to) else { return Ok(None) };
        let bytes = read(set, buffer, TIME_BYTES * u64::from(SLOTS))?;
        let time = |slot: u32| {
            let at = slot as usize * 8;
            u64::from_le_bytes(bytes[at..at + 8].try_into().expect("a range of eight bytes has eight bytes"))
        };
        let ticks = time(slots[1]).saturating_sub(time(slots[0]));
        Ok(Some(Duration::from_nanos((ticks as f64 * f64::from(period)) as u64)))
    }
}

/// Queries of [`Events`].
pub(super) const ALL_SLOTS: std::ops::Range<u32> = 0..SLOTS;
