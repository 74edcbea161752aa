//! The private unix socket between the commands and the agent.
//!
//! JSON over HTTP/1.1: [`api`] is what is said, [`server`] the agent's side of it, [`client`] the commands'. [`socket`]
//! makes the socket so that only its owner can reach it; [`stream`] ends a connection whose other end stopped reading.
//! Nothing here knows what a policy is: the agent answers through [`server::Agent`].

pub mod api;
pub mod client;
pub mod server;
pub mod socket;
pub mod stream;

#[cfg(test)]
mod tests;
