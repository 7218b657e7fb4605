#![allow(clippy::unwrap_used)]

mod cluster;
mod deletion;
mod disable;
mod image;
mod job;
mod job_limit;
mod nodes;
mod restarts;
mod samples;
