//! May this request enter at all?

pub mod bearer;
pub mod entrance;
pub mod media;
pub mod mirror;
pub mod origin;
pub mod params;
pub mod rate_limit;
