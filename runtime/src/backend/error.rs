//! What can go wrong with a device, each kind told from the others.

/// Why a device did not do what it was asked.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DeviceError {
    /// The vendor's library or driver is not installed, or does not answer.
    #[error("{backend} has no driver here: {why}; install the driver, or use another backend")]
    NoDriver {
        /// The backend.
        backend: &'static str,
        /// What was missing.
        why: String,
    },
    /// The driver is there, the device is not.
    #[error("{backend} has no device {wanted}; it has {found}")]
    NoSuchDevice {
        /// The backend.
        backend: &'static str,
        /// Number asked for.
        wanted: usize,
        /// Devices there are.
        found: usize,
    },
    /// The device has not that much memory left.
    #[error("{device} has no {wanted} bytes of memory left{}; plan for less on it", match available {
        Some(bytes) => format!(", {bytes} are free"),
        None => String::new(),
    })]
    OutOfMemory {
        /// The device.
        device: String,
        /// Bytes asked for.
        wanted: u64,
        /// Bytes that are free, where the device says so.
        available: Option<u64>,
    },
    /// The device or its driver cannot do this at all.
    #[error("{device} does not support {what}")]
    NotSupported {
        /// The device.
        device: String,
        /// What it cannot do.
        what: String,
    },
    /// The device is gone: unplugged, reset, or its driver failed. What it held is lost; so is everything asked of it
    /// from here on.
    #[error("{device} was lost during {during}: {why}")]
    Lost {
        /// The device.
        device: String,
        /// What was being done.
        during: &'static str,
        /// What the driver said.
        why: String,
    },
    /// The driver refused for a reason of its own.
    #[error("{device} failed in {during}: {why}")]
    Driver {
        /// The device.
        device: String,
        /// What was being done.
        during: &'static str,
        /// The driver's code and words.
        why: String,
    },
    /// The request makes no sense, so no backend was asked.
    #[error("{device}: {refusal}")]
    Refused {
        /// The device.
        device: String,
        /// Why.
        refusal: Refusal,
    },
}

impl DeviceError {
    /// Whether the device is gone for good.
    #[must_use]
    pub const fn is_lost(&self) -> bool {
        matches!(self, Self::Lost { .. })
    }
}

/// What is wrong with a request. Found by [`super::Device`], before a backend sees it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// Nothing was asked for.
    #[error("an allocation of 0 bytes; ask for at least one")]
    Empty,
    /// More than the device can hold in one piece.
    #[error("{bytes} bytes in one piece; at most {limit} are possible")]
    TooLarge {
        /// Bytes asked for.
        bytes: u64,
        /// Most in one piece.
        limit: u64,
    },
    /// Bytes past the end of a buffer.
    #[error("{what}: bytes {offset} to {offset}+{length} of a buffer of {size}")]
    OutOfRange {
        /// What wanted them.
        what: &'static str,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        length: u64,
        /// Bytes of the buffer.
        size: u64,
    },
    /// An operation's operand does not begin at a whole number.
    #[error("{what} begins at byte {offset}, which is no multiple of 4")]
    Unaligned {
        /// The operand.
        what: &'static str,
        /// Its offset.
        offset: u64,
    },
    /// A buffer or matrix that was released before, or never was.
    #[error("{what} {id} is not allocated; it was released before")]
    Freed {
        /// Buffer or matrix.
        what: &'static str,
        /// Its number.
        id: u64,
    },
    /// A handle of another device.
    #[error("{what} {id} belongs to another device")]
    OtherDevice {
        /// Buffer, matrix or event.
        what: &'static str,
        /// Its number.
        id: u64,
    },
    /// What is written overlaps what is read.
    #[error("{op}: {written} overlaps {read}, which is not allowed")]
    Overlap {
        /// The operation.
        op: &'static str,
        /// The operand that is written.
        written: &'static str,
        /// The one that is read.
        read: &'static str,
    },
    /// Shapes that do not belong together.
    #[error("{op}: {why}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// What does not fit.
        why: String,
    },
}
