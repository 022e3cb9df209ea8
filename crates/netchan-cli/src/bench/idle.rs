//! stub
use crate::Failure;
pub(super) async fn run(_ends: usize, _json: bool) -> Result<bool, Failure> {
    Err("not yet".into())
}
