//! The numbered columns that came after the boundary was frozen. Numbers are never reused.

/// Whether the host runs; see [`power`].
pub const POWER: u16 = 1;
/// How thoroughly the disks were last erased; see [`erase`].
pub const ERASE_LEVEL: u16 = 2;
/// How often the present step of the host's life has failed in a row; 0 for a host that is well.
pub const FAILURES: u16 = 3;
/// 1 while a claim has the host; the claim's tenant cluster is then the host's last tenant.
pub const OCCUPIED: u16 = 4;
/// When the host was last attested, in seconds since 1970-01-01 UTC; 0 for never. From the label
/// `security.vmetal.dev/attested-at`.
pub const ATTESTED: u16 = 5;

/// Cells of [`POWER`].
pub mod power {
    /// Not known, or on its way up or down.
    pub const UNKNOWN: u64 = 0;
    /// Not running.
    pub const OFF: u64 = 1;
    /// Running: a host that is available and on need not wait for its firmware.
    pub const ON: u64 = 2;
}

/// Cells of [`ERASE_LEVEL`]; the larger, the more thorough.
pub mod erase {
    /// Never erased after a tenancy.
    pub const NEVER: u64 = 0;
    /// Partition tables and signatures were removed; data is still there.
    pub const METADATA: u64 = 1;
    /// Every block was discarded, and samples were read back.
    pub const DISCARD: u64 = 2;
    /// Every block was overwritten, and samples were read back.
    pub const OVERWRITE: u64 = 3;
}

/// Columns of node types.
pub mod offer {
    /// What a host of the type draws, in watts; 0 where it is not known. From the property `cost.vmetal.dev/watts`.
    pub const WATTS: u16 = 1;
    /// Free hosts of the type that are on already.
    pub const STANDBY: u16 = 2;
    /// How many more hosts of the type the claim's tenant cluster may hold by its quota; [`UNLIMITED`] where none limits it.
    pub const QUOTA_LEFT: u16 = 3;

    /// A cell of [`QUOTA_LEFT`].
    pub const UNLIMITED: u64 = u64::MAX;
}
