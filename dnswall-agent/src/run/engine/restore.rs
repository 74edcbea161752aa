//! Compares what the kernel judges by with the policy that decides, and publishes that again.

use super::{Engine, Publish, name_rules};
use crate::kernel::PublishError;

impl Engine {
    /// Names of the maps that hold something else than was published (see [`crate::kernel::Wall::changed`]).
    pub fn changed(&self, thoroughly: bool) -> Vec<&'static str> {
        self.wall.changed(&self.running.image, thoroughly)
    }

    /// Publishes the policy that decides again after somebody changed the maps, and gives the new generation.
    ///
    /// # Errors
    /// When the kernel refuses; the maps are as they were.
    pub fn restore(&mut self) -> Result<u32, PublishError> {
        let Self { wall, running, book, .. } = self;
        // Named before the first event can carry the number, which the maps may not tell any more.
        name_rules(book, running, running.generation.checked_add(1).unwrap_or(1));
        running.generation = wall.restore(&mut running.image)?;
        name_rules(book, running, running.generation);
        debug_assert_ne!(running.generation, wall.next_generation());
        Ok(running.generation)
    }
}
