//! runc and crun by themselves: `/run/runc/ID/state.json` (runc's `libcontainer` state, 1.0 and later) and `/run/crun/ID/` (crun
//! copies the configuration there). Neither knows of images.

use std::path::Path;

use super::find::Seeker;
use super::oci::annotations;
use super::place::{FILE_BYTES_MAX, Place};
use super::{Container, Runtime};

/// The container of this id.
pub fn find(seeker: &Seeker, id: &str) -> Option<Container> {
    let read = |root: &str, file: &str| {
        Place::open(seeker.host(), Path::new(root))?.read(format!("{id}/{file}"), FILE_BYTES_MAX)
    };
    let runtime = if read("/run/runc", "state.json").is_some_and(|state| is_state_of(&state, id)) {
        Runtime::Runc
    } else {
        annotations(&read("/run/crun", "config.json")?)?;
        Runtime::Crun
    };
    Some(Container { name: None, image: None, runtime, pod: None })
}

fn is_state_of(state: &[u8], id: &str) -> bool {
    /// What is read of it.
    #[derive(serde::Deserialize)]
    struct State {
        id: String,
    }
    serde_json::from_slice::<State>(state).is_ok_and(|state| state.id == id)
}
