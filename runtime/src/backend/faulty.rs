//! Devices with a fault, for rehearsals: one that is lost in the middle of its work, one that computes something else
//! than it was asked for, one that leaves the end of a long copy to its peer behind. With them the whole way from a fault to the exit code can be walked on a host without a card.

use super::contract::{
    Backend, BufferId, Counters, DeviceInfo, HostBytes, Limits, Matrix, MatrixId, MemoryInfo, PeerRoute, Readings,
};
use super::error::DeviceError;
use super::op::Op;
use std::any::Any;
use std::time::Duration;

/// The same device, lost at its launch number `launches` (from 0).
#[must_use]
pub fn losing(backend: Box<dyn Backend>, launches: u32) -> Box<dyn Backend> {
    Box::new(Faulty { inner: backend, left: Some(launches), alter: None, clip: None })
}

/// What becomes of an operation.
type Alter = Box<dyn Fn(&Op) -> Op + Send>;

/// The same device, which runs what `alter` makes of each operation.
#[must_use]
pub fn altering(backend: Box<dyn Backend>, alter: Alter) -> Box<dyn Backend> {
    Box::new(Faulty { inner: backend, left: None, alter: Some(alter), clip: None })
}

/// The same device, whose copies to a peer lose their last byte where they have more than so many.
#[must_use]
pub fn clipping(backend: Box<dyn Backend>, bytes: u64) -> Box<dyn Backend> {
    Box::new(Faulty { inner: backend, left: None, alter: None, clip: Some(bytes) })
}

struct Faulty {
    inner: Box<dyn Backend>,
    /// Launches until it is lost.
    left: Option<u32>,
    alter: Option<Alter>,
    /// Bytes of a copy to a peer beyond which its last one is lost.
    clip: Option<u64>,
}

impl Backend for Faulty {
    fn info(&self) -> &DeviceInfo {
        self.inner.info()
    }

    fn limits(&self) -> &Limits {
        self.inner.limits()
    }

    fn allocate(&mut self, id: BufferId, bytes: u64) -> Result<(), DeviceError> {
        self.inner.allocate(id, bytes)
    }

    fn free(&mut self, id: BufferId) -> Result<(), DeviceError> {
        self.inner.free(id)
    }

    fn load(&mut self, matrix: Matrix, packed: &[u8]) -> Result<u64, DeviceError> {
        self.inner.load(matrix, packed)
    }

    fn laid_out(&self, matrix: Matrix, packed: &[u8]) -> Box<dyn HostBytes> {
        self.inner.laid_out(matrix, packed)
    }

    fn refill(&mut self, id: MatrixId, laid_out: &dyn HostBytes) -> Result<(), DeviceError> {
        self.inner.refill(id, laid_out)
    }

    fn unload(&mut self, id: MatrixId) -> Result<(), DeviceError> {
        self.inner.unload(id)
    }

    fn copy_in(&mut self, to: BufferId, offset: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        self.inner.copy_in(to, offset, bytes)
    }

    fn copy_out(&mut self, from: BufferId, offset: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.inner.copy_out(from, offset, bytes)
    }

    fn copy_within(&mut self, from: (BufferId, u64), to: (BufferId, u64), bytes: u64) -> Result<(), DeviceError> {
        self.inner.copy_within(from, to, bytes)
    }

    fn copy_to_peer(
        &mut self,
        from: (BufferId, u64),
        peer: &mut dyn Backend,
        to: (BufferId, u64),
        bytes: u64,
    ) -> Result<Option<PeerRoute>, DeviceError> {
        let carried = if self.clip.is_some_and(|most| bytes > most) { bytes - 1 } else { bytes };
        self.inner.copy_to_peer(from, peer, to, carried)
    }

    fn launch(&mut self, ops: &[Op]) -> Result<(), DeviceError> {
        match &mut self.left {
            Some(0) => self.inner.lose(),
            Some(left) => *left -= 1,
            None => {}
        }
        match &self.alter {
            Some(alter) => self.inner.launch(&ops.iter().map(alter).collect::<Vec<Op>>()),
            None => self.inner.launch(ops),
        }
    }

    fn synchronise(&mut self) -> Result<(), DeviceError> {
        self.inner.synchronise()
    }

    fn record(&mut self, id: u64) -> Result<(), DeviceError> {
        self.inner.record(id)
    }

    fn is_done(&mut self, id: u64) -> Result<bool, DeviceError> {
        self.inner.is_done(id)
    }

    fn wait(&mut self, id: u64) -> Result<(), DeviceError> {
        self.inner.wait(id)
    }

    fn elapsed(&mut self, from: u64, to: u64) -> Result<Option<Duration>, DeviceError> {
        self.inner.elapsed(from, to)
    }

    fn forget(&mut self, id: u64) {
        self.inner.forget(id);
    }

    fn memory(&mut self) -> Result<MemoryInfo, DeviceError> {
        self.inner.memory()
    }

    fn readings(&mut self) -> Result<Readings, DeviceError> {
        self.inner.readings()
    }

    fn counters(&self) -> Counters {
        self.inner.counters()
    }

    fn lose(&mut self) {
        self.inner.lose();
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self.inner.as_any()
    }
}
