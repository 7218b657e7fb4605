#![allow(clippy::unwrap_used)]

mod cluster;
mod deletion;
mod disable;
mod image;
mod job;
mod nodes;
mod places;
mod restarts;
mod samples;
