//! Permissions, and the roles that group them.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

macro_rules! permissions {
    ($($(#[$doc:meta])* $permission:ident = $name:literal,)*) => {
        /// Something that may be done with a device.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub enum Permission {
            $($(#[$doc])* $permission,)*
        }

        impl Permission {
            /// Every permission.
            pub const ALL: [Self; 15] = [$(Self::$permission,)*];

            /// Its name, in policies, leases and the log.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$permission => $name,)*
                }
            }
        }
    };
}

permissions! {
    /// See which devices there are.
    DeviceList = "device:list",
    /// See what a device is.
    DeviceInfo = "device:info",
    /// Take a device for oneself.
    DeviceAllocate = "device:allocate",
    /// Take memory of a device.
    MemoryAllocate = "memory:allocate",
    /// Give memory back.
    MemoryDeallocate = "memory:deallocate",
    /// Copy from host to device.
    MemoryCopyToDevice = "memory:copy_to_device",
    /// Copy from device to host.
    MemoryCopyFromDevice = "memory:copy_from_device",
    /// Copy from device to device.
    MemoryCopyDeviceToDevice = "memory:copy_device_to_device",
    /// Compute.
    ComputeExecute = "compute:execute",
    /// Wait for what computes.
    ComputeSynchronize = "compute:synchronize",
    /// Read memory use.
    MonitorMemory = "monitor:memory",
    /// Read temperatures.
    MonitorTemperature = "monitor:temperature",
    /// Read power draw.
    MonitorPower = "monitor:power",
    /// Read clock rates.
    MonitorClock = "monitor:clock",
    /// Change who may do what, and keep the log.
    AdminFullAccess = "admin:full_access",
}

/// A name that is no permission or role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is no {what}; there are {known}")]
pub struct Unknown {
    what: &'static str,
    found: String,
    known: String,
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Permission {
    type Err = Unknown;

    fn from_str(name: &str) -> Result<Self, Unknown> {
        Self::ALL.into_iter().find(|permission| permission.name() == name).ok_or_else(|| Unknown {
            what: "permission",
            found: name.chars().take(80).collect(),
            known: Self::ALL.map(Self::name).join(", "),
        })
    }
}

impl TryFrom<String> for Permission {
    type Error = Unknown;

    fn try_from(name: String) -> Result<Self, Unknown> {
        name.parse()
    }
}

impl From<Permission> for String {
    fn from(permission: Permission) -> Self {
        permission.name().to_owned()
    }
}

/// What somebody is to the cluster. What a role may do is in the policies alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Looks, touches nothing.
    Monitor,
    /// Runs jobs on devices that somebody gave.
    User,
    /// Takes devices, moves data between them, watches them.
    PowerUser,
    /// Everything, changing these rules included.
    Admin,
}

impl Role {
    /// Every role, the weakest first.
    pub const ALL: [Self; 4] = [Self::Monitor, Self::User, Self::PowerUser, Self::Admin];

    /// Its name in policies.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Monitor => "monitor",
            Self::User => "user",
            Self::PowerUser => "power_user",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = Unknown;

    fn from_str(name: &str) -> Result<Self, Unknown> {
        Self::ALL.into_iter().find(|role| role.name() == name).ok_or_else(|| Unknown {
            what: "role",
            found: name.chars().take(80).collect(),
            known: Self::ALL.map(Self::name).join(", "),
        })
    }
}
