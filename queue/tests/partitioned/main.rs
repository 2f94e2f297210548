//! Anything may happen to a partitioned queue, at any time, and it does what a naive one would.

#[cfg(test)]
mod rig;
#[cfg(test)]
mod scenes;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod timers;
#[cfg(test)]
mod work;
