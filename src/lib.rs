
pub mod proto;
